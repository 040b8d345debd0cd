"""Checks the marts on few enough rows to add up by hand."""

import psycopg
import pytest
from psycopg import Connection, sql

from jobs.catalog import CATALOG
from jobs.marts import SQL, InvariantViolated, check, rebuild

MARTS = sorted(file.stem for file in (SQL / "marts").glob("*.sql"))
# marts that a visit changes
VISITED = ("mart_daily_kpis", "mart_department_stats", "mart_patient_stats", "ops.mart_trust")

# A valid row per table, which the tests vary.
SOUND = {
    "patients": {
        "patient_id": "P1",
        "gender": "F",
        "birth_date": "1980-05-17",
        "city": "Lyon",
        "registration_date": "2026-01-01",
    },
    "visits": {
        "visit_id": "V1",
        "patient_id": "P1",
        "visit_type": "Outpatient",
        "department": "Cardiology",
        "visit_start_ts": "2026-01-05 09:00",
        "visit_end_ts": "2026-01-05 10:30",
        "status": "Completed",
    },
    "admissions": {
        "admission_id": "A1",
        "visit_id": "V1",
        "admit_ts": "2026-01-05 12:00",
        "discharge_ts": "2026-01-07 12:00",
        "room_type": "ICU",
    },
    "treatments": {
        "treatment_id": "T1",
        "visit_id": "V1",
        "treatment_code": "ECG",
        "treatment_cost": "20.00",
        "performed_ts": "2026-01-05 09:30",
    },
    "billing": {
        "bill_id": "B1",
        "visit_id": "V1",
        "total_amount": "100.00",
        "insurance_amount": "70.00",
        "patient_amount": "30.00",
        "payment_status": "Paid",
        "payment_ts": "2026-01-20 08:00",
    },
}


OPS = ("ops.withheld", "ops.ledger", "ops.receipts", "ops.reasons", "ops.touched", "ops.built")


@pytest.fixture
def hospital(empty_warehouse: Connection) -> Connection:
    """Returns an empty warehouse."""
    return empty_warehouse


def connect(other: Connection) -> Connection:
    """Opens one more connection to the same database."""
    return psycopg.connect(other.info.dsn, password=other.info.password, autocommit=True)


def add(hospital: Connection, table: str, partition: str = "2026-01-31", **values: str | None) -> None:
    """Inserts a row into gold: a valid one with the given values."""
    row = SOUND[table] | values | {"_partition_date": partition, "_run_id": "R1"}
    names = sql.SQL(", ").join(map(sql.Identifier, row))
    places = sql.SQL(", ").join(map(sql.Placeholder, row))
    hospital.execute(sql.SQL("insert into {} ({}) values ({})").format(sql.Identifier(table), names, places), row)


def rebuilt(hospital: Connection) -> dict[str, int]:
    """Rebuilds the marts, checks them, and returns the rows per mart."""
    with hospital.transaction():
        made = rebuild(hospital)
        check(hospital)
    return {mart: part.rows for mart, part in made.items()}


def rows(connection: Connection, mart: str) -> list[str]:
    """Returns a mart's rows as text, with nothing between the commas for null."""
    return [row for (row,) in connection.execute(f"select mart::text from {mart} as mart order by mart")]


def versions(hospital: Connection) -> dict[str, list[tuple]]:
    """Returns the location and the writing transaction of each mart row."""
    return {
        mart: hospital.execute(f"select ctid::text, xmin::text from {mart} order by ctid").fetchall() for mart in MARTS
    }


def test_one_visit_in_every_mart(hospital):
    for table in CATALOG:
        add(hospital, table)
    assert rebuilt(hospital) == {
        "mart_daily_kpis": 2,
        "mart_department_stats": 1,
        "mart_patient_stats": 1,
        "mart_episode_stays": 1,
        "mart_episodes": 1,
        "mart_daily_census": 27 * 6,  # 27 days of January, for five room types and the whole hospital
        "mart_stays": 1,
        "mart_readmissions": 1,
        "mart_emergency_flow": 0,
        "mart_emergency_minutes": 0,
        "mart_appointments": 1,
        "mart_doctor_days": 1,
        "mart_bill_days": 1,
        "mart_receivables": 27,
        "mart_receivables_ageing": 6,
        "mart_collections": 1,
        "mart_payment_days": 1,
        "ops.mart_trust": 3,
    }
    assert rows(hospital, "mart_daily_kpis") == [
        "(2026-01-01,0,0,0,,0.00,0.00,0.00,0,0,,1)",
        "(2026-01-05,1,1,1,2.0000,100.00,70.00,30.00,1,0,100.0000,0)",
    ]
    assert rows(hospital, "mart_department_stats") == ["(Cardiology,2026-01-05,1,1,0,0,1,1.5000,1,2.0000,100.00)"]
    assert rows(hospital, "mart_patient_stats") == ["(P1,F,Lyon,45,1,2026-01-05,2026-01-05,100.00,100.00,f)"]


def test_no_gold_no_rows(hospital):
    assert rebuilt(hospital) == dict.fromkeys(MARTS, 0)


def test_two_bills_and_two_admissions_multiply_nothing(hospital):
    add(hospital, "patients", registration_date="2026-01-05")
    add(hospital, "visits")
    add(hospital, "admissions")
    add(hospital, "admissions", admission_id="A2", discharge_ts="2026-01-06 12:00")
    add(hospital, "treatments")
    add(hospital, "treatments", treatment_id="T2")
    add(hospital, "billing")
    add(hospital, "billing", bill_id="B2", total_amount="11.50", payment_status="Pending", payment_ts=None)
    rebuilt(hospital)
    assert rows(hospital, "mart_daily_kpis") == ["(2026-01-05,1,1,2,1.5000,111.50,140.00,60.00,1,1,50.0000,1)"]
    assert rows(hospital, "mart_department_stats") == ["(Cardiology,2026-01-05,1,1,0,0,1,1.5000,2,1.5000,111.50)"]
    assert rows(hospital, "mart_patient_stats") == ["(P1,F,Lyon,45,1,2026-01-05,2026-01-05,111.50,100.00,f)"]


def test_a_registration_alone_makes_a_day_and_a_patient(hospital):
    add(hospital, "patients", city=None)
    rebuilt(hospital)
    assert rows(hospital, "mart_daily_kpis") == ["(2026-01-01,0,0,0,,0.00,0.00,0.00,0,0,,1)"]
    assert rows(hospital, "mart_department_stats") == []
    assert rows(hospital, "mart_patient_stats") == ["(P1,F,,45,0,,,0.00,0.00,f)"]


def test_an_admission_counts_on_its_own_day_but_in_its_visits_department_and_day(hospital):
    add(hospital, "patients", registration_date="2026-01-05")
    add(hospital, "visits", visit_start_ts="2026-01-05 23:59:59.999999", visit_end_ts=None)
    add(hospital, "admissions", admit_ts="2026-01-06 00:00", discharge_ts="2026-01-06 06:00")
    rebuilt(hospital)
    assert rows(hospital, "mart_daily_kpis") == [
        "(2026-01-05,1,1,0,,0.00,0.00,0.00,0,0,,1)",
        "(2026-01-06,0,0,1,0.2500,0.00,0.00,0.00,0,0,,0)",
    ]
    assert rows(hospital, "mart_department_stats") == ["(Cardiology,2026-01-05,1,1,0,0,1,,1,0.2500,0.00)"]


def test_a_bill_counts_on_its_visits_day_whenever_it_was_paid(hospital):
    add(hospital, "patients", registration_date="2026-01-05")
    add(hospital, "visits")
    add(hospital, "billing", payment_ts="2026-03-01 00:00", partition="2026-03-01")
    rebuilt(hospital)
    assert rows(hospital, "mart_daily_kpis") == ["(2026-01-05,1,1,0,,100.00,70.00,30.00,1,0,100.0000,1)"]


def test_days_are_utc_in_any_session(hospital):
    add(hospital, "patients", registration_date="2026-01-05")
    add(hospital, "visits", visit_start_ts="2026-01-05 00:30")
    with hospital.transaction():  # other tests share this connection
        hospital.execute("set local time zone 'America/Los_Angeles'")
        rebuilt(hospital)
    assert rows(hospital, "mart_daily_kpis") == ["(2026-01-05,1,1,0,,0.00,0.00,0.00,0,0,,1)"]


def test_an_open_stay_is_counted_but_not_averaged(hospital):
    add(hospital, "patients", registration_date="2026-01-05")
    add(hospital, "visits", visit_type="Inpatient")
    add(hospital, "admissions", discharge_ts=None)
    rebuilt(hospital)
    assert rows(hospital, "mart_daily_kpis") == ["(2026-01-05,1,1,1,,0.00,0.00,0.00,0,0,,1)"]
    assert rows(hospital, "mart_department_stats") == ["(Cardiology,2026-01-05,1,1,0,1,0,1.5000,1,,0.00)"]


def test_a_cancelled_visit_counts_but_is_not_completed(hospital):
    add(hospital, "patients", registration_date="2026-01-05")
    add(hospital, "visits", visit_type="Emergency")
    add(hospital, "visits", visit_id="V2", status="Cancelled", visit_end_ts=None)
    add(hospital, "visits", visit_id="V3", status="No-show", visit_end_ts=None, department="Oncology")
    rebuilt(hospital)
    assert rows(hospital, "mart_daily_kpis") == ["(2026-01-05,3,1,0,,0.00,0.00,0.00,0,0,,1)"]
    assert rows(hospital, "mart_department_stats") == [
        "(Cardiology,2026-01-05,2,1,1,0,1,1.5000,0,,0.00)",
        "(Oncology,2026-01-05,1,0,0,0,1,,0,,0.00)",
    ]


def test_each_department_and_day_has_its_own(hospital):
    add(hospital, "patients")
    days_and_departments = (("05", "Cardiology"), ("06", "Cardiology"), ("05", "Oncology"))
    for number, (day, department) in enumerate(days_and_departments, start=1):
        visit, start = f"V{number}", f"2026-01-{day} 09:00"
        add(hospital, "visits", visit_id=visit, department=department, visit_start_ts=start, visit_end_ts=None)
        add(hospital, "admissions", admission_id=visit, visit_id=visit, discharge_ts=f"2026-01-{5 + number} 12:00")
        add(hospital, "billing", bill_id=visit, visit_id=visit, total_amount=f"{number}.00", insurance_amount=None)
    rebuilt(hospital)
    assert rows(hospital, "mart_department_stats") == [
        "(Cardiology,2026-01-05,1,1,0,0,1,,1,1.0000,1.00)",
        "(Cardiology,2026-01-06,1,1,0,0,1,,1,2.0000,2.00)",
        "(Oncology,2026-01-05,1,1,0,0,1,,1,3.0000,3.00)",
    ]


def test_an_amount_left_blank_counts_as_nothing(hospital):
    add(hospital, "patients", registration_date="2026-01-05")
    add(hospital, "visits")
    add(hospital, "billing", insurance_amount=None, patient_amount=None)
    add(hospital, "billing", bill_id="B2", payment_status="Partial", patient_amount=None)
    rebuilt(hospital)
    assert rows(hospital, "mart_daily_kpis") == ["(2026-01-05,1,1,0,,200.00,70.00,0.00,1,0,50.0000,1)"]


def test_averages_and_rates_are_rounded_once_at_the_end(hospital):
    add(hospital, "patients", registration_date="2026-01-05")
    for number, minutes in enumerate((10, 10, 33)):
        visit = f"V{number}"
        add(hospital, "visits", visit_id=visit, visit_end_ts=f"2026-01-05 09:{minutes}")
        add(
            hospital,
            "admissions",
            admission_id=visit,
            visit_id=visit,
            discharge_ts=f"2026-01-05 12:{minutes}",
        )
        add(hospital, "billing", bill_id=visit, visit_id=visit, payment_status="Paid" if number else "Partial")
    rebuilt(hospital)
    # Rounding each before averaging would give 0.0122 days and 0.2945 hours.
    assert rows(hospital, "mart_daily_kpis") == ["(2026-01-05,3,3,3,0.0123,300.00,210.00,90.00,2,0,66.6667,1)"]
    assert rows(hospital, "mart_department_stats") == ["(Cardiology,2026-01-05,3,3,0,0,3,0.2944,3,0.0123,300.00)"]


def test_a_mean_that_is_half_a_last_place_is_rounded_up(hospital):
    add(hospital, "patients", registration_date="2026-01-05")
    add(hospital, "visits")
    # Three times four thirds of a day, a recurring decimal, and 0.425 days: 1.10625 on average.
    for number, end in enumerate(("06 20:00", "06 20:00", "06 20:00", "05 22:12")):
        add(hospital, "admissions", admission_id=f"A{number}", discharge_ts=f"2026-01-{end}")
    rebuilt(hospital)
    for mart, mean in (("mart_daily_kpis", "avg_length_of_stay_days"), ("mart_department_stats", "avg_los_days")):
        assert hospital.execute(f"select {mean}::text from {mart}").fetchall() == [("1.1063",)]


def test_a_patient_returns_with_the_second_visit(hospital):
    add(hospital, "patients")
    add(hospital, "patients", patient_id="P2", gender="M", city="Nice")
    add(hospital, "visits")
    add(hospital, "visits", visit_id="V2", visit_start_ts="2026-01-09 09:00", status="Cancelled")
    add(hospital, "visits", visit_id="V3", patient_id="P2")
    add(hospital, "billing")
    add(hospital, "billing", bill_id="B2", visit_id="V2", payment_status="Partial")
    rebuilt(hospital)
    assert rows(hospital, "mart_patient_stats") == [
        "(P1,F,Lyon,45,2,2026-01-05,2026-01-09,200.00,100.00,t)",
        "(P2,M,Nice,45,1,2026-01-05,2026-01-05,0.00,0.00,f)",
    ]


@pytest.mark.parametrize(
    ("born", "today", "age"),
    [
        ("1980-05-17", "2026-05-16", 45),
        ("1980-05-17", "2026-05-17", 46),
        ("2000-02-29", "2026-02-28", 25),
        ("2000-02-29", "2026-03-01", 26),
        ("2000-02-29", "2024-02-28", 23),
        ("2000-02-29", "2024-02-29", 24),
        ("2000-12-31", "2026-01-01", 25),
        ("2026-01-01", "2026-01-01", 0),
        ("2025-01-02", "2026-01-01", 0),
        ("1899-01-31", "2026-01-31", 127),
    ],
)
def test_age_in_whole_years(hospital, born, today, age):
    add(hospital, "patients", birth_date=born, registration_date=born, partition=today)
    rebuilt(hospital)
    assert rows(hospital, "mart_patient_stats") == [f"(P1,F,Lyon,{age},0,,,0.00,0.00,f)"]


@pytest.mark.parametrize("newest", CATALOG)
def test_ages_are_as_of_the_newest_partition_of_any_table(hospital, newest):
    for table in CATALOG:
        add(hospital, table, partition="2026-05-17" if table == newest else "2026-05-16")
    rebuilt(hospital)
    assert rows(hospital, "mart_patient_stats") == ["(P1,F,Lyon,46,1,2026-01-05,2026-01-05,100.00,100.00,f)"]


def test_a_second_rebuild_touches_no_row(hospital):
    for table in CATALOG:
        add(hospital, table)
    rebuilt(hospital)
    before = versions(hospital)
    rebuilt(hospital)
    assert versions(hospital) == before


def test_a_new_bill_touches_only_the_rows_it_changes(hospital):
    add(hospital, "patients")
    add(hospital, "patients", patient_id="P2")
    add(hospital, "visits")
    rebuilt(hospital)
    before = {mart: set(found) for mart, found in versions(hospital).items()}
    add(hospital, "billing")
    rebuilt(hospital)
    kept = {mart: len(before[mart] & set(found)) for mart, found in versions(hospital).items()}
    assert {mart: kept[mart] for mart in (*VISITED, "mart_appointments")} == {
        "mart_daily_kpis": 1,
        "mart_department_stats": 0,
        "mart_patient_stats": 1,
        "ops.mart_trust": 1,
        "mart_appointments": 1,
    }


def test_what_leaves_gold_leaves_the_marts(hospital):
    add(hospital, "patients")
    add(hospital, "patients", patient_id="P2")
    add(hospital, "visits")
    add(hospital, "visits", visit_id="V2", visit_start_ts="2026-01-06 09:00", visit_end_ts=None)
    add(hospital, "billing")
    add(hospital, "billing", bill_id="B2", total_amount="5.00")
    rebuilt(hospital)
    hospital.execute("delete from billing where bill_id = 'B2'")
    hospital.execute("delete from visits where visit_id = 'V2'")
    hospital.execute("delete from patients where patient_id = 'P2'")
    rebuilt(hospital)
    assert rows(hospital, "mart_daily_kpis") == [
        "(2026-01-01,0,0,0,,0.00,0.00,0.00,0,0,,1)",
        "(2026-01-05,1,1,0,,100.00,70.00,30.00,1,0,100.0000,0)",
    ]
    assert rows(hospital, "mart_department_stats") == ["(Cardiology,2026-01-05,1,1,0,0,1,1.5000,0,,100.00)"]
    assert rows(hospital, "mart_patient_stats") == ["(P1,F,Lyon,45,1,2026-01-05,2026-01-05,100.00,100.00,f)"]


def test_a_hand_on_a_mart_is_undone(hospital):
    for table in CATALOG:
        add(hospital, table)
    rebuilt(hospital)
    before = {mart: rows(hospital, mart) for mart in MARTS}
    hospital.execute("delete from mart_daily_kpis where total_visits = 1")
    hospital.execute("update mart_department_stats set avg_los_days = null")
    hospital.execute("insert into mart_patient_stats values ('P9', 'M', null, 1, 0, null, null, 0, 0, false)")
    rebuilt(hospital)
    assert {mart: rows(hospital, mart) for mart in MARTS} == before


def test_a_reader_sees_the_old_marts_until_the_commit(hospital):
    add(hospital, "patients")
    rebuilt(hospital)
    with connect(hospital) as reader:
        reader.execute("set lock_timeout = '1s'")
        before = {mart: rows(reader, mart) for mart in MARTS}
        add(hospital, "visits")
        with hospital.transaction():
            rebuild(hospital)
            after = {mart: rows(hospital, mart) for mart in MARTS}
            assert {mart: rows(reader, mart) for mart in MARTS} == before
            assert reader.execute("select count(*) from visits").fetchone() == (1,)
        assert {mart: rows(reader, mart) for mart in MARTS} == after
    assert all(before[mart] != after[mart] for mart in VISITED)


@pytest.mark.parametrize("statement", ["delete from visits", "delete from mart_daily_kpis"])
def test_until_the_commit_gold_and_marts_have_one_writer(hospital, statement):
    with connect(hospital) as other:
        other.execute("set lock_timeout = '100ms'")
        with hospital.transaction():
            rebuild(hospital)
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute(statement)
        other.execute(statement)


def test_a_mart_needs_a_transaction(hospital):
    with pytest.raises(psycopg.errors.NoActiveSqlTransaction):
        rebuild(hospital)


def test_views_and_grants_survive(hospital):
    hospital.execute("create view board as select sum(total_visits) from mart_daily_kpis")
    hospital.execute("grant select on mart_daily_kpis to public")
    granted = hospital.execute("select relacl::text from pg_class where oid = 'mart_daily_kpis'::regclass")
    before = granted.fetchall()
    add(hospital, "patients")
    add(hospital, "visits")
    rebuilt(hospital)
    granted = hospital.execute("select relacl::text from pg_class where oid = 'mart_daily_kpis'::regclass")
    assert granted.fetchall() == before
    assert hospital.execute("select * from board").fetchone() == (1,)


@pytest.mark.parametrize("mart", MARTS)
def test_a_select_names_its_tables_columns_in_their_order(hospital, mart):
    select = hospital.execute((SQL / "marts" / f"{mart}.sql").read_text())
    table = hospital.execute(f"select * from {mart}")
    assert [column.name for column in select.description] == [column.name for column in table.description]


def withhold(hospital: Connection, dataset: str, reasons: str, partition: str = "2026-01-31", **values: str) -> None:
    """Records a rejected row as a load of its partition would."""
    row = {"dataset": dataset, "reasons": reasons, "_partition_date": partition} | values
    names = sql.SQL(", ").join(map(sql.Identifier, row))
    places = sql.SQL(", ").join(map(sql.Placeholder, row))
    hospital.execute(sql.SQL("insert into ops.withheld ({}) values ({})").format(names, places), row)
    hospital.execute(
        "insert into ops.ledger (run_id, layer, dataset, partition_date, rejected) values ('S', 'silver', %s, %s, 1) "
        "on conflict (run_id, layer, dataset, partition_date) do update set rejected = ledger.rejected + 1",
        [dataset, partition],
    )
    hospital.execute(
        "insert into ops.receipts (layer, dataset, partition_date, run_id, made_from, rule_set) "
        "values ('gold', %s, %s, 'G', 'S', '') on conflict do nothing",
        [dataset, partition],
    )


def trust(hospital: Connection, columns: str) -> list[tuple]:
    found = hospital.execute(
        f"select stat_date::text, department, {columns} from ops.mart_trust order by stat_date, department"
    )
    return [tuple(row) for row in found]


def test_figures_from_which_nothing_is_withheld_are_complete(hospital):
    for table in CATALOG:
        add(hospital, table)
    withhold(hospital, "visits", "duplicate_visit_id", row_key="V1", row_day="2026-01-05", department="Cardiology")
    withhold(hospital, "billing", "unknown_payment_status", row_key="B1", visit_id="V1", amount="70")
    rebuilt(hospital)
    assert rows(hospital, "ops.mart_trust") == [
        "(2026-01-01,*,0,0,0,0,0,0,0.00,0.00,0,{},,,,,1,0,100.0000)",
        "(2026-01-05,*,1,0,1,0,1,0,100.00,0.00,0,{},100.0000,100.0000,100.0000,100.0000,0,0,)",
        "(2026-01-05,Cardiology,1,0,1,0,1,0,100.00,0.00,0,{},100.0000,100.0000,100.0000,100.0000,,,)",
    ], "a row of which gold has another version is not withheld"


def test_what_is_withheld_counts_on_the_day_and_in_the_department_of_its_visit(hospital):
    for table in CATALOG:
        add(hospital, table)
    lost = {"row_key": "V9", "row_day": "2026-01-06", "department": "Cardiology"}
    withhold(hospital, "visits", "unknown_status;missing_patient_id", **lost)
    withhold(hospital, "visits", "unknown_status", **lost | {"row_key": "V8", "department": "Cardiollogy"})
    withhold(hospital, "admissions", "missing_room_type", row_key="A2", visit_id="V1", row_day="2026-01-06")
    withhold(hospital, "billing", "unknown_payment_status", row_key="B2", visit_id="V1", amount="50.00")
    withhold(hospital, "billing", "orphan_visit_id", row_key="B3", visit_id="V9", amount="30.00")
    withhold(hospital, "billing", "missing_visit_id", row_key="B4", amount="20.00")
    withhold(hospital, "patients", "missing_gender", row_key="P9", row_day="2026-01-05")
    rebuilt(hospital)
    assert trust(hospital, "visits, visits_withheld, admissions_withheld, bills_withheld, revenue_withheld::text") == [
        ("2026-01-01", "*", 0, 0, 0, 0, "0.00"),
        ("2026-01-05", "*", 1, 0, 0, 1, "50.00"),
        ("2026-01-05", "Cardiology", 1, 0, 1, 1, "50.00"),
        ("2026-01-06", "(unknown)", 0, 1, 0, 0, "0.00"),
        ("2026-01-06", "*", 0, 2, 1, 1, "30.00"),
        ("2026-01-06", "Cardiology", 0, 1, 0, 1, "30.00"),
        ("2026-01-31", "(unknown)", 0, 0, 0, 1, "20.00"),
        ("2026-01-31", "*", 0, 0, 0, 1, "20.00"),
    ]
    [day] = hospital.execute(
        "select revenue_complete_pct::text, patients_complete_pct::text, withheld_by_reason from mart_daily_kpis "
        "join ops.mart_trust on stat_date = kpi_date and department = '*' where kpi_date = '2026-01-05'"
    ).fetchall()
    assert day == (
        "66.6667",
        "0.0000",
        {
            "billing": {"unknown_payment_status": {"rows": 1, "amount": 50.00}},
            "patients": {"missing_gender": {"rows": 1}},
        },
    )


def test_a_row_rejected_twice_is_withheld_once_with_its_newest_amount(hospital):
    for table in CATALOG:
        add(hospital, table)
    bill = {"row_key": "B2", "visit_id": "V1"}
    withhold(hospital, "billing", "orphan_visit_id", "2026-01-30", amount="99.00", **bill)
    withhold(hospital, "billing", "missing_total_amount", "2026-01-31", **bill)
    withhold(hospital, "billing", "negative_total_amount", "2026-01-31", amount="-5.00", row_key="B3", visit_id="V1")
    for _ in range(2):
        withhold(hospital, "billing", "missing_bill_id", "2026-01-31", amount="1.00", visit_id="V1")
    rebuilt(hospital)
    [day] = [row for row in trust(hospital, "bills_withheld, revenue_withheld::text, revenue_unknown") if row[2]][:1]
    assert day == ("2026-01-05", "*", 4, "2.00", 2), "without a key each is its own; below zero is not an amount"


# A violation, and the checks that detect it.
TAMPERED = [
    ("update mart_daily_kpis set total_revenue = total_revenue + 0.01", "revenue_adds_up (1 row)"),
    ("update mart_department_stats set total_revenue = 0", "revenue_adds_up (1 row)"),
    ("update mart_patient_stats set total_billed = total_billed * 2", "revenue_adds_up (1 row)"),
    ("update mart_daily_kpis set insurance_revenue = 0", "payers_add_up (1 row)"),
    ("update mart_daily_kpis set patient_revenue = patient_revenue * 2", "payers_add_up (1 row)"),
    ("update mart_daily_kpis set paid_bills = paid_bills * 2", "payments_add_up (1 row)"),
    ("update mart_daily_kpis set pending_bills = pending_bills + 1", "payments_add_up (1 row)"),
    ("update mart_patient_stats set total_paid = 0", "payments_add_up (1 row)"),
    ("update mart_daily_kpis set total_visits = total_visits * 2", "visits_add_up (1 row)"),
    ("update mart_daily_kpis set completed_visits = 0", "visits_add_up (1 row)"),
    ("update mart_department_stats set completed_visits = 0", "visits_add_up (1 row)"),
    ("update mart_patient_stats set total_visits = 3, is_returning = true", "visits_add_up (1 row)"),
    ("update mart_daily_kpis set total_admissions = total_admissions * 2", "admissions_add_up (1 row)"),
    ("update mart_department_stats set total_admissions = 0", "admissions_add_up (1 row)"),
    ("update mart_daily_kpis set new_patients = 0", "patients_add_up (1 row)"),
    ("delete from mart_patient_stats where total_visits = 0", "patients_add_up (1 row)"),
    ("update mart_daily_kpis set payment_rate_pct = 101", "parts_fit_their_whole (2 rows)"),
    ("update mart_department_stats set emergency_visits = 9", "parts_fit_their_whole (1 row)"),
    ("update mart_patient_stats set is_returning = not is_returning", "parts_fit_their_whole (2 rows)"),
    ("update mart_patient_stats set last_visit_date = '2000-01-01'", "parts_fit_their_whole (1 row)"),
    (
        "delete from billing",
        "payers_add_up (1 row), payments_add_up (1 row), receivables_add_up (1 row), revenue_adds_up (3 rows), "
        "trust_adds_up (2 rows)",
    ),
    ("delete from mart_episodes", "discharges_add_up (1 row), episodes_add_up (1 row)"),
    ("update mart_episode_stays set is_last = false", "episodes_add_up (1 row)"),
    ("update mart_episodes set ended = started", "episodes_add_up (1 row)"),
    ("update mart_daily_census set midnight_census = 2 where census_date = '2026-01-06'", "census_adds_up (12 rows)"),
    ("delete from mart_daily_census where census_date = '2026-01-06'", "census_adds_up (6 rows)"),
    ("delete from mart_daily_census where room_type = '*' and census_date = '2026-01-05'", "census_adds_up (1 row)"),
    ("update mart_daily_census set patient_days = 9 where room_type = 'ICU'", "census_adds_up (27 rows)"),
    ("update mart_stays set discharges = 2", "discharges_add_up (1 row)"),
    ("update mart_readmissions set readmitted_7d = 1", "discharges_add_up (1 row)"),
    ("insert into mart_emergency_flow values ('2026-01-05', 1, 1, 0, 0, 1, 0, 0)", "emergencies_add_up (1 row)"),
    ("insert into mart_emergency_minutes values ('2026-01-01', 90, 1)", "emergencies_add_up (1 row)"),
    ("update mart_appointments set kept = 0", "appointments_add_up (1 row)"),
    ("update mart_doctor_days set visits = 2", "appointments_add_up (1 row)"),
    ("update mart_receivables set balance = balance + 0.01", "receivables_add_up (2 rows)"),
    ("update mart_receivables_ageing set balance = 1 where bucket = '0–30'", "receivables_add_up (1 row)"),  # noqa: RUF001
    ("update mart_bill_days set billed = 99", "receivables_add_up (1 row)"),
    ("update mart_payment_days set amount = 99", "receivables_add_up (1 row)"),
    ("update mart_collections set paid_30d = 101", "receivables_add_up (1 row)"),
    ("delete from ops.mart_trust where department = '*'", "trust_adds_up (4 rows)"),
    ("update ops.mart_trust set visits_withheld = 1 where department = '*'", "trust_adds_up (1 row)"),
    ("update ops.mart_trust set revenue = revenue / 2", "trust_adds_up (1 row)"),
    (
        "insert into ops.withheld (dataset, _partition_date, reasons) values ('visits', '2026-01-31', 'malformed_row')",
        "withheld_rows_add_up (1 row)",
    ),
    (
        "truncate mart_daily_kpis",
        "admissions_add_up (1 row), patients_add_up (1 row), payers_add_up (1 row), "
        "payments_add_up (1 row), revenue_adds_up (1 row), visits_add_up (1 row)",
    ),
]


@pytest.mark.parametrize(("tampering", "found"), TAMPERED)
def test_a_violated_invariant_is_named(hospital, tampering, found):
    for table in CATALOG:
        add(hospital, table)
    add(hospital, "patients", patient_id="P2")
    rebuilt(hospital)
    with pytest.raises(InvariantViolated) as broken, hospital.transaction():
        hospital.execute(tampering)
        check(hospital)
    assert str(broken.value) == f"The marts do not agree with gold: sql/checks finds {found}."
    check(hospital)


def test_every_check_is_seen_to_fail():
    assert {file.stem for file in (SQL / "checks").glob("*.sql")} == {
        name.split()[0] for _, found in TAMPERED for name in found.split(", ")
    }


@pytest.mark.parametrize("file", sorted((SQL / "checks").glob("*.sql")), ids=lambda file: file.stem)
def test_a_check_opens_with_its_invariant(file):
    invariant = file.read_text().splitlines()[0]
    assert invariant.startswith("-- ") and invariant.endswith(".")
