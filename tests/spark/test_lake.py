"""Checks that Spark finds the same records in a bronze file as the plain reader."""

import json
from datetime import date

import pytest

from jobs.catalog import CATALOG
from jobs.program import Refused

HEADER = "patient_id,gender,birth_date,city,registration_date"
PATIENTS = CATALOG["patients"]
FILES = {
    "plain lines": [HEADER, "P1,M,2000-01-01,a,2020-01-01", "", "   ", "\u2003", "P2", "\0P3,,,,", "a\rb", HEADER],
    "quotes": [HEADER, 'P1,M,2000-01-01,"a, ""b""\\",2020-01-01', 'x"y,"",,,', '"single"', "#P4,,,,"],
    "records over lines": ["", HEADER, '"single"', 'P1,"a\n\nb",,,', "", "  ", "\0P2", "P3", HEADER, 'P4,,,,"z\r\ny"'],
    "an open quote": [HEADER, "P1,,,,", 'P2,"open', "P3,,,,", 'P4,"""x"",y",,'],
    "nothing": [HEADER],
    "a header over lines": ['note,"one\ntwo",' + HEADER, "1,2,P1,M,2000-01-01,a,2020-01-01"],
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_records_are_the_same_as_in_the_plain_reading(stack, spark, tmp_path, name, line_end):
    from jobs import lake, landing

    path = tmp_path / "patients.csv"
    path.write_bytes(("\ufeff" + line_end.join(FILES[name]) + line_end).encode())
    facts = landing.describe(path, PATIENTS, name)
    day = date(2040, 1, 1 + list(FILES).index(name))
    lake.upload(path, PATIENTS, day, facts)
    assert lake.facts_of(PATIENTS, day) == facts, "the metadata and the header in the file tell the same"
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        plain = [record for record, _, _ in landing.read_records(file) if record.strip()]
    expected = [record.removesuffix("\n").removesuffix("\r") for record in plain[1:]]
    found = [row["_raw"] for row in lake.records(spark, PATIENTS, day, facts).collect()]
    if name == "an open quote":
        found, expected = [text.rstrip() for text in found], [text.rstrip() for text in expected]
    assert found == expected and len(found) == facts.records


def test_a_file_put_there_by_another_program_is_read_anew(stack, tmp_path):
    from jobs import lake, landing, settings

    day = date(2040, 2, 1)
    content = (HEADER + "\nP1,M,2000-01-01,a,2020-01-01\n").encode()
    bucket = settings.get("MINIO_BUCKET_BRONZE")
    lake.s3().put_object(Bucket=bucket, Key=lake.bronze_key(PATIENTS, day), Body=content)
    path = tmp_path / "patients.csv"
    path.write_bytes(content)
    assert lake.facts_of(PATIENTS, day) == landing.describe(path, PATIENTS, "the same file")


def commits(dataset, kind):
    """Returns the texts of a table's log from its first version on."""
    from jobs import lake, settings

    bucket, prefix = settings.get("MINIO_BUCKET_SILVER"), lake.log_prefix(dataset, kind)
    newest, _ = lake.head_of_log(dataset, kind)
    keys = (f"{prefix}{version:020d}.json" for version in range(newest + 1))
    return {key: lake.s3().get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def test_half_a_commit_is_told_from_a_whole_one_wherever_it_breaks_off(hospital):
    from jobs import lake

    for city in ("a", "b"):
        hospital.validate("patients", 1, hospital.row("patients", "P1", city=city), hospital.row("patients", "P2"))
    texts = list(commits(PATIENTS, "accepted").values())
    for version, text in ((0, texts[0]), (len(texts) - 1, texts[-1])):
        assert text.endswith(b"\n") and lake.is_whole(version, text)
        assert [cut for cut in range(len(text) - 1) if lake.is_whole(version, text[:cut])] == []


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
    from jobs import lake, settings

    hospital.validate("patients", 1, hospital.row("patients", "P1", city="old"))
    *_, (key, text) = commits(PATIENTS, "accepted").items()
    version = int(key[-25:-5]) + 1
    half = {"nothing": b"", "half of it": text[: len(text) // 2], "its first lines": text[: text.index(b"\n") + 1]}
    torn = f"{lake.log_prefix(PATIENTS, 'accepted')}{version:020d}.json"
    lake.s3().put_object(Bucket=settings.get("MINIO_BUCKET_SILVER"), Key=torn, Body=half[left])
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
    from jobs import lake

    monkeypatch.setattr(lake, "head_of_log", lambda *_: None)
    with pytest.raises(Refused, match="Silver's table of rejected visits has no commit"):
        lake.last_commit(CATALOG["visits"], "rejected")
