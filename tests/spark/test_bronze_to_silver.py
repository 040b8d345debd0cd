"""Checks that silver has exactly the rows that were validated, each in its partition, or gets no marker."""

import pytest

from jobs.catalog import CATALOG
from jobs.program import Refused
from tests.campaigns.test_laws import plant


def test_a_table_that_gets_no_rows_of_a_new_date_is_left_alone(hospital):
    hospital.validate("patients", 1, hospital.row("patients", "P1"), hospital.row("patients", "P2", birth_date="never"))
    hospital.validate("patients", 2, hospital.row("patients", "P3"))
    first, second = hospital.ledger("silver", "patients", "delta_accepted", "delta_rejected")
    assert second[0] > first[0] and second[1] == first[1]


def test_new_dates_of_one_job_are_not_compared_with_silver(hospital, monkeypatch):
    from jobs import silver_commit
    from jobs.bronze_to_silver import bronze_to_silver

    hospital.validate("patients", 1, hospital.row("patients", "P1", birth_date="never"))
    for number in (2, 3):
        hospital.land("patients", number, hospital.row("patients", f"P{number}"))
        hospital.bronze("patients", number)
    monkeypatch.setattr(silver_commit, "compare", None)  # which a comparison would call
    bronze_to_silver(CATALOG["patients"], hospital.day(2), hospital.day(3))
    versions = hospital.ledger("silver", "patients", "partition_date", "delta_rejected")
    assert {number for _, number in versions} == {versions[0][1]}, "nor does one of them write a table of rejects"


def test_rows_of_a_date_that_the_ledger_has_lost_do_not_stay(hospital, spark):
    from jobs import delta_tables

    hospital.validate("patients", 1, hospital.row("patients", "P1", birth_date="never"))
    for table in ("ops.receipts", "ops.ledger"):  # as after a restore of PostgreSQL alone
        hospital.postgres.execute(f"delete from {table} where partition_date = %s", [hospital.day(1)])
    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    rejected = delta_tables.silver(spark, CATALOG["patients"], "rejected")
    assert rejected.filter(rejected["_partition_date"] == hospital.day(1)).count() == 0


def test_a_commit_that_holds_other_rows_than_were_validated_gets_no_marker(hospital, monkeypatch):
    from jobs import delta_log, ledger

    true = delta_log.last_commit
    monkeypatch.setattr(delta_log, "last_commit", lambda *words: true(*words)._replace(rows={hospital.day(1): 2}))
    with pytest.raises(Refused, match="must be equal"):
        hospital.validate("patients", 1, hospital.row("patients", "P1"))
    assert ledger.marker("silver", "patients", hospital.day(1)) is None
    [(outcome, error)] = hospital.ledger("silver", "patients", "outcome", "error")
    assert outcome == "failed" and "must be equal" in error


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("table.filter(of_days)", 'table.withColumn("_partition_date", F.lit(days[0]))'),
        ("table.filter(of_days)", 'table.filter(F.col("_partition_date") == days[0])'),
        ("done.rows.get(day, 0)", "rows[day] + 1"),
    ],
    ids=["under another date", "of the first date alone", "more than there are"],
)
def test_rows_of_a_date_that_are_not_in_its_partition_get_no_marker(hospital, monkeypatch, line, wrong):
    from jobs import ledger, silver_commit
    from jobs.bronze_to_silver import bronze_to_silver

    dataset, days = CATALOG["patients"], [hospital.day(1), hospital.day(2)]
    for number in (1, 2):
        hospital.land("patients", number, hospital.row("patients", f"P{number}"))
        hospital.bronze("patients", number)
    with monkeypatch.context() as patch, pytest.raises(Refused, match="must be equal"):
        plant(patch, silver_commit.publish, line, wrong)
        bronze_to_silver(dataset, *days)
    assert [ledger.marker("silver", "patients", day) for day in days] == [None, None]
    bronze_to_silver(dataset, *days)
    for number in (1, 2):
        hospital.load("patients", number)
    assert hospital.gold("patients", "patient_id", "_partition_date") == [
        (hospital.key(f"P{number}"), hospital.day(number)) for number in (1, 2)
    ]


def test_what_a_run_keeps_it_lets_go_when_it_fails(spark):
    from jobs.silver_partitions import kept

    rows = spark.range(1)
    with pytest.raises(ZeroDivisionError), kept() as keep:
        assert keep(rows).storageLevel.useMemory
        raise ZeroDivisionError
    assert not rows.storageLevel.useMemory
