"""Checks the pages in a real browser on a small hospital: for any filters, they show the results of the cards' SQL."""

import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

import pytest

from dashboards import cards, pages
from dashboards.cards import bind
from stack import prepare, services
from stack.own import free_ports
from tests.sql.test_cards import ledger, reverse
from tests.sql.test_marts import MARTS, OPS, add, rebuilt, withhold

BOARDS = cards.load()
SLUGS = [board.slug for board in BOARDS]
NEWEST = date(2026, 1, 31)
DEPARTMENTS = ["Cardiology", "Maternity", "Oncology"]
TYPES = ["Emergency", "Inpatient", "Outpatient"]
CITIES = ["Lyon", "Brest", None, "Arles <b>&"] * 5 + [f"Town {letter}" for letter in "ABCDEFGHIJKLMNOPQRST"]
DATASETS = ["admissions", "billing", "patients", "treatments", "visits"]
NAMES = [name.capitalize() for name in DATASETS]  # as people read them
PERIOD = {"from": date(2025, 3, 10), "to": date(2025, 9, 2)}
DEFAULT = {"from": NEWEST - timedelta(days=cards.DAYS - 1), "to": NEWEST}

REFUSAL = (
    "the header of 2026/02/01/visits.csv lacks the column 'doctor_id'; it seems to be separated by semicolons: "
    "save it as CSV in UTF-8 with commas and run the date again"
)

# Filter values to try; a dashboard gets those for its own filters.
CHOICES = [
    {},
    PERIOD,
    {"from": date(2025, 12, 1)},
    {"to": date(2024, 12, 31)},
    {"from": NEWEST, "to": NEWEST},
    *({"department": [name]} for name in DEPARTMENTS),
    {"department": ["Cardiology", "Oncology"]},
    *({"visit_type": [name]} for name in TYPES),
    *({"dataset": [name]} for name in NAMES),
    {**PERIOD, "department": ["Maternity"], "visit_type": ["Emergency", "Inpatient"], "dataset": ["Billing"]},
    {"from": date(2024, 2, 29), "to": NEWEST, "department": ["Oncology"]},
]

CARDS = """() => Object.fromEntries([...document.querySelectorAll('.card')].map((card) => {
  const values = (of, name) => [...of.querySelectorAll('[data-value]')].map((cell) => cell.dataset[name]);
  if (card.classList.contains('headline')) {
    const change = card.querySelector('.change');
    const told = change ? change.textContent : null;
    const shown = card.querySelector('.value').textContent;
    const before = change ? [change.dataset.before] : [];
    return [card.dataset.card, { rows: [[...before, ...values(card, 'value')]], told, shown }];
  }
  const details = card.querySelector('details.behind');
  const summed = [...card.querySelectorAll('.plot g[class*="role-mark"] :is(path, line, text)')];
  const drawn = summed.filter((mark) => (mark.getAttribute('d') || mark.textContent || mark.tagName === 'line')).length;
  return [card.dataset.card, {
    rows: [...card.querySelectorAll('tbody tr')].map((row) => values(row, 'value')),
    cells: [...card.querySelectorAll('tbody tr')].map((row) => [...row.children].map((cell) => cell.textContent)),
    drawn, empty: Boolean(card.querySelector('.empty')), isChart: Boolean(details),
  }];
}))"""


def fill(connection):
    """Fills two years and more of a hospital with every status, open stays, empty amounts, and partly loaded files."""
    dice = random.Random(7)
    for number in range(60):
        gender, city = dice.choice(["M", "F", "Other"]), dice.choice(CITIES)
        born = date(dice.randrange(1935, 2024), 1 + number % 12, 1)
        add(connection, "patients", patient_id=f"P{number}", gender=gender, city=city, birth_date=born)
    for city, many in [("Arles <b>&", 10), *((town, 5) for town in CITIES[-20:]), ("Hamlet", 2)]:
        for number in range(many):
            add(connection, "patients", patient_id=f"P{city}{number}", city=city)
    for number in range(420):
        start = datetime(2023, 11, 15) + timedelta(minutes=dice.randrange(808 * 1440))
        kind, department = dice.choice(TYPES), dice.choice(DEPARTMENTS)
        status = dice.choices(["Completed", "Cancelled", "No-show"], [8, 1, 1])[0]
        end = start + timedelta(minutes=dice.randrange(10, 900)) if status == "Completed" else None
        visit = {"visit_id": f"V{number}", "department": department, "visit_type": kind}
        times = {"visit_start_ts": start, "visit_end_ts": end}
        add(connection, "visits", patient_id=f"P{dice.randrange(60)}", status=status, **visit, **times)
        for stay in range(dice.choice([0, 0, 0, 1, 2])):
            left = start + timedelta(hours=dice.randrange(5, 300)) if dice.random() < 0.8 else None
            stays = {"admission_id": f"A{number}-{stay}", "visit_id": f"V{number}"}
            add(connection, "admissions", admit_ts=start, discharge_ts=left, **stays)
        for bill in range(dice.choice([0, 1, 1, 1, 2])):
            total = Decimal(dice.randrange(1, 900_000)) / 100
            insured = (total * dice.randrange(101) / 100).quantize(Decimal("0.01")) if dice.random() < 0.8 else None
            patient = total - insured if insured is not None else None
            paid = dice.choice(["Paid", "Paid", "Pending", "Partial"])
            amounts = {"total_amount": total, "insurance_amount": insured, "patient_amount": patient}
            add(
                connection,
                "billing",
                bill_id=f"B{number}-{bill}",
                visit_id=f"V{number}",
                payment_status=paid,
                **amounts,
            )
        for given in range(dice.randrange(3)):
            name = dice.choice(
                ["ECG", "Ultrasound", "CT scan", "Delivery", *(f"Drug {letter}" for letter in "ABCDEFGHIJ")]
            )
            cost = Decimal(dice.randrange(50_000)) / 100
            treatment = {"treatment_id": f"T{number}-{given}", "visit_id": f"V{number}"}
            add(connection, "treatments", treatment_name=name, treatment_cost=cost, **treatment)
    silver = "insert into ops.receipts values ('silver', %s, %s, 'S', '', '')"
    bronze = "insert into ops.receipts values ('bronze', %s, %s, 'R', '', '')"
    for day in (NEWEST - timedelta(days=days) for days in (400, 60, 3, 2, 0)):
        for dataset in DATASETS:
            for number in range(dice.randrange(1, 5)):
                amount = str(dice.randrange(1, 90_000) / 100) if dataset in ("billing", "treatments") else None
                reason = dice.choice([f"missing_{dataset}", "malformed_row", "orphan_visit_id;negative_amount"])
                row = {"row_key": f"lost-{day}-{number}", "visit_id": f"V{dice.randrange(420)}", "amount": amount}
                withhold(connection, dataset, reason, str(day), **row)
                key = [dataset, day, reason.partition(";")[0]]
                connection.execute(
                    "insert into ops.reasons values ('S', %s, %s, %s, 1) "
                    "on conflict (run_id, dataset, partition_date, reason) do update set hits = reasons.hits + 1",
                    key,
                )
            connection.execute(silver, [dataset, day])
            connection.execute(bronze, [dataset, day])
            connection.execute(
                "update ops.ledger set bronze_rows = rejected + 40, accepted = 40, outcome = 'done', "
                "started_at = %s, ended_at = %s, log = %s where dataset = %s and partition_date = %s",
                [f"{day} 03:00:{len(dataset):02}", f"{day} 03:01:02.5", f"{day}/night.log", dataset, day],
            )
    for number in range(30):
        late = [f"G{number}", DATASETS[number % 2], NEWEST, datetime(2026, 2, 1) + timedelta(seconds=17 * number)]
        connection.execute(
            "insert into ops.ledger (run_id, layer, dataset, partition_date, started_at) "
            "values (%s, 'gold', %s, %s, %s)",
            late,
        )
    failed, forgotten = str(NEWEST + timedelta(days=1)), str(NEWEST + timedelta(days=2))
    ledger(connection, "night", failed, "bronze", "visits", "failed", 7200, 7203, REFUSAL)
    ledger(connection, "clerk", forgotten, "forget", "all", "done", 0, 1)
    connection.execute("insert into ops.receipts values ('marts', 'marts', %s, 'M', '', '')", [NEWEST])


@pytest.fixture(scope="module")
def built(warehouse_server, tmp_path_factory):
    """Provides the warehouse and its pages as served by the stack, and pages of an empty warehouse and of case 32."""
    home, connection = tmp_path_factory.mktemp("pages"), warehouse_server
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STACK_DIR", str(home))
        patch.setenv("POSTGRES_PORT", str(connection.info.port))
        patch.setenv("DASHBOARDS_PORT", str(free_ports(1)[0]))
        whole = ", ".join(["patients", "visits", "admissions", "treatments", "billing", *MARTS, *OPS])
        connection.execute(f"truncate {whole}")
        pages.build(pages.home())
        assert pages.built_of() is None, "no marts are in them"
        pages.home().rename(home / "dashboards.empty")
        reverse(connection)
        rebuilt(connection)
        pages.build(home / "dashboards.reversal")
        connection.execute(f"truncate {whole}")
        with connection.transaction():
            fill(connection)
        rebuilt(connection)
        pages.build(pages.home())
        for name in ("empty", "reversal"):
            (home / f"dashboards.{name}").rename(pages.home() / name)
        program = services.dashboards()
        server = subprocess.Popen(program.command, env=program.environment, cwd="/", stderr=subprocess.DEVNULL)
        try:
            while services.SERVICES["dashboards"].lacking():
                assert server.poll() is None, "the server ended"
                time.sleep(0.05)
            yield connection, f"http://127.0.0.1:{services.port('DASHBOARDS_PORT')}"
        finally:
            server.terminate()
            server.wait()


class Tab:
    """Drives a page in the browser, recording its errors and requests."""

    def __init__(self, tab, address):
        self.tab, self.address, self.complaints, self.asked = tab, address, [], []
        tab.on("console", lambda said: self.complaints.append(said.text))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("request", lambda request: self.asked.append(request.url))

    def open(self, path, state="ready"):
        self.tab.goto("about:blank")  # otherwise another hash of an open page would not reload it
        self.tab.goto(f"{self.address}/{path}")
        self.tab.locator(f"html[data-state={state}]").wait_for(state="attached")
        return self.tab

    def settle(self, action):
        """Runs an action that redraws the page and waits for the end."""
        before = self.tab.evaluate("document.documentElement.dataset.drawn")
        action()
        self.tab.wait_for_function(
            "(before) => document.documentElement.dataset.drawn !== before "
            "&& document.documentElement.dataset.state === 'ready'",
            arg=before,
        )

    def choose(self, given):
        words = [
            (name, one) for name, chosen in given.items() for one in (chosen if isinstance(chosen, list) else [chosen])
        ]
        address = "&".join(f"{name}={one}" for name, one in words)
        if self.tab.evaluate("location.hash").lstrip("#") != address:
            self.settle(lambda: self.tab.evaluate("(hash) => { location.hash = hash }", address))

    def open_tables(self):
        self.tab.evaluate("document.querySelectorAll('details.behind').forEach((one) => { one.open = true })")
        self.tab.wait_for_function(
            "[...document.querySelectorAll('details.behind')].every((one) => one.querySelector('table'))"
        )

    def cards(self):
        return self.tab.evaluate(CARDS)


@pytest.fixture
def tab(browser, built):
    context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")
    page = Tab(context.new_page(), built[1])
    yield page
    context.close()
    assert page.complaints == []
    assert [url for url in page.asked if not url.startswith((built[1], "data:", "file:", "about:"))] == []


def plain(value):
    if value is None or isinstance(value, (int, float, Decimal)):
        return value
    return str(value)


def rows_of(connection, card, given):
    query, values = bind(card.sql, card.report, {name: given[name] for name in given if name in card.tags})
    return [[plain(value) for value in row] for row in connection.execute(query, values)]


def before(given):
    """Returns the same filters for the preceding period of equal length."""
    last = given.get("to", NEWEST)
    first = given.get("from", last - timedelta(days=cards.DAYS - 1))
    return given | {"from": first - (last - first) - timedelta(days=1), "to": first - timedelta(days=1)}


def expected(connection, card, given):
    """Returns the SQL result of a card as rows of its page's table; a comparison without a current figure has none."""
    rows = rows_of(connection, card, given)
    if not card.is_compared:
        return rows
    if not rows:
        last = given.get("to", NEWEST)
        first = given.get("from", last - timedelta(days=cards.DAYS - 1))
        [begins] = connection.execute(f"select min(day) from reports.{card.report} where {card.begins} > 0").fetchone()
        reaches_back = (first - begins).days > (last - first).days
        earlier = rows_of(connection, card, before(given)) if reaches_back else []
        return [[earlier[-1][-1] if earlier else None, None]]
    return [[row[-1] for row in rows]]


def same(rows, shown):
    """Tells whether a page's rows equal those of SQL, in the same order and to the last digit."""

    def read(text, value):
        return None if text == "" else text if isinstance(value, str) else Decimal(text)

    return list(map(len, shown)) == list(map(len, rows)) and all(
        [*map(read, texts, values)] == values for texts, values in zip(shown, rows, strict=True)
    )


def choices(board):
    tags = {tag for name in board.filters for tag in cards.FILTERS[name]}
    found = []
    for choice in CHOICES:
        fitting = {name: value for name, value in choice.items() if name in tags}
        if (fitting or not choice) and fitting not in found:
            found.append(fitting)
    return found


def differing(connection, board, tab, given):
    shown = tab.cards()
    return [
        (card.title, given, expected(connection, card, given), shown[card.title]["rows"])
        for card in board.cards
        if not same(expected(connection, card, given), shown[card.title]["rows"])
    ]


def change(before, now, is_rate):
    """Describes the change of a headline as a person would compute it."""
    if before is None or now is None or (not is_rate and before == 0):
        return "\u2013"
    by = now - before if is_rate else 100 * (now - before) / abs(before)
    rounded = by.quantize(Decimal("0.1"), ROUND_HALF_UP)
    if not rounded:
        return "No change"
    return f"{rounded:+,}".replace(",", "\u202f").replace("-", "\u2212") + ("\u202fpoints" if is_rate else "\u202f%")


@pytest.mark.parametrize("board", BOARDS, ids=SLUGS)
def test_every_card_shows_what_sql_gives_whatever_is_filtered(built, tab, board):
    tab.open(f"{board.slug}.html")
    tab.open_tables()
    seen = set()
    for given in choices(board):
        tab.choose(given)
        assert differing(built[0], board, tab, given) == []
        shown = tab.cards()
        seen.add(json.dumps(shown))
        for card in board.cards:
            if card.is_compared:
                [[before, now]] = expected(built[0], card, given)
                before, now = (None if value is None else Decimal(value) for value in (before, now))
                told = change(before, now, card.format == "percent")
                assert shown[card.title]["told"].startswith(told), (card.title, given, before, now, shown[card.title])
    assert len(seen) == len(choices(board)), "each choice shows other numbers"


@pytest.mark.parametrize("board", BOARDS, ids=SLUGS)
def test_every_chart_is_drawn(tab, board):
    tab.open(f"{board.slug}.html")
    tab.open_tables()
    shown = tab.cards()
    assert list(shown) == [card.title for card in board.cards]
    charts = {title: card for title, card in shown.items() if card.get("isChart")}
    assert {title for title, card in charts.items() if card["empty"]} == set()
    for card in board.cards:
        if card.title not in charts:
            continue
        rows, drawn = charts[card.title]["rows"], charts[card.title]["drawn"]
        assert rows, card.title
        one_each = card.chart in ("bar", "row", "pie", "heat")
        filled = [row for row in rows if row[-1]]  # a number that is too small to be shown has no mark
        assert drawn >= (len(filled) if one_each else 1), card.title


def test_the_bars_are_as_long_as_the_figures_are_great(tab):
    tab.open("financial-summary.html")
    tab.open_tables()
    bars = """() => [...document.querySelectorAll('[data-card="Revenue by department"] g.mark-rect.role-mark path')]
        .map((bar) => bar.getBoundingClientRect().width)"""
    revenues = [float(row[1]) for row in tab.cards()["Revenue by department"]["rows"]]
    widths = tab.tab.evaluate(bars)
    assert len(widths) == len(DEPARTMENTS)
    assert [round(width / widths[0], 2) for width in widths] == [round(each / revenues[0], 2) for each in revenues]


def data_of(slug):
    """Returns a page's data and its HTML."""
    whole = (pages.home() / f"{slug}.html").read_text()
    before, data, after = re.split(r'(?<=id="data">)(.*?)(?=</script>)', whole, maxsplit=1)
    return json.loads(data), lambda changed: before + json.dumps(changed).replace("<", "\\u003c") + after


def swap_figures(data):
    of = data["tables"]["activity"]["sums"]
    of["revenue"], of["insurance_revenue"] = of["insurance_revenue"], of["revenue"]


def add_a_cent(data):
    of = data["tables"]["activity"]
    days = of["by"]["day"]["codes"]
    of["sums"]["revenue"][days.index(max(days))] += 1


def misplace_departments(data):
    codes = data["tables"]["activity"]["by"]["department"]["codes"]
    codes.append(codes.pop(0))


def show_one_less(data):
    [card] = [card for card in data["cards"] if card["limit"]]
    card["limit"] -= 1


def miscount(data):
    [card] = [card for card in data["cards"] if card["title"] == "Paid within 30, 60 and 90 days"]
    card["figures"][0]["times"] = 101


@pytest.mark.parametrize("plant", [None, swap_figures, add_a_cent, misplace_departments, show_one_less, miscount])
def test_a_planted_fault_is_found(built, tab, plant):
    [board] = [board for board in BOARDS if board.slug == "financial-summary"]
    data, page_of = data_of(board.slug)
    if plant:
        plant(data)
    (pages.home() / "planted.html").write_text(page_of(data))
    tab.open("planted.html")
    tab.open_tables()
    assert bool(differing(built[0], board, tab, {})) == bool(plant)


def test_a_card_with_a_limit_says_what_it_leaves_out(built, tab):
    found = set()
    for board in BOARDS:
        limited = [card for card in board.cards if card.limit and card.figures]
        if not limited:
            continue
        page = tab.open(f"{board.slug}.html")
        for given in choices(board):
            tab.choose(given)
            for card in limited:
                rows = expected(built[0], replace(card, limit=None), given)
                others = sum((row[-1] for row in rows[card.limit :]), Decimal(0))
                number = f"{others:,.2f}\u202fEUR" if card.format == "money" else f"{others:,}"
                is_cut = len(rows) > card.limit
                said = f"The first {card.limit} of {len(rows)}: the others come to {number}.".replace(",", "\u202f")
                notes = page.locator(f'[data-card="{card.title}"] .body .note').all_inner_texts()
                assert notes == ([said] if is_cut else []), (card.title, given)
                found.add((card.title, is_cut))
    assert {title for title, is_cut in found if is_cut} >= {"Patients by city", "Top 10 treatments by revenue"}


def test_the_index_shows_headlines_and_leads_to_every_page(built, tab):
    page = tab.open("index.html")
    for place, board in enumerate(BOARDS):
        of = page.locator(".board").nth(place)
        assert board.about in of.inner_text()
        first = [card for card in board.cards if card.chart == "headline"][:3]
        shown = of.locator(".value").evaluate_all("(all) => all.map((one) => [one.dataset.value])")
        assert same([[expected(built[0], card, {})[0][-1]] for card in first], shown)
        with page.expect_navigation():  # waits for the load event: a page that waits for a test's text would not run it
            of.click()
        page.locator("html[data-state=ready]").wait_for(state="attached")
        assert page.locator("h1").inner_text() == board.name
        page.go_back()
        page.locator("html[data-state=ready]").wait_for(state="attached")


def test_filters_are_chosen_by_hand_kept_in_the_address_and_reset(built, tab):
    board = BOARDS[0]
    page = tab.open(f"{board.slug}.html")
    tab.open_tables()
    whole = tab.cards()
    tab.settle(lambda: page.locator("#filter-from").fill("2025-03-10"))
    tab.settle(lambda: page.locator("#filter-to").fill("2025-09-02"))
    page.locator("#filter-department").click()
    tab.settle(lambda: page.get_by_label("Maternity").check())
    tab.settle(lambda: page.get_by_label("Oncology").check())
    page.keyboard.press("Escape")
    page.locator("#filter-visit_type").click()
    tab.settle(lambda: page.get_by_label("Inpatient").check())
    given = {**PERIOD, "department": ["Maternity", "Oncology"], "visit_type": ["Inpatient"]}
    assert differing(built[0], board, tab, given) == []
    assert page.locator("#chosen").inner_text() == "10 Mar 2025 to 2 Sep 2025 · Maternity, Oncology · Inpatient"
    link = page.evaluate("location.href")
    tab.open(link.removeprefix(f"{tab.address}/"))
    tab.open_tables()
    assert differing(built[0], board, tab, given) == []
    assert page.locator("#filter-department").inner_text() == "Maternity, Oncology"
    assert page.locator("nav a").nth(1).get_attribute("href").endswith(link.partition("#")[2]), "kept from page to page"
    tab.settle(lambda: page.locator("#reset").click())
    assert tab.cards() == whole and page.evaluate("location.hash") == ""
    tab.settle(lambda: page.get_by_role("button", name="90 days").click())
    assert differing(built[0], board, tab, {"from": NEWEST - timedelta(days=89)}) == []


def test_a_card_that_a_filter_passes_by_says_so(tab):
    page = tab.open("patient-analytics.html")
    notes = page.locator(".note", has_text="Not filtered by")
    assert [note for note in notes.all() if note.is_visible()] == []
    tab.choose({**PERIOD, "department": ["Oncology"]})
    told = {
        note.locator("..").get_attribute("data-card"): note.inner_text() for note in notes.all() if note.is_visible()
    }
    [board] = [board for board in BOARDS if board.slug == "patient-analytics"]
    unfiltered = [card.title for card in board.cards if card.report in ("patients", "patient_groups")]
    by_department = {"New and returning patients": "Not filtered by department"}
    assert told == dict.fromkeys(unfiltered, "Not filtered by period and department") | by_department


@pytest.mark.parametrize("board", BOARDS, ids=SLUGS)
def test_where_nothing_is_chosen_the_cards_say_so(tab, board):
    page = tab.open(f"{board.slug}.html#from=2001-01-01&to=2001-01-31")
    tab.open_tables()
    shown = tab.cards()
    filtered = {
        card.title for card in board.cards if "period" in card.filters and card.chart not in ("headline", "table")
    }
    assert {title for title, card in shown.items() if card.get("isChart") and card["empty"]} == filtered
    assert page.get_by_text("No data for this selection").count() >= len(filtered)
    tab.choose({"from": "2026-01-31", "to": "2026-01-01"})
    assert "ends before it begins" in page.locator("#chosen").inner_text()


def test_pages_of_an_empty_warehouse_say_how_to_fill_it(tab):
    for slug in ("index", *SLUGS):
        page = tab.open(f"empty/{slug}.html")
        assert 'run one with "make run DATE=2026-01-31", then' in page.locator("#cards").inner_text(), slug


def test_a_page_that_cannot_be_drawn_says_so(tab):
    data, page_of = data_of("executive-overview")
    del data["tables"]["activity"]["sums"]["visits"]
    (pages.home() / "planted.html").write_text(page_of(data))
    page = tab.open("planted.html", state="failed")
    assert 'build it again with "make dashboards"' in page.get_by_role("alert").inner_text()
    tab.complaints.clear()


def test_a_page_is_one_small_file_that_needs_no_network(browser, built):
    context = browser.new_context(offline=True)
    page = Tab(context.new_page(), pages.home().as_uri())
    for slug in ("index", *SLUGS):
        assert (pages.home() / f"{slug}.html").stat().st_size < 5_000_000, slug
        page.open(f"{slug}.html")
    files = {(pages.home() / f"{slug}.html").as_uri() for slug in ("index", *SLUGS)}
    assert page.complaints == []
    assert {url for url in page.asked if not url.startswith(("data:", "about:"))} == files
    context.close()


def test_pages_fit_a_phone_and_paper(browser, built):
    context = browser.new_context(viewport={"width": 390, "height": 800})
    tab = Tab(context.new_page(), built[1])
    wider = "(all) => all.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.textContent)"
    for slug in ("index", *SLUGS):
        page = tab.open(f"{slug}.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, slug
        assert page.locator(".value").evaluate_all(wider) == [], slug
        page.emulate_media(media="print")
        assert page.locator("nav").is_hidden() and page.locator("#theme").is_hidden()
        if slug != "index":
            assert page.locator("#filters").is_hidden() and page.locator("#chosen").is_visible()
        page.emulate_media(media="screen")
    context.close()


CONTRAST = """(pairs) => {
  const probe = document.body.appendChild(document.createElement('i'));
  const light = (name) => {
    probe.style.color = `var(--${name})`;
    const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
    const [red, green, blue] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  return Object.fromEntries(pairs.map(([one, other]) => {
    const [a, b] = [light(one), light(other)];
    return [`${one} on ${other}`, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  }));
}"""


def test_light_and_dark_are_both_readable_and_kept(tab):
    page = tab.open("executive-overview.html")
    texts = [(ink, ground) for ink in ("ink", "soft", "link", "good", "warn") for ground in ("card", "ground")]
    shapes = [(f"c{number}", "card") for number in range(8)]
    for theme in ("light", "dark"):
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        assert {pair: ratio for pair, ratio in page.evaluate(CONTRAST, texts).items() if ratio < 4.5} == {}
        assert {pair: ratio for pair, ratio in page.evaluate(CONTRAST, shapes).items() if ratio < 3} == {}
        page.locator("#theme").click()
    page.locator("#theme").click()
    assert tab.open("financial-summary.html").evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_numbers_behind_a_chart_are_reached_and_sorted_by_keyboard(tab):
    page = tab.open("department-operations.html")
    card = page.locator('[data-card="Outpatient visit by department"]')
    page.locator("#filter-visit_type").focus()
    for _ in range(20):
        page.keyboard.press("Tab")
        if card.locator("summary").evaluate("(one) => one === document.activeElement"):
            break
    else:
        raise AssertionError("Tab does not come to the table")
    page.keyboard.press("Enter")
    card.locator("table").wait_for()
    before = card.locator("tbody th").all_inner_texts()
    page.keyboard.press("Tab")  # focuses the table itself, which scrolls
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert card.locator("thead th").first.get_attribute("aria-sort") == "ascending"
    assert sorted(before) == DEPARTMENTS == card.locator("tbody th").all_inner_texts()
    page.keyboard.press("Enter")
    assert card.locator("tbody th").all_inner_texts() == DEPARTMENTS[::-1]
    charts = page.locator(".plot").evaluate_all(
        "(all) => all.map((one) => [one.getAttribute('role'), one.getAttribute('aria-label')])"
    )
    assert charts and all(
        role == "img" and "the table below it has the same numbers" in label for role, label in charts
    )


def test_numbers_are_written_for_people(tab):
    tab.open("department-operations.html")
    tab.open_tables()
    shown = tab.cards()
    row = shown["Departments side by side"]["cells"][0]
    forms = [
        r"\w+",
        r"\d+",
        r"\d+\.\d\u202f%",
        r"\d+\.\d\u202f%",
        r"\d+\.\d\u202fh",
        r"\d+\.\d\u202fh",
        r"\d+",
        r"\d+\.\d\u202fd",
        r"\d{1,3}(\u202f\d{3})*\.\d\d",
    ]
    assert [form for form, text in zip(forms, row, strict=True) if not re.fullmatch(form, text)] == []
    tab.open("data-quality.html")
    tab.open_tables()
    shown = tab.cards()
    assert shown["Last runs"]["cells"][0][0] == "2 Feb 2026, 00:00"
    assert {row[0] for row in shown["Rejected share by date"]["cells"]} >= {"31 Jan 2026", "28 Jan 2026"}


def test_every_page_says_how_fresh_and_how_complete_it_is(built, tab):
    query = (
        "select sum(revenue), sum(revenue_sent), sum(unreliable_bills), sum(patients_sent - patients), "
        "sum(visits_sent - visits), sum(admissions_sent - admissions), sum(bills_sent - bills) "
        "from reports.completeness where day between %s and %s"
    )
    is_in, sent, unknown, *withheld = built[0].execute(query, [DEFAULT["from"], NEWEST]).fetchone()
    rejected = built[0].execute("select sum(rejected) from reports.files where day = %s", [NEWEST]).fetchone()[0]
    assert unknown == 0 and all(count > 1 for count in withheld)
    words = zip(withheld, ["patients", "visits", "admissions", "bills"], strict=True)
    lacking = f"Withheld from these figures: {', '.join(f'{count} {word}' for count, word in words)}\n"
    for slug in ("index", *SLUGS):
        told = tab.open(f"{slug}.html").locator("#state").inner_text()
        assert "Data up to 31 Jan 2026" in told and "Built " in told and "Newer files are due" in told
        share = f"{(100 * is_in / sent).quantize(Decimal('0.1'), ROUND_HALF_UP)}\u202f%"
        assert f"Revenue: {share} of what could be read\n" in told and lacking in told
        assert f"{rejected} of {rejected + 200} rows rejected that day" in told
        assert "with data after that" not in told, "a date that failed brought none"


def test_no_page_calls_the_revenue_complete_without_the_bill_that_was_reversed(tab):
    """Covers case 32: a paid bill of 500.00, and its rejected reversal of -500.00."""
    for slug in ("index", *SLUGS):
        page = tab.open(f"reversal/{slug}.html")
        told = page.locator("#state li").all_inner_texts()
        of = "Revenue: 100.0\u202f% of what could be read; 1 bill whose amount cannot be relied on is not in it"
        assert [line for line in told if "%" in line] == [of]
        assert page.locator("#state li", has_text="Revenue").get_attribute("class") == "warn"
        assert "Withheld from these figures: 1 bill" in told
    for slug in ("executive-overview", "data-quality"):
        tab.open(f"reversal/{slug}.html")
        headlines = {title: card["rows"][0][-1] for title, card in tab.cards().items() if "told" in card}
        assert (headlines["Revenue complete"], headlines["Bills not relied on"]) == ("100.0000", "1")


def test_a_night_that_failed_is_seen_with_its_sentence_and_its_log(built, tab):
    page = tab.open("index.html")
    [dates] = built[0].execute("select count(*) from reports.unfinished").fetchone()
    board = page.locator(".board", has_text="Data Quality")
    assert board.locator("dt").first.inner_text() == "Dates not done"
    assert board.locator(".value").first.inner_text() == str(dates) != "0"
    page = tab.open("data-quality.html")
    first = page.locator('[data-card="Dates that need attention"] tbody tr').first
    assert first.locator("th, td").all_inner_texts() == ["1 Feb 2026", "never ran", REFUSAL, "2026-02-01/night.log"]
    sentence = first.locator("td").nth(1)
    assert sentence.get_attribute("class") == "long" and first.locator("td").first.get_attribute("class") == "late"
    assert sentence.evaluate("(one) => one.clientHeight > 2 * parseFloat(getComputedStyle(one).fontSize) * 1.5")
    tab.open_tables()
    seconds = {tuple(row[:2]): row[2] for row in tab.cards()["Run time of each date"]["cells"]}
    assert seconds["28 Jan 2026", "Last run"] == "56.5" and seconds["28 Jan 2026", "Usual"] == "56.5"
    assert {day for day, _ in seconds} == {"2 Dec 2025", "28 Jan 2026", "29 Jan 2026", "31 Jan 2026"}
    data, page_of = data_of("data-quality")
    [card] = [card for card in data["cards"] if card["title"] == "Dates that need attention"]
    data["tables"][card["table"]]["rows"] = []
    (pages.home() / "planted.html").write_text(page_of(data))
    page = tab.open("planted.html")
    assert page.locator('[data-card="Dates that need attention"] .body').inner_text() == "Every date is done."


def test_pages_tell_which_marts_they_show(built, monkeypatch):
    [finished] = built[0].execute("select max(turn) from ops.receipts where layer = 'marts'").fetchone()
    assert pages.built_of() == finished
    monkeypatch.setattr(pages, "made_of", lambda: "another declaration")
    assert pages.built_of() is None


def test_pages_tell_whether_they_show_the_dates_that_failed_since(built):
    connection, night = built[0], "2026-02-03"
    assert pages.are_current(connection)
    with connection.transaction(force_rollback=True):
        ledger(connection, "night", night, "bronze", "visits", "failed", 0, 1, "it has not landed")
        assert not pages.are_current(connection)
        connection.execute("delete from ops.ledger where partition_date = %s", [night])
        assert pages.are_current(connection)
        connection.execute("insert into ops.receipts values ('marts', 'marts', %s, 'N', '', '')", [night])
        assert not pages.are_current(connection), "the marts are others"


def test_where_the_first_date_failed_data_quality_says_why(built, tab):
    data, page_of = data_of("data-quality")
    data["state"]["newest"] = None
    (pages.home() / "planted.html").write_text(page_of(data))
    page = tab.open("planted.html")
    assert 'run one with "make run DATE=2026-01-31", then' in page.locator("#cards").inner_text()
    assert page.locator(".card").count() == 1 and REFUSAL in page.locator(".card tbody").inner_text()


def test_no_key_of_anything_is_in_a_page(built):
    for file in pages.home().glob("*.html"):
        data = re.search(r'id="data">(.*?)</script>', file.read_text())[1]
        assert re.findall(r'"(?:[PVABT]\d+(?:-\d)?|lost-[^"]*)"', data) == [], file.name


def test_no_city_is_in_a_page_that_does_not_show_it(built):
    data, _ = data_of("patient-analytics")
    [cities] = [table["by"]["city"]["values"] for table in data["tables"].values() if "city" in table["by"]]
    [there] = built[0].execute("select count(distinct city) from patients").fetchone()
    assert len(cities) == 15 < there
    lost = built[0].execute("select distinct city from patients where city <> all(%s)", [cities]).fetchall()
    page = (pages.home() / "patient-analytics.html").read_text()
    assert [city for (city,) in lost if f'"{city}"' in page] == []


def test_what_a_patient_s_city_is_called_cannot_become_markup(tab):
    page = tab.open("patient-analytics.html")
    tab.open_tables()
    assert "Arles <b>&" in page.locator('[data-card="Patients by city"] tbody').inner_text()
    assert "Arles <b>&" in page.locator('[data-card="Patients by city"] .plot').inner_text()


def test_before_any_page_is_built_the_stack_serves_one_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("STACK_DIR", str(tmp_path / "stack"))
    prepare.state_directory()
    index = pages.home() / "index.html"
    assert "No dashboards have been built yet" in index.read_text() and pages.built_of() is None
    index.write_text("built")
    prepare.state_directory()
    assert index.read_text() == "built"


def test_without_a_server_the_command_ends_with_a_sentence(tmp_path):
    lost = {"POSTGRES_PORT": str(free_ports(1)[0])}
    words = [sys.executable, "-m", "dashboards.pages", "--to", str(tmp_path)]
    done = subprocess.run(words, env=os.environ | lost, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"PostgreSQL at \S+ does not answer; start the stack with `make up`\.\n", done.stderr)
    assert list(tmp_path.iterdir()) == []
