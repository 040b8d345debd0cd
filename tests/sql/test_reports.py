"""Tests the computed reports of Patient Flow against an implementation in plain Python over the same rows."""

import random
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from math import ceil

import pytest

from tests.sql.test_marts import add, hospital, rebuilt  # noqa: F401  # the fixture

NEWEST = date(2026, 1, 31)


@pytest.fixture
def stays(hospital):  # noqa: F811
    """Stays of 500 patients over 600 days, a patient each: (admitted, discharged or None, room, birth, department)."""
    dice, made = random.Random(11), []
    for number in range(500):
        born = date(dice.randrange(1930, 2020), 3, 1)
        admitted = datetime(2024, 6, 11) + timedelta(minutes=dice.randrange(599 * 1440))
        discharged = admitted + timedelta(hours=dice.randrange(3, 400))
        discharged = discharged if discharged.date() <= NEWEST else None
        room, department = dice.choice(["ICU", "General Ward"]), dice.choice(["Surgery", "Oncology"])
        add(hospital, "patients", patient_id=f"P{number}", birth_date=born)
        visit = {"visit_id": f"V{number}", "patient_id": f"P{number}", "department": department}
        add(hospital, "visits", visit_start_ts=admitted, visit_end_ts=None, visit_type="Inpatient", **visit)
        times = {"admit_ts": admitted, "discharge_ts": discharged, "room_type": room}
        add(hospital, "admissions", admission_id=f"A{number}", visit_id=f"V{number}", **times)
        made.append((admitted, discharged, room, born, department))
    hospital.execute(
        "insert into ops.receipts (layer, dataset, partition_date, run_id, made_from, rule_set) "
        "values ('gold', 'visits', %s, 'R1', '', '')",
        [NEWEST],
    )
    rebuilt(hospital)
    return hospital, made


def percentile(values, share):
    """Returns the smallest value that is at least as large as this share of the values."""
    return sorted(values)[ceil(Decimal(str(share)) * len(values)) - 1]


def days(stay):
    return max(1, (stay[1].date() - stay[0].date()).days)


def test_the_forecast_is_what_python_makes_of_the_census(stays):
    connection, made = stays

    def census(day):
        night = datetime.combine(day + timedelta(days=1), datetime.min.time())
        return sum(came < night and (left is None or left >= night) for came, left, *_ in made)

    first = min(came for came, *_ in made).date()
    present = {first + timedelta(days=n): 0 for n in range((NEWEST - first).days + 1)}
    present = {day: census(day) for day in present}

    def forecast(day):
        changes = [
            present[day - timedelta(days=7 * week)] - present[day - timedelta(days=7 * week + 1)]
            for week in range(1, 27)
            if day - timedelta(days=7 * week + 1) in present
        ]
        mean = (Decimal(sum(changes)) / len(changes)).quantize(Decimal("0.01"), ROUND_HALF_UP)
        return present[day - timedelta(days=1)] + mean

    wanted = []
    for ago in range(59, -2, -1):
        day = NEWEST - timedelta(days=ago)
        past = [day - timedelta(days=n) for n in range(1, 61)]
        errors = [present[one] - forecast(one) for one in past]
        low, high = forecast(day) + percentile(errors, 0.1), forecast(day) + percentile(errors, 0.9)
        actual = present.get(day)
        inside = actual is not None and low <= actual <= high
        wanted.append((day, forecast(day), max(low, 0), high, actual or 0, int(actual is not None), int(inside)))
    query = "select day, forecast, low, high, actual, known, inside from reports.forecast order by day"
    assert connection.execute(query).fetchall() == wanted and len(wanted) == 61


def test_lengths_of_stay_are_what_python_counts(stays):
    connection, made = stays
    ended = [stay for stay in made if stay[1]]
    months = {}
    for stay in ended:
        months.setdefault(stay[1].strftime("%Y-%m"), []).append(days(stay))
    found = connection.execute(
        "select to_char(day, 'YYYY-MM'), discharges, median_days, p90_days from reports.stay_lengths"
    )
    wanted = {month: (len(of), percentile(of, 0.5), percentile(of, 0.9)) for month, of in months.items()}
    assert {month: tuple(map(int, row)) for month, *row in found} == wanted
    recent = [stay for stay in ended if stay[1] >= datetime(2025, 2, 1)]
    found = connection.execute("select department, discharges, median_days, p90_days from reports.department_stays")
    for department, *row in found:
        of = [days(stay) for stay in recent if stay[4] == department]
        assert tuple(map(int, row)) == (len(of), percentile(of, 0.5), percentile(of, 0.9))


def test_stays_are_held_against_those_of_their_like_a_year_before(stays):
    connection, made = stays

    def like(stay):
        came, _, room, born, _ = stay
        age = came.year - born.year - ((came.month, came.day) < (born.month, born.day))
        return room, min(age // 20, 4)

    ended, sums = [stay for stay in made if stay[1]], {}
    for stay in ended:
        until = stay[1].date()
        before = [
            days(other) for other in ended if like(other) == like(stay) and 1 <= (until - other[1].date()).days <= 365
        ]
        if before:
            of = sums.setdefault(stay[4], [0, 0, 0])
            of[0], of[1], of[2] = of[0] + 1, of[1] + days(stay), of[2] + sum(before) / len(before)
    query = """select department, sum(episodes)::int, sum(observed_days)::int, sum(expected_days)::float
        from reports.stay_index group by department"""
    found = {department: row for department, *row in connection.execute(query)}
    assert {name: row[:2] for name, row in found.items()} == {name: of[:2] for name, of in sums.items()}
    assert all(abs(row[2] - sums[name][2]) < 0.05 for name, row in found.items()) and len(found) == 2


def test_every_view_is_the_same_after_a_dump(warehouse_server):
    """Compares views before and after a dump: PostgreSQL adds other brackets to `a between b and c and d` then."""
    names = warehouse_server.execute(
        "select pg_class.oid::regclass::text from pg_class join pg_namespace on pg_namespace.oid = relnamespace "
        "where relkind = 'v' and nspname in ('ops', 'reports', 'public')"
    )
    for (name,) in names.fetchall():
        texts = []
        for view in (name, "read_again"):
            [(text,)] = warehouse_server.execute("select pg_get_viewdef(%s::regclass)", [view]).fetchall()
            texts.append(text)
            warehouse_server.execute(f"create or replace temporary view read_again as {text}")
        warehouse_server.execute("drop view read_again")
        assert texts[0] == texts[1], name
