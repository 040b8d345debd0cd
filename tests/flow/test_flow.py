"""Runs whole dates through Luigi on the real stack and compares them with the generator's manifest."""

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import date, datetime, timezone

import pytest

from dashboards import cards
from jobs import delta_tables, lake_paths, marts, object_store, settings
from jobs.catalog import CATALOG
from jobs.landing import landing_path
from pipelines import scheduler
from tests.support import score
from tests.support.metabase import Metabase
from tests.unit.test_openlineage import VALIDATOR, receiver, wait_for

FIRST, LAST = date(2026, 1, 1), date(2026, 1, 4)
MARTS = ("mart_daily_kpis", "mart_department_stats", "mart_patient_stats")
NOT_CONTENT = {"_run_id", "_loaded_at"}


def call(*words, **environment):
    """Runs a command as a person would; returns output and errors together."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=settings.ROOT,
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def luigi(*words, **environment):
    return call("-m", "luigi", "--module", "pipelines", *words, **environment)


def state(postgres):
    """Returns a hash of each gold table and mart over all rows and columns, except the run's marks."""
    found = {}
    for table in (*CATALOG, *MARTS):
        columns = postgres.execute(f"select * from {table} limit 0").description
        names = ", ".join(column.name for column in columns if column.name not in NOT_CONTENT)
        rows = sorted(map(repr, postgres.execute(f"select {names} from {table}")))
        found[table] = (len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest())
    return found


@pytest.fixture(scope="module")
def lineage_server():
    """Yields a server that receives lineage events, with the events that it received."""
    with receiver() as server:
        yield server


@pytest.fixture(scope="module")
def dates(stack, lineage_server):
    """Loads four dates of a small hospital through all layers by one backfill."""
    for day in score.days(FIRST, LAST):
        assert call("-m", "jobs.generate", str(day), "--scale", "0.5").returncode == 0
    (stack / "lineage" / "events.jsonl").unlink(missing_ok=True)  # those of other tests
    done = call("-m", "pipelines", "backfill", str(FIRST), str(LAST), OPENLINEAGE_URL=lineage_server[0])
    assert done.returncode == 0, done.stdout[-4000:]
    why = [line for line in done.stdout.splitlines() if re.search("error| failed ", line, re.I)]
    assert not why, "a task of the backfill failed and was tried again"
    return done.stdout


def test_a_backfill_puts_many_dates_into_one_job(dates, stack, postgres):
    assert dates.splitlines()[-1].startswith(f"{FIRST} to {LAST}: 4 of 4 dates are done: "), dates[-4000:]
    days = {str(day) for day in score.days(FIRST, LAST)}
    for layer in ("silver", "gold"):
        found = postgres.execute(
            "select dataset, count(distinct partition_date) from ops.ledger where layer = %s and outcome = 'done' "
            "and partition_date between %s and %s group by dataset",
            [layer, FIRST, LAST],
        ).fetchall()
        assert dict(found) == dict.fromkeys(CATALOG, 4), "each date has its own account"
    with closing(sqlite3.connect(stack / "luigi" / "history.db")) as history:
        told = history.execute(
            "select tasks.name, dataset.value, date.value from tasks "
            "join task_parameters as date on date.task_id = tasks.id and date.name = 'date' "
            "join task_parameters as dataset on dataset.task_id = tasks.id and dataset.name = 'dataset'"
        ).fetchall()
    whole = {(layer, name, ",".join(sorted(days))) for layer in ("Silver", "Gold") for name in CATALOG}
    assert whole <= {*told}, "all dates of a dataset ran as one"
    assert {("Silver", name, day) for name in CATALOG for day in days} <= {*told}, "and each has its own page"


def test_each_date_of_a_backfill_leaves_a_graph_from_its_files_to_the_marts(dates, stack, lineage_server):
    told = [json.loads(line) for line in (stack / "lineage" / "events.jsonl").read_text().splitlines()]
    wait_for(lambda: len(lineage_server[1]) >= len(told))
    by_run = lambda event: (event["run"]["runId"], event["eventType"])  # noqa: E731
    assert sorted(map(by_run, (event for *_, event in lineage_server[1]))) == sorted(map(by_run, told))
    for event in told:
        VALIDATOR.validate(event)
    kinds = {kind: {e["run"]["runId"] for e in told if e["eventType"] == kind} for kind in ("START", "COMPLETE")}
    assert kinds["START"] == kinds["COMPLETE"] and not [e for e in told if e["eventType"] == "FAIL"]
    done = [event for event in told if event["eventType"] == "COMPLETE"]
    ahead = {
        (each["namespace"], each["name"]) for event in done for each in event["inputs"] if each["namespace"] == "file"
    }
    files = {f"{day:%Y/%m/%d}/{name}.csv" for day in score.days(FIRST, LAST) for name in CATALOG}
    assert {"/".join(name.split("/")[-4:]) for _, name in ahead} == files
    reached = set()
    while ahead - reached:
        reached |= ahead
        ahead = {
            (each["namespace"], each["name"])
            for event in done
            if reached & {(each["namespace"], each["name"]) for each in event["inputs"]}
            for each in event["outputs"]
        }
    tables = {name.partition(".")[2] for space, name in reached if space.startswith("postgres:")}
    assert tables == {name if "." in name else f"public.{name}" for name in (*CATALOG, *marts.selects())}


def test_a_date_that_is_refused_leaves_the_others_of_a_backfill_alone(stack, postgres):
    """Puts one file in bronze with another program, under a header that lacks a column."""
    days = [date(2025, 12, number) for number in (1, 2, 3)]
    for day in days:
        for name, dataset in CATALOG.items():
            if (day, name) == (days[1], "patients"):
                bucket, header = settings.get("MINIO_BUCKET_BRONZE"), ",".join(dataset.names[:-1])
                object_store.s3().put_object(
                    Bucket=bucket, Key=lake_paths.bronze_key(dataset, day), Body=f"{header}\n".encode()
                )
                continue
            landing_path(dataset, day).parent.mkdir(parents=True, exist_ok=True)
            landing_path(dataset, day).write_text(",".join(dataset.names) + "\n")
    done = call("-m", "pipelines", "backfill", str(days[0]), str(days[2]), FUTURE="1")
    assert done.returncode and "2 of 3 dates are done" in done.stdout.splitlines()[-1], done.stdout[-4000:]
    assert "lacks the column 'registration_date'" in done.stdout
    states = postgres.execute("select partition_date, state from ops.dates where partition_date = any(%s)", [days])
    assert dict(states.fetchall()) == {days[0]: "done", days[1]: "failed", days[2]: "done"}
    for table in ("ops.ledger", "ops.receipts", "ops.reasons"):  # what is left of files without rows
        postgres.execute(f"delete from {table} where partition_date = any(%s)", [days])
    for day in days:
        shutil.rmtree(landing_path(CATALOG["patients"], day).parent)


def test_every_injected_defect_is_rejected_with_its_reasons_and_no_other_row(dates, spark):
    expected, found = score.injected(FIRST, LAST), score.rejected(spark, FIRST, LAST)
    codes = {(name, code) for name, dataset in CATALOG.items() for code in dataset.reasons}
    assert set(score.score(expected, found)) == codes, "every reason code occurs"
    assert {code for code, (_, *both) in score.score(expected, found).items() if both != [1.0, 1.0]} == set()
    assert expected == found


def test_every_row_is_accounted_for(dates, postgres):
    unbalanced = postgres.execute(
        "select count(*) from ops.ledger where layer = 'silver' and outcome = 'done' "
        "and bronze_rows is distinct from accepted + rejected"
    )
    assert [tuple(row) for row in unbalanced] == [(0,)]


def test_gold_is_the_newest_accepted_version_of_every_key(dates, postgres, spark):
    for name, dataset in CATALOG.items():
        columns, newest = ("_partition_date", *dataset.names), {}
        # The test's hospital removes its rows from ledger and gold at the end; its partitions stay in silver.
        known = postgres.execute(
            "select partition_date from ops.receipts where layer = 'silver' and dataset = %s", [name]
        )
        days = ", ".join(f"'{day}'" for (day,) in known)
        rows = delta_tables.silver(spark, dataset).filter(f"_partition_date in ({days})")
        for row in rows.select(*columns).orderBy("_partition_date").collect():
            newest[row[1]] = tuple(row)
        gold = postgres.execute(f"select {', '.join(columns)} from {name}")
        assert {row[1]: tuple(row) for row in gold} == newest


def test_a_date_that_has_run_is_current_and_says_so(dates):
    again = call("-m", "pipelines", "run", str(LAST))
    assert again.returncode == 0 and "is current" in again.stdout and "INFO" not in again.stdout


def test_a_date_that_another_run_has_in_hand_is_waited_for(dates):
    from jobs import warehouse

    command = [sys.executable, "-m", "pipelines", "run", str(LAST)]
    with (
        warehouse.connect() as connection,
        warehouse.writer(connection, f"the date {LAST}"),
        subprocess.Popen(
            command, cwd=settings.ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as run,
    ):
        assert run.stdout.readline() == f"waiting: another run is writing the date {LAST}\n"
        connection.execute("select pg_advisory_unlock_all()")
        assert "is current" in run.stdout.read()
    assert run.returncode == 0


def test_a_partition_that_another_date_has_revalidated_breaks_no_task_of_this_run(dates, postgres, monkeypatch):
    from pipelines import tasks

    own = "layer = 'silver' and dataset = 'visits' and partition_date = %s"
    [[turn, made_from]] = postgres.execute(f"select turn, made_from from ops.receipts where {own}", [FIRST]).fetchall()
    of_this_run = tasks.Silver(dataset="visits", date=FIRST), tasks.Gold(dataset="visits", date=FIRST)
    try:
        postgres.execute(
            f"update ops.receipts set made_from = '' where {own}", [FIRST]
        )  # as the invalidation of a marker does
        monkeypatch.setattr(tasks, "session", lambda: turn)
        assert all(task.made_in() for task in of_this_run)
        monkeypatch.setattr(tasks, "session", lambda: turn + 1)
        assert not any(task.made_in() for task in of_this_run), "a run that begins now makes it anew"
    finally:
        postgres.execute(f"update ops.receipts set made_from = %s where {own}", [made_from, FIRST])


def test_a_worker_that_died_with_a_task_in_hand_is_known_until_luigid_has_noticed(stack):
    from pipelines import tasks
    from pipelines.worker import is_a_worker_missed

    lost = tasks.Silver(dataset="patients", date=date(2001, 1, 1))
    ghost, luigid = {"worker": "ghost", "task_id": lost.task_id}, scheduler.luigid()
    luigid.add_worker("ghost", [])
    once = {"retry_policy_dict": {"retry_count": 1}}
    scheduler.disabled.cache_clear()
    scheduler.disabled()
    luigid.add_task(**ghost, **once, family="Silver", params={}, status="PENDING")
    assert not is_a_worker_missed(), "it has nothing in hand"
    assert luigid.get_work(worker="ghost", host="nowhere")["task_id"] == lost.task_id
    assert is_a_worker_missed()
    luigid.add_task(**ghost, status="FAILED")  # as luigid does when it gives up a worker
    assert lost.task_id in luigid.task_list("DISABLED", "") and is_a_worker_missed()
    scheduler.disabled.cache_clear()
    assert not is_a_worker_missed(), "an earlier run failed it"
    lost.deps()
    assert lost.task_id not in luigid.task_list("DISABLED", "")
    luigid.add_task(**ghost, status="DONE")
    assert not is_a_worker_missed()


def test_a_scheduler_that_is_down_is_said_in_a_sentence(stack):
    down = luigi("Day", "--date", str(FIRST), LUIGI_PORT="9")
    assert down.returncode == 40 and "luigid does not answer" in down.stdout
    assert "Traceback" not in down.stdout and "NoneType" not in down.stdout


def test_a_forced_rerun_of_the_first_date_changes_nothing_but_what_a_hand_did_to_a_mart(dates, postgres):
    before = state(postgres)
    assert all(rows for rows, _ in before.values())
    postgres.execute("update mart_department_stats set avg_los_days = 9")  # no check detects this
    assert state(postgres) != before
    done = call("-m", "pipelines", "run", str(FIRST), "--force")
    assert done.returncode == 0, done.stdout[-4000:]
    assert state(postgres) == before
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(
        f"{FIRST} is done: [0-9,]+ rows = [0-9,]+ accepted \\+ [0-9,]+ rejected, [1-9][0-9]* tasks, [0-9]+ s", last
    )


def test_maintenance_beside_a_run_changes_no_figure_and_makes_no_date_due(dates, postgres):
    before = state(postgres)
    run = [sys.executable, "-m", "pipelines", "run", str(LAST), "--force"]
    with subprocess.Popen(run, cwd=settings.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as beside:
        maintained = call("-m", "pipelines", "maintain")
        assert maintained.returncode == 0 and maintained.stdout.count("silver ") >= 10, maintained.stdout[-4000:]
        assert beside.wait() == 0, beside.stdout.read()[-4000:]
    assert state(postgres) == before
    for day in score.days(FIRST, LAST):
        assert "is current" in call("-m", "pipelines", "run", str(day)).stdout


def test_a_corrected_file_makes_its_date_due_and_its_rows_leave_and_return(dates, postgres):
    before = state(postgres)
    path = settings.path("LANDING_DIR") / "2026/01/02/patients.csv"
    original = path.read_bytes()
    path.write_bytes(original.splitlines(keepends=True)[0])  # the corrected file says that nobody registered
    assert call("-m", "pipelines", "run", "2026-01-02").returncode == 0
    shrunk = state(postgres)
    assert shrunk["patients"][0] < before["patients"][0] and shrunk["visits"][0] < before["visits"][0]
    path.write_bytes(original)
    done = call("-m", "pipelines", "run", "2026-01-02")
    assert done.returncode == 0 and "current" not in done.stdout
    assert state(postgres) == before


def test_the_schedule_catches_up_what_was_missed_and_a_task_that_fails_for_good_is_tried_once(
    dates, postgres, monkeypatch, capfd
):
    from pipelines import schedule

    before = state(postgres)
    for day, datasets in {"2026/01/05": CATALOG, "2026/01/06": ["patients"]}.items():
        folder = settings.path("LANDING_DIR") / day
        folder.mkdir(parents=True)
        for name in datasets:
            (folder / f"{name}.csv").write_text(",".join(CATALOG[name].names) + "\n")
    monkeypatch.setattr(schedule, "now", lambda: datetime(2026, 1, 7, 12, tzinfo=timezone.utc))
    monkeypatch.setattr(schedule, "TRIES", 1)
    monkeypatch.setenv("CATCH_UP_DAYS", "3")
    schedule.run_due(schedule.now() + schedule.timeout())
    said = capfd.readouterr().out
    ends = [line for line in said.splitlines() if re.match("2026-01-0[4-6]: ", line)]
    assert ends == ["2026-01-04: done", "2026-01-05: done", "2026-01-06: failed with code 30"]
    health = call("-m", "pipelines", "health")
    assert health.returncode == 1 and "2026-01-06 never ran: the file 2026/01/06/" in health.stdout
    failed = postgres.execute(
        "select dataset, count(*) from ops.ledger where partition_date = '2026-01-06' and outcome = 'failed' group by 1"
    )
    assert dict(failed.fetchall()) == {name: 1 for name in CATALOG if name != "patients"}

    for day in ("2026-01-05", "2026-01-06"):
        forgotten = call("-m", "pipelines", "forget", day)
        assert forgotten.returncode == 0 and f"{day} is forgotten" in forgotten.stdout, forgotten.stdout[-4000:]
        assert "nothing to forget" in call("-m", "pipelines", "forget", day).stdout
    assert state(postgres) == before
    monkeypatch.setattr(schedule, "now", lambda: datetime(2026, 1, 8, 12, tzinfo=timezone.utc))
    assert list(schedule.dates(date(2026, 1, 8))) == [date(2026, 1, 7)], "nobody wants the other two"


def test_tasks_lead_to_their_page_in_the_history_server(dates):
    import json
    import urllib.request

    url = f"http://127.0.0.1:{os.environ['LUIGI_PORT']}/api/task_list?data=%7B%22status%22%3A%22DONE%22%7D"
    tasks = json.load(urllib.request.urlopen(url))["response"]
    links = {task["tracking_url"] for task in tasks.values() if task["name"] in ("Silver", "Gold")}
    links.discard(None)  # luigid forgets the link of a task that a later run finds done
    assert len(links) == 1, "all went to the resident application"
    assert b"Spark Jobs" in urllib.request.urlopen(links.pop()).read()


def test_pages_and_metabase_follow_the_marts(dates, stack, postgres):
    day, page = ("--date", str(LAST)), stack / "dashboards" / "executive-overview.html"
    done = luigi("Pages", *day)
    assert done.returncode == 0, done.stdout[-4000:]
    [newest] = postgres.execute("select day from ops.newest").fetchone()  # other tests have their own dates
    assert f'"newest":"{newest}"' in page.read_text()
    built = page.stat().st_mtime_ns
    assert luigi("Pages", *day).returncode == 0 and page.stat().st_mtime_ns == built, "they are of these marts"

    server = Metabase()
    address = server.start()
    try:
        done = luigi("Dashboards", *day, METABASE_URL=address)
        assert done.returncode == 0, done.stdout[-4000:]
        boards = cards.load()
        assert len(server.cards) == sum(len(board.cards) for board in boards)
        assert len(server.dashboards) == len(boards) == 6
        written = len(server.log)
        assert luigi("Dashboards", *day, METABASE_URL=address).returncode == 0 and len(server.log) == written
    finally:
        server.stop()


def test_no_log_of_spark_or_luigi_holds_a_secret(dates, stack):
    import zstandard

    secrets = [settings.get(name).encode() for name in ("POSTGRES_PASSWORD", "MINIO_ROOT_PASSWORD", "MINIO_SECRET_KEY")]
    read = 0
    logs = [path for path in stack.glob("logs/**/*") if path.is_file()]
    assert [path for path in logs if path.parent.name == str(FIRST)], "the output of the run is kept"
    for path in (*logs, *stack.glob("luigi/*"), *stack.glob("spark/events/**/events_*")):
        with path.open("rb") as file:
            if path.suffix == ".zstd":
                reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
                content = reader.read(1 << 30)
            else:
                content = file.read()
        read += len(content)
        assert [secret for secret in secrets if secret in content] == [], path.name
    assert read > 1_000_000, "the event logs were read"


BROKEN = {
    "a date that is none": (["2026-02-30"], {}, "is not a date"),
    "a landing file that is missing": (["2027-01-01"], {}, "patients.csv has not landed"),
    "PostgreSQL down": (["2026-01-01"], {"POSTGRES_PORT": "9"}, "PostgreSQL at 127.0.0.1:9 does not answer"),
    "a wrong password": (["2026-01-01"], {"POSTGRES_PASSWORD": "sesame"}, "refuses the user"),
    "MinIO down": (["2026-01-01"], {"MINIO_ENDPOINT": "127.0.0.1:9"}, "MinIO at http://127.0.0.1:9 does not answer"),
    "a wrong key": (["2026-01-01"], {"MINIO_SECRET_KEY": "sesame"}, "refuses the key"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_run_says_why_in_a_sentence(stack, case):
    words, environment, sentence = BROKEN[case]
    done = call("-m", "pipelines", "run", *words, **environment)
    assert done.returncode != 0 and sentence in done.stdout
    assert "Traceback" not in done.stdout and "sesame" not in done.stdout


# Root can read any file unless it gives up these capabilities.
AS_OTHERS = ["setpriv", *(f"--{kind}=-dac_override,-dac_read_search" for kind in ("bounding-set", "inh-caps"))]


def test_a_landing_file_that_may_not_be_read_is_told_by_job_and_by_luigi(stack, postgres):
    day = date(2027, 3, 4)
    paths = {name: landing_path(dataset, day) for name, dataset in CATALOG.items()}
    for name, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join(CATALOG[name].names) + "\n")
    closed = paths["patients"]

    def run(*words):
        command = [*(AS_OTHERS if os.geteuid() == 0 else []), sys.executable, *words]
        done = subprocess.run(
            command,
            cwd=settings.ROOT,
            env=os.environ | {"PYTHONPATH": str(settings.ROOT)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert "Traceback" not in done.stdout, done.stdout[-4000:]
        return done.returncode, done.stdout

    bronze = "-m", "luigi", "--module", "pipelines", "Bronze", "--dataset", "patients", "--date", str(day)
    sentence = "2027/03/04/patients.csv may not be read by this user (permission denied);"
    where = "where dataset = 'patients' and partition_date = %s"
    try:
        for path in (closed, closed.parent):
            path.chmod(0)
            code, said = run("jobs/landing_to_bronze.py", "patients", str(day))
            assert (code, said.count("\n")) == (1, 1) and said.startswith(f"patients {day}: {sentence}"), said
            code, said = run("-m", "pipelines", "run", str(day))
            assert code and sentence in said
            path.chmod(0o700)
        [(error,)] = postgres.execute(f"select distinct error from ops.ledger {where}", [day]).fetchall()
        assert error.startswith(sentence)
        assert not postgres.execute(f"select from ops.receipts {where}", [day]).fetchall()
        assert run(*bronze)[0] == 0
        closed.chmod(0)
        code, said = run(*bronze)  # Luigi itself reads the file to see whether it is current
        assert code and sentence in said
    finally:
        closed.parent.chmod(0o700)
        closed.chmod(0o600)
        shutil.rmtree(closed.parent)
        for table in ("ledger", "receipts"):
            postgres.execute(f"delete from ops.{table} where partition_date = %s", [day])


def test_what_is_no_file_in_the_place_of_one_is_told_by_luigi(stack):
    path = landing_path(CATALOG["patients"], date(2027, 3, 5))
    path.mkdir(parents=True)
    try:
        done = call("-m", "pipelines", "run", "2027-03-05")
    finally:
        path.rmdir()
    assert done.returncode and "2027/03/05/patients.csv is a directory; put the file in its place" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_date_that_failed_is_told_and_tried_again_at_once(stack, tmp_path):
    told, script = tmp_path / "told", tmp_path / "tell"
    script.write_text(f'#!/bin/sh\n{{ env; cat; }} >> "{told}"\n')
    script.chmod(0o755)
    for _ in range(2):
        done = call("-m", "pipelines", "run", "2027-01-02", ON_FAILURE=f'"{script}"')
        assert done.returncode == 30 and "patients.csv has not landed" in done.stdout
    lines = told.read_text().splitlines()
    assert lines.count("ALERT_DATE=2027-01-02") == lines.count("ALERT_OUTCOME=failed") == 2
    assert lines.count("ALERT_TASK=Bronze admissions") == 2
    missing = (
        "2027-01-02: the file 2027/01/02/{}.csv has not landed; put it there or run `make generate DATE=2027-01-02`."
    )
    assert all(lines.count(f"{name} {missing.format(name)}") == 2 for name in CATALOG)
    assert not [line for line in lines if settings.get("POSTGRES_PASSWORD") in line]

    down = call("-m", "pipelines", "run", "2027-01-02", ON_FAILURE=f'"{script}"', POSTGRES_PORT="9")
    assert down.returncode == 1 and "PostgreSQL at 127.0.0.1:9 does not answer" in told.read_text()


def test_a_job_by_hand_refuses_wrong_words_in_a_sentence():
    done = call("jobs/bronze_to_silver.py", "doctors", "2026-01-01", PYTHONPATH=str(settings.ROOT))
    assert (done.returncode, "'doctors' is not a dataset" in done.stdout) == (2, True)
    done = call("jobs/bronze_to_silver.py", "visits", "yesterday", PYTHONPATH=str(settings.ROOT))
    assert (done.returncode, "'yesterday' is not a date" in done.stdout) == (2, True)


def test_jobs_know_no_luigi_and_pipelines_no_spark():
    probe = "import sys, pipelines; assert 'pyspark' not in sys.modules"
    assert call("-c", probe).returncode == 0
    for path in (settings.ROOT / "jobs").rglob("*.py"):
        assert "import luigi" not in path.read_text()


def test_the_order_of_tasks_is_that_of_the_foreign_keys(stack):
    from pipelines import Gold, Silver

    def datasets(task):
        return {(type(each).__name__, each.dataset) for each in task.requires() if hasattr(each, "dataset")}

    assert datasets(Silver(dataset="visits", date=FIRST)) == {("Silver", "patients")}
    assert datasets(Silver(dataset="billing", date=FIRST)) == {("Silver", "visits")}
    assert datasets(Gold(dataset="admissions", date=FIRST)) == {("Gold", "visits")}
