"""Tests the marts of patient flow and receivables by hand, and against an independent implementation on random data."""

import random
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest

from jobs import beds, marts, settings
from jobs.catalog import CATALOG
from jobs.marts import check, rebuild, refresh
from jobs.program import Refused
from tests.sql.test_marts import add, rebuilt
from tests.sql.test_marts import hospital as hospital
from tests.support import measures

NOW = "2026-03-31"  # the newest date of the hospitals below
HEADER = "room_type,beds,out_of_service,valid_from,valid_to\n"


@pytest.fixture(autouse=True)
def declared(tmp_path, monkeypatch):
    """Provides a file of beds for the test, which declares none."""
    file = tmp_path / "beds.csv"
    file.write_text(HEADER)
    monkeypatch.setattr(beds, "FILE", file)
    return file


def stay(hospital, admission, admit, discharge, patient="P1", room="General Ward", **values):
    """Puts a stay into gold, with a visit of its own, and the patient if they are new."""
    if not hospital.execute("select from patients where patient_id = %s", [patient]).rowcount:
        add(hospital, "patients", NOW, patient_id=patient)
    visit = {"visit_start_ts": admit, "visit_end_ts": discharge, "visit_type": "Inpatient"} | values
    add(hospital, "visits", NOW, visit_id=f"of {admission}", patient_id=patient, **visit)
    times = {"admit_ts": admit, "discharge_ts": discharge}
    add(hospital, "admissions", NOW, admission_id=admission, visit_id=f"of {admission}", room_type=room, **times)


def visit(hospital, key, start, end, **values):
    """Puts a visit of P1 into gold."""
    if not hospital.execute("select from patients where patient_id = 'P1'").rowcount:
        add(hospital, "patients", NOW)
    add(hospital, "visits", NOW, visit_id=key, visit_start_ts=start, visit_end_ts=end, **values)


def bill(hospital, key, start, end=None, total="100.00", **values):
    """Puts a bill into gold, with a visit of its own."""
    visit(hospital, f"of {key}", start, end)
    unpaid = {"payment_status": "Pending", "payment_ts": None, "insurance_amount": None, "patient_amount": None}
    add(hospital, "billing", NOW, bill_id=key, visit_id=f"of {key}", total_amount=total, **unpaid | values)


def built(hospital, query):
    """Rebuilds and checks the marts; returns the rows of a query over them as texts."""
    rebuilt(hospital)
    return asked(hospital, query)


def asked(hospital, query):
    return [tuple(map(str, row)) for row in hospital.execute(query)]


# ---- the fixture of the definitions ----------------------------------------------------------------------------------


@pytest.fixture
def fixture(hospital):
    stay(hospital, "A-1", "2026-01-01 10:00", "2026-01-03 09:00", "A", department="Surgery")
    stay(hospital, "A-2", "2026-01-03 09:30", "2026-01-05 12:00", "A", "ICU", department="Cardiology")
    stay(hospital, "A-3", "2026-02-04 08:00", "2026-02-04 20:00", "A")
    stay(hospital, "B-1", "2026-01-02 08:00", "2026-01-02 18:00", "B")
    stay(hospital, "C-1", "2026-01-02 23:30", None, "C")
    stay(hospital, "D-1", "2026-01-01 00:00", "2026-01-04 00:00", "D")
    stay(hospital, "D-2", "2026-01-03 12:00", "2026-01-06 00:00", "D", "Private")
    return hospital


def test_episodes_of_the_fixture(fixture):
    found = built(
        fixture,
        "select patient_id, started, ended, first_admission_id, last_admission_id, rooms, stays, hours, los_days, "
        "same_day, end_is_assumed, icu_contact from mart_episodes order by patient_id, started",
    )
    assert [", ".join(row) for row in found] == [
        "A, 2026-01-01 10:00:00, 2026-01-05 12:00:00, A-1, A-2, 2, 2, 98.0000, 4, False, False, True",
        "A, 2026-02-04 08:00:00, 2026-02-04 20:00:00, A-3, A-3, 1, 1, 12.0000, 1, True, False, False",
        "B, 2026-01-02 08:00:00, 2026-01-02 18:00:00, B-1, B-1, 1, 1, 10.0000, 1, True, False, False",
        "C, 2026-01-02 23:30:00, None, C-1, C-1, 1, 1, None, None, None, False, False",
        "D, 2026-01-01 00:00:00, 2026-01-06 00:00:00, D-1, D-2, 2, 2, 120.0000, 5, False, False, False",
    ]
    [way] = asked(
        fixture,
        "select first_visit_id, last_visit_id, first_department, last_department, first_room_type, last_room_type "
        "from mart_episodes where stays = 2 and patient_id = 'A'",
    )
    assert way == ("of A-1", "of A-2", "Surgery", "Cardiology", "General Ward", "ICU")


def test_census_of_the_fixture(fixture):
    found = built(
        fixture,
        "select admissions, discharges, midnight_census, same_day, patient_days from mart_daily_census "
        "where room_type = '*' and census_date between '2026-01-01' and '2026-01-06' order by census_date",
    )
    assert found == [
        ("2", "0", "2", "0", "2"),
        ("2", "1", "3", "1", "4"),
        ("0", "0", "3", "0", "3"),
        ("0", "0", "3", "0", "3"),
        ("0", "1", "2", "0", "2"),
        ("0", "1", "1", "0", "1"),
    ]
    ward = asked(
        fixture,
        "select admissions, discharges, transfers_in, transfers_out, midnight_census, same_day from mart_daily_census "
        "where room_type = 'General Ward' and census_date between '2026-01-01' and '2026-01-05' order by census_date",
    )
    assert ward == [
        ("2", "0", "0", "0", "2", "0"),
        ("2", "1", "0", "0", "3", "1"),
        ("0", "0", "0", "1", "2", "0"),
        ("0", "0", "0", "1", "1", "0"),
        ("0", "0", "0", "0", "1", "0"),
    ]
    days = "select min(census_date), max(census_date), count(*) from mart_daily_census where room_type = '*'"
    assert asked(fixture, days) == [("2026-01-01", NOW, "90")], "every day, empty ones too"


def test_lengths_of_stay_of_the_fixture(fixture):
    found = built(
        fixture,
        "select los_days, sum(discharges), sum(same_day_discharges) from mart_stays group by los_days order by 1",
    )
    assert found == [("1", "2", "2"), ("4", "1", "0"), ("5", "1", "0")]
    mean = "select sum(los_days * discharges) / sum(discharges) from mart_stays"
    assert fixture.execute(mean).fetchone() == (Decimal("2.75"),)
    months = "select distinct discharge_month, department from mart_stays order by 1, 2"
    assert asked(fixture, months) == [("2026-01-01", "Cardiology"), ("2026-02-01", "Cardiology")]


SUMS = "select sum(index_episodes), sum(followed_up), sum(readmitted_7d), sum(readmitted_30d) from mart_readmissions"


def stand(hospital, day):
    """Makes `day` the newest day in gold, for the reports."""
    hospital.execute("delete from ops.receipts")
    hospital.execute(
        "insert into ops.receipts (layer, dataset, partition_date, run_id, made_from, rule_set) "
        "values ('gold', 'visits', %s, 'R1', '', '')",
        [day],
    )


def test_readmissions_of_the_fixture(fixture):
    whole = "select sum(followed_up), sum(whole_followed_up), sum(whole_readmitted_30d) from reports.readmissions"
    assert built(fixture, SUMS) == [("4", "4", "0", "1")]
    stand(fixture, "2026-03-31")
    assert asked(fixture, whole) == [("4", "4", "1")]
    for table in CATALOG:
        fixture.execute(f"update {table} set _partition_date = '2026-02-10'")
    assert built(fixture, SUMS) == [("4", "3", "0", "1")]
    stand(fixture, "2026-02-10")
    assert asked(fixture, whole) == [("3", "0", "0")], "January ends less than 30 days before"


# ---- episodes, by hand -----------------------------------------------------------------------------------------------

EPISODES = "select started, ended, stays, los_days, end_is_assumed from mart_episodes order by patient_id, started"


@pytest.mark.parametrize(("again", "episodes"), [("19:00:00", 1), ("19:00:01", 2)])
def test_a_transfer_takes_up_to_7_hours(hospital, again, episodes):
    stay(hospital, "1", "2026-01-01 08:00", "2026-01-01 12:00")
    stay(hospital, "2", f"2026-01-01 {again}", "2026-01-02 12:00")
    assert len(built(hospital, EPISODES)) == episodes


def test_a_stay_within_another_does_not_shorten_the_episode(hospital):
    stay(hospital, "1", "2026-01-01 08:00", "2026-01-10 12:00")
    stay(hospital, "2", "2026-01-02 08:00", "2026-01-03 08:00", room="ICU")
    stay(hospital, "3", "2026-01-10 18:00", "2026-01-11 08:00")
    assert built(hospital, EPISODES) == [("2026-01-01 08:00:00", "2026-01-11 08:00:00", "3", "10", "False")]
    hospital.execute("delete from admissions where admission_id = '3'")
    [last] = built(hospital, "select last_admission_id, last_room_type from mart_episodes")
    assert last == ("1", "General Ward"), "the way out is by the stay that ends last"


def test_an_open_stay_keeps_its_episode_open_and_takes_in_what_follows(hospital):
    stay(hospital, "1", "2026-01-01 08:00", None, room="ICU")
    stay(hospital, "2", "2026-02-01 08:00", "2026-02-03 08:00")
    found = built(hospital, "select started, ended, stays, last_admission_id, hours, same_day from mart_episodes")
    assert found == [("2026-01-01 08:00:00", "None", "2", "1", "None", "None")]
    moves = (
        "select sum(transfers_in), sum(transfers_out), sum(discharges) from mart_daily_census where room_type <> '*'"
    )
    assert asked(hospital, moves) == [("1", "1", "0")]
    assert asked(hospital, "select * from mart_stays") == asked(hospital, "select * from mart_readmissions") == []


@pytest.mark.parametrize(
    ("admit", "is_stale"), [("2025-12-31 08:00:00", False), ("2025-12-31 08:00:01", True)], ids=["180 days", "longer"]
)
def test_an_open_stay_of_more_than_180_days_has_lost_its_discharge(hospital, admit, is_stale):
    stay(hospital, "0", "2025-06-01 08:00", "2025-06-20 08:00")
    stay(hospital, "1", "2025-07-04 08:00", None, room="ICU")
    stay(hospital, "2", admit, "2026-01-02 08:00")
    found = built(hospital, EPISODES)
    assert found[0] == ("2025-06-01 08:00:00", "2025-06-20 08:00:00", "1", "19", "False")
    stale = asked(hospital, "select admission_id, patient_id, room_type, admit_ts, assumed_end from ops.stale_stays")
    if not is_stale:
        assert found[1:] == [("2025-07-04 08:00:00", "None", "2", "None", "False")] and stale == []
        return
    assert found[1:] == [
        ("2025-07-04 08:00:00", admit, "1", "None", "True"),
        (admit, "2026-01-02 08:00:00", "1", "2", "False"),
    ]
    assert stale == [("1", "P1", "ICU", "2025-07-04 08:00:00", admit)]
    assert asked(hospital, SUMS) == [("2", "2", "0", "0")], "it neither is an index nor follows one, 14 days later"
    census = "select midnight_census from mart_daily_census where room_type = 'ICU' and census_date = '2025-12-{}'"
    assert asked(hospital, census.format(30)) == [("1",)] and asked(hospital, census.format(31)) == [("0",)]


def test_a_stay_that_lost_its_discharge_does_not_end_the_one_around_it(hospital):
    stay(hospital, "1", "2025-01-01 08:00", "2026-02-01 08:00")
    stay(hospital, "2", "2025-01-02 08:00", None, room="ICU")
    stay(hospital, "3", "2026-01-01 08:00", "2026-01-03 08:00", room="ICU")
    assert built(hospital, EPISODES) == [("2025-01-01 08:00:00", "2026-02-01 08:00:00", "3", "396", "False")]
    assert asked(hospital, "select admission_id, assumed_end from ops.stale_stays") == [("2", "2026-01-01 08:00:00")]


def test_an_open_stay_without_a_later_one_is_never_stale(hospital):
    stay(hospital, "1", "2024-01-01 08:00", None)
    assert built(hospital, EPISODES) == [("2024-01-01 08:00:00", "None", "1", "None", "False")]


def test_a_stay_from_midnight_to_midnight(hospital):
    stay(hospital, "1", "2026-01-02 00:00", "2026-01-03 00:00")
    found = built(
        hospital,
        "select census_date, admissions, discharges, midnight_census, same_day from mart_daily_census "
        "where room_type = '*' and census_date < '2026-01-05' order by 1",
    )
    assert found == [
        ("2026-01-02", "1", "0", "1", "0"),
        ("2026-01-03", "0", "1", "0", "0"),
        ("2026-01-04", "0", "0", "0", "0"),
    ]


def test_a_mistyped_year_makes_a_hundred_years_of_days(hospital):
    stay(hospital, "1", "0206-01-02 10:00", "0206-01-05 10:00")
    stay(hospital, "2", "0216-01-02 10:00", None, "P2")
    bill(hospital, "B", "0206-01-02 10:00")
    days = "select min({0}), max({0}), count(distinct {0}) from {1}"
    expected = [("1926-03-31", NOW, "36526")]
    assert built(hospital, days.format("census_date", "mart_daily_census")) == expected
    assert asked(hospital, days.format("day", "mart_receivables")) == expected
    assert asked(hospital, "select distinct midnight_census from mart_daily_census where room_type = '*'") == [("1",)]


# ---- readmissions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ended", "followed"), [("2026-03-02", "0"), ("2026-03-01", "1"), ("2026-02-28", "1")])
def test_an_index_is_followed_up_after_30_days(hospital, ended, followed):
    stay(hospital, "1", "2026-02-25 08:00", f"{ended} 23:59")
    stay(hospital, "2", "2026-03-05 08:00", None)
    assert built(hospital, SUMS) == [("1", followed, followed, followed)]


@pytest.mark.parametrize(
    ("again", "within_7", "within_30"),
    [("01-02", "1", "1"), ("01-09", "1", "1"), ("01-10", "0", "1"), ("02-01", "0", "1"), ("02-02", "0", "0")],
)
def test_days_to_a_readmission_are_those_of_dates(hospital, again, within_7, within_30):
    stay(hospital, "1", "2026-01-01 08:00", "2026-01-02 01:00")
    stay(hospital, "2", f"2026-{again} 23:00", None)
    assert built(hospital, SUMS) == [("1", "1", within_7, within_30)]


def test_a_readmission_is_an_index_itself_and_several_count_once(hospital):
    for key, day in (("1", "01"), ("2", "05"), ("3", "09")):
        stay(hospital, key, f"2026-01-{day} 08:00", f"2026-01-{day} 20:00")
    assert built(hospital, SUMS) == [("3", "3", "2", "2")]


# ---- beds ------------------------------------------------------------------------------------------------------------

OCCUPANCY = (
    "select census_date, room_type, patient_days, beds, available_beds, occupancy_pct from mart_daily_census "
    "where census_date between '2026-01-01' and '2026-01-03' order by room_type, census_date"
)


def test_occupancy_is_of_beds_in_service_may_be_over_100_and_beds_change(hospital, declared):
    declared.write_text(
        HEADER + "ICU,1,,2025-01-01,2026-01-01\n icu , 3,1,2026-01-02,\nGeneral Ward,4,1,2026-01-01,2026-01-02\n"
    )
    for number in "123":
        stay(hospital, number, "2026-01-01 08:00", "2026-01-03 08:00", f"P{number}", "ICU")
    assert built(hospital, OCCUPANCY) == [
        ("2026-01-01", "*", "3", "5", "4", "75.0000"),
        ("2026-01-02", "*", "3", "7", "5", "60.0000"),
        ("2026-01-03", "*", "0", "3", "2", "0.0000"),
        ("2026-01-01", "General Ward", "0", "4", "3", "0.0000"),
        ("2026-01-02", "General Ward", "0", "4", "3", "0.0000"),
        ("2026-01-03", "General Ward", "0", "None", "None", "None"),
        ("2026-01-01", "ICU", "3", "1", "1", "300.0000"),
        ("2026-01-02", "ICU", "3", "3", "2", "150.0000"),
        ("2026-01-03", "ICU", "0", "3", "2", "0.0000"),
    ]


def test_without_beds_of_a_room_type_in_use_the_hospital_has_no_occupancy(hospital, declared):
    declared.write_text(HEADER + "ICU,1,1,2025-01-01,\n")
    stay(hospital, "1", "2026-01-01 08:00", "2026-01-02 08:00")
    stay(hospital, "2", "2026-01-02 08:00", None, "P2", "ICU")
    found = built(hospital, OCCUPANCY)
    assert found[:3] == [
        ("2026-01-01", "*", "1", "None", "None", "None"),
        ("2026-01-02", "*", "1", "1", "0", "None"),
        ("2026-01-03", "*", "1", "1", "0", "None"),
    ]
    assert found[-1] == ("2026-01-03", "ICU", "1", "1", "0", "None"), "all beds are out of service"


def test_an_edited_file_of_beds_makes_the_marts_due_and_counts_at_the_next_build(hospital, declared):
    stay(hospital, "1", "2026-01-01 08:00", None)
    assert built(hospital, "select distinct beds from mart_daily_census") == [("None",)]
    before = marts.rule_set()
    declared.write_text(HEADER + "General Ward,4,0,2025-01-01,\n")
    assert marts.rule_set() != before
    with hospital.transaction():
        refresh(hospital)
    assert asked(hospital, "select distinct beds from mart_daily_census") == [("4",)]
    assert asked(hospital, "select * from reference.beds") == [("General Ward", "4", "0", "2025-01-01", "None")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: the columns are room_type, beds, out_of_service, valid_from, valid_to"),
        ("room_type,beds\nICU,1\n", "line 1: the columns are"),
        (HEADER + "ICU,1,0,2026-01-01\n", "line 2: it has 4 fields, and the header 5"),
        (HEADER + "\nWard 7,1,0,2026-01-01,\n", "line 3, column room_type: 'Ward 7' is not one of General Ward, "),
        (HEADER + "ICU,ten,0,2026-01-01,\n", "line 2, column beds: 'ten' is not a whole number"),
        (HEADER + "ICU,-1,0,2026-01-01,\n", "line 2, column beds: '-1' is not a whole number"),
        (HEADER + "ICU,,0,2026-01-01,\n", "line 2, column beds: '' is not a whole number"),
        (HEADER + "ICU,2,3,2026-01-01,\n", "line 2, column out_of_service: '3' is more than the 2 beds"),
        (HEADER + "ICU,2,1,01.01.2026,\n", "line 2, column valid_from: '01.01.2026' is not a date"),
        (HEADER + "ICU,2,1,2026-01-01,2026-02-30\n", "line 2, column valid_to: '2026-02-30' is not a date"),
        (HEADER + "ICU,2,1,2026-01-02,2026-01-01\n", "line 2, column valid_to: '2026-01-01' is before valid_from"),
        (
            HEADER + "ICU,2,1,2026-01-01,2026-06-30\nCCU,1,0,2026-01-01,\nICU,3,1,2026-06-30,\n",
            "line 4, column valid_from: ICU has beds from line 2 on some of these days",
        ),
        (HEADER + 'ICU,"2,1,2026-01-01,\n', "line 2: a quote is not closed"),
    ],
)
def test_a_mistake_in_the_file_of_beds_is_one_sentence_and_changes_nothing(hospital, declared, text, said):
    declared.write_text(HEADER + "General Ward,4,0,2025-01-01,\n")
    stay(hospital, "1", "2026-01-01 08:00", None)
    before = built(hospital, "select * from mart_daily_census order by 1, 2")
    declared.write_text(text)
    with pytest.raises(Refused) as refused, hospital.transaction():
        refresh(hospital)
    assert said in str(refused.value) and str(refused.value).endswith(".") and "\n" not in str(refused.value)
    assert asked(hospital, "select * from mart_daily_census order by 1, 2") == before


def test_a_missing_file_of_beds_is_told(hospital, declared):
    declared.unlink()
    with pytest.raises(Refused, match=r"beds\.csv is missing; restore it"), hospital.transaction():
        rebuild(hospital)
    declared.write_bytes("room_type,beds,Réserve".encode("latin-1"))
    with pytest.raises(Refused, match="is not UTF-8"), hospital.transaction():
        rebuild(hospital)


def test_the_file_of_beds_that_is_shipped_is_sound():
    found = beds.read(settings.ROOT / "conf" / "reference" / "beds.csv")
    assert {each.room_type for each in found} == set(beds.room_types())


# ---- emergencies, appointments, doctors ------------------------------------------------------------------------------

FLOW = (
    "select arrivals, completed, left_early, unknown_end, within_4h, over_12h, admitted from mart_emergency_flow "
    "order by arrival_date"
)


def test_emergencies_by_their_time_and_outcome(hospital):
    ends = ("13:00:00", "13:00:01", "21:00:00", "21:00:01", None)
    for number, end in enumerate(ends):
        end = end and f"2026-01-05 {end}"
        visit(hospital, f"E{number}", "2026-01-05 09:00:00", end, visit_type="Emergency")
    visit(hospital, "E5", "2026-01-05 09:00", None, visit_type="Emergency", status="Cancelled")
    visit(hospital, "E6", "2026-01-05 09:00", "2026-01-05 09:30", visit_type="Emergency", status="No-show")
    visit(hospital, "O", "2026-01-06 09:00", "2026-01-06 10:00")
    visit(hospital, "E7", "2026-03-05 23:50", "2026-03-06 00:09:59", visit_type="Emergency")
    assert built(hospital, FLOW) == [("7", "5", "2", "1", "1", "1", "0"), ("1", "1", "0", "0", "1", "0", "0")]
    assert asked(hospital, "select * from mart_emergency_minutes order by 1, 2") == [
        ("2026-01-01", "240", "2"),
        ("2026-01-01", "720", "2"),
        ("2026-03-01", "10", "1"),
    ], "a month without emergencies has no row"
    assert asked(hospital, "select timed, median_minutes, p90_minutes from reports.emergency_minutes order by day") == [
        ("4", "250", "730"),
        ("1", "20", "20"),
    ], "a step counts by its end: half were over within 250 minutes"


@pytest.mark.parametrize(
    ("start", "admitted"),
    [("08:59:59", "0"), ("09:00:00", "1"), ("10:00:00", "1"), ("11:00:00", "1"), ("11:00:01", "0")],
)
def test_an_emergency_is_admitted_up_to_an_hour_after_its_end(hospital, start, admitted):
    visit(hospital, "E", "2026-01-05 09:00", "2026-01-05 10:00", visit_type="Emergency")
    stay(hospital, "1", f"2026-01-05 {start}", None)
    assert built(hospital, FLOW) == [("1", "1", "0", "0", "1", "0", admitted)]


def test_a_transfer_after_an_emergency_is_no_admission_and_two_stays_are_one(hospital):
    visit(hospital, "E", "2026-01-05 09:00", "2026-01-05 10:00", visit_type="Emergency")
    stay(hospital, "1", "2026-01-05 08:00", "2026-01-05 09:30")
    stay(hospital, "2", "2026-01-05 10:30", "2026-01-05 12:00")
    assert built(hospital, FLOW) == [("1", "1", "0", "0", "1", "0", "0")]
    hospital.execute("update admissions set admit_ts = '2026-01-05 09:10' where admission_id = '1'")
    assert built(hospital, FLOW) == [("1", "1", "0", "0", "1", "0", "1")]


def test_appointments_are_outpatient_visits_up_to_the_newest_date(hospital):
    statuses = ("Completed", "Completed", "No-show", "Cancelled")
    for number, status in enumerate(statuses):
        visit(hospital, f"O{number}", f"{NOW} 23:59:59", None, status=status)
    visit(hospital, "later", "2026-04-01 00:00", None)
    visit(hospital, "E", f"{NOW} 10:00", None, visit_type="Emergency", status="No-show")
    visit(hospital, "I", f"{NOW} 10:00", None, visit_type="Inpatient")
    found = built(hospital, "select * from mart_appointments")
    assert found == [(NOW, "Cardiology", "4", "2", "1", "1")]
    hospital.execute("update treatments set _partition_date = '2026-04-01'")
    add(hospital, "patients", "2026-04-01", patient_id="P2")
    with hospital.transaction():
        made = refresh(hospital)
        check(hospital)
    assert len(asked(hospital, "select * from mart_appointments")) == 2, "a day that has come to pass is made"
    assert made["mart_appointments"].touched is None or made["mart_appointments"].touched > 0


def test_a_doctors_minutes_are_those_of_the_union(hospital):
    spans = [("09:00", "10:00"), ("09:30", "09:40"), ("09:50", "10:20"), ("11:00", "11:30"), ("12:00", None)]
    for number, (start, end) in enumerate(spans):
        end = end and f"2026-01-05 {end}"
        visit(hospital, f"V{number}", f"2026-01-05 {start}", end, doctor_id="D1")
    visit(hospital, "blank", "2026-01-05 09:00", "2026-01-05 09:00:30", doctor_id=None, status="No-show")
    found = built(hospital, "select * from mart_doctor_days order by doctor_id")
    assert found == [
        ("2026-01-05", "(none)", "Cardiology", "1", "0", "1", "1", "0.5000"),
        ("2026-01-05", "D1", "Cardiology", "5", "5", "0", "1", "110.0000"),
    ]


def test_a_doctor_of_any_length_keeps_no_mart_from_being_made(hospital):
    chance = random.Random(1)
    name = "".join(chr(chance.randint(0x10000, 0x1F000)) for _ in range(60_000))
    department = "".join(chr(chance.randint(0x10000, 0x1F000)) for _ in range(512))
    visit(hospital, "V", "2026-01-05 09:00", None, doctor_id=name, department=department)
    assert built(hospital, "select doctor_id from mart_doctor_days") == [(name[:100],)]


# ---- receivables -----------------------------------------------------------------------------------------------------


def test_a_balance_is_what_is_open_at_midnight(hospital):
    bill(hospital, "paid before", "2026-01-05 10:00", payment_status="Paid", payment_ts="2026-01-02 10:00")
    bill(
        hospital, "paid at once", "2026-01-05 10:00", payment_status="Paid", payment_ts="2026-01-05 10:30", total="1.00"
    )
    bill(
        hospital, "at midnight", "2026-01-05 10:00", payment_status="Paid", payment_ts="2026-01-07 00:00", total="10.00"
    )
    bill(hospital, "partial", "2026-01-06 00:00", payment_status="Partial", payment_ts="2026-01-06 12:00", total="0.10")
    bill(hospital, "later", "2026-04-01 00:00", total="7.00")
    found = built(hospital, "select * from mart_receivables where day < '2026-01-09' order by day")
    assert found == [
        ("2026-01-05", "111.00", "101.00", "10.00"),
        ("2026-01-06", "0.10", "0.00", "10.10"),
        ("2026-01-07", "0.00", "10.00", "0.10"),
        ("2026-01-08", "0.00", "0.00", "0.10"),
    ]
    assert asked(hospital, "select max(day), count(*) from mart_receivables") == [(NOW, "86")]


def test_ageing_is_by_the_end_of_the_visit(hospital):
    ends = ["2026-04-01", "2026-03-31", "2026-03-01", "2026-02-28", "2026-01-30", "2026-01-29", "2025-12-31"]
    ends += ["2025-12-30", "2025-12-01", "2025-11-30"]
    for number, end in enumerate(ends):
        bill(hospital, f"B{number}", "2025-11-01 10:00", f"{end} 10:00", total=f"{2**number}.00")
    bill(hospital, "without end", "2026-03-31 10:00", total="5000.00", payment_status="Partial")
    found = built(
        hospital, "select bucket, bills, balance, partial_balance from mart_receivables_ageing order by bucket_order"
    )
    dash = "\u2013"
    assert found == [
        ("not yet due", "1", "1.00", "0.00"),
        (f"0{dash}30", "3", "5006.00", "5000.00"),
        (f"31{dash}60", "2", "24.00", "0.00"),
        (f"61{dash}90", "2", "96.00", "0.00"),
        (f"91{dash}120", "2", "384.00", "0.00"),
        ("over 120", "1", "512.00", "0.00"),
    ]
    owed = f"select balance from mart_receivables where day = '{NOW}'"
    assert asked(hospital, owed) == asked(hospital, "select sum(balance) from mart_receivables_ageing")


def test_a_balance_is_split_in_the_ratio_of_the_amounts(hospital):
    bill(hospital, "adds up", "2026-03-01 10:00", insurance_amount="70.00", patient_amount="30.00")
    bill(hospital, "does not", "2026-03-01 10:00", total="10.00", insurance_amount="1.00", patient_amount="2.00")
    bill(hospital, "one", "2026-03-01 10:00", total="5.00", insurance_amount="3.00")
    bill(hospital, "none", "2026-03-01 10:00", total="4.00")
    bill(hospital, "below zero", "2026-03-01 10:00", total="2.00", insurance_amount="-1.00", patient_amount="3.00")
    found = built(
        hospital,
        "select balance, insurer_balance, patient_balance from mart_receivables_ageing where bills > 0",
    )
    assert found == [("121.00", "78.33", "38.67")]


def test_collections_are_null_until_every_visit_is_that_old(hospital):
    for number, days in enumerate((0, 30, 31, 60, 61, 90, 91)):
        paid = datetime(2025, 12, 20, 23) + timedelta(days=days)
        values = {"payment_status": "Paid", "payment_ts": str(paid), "total": f"{2**number}.00"}
        bill(hospital, f"B{number}", "2025-12-20 10:00", **values)
    bill(hospital, "before", "2026-01-29 10:00", payment_status="Paid", payment_ts="2026-01-01 10:00")
    bill(hospital, "not yet", "2026-01-30 10:00", payment_status="Paid", payment_ts="2026-01-30 11:00")
    visit(hospital, "no bill", "2026-01-31 10:00", None)
    visit(hospital, "new", "2026-03-02 10:00", None)
    assert built(hospital, "select * from mart_collections order by 1") == [
        ("2025-12-01", "127.00", "3.00", "15.00", "63.00"),
        ("2026-01-01", "200.00", "200.00", "None", "None"),
        ("2026-03-01", "0.00", "None", "None", "None"),
    ]
    assert asked(hospital, "select * from mart_payment_days where visit_month = '2026-01-01'") == [
        ("2026-01-01", "0", "2", "200.00")
    ]
    hospital.execute("delete from visits where visit_id = 'no bill'")
    [month] = built(hospital, "select paid_60d, paid_90d from mart_collections where visit_month = '2026-01-01'")
    assert month == ("200.00", "None")


# ---- beside an independent implementation ----------------------------------------------------------------------------

SPACED = (0, 0, 1, 5, 6.999, 7, 7.001, 24, 24 * 7, 24 * 30, 24 * 180, 24 * 181)  # hours between events


def draw_hospital(chance):
    """Draws a small hospital: few patients, whose stays nest, overlap, touch, stay open and lose their discharge."""
    first = datetime(2025, 1, 1) + timedelta(hours=chance.choice((0, 8, 23.5)))

    def moment(after, spread):
        """Draws a later time, which is often midnight."""
        found = after + timedelta(hours=chance.choice(SPACED) if chance.random() < 0.5 else chance.random() * spread)
        if chance.random() < 0.3:
            found = found.replace(hour=0, minute=0, second=0, microsecond=0)
        return found.replace(microsecond=0)

    rows = {name: [] for name in CATALOG}
    for number in range(chance.randint(1, 4)):
        rows["patients"].append({"patient_id": f"P{number}"})
        at = first
        for place in range(chance.randint(0, 7)):
            at = moment(at, 24 * 60) if chance.random() < 0.6 else at + timedelta(minutes=chance.randint(0, 90))
            key = f"V{number}{place}"
            end = moment(at, 30) if chance.random() < 0.5 else at + timedelta(minutes=chance.randint(1, 200))
            kind = chance.choice(("Outpatient", "Emergency", "Inpatient"))
            rows["visits"].append(
                {
                    "visit_id": key,
                    "patient_id": f"P{number}",
                    "visit_type": kind,
                    "department": chance.choice(("Cardiology", "Surgery")),
                    "doctor_id": chance.choice(("D1", None)),
                    "visit_start_ts": at,
                    "visit_end_ts": end if end > at and chance.random() < 0.8 else None,
                    "status": chance.choice(("Completed", "Completed", "Cancelled", "No-show")),
                }
            )
            for stay_number in range(chance.choice((0, 1, 1, 2, 3))):
                admit = moment(at, 72)
                discharge = moment(admit, 24 * 20)
                rows["admissions"].append(
                    {
                        "admission_id": f"A{key}{stay_number}",
                        "visit_id": key,
                        "admit_ts": admit,
                        "discharge_ts": discharge if discharge > admit and chance.random() < 0.8 else None,
                        "room_type": chance.choice(("General Ward", "ICU", "Private")),
                    }
                )
            for bill_number in range(chance.choice((0, 1, 1, 2))):
                rows["billing"].append(draw_bill(chance, f"B{key}{bill_number}", key, at, moment))
    return rows


def draw_bill(chance, key, visit_key, at, moment):
    cents = chance.choice((0, 1, 3, 10_00, 99_99))
    insurance = chance.choice((None, 0, cents, cents // 3, -5))
    own = chance.choice((None, 0, cents - (insurance or 0) if insurance is not None else 7, 2))
    status = chance.choice(("Paid", "Paid", "Pending", "Partial"))
    paid = moment(at, 24 * 100) if chance.random() < 0.8 else at - timedelta(days=3)
    amounts = {"total_amount": cents, "insurance_amount": insurance, "patient_amount": own and max(own, 0)}
    return {
        "bill_id": key,
        "visit_id": visit_key,
        **{name: None if each is None else Decimal(each).scaleb(-2) for name, each in amounts.items()},
        "payment_status": status,
        "payment_ts": paid if status == "Paid" or chance.random() < 0.3 else None,
    }


def draw_beds(chance):
    found = []
    for room_type in ("General Ward", "ICU", "CCU"):
        if chance.random() < 0.7:
            change = date(2025, 1, 1) + timedelta(days=chance.randint(0, 300))
            number = chance.randint(0, 4)
            found.append(measures.Beds(room_type, number, chance.randint(0, number), date(2020, 1, 1), change))
            if chance.random() < 0.6:
                found.append(measures.Beds(room_type, 2, 0, change + timedelta(days=chance.randint(1, 9)), None))
    return found


def put(hospital, rows, newest):
    """Replaces gold by these rows; returns them whole, as the model reads them."""
    hospital.execute(f"truncate {', '.join(CATALOG)}")
    tables = {}
    for name, drawn in rows.items():
        for row in drawn:
            add(hospital, name, str(newest), **row)
        cursor = hospital.execute(f"select * from {name}")
        names = [column.name for column in cursor.description]
        tables[name] = [dict(zip(names, row, strict=True)) for row in cursor]
    return tables


def expect(hospital, tables, declared_beds):
    for name, expected in measures.marts(tables, declared_beds).items():
        cursor = hospital.execute(f"select * from {name}")
        names = [column.name for column in cursor.description]
        found = [dict(zip(names, row, strict=True)) for row in cursor]

        def order(row, names=names):
            return [str(row[column]) for column in names]

        assert sorted(found, key=order) == sorted(expected, key=order), name


@pytest.mark.parametrize("seed", range(40))
def test_marts_are_those_of_an_independent_implementation(hospital, declared, seed):
    chance = random.Random(seed)
    beds_there = draw_beds(chance)
    declared.write_text(
        HEADER + "".join(",".join("" if v is None else str(v) for v in each) + "\n" for each in beds_there)
    )
    tables = put(hospital, draw_hospital(chance), date(2025, 1, 1) + timedelta(days=chance.choice((0, 40, 200, 400))))
    rebuilt(hospital)
    expect(hospital, tables, beds_there)
    balances(hospital)


def balances(hospital):
    """Checks that each balance follows from the one before, and that the amounts owed equal those by age."""
    for query in (
        "select room_type, midnight_census, admissions + transfers_in, discharges + transfers_out "
        "from mart_daily_census order by room_type, census_date",
        "select '', balance, billed, paid from mart_receivables order by day",
    ):
        rows = hospital.execute(query).fetchall()
        for (kind, before, *_), (same_kind, after, plus, minus) in pairwise([(None, 0, 0, 0), *rows]):
            assert after == (before if kind == same_kind else 0) + plus - minus and after >= 0
    [(owed, aged)] = hospital.execute(
        "select coalesce((select balance from mart_receivables order by day desc limit 1), 0), "
        "coalesce((select sum(balance) from mart_receivables_ageing), 0)"
    ).fetchall()
    assert owed == aged


def test_random_changes_of_gold_make_the_same_marts_in_part_as_whole(hospital, monkeypatch):
    """Adds, changes and removes rows, among them whole patients, and moves the newest date both ways."""
    monkeypatch.setattr(marts, "ENOUGH", 1000)
    chance, parts = random.Random(7), 0
    put(hospital, draw_hospital(chance), date(2025, 6, 1))
    rebuilt(hospital)
    for _ in range(25):
        for _ in range(chance.randint(1, 3)):
            change(hospital, chance)
        with hospital.transaction():
            made = refresh(hospital)
            check(hospital)
            in_part = everything(hospital)
            with hospital.transaction(force_rollback=True):
                rebuild(hospital)
                assert everything(hospital) == in_part
        parts += made["mart_episodes"].touched is not None
    assert parts > 15


def everything(hospital):
    return {name: asked(hospital, f"select * from {name} order by 1, 2, 3") for name in measures.NAMES}


CHANGES = [
    "update admissions set discharge_ts = null where {one}",
    "update admissions set discharge_ts = admit_ts + interval '3 hours' where {one}",
    "update admissions set admit_ts = admit_ts - interval '5 hours' where {one}",
    "update admissions set room_type = 'CCU' where {one}",
    "update admissions set visit_id = (select visit_id from visits order by {salt}(visit_id) limit 1) where {one}",
    "delete from admissions where {one}",
    "update visits set patient_id = (select patient_id from patients order by {salt}(patient_id) limit 1) where {one}",
    "update visits set status = 'No-show', doctor_id = 'D2' where {one}",
    "update visits set visit_start_ts = visit_start_ts - interval '1 day' where {one}",
    "update visits set visit_end_ts = visit_start_ts + interval '4 hours', visit_type = 'Emergency' where {one}",
    "update billing set payment_status = 'Paid', payment_ts = '2025-05-01' where {one}",
    "update billing set payment_status = 'Pending' where {one}",
    "delete from billing where {one}",
    "update patients set _partition_date = _partition_date + 40 where {one}",
    "update patients set _partition_date = _partition_date - 35 where {one}",
    "insert into admissions (admission_id, visit_id, admit_ts, room_type, _partition_date, _run_id) select "
    "gen_random_uuid(), visit_id, visit_start_ts + interval '2 hours', 'ICU', _partition_date, 'R' "
    "from visits where {one}",
]


def change(hospital, chance):
    """Does one thing to one row of gold, as a load or a hand may."""
    statement = chance.choice(CHANGES)
    table = statement.split(" from ")[-1].split()[0] if "{one}" in statement else ""
    table = statement.split()[1] if statement.startswith("update") else table
    key, salt = CATALOG[table].key, f"md5('{chance.random()}' || "
    one = f"{key} = (select {key} from {table} order by {salt}{key}) limit 1)"
    hospital.execute(statement.replace("{salt}(", salt).format(one=one))


def test_data_without_the_schema_reference_is_told_what_to_do(warehouse_server):
    from jobs import schema

    with warehouse_server.transaction(force_rollback=True):
        warehouse_server.execute("drop schema reference cascade")
        with pytest.raises(Refused, match="lacks the schema reference: `make down`, then `make up`"):
            schema.apply(warehouse_server)


def test_a_backtest_builds_the_marts_behind_those_that_they_read(hospital):
    from jobs import mart_diff

    stay(hospital, "1", "2026-01-01 08:00", "2026-01-02 08:00")
    bill(hospital, "B", "2026-01-01 10:00")
    rebuilt(hospital)
    assert list(mart_diff.mart_lines(hospital, {})) == ["No figure of the marts would change."]
    hospital.execute("update billing set total_amount = 50")
    hospital.execute("update admissions set discharge_ts = '2026-01-05 08:00'")
    lines = [line.split() for line in mart_diff.mart_lines(hospital, {})]
    assert ["balance", "9,000.00", "4,500.00", "-4,500.00"] in lines, "90 days in a row"
    assert ["midnight_census", "2", "8", "+6"] in lines, "by room type and for the hospital"
    assert ["los_days", "1", "4", "+3"] in lines
