"""Checks on the real stack that every row and sum is accounted for: ledger, thresholds and what breaches stop."""

from collections import Counter
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from psycopg.rows import dict_row
from pyspark.sql import functions as F

from jobs import schema
from jobs.catalog import CATALOG
from jobs.program import Refused
from tests.campaigns.test_laws import plant
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
    from jobs import lake, landing
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
        lake.upload(path, billing, day, facts)
        parents = {"visit_id": keys(spark, visits.key, "V1")}
        frame = lake.records(spark, billing, day, facts).withColumn("_partition_date", F.lit(day))
        [counts] = count(validate(frame, billing, {day: facts.header}, parents), billing, [day]).values()
        cents = int((counts.amount_accepted + counts.amount_rejected) * 100)
        assert (facts.records, facts.amounts, facts.cents) == (counts.rows, counts.amounts, cents)
        assert 5 < facts.amounts < len(AMOUNTS), "some can be read and some cannot"


def ledger_of(hospital, layer, dataset, *columns):
    found = hospital.postgres.execute(
        f"select {', '.join(columns)} from ops.ledger where layer = %s and dataset = %s "
        "and extract(year from partition_date) = %s order by started_at",
        [layer, dataset, hospital.year],
    )
    return [tuple(row) for row in found]


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
    assert ledger_of(hospital, "silver", "billing", *columns) == [sums]
    hospital.load("billing", 1)
    bills["B1"]["total_amount"] = "450.25"
    hospital.validate("billing", 1, *(hospital.row("billing", key, **bill) for key, bill in bills.items()))
    hospital.load("billing", 1)
    hospital.validate("patients", 1)
    hospital.load("patients", 1)
    changes = ledger_of(hospital, "gold", "billing", "inserted", "updated", "removed", "amount_change")
    assert changes == [
        (1, 0, 0, Decimal("500.00")),
        (0, 1, 0, Decimal("-49.75")),
        (0, 0, 1, Decimal("-450.25")),
    ], "a bill that goes with its patient has a row of its own"


def test_the_ledger_names_the_versions_that_a_run_wrote(hospital):
    from jobs import lake

    patients = CATALOG["patients"]
    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    hospital.validate("patients", 1)
    hospital.validate("patients", 1)
    runs = ledger_of(hospital, "silver", "patients", "run_id", "delta_accepted")
    first = lake.s3().get_object(
        Bucket=lake.settings.get("MINIO_BUCKET_SILVER"), Key=f"patients/_delta_log/{runs[0][1]:020d}.json"
    )
    assert runs[0][0].encode() in first["Body"].read()
    assert runs[0][1] < runs[1][1] <= runs[2][1] == lake.last_commit(patients, "accepted").version


def test_a_table_that_gets_no_rows_of_a_new_date_is_left_alone(hospital):
    hospital.validate("patients", 1, hospital.row("patients", "P1"), hospital.row("patients", "P2", birth_date="never"))
    hospital.validate("patients", 2, hospital.row("patients", "P3"))
    first, second = ledger_of(hospital, "silver", "patients", "delta_accepted", "delta_rejected")
    assert second[0] > first[0] and second[1] == first[1]


def test_rows_of_a_date_that_the_ledger_has_lost_do_not_stay(hospital, spark):
    from jobs import lake

    hospital.validate("patients", 1, hospital.row("patients", "P1", birth_date="never"))
    for table in ("ops.receipts", "ops.ledger"):  # as after a restore of PostgreSQL alone
        hospital.postgres.execute(f"delete from {table} where partition_date = %s", [hospital.day(1)])
    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    rejected = lake.silver(spark, CATALOG["patients"], "rejected")
    assert rejected.filter(rejected["_partition_date"] == hospital.day(1)).count() == 0


def test_a_commit_that_holds_other_rows_than_were_validated_gets_no_marker(hospital, monkeypatch):
    from jobs import lake, ledger

    true = lake.last_commit
    monkeypatch.setattr(lake, "last_commit", lambda *words: true(*words)._replace(rows={hospital.day(1): 2}))
    with pytest.raises(Refused, match="law 1 is broken"):
        hospital.validate("patients", 1, hospital.row("patients", "P1"))
    assert ledger.marker("silver", "patients", hospital.day(1)) is None
    [(outcome, error)] = ledger_of(hospital, "silver", "patients", "outcome", "error")
    assert outcome == "failed" and "law 1 is broken" in error


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
    from jobs import bronze_to_silver, ledger

    dataset, days = CATALOG["patients"], [hospital.day(1), hospital.day(2)]
    for number in (1, 2):
        hospital.land("patients", number, hospital.row("patients", f"P{number}"))
        hospital.bronze("patients", number)
    with monkeypatch.context() as patch, pytest.raises(Refused, match="law 1 is broken"):
        plant(patch, bronze_to_silver.publish, line, wrong)
        bronze_to_silver.bronze_to_silver(dataset, *days)
    assert [ledger.marker("silver", "patients", day) for day in days] == [None, None]
    bronze_to_silver.bronze_to_silver(dataset, *days)
    for number in (1, 2):
        hospital.load("patients", number)
    assert hospital.gold("patients", "patient_id", "_partition_date") == [
        (hospital.key(f"P{number}"), hospital.day(number)) for number in (1, 2)
    ]


def test_too_many_rejects_stop_a_date_before_gold_until_somebody_lets_it_pass(hospital):
    from jobs import thresholds
    from pipelines.tasks import Failed, QualityGate

    rows = [hospital.row("patients", f"P{n}", gender="?" if n > 90 else "F") for n in range(1, 151)]
    level = r"60 of 150 rows rejected \(40.0 %\), the stop level is 33 % and 50 rows"
    assert "stop: patients" in hospital.validate("patients", 1, *rows)
    hospital.validate("visits", 1, hospital.row("visits", "V1"))
    hospital.validate("visits", 2, hospital.row("visits", "V2"))
    for dataset in ("patients", "visits"):
        with pytest.raises(Refused, match=level):
            hospital.load(dataset, 1)
    with pytest.raises(Refused, match=f"needs patients of {hospital.day(1)}, which a stop level keeps out"):
        hospital.load("visits", 2)
    assert hospital.gold("patients") == hospital.gold("visits") == []
    with pytest.raises(Failed, match=f"{level}.*OVERRIDE=1"):
        QualityGate(date=hospital.day(1)).run()
    [(outcome, error)] = ledger_of(hospital, "gold", "all", "outcome", "error")
    assert outcome == "stopped" and "60 of 150 rows rejected (40.0 %)" in error
    states = "select state, why from ops.dates where partition_date = %s"
    state, why = hospital.postgres.execute(states, [hospital.day(1)]).fetchone()
    assert state == "stopped" and "patients is stopped before gold by rejected, unknown_gender" in why

    QualityGate(date=hospital.day(1), override=True).run()
    [(said,)] = ledger_of(hospital, "override", "patients", "overridden")
    assert "60 of 150 rows rejected (40.0 %)" in said and "unknown_gender" in said
    hospital.load("patients", 1)
    hospital.load("visits", 2)
    assert (len(hospital.gold("patients")), len(hospital.gold("visits"))) == (90, 1)

    rows[0]["city"] = "Elsewhere"  # another file needs another decision
    hospital.validate("patients", 1, *rows)
    with pytest.raises(Refused, match=level):
        hospital.load("patients", 1)
    hospital.validate("patients", 1, *rows[:100])
    assert thresholds.stops(hospital.postgres, hospital.day(1)) == []
    hospital.load("patients", 1)


def test_a_small_file_that_is_nearly_all_faulty_stops_its_date_too(hospital):
    from pipelines.tasks import Failed, QualityGate

    def validate(number, faulty, sound=0):
        rows = [hospital.row("patients", f"P{n}", birth_date="01/02/1980") for n in range(faulty)]
        rows += [hospital.row("patients", f"P{n}") for n in range(faulty, faulty + sound)]
        return hospital.validate("patients", number, *rows)

    said = validate(1, 45)
    level = "the stop level is 90 % and 5 rows"
    assert f"stop: patients {hospital.day(1)}: 45 of 45 rows rejected (100.0 %), {level}" in said
    assert f"45 of 45 rows rejected with unreadable_birth_date (100.0 %), {level}" in said and said.count("stop:") == 2
    with pytest.raises(Refused, match=f"45 of 45 rows rejected .100.0 %., {level}"):
        hospital.load("patients", 1)
    with pytest.raises(Failed, match=f"{level}.*OVERRIDE=1"):
        QualityGate(date=hospital.day(1)).run()
    QualityGate(date=hospital.day(1), override=True).run()
    hospital.load("patients", 1)
    assert validate(2, 9, sound=1).count(level) == 2 and level in validate(2, 5)
    assert "stop:" not in validate(2, 4) + validate(2, 8, sound=1)
    said = validate(3, 60)  # breaches both thresholds
    assert said.count("the stop level is 33 % and 50 rows") == 2 and said.count("stop:") == 2


def test_a_small_file_of_orphans_alone_stops_nothing(hospital):
    said = hospital.validate("visits", 1, *(hospital.row("visits", f"V{n}") for n in range(10)))
    assert "stop:" not in said
    rows = [hospital.row("visits", f"V{n}", status="?" if n < 8 else "Completed") for n in range(10)]
    assert "stop:" not in hospital.validate("visits", 1, *rows), "eight are faulty, two only wait"


def levels_by_hand(hits, rows):
    """Returns by action the share of the smallest threshold that a file with these rejected rows breaches."""
    warns = [0.05] * (hits >= 20 and hits * 20 >= rows)
    stops = [1 / 3] * (hits >= 50 and hits * 3 >= rows) + [0.9] * (hits >= 5 and hits * 10 >= rows * 9)
    return {action: shares[0] for action, shares in {"warn": warns, "stop": stops}.items() if shares}


def test_levels_are_reached_alike_in_the_warehouse_and_in_a_backtest(empty_warehouse):
    from jobs import dry_run, ledger, validation, verdict_diff

    patients, first = CATALOG["patients"], date(2026, 1, 1)
    sizes = [*range(0, 13), *range(44, 62), 99, 100, 101, 149, 150, 151, 400, 30_000, 30_001]
    files = [
        (rows, hits)
        for rows in sizes
        for hits in sorted({min(max(hits, 0), rows) for part in (0, 0.05, 1 / 3, 0.9, 1) for hits in
                            (int(part * rows) - 1, int(part * rows), int(part * rows) + 1, 5, 50)})
    ]  # fmt: skip
    days = {date.fromordinal(first.toordinal() + n): file for n, file in enumerate(files)}
    with empty_warehouse.transaction(force_rollback=True):
        empty_warehouse.cursor().executemany(
            "insert into ops.ledger (run_id, layer, dataset, partition_date, bronze_rows, faulty) "
            "values ('R', 'silver', 'patients', %s, %s, %s)",
            [(day, *file) for day, file in days.items()],
        )
        with empty_warehouse.cursor(row_factory=dict_row) as cursor:
            tripped = cursor.execute("select * from ops.tripped order by partition_date, action").fetchall()
        found = {day: {} for day in days}
        for level in tripped:
            assert level["action"] not in found[level["partition_date"]], "one level is told"
            found[level["partition_date"]][level["action"]] = float(level["level_share"])
        assert found == {day: levels_by_hand(hits, rows) for day, (rows, hits) in days.items()}

        none = dict.fromkeys(patients.reasons, 0)
        counts = {
            day: validation.Counts(rows, rows - hits, hits, 0, Decimal(), Decimal(), none, 0)
            for day, (rows, hits) in days.items()
        }
        trial = dry_run.Retrial(patients, counts, None, None, None, set(), Counter())
        runs = {"patients": {day: {"bronze_sha256": "file"} for day in days}}
        _, *lines = verdict_diff.stop_lines(empty_warehouse, {"patients": trial}, runs)
        assert lines == [f"  {ledger.in_words(level)}" for level in tripped if level["action"] == "stop"]
    assert len(lines) > 50


def test_a_warehouse_of_one_level_a_rule_becomes_one_of_several(empty_warehouse):

    with empty_warehouse.transaction(force_rollback=True):
        empty_warehouse.execute(
            "drop view reports.reasons, reports.freshness, reports.files, reports.runs, ops.dates, ops.orphans, "
            "ops.tripped cascade; drop table ops.rules; create table ops.rules (dataset text, reason text, "
            "message text, retryable boolean, warn_share numeric, warn_rows bigint, stop_share numeric, "
            "stop_rows bigint); "
            "create view ops.tripped as select * from ops.rules"
        )
        for _ in range(2):
            empty_warehouse.execute(schema.ddl())
        found = empty_warehouse.execute(
            "select warn_share, warn_rows, stop_share, stop_rows from ops.rules where reason in ('rejected', %s)",
            ["orphan_patient_id"],
        ).fetchall()
    third, most = Decimal("0.3333333333333333"), Decimal("0.9")
    assert Counter(map(repr, map(tuple, found))) == {
        repr(([Decimal("0.05")], [20], [third, most], [50, 5])): 5,
        repr(([Decimal("0.05")], [20], None, None)): 1,
    }


def test_orphans_stop_nothing(hospital):
    said = hospital.validate("visits", 1, *(hospital.row("visits", f"V{n}") for n in range(60)))
    assert "warn: visits" in said and "stop:" not in said
    assert "0 inserted" in hospital.load("visits", 1)


def test_a_parent_counts_only_if_it_comes_in_time(hospital, monkeypatch):
    monkeypatch.setitem(CATALOG, "visits", replace(CATALOG["visits"], orphan_days=2))
    visits = [hospital.row("visits", f"V{n}", patient_id=hospital.key(f"P{n}")) for n in (1, 2)]
    hospital.validate("visits", 1, *visits)
    hospital.validate("patients", 4, hospital.row("patients", "P2"))
    assert hospital.revalidate() == [], "too late for the visit of day 1"
    hospital.validate("patients", 3, hospital.row("patients", "P1"))
    assert hospital.revalidate() == [("visits", hospital.day(1))]
    hospital.load("visits", 1)
    assert hospital.gold("visits") == [(hospital.key("V1"),)]
    waiting = hospital.postgres.execute(
        "select reason, waiting, attempts from ops.orphans where partition_date = %s", [hospital.day(1)]
    ).fetchall()
    assert [tuple(row) for row in waiting] == [("orphan_patient_id", 1, 2)]

    hospital.validate("patients", 3)  # the parent is removed again
    assert hospital.revalidate() == [("visits", hospital.day(1))]
    hospital.validate("patients", 4, hospital.row("patients", "P1"), hospital.row("patients", "P2"))
    assert hospital.revalidate() == []


def test_a_file_of_unusual_size_is_reported_when_it_comes(hospital):
    from jobs.arrival import unusual
    from jobs.ledger import usual_rows

    patients, hospital.year = CATALOG["patients"], 1950  # before the dates of all other tests
    rows = [hospital.row("patients", f"P{n}") for n in range(60)]
    for number in (1, 8, 15):
        hospital.land("patients", number, *rows[:-1], hospital.row("patients", "P60", city=f"City {number}"))
        assert hospital.bronze("patients", number).count("\n") == 0
    hospital.land("patients", 22, *rows[:29])
    assert "warn: patients" in hospital.bronze("patients", 22)
    [*_, (warning,)] = ledger_of(hospital, "bronze", "patients", "warnings")
    assert warning == "29 rows, where 3 earlier dates of its weekday have a median of 60"
    usual = usual_rows(hospital.postgres, patients, hospital.day(22))
    assert [unusual(n, patients, *usual) for n in (30, 60, 120)] == [None] * 3
    assert unusual(121, patients, *usual) and not unusual(121, patients, 2, 60.0)


def test_a_file_that_is_another_dates_very_file_is_taken_with_a_warning(hospital):
    def lands(number, *keys, dataset="patients"):
        """Lands a file with rows of these keys; returns the printed warnings and those in the ledger."""
        hospital.land(dataset, number, *(hospital.row(dataset, key) for key in keys))
        _, *warnings = hospital.bronze(dataset, number).splitlines()
        return warnings, ledger_of(hospital, "bronze", dataset, "warnings")[-1][0]

    assert lands(1, "P1", "P2") == lands(2, "P1") == lands(1, "V1", dataset="visits") == ([], None)
    said = (
        f"the very file of {hospital.day(1)}; if it was sent by mistake, put the right file in its place and run the "
        "date again"
    )
    [warning], noted = lands(3, "P1", "P2")
    assert warning.partition(" (")[0] == f"warn: patients {hospital.day(3)}: {said}" and noted == said
    assert lands(3, "P1", "P2") == lands(1, "P1", "P2") == ([], None), "the same date again is no other"
    [warning], _ = lands(4, "P1", "P2")
    assert f"the very file of {hospital.day(3)} and {hospital.day(1)};" in warning
    assert lands(1, "P3") == lands(3, "P4") == ([], None)
    [warning], _ = lands(5, "P1", "P2")
    assert f"the very file of {hospital.day(4)};" in warning, "the files of days 1 and 3 were replaced since"
    assert lands(6) == lands(7) == ([], None), "a header alone says nothing"


def test_several_warnings_about_a_file_are_all_told(hospital):
    hospital.year = 1951  # before the dates of all other tests
    rows = [hospital.row("patients", f"P{n}") for n in range(60)]
    for number, of in {1: rows, 8: rows[:59], 15: rows[:58], 16: rows[:20]}.items():
        hospital.land("patients", number, *of)
        assert hospital.bronze("patients", number).count("\n") == 0
    hospital.land("patients", 22, *rows[:20])
    said = hospital.bronze("patients", 22).splitlines()
    assert [line.startswith(f"warn: patients {hospital.day(22)}: ") for line in said] == [False, True, True]
    [*_, (warnings,)] = ledger_of(hospital, "bronze", "patients", "warnings")
    assert warnings.startswith(
        "20 rows, where 3 earlier dates of its weekday have a median of 59; the very file of 1951"
    )


def test_a_file_that_changes_while_it_is_read_leaves_nothing_behind(hospital, monkeypatch):
    from jobs import lake, landing, ledger

    hospital.land("patients", 1, hospital.row("patients", "P1"))
    real, path = lake.upload, landing.landing_path(CATALOG["patients"], hospital.day(1))

    def late(*words):
        with path.open("ab") as file:
            file.write(b"P2")
        return real(*words)

    monkeypatch.setattr(lake, "upload", late)
    with pytest.raises(Refused, match=f"{hospital.year}/01/01/patients.csv changed while it was read;"):
        hospital.bronze("patients", 1)
    monkeypatch.setattr(lake, "upload", lambda path, *words: (path.unlink(), real(path, *words)))
    with pytest.raises(FileNotFoundError):
        hospital.bronze("patients", 1)
    assert lake.bronze_head(CATALOG["patients"], hospital.day(1)) is None
    assert ledger.marker("bronze", "patients", hospital.day(1)) is None
    (_, changed), (outcome, vanished) = ledger_of(hospital, "bronze", "patients", "outcome", "error")
    assert outcome == "failed" and "changed while it was read" in changed
    assert vanished.startswith(f"{hospital.year}/01/01/patients.csv cannot be read (no such file or directory);")


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
    with pytest.raises(ZeroDivisionError), kept() as keep:
        assert keep(rows).storageLevel.useMemory
        raise ZeroDivisionError
    assert not rows.storageLevel.useMemory


def made(hospital, name):
    """Tells whether the marker of a task of the first day counts for a Luigi process that starts now."""
    from pipelines import tasks

    tasks.session.cache_clear()
    tasks.session()
    return getattr(tasks, name)(dataset="patients", date=hospital.day(1)).made_in() is not None


@pytest.fixture
def brought(hospital):
    """Returns a function that loads a file of the first day up to a layer, with a new file each time."""
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
def test_no_clock_makes_a_marker_look_newer_or_older_than_it_is(hospital, brought, clock):
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
    """Records a dead run that removed a key and began before the current run, whose clock was ahead."""
    from jobs import ledger

    day = hospital.day(1)
    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    row = {"layer": "silver", "dataset": "patients", "partition_date": day}
    ledger.write(hospital.postgres, "ops.ledger", row | {"run_id": "died", "lost": 1})
    hospital.postgres.execute("update ops.ledger set started_at = '1999-01-01' where run_id = 'died'")
    assert ledger.died_before(hospital.postgres, row | {"run_id": "next"})
    hospital.validate("patients", 1)
    hospital.postgres.execute("update ops.ledger set started_at = '2999-01-01' where run_id = 'died'")
    assert not ledger.died_before(hospital.postgres, row | {"run_id": "next"})


def test_markers_are_read_though_the_server_has_ended_the_connection(hospital):
    from jobs import ledger, warehouse

    before = warehouse.process_connection()
    assert warehouse.process_connection() is before
    hospital.postgres.execute("select pg_terminate_backend(%s)", [before.info.backend_pid])
    assert ledger.turn() and warehouse.process_connection() is not before


@pytest.mark.parametrize("fault", ["lost", "run_id = 'x'", "made_from = 'x'", "made_from = ''"])
@pytest.mark.parametrize("layer", ["bronze", "silver", "gold"])
def test_a_marker_that_is_lost_or_says_something_else_counts_for_nothing(hospital, brought, layer, fault):
    brought("gold", "one")
    assert made(hospital, layer.title())
    where = "where layer = %s and dataset = 'patients' and partition_date = %s"
    change = "delete from ops.receipts" if fault == "lost" else f"update ops.receipts set {fault}"
    hospital.postgres.execute(f"{change} {where}", [layer, hospital.day(1)])
    assert not made(hospital, layer.title())
    brought(layer, "one")
    assert made(hospital, layer.title())


def test_what_an_earlier_version_has_marked_stale_stays_so(empty_warehouse):

    with empty_warehouse.transaction(force_rollback=True):
        empty_warehouse.execute(
            "insert into ops.receipts (layer, dataset, partition_date, run_id, made_from, rule_set, stale_since) "
            "values ('silver', 'visits', '2026-01-01', 'run', 'file', 'rules', now())"
        )
        turns = []
        for _ in range(2):
            empty_warehouse.execute(schema.ddl())
            turns += empty_warehouse.execute("select stale_turn from ops.receipts where run_id = 'run'").fetchone()
    assert turns[0] and turns[0] == turns[1]


def test_the_last_date_there_is_has_a_next_one_that_clients_can_read(empty_warehouse):
    marker = "insert into ops.receipts (layer, dataset, partition_date, run_id, rule_set, made_from) values "
    with empty_warehouse.transaction(force_rollback=True):
        empty_warehouse.execute(f"{marker} ('gold', 'patients', '9999-12-31', 'R', '', '')")
        found = empty_warehouse.execute("select newest, next_due, overdue from ops.freshness where newest is not null")
        [(newest, due, overdue)] = found.fetchall()
    assert newest == date(9999, 12, 31) and due.year == 9999 and not overdue
