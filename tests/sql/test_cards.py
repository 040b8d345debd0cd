"""Checks the dashboards' declaration and the reports under its cards, on few enough rows to count by hand."""

import re
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import product

import pytest
import yaml

from dashboards import cards
from dashboards.cards import Misdeclared, bind
from jobs import schema, settings
from tests.sql.test_marts import add, connect, hospital, rebuilt, withhold  # noqa: F401  # the fixture

DASHBOARDS = cards.load()
CARDS = [(board, card) for board in DASHBOARDS for card in board.cards]
DECLARED = yaml.safe_load(cards.FILE.read_text())


def card_of(board, title):
    [found] = [card for of, card in CARDS if (of.name, card.title) == (board, title)]
    return found


def rows_of(connection, card, **given):
    query, values = bind(card.sql, card.report, given)
    return [tuple(row) for row in connection.execute(query, values)]


def columns_of(connection, report):
    return [column.name for column in connection.execute(f"select * from reports.{report} limit 0").description]


def test_every_question_is_one_and_every_card_answers_it():
    assert len(DASHBOARDS) == 6
    assert [(board.name, card.title) for board, card in CARDS if not card.answers.rstrip().endswith(("?", "."))] == []
    assert [board.name for board in DASHBOARDS if not board.about.strip()] == []


def test_a_card_with_a_limit_says_how_many_rows_it_shows():
    limited = [card for _, card in CARDS if card.limit]
    assert limited and [card.title for card in limited if str(card.limit) not in f"{card.title} {card.answers}"] == []


def test_a_report_has_a_file_and_the_filters_that_it_has_columns_for(warehouse_server):
    assert set(DECLARED["reports"]) == {file.stem for file in (cards.settings.ROOT / "sql/reports").glob("*.sql")}
    for name, report in DECLARED["reports"].items():
        columns = columns_of(warehouse_server, name)
        fitting = [each for each in cards.FILTERS if (each if each != "period" else "day") in columns]
        fitting = [] if report.get("fixed") else fitting
        assert report["filters"] == fitting, name


@pytest.mark.parametrize(("board", "card"), CARDS, ids=[f"{board.slug}: {card.title}" for board, card in CARDS])
def test_a_card_s_query_gives_the_columns_it_says_whatever_is_filtered(warehouse_server, board, card):
    assert set(re.findall(r"{{(\w+)}}", card.sql)) == set(card.tags)
    examples = {"from": date(2026, 1, 1), "to": date(2026, 1, 31)}
    examples |= {tag: ["Cardiology"] for tag in card.tags if tag not in examples}
    for chosen in product((False, True), repeat=len(card.tags)):
        given = {tag: examples[tag] for tag, is_set in zip(card.tags, chosen, strict=True) if is_set}
        query, values = bind(card.sql, card.report, given)
        assert set(values) == set(given)
        assert tuple(column.name for column in warehouse_server.execute(query, values).description) == card.result


@pytest.fixture
def filled(hospital):  # noqa: F811
    """Fills two patients and six visits over two years, as of the end of January 2026."""
    add(hospital, "patients")
    add(hospital, "patients", patient_id="P2", gender="M", city=None, birth_date="2020-01-01")
    visits = [
        ("V1", "P1", "Cardiology", "Outpatient", "2024-02-02 09:00", "Completed"),  # the first of the year before
        ("V2", "P1", "Cardiology", "Inpatient", "2026-01-05 09:00", "Completed"),
        ("V3", "P1", "Surgery", "Emergency", "2026-01-05 23:59", "No-show"),
        ("V4", "P2", "Surgery", "Emergency", "2026-01-31 00:00", "Cancelled"),
        ("V5", "P2", "Surgery", "Emergency", "2026-01-31 12:00", "Completed"),
        ("V6", "P1", "Surgery", "Outpatient", "2025-01-31 12:00", "Completed"),  # a day before the default period
    ]
    for visit, patient, department, kind, start, status in visits:
        end = str(date.fromisoformat(start[:10])) + " 23:59:59" if status == "Completed" else None
        row = {"department": department, "visit_type": kind, "visit_start_ts": start, "visit_end_ts": end}
        add(hospital, "visits", visit_id=visit, patient_id=patient, status=status, **row)
    add(hospital, "admissions", visit_id="V2", admit_ts="2026-01-05 12:00", discharge_ts="2026-01-07 00:00")
    add(hospital, "admissions", admission_id="A2", visit_id="V2", discharge_ts=None)
    for number, (visit, amount, status) in enumerate(
        [("V1", "10.00", "Paid"), ("V2", "100.10", "Paid"), ("V2", "200.20", "Pending"), ("V5", "0.05", "Partial")]
    ):
        share = {"insurance_amount": "1.00", "patient_amount": None, "payment_status": status}
        add(hospital, "billing", bill_id=f"B{number}", visit_id=visit, total_amount=amount, **share)
    for number, (visit, name, cost) in enumerate([("V2", "ECG", "5"), ("V2", None, "7"), ("V5", "ECG", "2.50")]):
        treatment = {"treatment_code": "CA01", "treatment_name": name, "treatment_cost": cost}
        add(hospital, "treatments", treatment_id=f"T{number}", visit_id=visit, **treatment)
    for dataset in ("patients", "visits"):
        hospital.execute(
            "insert into ops.receipts (layer, dataset, partition_date, run_id, made_from, rule_set) "
            "values ('gold', %s, '2026-01-31', 'R1', '', '')",
            [dataset],
        )
    rebuilt(hospital)
    return hospital


def test_headlines_are_what_counting_by_hand_gives(filled):
    def headline(board, title, **given):
        return [str(row[-1]) for row in rows_of(filled, card_of(board, title), **given)]

    # The year up to 31 January 2026 has V2 to V5; the year before has V1 and V6.
    assert headline("Executive Overview", "Visits") == ["2", "4"]
    assert headline("Executive Overview", "Revenue") == ["10.00", "300.35"]
    assert headline("Executive Overview", "Admission rate") == ["0.0000", "50.0000"]
    assert headline("Executive Overview", "Visits", **{"from": date(2026, 1, 5), "to": date(2026, 1, 5)}) == ["0", "2"]
    assert headline("Executive Overview", "Visits", department=["Surgery"], visit_type=["Emergency"]) == ["0", "3"]
    assert headline("Department Operations", "Outpatient visit") == [], "the emergencies and the stay are none"
    assert headline("Department Operations", "Outpatient visit", to=date(2025, 1, 31)) == ["None", "13.4997"]
    assert headline("Department Operations", "Emergency visit") == ["None", "11.9997"]
    assert headline("Department Operations", "Room stay") == ["None", "1.5000"], "an open stay has no length yet"
    assert headline("Department Operations", "No-show rate") == [], "an emergency is not a booking"
    assert headline("Department Operations", "No-show rate", to=date(2025, 1, 31)) == ["None", "0.0000"]
    assert headline("Financial Summary", "Owing") == ["200.25"]
    assert headline("Financial Summary", "Owing over 90 days") == ["0.0000"]
    assert headline("Financial Summary", "Days in receivables") == ["60.0050"], "90 x 200.25 / 300.35"
    assert headline("Financial Summary", "Paid in 90 days") == [], "January 2026 is not 90 days old"
    assert headline("Financial Summary", "Paid in 90 days", to=date(2024, 6, 30)) == ["None", "0.0000"], "V1, paid late"
    assert headline("Patient Flow", "Present now") == ["1"] and headline("Patient Flow", "Occupancy now") == ["2.8571"]
    assert headline("Patient Flow", "Emergencies in 4 hours") == ["None", "0.0000"], "V5 took twelve"
    assert headline("Patient Flow", "Readmitted in 30 days") == [], "the episode is open"
    assert headline("Financial Summary", "Insured share", department=["Surgery"]) == ["None", "2000.0000"]
    assert headline("Patient Analytics", "First visits") == ["None", "2"], "both of a first day; a year ago all were"
    assert headline("Executive Overview", "Visits", **{"from": date(2025, 1, 31)}) == ["None", "5"], "from 31 Jan 2024"
    assert rows_of(filled, card_of("Patient Analytics", "Patients")) == [(2,)]
    visits = rows_of(filled, card_of("Executive Overview", "Visits"))
    assert [row[:2] for row in visits] == [(date(2025, 1, 31), date(2024, 2, 2)), (date(2026, 1, 31), date(2025, 2, 1))]
    assert headline("Executive Overview", "Admission rate", **{"from": date(2026, 2, 1), "to": date(2026, 2, 28)}) == []
    assert headline("Executive Overview", "Visits", **{"from": date(2026, 2, 1), "to": date(2026, 2, 28)}) == ["4", "0"]


def small_cells(number):
    """Returns the DDL that suppresses numbers of patients below this number."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMALL_CELLS", str(number))
        return schema.small_cells()


def test_charts_are_what_counting_by_hand_gives(filled):
    def chart(board, title, **given):
        return [tuple(map(str, row)) for row in rows_of(filled, card_of(board, title), **given)]

    assert chart("Executive Overview", "Daily visits") == [("2026-01-05", "2"), ("2026-01-31", "2")]
    assert chart("Executive Overview", "Admission rate by week") == [
        ("2026-01-05", "100.0000"),
        ("2026-01-26", "0.0000"),
    ]
    assert chart("Executive Overview", "Visits by outcome") == [
        ("2026-01-01", "Cancelled", "1"),
        ("2026-01-01", "Completed", "2"),
        ("2026-01-01", "No-show", "1"),
    ]
    owing = [(age, Decimal(amount)) for age, _, amount in chart("Financial Summary", "Owing by age")]
    assert [age for age, amount in owing if amount] == ["2. 0\u201330"] and len(owing) == 12
    assert chart("Financial Summary", "Top 10 treatments by revenue") == [("ECG", "7.50"), ("CA01", "7.00")]
    assert chart("Patient Analytics", "Patients by age") == [("(small groups)", "2")]
    filled.execute(small_cells(0))
    assert chart("Patient Analytics", "Patients by age") == [("0 to 9", "1"), ("40 to 49", "1")]
    assert chart("Patient Analytics", "Patients by gender") == [("Female", "1"), ("Male", "1")]
    assert chart("Patient Analytics", "Visits per patient") == [("2", "1"), ("4", "1")]
    assert chart("Patient Analytics", "Patients by city") == [("(not known)", "1"), ("Lyon", "1")]
    assert chart("Patient Analytics", "New and returning patients") == [
        ("2026-01-01", "New patients", "1.0000"),
        ("2026-01-01", "Returning patients", "1.0000"),
    ]
    filled.execute(small_cells(5))
    assert chart("Patient Analytics", "New and returning patients") == [
        ("2026-01-01", "New patients", "None"),
        ("2026-01-01", "Returning patients", "None"),
    ]


@pytest.mark.parametrize(
    ("cities", "shown"),
    [
        ([9, 8, 7], [9, 8, 7]),
        ([9, 8, 7, 4], [9, 8, 11]),  # beside the total, 4 would be what the others leave
        ([9, 8, 3, 3], [9, 8, 6]),
        ([9, 8, 1, 1], [9, 10]),  # two of 2 in all would be one each
        ([9, 8, 1, 1, 1, 1, 1], [9, 8, 5]),
        ([5, 5, 4], [5, 9]),
        ([4, 1], [5]),
        ([3], [3]),  # the total itself
        ([5], [5]),
    ],
    ids=str,
)
def test_no_total_gives_away_a_small_number(hospital, cities, shown):  # noqa: F811
    for place, number in enumerate(cities):
        for one in range(number):
            add(hospital, "patients", patient_id=f"P{place}-{one}", city=f"C{place}")
    rebuilt(hospital)
    rows = rows_of(hospital, card_of("Patient Analytics", "Patients by city"))
    assert sorted((number for _, number in rows), reverse=True) == sorted(shown, reverse=True)
    assert {city for city, _ in rows if city != "(small groups)"} <= {f"C{n}" for n, of in enumerate(cities) if of >= 5}
    hospital.execute(small_cells(0))
    rows = rows_of(hospital, card_of("Patient Analytics", "Patients by city"))
    hospital.execute(small_cells(5))
    assert rows == [(f"C{place}", number) for place, number in sorted(enumerate(cities), key=lambda one: -one[1])]


def test_datasets_and_reasons_are_said_in_words(hospital):  # noqa: F811
    words = {
        "missing_visit_id": "Visit id is missing",
        "unreadable_payment_ts": "Payment time cannot be read",
        "unknown_status": "Status is not a listed value",
        "orphan_visit_id": "Visit id has no accepted row",
        "duplicate_bill_id": "Bill id came twice",
        "paid_without_payment_ts": "Paid without payment time",
        "malformed_row": "Malformed row",
    }
    said = "select reason, ops.reason_in_words(reason) from unnest(%s::text[]) as reason"
    assert dict(hospital.execute(said, [list(words)]).fetchall()) == words
    assert hospital.execute("select ops.in_words('lab_results')").fetchone() == ("Lab results",)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("CURRENCY", "Euro", "CURRENCY is not an ISO 4217 code"),
        ("SMALL_CELLS", "-1", "SMALL_CELLS is not a whole number"),
    ],
)
def test_a_setting_that_cannot_be_ends_with_a_sentence(monkeypatch, name, value, sentence):
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=sentence):
        {"CURRENCY": settings.currency, "SMALL_CELLS": settings.small_cells}[name]()


@pytest.mark.parametrize(
    ("first", "grain", "steps"),
    [
        ("2023-05-08", "day", ["2023-05-08", "2026-01-05", "2026-01-31"]),  # 1,000 days up to 31 January 2026
        ("2023-05-07", "week", ["2023-05-01", "2026-01-05", "2026-01-26"]),
        ("2006-11-30", "month", ["2006-11-01", "2026-01-01"]),
        ("1943-12-01", "quarter", ["1943-10-01", "2026-01-01"]),
        ("1776-07-04", "year", ["1776-01-01", "2026-01-01"]),
        ("0900-01-01", "decade", ["0900-01-01", "2020-01-01"]),
        ("0001-01-01", "decade", ["0001-01-01", "2020-01-01"]),
    ],
)
def test_a_chart_of_a_long_period_takes_a_coarser_grain_and_leaves_out_no_day(hospital, first, grain, steps):  # noqa: F811
    add(hospital, "patients")
    for number, day in enumerate([first, "2026-01-05", "2026-01-05", "2026-01-31", "2026-01-31"]):
        add(hospital, "visits", visit_id=f"V{number}", visit_start_ts=day, visit_end_ts=None, status="No-show")
    for number in range(2):
        add(hospital, "admissions", admission_id=f"A{number}", visit_id="V1")
    hospital.execute(
        "insert into ops.receipts (layer, dataset, partition_date, run_id, made_from, rule_set) "
        "values ('gold', 'visits', '2026-01-31', 'R1', '', '')"
    )

    def chart(title):
        return rows_of(hospital, card_of("Executive Overview", title), **{"from": date.fromisoformat(first)})

    assert [str(day) for day, _ in chart("Daily visits")] == steps, grain
    assert [visits for _, visits in chart("Daily visits")] == ([1, 4] if len(steps) == 2 else [1, 2, 2])
    # A rate per week or month is a rate of sums, not a mean of daily rates.
    assert [str(rate) for _, rate in chart("Admission rate by week")][1:] == (
        ["50.0000"] if len(steps) == 2 else ["100.0000", "0.0000"]
    )
    assert [visits for *_, visits in chart("Visits")] == [None, 5], "there is no period before the data"


def test_a_chart_of_many_lines_takes_a_coarser_grain_before_metabase_cuts_its_rows(hospital):  # noqa: F811
    datasets = [f"d{number}" for number in range(9)]
    hospital.execute(
        "insert into ops.ledger (run_id, layer, dataset, partition_date, bronze_rows, accepted, rejected) "
        "select 'S', 'silver', dataset, day::date, 4, 3, 1 from unnest(%s::text[]) as dataset "
        "cross join generate_series('2025-02-01'::date, '2026-01-31'::date, interval '1 day') as day",
        [datasets],
    )
    hospital.execute(
        "insert into ops.receipts (layer, dataset, partition_date, run_id, made_from, rule_set) "
        "select case number when 0 then 'gold' else 'silver' end, dataset, partition_date, 'S', '', '' "
        "from ops.ledger cross join generate_series(0, 1) as number"
    )
    card = card_of("Data Quality", "Rejected share by date")
    rows = rows_of(hospital, card)
    assert {str(day) for day, *_ in rows} >= {"2025-01-27", "2026-01-26"} and {row[2] for row in rows} == {25}
    assert len(rows) == 53 * len(datasets) <= 2000
    assert len(rows_of(hospital, card, dataset=[name.upper() for name in datasets[:5]])) == 365 * 5 <= 2000


def test_reports_add_up_to_the_marts(filled):
    def one(query):
        return tuple(filled.execute(query).fetchone())

    assert one(
        "select sum(visits), sum(completed_visits), sum(admissions), sum(revenue), "
        "sum(completed_visits + cancelled_visits + missed_visits) from reports.activity"
    ) == one(
        "select sum(total_visits), sum(completed_visits), sum(total_admissions), sum(total_revenue), "
        "sum(total_visits) from mart_department_stats"
    )
    assert one(
        "select sum(revenue), sum(insurance_revenue), sum(patient_revenue), sum(paid_bills), sum(pending_bills) "
        "from reports.activity"
    ) == one(
        "select sum(total_revenue), sum(insurance_revenue), sum(patient_revenue), sum(paid_bills), sum(pending_bills) "
        "from mart_daily_kpis"
    )
    assert one("select sum(revenue), sum(treatments) from reports.treatments") == one(
        "select sum(treatment_cost), count(*) from treatments"
    )
    assert one("select sum(visits), sum(new_visits + returning_visits) from reports.returns") == one(
        "select sum(total_visits), sum(total_visits) from mart_department_stats where stat_date >= '2025-02-01'"
    )
    assert one("select sum(patients), sum(visits), sum(billed) from reports.patients") == one(
        "select count(*), sum(total_visits), sum(total_billed) from mart_patient_stats"
    )
    assert one("select sum(visits), sum(revenue), sum(patients) from reports.completeness") == one(
        "select sum(visits), sum(revenue), sum(patients) from ops.mart_trust where department = '*'"
    )


VISITS = {"title": "T", "answers": "How many?", "report": "activity", "figures": {"Visits": "visits"}, "size": [6, 3]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"chart": "bubbles"}, "'bubbles' is not a chart"),
        ({"chart": "headline", "answers": " "}, "does not say what it answers"),
        ({"chart": "headline", "report": "wards"}, "there is no report 'wards'"),
        ({"chart": "headline", "by": ["department"]}, "a headline is one figure"),
        ({"chart": "headline", "figures": {"Visits": "visits + bills"}}, "the figure 'Visits' is not of the form"),
        ({"chart": "headline", "figures": {"Visits": "visits as euros"}}, "the figure 'Visits' is not of the form"),
        ({"chart": "heat", "by": ["month"]}, "a heat map needs two columns"),
        ({"chart": "headline", "report": "reasons", "figures": {"Rows": "rejected"}}, "by which column its data begin"),
        ({"chart": "bar", "columns": ["day"]}, "figures or columns, and not both"),
        ({"chart": "bar", "figures": {}, "columns": ["day"]}, "only a table shows columns as they are"),
        ({"chart": "headline", "size": [25, 3]}, "does not fit a grid of 24 columns"),
        ({"chart": "headline", "colour": "red"}, "colour"),
        ({}, "chart"),
    ],
)
def test_what_cannot_be_shown_is_said_with_its_card(change, sentence):
    board = {"name": "Board", "about": "About.", "filters": ["period"], "cards": [VISITS | change]}
    with pytest.raises(Misdeclared, match=f"Board, card 'T': .*{re.escape(sentence)}"):
        cards.load(yaml.safe_dump({"reports": DECLARED["reports"], "dashboards": [board]}))


def test_two_cards_of_a_dashboard_have_two_titles():
    twice = {"name": "Board", "about": "About.", "filters": [], "cards": [VISITS | {"chart": "headline"}] * 2}
    with pytest.raises(Misdeclared, match="two cards 'T'"):
        cards.load(yaml.safe_dump({"reports": DECLARED["reports"], "dashboards": [twice]}))


BY_HAND = "by hand"


def ledger(connection, run, day, layer, dataset, outcome, began, ended, error=None, of=None):
    """Writes a ledger row with times in seconds after the date's midnight; `of` is another date's run, or BY_HAND."""
    midnight = datetime.fromisoformat(f"{day}T00:00Z")
    at = [None if seconds is None else midnight + timedelta(seconds=seconds) for seconds in (began, ended)]
    row = [run, layer, dataset, day, outcome, *at, error, f"{of or day}/{run}.log" if of != BY_HAND else None]
    connection.execute(
        "insert into ops.ledger (run_id, layer, dataset, partition_date, outcome, started_at, ended_at, error, log) "
        "values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        row,
    )


@pytest.fixture
def nights(hospital):  # noqa: F811
    """Fills the ledger with eleven dates that ran, and others that failed, died or were forgotten."""
    for number in range(1, 12):
        day = f"2026-03-{number:02}"
        ledger(hospital, "first", day, "bronze", "visits", "done", 0, 2.5)
        ledger(hospital, "first", day, "gold", "visits", "done", 3, 10 * number)
        hospital.execute("insert into ops.receipts values ('bronze', 'visits', %s, 'first', '', '')", [day])
    ledger(hospital, "again", "2026-03-11", "silver", "visits", "failed", 500, 507.25, "visits 2026-03-11: disk full")
    ledger(hospital, "late", "2026-03-11", "silver", "visits", "done", 510, 511, of="2026-03-10")
    ledger(hospital, "hand", "2026-03-11", "gold", "visits", "done", 600, 601, of=BY_HAND)
    refusal = "the file 2026/03/12/visits.csv has not landed"
    ledger(hospital, "night", "2026-03-12", "bronze", "visits", "failed", 0, 1.5, refusal)
    ledger(hospital, "night", "2026-03-13", "bronze", "visits", "running", 0, None)
    ledger(hospital, "clerk", "2026-03-14", "forget", "all", "done", 0, 1)
    return hospital


def test_dates_tell_their_state_and_how_long_their_last_run_took(nights):
    found = nights.execute(
        "select day::text, seconds::text, usual_seconds::text, started::text, log from reports.dates order by day"
    ).fetchall()
    told = {day: (seconds, usual) for day, seconds, usual, _, _ in found}
    assert told["2026-03-01"] == ("10.0", None)
    assert told["2026-03-02"] == ("20.0", "10.0")
    assert told["2026-03-10"] == ("100.0", "55.0"), "the median of the eight dates from 2 to 9 March"
    assert told["2026-03-11"] == ("7.3", "65.0"), "of its last run, not of another date's nor of a job started by hand"
    assert told["2026-03-13"] == (None, None), "a run that died took nobody knows how long"
    assert found[10][3:] == ("2026-03-11 00:08:20", "2026-03-11/again.log")
    assert [day for day, *_ in found] == [f"2026-03-{number:02}" for number in range(1, 14)], "14 March is taken back"
    march = {"from": date(2026, 3, 1), "to": date(2026, 3, 31)}
    drawn = rows_of(nights, card_of("Data Quality", "Run time of each date"), **march)
    of = {(day.day, series): seconds and str(seconds) for day, series, seconds in drawn}
    assert (of[10, "Last run"], of[10, "Usual"], of[1, "Usual"]) == ("100.0000", "55.0000", None)


def test_dates_that_are_not_done_come_with_their_sentence_the_newest_first(nights):
    rows = rows_of(nights, card_of("Data Quality", "Dates that need attention"))
    assert [str(day) for day, *_ in rows] == [f"2026-03-{number:02}" for number in range(13, 0, -1)]
    died, refused, failed, *others = [tuple(map(str, row[1:])) for row in rows]
    assert died == ("never ran", "bronze visits did not end", "2026-03-13/night.log")
    assert refused == ("never ran", "the file 2026/03/12/visits.csv has not landed", "2026-03-12/night.log")
    assert {state for state, *_ in others} == {"incomplete"}
    assert rows_of(nights, card_of("Data Quality", "Dates not done")) == [(13,)]
    nights.execute("delete from ops.ledger where run_id in ('hand', 'late')")  # now the failure is the last attempt
    [failed] = nights.execute("select state, sentence from reports.dates where day = '2026-03-11'").fetchall()
    assert failed[0] == "failed" and "visits 2026-03-11: disk full" in failed[1]


def test_a_run_without_a_process_has_died_and_a_live_one_has_not(nights):
    def outcome():
        [found] = nights.execute("select outcome, log from reports.runs where partition_date = '2026-03-13'").fetchall()
        return found

    assert outcome() == ("died", "2026-03-13/night.log")
    state = "select state from reports.dates where day = '2026-03-13'"
    for lock, told in (("run night", ("running", "running")), ("the date 2026-03-13", ("died", "running"))):
        with connect(nights) as alive:  # a job, or a `make run` between two jobs
            alive.execute("select pg_advisory_lock(hashtext(%s))", [lock])
            assert (outcome()[0], *nights.execute(state).fetchone()) == told
    assert outcome()[0] == "died" and nights.execute(state).fetchone() == ("never ran",)
    ended = "select distinct outcome from reports.runs where log like '%first.log'"
    assert nights.execute(ended).fetchall() == [("done",)]


def reverse(connection):
    """Inserts case 32: a paid bill of 500.00, and its rejected reversal of -500.00."""
    day = "2026-03-01"
    times = {"visit_start_ts": f"{day} 06:00", "visit_end_ts": f"{day} 06:30"}
    add(connection, "patients", day, patient_id="P02", registration_date="2026-02-01")
    add(connection, "visits", day, visit_id="V23", patient_id="P02", department="Radiology", **times)
    shares = {"insurance_amount": "400.00", "patient_amount": "100.00"}
    add(connection, "billing", day, bill_id="B23A", visit_id="V23", total_amount="500.00", **shares)
    reasons = "negative_total_amount;negative_patient_amount;insurance_exceeds_total"
    withhold(connection, "billing", reasons, day, row_key="B23A-REV", visit_id="V23", amount="-500.00")


def test_a_rejected_reversal_is_told_beside_a_revenue_that_looks_complete(hospital):  # noqa: F811
    reverse(hospital)
    rebuilt(hospital)

    def headline(title):
        return [str(row[-1]) for row in rows_of(hospital, card_of("Data Quality", title))]

    assert headline("Revenue complete") == ["100.0000"] and headline("Revenue withheld") == ["0.00"]
    assert headline("Bills not relied on") == ["1"]
    assert "not relied on" in card_of("Data Quality", "Revenue complete").answers
    surgery = rows_of(hospital, card_of("Data Quality", "Bills not relied on"), department=["Surgery"])
    assert [row[-1] for row in surgery] == [0]
