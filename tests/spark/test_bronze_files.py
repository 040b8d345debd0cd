"""Checks that Spark finds the same records in a bronze file as the plain reader."""

from datetime import date

import pytest

from jobs.catalog import CATALOG

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
    from jobs import bronze_files, landing, spark_csv

    path = tmp_path / "patients.csv"
    path.write_bytes(("\ufeff" + line_end.join(FILES[name]) + line_end).encode())
    facts = landing.describe(path, PATIENTS, name)
    day = date(2040, 1, 1 + list(FILES).index(name))
    bronze_files.upload(path, PATIENTS, day, facts)
    assert bronze_files.facts_of(PATIENTS, day) == facts, "the metadata and the header in the file tell the same"
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        plain = [record for record, _, _ in landing.read_records(file) if record.strip()]
    expected = [record.removesuffix("\n").removesuffix("\r") for record in plain[1:]]
    found = [row["_raw"] for row in spark_csv.records(spark, PATIENTS, day, facts).collect()]
    if name == "an open quote":
        found, expected = [text.rstrip() for text in found], [text.rstrip() for text in expected]
    assert found == expected and len(found) == facts.records


def test_a_file_put_there_by_another_program_is_read_anew(stack, tmp_path):
    from jobs import bronze_files, lake_paths, landing, object_store, settings

    day = date(2040, 2, 1)
    content = (HEADER + "\nP1,M,2000-01-01,a,2020-01-01\n").encode()
    bucket = settings.get("MINIO_BUCKET_BRONZE")
    object_store.s3().put_object(Bucket=bucket, Key=lake_paths.bronze_key(PATIENTS, day), Body=content)
    path = tmp_path / "patients.csv"
    path.write_bytes(content)
    assert bronze_files.facts_of(PATIENTS, day) == landing.describe(path, PATIENTS, "the same file")
