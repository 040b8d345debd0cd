"""Tests what cards do besides showing figures: parts of a step, axes, cut bars, opened tables, CSV, filters."""

import re

from dashboards import pages
from tests.sql.test_pages import BOARDS, NAMES, built, data_of, rows_of, tab  # noqa: F401  # built and tab are fixtures


def test_a_card_s_figures_are_saved_as_csv(built, tab):  # noqa: F811
    page = tab.open("financial-summary.html#department=Oncology")
    [board] = [board for board in BOARDS if board.slug == "financial-summary"]
    for title, head in (("Monthly revenue by source", "Month,Source,Revenue (EUR)"), ("Billed", "From,Billed (EUR)")):
        [card] = [card for card in board.cards if card.title == title]
        with page.expect_download() as saved:
            page.locator(f'[aria-label="CSV: {title}"]').dispatch_event("click")
        assert saved.value.suggested_filename.startswith(f"financial-summary-{title.lower().replace(' ', '-')}-2025-")
        first, *lines = saved.value.path().read_text(encoding="utf-8-sig").splitlines()
        rows = rows_of(built[0], card, {"department": ["Oncology"]})
        assert first == head
        wanted = [row[1:] for row in rows] if card.is_compared else rows
        assert [line.split(",") for line in lines] == [["" if v is None else str(v) for v in row] for row in wanted]


def test_a_spreadsheet_runs_no_city_as_a_formula(tab):  # noqa: F811
    data, page_of = data_of("patient-analytics")
    [table] = [table for table in data["tables"].values() if "city" in table.get("by", {})]
    table["by"]["city"]["values"][0] = "=1+1,2"
    (pages.home() / "planted.html").write_text(page_of(data))
    page = tab.open("planted.html")
    with page.expect_download() as saved:
        page.locator('[aria-label="CSV: Patients by city"]').click()
    assert '"\'=1+1,2",' in saved.value.path().read_text(encoding="utf-8-sig")


def test_an_opened_table_lies_over_its_chart_and_moves_nothing(tab):  # noqa: F811
    page = tab.open("patient-analytics.html")
    boxes = "() => [...document.querySelectorAll('.card')].map((card) => JSON.stringify(card.getBoundingClientRect()))"
    before = page.evaluate(boxes)
    tab.open_tables()
    assert page.evaluate(boxes) == before
    over = page.locator('[data-card="Patients by age"] .scroll').bounding_box()
    chart = page.locator('[data-card="Patients by age"] .plot svg').bounding_box()
    assert over["y"] <= chart["y"] and over["height"] > 100 and over["width"] >= chart["width"]


def test_a_part_of_a_month_is_drawn_as_one_and_said(tab):  # noqa: F811
    page = tab.open("patient-analytics.html#from=2025-03-10&to=2025-09-02")
    line = page.locator('[data-card="Share of returns by month"]')
    assert "Part of a month: Mar 2025 from 10 Mar, Sep 2025 up to 2 Sep." in line.locator(".note").last.inner_text()
    assert line.locator(".plot path[stroke-dasharray]").count() == 2, "it hangs on the whole months by dashed lines"
    bars = page.locator('[data-card="First visits and returns"] g.mark-rect.role-mark path')
    pale = bars.evaluate_all("(all) => all.map((one) => [one.__data__.datum.x, one.__data__.opacity])")
    assert {x for x, opacity in pale if opacity < 1} == {"2025-03-01", "2025-09-01"}


def test_a_line_s_axis_begins_at_0_or_says_that_it_does_not(tab):  # noqa: F811
    page = tab.open("executive-overview.html")
    card = page.locator('[data-card="Admission rate by week"]')
    zero = card.locator(".mark-text.role-axis-label text").filter(has_text=re.compile("^0\u202f%$"))
    assert zero.count() == 1 and "The axis does not begin at 0." not in card.inner_text()
    data, page_of = data_of("executive-overview")
    table = data["tables"]["activity"]["sums"]
    table["admissions"] = [90 * visits + visits % 7 for visits in table["visits"]]
    (pages.home() / "planted.html").write_text(page_of(data))
    tab.open("planted.html")
    assert zero.count() == 0 and "The axis does not begin at 0." in card.inner_text()


def test_a_first_file_of_years_leaves_the_other_bars_readable(tab):  # noqa: F811
    data, page_of = data_of("data-quality")
    [name] = [card["table"] for card in data["cards"] if card["title"] == "Accepted and rejected by date"]
    table = data["tables"][name]
    day = table["by"]["day"]["values"].index("2026-01-28")
    table["sums"]["accepted"][table["by"]["day"]["codes"].index(day)] += 60_000
    (pages.home() / "planted.html").write_text(page_of(data))
    card = tab.open("planted.html").locator('[data-card="Accepted and rejected by date"]')
    assert "The bar of 28 Jan 2026 is cut: it reaches 60\u202f2" in card.locator(".note").last.inner_text()
    bars = card.locator("g.mark-rect.role-mark path")
    heights = bars.evaluate_all("(all) => all.map((one) => [one.__data__.datum.v, one.__data__.height])")
    assert len(heights) > 6 and all(height > 60 for rows, height in heights if rows > 150)


def test_the_dataset_filter_offers_datasets(tab):  # noqa: F811
    page = tab.open("data-quality.html")
    page.locator("#filter-dataset").click()
    assert page.locator('fieldset[aria-label="Dataset"] label').all_inner_texts() == NAMES


def test_filters_are_folded_away_on_a_phone_until_they_are_asked_for(tab):  # noqa: F811
    tab.tab.set_viewport_size({"width": 390, "height": 800})
    page = tab.open("executive-overview.html")
    assert page.locator("#filters").is_hidden() and page.locator("#chosen").is_visible()
    page.locator("#show-filters").click()
    assert page.locator("#filters").is_visible()
    tab.settle(lambda: page.get_by_role("button", name="90 days").click())
    assert "3 Nov 2025 to 31 Jan 2026" in page.locator("#chosen").inner_text()
