"""Checks that the ledger accounts for money, for versions of tables, and for each date's state."""

from datetime import date
from decimal import Decimal

from pyspark.sql import functions as F

from jobs.catalog import CATALOG
from tests.support.examples import VALID, keys, record

AMOUNTS = [
    "12.345",
    "-0.005",
    "+7",
    "1e3",
    "",
    "9999999999.99",
    "9999999999.995",
    "00012345678901.1",
    "0000000000000000000012.5",
    '"1,000.00"',
    '" 3.10 "',
    '"4.00" ',
    '"5"6.00',
    '7"0.00',
    '"8.0""0"',
    "NaN",
    "\u0661\u0662",
    "\u20039.99\u00a0",
    "0.125" + "9" * 400,
    "1" * 5000,
    "2.00,extra",
    "3.00\0",
]


def test_the_money_of_a_file_is_the_same_by_a_plain_reading_and_by_spark(spark, tmp_path):
    from jobs import bronze_files, landing, spark_csv
    from jobs.validation import count, validate

    billing, visits, day = CATALOG["billing"], CATALOG["visits"], date(2041, 1, 1)
    rows = [
        record("billing", VALID["billing"] | {"bill_id": f"B{n}", "total_amount": "@"}) for n in range(len(AMOUNTS))
    ]
    lines = [row.replace("@", text) for row, text in zip(rows, AMOUNTS, strict=True)]
    for name, more in {"lines": [], "records over lines": ['B90,V1,"2\n0",1,1,Paid,', 'B91,V1,"90']}.items():
        path = tmp_path / f"{name}.csv"
        path.write_bytes("\r\n".join([",".join(billing.names), *lines, *more, ""]).encode())
        facts = landing.describe(path, billing, name)
        bronze_files.upload(path, billing, day, facts)
        parents = {"visit_id": keys(spark, visits.key, "V1")}
        frame = spark_csv.records(spark, billing, day, facts).withColumn("_partition_date", F.lit(day))
        [counts] = count(validate(frame, billing, {day: facts.header}, parents), billing, [day]).values()
        cents = int((counts.amount_accepted + counts.amount_rejected) * 100)
        assert (facts.records, facts.amounts, facts.cents) == (counts.rows, counts.amounts, cents)
        assert 5 < facts.amounts < len(AMOUNTS), "some can be read and some cannot"


def test_money_is_kept_account_of_from_the_file_to_gold(hospital):
    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    hospital.validate("visits", 1, hospital.row("visits", "V1"))
    bills = {
        "B1": {"total_amount": "500.00"},
        "B2": {"total_amount": "20.50", "insurance_amount": "0", "payment_status": "Lost"},
        "B3": {"total_amount": "-1.00", "insurance_amount": "-1"},
        "B4": {"total_amount": "many"},
    }
    hospital.validate("billing", 1, *(hospital.row("billing", key, **bill) for key, bill in bills.items()))
    columns = "amount_in", "amount_accepted", "amount_rejected", "accepted", "rejected"
    sums = (Decimal("519.50"), Decimal("500.00"), Decimal("19.50"), 1, 3)
    assert hospital.ledger("silver", "billing", *columns) == [sums]
    hospital.load("billing", 1)
    bills["B1"]["total_amount"] = "450.25"
    hospital.validate("billing", 1, *(hospital.row("billing", key, **bill) for key, bill in bills.items()))
    hospital.load("billing", 1)
    hospital.validate("patients", 1)
    hospital.load("patients", 1)
    changes = hospital.ledger("gold", "billing", "inserted", "updated", "removed", "amount_change")
    assert changes == [
        (1, 0, 0, Decimal("500.00")),
        (0, 1, 0, Decimal("-49.75")),
        (0, 0, 1, Decimal("-450.25")),
    ], "a bill that goes with its patient has a row of its own"


def test_the_ledger_names_the_versions_that_a_run_wrote(hospital):
    from jobs import delta_log, object_store, settings

    patients = CATALOG["patients"]
    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    hospital.validate("patients", 1)
    hospital.validate("patients", 1)
    runs = hospital.ledger("silver", "patients", "run_id", "delta_accepted")
    first = object_store.s3().get_object(
        Bucket=settings.get("MINIO_BUCKET_SILVER"), Key=f"patients/_delta_log/{runs[0][1]:020d}.json"
    )
    assert runs[0][0].encode() in first["Body"].read()
    assert runs[0][1] < runs[1][1] <= runs[2][1] == delta_log.last_commit(patients, "accepted").version


def test_each_date_is_complete_balanced_and_current_or_says_why_not(hospital):
    from jobs.gold_to_marts import gold_to_marts

    def state(number):
        found = hospital.postgres.execute(
            "select is_complete, is_balanced, is_current, why from ops.dates where partition_date = %s",
            [hospital.day(number)],
        ).fetchone()
        return tuple(found)

    keys = {"patients": "P1", "visits": "V1", "admissions": "A1", "treatments": "T1", "billing": "B1"}
    for name, key in keys.items():
        hospital.validate(name, 1, hospital.row(name, key))
    for name in keys:
        hospital.load(name, 1)
    assert state(1) == (False, True, False, "the marts are older than gold")
    gold_to_marts(hospital.day(1))
    assert state(1) == (True, True, True, "")
    hospital.land("patients", 1)
    hospital.bronze("patients", 1)
    assert state(1) == (True, True, False, "patients came again since it was validated")
    hospital.validate("patients", 1)
    assert state(1)[2:] == (
        False,
        "patients was revalidated since it was loaded; visits lost or found parents since it was validated",
    )


def test_the_last_date_there_is_has_a_next_one_that_clients_can_read(empty_warehouse):
    marker = "insert into ops.receipts (layer, dataset, partition_date, run_id, rule_set, made_from) values "
    with empty_warehouse.transaction(force_rollback=True):
        empty_warehouse.execute(f"{marker} ('gold', 'patients', '9999-12-31', 'R', '', '')")
        found = empty_warehouse.execute("select newest, next_due, overdue from ops.freshness where newest is not null")
        [(newest, due, overdue)] = found.fetchall()
    assert newest == date(9999, 12, 31) and due.year == 9999 and not overdue
