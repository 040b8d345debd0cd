"""Checks on the real stack that gold is a pure function of silver: updates, restatements and parents in any order."""

from dataclasses import replace
from datetime import date

import psycopg
import pytest

from jobs import gold, ledger, program, warehouse
from jobs.catalog import CATALOG

KEYS = (
    "select conname, pg_get_constraintdef(oid) from pg_constraint where connamespace = 'public'::regnamespace "
    "union all select indexname, indexdef from pg_indexes where schemaname = 'public' order by 1, 2"
)


def test_an_old_day_never_undoes_a_newer_one_and_stands_again_when_that_is_gone(hospital):
    cities = "patient_id", "city"
    patient = hospital.key("P1")
    hospital.validate("patients", 1, hospital.row("patients", "P1", city="old"))
    hospital.validate("patients", 2, hospital.row("patients", "P1", city="new"))
    hospital.load("patients", 2)
    hospital.load("patients", 1)
    assert hospital.gold("patients", *cities) == [(patient, "new")]
    assert "0 inserted, 0 updated, 1 unchanged, 0 removed" in hospital.load("patients", 2)
    hospital.validate("patients", 2)
    assert "0 removed" in hospital.load("patients", 2)
    assert hospital.gold("patients", *cities) == [(patient, "old")]
    hospital.validate("patients", 1)
    assert "1 removed" in hospital.load("patients", 1)
    assert hospital.gold("patients") == []


def test_a_parent_takes_its_children_along_and_brings_them_back(hospital):
    everything = "patients", "visits", "billing"
    whole = {name: [(hospital.key(key),)] for name, key in zip(everything, ("P1", "V1", "B1"), strict=True)}
    for name, key in zip(everything, ("P1", "V1", "B1"), strict=True):
        hospital.validate(name, 1, hospital.row(name, key))
        hospital.load(name, 1)
    assert {name: hospital.gold(name) for name in everything} == whole

    hospital.validate("patients", 1)  # a corrected file without the patient
    hospital.load("patients", 1)  # in one transaction, without a foreign key violation
    assert {name: hospital.gold(name) for name in everything} == {name: [] for name in everything}
    assert hospital.revalidate() == [("visits", hospital.day(1)), ("billing", hospital.day(1))]
    assert hospital.revalidate() == []

    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    assert hospital.revalidate() == [("visits", hospital.day(1)), ("billing", hospital.day(1))]
    for name in everything:
        hospital.load(name, 1)
    assert {name: hospital.gold(name) for name in everything} == whole


def test_a_child_that_left_with_its_parent_is_back_though_its_own_verdict_never_changed(hospital):
    """Takes the parent away and brings it back before the child is revalidated."""
    visit = [(hospital.key("V1"),)]
    for name, key in (("patients", "P1"), ("visits", "V1")):
        hospital.validate(name, 1, hospital.row(name, key))
        hospital.load(name, 1)
    for patients, visits in (([], []), ([hospital.row("patients", "P1")], [])):
        hospital.validate("patients", 1, *patients)
        hospital.load("patients", 1)
        assert hospital.gold("visits") == visits
    hospital.revalidate()
    hospital.load("visits", 1)
    assert hospital.gold("visits") == visit


def test_what_is_as_it_stood_is_not_written_again(hospital):
    """Forces a rerun: silver keeps its versions and gold its rows, unless somebody changed them by hand."""
    from jobs import delta_log
    from jobs.bronze_to_silver import bronze_to_silver

    dataset, day = CATALOG["patients"], hospital.day(1)

    def markers():
        """Returns {layer: (current run, its sequence number)}."""
        found = hospital.postgres.execute(
            "select layer, run_id, turn from ops.receipts where dataset = 'patients' and partition_date = %s", [day]
        )
        return {layer: (run_id, turn) for layer, run_id, turn in found}

    def versions():
        return [delta_log.last_commit(dataset, kind).version for kind in ("accepted", "rejected")]

    hospital.validate("patients", 1, hospital.row("patients", "P1"), hospital.row("patients", "P2", gender="X"))
    hospital.load("patients", 1)
    stood, written = markers(), versions()
    assert bronze_to_silver(dataset, day).endswith("already up to date")
    gold.create_staging(hospital.postgres, "x-dead0000")
    assert hospital.load("patients", 1).endswith("0 inserted, 0 updated, 1 unchanged, 0 removed; already up to date")
    assert versions() == written
    left = hospital.postgres.execute("select count(*) from pg_tables where schemaname = 'staging'").fetchone()
    assert left == (0,), "what a load left that died after its marker goes all the same"
    for layer in ("silver", "gold"):
        run_id, turn = markers()[layer]
        assert run_id == stood[layer][0] and turn > stood[layer][1], f"{layer} counts as made just now"

    hospital.postgres.execute("update patients set city = 'elsewhere' where patient_id = %s", [hospital.key("P1")])
    assert "1 updated" in hospital.load("patients", 1)
    hospital.postgres.execute("delete from ops.withheld where _partition_date = %s", [day])
    assert not hospital.load("patients", 1).endswith("already up to date")
    assert hospital.load("patients", 1).endswith("already up to date")

    hospital.postgres.execute(  # as a run that died while writing leaves it
        "update ops.receipts set made_from = '' where layer = 'silver' and partition_date = %s", [day]
    )
    assert not bronze_to_silver(dataset, day).endswith("already up to date")
    assert versions() != written
    assert not hospital.load("patients", 1).endswith("already up to date"), "silver has another run"


def test_dates_in_one_job_end_as_each_by_itself(hospital, spark):
    """Covers a key whose newer version wins, a refused date, and a date that is due because its parents arrive."""
    from jobs import bronze_to_silver, delta_tables, silver_to_gold

    patients, visits, days = CATALOG["patients"], CATALOG["visits"], [hospital.day(number) for number in (1, 2, 3)]
    hospital.validate("visits", 1, hospital.row("visits", "V1"), hospital.row("visits", "V2", status="?"))
    for number, cities in {1: ("old", "here"), 2: ("new",)}.items():
        rows = (hospital.row("patients", f"P{n}", city=city) for n, city in enumerate(cities, 1))
        hospital.land("patients", number, *rows)
        hospital.bronze("patients", number)
    with pytest.raises(program.Refused, match=f"bronze patients/{days[2]:%Y/%m/%d}/patients.csv is missing"):
        bronze_to_silver.bronze_to_silver(patients, *days)
    assert [day for _, day, _ in ledger.stale(visits)] == days[:1]
    hospital.land("visits", 2, hospital.row("visits", "V1", department="later"))
    hospital.bronze("visits", 2)
    said = bronze_to_silver.bronze_to_silver(visits, days[1])
    assert f"silver visits {days[0]}: 2 rows = 1 accepted + 1 rejected (unknown_status 1)" in said
    assert f"silver visits {days[1]}: 1 rows = 1 accepted + 0 rejected" in said and ledger.stale(visits) == []
    both = [ledger.standing(hospital.postgres, visits, day) for day in days[:2]]
    assert len({run["run_id"] for run in both}) == 2, "each partition has a run of its own"
    rows = (
        delta_tables.silver(spark, visits)
        .filter(f"year(_partition_date) = {hospital.year}")
        .select("_partition_date", "_run_id")
    )
    assert {tuple(row) for row in rows.collect()} == {(run["partition_date"], run["run_id"]) for run in both}
    with pytest.raises(program.Refused, match=f"patients of {days[2]} has not been validated to the end"):
        silver_to_gold.silver_to_gold(patients, *days)
    said = silver_to_gold.silver_to_gold(visits, *days[:2]).splitlines()
    assert said == [
        f"gold visits {days[0]}: 0 inserted, 0 updated, 0 unchanged, 0 removed",
        f"gold visits {days[1]}: 1 inserted, 0 updated, 0 unchanged, 0 removed",
    ]
    of_key = hospital.gold("patients", "patient_id", "city", "_partition_date")
    assert of_key == [(hospital.key("P1"), "new", days[1]), (hospital.key("P2"), "here", days[0])]
    assert hospital.gold("visits", "department", "_partition_date") == [("later", days[1])]
    withheld = hospital.postgres.execute("select row_key from ops.withheld where _partition_date = any(%s)", [days])
    assert withheld.fetchall() == [(hospital.key("V2"),)]


def test_partitions_share_a_plan_while_they_are_of_one_kind_and_have_few_rows(monkeypatch):
    monkeypatch.setattr(program, "FEW_ROWS", 10)
    monkeypatch.setattr(program, "MANY_DATES", 3)
    days = [date(2026, 1, number) for number in range(1, 7)]
    few = dict.fromkeys(days, 1)
    assert program.plans(few) == [days[:3], days[3:]]
    assert program.plans(few | {days[0]: 9}) == [days[:1], days[1:4], days[4:]], "together they have ten"
    assert program.plans(few, {day: day.day % 2 for day in days}) == [days[::2], days[1::2]]


def test_a_key_that_moves_between_dates_of_one_load_stays(hospital):
    """Moves a key from the newer partition to the older one, loading both at once."""
    from jobs import bronze_to_silver, silver_to_gold

    patients, days = CATALOG["patients"], [hospital.day(1), hospital.day(2)]
    for number in (1, 2):
        hospital.validate("patients", number, *([hospital.row("patients", "P1", city="two")] if number == 2 else []))
        hospital.load("patients", number)
    for number, rows in {1: [hospital.row("patients", "P1", city="one")], 2: []}.items():
        hospital.land("patients", number, *rows)
        hospital.bronze("patients", number)
    bronze_to_silver.bronze_to_silver(patients, *days)
    silver_to_gold.silver_to_gold(patients, *days)
    assert hospital.gold("patients", "city", "_partition_date") == [("one", days[0])]


def test_a_parent_of_another_date_is_loaded_with_the_child_that_needs_it(hospital):
    hospital.validate("patients", 2, hospital.row("patients", "P1"))
    hospital.validate("visits", 1, hospital.row("visits", "V1"))
    hospital.load("visits", 1)
    assert hospital.gold("visits", "visit_id", "_partition_date") == [(hospital.key("V1"), hospital.day(1))]
    assert hospital.gold("patients", "patient_id", "_partition_date") == [(hospital.key("P1"), hospital.day(2))]
    assert "0 inserted, 0 updated, 1 unchanged" in hospital.load("patients", 2)


def test_a_child_falls_back_to_the_version_whose_parent_remains(hospital):
    other = hospital.key("P2")
    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    hospital.validate("patients", 2, hospital.row("patients", "P2"))
    hospital.validate("visits", 1, hospital.row("visits", "V1", department="first"))
    hospital.validate("visits", 2, hospital.row("visits", "V1", department="second", patient_id=other))
    for number in (1, 2):
        hospital.load("patients", number)
        hospital.load("visits", number)
    assert hospital.gold("visits", "department", "patient_id") == [("second", other)]
    hospital.validate("patients", 2)
    hospital.load("patients", 2)
    assert hospital.gold("visits", "department", "patient_id") == [("first", hospital.key("P1"))]
    assert hospital.revalidate() == [("visits", hospital.day(2))]
    hospital.load("visits", 2)
    assert hospital.gold("visits", "department", "patient_id") == [("first", hospital.key("P1"))]


def test_a_late_parent_makes_its_orphans_due(hospital):
    assert "1 rejected (orphan_patient_id 1)" in hospital.validate("visits", 1, hospital.row("visits", "V1"))
    hospital.validate("patients", 2, hospital.row("patients", "P1"))
    assert hospital.revalidate() == [("visits", hospital.day(1))]
    hospital.load("visits", 1)
    assert hospital.gold("visits") == [(hospital.key("V1"),)]


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


def test_what_was_rejected_for_something_else_is_revalidated_when_its_parent_goes(hospital, spark):
    from jobs import delta_tables
    from jobs.catalog import CATALOG

    def reasons():
        rejected = delta_tables.silver(spark, CATALOG["visits"], "rejected").filter(
            f"year(_partition_date) = {hospital.year}"
        )
        return sorted(code for (code,) in rejected.select("_reject_reason").collect())

    patients = [hospital.row("patients", key) for key in ("P1", "P2")]
    hospital.validate("patients", 1, *patients)
    hospital.validate("visits", 1, hospital.row("visits", "V1", status="?"))
    other = hospital.row("visits", "V2", patient_id=hospital.key("P2"))
    # of two valid rows the one with the greater patient_id wins
    hospital.validate("visits", 2, other, hospital.row("visits", "V2"))
    hospital.validate("visits", 3, hospital.row("visits", "V3", patient_id=""))
    assert reasons() == ["duplicate_visit_id", "missing_patient_id", "unknown_status"]
    hospital.validate("patients", 1, patients[1])
    assert hospital.revalidate() == [("visits", hospital.day(1)), ("visits", hospital.day(2))]
    assert reasons() == ["missing_patient_id", "orphan_patient_id", "orphan_patient_id;unknown_status"]


def test_loads_leave_no_staging_behind(hospital):
    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    hospital.load("patients", 1)
    left = hospital.postgres.execute("select tablename from pg_tables where schemaname = 'staging'").fetchall()
    assert left == []


def test_the_ledger_holds_each_run_with_its_counts(hospital):
    hospital.validate("patients", 1, hospital.row("patients", "P1"), hospital.row("patients", "P2", gender=""))
    hospital.load("patients", 1)
    found = hospital.postgres.execute(
        "select layer, outcome, bronze_rows, accepted, rejected, inserted, removed from ops.ledger "
        "where partition_date = %s order by started_at",
        [hospital.day(1)],
    )
    assert [tuple(row) for row in found] == [
        ("bronze", "done", 2, None, None, None, None),
        ("silver", "done", 2, 1, 1, None, None),
        ("gold", "done", None, None, None, 1, 0),
    ]
    hits = hospital.postgres.execute(
        "select reason, hits from ops.reasons where partition_date = %s order by hits desc, reason limit 1",
        [hospital.day(1)],
    ).fetchall()
    assert [tuple(row) for row in hits] == [("missing_gender", 1)]


def test_many_rows_end_as_few_would(hospital, monkeypatch):
    monkeypatch.setattr(program, "FEW_ROWS", -1)
    monkeypatch.setattr(gold, "is_large", lambda *_: True)
    before = hospital.postgres.execute(KEYS).fetchall()
    twice = [hospital.row("visits", "V1", doctor_id=doctor) for doctor in ("D2", "D3", "D1")]
    rows = [*twice, hospital.row("visits", "V2", patient_id="nobody"), hospital.row("visits", "V3", status="")]
    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    said = hospital.validate("visits", 1, *rows)
    assert "5 rows = 1 accepted + 4 rejected (orphan_patient_id 1, missing_status 1, duplicate_visit_id 2)" in said
    hospital.load("patients", 1)
    assert "1 inserted, 0 updated, 0 unchanged" in hospital.load("visits", 1)
    assert hospital.gold("visits", "visit_id", "doctor_id") == [(hospital.key("V1"), "D3")]
    assert "0 inserted, 0 updated, 1 unchanged" in hospital.load("visits", 1)
    assert hospital.postgres.execute(KEYS).fetchall() == before


def test_a_whole_file_after_a_torn_one_takes_children_along(hospital, monkeypatch):
    monkeypatch.setattr(gold, "is_large", lambda *_: True)
    for name, key in (("patients", "P1"), ("visits", "V1"), ("billing", "B1")):
        hospital.validate(name, 1, hospital.row(name, key))
        hospital.load(name, 1)
    hospital.validate("visits", 1, *(hospital.row("visits", key) for key in ("V2", "V3", "V4")))
    assert "3 inserted, 0 updated, 0 unchanged, 1 removed" in hospital.load("visits", 1)
    assert hospital.gold("billing") == []


def test_keys_that_are_built_after_a_load_are_held_to(stack):
    admissions = CATALOG["admissions"]
    columns = "admission_id, visit_id, admit_ts, room_type, _partition_date, _run_id"
    orphan = f"insert into admissions ({columns}) values ('A', 'no visit', now(), 'ICU', now(), 'run')"
    with warehouse.connect() as connection, connection.transaction(force_rollback=True):
        before = connection.execute(KEYS).fetchall()
        connection.execute("delete from admissions")
        with gold.without_keys(connection, admissions, gold.MANY):
            assert len(connection.execute(KEYS).fetchall()) < len(before) - 4
        assert connection.execute(KEYS).fetchall() == before
        with (
            pytest.raises(psycopg.errors.ForeignKeyViolation),
            gold.without_keys(connection, admissions, gold.MANY),
        ):
            connection.execute(orphan)


def test_what_a_dead_load_still_writes_reaches_no_other_load(hospital, monkeypatch):
    """Lets Spark's late writes for a killed load arrive when the next load has staged its rows."""
    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    silver = {"partition_date": hospital.day(1), "run_id": "R"}
    gold.create_staging(hospital.postgres, "19700101T000000-dead0000", silver)
    late = "insert into {} (patient_id, gender, birth_date, registration_date) values (%s, 'F', '2000-1-1', '2020-1-1')"
    with warehouse.connect() as writer:  # a writer that has begun and holds a lock on the table
        writer.execute("begin")
        writer.execute(late.format(gold.staging("patients", "dead0000")), [hospital.key("P8")])
        find_lost = gold.find_lost

        def now(*arguments):
            with pytest.raises(psycopg.errors.UndefinedTable):
                hospital.postgres.execute(late.format("staging.patients_dead0000"), [hospital.key("P9")])
            return find_lost(*arguments)

        monkeypatch.setattr(gold, "find_lost", now)
        hospital.load("patients", 1)
        with pytest.raises(psycopg.OperationalError):
            writer.execute("commit")
    assert hospital.gold("patients") == [(hospital.key("P1"),)]


@pytest.mark.parametrize("table", ["visits", "withheld"])
def test_rows_that_are_staged_twice_are_not_loaded(hospital, monkeypatch, table):
    """Simulates an executor that dies after its commit but before reporting it: Spark writes the rows again."""
    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    hospital.validate("visits", 1, hospital.row("visits", "V1"), hospital.row("visits", "V2", status="?"))
    append = gold.append

    def twice(rows, name, days=()):
        append(rows, name, days)
        if table in name:
            append(rows, name, days)

    with monkeypatch.context() as patch:
        patch.setattr(gold, "append", twice)
        with pytest.raises(program.Refused, match=r"1 rows of visits .* but 2 staged"):
            hospital.load("visits", 1)
    assert hospital.gold("visits") == []
    hospital.load("visits", 1)
    assert hospital.gold("visits") == [(hospital.key("V1"),)]
