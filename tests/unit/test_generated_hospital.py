"""Tests that the generated hospital is plausible: its measures are in a hospital's ranges, and no date breaks a trend.

tests/support/hospital_figures.py computes the measures. The ranges leave room for chance, so that other seeds pass too.
"""

import datetime
from collections import Counter
from pathlib import Path
from statistics import mean

import numpy as np
import pytest

from jobs import landing_files
from jobs.drawing import START as LAST
from jobs.drawing import Hospital
from jobs.generate import generate
from jobs.hospital import PAID_IN_WEEKS, REACH, visits
from tests.support import hospital_figures
from tests.support.hospital_figures import DAY, SUMMER, WINTER, Rows, start_of
from tests.unit.test_generate import COLUMNS, START, contents, folder, manifest, read, rows_of

WEEKS = [START + number * DAY for number in range(1, 29)]  # four, so that each weekday counts alike


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generates the default hospital's history and the four weeks after it; returns the landing directory."""
    directory = tmp_path_factory.mktemp("landing")
    for date in (START, *WEEKS):
        generate(date, directory)
    return directory


@pytest.fixture(scope="module")
def history(landing: Path) -> Rows:
    return hospital_figures.sound_rows(landing, START)


@pytest.fixture(scope="module")
def later(landing: Path) -> Rows:
    """Returns the newest sound version of each row of the later dates, with its values in plain notation."""
    rows: Rows = {}
    for name, columns in COLUMNS.items():
        key, newest = next(iter(columns)), {}
        for date in WEEKS:
            bad = {row["row"] for row in manifest(landing, date) if row["dataset"] == name and not row["resolved_on"]}
            for row in rows_of(folder(landing, date) / f"{name}.csv"):
                if row.values and str(row.number) not in bad:
                    values = {c: plain(kind, row.values[c]) for c, (kind, _) in columns.items()}
                    newest[values[key]] = values
        rows[name] = list(newest.values())
    return rows


def plain(kind: object, text: str) -> str:
    """Returns a value as a plain file has it."""
    if not text or kind in COLUMNS:
        return text
    value = read(kind, text)
    return f"{value:%Y-%m-%dT%H:%M:%S}" if isinstance(value, datetime.datetime) else str(value)


def days_of(rows: Rows, name: str, column: str) -> Counter[datetime.date]:
    """Counts a dataset's rows by the day that a column names."""
    return Counter(datetime.date.fromisoformat(row[column][:10]) for row in rows[name])


# --- from day to day ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "column", "room"),
    (
        ("visits", "visit_start_ts", 0.15),
        ("patients", "registration_date", 0.2),
        ("treatments", "performed_ts", 0.2),
        ("admissions", "admit_ts", 0.35),  # four a day
    ),
)
def test_later_dates_are_as_dense_as_the_same_weeks_of_the_history(
    history: Rows, later: Rows, name: str, column: str, room: float
) -> None:
    before, after = days_of(history, name, column), days_of(later, name, column)
    winters = [mean(before[day - number * 364 * DAY] for day in WEEKS) for number in (1, 2)]
    assert mean(after[day] for day in WEEKS) == pytest.approx(mean(winters), rel=room)


def test_a_later_date_brings_a_730th_of_the_history_at_any_scale() -> None:
    """Counts the numbers that rows are drawn from, over a year, since a date of scale 1 has too few rows."""
    for scale in (0.1, 1, 100):
        hospital = Hospital(42, scale, START, LAST + 364)
        for first in (hospital.first_course, hospital.first_patient):
            history = (first[LAST + 1] - first[0]) / 730
            assert (first[-1] - first[LAST + 1]) / 364 == pytest.approx(history, rel=0.02)


def test_open_stays_and_open_bills_do_not_jump_after_the_history(history: Rows, later: Rows) -> None:
    open_stays = sum(not row["discharge_ts"] for row in history["admissions"])
    ended = {row["admission_id"] for row in later["admissions"] if row["discharge_ts"]}
    known = {row["admission_id"] for row in history["admissions"]}
    begun = sum(row["admission_id"] not in known for row in later["admissions"])
    assert 0.6 * open_stays < open_stays + begun - len(ended) < 1.6 * open_stays
    paid = [row for row in later["billing"] if row["payment_status"] == "Paid"]
    assert len(paid) == pytest.approx(len(history["billing"]) / 730 * len(WEEKS), rel=0.3)


def test_a_course_makes_no_news_after_its_reach(landing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing_files, "REACH", 730)
    for date in WEEKS[::9]:
        generate(date, tmp_path)
        assert contents(tmp_path, date) == contents(landing, date)
    hospital = Hospital(7, 10, START, LAST)
    courses = np.arange(1, hospital.first_course[LAST + 1])
    v = visits(hospital, courses)
    begins = hospital.first_course.searchsorted(v.number // 3, side="right") - 1
    slowest = 7 * len(PAID_IN_WEEKS) + 1
    assert ((v.end // 1440)[v.kept] + slowest - begins[v.kept]).max() <= REACH


def test_dates_come_out_the_same_in_any_order_and_without_the_others(landing: Path, tmp_path: Path) -> None:
    for date in (WEEKS[27], WEEKS[3], START, WEEKS[12]):
        generate(date, tmp_path)
        assert contents(tmp_path, date) == contents(landing, date)


# --- emergencies --------------------------------------------------------------------------------------------


def test_a_fifth_of_the_emergencies_leads_to_an_admission_within_the_hour(history: Rows, later: Rows) -> None:
    assert 0.17 < hospital_figures.share_admitted(history) < 0.23
    assert 0.1 < hospital_figures.share_admitted(later) < 0.3


def test_three_quarters_of_the_emergencies_take_less_than_four_hours(history: Rows) -> None:
    minutes = hospital_figures.emergency_minutes(history)
    assert 0.7 < mean(each <= 240 for each in minutes) < 0.8
    assert 0.002 < mean(each > 720 for each in minutes) < 0.02


def test_emergencies_come_by_day_and_evening_and_on_every_weekday_alike(history: Rows) -> None:
    starts = [start_of(visit) for visit in history["visits"] if visit["visit_type"] == "Emergency"]
    hours = Counter(start.hour for start in starts)
    assert mean(hours[hour] for hour in range(10, 22)) > 2 * mean(hours[hour] for hour in range(2, 7))
    weekdays = Counter(start.weekday() for start in starts)
    assert all(abs(count / mean(weekdays.values()) - 1) < 0.2 for count in weekdays.values())


# --- stays --------------------------------------------------------------------------------------------------


def test_one_stay_in_eight_is_a_transfer(history: Rows, later: Rows) -> None:
    assert 0.1 < hospital_figures.share_moved(history) < 0.15
    assert hospital_figures.share_moved(later) > 0.05
    rooms: dict[str, list[hospital_figures.Stay]] = {}
    for stay in hospital_figures.list_stays(history):
        rooms.setdefault(stay.visit, []).append(stay)
    for first, second in (stays for stays in rooms.values() if len(stays) > 1):  # no visit has three
        assert first.room != second.room and first.end
        assert datetime.timedelta() < second.start - first.end < 7 * hospital_figures.HOUR
    leaves = [len(stays) > 1 for stays in rooms.values() if stays[0].room == "ICU" and stays[0].end]
    assert mean(leaves) > 0.6, "intensive care is left for a ward"


def test_one_discharge_in_eight_is_followed_by_a_readmission_within_30_days(history: Rows) -> None:
    week, month = (hospital_figures.share_readmitted(history, span, START - 30 * DAY) for span in (7, 30))
    assert 0.1 < month < 0.15
    assert 0.25 < week / month < 0.55, "sooner rather than later"


def test_patients_leave_from_late_morning_to_the_afternoon(history: Rows) -> None:
    hours = Counter(stay.end.hour for stay in hospital_figures.list_stays(history) if stay.end)
    total = sum(hours.values())
    assert sum(hours[hour] for hour in range(10, 17)) > 0.75 * total
    assert sum(hours[hour] for hour in (*range(8), *range(20, 24))) < 0.03 * total


def test_some_stays_end_on_their_first_day_and_few_overlap(history: Rows) -> None:
    stays = hospital_figures.list_stays(history)
    assert 0.02 < mean(stay.end.date() == stay.start.date() for stay in stays if stay.end) < 0.06
    newest: dict[str, datetime.datetime] = {}
    overlaps = 0
    for stay in stays:
        end = newest.get(stay.patient, datetime.datetime.min)
        overlaps += stay.start < end
        newest[stay.patient] = max(end, stay.end or datetime.datetime.max)
    assert overlaps < 0.02 * len(stays)


def test_beds_are_fuller_in_winter_than_in_summer(history: Rows) -> None:
    counts = hospital_figures.census(history, [START - number * DAY for number in range(700)])
    winter, summer = (mean(n["*"] for day, n in counts.items() if day.month in months) for months in (WINTER, SUMMER))
    assert winter > 1.1 * summer
    assert all(mean(count[room] for count in counts.values()) > 0.5 for room in COLUMNS["admissions"]["room_type"][0])


# --- appointments and bills ---------------------------------------------------------------------------------


def test_appointments_are_missed_around_weekends_and_seldom_by_who_comes_for_the_first_time(history: Rows) -> None:
    visits, registered = history["visits"], {row["patient_id"]: row for row in history["patients"]}
    known = [visit for visit in visits if visit["patient_id"] in registered]
    is_first = [registered[visit["patient_id"]]["registration_date"] == visit["visit_start_ts"][:10] for visit in known]
    missed = hospital_figures.share_missed
    assert 0.06 < missed(visits) < 0.1
    assert missed(v for v in visits if start_of(v).weekday() in (0, 4, 5, 6)) > 1.3 * missed(
        v for v in visits if start_of(v).weekday() in (1, 2, 3)
    )
    new, others = ([v for v, first in zip(known, is_first, strict=True) if first == wanted] for wanted in (True, False))
    assert missed(new) < 0.5 * missed(others), "they are booked on the day"


def test_bills_are_paid_over_days_and_months_and_few_stay_open(history: Rows) -> None:
    starts = {visit["visit_id"]: start_of(visit) for visit in history["visits"]}
    bills = [
        (hospital_figures.moment(bill["payment_ts"]), starts[bill["visit_id"]])
        for bill in history["billing"]
        if bill["visit_id"] in starts and starts[bill["visit_id"]].date() < START - 180 * DAY
    ]
    paid = [mean(end is not None and (end - start).days <= span for end, start in bills) for span in (0, 30, 60, 180)]
    assert 0.15 < paid[0] < 0.35 and 0.45 < paid[1] < 0.65 and 0.7 < paid[2] < 0.85 and 0.96 < paid[3] < 1
    open_bills = hospital_figures.receivable(history, START)
    share = sum(amount for age, amount in open_bills if age > 90) / sum(amount for _, amount in open_bills)
    assert 0.05 < share < 0.3
