"""Checks the pages' charts mark by mark: every day with data is drawn, in proportion to the card's SQL."""

import re
from dataclasses import replace
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise

import pytest

from dashboards import cards, pages
from dashboards.cards import Figure, bind
from tests.sql.test_marts import rebuilt
from tests.sql.test_pages import (  # noqa: F401  # built and tab are fixtures
    BOARDS,
    DATASETS,
    DEPARTMENTS,
    NEWEST,
    SLUGS,
    TYPES,
    built,
    expected,
    same,
    tab,
)

# Collects the marks of each chart from the browser: their datum, position and size. A line or an area is one path
# through points; a dashed line leads to a part of a step, which is a hollow point.
MARKS = """() => Object.fromEntries([...document.querySelectorAll('.card:has(details.behind)')].map((card) => {
  const of = (kind) => [...card.querySelectorAll(`.plot g.mark-${kind}.role-mark > path`)];
  const said = ({ datum: { x, s, v, isCut }, ...at }) => ({
    x, s: s === undefined ? null : s, v, isCut, defined: at.defined !== false && v !== null, left: at.x, top: at.y,
    width: at.width, height: at.height, opacity: at.opacity, angle: Math.abs(at.endAngle - at.startAngle),
  });
  const path = (one) => ({ points: one.__data__.mark.items.map(said), path: one.getAttribute('d') });
  const text = (query) => [...card.querySelectorAll(query)].map((one) => one.textContent);
  return [card.dataset.card, {
    line: of('line').filter((one) => !one.hasAttribute('stroke-dasharray')).map(path),
    area: of('area').map(path), symbol: of('symbol').map((one) => said(one.__data__)),
    rect: of('rect').map((one) => said(one.__data__)), arc: of('arc').map((one) => said(one.__data__)),
    series: text('.legend li'), notes: text('.body .note').join(' '), heads: text('thead th'),
    label: card.querySelector('.plot')?.getAttribute('aria-label'),
    table: card.querySelector('.scroll').getAttribute('aria-label'),
  }];
}))"""
MARK = {"line": "line", "area": "area", "bar": "rect", "heat": "rect", "row": "rect", "pie": "arc"}
SIZE = {"bar": ("height", "width"), "row": ("width", "height"), "heat": ("opacity", "width"), "pie": ("angle", "angle")}
TIMES = ("day", "week", "month", "quarter", "year", "decade")

VISITS = """insert into visits (visit_id, patient_id, visit_type, department, visit_start_ts, visit_end_ts, status,
        _partition_date, _run_id)
    select 'L' || day, 'P' || mod(extract(doy from day)::int, 60),
        (%(types)s::text[])[1 + mod(extract(doy from day)::int, 3)],
        (%(departments)s::text[])[1 + mod(extract(day from day)::int, 3)], day + interval '10 hours',
        case when extract(day from day) < 28 then day + interval '11 hours' end,
        case when extract(day from day) < 28 then 'Completed' else 'No-show' end, '2026-01-31', 'L'
    from unnest(%(days)s::date[]) as day"""
BILLS = """insert into billing (bill_id, visit_id, total_amount, insurance_amount, patient_amount, payment_status,
        _partition_date, _run_id)
    select 'L' || day, 'L' || day, 10 + extract(doy from day) / 100, 4, 6 + extract(doy from day) / 100,
        case when mod(extract(doy from day)::int, 4) = 0 then 'Pending' else 'Paid' end, '2026-01-31', 'L'
    from unnest(%(days)s::date[]) as day"""
STAYS = """insert into admissions (admission_id, visit_id, admit_ts, discharge_ts, room_type, _partition_date, _run_id)
    select 'L' || day, 'L' || day, day + interval '12 hours', day + interval '60 hours', 'ICU', '2026-01-31', 'L'
    from unnest(%(days)s::date[]) as day where mod(extract(doy from day)::int, 5) = 0"""
FILES = """insert into ops.ledger (run_id, layer, dataset, partition_date, outcome, bronze_rows, accepted, rejected,
        started_at, ended_at, log)
    select 'L', 'silver', dataset, day, 'done', 40 + extract(doy from day)::int, 40, extract(doy from day)::int,
        day, day + (20 + mod(extract(doy from day)::int, 7)) * interval '1.3 seconds', day || '/L.log'
    from unnest(%(days)s::date[]) as day cross join unnest(%(datasets)s::text[]) as dataset"""
RECEIPTS = """insert into ops.receipts (layer, dataset, partition_date, run_id, made_from, rule_set)
    select 'silver', dataset, partition_date, 'L', '', '' from ops.ledger where run_id = 'L' on conflict do nothing"""
HISTORIES = {  # days added to those of `fill`, each with a visit and a file per dataset
    "usual": [],
    "1926": [date(1926, 3, 1), date(2062, 3, 1)],
    "year-1": [date(1, 1, 1), date(1926, 3, 1)],
    "13-years": [NEWEST - timedelta(days=days) for days in range(13 * 365)],
}


@pytest.fixture(scope="module", params=HISTORIES)
def history(request, built):  # noqa: F811
    """Provides the warehouse with one of these histories, the address of its pages, and the first day with a visit."""
    connection, days = built[0], HISTORIES[request.param]
    given = {"days": days, "types": TYPES, "departments": DEPARTMENTS, "datasets": DATASETS}
    with connection.transaction():
        for statement in (VISITS, BILLS, STAYS, FILES, RECEIPTS):
            connection.execute(statement, given)
    rebuilt(connection)
    pages.build(pages.home() / request.param)
    [first] = connection.execute("select min(visit_start_ts)::date from visits").fetchone()
    yield connection, request.param, first
    with connection.transaction():
        for table in ("admissions", "billing", "visits", "ops.receipts", "ops.ledger"):
            connection.execute(f"delete from {table} where {'run_id' if table.startswith('ops') else '_run_id'} = 'L'")
    rebuilt(connection)


def step_of(grain, day):
    """Returns the first day of the period of this grain that contains a day."""
    if grain in ("day", "week"):
        return day - timedelta(days=day.weekday() if grain == "week" else 0)
    month = {"month": day.month, "quarter": 3 * ((day.month - 1) // 3) + 1}.get(grain, 1)
    return date(max(1, day.year // 10 * 10) if grain == "decade" else day.year, month, 1)


def by_day(connection, card, given):
    """Yields the sums of the card's SQL per day and series."""
    names = dict.fromkeys(name for figure in card.figures for name in (figure.column, figure.per) if name)
    parts = tuple(Figure(name, name, None, 1, 1, "integer") for name in names)
    others = tuple(name for name in card.by if name not in TIMES)
    whole = replace(card, chart="table", figures=parts, by=("day", *others), fold=None, order=None, limit=None)
    query, values = bind(whole.sql, card.report, {name: given[name] for name in given if name in card.tags})
    for day, *row in connection.execute(query, values):
        yield day, row[: len(others)], dict(zip(names, row[len(others) :], strict=True))


def value_of(figure, sums):
    """Returns a figure of sums, rounded as SQL does."""
    if figure.per is None:
        return Decimal(sums[figure.column])
    if not sums[figure.per]:
        return None
    exact = Decimal(figure.times * sums[figure.column]) / Decimal(sums[figure.per]) / figure.divided
    return exact.quantize(Decimal("0.0001"), ROUND_HALF_UP)


def regrouped(card, days, grain):
    """Returns a time card's values by period and series, summed from its days."""
    sums = {}
    for day, series, parts in days:
        total = sums.setdefault((str(step_of(grain, day)), *series), dict.fromkeys(parts, 0))
        for name, part in parts.items():
            total[name] += part
    if card.fold:
        return {(*key, figure.label): value_of(figure, of) for key, of in sums.items() for figure in card.figures}
    return {key: value_of(card.figures[0], of) for key, of in sums.items()}


def linear(pairs):
    """Tells whether drawn sizes are a linear function of the values; True if nothing is drawn."""
    if not pairs:
        return True
    (least, low), (most, high) = min(pairs), max(pairs)
    per = (high - low) / ((most - least) or 1)
    return all(abs(size - (low + per * (value - least))) < 0.02 for value, size in pairs)


def drawn(card, chart):
    """Returns the visible values of a chart by period and series; checks that their sizes are proportional."""
    found = chart[MARK[card.chart]]
    if card.chart in ("line", "area"):
        seen = {(one["x"], one["s"]) for one in chart["symbol"]}
        for line in found:
            points = line["points"]
            corners = len(re.findall(r"[\d.e-]+,[\d.e-]+", line["path"] or ""))
            assert corners == sum(one["defined"] for one in points) * (2 if card.chart == "area" else 1)
            for one, other in pairwise(points):
                assert one["left"] < other["left"], "time goes to the right"
                if one["defined"] and other["defined"]:
                    seen |= {(point["x"], point["s"]) for point in (one, other)}
        found = [point for line in found for point in line["points"] if point["defined"]]
        if card.chart == "line":
            found += [one for one in chart["symbol"] if one["isCut"] and one["v"] is not None]
        assert [one for one in found if (one["x"], one["s"]) not in seen] == [], (
            "a path shows no point between two gaps"
        )
        sized = [(one["v"], one["top"]) for one in found]
    else:
        found = [one for one in found if one["v"] is not None]
        size, across = SIZE[card.chart]
        sized = [(one["v"], one[size]) for one in found]
        assert [one for one in found if one["v"] and not one[across] > 0] == []
    assert linear(sized), card.title
    place = len(card.result) - 1
    is_coded = place == 2 and card.chart != "heat"  # a series is drawn by its position in the legend
    keys = [(one["x"], chart["series"][one["s"]] if is_coded else one["s"])[:place] for one in found]
    assert len(set(keys)) == len(keys), "one mark for one value"
    return {key: one["v"] for key, one in zip(keys, found, strict=True)}


def grain_of(card, chart):
    """Returns the grain that a card's notes name, else its own; None if its axis is not time."""
    finest = next((name for name in card.by if name in TIMES), None)
    told = re.search(r"\bBy (\w+) instead of by (\w+): .+ to .+ are more than [\d\u202f]+ (\w+)s\.", chart["notes"])
    assert not told or (told[2] == told[3] == finest and told[0] in chart["label"])
    grain = told[1] if told else finest
    assert chart["table"] == f"Table: {card.title}{f', by {grain}' if told else ''}"
    assert finest is None or chart["heads"][card.by.index(finest)] == grain.capitalize()
    return grain


def assert_drawn(connection, card, chart, given, rows):
    """Checks that the marks of a chart are the values of the card's SQL, without a missing day."""
    marks, grain = drawn(card, chart), grain_of(card, chart)
    if grain is None:
        wanted = {tuple(row[:-1]): row[-1] for row in rows}
    else:
        days = list(by_day(connection, card, given))
        wanted = regrouped(card, days, grain)
        if card.chart in ("line", "area") and all(figure.per is None for figure in card.figures):
            assert {value for key, value in marks.items() if key not in wanted} <= {0}, "no visit on a day is none"
            marks = {key: value for key, value in marks.items() if key in wanted}
        for figure in card.figures:
            of = [value for key, value in marks.items() if not card.fold or key[-1] == figure.label]
            if figure.per is None:
                assert sum(Decimal(str(value)) for value in of) == sum(parts[figure.column] for _, _, parts in days)
        assert len({step for step, *_ in marks}) <= 1001
    assert marks == {key: float(value) for key, value in wanted.items() if value is not None}, (card.title, given)


def choices_of(board, first):
    tags = {tag for name in board.filters for tag in cards.FILTERS[name]}
    narrowed = {"department": ["Oncology"], "dataset": ["Billing", "Visits"], "visit_type": ["Inpatient"]}
    every = [{}, {"from": first}, {"from": first, **narrowed}]
    return [{name: value for name, value in given.items() if name in tags} for given in every]


@pytest.mark.parametrize("board", BOARDS, ids=SLUGS)
def test_every_chart_draws_what_sql_gives(history, tab, board):  # noqa: F811
    connection, name, first = history
    tab.open(f"{name}/{board.slug}.html")
    tab.open_tables()
    for given in choices_of(board, first):
        tab.choose(given)
        tab.open_tables()
        charts, shown = tab.tab.evaluate(MARKS), tab.cards()
        for card in board.cards:
            rows = expected(connection, card, given)
            assert same(rows, shown[card.title]["rows"]), (card.title, given)
            if card.title in charts and rows:
                assert_drawn(connection, card, charts[card.title], given, rows)
            assert len(rows) <= 2000, "Metabase cuts off what is more"


GRAINS_OF_ALL = {  # under All, of two charts by day, one by week and one by month
    "usual": ["day", "day", "week", "month"],
    "1926": ["quarter", "quarter", "quarter", "year"],
    "year-1": ["decade", "decade", "decade", "decade"],
    "13-years": ["week", "week", "week", "month"],
}


def test_all_draws_from_the_oldest_day_to_the_newest_and_names_the_grain(history, tab):  # noqa: F811
    connection, name, first = history
    page = tab.open(f"{name}/executive-overview.html")
    tab.open_tables()
    tab.settle(lambda: page.get_by_role("button", name="All").click())
    assert page.locator("#filter-from").input_value() == str(first)
    charts = page.evaluate(MARKS)
    over_time = [card for card in BOARDS[0].cards if card.by]
    assert [grain_of(card, charts[card.title]) for card in over_time] == GRAINS_OF_ALL[name]
    up_to = "select max(visit_start_ts)::date, count(*) from visits where visit_start_ts::date <= %s"
    [newest, total] = connection.execute(up_to, [NEWEST]).fetchone()
    visits, grain = drawn(over_time[0], charts["Daily visits"]), GRAINS_OF_ALL[name][0]
    assert [min(visits), max(visits)] == [(str(step_of(grain, day)),) for day in (first, newest)]
    assert sum(visits.values()) == total == int(tab.cards()["Visits"]["rows"][0][-1])
    later = "1 day with data after that, the last 1 Mar 2062"
    assert (later in page.locator("#state").inner_text()) == (name == "1926")
