"""Checks that a table's log is read as Delta writes it, and that an incomplete commit is removed by the next run."""

import json

import pytest

from jobs.catalog import CATALOG
from jobs.program import Refused

PATIENTS = CATALOG["patients"]


def commits(dataset, kind):
    """Returns the texts of a table's log from its first version on."""
    from jobs import delta_log, lake_paths, object_store, settings

    bucket, prefix = settings.get("MINIO_BUCKET_SILVER"), lake_paths.log_prefix(dataset, kind)
    newest, _ = delta_log.head_of_log(dataset, kind)
    keys = (f"{prefix}{version:020d}.json" for version in range(newest + 1))
    return {key: object_store.s3().get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def test_half_a_commit_is_told_from_a_whole_one_wherever_it_breaks_off(hospital, spark):
    from pyspark.sql import functions as F

    from jobs import delta_log, delta_tables

    for city in ("a", "b"):
        hospital.validate("patients", 1, hospital.row("patients", "P1", city=city), hospital.row("patients", "P2"))
    known = delta_tables.silver(spark, PATIENTS).filter(
        f"_partition_date = '{hospital.day(1)}' and patient_id = '{hospital.key('P1')}'"
    )
    rows = known.withColumn("_run_id", F.lit("a merge")).localCheckpoint()
    merge = delta_tables.insert(rows, PATIENTS, "accepted", hospital.day(1), "a merge", None, lambda: None)
    assert (merge.run_id, merge.rows) == ("a merge", {hospital.day(1): 1})
    texts = list(commits(PATIENTS, "accepted").values())
    assert len(texts) == merge.version + 1
    for version, text in ((0, texts[0]), (len(texts) - 2, texts[-2]), (len(texts) - 1, texts[-1])):
        assert text.endswith(b"\n") and delta_log.is_whole(version, text)
        assert [cut for cut in range(len(text) - 1) if delta_log.is_whole(version, text[:cut])] == []


def test_the_log_of_a_table_tells_the_least_and_greatest_of_its_keys_and_of_no_other_column(hospital):
    hospital.validate(
        "patients", 1, hospital.row("patients", "P1", city="a"), hospital.row("patients", "P2", gender="X")
    )
    for kind in ("accepted", "rejected"):
        entries = map(json.loads, b"".join(commits(PATIENTS, kind).values()).splitlines())
        found = [json.loads(entry["add"]["stats"]) for entry in entries if "add" in entry]
        columns = {name for stats in found for kept in ("maxValues", "nullCount") for name in stats.get(kept, {})}
        assert columns == {"patient_id"}


@pytest.mark.parametrize("left", ["nothing", "half of it", "its first lines"])
def test_half_a_commit_is_taken_away_by_the_next_run_of_its_table(hospital, capsys, left):
    from jobs import lake_paths, object_store, settings

    hospital.validate("patients", 1, hospital.row("patients", "P1", city="old"))
    *_, (key, text) = commits(PATIENTS, "accepted").items()
    version = int(key[-25:-5]) + 1
    half = {"nothing": b"", "half of it": text[: len(text) // 2], "its first lines": text[: text.index(b"\n") + 1]}
    torn = f"{lake_paths.log_prefix(PATIENTS, 'accepted')}{version:020d}.json"
    object_store.s3().put_object(Bucket=settings.get("MINIO_BUCKET_SILVER"), Key=torn, Body=half[left])
    hospital.validate("patients", 1, hospital.row("patients", "P1", city="new"))
    assert f"version {version}" in capsys.readouterr().err
    info = json.loads(commits(PATIENTS, "accepted")[torn].splitlines()[0])["commitInfo"]
    [run_id] = hospital.postgres.execute(
        "select run_id from ops.standing where dataset = 'patients' and partition_date = %s", [hospital.day(1)]
    ).fetchone()
    assert info["userMetadata"] == run_id
    hospital.load("patients", 1)
    assert hospital.gold("patients", "city") == [("new",)]


def test_who_stands_on_a_version_that_is_lost_is_revalidated(hospital):
    from jobs import ledger, program

    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    [version] = hospital.postgres.execute(
        "select delta_accepted from ops.standing where dataset = 'patients' and partition_date = %s", [hospital.day(1)]
    ).fetchone()
    ledger.invalidate(hospital.postgres, PATIENTS, "accepted", version)
    with pytest.raises(program.Refused, match="has not been validated to the end"):
        hospital.load("patients", 1)
    assert hospital.revalidate() == [("patients", hospital.day(1))]
    hospital.load("patients", 1)
    assert hospital.gold("patients") == [(hospital.key("P1"),)]


def test_a_log_without_a_commit_is_said_so(monkeypatch):
    from jobs import delta_log

    monkeypatch.setattr(delta_log, "head_of_log", lambda *_: None)
    with pytest.raises(Refused, match="Silver's table of rejected visits has no commit"):
        delta_log.last_commit(CATALOG["visits"], "rejected")
