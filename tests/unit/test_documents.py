"""Checks the documents: the introduction is short, and no link is broken."""

import re

import pytest

from dashboards import cards, measures
from jobs import dictionary, settings

PAGES = [settings.ROOT / "README.md", *sorted((settings.ROOT / "docs").glob("*.md"))]


def anchors(text):
    """Returns the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_newcomer_has_one_short_page_to_read():
    assert len(PAGES[0].read_text().splitlines()) <= 110


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target.read_text()), f"{page.name} links to {link}"


def test_the_data_dictionary_is_that_of_the_catalog_and_the_marts():
    """Fails with a KeyError that names a mart's column without a comment."""
    assert dictionary.PAGE.read_text() == dictionary.page(), "run `make dictionary`"
    marts = [name for name, _, _ in dictionary.mart_tables()]
    assert {"reference.beds", *schema_of_marts()} == set(marts)


def schema_of_marts():
    return {file.stem for file in (settings.ROOT / "sql" / "marts").glob("*.sql")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_a_target_of_make(page):
    makefile = (settings.ROOT / "Makefile").read_text()
    targets = {word for line in re.findall(r"^([a-z -]+):(?!=)", makefile, re.M) for word in line.split()}
    named = set(re.findall(r"(?:^    |`)make ([a-z][a-z-]*)", page.read_text(), re.M))
    assert named <= targets, f"{page.name} names {sorted(named - targets)}"


def test_the_measures_are_those_of_the_declaration_and_of_the_columns_comments():
    declared = measures.load(cards.declared()["measures"])
    text = measures.PAGE.read_text()
    assert text == measures.page(text, declared), "run `make dictionary`"
    for measure in declared.values():
        assert f"**{measure.title}.** {measure.answers}" in " ".join(text.split())
    assert "\n**Bed occupancy.**" in measures.page(re.sub(r"\*\*Bed occupancy", "**Beds", text), declared)


def test_a_card_of_a_measure_shows_its_definition():
    defined = [card for board in cards.load() for card in board.cards if card.definition]
    assert len(defined) >= 20
    [now] = [card for card in defined if card.title == "Occupancy now"]
    assert now.definition.startswith("100 x patient days / available beds (MSF). Patient days: ")
    assert measures.comments()["mart_daily_census.occupancy_pct"] in now.definition
