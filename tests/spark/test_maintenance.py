"""Checks that maintenance reduces the number of files and changes nothing else: no row, no marker, nothing due."""

import os
import subprocess
import sys
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest

from jobs import settings
from jobs.catalog import CATALOG
from jobs.program import Refused
from pipelines import history

PATIENTS = CATALOG["patients"]
KINDS = ("accepted", "rejected")


@pytest.fixture
def at_once(spark, monkeypatch):
    """Sets all retention to zero, as if nobody still read old files."""
    from jobs import delta_maintenance, ledger

    monkeypatch.setattr(delta_maintenance, "LEAST", 0)
    monkeypatch.setattr(ledger, "longest_run", lambda _: 0)
    spark.conf.set(delta_maintenance.KEEP, "0")
    yield
    spark.conf.unset(delta_maintenance.KEEP)


def rows(spark, kind):
    """Returns every row of silver patients, including stamps."""
    from jobs import delta_tables

    return sorted(map(repr, delta_tables.silver(spark, PATIENTS, kind).collect()))


def files(spark, kind):
    """Returns (files in the current version, files in the bucket) of silver patients."""
    from jobs import delta_maintenance, delta_tables

    return len(delta_tables.silver(spark, PATIENTS, kind).inputFiles()), delta_maintenance.held(PATIENTS, kind)[0]


def markers(postgres):
    return postgres.execute("select * from ops.receipts where layer <> 'maintenance' order by 1, 2, 3").fetchall()


def scatter(spark, day, parts):
    """Rewrites a partition into many files, as a run of many tasks would."""
    from jobs import delta_tables, lake_paths

    whole = delta_tables.silver(spark, PATIENTS).filter(f"_partition_date = '{day}'")
    to = (
        whole.repartition(parts)
        .write.format("delta")
        .mode("overwrite")
        .option("replaceWhere", f"_partition_date = '{day}'")
    )
    to.save(lake_paths.silver_path(PATIENTS, "accepted"))


def test_files_become_fewer_and_nothing_else_changes(hospital, spark, postgres, at_once):
    from jobs import delta_log, delta_maintenance, key_history, ledger, reject_counts
    from jobs.bronze_to_silver import bronze_to_silver
    from jobs.maintain import maintain

    people = [hospital.row("patients", f"P{number}") for number in range(40)]
    hospital.validate("patients", 1, *people)
    maintain(PATIENTS, hospital.day(9))  # clears what other tests have left
    for number in (1, 2):
        for gender in ("!", "?"):  # replaces what the first file's run wrote
            hospital.validate("patients", number, *people, hospital.row("patients", "X", gender=gender))
    hospital.load("patients", 1)
    scatter(spark, hospital.day(1), 6)
    before, known = {kind: rows(spark, kind) for kind in KINDS}, markers(postgres)
    counting, there = {}, {}
    for kind in KINDS:
        counting[kind], there[kind] = files(spark, kind)

    told = maintain(PATIENTS, hospital.day(9))
    assert "1 partitions merged" in told
    assert {kind: rows(spark, kind) for kind in KINDS} == before and markers(postgres) == known
    assert files(spark, "accepted")[0] == counting["accepted"] - 5
    # Each day was validated twice and one was scattered: replaced and merged files are removed.
    assert there["accepted"] - files(spark, "accepted")[1] >= 2 + 1 + 5
    assert files(spark, "rejected")[0] == counting["rejected"] and there["rejected"] - files(spark, "rejected")[1] >= 2

    assert delta_maintenance.repair_log(PATIENTS, "accepted") is None, "its commit counts as a whole one"
    version = delta_log.last_commit(PATIENTS, "accepted").version
    assert "merged" not in maintain(PATIENTS, hospital.day(9)) and rows(spark, "accepted") == before["accepted"]
    assert delta_log.last_commit(PATIENTS, "accepted").version == version, "a second one has nothing to do"

    bronze_to_silver(PATIENTS, hospital.day(1))
    plain = [[text.partition(", _run_id")[0] for text in of] for of in (rows(spark, "accepted"), before["accepted"])]
    assert plain[0] == plain[1], "revalidated, silver is what it was"
    assert hospital.load("patients", 1).startswith(f"gold patients {hospital.day(1)}: 0 inserted, 0 updated")
    assert hospital.load("patients", 2).startswith(f"gold patients {hospital.day(2)}: 0 inserted, 40 updated")
    assert not ledger.stale(PATIENTS, hospital.day(1))
    assert "unknown_gender" in "\n".join(reject_counts.rejects(hospital.day(1), [PATIENTS], keys=True))
    assert hospital.key("P1") in "\n".join(key_history.why(hospital.key("P1")))


@pytest.mark.parametrize(
    ("hours", "sentence"),
    [
        ("a week", "is 'a week'; write a number of hours"),
        ("-1", "is '-1'; write a number of hours"),
        ("0.5", "is 0.5 hours, but 1 is the least"),
        ("2", "is 2 hours, but a run has taken 3.0 hours"),
    ],
)
def test_a_time_that_would_harm_readers_is_refused_in_a_sentence(hospital, spark, monkeypatch, hours, sentence):
    from jobs import ledger
    from jobs.delta_maintenance import KEEP
    from jobs.maintain import maintain

    if hours == "2":
        monkeypatch.setattr(ledger, "longest_run", lambda _: 3 * 3600)
    spark.conf.set(KEEP, hours)
    try:
        with pytest.raises(Refused, match=f"{KEEP} {sentence}"):
            maintain(PATIENTS, hospital.day(1))
    finally:
        spark.conf.unset(KEEP)


def test_by_hand_it_waits_for_the_run_that_writes_the_table(hospital, spark):
    from jobs import warehouse

    hospital.validate("patients", 1, hospital.row("patients", "P"))
    before = rows(spark, "accepted")
    environment = os.environ | {"PYTHONPATH": str(settings.ROOT)}
    command = [sys.executable, str(settings.ROOT / "jobs" / "maintain.py"), "patients", str(hospital.day(1))]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with (
        warehouse.connect() as connection,
        warehouse.writer(connection, "silver patients"),
        subprocess.Popen(command, env=environment, text=True, **output) as process,
    ):
        assert any("waiting: another run is writing silver patients" in line for line in process.stdout)
        assert process.poll() is None
        connection.execute("select pg_advisory_unlock_all()")
        told = process.stdout.read()
    assert process.returncode == 0 and "silver patients, accepted: " in told, told[-3000:]
    assert rows(spark, "accepted") == before


def test_luigis_old_history_is_forgotten_and_luigid_goes_on_with_its_tasks(tmp_path, monkeypatch):
    from luigi.db_task_history import DbTaskHistory

    monkeypatch.setenv("STACK_DIR", str(tmp_path))
    assert history.forget(datetime.now()) == 0 and not list(tmp_path.iterdir()), "no history here"
    (tmp_path / "luigi").mkdir()
    luigid = DbTaskHistory()
    tasks = [SimpleNamespace(id=name, family="Silver", params={"date": "2026-01-01"}) for name in ("old", "new")]
    for task in tasks:
        luigid.task_scheduled(task)
        luigid.task_finished(task, successful=True)
    with luigid.engine.begin() as connection:
        connection.execute("update task_events set ts = '2020-01-01' where task_id = 1")
    assert history.forget(datetime.now() - timedelta(days=90)) == 1
    assert {record.task_id for record in luigid.find_all_by_name("Silver")} == {"new"}
    luigid.task_scheduled(tasks[0])  # the scheduler remembers the record that it made
    assert {record.task_id for record in luigid.find_all_by_name("Silver")} == {"old", "new"}


def test_maintenance_holds_a_partition_that_was_validated_by_key_against_its_file(hospital, monkeypatch):
    from jobs import concerned, ledger
    from jobs.reconcile import reconcile
    from pipelines import health, tasks

    visits, day = CATALOG["visits"], hospital.day(1)
    patients = [hospital.row("patients", "P1"), hospital.row("patients", "P2")]
    hospital.validate("patients", 1, patients[0])
    hospital.validate(
        "visits", 1, hospital.row("visits", "V1"), hospital.row("visits", "V2", patient_id=patients[1]["patient_id"])
    )
    assert ledger.to_reconcile(hospital.postgres) is None
    hospital.validate("patients", 1, *patients)
    monkeypatch.setattr(concerned, "MANY_ROWS", 0)
    monkeypatch.setattr(concerned, "MOST", 1.0)
    assert hospital.revalidate() == [("visits", day)]
    for name in ("patients", "visits"):
        hospital.load(name, 1)

    monkeypatch.setattr(tasks, "to_reconcile", tasks.to_reconcile.__wrapped__)
    wanted = [task for task in tasks.Maintenance().requires() if isinstance(task, tasks.Reconciliation)]
    assert [(task.dataset, task.date, task.complete()) for task in wanted] == [("visits", day, False)]
    assert reconcile(visits, day) == f"visits {day}: silver and gold have the rows that its whole file gives"
    assert wanted[0].complete() and ledger.to_reconcile(hospital.postgres) is None

    hospital.postgres.execute("update visits set department = 'Surgery' where visit_id = %s", [hospital.key("V2")])
    with pytest.raises(Refused, match=r"^gold of visits .* they are corrected\. Give `make reconcile DATE="):
        reconcile(visits, day)
    assert [line for line in health.corrected(hospital.postgres) if str(day) in line]
    reconcile(visits, day)
    assert not [line for line in health.corrected(hospital.postgres) if str(day) in line]
