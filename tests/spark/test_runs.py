"""Checks the log files of runs, and the ledger rows of tasks that failed before writing one."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from contextlib import ExitStack
from datetime import date, datetime, timedelta, timezone

import pytest

from jobs import ledger, settings, warehouse
from jobs.catalog import CATALOG
from jobs.landing import landing_path
from pipelines import health, runs
from pipelines.task_log import Failed
from pipelines.tasks import Bronze, record_death

KILLED = """
import os
from datetime import date
from jobs import ledger, warehouse
with warehouse.connect() as connection, ledger.run(connection, "bronze", "patients", date({year}, 1, 1), ""):
    print("half way", flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def task(hospital, monkeypatch):
    """Returns a task as Luigi has it while a worker runs it."""
    task = Bronze(dataset="patients", date=hospital.day(1))
    monkeypatch.setattr(task, "set_status_message", lambda text: None)
    return task


def rows(hospital):
    found = hospital.postgres.execute(
        "select layer, dataset, outcome, error, log from ops.ledger where partition_date = %s order by turn",
        [hospital.day(1)],
    )
    return found.fetchall()


def test_a_job_that_is_killed_ends_in_the_ledger_and_in_the_file_of_its_run(hospital, task, tmp_path):
    script = tmp_path / "landing_to_bronze.py"
    script.write_text(KILLED.format(year=hospital.year))
    with pytest.raises(Failed) as failed:
        task.job(str(script), "patients", str(task.date))
    sentence = f"landing_to_bronze patients {task.date} was killed (SIGKILL); run the date again."
    assert str(failed.value) == sentence
    assert [outcome for _, _, outcome, _, _ in rows(hospital)] == ["running"]
    assert task.on_failure(failed.value) == sentence
    log = f"{task.date}/{runs.STARTED}.log"
    assert rows(hospital) == [("bronze", "patients", "failed", sentence, log)]
    file = runs.home() / log
    assert file.stat().st_mode & 0o777 == 0o600
    said = [line.partition(" ")[2] for line in file.read_text().splitlines()]
    assert said == [f"landing_to_bronze patients {task.date}: half way", f"Bronze: {sentence}"]


def test_a_name_of_a_file_s_column_is_no_script_on_luigis_page(hospital, task, monkeypatch):
    header = ",".join(
        ["patient_id", "gender", "birth_date", "city", "registration_date", "<img src=x onerror=alert(1)>"]
    )
    hospital.land("patients", 1)
    landing_path(CATALOG["patients"], task.date).write_text(f"{header}\n")
    shown = []
    monkeypatch.setattr(task, "set_status_message", shown.append)
    task.run()
    assert "columns nobody declared stay behind: '&lt;img src=x onerror=alert(1)&gt;'" in "".join(shown)
    assert "<" not in "".join(shown)


def test_a_failure_while_postgresql_is_down_is_in_the_ledger_once_it_is_back(hospital, task, monkeypatch):
    sentence = "PostgreSQL at 127.0.0.1:9 does not answer; start the stack with `make up`."
    with monkeypatch.context() as down:
        down.setenv("POSTGRES_PORT", "9")
        task.on_failure(Failed(sentence))
    assert rows(hospital) == [] and runs.pending().stat().st_mode & 0o077 == 0
    runs.record_pending(hospital.postgres)
    [(layer, dataset, outcome, error, log)] = rows(hospital)
    assert (layer, dataset, outcome, error) == ("bronze", "patients", "failed", sentence)
    assert log == runs.log(task.date) and not runs.pending().exists()
    never = hospital.postgres.execute("select error from ops.never_ran where partition_date = %s", [task.date])
    assert never.fetchall() == [(sentence,)]

    with monkeypatch.context() as down:
        down.setenv("POSTGRES_PORT", "9")
        task.on_failure(Failed(sentence))
    hospital.land("patients", 1, hospital.row("patients", "P1"))
    hospital.bronze("patients", 1)
    runs.record_pending(hospital.postgres)
    assert [outcome for _, _, outcome, _, _ in rows(hospital)] == ["failed", "done"], "it has run since"


def test_a_task_that_took_too_long_is_in_the_ledger(hospital, task):
    record_death(task, f"Task {task.task_id} timed out after 21600 seconds and was terminated.")
    [(_, _, outcome, error, _)] = rows(hospital)
    assert outcome == "failed" and "took longer than [worker] timeout in conf/luigi.cfg allows" in error


def test_the_ledger_tells_landed_files_from_those_that_never_came(hospital):
    from pipelines.ledger_report import ledger_of

    def never_came(lines):  # of all hospitals: other tests leave landed files and rows in gold
        [late] = [line for line in lines if line.startswith(f"  patients    newest {hospital.day(4)}")]
        return int(re.search(r"([\d,]+) earlier dates never came", late)[1].replace(",", ""))

    for number in (1, 4):
        hospital.validate("patients", number, hospital.row("patients", f"P{number}"))
        hospital.load("patients", number)
    before = never_came(ledger_of(1000).splitlines())
    hospital.land("patients", 2, hospital.row("patients", "P2"))
    lines = ledger_of(1000).splitlines()
    assert f"  {hospital.day(2)!s:<12}patients; make run DATE={hospital.day(2)}" in lines
    assert [line for line in lines if line.startswith(f"{hospital.day(1)}") and "NOT complete, NOT balanced" in line]
    assert never_came(lines) == before - 1


def test_files_of_old_runs_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("STACK_DIR", str(tmp_path))
    runs.add(date(2026, 1, 1), "Bronze", "old")
    runs.add(date(2026, 1, 2), "Bronze", "new")
    old, new = (runs.home() / runs.log(date(2026, 1, day)) for day in (1, 2))
    os.utime(old, (0, 0))
    assert runs.remove(datetime.now() - timedelta(days=90)) == 1
    assert not old.parent.exists() and new.is_file()


def test_a_date_tells_its_state(hospital):
    """Follows a date from its first file until it is stopped."""

    def state():
        query = "select state, why from ops.dates where partition_date = %s"
        return hospital.postgres.execute(query, [hospital.day(1)]).fetchone()

    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    assert state()[0] == "incomplete"
    with warehouse.connect() as other, ledger.run(other, "silver", "visits", hospital.day(1), "") as row:
        assert state()[0] == "running"
        ledger.note(other, row | {"outcome": "failed", "error": "broken"})
    assert state()[0] == "failed" and "visits has not come, last silver failed: broken" in state()[1]
    ledger.record_failure(
        hospital.postgres, "run", "all", hospital.day(1), "log", "nobody home", datetime.now(timezone.utc)
    )
    assert state()[0] == "failed" and "; the last run failed: nobody home" in state()[1]


def test_a_job_that_has_been_running_for_hours_is_told(hospital):
    with warehouse.connect() as other, ledger.run(other, "silver", "visits", hospital.day(1), "") as row:
        assert list(health.long_runs(hospital.postgres)) == []
        hospital.postgres.execute(
            "update ops.ledger set started_at = now() - interval '10 days' where run_id = %s", [row["run_id"]]
        )
        [line] = health.long_runs(hospital.postgres)
        assert line.startswith(f"{hospital.day(1)} silver visits has been running for 14,4")
    assert list(health.long_runs(hospital.postgres)) == []


def test_a_load_that_changes_nothing_makes_no_mart_old(hospital):
    from jobs.gold_to_marts import gold_to_marts

    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    assert "next: luigi --module pipelines GoldPipeline" in ledger.remaining(hospital.day(1))
    hospital.load("patients", 1)
    gold_to_marts(hospital.day(1))
    before = ledger.gold_state(hospital.postgres)
    file = hospital.landing / f"{hospital.day(1):%Y/%m/%d}" / "patients.csv"
    file.write_text(file.read_text() + "\n")  # other bytes, the same row
    hospital.bronze("patients", 1)
    from jobs.bronze_to_silver import bronze_to_silver

    bronze_to_silver(CATALOG["patients"], hospital.day(1))
    assert hospital.load("patients", 1).endswith("0 inserted, 0 updated, 1 unchanged, 0 removed")
    assert ledger.gold_state(hospital.postgres) == before
    assert ledger.behind(hospital.postgres, CATALOG["patients"]) == []


def test_a_person_at_a_terminal_sees_how_far_a_run_is(stack):
    command = [sys.executable, "-m", "pipelines", "run", "2027-01-03"]
    screen, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    seen = b""
    with (
        warehouse.connect() as connection,
        ExitStack() as waits,
        subprocess.Popen(command, cwd=settings.ROOT, stdout=theirs, stderr=theirs) as run,
    ):
        os.close(theirs)
        waits.enter_context(warehouse.writer(connection, "bronze visits 2027-01-03"))
        while True:
            try:
                seen += os.read(screen, 4096)
            except OSError:  # the last writer has closed it
                break
            if re.search(rb"tasks, \d\d:\d\d, .*Bronze visits \d+ s", seen):
                waits.close()
    os.close(screen)
    text = seen.decode()
    assert run.returncode == 30
    assert re.search(r"\r\d+ of \d+ tasks, \d\d:\d\d", text), text
    assert re.search(r"tasks, \d\d:\d\d, .*Bronze visits \d+ s", text), text
    lines = [line.rpartition("\r\x1b[K")[2] for line in text.split("\r\n")]
    missing = [line for line in lines if "has not landed" in line]
    assert len(missing) == len(set(missing)) == 5, "each failure is told once"
    assert "Its output is in " in lines[-2]
    assert time.time() - (runs.home() / "2027-01-03").stat().st_mtime < 600
