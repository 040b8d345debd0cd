"""Checks that marts updated incrementally, from the changes of gold, equal marts rebuilt completely."""

import random
from contextlib import contextmanager
from datetime import date
from threading import Thread

import pytest

from jobs import gold, marts
from jobs.catalog import CATALOG
from jobs.gold_to_marts import gold_to_marts
from jobs.marts import PARTS, check, rebuild, refresh
from tests.sql.test_marts import MARTS, SOUND, add, connect, rows
from tests.sql.test_marts import hospital as hospital

# Few keys and few values, so that loads conflict; partitions before and after birthdays, leap days included.
PARTITIONS = [date(2023, 2, 28), date(2023, 3, 1), date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]
DAYS = ["2023-02-27", "2023-02-28", "2023-03-01", "2024-02-29"]
VALUES = {
    "patients": {
        "patient_id": ["P1", "P2", "P3", "P4"],
        "gender": ["F", "M"],
        "birth_date": ["2000-02-29", "1980-03-01", "1990-02-28", "1999-07-01"],
        "city": ["Lyon", None],
        "registration_date": DAYS,
    },
    "visits": {
        "visit_id": ["V1", "V2", "V3", "V4", "V5"],
        "visit_type": ["Inpatient", "Emergency"],
        "department": ["Cardiology", "Surgery"],
        "visit_start_ts": [f"{day} 09:00" for day in DAYS],
        "visit_end_ts": [None, "2024-03-01 10:00"],
        "status": ["Completed", "No-show"],
    },
    "admissions": {
        "admission_id": ["A1", "A2", "A3"],
        "admit_ts": [f"{day} 23:30" for day in DAYS],
        "discharge_ts": [None, "2024-03-02 01:00"],
    },
    "treatments": {"treatment_id": ["T1", "T2", "T3"], "treatment_cost": ["1.00", "2.00"]},
    "billing": {
        "bill_id": ["B1", "B2", "B3", "B4"],
        "total_amount": ["10.00", "20.50"],
        "insurance_amount": [None, "9.00"],
        "payment_status": ["Paid", "Pending"],
    },
}


@pytest.fixture(autouse=True)
def always_in_part(monkeypatch):
    """Allows incremental builds for any number of rows; whether they are worthwhile is not tested here."""
    monkeypatch.setattr(marts, "ENOUGH", 1000)


def found(connection):
    return {mart: rows(connection, mart) for mart in MARTS}


def touched(connection):
    """Returns the distinct recorded changes."""
    noted = connection.execute("select distinct day::text, patient_id from ops.touched order by 1, 2")
    return [tuple(note) for note in noted]


def load(hospital, dataset, partition, staged):
    """Loads rows into a partition as silver_to_gold does, assuming that no other partition has a version."""
    gold.create_staging(hospital, "L1", {"partition_date": partition, "run_id": "R1"})
    for row in staged:
        names = ", ".join(row)
        places = ", ".join(f"%({name})s" for name in row)
        hospital.execute(f"insert into {gold.staging(dataset.name, 'L1')} ({names}) values ({places})", row)
    losing = gold.find_lost(hospital, dataset, [partition], {}, "L1")
    with hospital.transaction():
        if losing:
            hospital.execute("set constraints all deferred")
        for each in CATALOG.values() if losing else [dataset]:
            gold.load(hospital, each, bool(losing), "L1")
    gold.drop_staging(hospital)


def change(hospital, chance):
    """Changes gold at random: mostly by a load of a partition, sometimes by an update of a row by hand."""
    name = chance.choice(list(CATALOG))
    dataset = CATALOG[name]
    if chance.random() < 0.15:
        column = chance.choice([column for column in VALUES[name] if column != dataset.key])
        hospital.execute(
            f"update {name} set {column} = %s where {dataset.key} = %s",
            [chance.choice(VALUES[name][column]), chance.choice(VALUES[name][dataset.key])],
        )
        return
    there = {
        parent: [key for (key,) in hospital.execute(f"select {CATALOG[parent].key} from {parent} order by 1")]
        for parent in dataset.parents.values()
    }
    staged = []
    if all(there.values()):
        for key in chance.sample(VALUES[name][dataset.key], chance.randint(0, 3)):
            row = SOUND[name] | {column: chance.choice(values) for column, values in VALUES[name].items()}
            row |= {column: chance.choice(there[parent]) for column, parent in dataset.parents.items()}
            staged.append(row | {dataset.key: key})
    load(hospital, dataset, chance.choice(PARTITIONS), staged)


def refresh_as_rebuilt(hospital):
    """Updates the marts, which must then equal rebuilt ones; returns whether all of PARTS were made in part."""
    with hospital.transaction():
        made = refresh(hospital)
        in_part = found(hospital)
        with hospital.transaction(force_rollback=True):
            rebuild(hospital)
            assert in_part == found(hospital)
        check(hospital)
    assert touched(hospital) == []
    return all(made[mart].touched is not None for mart in PARTS)


def live(hospital, seed, changes):
    """Plays a random history of gold; compares incremental with rebuilt marts at random intervals."""
    chance, parts = random.Random(seed), 0
    for _ in range(changes):
        change(hospital, chance)
        if chance.random() < 0.5:
            parts += refresh_as_rebuilt(hospital)
    return parts


@pytest.mark.parametrize("seed", range(4))
def test_marts_made_in_part_are_those_made_whole(hospital, seed):
    add(hospital, "patients", partition="2023-02-28")
    with hospital.transaction():
        rebuild(hospital)
    assert live(hospital, seed, 40) > 10, "of some 20 builds, all but those that found gold empty or new"


@contextmanager
def without(hospital, trigger, tables):
    for table in tables:
        hospital.execute(f"alter table {table} disable trigger {trigger}")
    try:
        yield
    finally:
        for table in tables:
            hospital.execute(f"alter table {table} enable trigger {trigger}")


@pytest.fixture
def built(hospital):
    """Returns a hospital with a row in each table and its marts, and one further patient and visit."""
    for table in CATALOG:
        add(hospital, table)
    add(hospital, "patients", patient_id="P2", registration_date="2026-01-02")
    add(hospital, "visits", visit_id="V2", patient_id="P2", visit_start_ts="2026-01-08 09:00", visit_end_ts=None)
    with hospital.transaction():
        rebuild(hospital)
    return hospital


REST = "patient_id, visit_type, department, visit_start_ts, status, _partition_date, _run_id"
# For each bug, the trigger that is disabled, its table, and a change that the trigger would note.
BUGS = {
    "the day an updated row was on": (
        "note_old_of_update",
        "visits",
        "update visits set visit_start_ts = '2026-01-05' where visit_id = 'V2'",
    ),
    "the day an updated row is on": (
        "note_new_of_update",
        "visits",
        "update visits set visit_start_ts = '2026-01-05' where visit_id = 'V2'",
    ),
    "rows that come": (
        "note_new_of_insert",
        "visits",
        f"insert into visits (visit_id, {REST}) select 'V3', {REST} from visits where visit_id = 'V2'",
    ),
    "rows that go": ("note_old_of_delete", "billing", "delete from billing"),
}


@pytest.mark.parametrize("bug", [None, *BUGS])
def test_what_is_not_noted_is_found(built, bug):
    if bug is None:
        for *_, statement in BUGS.values():
            built.execute(statement)
        assert refresh_as_rebuilt(built)
        return
    trigger, table, statement = BUGS[bug]
    with without(built, trigger, [table]), pytest.raises(AssertionError):
        built.execute(statement)
        refresh_as_rebuilt(built)


TOUCHING = [
    (
        "update visits set visit_start_ts = '2026-01-09' where visit_id = 'V1'",
        [("2026-01-05", "P1"), ("2026-01-09", "P1")],
    ),
    ("update visits set patient_id = 'P2' where visit_id = 'V1'", [("2026-01-05", "P1"), ("2026-01-05", "P2")]),
    ("update visits set status = 'Cancelled' where visit_id = 'V2'", [("2026-01-08", "P2")]),
    ("update billing set visit_id = 'V2'", [("2026-01-05", "P1"), ("2026-01-08", "P2")]),
    ("update billing set total_amount = 1", [("2026-01-05", "P1")]),
    ("delete from billing", [("2026-01-05", "P1")]),
    ("update treatments set treatment_cost = 1", [("2026-01-05", "P1")]),
    (
        "update admissions set admit_ts = '2026-01-06', visit_id = 'V2'",
        [("2026-01-05", "P1"), ("2026-01-05", None), ("2026-01-06", None), ("2026-01-08", "P2")],
    ),
    (
        "update patients set registration_date = '2026-01-03' where patient_id = 'P1'",
        [("2026-01-01", "P1"), ("2026-01-03", "P1")],
    ),
    ("update patients set city = city where patient_id = 'nobody'", []),
    ("truncate treatments", [(None, None)]),
]


@pytest.mark.parametrize(("statement", "notes"), TOUCHING)
def test_a_change_notes_what_it_touches_and_nothing_else(built, statement, notes):
    built.execute(statement)
    assert touched(built) == notes


def test_only_rows_of_touched_days_and_patients_are_made(built):
    built.execute("update billing set total_amount = 1")
    with built.transaction():
        made = refresh(built)
    assert {mart: made[mart] for mart in PARTS} == dict.fromkeys(PARTS, (1, 1))
    assert len(PARTS) == 8


def test_a_new_partition_touches_those_whose_age_changes(built):
    add(built, "patients", patient_id="P3", birth_date="2000-02-29", registration_date="2026-01-02")
    with built.transaction():
        rebuild(built)
    for newest, ages in (("2026-02-28", [45, 45, 25]), ("2026-03-01", [45, 45, 26]), ("2026-05-17", [46, 46, 26])):
        built.execute("update treatments set _partition_date = %s", [newest])
        with built.transaction():
            made = refresh(built)
        assert [age for (age,) in built.execute("select age_years from mart_patient_stats order by patient_id")] == ages
        assert made["mart_patient_stats"].touched == {"2026-02-28": 1, "2026-03-01": 2, "2026-05-17": 2}[newest]


def test_where_much_is_touched_all_is_made(built, monkeypatch):
    monkeypatch.setattr(marts, "ENOUGH", 0.4)
    built.execute("update visits set status = 'No-show' where visit_id = 'V1'")
    with built.transaction():
        made = refresh(built)
    by_touched = {
        part.touched: {made[mart].touched for mart in PARTS if PARTS[mart] == part} for part in PARTS.values()
    }
    assert by_touched == {"day": {1}, "patient_id": {None}}, "one of four days, one of two patients"


def test_changes_of_very_many_rows_are_noted_as_one(built):
    with built.transaction(force_rollback=True):
        built.execute(
            "insert into patients select 'N' || n, 'F', '2000-01-01', null, '2026-01-01', '2026-01-01', 'R1' "
            "from generate_series(1, 100001) as n"
        )
        assert touched(built) == [(None, None)]


def test_a_load_that_builds_its_keys_afterwards_notes_that_all_may_differ(built):
    built.execute("truncate treatments")
    with built.transaction():
        rebuild(built)
        with gold.without_keys(built, CATALOG["treatments"], gold.MANY):
            add(built, "treatments")
    assert touched(built) == [(None, None)]
    add(built, "treatments", treatment_id="T2")
    assert touched(built) == [("2026-01-05", "P1"), (None, None)], "and notes again from then on"


def test_a_build_that_is_undone_leaves_its_notes(built):
    built.execute("delete from billing")
    before = touched(built), found(built)
    with built.transaction(force_rollback=True):
        refresh(built)
        assert touched(built) == []
    assert (touched(built), found(built)) == before


def test_a_build_waits_for_a_load_and_reads_its_notes(built):
    with connect(built) as loader, connect(built) as builder:

        def make():
            with builder.transaction():
                refresh(builder)

        with loader.transaction():
            loader.execute("update visits set visit_start_ts = '2026-01-09' where visit_id = 'V1'")
            thread = Thread(target=make)
            thread.start()
            waits = "select from pg_locks where pid = %s and not granted"
            while not built.execute(waits, [builder.info.backend_pid]).rowcount:
                assert thread.is_alive(), "it did not wait"
        thread.join()
    assert touched(built) == []
    in_part = found(built)
    with built.transaction():
        rebuild(built)
    assert found(built) == in_part


def test_readers_see_the_old_marts_until_the_commit(built):
    built.execute("delete from billing")
    with connect(built) as reader:
        reader.execute("set lock_timeout = '1s'")
        before = found(reader)
        with built.transaction():
            refresh(built)
            assert found(reader) == before
        assert found(reader) != before


@pytest.fixture
def job(built, monkeypatch):
    """Returns a function that runs the job on this warehouse and names the marts built incrementally."""
    monkeypatch.setenv("POSTGRES_PORT", str(built.info.port))

    def run():
        said = gold_to_marts(date(2026, 1, 31)).splitlines()[-1].removeprefix("marts: ")
        return {part.split()[0] for part in said.split(", ") if "touched" in part}

    run()
    assert run() == IN_PART
    return run


IN_PART, WHOLE = set(PARTS), set()


def test_gold_that_no_load_changed_is_built_from_whole(built, job):
    with without(built, "user", ["billing"]):
        built.execute("update billing set total_amount = 77")
    assert touched(built) == []
    assert job() == WHOLE
    assert built.execute("select sum(total_revenue) from mart_daily_kpis").fetchone() == (77,)
    assert job() == IN_PART


def test_another_rule_set_builds_whole(built, job, monkeypatch):
    monkeypatch.setattr(marts, "rule_set", lambda: "another")
    assert job() == WHOLE
    assert job() == IN_PART


def test_marts_changed_by_hand_are_mended_where_the_checks_see_it(built, job):
    before = found(built)
    built.execute("update mart_daily_kpis set total_visits = 9")
    assert job() == WHOLE
    assert found(built) == before


def test_what_is_forgotten_is_built_whole(built, job):
    before = found(built)
    built.execute("update mart_department_stats set avg_los_days = 9")  # no check detects this
    assert job() == IN_PART
    assert found(built) != before
    marts.forget(built)
    assert job() == WHOLE
    assert found(built) == before
