"""Every row and every sum is accounted for: the ledger, its levels and what they stop, on the real stack."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from jobs.catalog import CATALOG
from jobs.program import Refused
from tests.examples import VALID, record

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
    from jobs import lake, landing
    from jobs.validation import count, judge

    billing, visits, day = CATALOG["billing"], CATALOG["visits"], date(2041, 1, 1)
    rows = [
        record("billing", VALID["billing"] | {"bill_id": f"B{n}", "total_amount": "@"}) for n in range(len(AMOUNTS))
    ]
    lines = [row.replace("@", text) for row, text in zip(rows, AMOUNTS, strict=True)]
    for name, more in {"lines": [], "records over lines": ['B90,V1,"2\n0",1,1,Paid,', 'B91,V1,"90']}.items():
        path = tmp_path / f"{name}.csv"
        path.write_bytes("\r\n".join([",".join(billing.names), *lines, *more, ""]).encode())
        facts = landing.describe(path, billing, name)
        lake.upload(path, billing, day, facts)
        parents = {"visit_id": spark.createDataFrame([("V1",)], f"{visits.key} string")}
        counts = count(judge(lake.records(spark, billing, day, facts), billing, facts.header, parents), billing)
        cents = int((counts.amount_accepted + counts.amount_rejected) * 100)
        assert (facts.records, facts.amounts, facts.cents) == (counts.rows, counts.amounts, cents)
        assert 5 < facts.amounts < len(AMOUNTS), "some can be read and some cannot"


def ledger(hospital, layer, dataset, *columns):
    found = hospital.postgres.execute(
        f"select {', '.join(columns)} from ops.ledger where layer = %s and dataset = %s "
        "and extract(year from partition_date) = %s order by started_at",
        [layer, dataset, hospital.year],
    )
    return [tuple(row) for row in found]


def test_money_is_kept_account_of_from_the_file_to_gold(hospital):
    hospital.judge("patients", 1, hospital.row("patients", "P1"))
    hospital.judge("visits", 1, hospital.row("visits", "V1"))
    bills = {
        "B1": {"total_amount": "500.00"},
        "B2": {"total_amount": "20.50", "insurance_amount": "0", "payment_status": "Lost"},
        "B3": {"total_amount": "-1.00", "insurance_amount": "-1"},
        "B4": {"total_amount": "many"},
    }
    hospital.judge("billing", 1, *(hospital.row("billing", key, **bill) for key, bill in bills.items()))
    columns = "amount_in", "amount_accepted", "amount_rejected", "accepted", "rejected"
    sums = (Decimal("519.50"), Decimal("500.00"), Decimal("19.50"), 1, 3)
    assert ledger(hospital, "silver", "billing", *columns) == [sums]
    hospital.load("billing", 1)
    bills["B1"]["total_amount"] = "450.25"
    hospital.judge("billing", 1, *(hospital.row("billing", key, **bill) for key, bill in bills.items()))
    hospital.load("billing", 1)
    hospital.judge("patients", 1)
    hospital.load("patients", 1)
    changes = ledger(hospital, "gold", "billing", "inserted", "updated", "removed", "amount_change")
    assert changes == [
        (1, 0, 0, Decimal("500.00")),
        (0, 1, 0, Decimal("-49.75")),
        (0, 0, 1, Decimal("-450.25")),
    ], "a bill that goes with its patient has a row of its own"


def test_the_ledger_names_the_versions_that_a_run_wrote(hospital):
    from jobs import lake

    patients = CATALOG["patients"]
    hospital.judge("patients", 1, hospital.row("patients", "P1"))
    hospital.judge("patients", 1)
    hospital.judge("patients", 1)
    runs = ledger(hospital, "silver", "patients", "run_id", "delta_accepted")
    first = lake.s3().get_object(
        Bucket=lake.settings.get("MINIO_BUCKET_SILVER"), Key=f"patients/_delta_log/{runs[0][1]:020d}.json"
    )
    assert runs[0][0].encode() in first["Body"].read()
    assert runs[0][1] < runs[1][1] <= runs[2][1] == lake.last_commit(patients, "accepted").version


def test_a_commit_that_holds_other_rows_than_were_judged_gets_no_receipt(hospital, monkeypatch):
    from jobs import lake, warehouse

    true = lake.last_commit
    monkeypatch.setattr(lake, "last_commit", lambda *words: true(*words)._replace(rows=2))
    with pytest.raises(Refused, match="law 1 is broken"):
        hospital.judge("patients", 1, hospital.row("patients", "P1"))
    assert warehouse.receipt("silver", "patients", hospital.day(1)) is None
    [(outcome, error)] = ledger(hospital, "silver", "patients", "outcome", "error")
    assert outcome == "failed" and "law 1 is broken" in error


def test_too_many_rejects_stop_a_date_before_gold_until_somebody_lets_it_pass(hospital):
    from jobs import warehouse
    from pipelines.tasks import Cleared, Failed

    rows = [hospital.row("patients", f"P{n}", gender="?" if n > 90 else "F") for n in range(1, 151)]
    level = r"60 of 150 rows rejected \(40.0 %\), the stop level is 33 % and 50 rows"
    assert "stop: patients" in hospital.judge("patients", 1, *rows)
    hospital.judge("visits", 1, hospital.row("visits", "V1"))
    hospital.judge("visits", 2, hospital.row("visits", "V2"))
    for dataset in ("patients", "visits"):
        with pytest.raises(Refused, match=level):
            hospital.load(dataset, 1)
    with pytest.raises(Refused, match=f"needs patients of {hospital.day(1)}, which a stop level keeps out"):
        hospital.load("visits", 2)
    assert hospital.gold("patients") == hospital.gold("visits") == []
    with pytest.raises(Failed, match=f"{level}.*OVERRIDE=1"):
        Cleared(date=hospital.day(1)).run()

    Cleared(date=hospital.day(1), override=True).run()
    [(said,)] = ledger(hospital, "override", "patients", "overridden")
    assert "60 of 150 rows rejected (40.0 %)" in said and "unknown_gender" in said
    hospital.load("patients", 1)
    hospital.load("visits", 2)
    assert (len(hospital.gold("patients")), len(hospital.gold("visits"))) == (90, 1)

    rows[0]["city"] = "Elsewhere"  # another file is another decision
    hospital.judge("patients", 1, *rows)
    with pytest.raises(Refused, match=level):
        hospital.load("patients", 1)
    hospital.judge("patients", 1, *rows[:100])
    assert warehouse.stops(hospital.postgres, hospital.day(1)) == []
    hospital.load("patients", 1)


def test_orphans_stop_nothing(hospital):
    said = hospital.judge("visits", 1, *(hospital.row("visits", f"V{n}") for n in range(60)))
    assert "warn: visits" in said and "stop:" not in said
    assert "0 inserted" in hospital.load("visits", 1)


def test_a_parent_counts_only_if_it_comes_in_time(hospital, monkeypatch):
    monkeypatch.setitem(CATALOG, "visits", replace(CATALOG["visits"], orphan_days=2))
    visits = [hospital.row("visits", f"V{n}", patient_id=hospital.key(f"P{n}")) for n in (1, 2)]
    hospital.judge("visits", 1, *visits)
    hospital.judge("patients", 4, hospital.row("patients", "P2"))
    assert hospital.judge_again() == [], "too late for the visit of day 1"
    hospital.judge("patients", 3, hospital.row("patients", "P1"))
    assert hospital.judge_again() == [("visits", hospital.day(1))]
    hospital.load("visits", 1)
    assert hospital.gold("visits") == [(hospital.key("V1"),)]
    waiting = hospital.postgres.execute(
        "select reason, waiting, attempts from ops.orphans where partition_date = %s", [hospital.day(1)]
    ).fetchall()
    assert [tuple(row) for row in waiting] == [("orphan_patient_id", 1, 2)]

    hospital.judge("patients", 3)  # the parent goes again
    assert hospital.judge_again() == [("visits", hospital.day(1))]
    hospital.judge("patients", 4, hospital.row("patients", "P1"), hospital.row("patients", "P2"))
    assert hospital.judge_again() == []


def test_a_file_of_unusual_size_is_reported_when_it_comes(hospital):
    from jobs.landing_to_bronze import unusual
    from jobs.warehouse import usual_rows

    patients, hospital.year = CATALOG["patients"], 1950  # before the dates of all other tests
    rows = [hospital.row("patients", f"P{n}") for n in range(60)]
    for number in (1, 8, 15):
        hospital.land("patients", number, *rows)
        assert hospital.bronze("patients", number).count("\n") == 0
    hospital.land("patients", 22, *rows[:29])
    assert "warn: patients" in hospital.bronze("patients", 22)
    [*_, (warning,)] = ledger(hospital, "bronze", "patients", "warnings")
    assert warning == "29 rows, where 3 earlier dates of its weekday have a median of 60"
    usual = usual_rows(hospital.postgres, patients, hospital.day(22))
    assert [unusual(n, patients, *usual) for n in (30, 60, 120)] == [None] * 3
    assert unusual(121, patients, *usual) and not unusual(121, patients, 2, 60.0)


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
        hospital.judge(name, 1, hospital.row(name, key))
    for name in keys:
        hospital.load(name, 1)
    assert state(1) == (False, True, False, "the marts are older than gold")
    gold_to_marts(hospital.day(1))
    assert state(1) == (True, True, True, "")
    hospital.land("patients", 1)
    hospital.bronze("patients", 1)
    assert state(1) == (True, True, False, "patients came again since it was judged")
    hospital.judge("patients", 1)
    assert state(1)[2:] == (
        False,
        "patients was judged again since it was loaded; visits lost or found parents since it was judged",
    )


def test_every_reason_has_its_levels_in_the_warehouse(postgres):
    found = postgres.execute("select dataset, reason, retryable, stop_share from ops.rules").fetchall()
    rules = {(dataset, reason): (retryable, share) for dataset, reason, retryable, share in found}
    assert set(rules) == {(n, code) for n, d in CATALOG.items() for code in ("rejected", *d.reasons)}
    assert {reason for (_, reason), (retryable, _) in rules.items() if retryable} == {
        "orphan_patient_id",
        "orphan_visit_id",
    }
    assert all((share is None) == retryable for retryable, share in rules.values())


def test_what_a_run_keeps_it_lets_go_when_it_fails(spark):
    from jobs.bronze_to_silver import kept

    rows = spark.range(1)
    with pytest.raises(ZeroDivisionError), kept(records=1) as keep:
        assert keep(rows).storageLevel.useMemory
        raise ZeroDivisionError
    assert not rows.storageLevel.useMemory


def made(hospital, name):
    """Whether the receipt of a task of the first day counts, for a Luigi that begins now."""
    from pipelines import tasks

    tasks.session.cache_clear()
    tasks.session()
    return getattr(tasks, name)(dataset="patients", date=hospital.day(1)).made_in() is not None


@pytest.fixture
def brought(hospital):
    """What brings a file of the first day as far as a task does; the file is another one each time."""
    from jobs.bronze_to_silver import bronze_to_silver

    def bring(layer, city):
        hospital.land("patients", 1, hospital.row("patients", "P1", city=city))
        hospital.bronze("patients", 1)
        if layer != "bronze":
            bronze_to_silver(CATALOG["patients"], hospital.day(1))
        if layer == "gold":
            hospital.load("patients", 1)

    return bring


@pytest.mark.parametrize("clock", ["ten years ahead", "ten years behind"])
def test_no_clock_makes_a_receipt_look_newer_or_older_than_it_is(hospital, brought, clock):
    jump = {"ten years ahead": "+ interval '10 years'", "ten years behind": "- interval '10 years'"}[clock]
    brought("gold", "old")
    where = "where dataset = 'patients' and partition_date = %s"
    for table, columns in {"receipts": ("finished_at",), "ledger": ("started_at", "ended_at")}.items():
        jumped = ", ".join(f"{name} = {name} {jump}" for name in columns)
        hospital.postgres.execute(f"update ops.{table} set {jumped} {where}", [hospital.day(1)])
    assert all(made(hospital, name) for name in ("Bronze", "Silver", "Gold")), "what is current stays so"
    brought("bronze", "new")
    assert made(hospital, "Bronze") and not made(hospital, "Silver"), "a new file is due"
    brought("silver", "new")
    assert made(hospital, "Silver") and not made(hospital, "Gold")
    brought("gold", "new")
    assert made(hospital, "Gold")


def test_a_run_that_died_is_known_to_be_the_last_whatever_the_clocks_say(hospital):
    """It took a key away; its row says it began before the run that stands, whose clock was ahead."""
    from jobs import warehouse

    day = hospital.day(1)
    hospital.judge("patients", 1, hospital.row("patients", "P1"))
    row = {"layer": "silver", "dataset": "patients", "partition_date": day}
    warehouse.write(hospital.postgres, "ops.ledger", row | {"run_id": "died", "lost": 1})
    hospital.postgres.execute("update ops.ledger set started_at = '1999-01-01' where run_id = 'died'")
    assert warehouse.died_before(hospital.postgres, row | {"run_id": "next"})
    hospital.judge("patients", 1)
    hospital.postgres.execute("update ops.ledger set started_at = '2999-01-01' where run_id = 'died'")
    assert not warehouse.died_before(hospital.postgres, row | {"run_id": "next"})


@pytest.mark.parametrize("fault", ["lost", "run_id = 'x'", "made_from = 'x'", "made_from = ''"])
@pytest.mark.parametrize("layer", ["bronze", "silver", "gold"])
def test_a_receipt_that_is_lost_or_says_something_else_counts_for_nothing(hospital, brought, layer, fault):
    brought("gold", "one")
    assert made(hospital, layer.title())
    where = "where layer = %s and dataset = 'patients' and partition_date = %s"
    change = "delete from ops.receipts" if fault == "lost" else f"update ops.receipts set {fault}"
    hospital.postgres.execute(f"{change} {where}", [layer, hospital.day(1)])
    assert not made(hospital, layer.title())
    brought(layer, "one")
    assert made(hospital, layer.title())


def test_what_an_earlier_version_has_marked_stale_stays_so(empty_warehouse):
    from jobs import warehouse

    with empty_warehouse.transaction(force_rollback=True):
        empty_warehouse.execute(
            "insert into ops.receipts (layer, dataset, partition_date, run_id, made_from, rule_set, stale_since) "
            "values ('silver', 'visits', '2026-01-01', 'run', 'file', 'rules', now())"
        )
        turns = []
        for _ in range(2):
            empty_warehouse.execute(warehouse.schema())
            turns += empty_warehouse.execute("select stale_turn from ops.receipts where run_id = 'run'").fetchone()
    assert turns[0] and turns[0] == turns[1]


def test_the_last_date_there_is_has_a_next_one_that_clients_can_read(empty_warehouse):
    receipt = "insert into ops.receipts (layer, dataset, partition_date, run_id, rule_set, made_from) values "
    with empty_warehouse.transaction(force_rollback=True):
        empty_warehouse.execute(f"{receipt} ('bronze', 'patients', '9999-12-31', 'R', '', '')")
        found = empty_warehouse.execute("select newest, next_due, overdue from ops.freshness where newest is not null")
        [(newest, due, overdue)] = found.fetchall()
    assert newest == date(9999, 12, 31) and due.year == 9999 and not overdue
