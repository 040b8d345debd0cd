"""Checks that Metabase gets the declared dashboards, on a stand-in that follows its known behaviour."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from itertools import product

import pytest

from dashboards import bodies, cards, metabase, metabase_client, metabase_provisioning, metabase_verification
from jobs import program, settings
from stack.own import free_ports
from tests.sql.test_cards import filled, small_cells  # noqa: F401
from tests.sql.test_marts import add, hospital, rebuilt, withhold  # noqa: F401
from tests.support.metabase import Metabase, Refusal, trend

BOARDS = cards.load()
COUNT = sum(len(board.cards) for board in BOARDS)
ALL = COUNT + len(BOARDS) + 2  # plus the database and the collection
NAMES = [bodies.card_name(board, card) for board in BOARDS for card in board.cards]

# Settings that each display accepts besides column_settings; Metabase draws nothing for an unknown display, and ignores
# unknown settings.
AXES = {"graph.dimensions", "graph.metrics", "graph.x_axis.title_text", "graph.y_axis.title_text"}
AXES |= {"graph.x_axis.scale", "graph.show_goal", "graph.goal_value", "graph.goal_label", "stackable.stack_type"}
KNOWN = {
    "scalar": {"scalar.field"},
    "smartscalar": {"scalar.field", "scalar.comparisons"},
    "line": AXES,
    "area": AXES,
    "bar": AXES,
    "row": AXES - {"graph.x_axis.scale"},
    "pie": {"pie.dimension", "pie.metric", "pie.percent_visibility"},
    "table": {
        *("table.columns", "table.pivot", "table.pivot_column", "table.cell_column", "table.column_formatting"),
    },
}


@pytest.fixture
def server(warehouse_server, monkeypatch):
    """Yields a new Metabase that is not set up, with a warehouse."""
    server = Metabase()
    monkeypatch.setenv("METABASE_URL", server.start())
    monkeypatch.setenv("POSTGRES_PORT", str(warehouse_server.info.port))
    monkeypatch.setattr(metabase_client, "PAUSE", 0.01)
    yield server
    server.stop()


def add_flow(connection):
    """Puts in a patient who is readmitted within a week and pays in time, after emergencies of an hour."""
    add(connection, "patients", patient_id="P4")
    for number, day in enumerate(("2025-09-02", "2025-09-09")):
        times = {"visit_start_ts": f"{day} 08:00", "visit_end_ts": f"{day} 09:00"}
        add(connection, "visits", visit_id=f"W{number}", patient_id="P4", visit_type="Emergency", **times)
        stay = {"admit_ts": f"{day} 09:30", "discharge_ts": f"2025-09-{5 + 7 * number:02} 09:30"}
        add(connection, "admissions", admission_id=f"W{number}", visit_id=f"W{number}", **stay)
        add(connection, "billing", bill_id=f"W{number}", visit_id=f"W{number}", payment_ts="2025-09-20 08:00")


@pytest.fixture
def full(filled):  # noqa: F811
    """Returns a warehouse in which every report has rows."""
    amount = {"row_day": "2026-01-31", "department": "Surgery", "amount": "7.00"}
    withhold(filled, "billing", "negative_patient_amount", **amount)
    withhold(filled, "billing", "negative_patient_amount", **amount | {"amount": "-7.00"})
    filled.execute(
        "update ops.ledger set bronze_rows = 6, accepted = 4, outcome = 'done', log = partition_date || '/night.log', "
        "ended_at = started_at + interval '1 s'"
    )
    filled.execute("insert into ops.reasons values ('S', 'billing', '2026-01-31', 'negative_patient_amount', 2)")
    filled.execute(
        "insert into ops.receipts (layer, dataset, partition_date, run_id, made_from, rule_set) "
        "values ('silver', 'billing', '2026-01-31', 'S', '', '')"
    )
    times = {"visit_start_ts": "2026-01-31 08:00", "visit_end_ts": "2026-01-31 09:00"}
    add(filled, "visits", visit_id="V7", patient_id="P2", department="Surgery", **times)  # outpatient, not billed
    missed = {"department": "Surgery", "status": "No-show", "visit_end_ts": None}
    add(filled, "visits", visit_id="V8", patient_id="P2", visit_start_ts="2026-01-31 10:00", **missed)
    add(filled, "patients", patient_id="P3")
    add(filled, "visits", visit_id="V9", patient_id="P3", visit_start_ts="2023-11-01 10:00", **missed)
    add_flow(filled)
    rebuilt(filled)
    filled.execute(small_cells(0))
    yield filled
    filled.execute(small_cells(5))


def provision(boards=None):
    """Provisions Metabase; returns the number of changes by kind."""
    instance = metabase_client.log_in(may_set_up=True)
    metabase_provisioning.provision(instance, BOARDS if boards is None else boards)
    return dict(instance.done)


def verify():
    return metabase_verification.verify(metabase_client.log_in(may_set_up=False), BOARDS)


def refused(capsys, *words):
    """Returns the error of a program that must fail; checks that it has no stack trace and no secret."""
    with pytest.raises(SystemExit) as left:
        metabase.main(list(words))
    said = capsys.readouterr()
    assert left.value.code == 1
    secrets = [settings.get("METABASE_PASSWORD"), settings.get("POSTGRES_DASHBOARDS_PASSWORD")]
    assert not [secret for secret in secrets if secret in said.out + said.err]
    return said.err.strip()


def edited(title, /, **changes):
    """Returns the declaration with a card changed, or without the card if no change is given."""
    first, *others = BOARDS
    kept = [replace(card, **changes) if card.title == title else card for card in first.cards]
    return [replace(first, cards=tuple(card for card in kept if changes or card.title != title)), *others]


def shown(server):
    """Returns what readers see, with names in place of ids."""
    names = {card["id"]: card["name"] for card in server.cards.values()}
    standing = [card for card in server.cards.values() if not card["archived"]]
    dashboards = {}
    for board in (board for board in server.dashboards.values() if not board["archived"]):
        assert board["name"] not in dashboards
        said = bodies.arrangement(board)
        lying = [
            (names.get(card), *place, title, [(tag, names.get(of), target) for tag, of, target in mapped])
            for (_, card, *place), title, mapped in said["cards"]
        ]
        dashboards[board["name"]] = said | {"cards": sorted(lying)}
    assert len({card["name"] for card in standing}) == len(standing)
    said = {card["name"]: bodies.meaning(card) for card in standing}
    return {name: one | {"query": one["query"][1:]} for name, one in said.items()}, dashboards


def shown_of_new(boards=None):
    """Returns what readers see in a new Metabase."""
    if boards is None and WHOLE:
        return WHOLE[0]
    with pytest.MonkeyPatch.context() as patch:
        other = Metabase()
        patch.setenv("METABASE_URL", other.start())
        try:
            provision(boards)
        finally:
            other.stop()
    if boards is None:
        WHOLE.append(shown(other))
    return shown(other)


WHOLE = []  # cached, since many tests need it


def lint(body, columns):
    """Lists faults in a card's body that Metabase accepts silently, drawing something else or nothing."""
    made, [stage] = body["visualization_settings"], body["dataset_query"]["stages"]
    tags = stage.get("template-tags", {})
    faults = [f"no display {body['display']}"] if body["display"] not in KNOWN else []
    faults += [f"no setting {key}" for key in made.keys() - KNOWN.get(body["display"], set()) - {"column_settings"}]
    faults += [f"no column {name}" for name in bodies.columns_named(made) - set(columns)]
    if set(re.findall(r"{{(\w+)}}", stage["native"])) != set(tags) or any(tags[name]["name"] != name for name in tags):
        faults.append("its tags are not those of its SQL")
    if len(made.get("graph.dimensions", ())) > 1 < len(made["graph.metrics"]):
        faults.append("two dimensions and two metrics")
    faults += [] if (body["description"] or "").strip() else ["no description"]
    return faults


def test_every_card_s_settings_name_columns_of_its_result_whatever_is_filtered(server, full):
    provision()
    values = {"from": "2026-01-01", "to": "2026-01-31", "department": ["Surgery"], "visit_type": ["Emergency"]}
    for card in server.cards.values():
        tags = list(card["dataset_query"]["stages"][0].get("template-tags", {}))
        for chosen in product((False, True), repeat=len(tags)):
            given = {tag: values.get(tag, ["billing"]) for tag, is_set in zip(tags, chosen, strict=True) if is_set}
            done = server.run(card["dataset_query"], given)
            assert done["status"] == "completed", (card["name"], done)
            assert lint(card, [column["name"] for column in done["data"]["cols"]]) == [], card["name"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"display": "heatmap"}, "no display heatmap"),
        ({"visualization_settings": {"graph.stacked": True}}, "no setting graph.stacked"),
        ({"visualization_settings": {"graph.metrics": ["visitors"]}}, "no column visitors"),
        ({"visualization_settings": {"column_settings": {'["name","Visits"]': {}}}}, "no column Visits"),
        (
            {"visualization_settings": {"graph.dimensions": ["day", "visits"], "graph.metrics": ["visits", "day"]}},
            "two",
        ),
        ({"dataset_query": bodies.native("select {{to}}", 1, {})}, "its tags are not those"),
        ({"description": ""}, "no description"),
    ],
)
def test_the_check_of_settings_finds_each_fault(change, fault):
    card = {card.title: card for card in BOARDS[0].cards}["Daily visits"]
    fields = {("activity", tag): 1 for tag in card.tags}
    body = bodies.card_body(BOARDS[0], card, 1, 1, fields)
    assert lint(body, card.result) == []
    assert lint(body | change, card.result)[0].startswith(fault)


def test_cards_lie_side_by_side_within_the_grid_and_every_filter_reaches_one(server):
    provision()
    for board in server.dashboards.values():
        lying = board["dashcards"]
        assert [one for one in lying if one["col"] + one["size_x"] > 24] == []
        assert [(a, b) for a in lying for b in lying if a is not b and bodies.overlap(a, b)] == []
        types = {parameter["id"]: parameter["type"] for parameter in board["parameters"]}
        reached = {mapping["parameter_id"] for one in lying for mapping in one["parameter_mappings"]}
        assert reached == set(types)
        for one in lying:
            tags = server.cards[one["card_id"]]["dataset_query"]["stages"][0].get("template-tags", {})
            mapped = {mapping["target"][1][1]: mapping["card_id"] for mapping in one["parameter_mappings"]}
            assert mapped == dict.fromkeys(tags, one["card_id"])
            for mapping in one["parameter_mappings"]:  # a filter of another kind would not be offered for the tag
                tag = tags[mapping["target"][1][1]]
                fitting = ("variable", "date/single") if tag["type"] == "date" else ("dimension", tag["widget-type"])
                assert (mapping["target"][0], types[mapping["parameter_id"]]) == fitting


def test_a_new_metabase_is_set_up_and_gets_everything(server, capsys):
    assert provision() == {"created": ALL + 1}  # including the first user
    assert server.user == (settings.get("METABASE_USER"), settings.get("METABASE_PASSWORD"))
    [collection] = server.collections.values()
    assert {card["name"] for card in server.cards.values()} == set(NAMES)
    assert {one["collection_id"] for one in [*server.cards.values(), *server.dashboards.values()]} == {collection["id"]}
    [details] = [one["details"] for one in server.databases.values() if one["name"] == "Hospital"]
    assert details["user"] == settings.get("POSTGRES_DASHBOARDS_USER") != settings.get("POSTGRES_USER")
    assert details["schema-filters-patterns"] == "ops,reports"
    said = capsys.readouterr().out
    assert "card Executive Overview: Visits: created\n" in said
    assert settings.get("METABASE_PASSWORD") not in said and details["password"] not in said


@pytest.mark.parametrize(
    ("version", "tells_legacy"),
    [
        ("v0.58.3", False),
        ("v0.58.3", True),
        ("v0.59.0", False),
        ("v0.63.2", False),
        ("v0.63.2", True),
        ("v1.66.0", False),
    ],
)
def test_a_second_run_writes_nothing_whatever_form_metabase_answers_in(server, version, tells_legacy):
    """Answers with a map of tags, or from v0.63 on with a list."""
    server.version = version
    provision()
    server.log.clear()
    server.tells_legacy = tells_legacy
    assert provision() == {"unchanged": ALL}
    assert server.log == []
    tag = next(iter(next(iter(server.cards.values()))["dataset_query"]["stages"][0]["template-tags"].values()))
    tag["default"] = "2026-01-01"
    assert provision() == {"changed": 1, "unchanged": ALL - 1}


def headlines(server):
    """Returns the cards that Metabase shows as a trend, with their declaration."""
    declared = {bodies.card_name(board, card): card for board in BOARDS for card in board.cards}
    return [(card, declared[card["name"]]) for card in server.cards.values() if declared[card["name"]].is_compared]


@pytest.mark.parametrize("days", [None, 1, 7, 28, 30, 31, 90, 91, 364, 365, 366, 400])
def test_a_headline_shows_the_last_day_of_its_period_however_long_that_is(server, full, days):
    """Shows the last day, not "2025" or "January 2026" for an arbitrary thirty days."""
    provision()
    newest = date(2026, 1, 31)
    given = {} if days is None else {"from": str(newest - timedelta(days=days - 1)), "to": str(newest)}
    before = newest - timedelta(days=days or cards.DAYS)
    shown = [trend(card, server.run(card["dataset_query"], given)["data"]) for card, _ in headlines(server)]
    for now, then in shown:
        assert now is None or now[0] == "31 January 2026"
        assert then is None or then[0] == before.strftime("%-d %B %Y")
    assert [now for now, _ in shown if now] and [then for _, then in shown if then]


def test_a_headline_shows_nothing_where_its_period_has_no_figure_rather_than_the_period_before(server, full):
    """Uses rates: a month without a visit must not show the rate of the month before."""
    provision()
    rates = [(card, declared) for card, declared in headlines(server) if declared.figures[0].per]
    told = []
    for card, _ in rates:
        january = server.run(card["dataset_query"], {"from": "2026-01-01", "to": "2026-01-31"})["data"]
        february = server.run(card["dataset_query"], {"from": "2026-02-01", "to": "2026-02-28"})["data"]
        told.append(trend(card, january)[0])
        assert (trend(card, february), february["rows"]) == ([None, None], []), card["name"]
    assert len([now for now in told if now]) >= 7
    for card, declared in headlines(server):
        if not declared.figures[0].per:  # a sum over nothing is 0
            february = server.run(card["dataset_query"], {"from": "2026-02-01", "to": "2026-02-28"})["data"]
            assert trend(card, february)[0] == ("28 February 2026", 0), card["name"]


@pytest.mark.parametrize(
    "changes",
    [
        {"answers": "How many?"},
        {"chart": "line"},
        {"goal": 40.0},
        {"order": "day desc"},
        {"filters": ("period", "department")},
        {"size": (24, 6)},
    ],
    ids=str,
)
def test_a_changed_card_is_changed_in_place(server, changes):
    provision()
    before = {card["name"]: card["id"] for card in server.cards.values()}
    places = {one["card_id"]: one["id"] for board in server.dashboards.values() for one in board["dashcards"]}
    server.log.clear()
    done = provision(edited("Daily visits", **changes))
    assert {line.split("/")[0] for line in server.log} == {"PUT "} and len(server.log) <= 2 == len(done)
    assert {card["name"]: card["id"] for card in server.cards.values()} == before
    assert {one["card_id"]: one["id"] for board in server.dashboards.values() for one in board["dashcards"]} == places
    assert provision(edited("Daily visits", **changes)) == {"unchanged": ALL}
    provision()
    assert shown(server) == shown_of_new()


def test_a_card_with_another_title_is_another_card(server):
    provision()
    assert provision(edited("Daily visits", title="Visits a day")) == {
        "created": 1,
        "changed": 1,
        "removed": 1,
        "unchanged": ALL - 2,
    }
    assert shown(server) == shown_of_new(edited("Daily visits", title="Visits a day"))


def test_what_is_no_longer_declared_is_taken_off_and_archived(server):
    provision()
    assert provision(edited("Daily visits")) == {"changed": 1, "removed": 1, "unchanged": ALL - 2}
    [archived] = [card["name"] for card in server.cards.values() if card["archived"]]
    assert archived == "Executive Overview: Daily visits"
    assert provision(BOARDS[:-1])["removed"] == len(BOARDS[-1].cards) + 1
    assert shown(server) == shown_of_new(BOARDS[:-1])
    provision()
    assert shown(server) == shown_of_new()


def test_what_people_made_stays(server):
    provision()
    [collection] = [one["id"] for one in server.collections.values()]
    ours = next(iter(server.cards.values()))
    mine = {"collection_id": None, "archived": False, "description": None}
    for number, card in enumerate(
        [
            ours | mine,  # the same name elsewhere
            ours | {"description": "My own count."},  # the same name in our collection
            ours | {"name": f"{ours['name']} - Duplicate"},  # a copy with our description
            ours | mine | {"collection_id": collection, "name": "Mine"},
        ],
        1,
    ):
        server.cards[number] = card | {"id": number}
    board = next(iter(server.dashboards.values()))
    own = {
        "series": [],
        "parameter_mappings": [],
        "visualization_settings": {"text": "Look!"},
        "size_x": 24,
        "size_y": 1,
    }
    board["dashcards"] += [own | {"id": 7, "row": 100, "col": 0}, own | {"id": 8, "row": 0, "col": 0, "card_id": 4}]
    board["dashcards"][-1]["parameter_mappings"] = [
        {"parameter_id": "mine", "card_id": 4, "target": ["variable", ["template-tag", "to"]]}
    ]
    board["parameters"].append({"id": "mine", "name": "Mine", "slug": "mine", "type": "category"})
    kept = {number: dict(server.cards[number]) for number in range(1, 5)}
    last = max(one["row"] + one["size_y"] for one in board["dashcards"] if one["id"] not in (7, 8))
    provision(edited("Daily visits", size=(24, 6)))
    provision(edited("Daily visits"))
    provision()
    assert {number: server.cards[number] for number in range(1, 5)} == kept
    lying = {one["id"]: one for one in server.dashboards[board["id"]]["dashcards"]}
    assert (lying[7]["row"], lying[7]["visualization_settings"]) == (100, {"text": "Look!"})
    assert lying[8]["row"] >= last, "it lay on one of ours"
    assert lying[8]["parameter_mappings"][0]["parameter_id"] == "mine"
    assert [one["id"] for one in server.dashboards[board["id"]]["parameters"]][-1] == "mine"
    assert provision() == {"unchanged": ALL}


def test_our_cards_stay_where_people_sorted_them_into_tabs(server):
    provision()
    board = next(iter(server.dashboards.values()))
    board["tabs"] = [{"id": 1, "name": "First"}, {"id": 2, "name": "Second"}]
    for number, one in enumerate(board["dashcards"]):
        one["dashboard_tab_id"] = 1 + number % 2
    where = {one["id"]: one["dashboard_tab_id"] for one in board["dashcards"]}
    more = list(BOARDS)
    more[0] = replace(BOARDS[0], cards=(*BOARDS[0].cards, replace(BOARDS[0].cards[0], title="More")))
    provision(more)
    now = {one["id"]: one["dashboard_tab_id"] for one in server.dashboards[board["id"]]["dashcards"]}
    assert [tab["name"] for tab in server.dashboards[board["id"]]["tabs"]] == ["First", "Second"]
    assert {key: now.pop(key) for key in where} == where
    assert list(now.values()) == [1]


def test_what_people_changed_in_ours_is_changed_back(server):
    provision()
    names = {card["name"]: card for card in server.cards.values()}
    names["Executive Overview: Visits"]["display"] = "table"
    names["Executive Overview: Revenue"]["visualization_settings"]["scalar.field"] = "since"
    tags = names["Executive Overview: Daily visits"]["dataset_query"]["stages"][0]["template-tags"]
    tags["department"]["default"] = ["Surgery"]
    names["Executive Overview: Daily revenue"]["visualization_settings"]["card.hide_empty"] = True  # not our setting
    assert provision() == {"changed": 3, "unchanged": ALL - 3}
    assert shown(server) == shown_of_new()


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        # the same column in the form of v0.50 and older cards
        ('["ref",["field","visits",{"base-type":"type/Integer"}]]', 0),
        ('["ref",["field",7,null]]', 1),
        ('["ref",["expression","double"]]', 1),
        ('["ref",["field",7,{"source-field":3}]]', 1),
    ],
)
def test_a_column_s_settings_under_any_key_are_compared(server, full, key, changed):
    provision()
    names = {card["name"]: card for card in server.cards.values()}
    columns = names["Executive Overview: Visits"]["visualization_settings"]["column_settings"]
    columns[key] = columns.pop('["name","visits"]')
    assert provision() == ({"changed": changed} if changed else {}) | {"unchanged": ALL - changed}
    columns = names["Executive Overview: Visits"]["visualization_settings"]["column_settings"]
    columns[key] = {"column_title": "Ours"}
    assert verify() == []
    assert provision() == {"changed": 1, "unchanged": ALL - 1}
    assert shown(server) == shown_of_new()


@pytest.mark.parametrize("is_answer_lost", [False, True])
@pytest.mark.parametrize("failing", [1, 2, 4, 5, 30, ALL - 7, ALL - 5, ALL, ALL + 4])
def test_a_run_that_failed_midway_is_finished_by_the_next(server, capsys, failing, is_answer_lost):
    server.fail_at, server.is_answer_lost = failing, is_answer_lost
    said = refused(capsys, "provision")
    assert said.startswith("Metabase") and said.endswith(".") and "\n" not in said
    provision()
    assert shown(server) == shown_of_new()
    assert provision() == {"unchanged": ALL}


@pytest.mark.parametrize("seed", range(3))
def test_any_history_of_declarations_and_failures_ends_in_the_last_declaration(server, seed):
    chance = random.Random(seed)
    for _ in range(6):
        boards = []
        for board in chance.sample(BOARDS, chance.randint(2, len(BOARDS))):
            chosen = chance.sample(board.cards, chance.randint(3, len(board.cards)))
            mixed = [replace(card, size=(chance.randint(1, 24), chance.randint(1, 9))) for card in chosen]
            boards.append(replace(board, cards=tuple(mixed)))
        server.fail_at, server.is_answer_lost = len(server.log) + chance.randint(1, 90), chance.random() < 0.5
        try:
            provision(boards)
        except program.Refused:
            provision(boards)
        server.fail_at = None
        assert shown(server) == shown_of_new(boards)


def test_two_of_a_card_that_two_runs_at_once_left_become_one(server):
    provision()
    first = min(server.cards.values(), key=lambda card: card["id"])
    server.cards[9999] = first | {"id": 9999}
    assert provision() == {"removed": 1, "unchanged": ALL}
    assert shown(server) == shown_of_new()


@pytest.mark.parametrize("version", ["v0.58.3", "v0.59.0", "v0.63.2", "v0.66.0"])
def test_verify_runs_every_card_plain_and_under_each_filter(server, full, capsys, version):
    server.version = version
    provision()
    metabase.main(["verify"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"all {COUNT} cards of {len(BOARDS)} dashboards complete, plain and under each of their filters"


def opened(server):
    """Returns the filters that the user finds set per dashboard, once Metabase has stored its request."""
    session = next(iter(server.sessions))
    told = [[server.answer("GET", f"/dashboard/{one}", {}, None, session)[1] for one in server.dashboards]] * 3
    return {one["name"]: one.get("last_used_param_values", {}) for one in told[-1]}


@pytest.mark.parametrize("saves_filters", [True, False])
def test_verify_leaves_no_filter_set(server, full, capsys, saves_filters):
    """Runs with and without Metabase's memory of each user's last filters, which our containers turn off."""
    server.saves_filters = saves_filters
    provision()
    assert verify() == []
    assert opened(server) == {board.name: {} for board in BOARDS}


def test_verify_that_is_broken_off_leaves_no_filter_set(server, full, monkeypatch):
    provision()
    runs = iter(range(20))
    ran = metabase_verification.ran

    def broken(instance, path, parameters):
        if any(one["value"] is not None for one in parameters) and next(runs, None) is None:
            raise KeyboardInterrupt
        return ran(instance, path, parameters)

    monkeypatch.setattr(metabase_verification, "ran", broken)
    with pytest.raises(KeyboardInterrupt):
        verify()
    assert opened(server) == {board.name: {} for board in BOARDS}


def test_verify_tells_a_filter_that_stays_set_and_leaves_those_of_people(server, full, monkeypatch):
    provision()
    monkeypatch.setattr(metabase_verification, "SAVING", 0.1)
    monkeypatch.setattr(metabase_verification, "unfilter", lambda *_: None)
    number, board = next(iter(server.dashboards.items()))
    server.last_used[number, "mine"] = "something"
    told = {line.split(":")[0]: line for line in verify()}
    assert set(told) == {one.name for one in BOARDS}
    first = told[board["name"]]
    assert "METABASE_USER still finds it with department, from, to, visit_type set; clear these filters at" in first


def test_verify_says_nothing_against_an_empty_warehouse(server, hospital):  # noqa: F811
    provision()
    assert verify() == []


def test_verify_finds_each_filter_that_reaches_no_card(server, full):
    """Drops the card_id of mappings: Metabase then ignores the filter silently."""
    provision()
    mapped = [
        (server.cards[one["card_id"]]["name"], mapping)
        for board in server.dashboards.values()
        for one in board["dashcards"]
        for mapping in one["parameter_mappings"]
    ]
    for _, mapping in mapped:
        del mapping["card_id"]
    found = {re.match(r"(.*): the filter (\w+) does not reach it; see http", line).groups() for line in verify()}
    assert found == {(name, mapping["parameter_id"]) for name, mapping in mapped}
    assert provision() == {"changed": len(BOARDS), "unchanged": ALL - len(BOARDS)}
    assert verify() == []


def test_verify_finds_a_failure_that_metabase_answers_with_202(server, full, capsys):
    """Renames a column in a report."""
    provision()
    full.execute("alter view reports.patients rename column returning_patients to faithful_patients")
    try:
        said = refused(capsys, "verify")
    finally:
        full.execute("alter view reports.patients rename column faithful_patients to returning_patients")
    first, last = said.splitlines()
    assert first.startswith("Patient Analytics: Returning patients: fails (invalid-query); see http")
    assert last == f"faults: 1, in {COUNT} cards of {len(BOARDS)} dashboards"


def test_verify_finds_a_setting_that_names_a_column_which_is_not_there(server, full, monkeypatch):
    settings_of = bodies.settings
    monkeypatch.setattr(bodies, "settings", lambda card: settings_of(card) | {"scalar.field": "visitors"})
    provision(BOARDS)
    assert len([line for line in verify() if "its settings name the column visitors, which it lacks" in line]) == COUNT


def test_verify_finds_what_is_not_there(server, full, capsys):
    assert "is not set up yet; `make metabase` does that" in refused(capsys, "verify")
    assert server.user is None
    metabase_client.log_in(may_set_up=True)
    assert "no dashboards of ours; `make metabase` brings them" in verify()[0]
    provision()
    names = {card["name"]: card for card in server.cards.values()}
    names["Executive Overview: Visits"]["description"] = ""
    board = next(iter(server.dashboards.values()))
    board["dashcards"] = [
        one for one in board["dashcards"] if one["card_id"] != names["Executive Overview: Revenue"]["id"]
    ]
    assert verify() == [
        "Executive Overview: Visits: no such card, or its description was changed; `make metabase` adds it.",
        "Executive Overview: Revenue: it is not on its dashboard; `make metabase` adds it.",
    ]
    provision()
    assert verify() == []


def test_an_empty_description_is_not_taken(server, capsys, monkeypatch):
    monkeypatch.setattr(bodies, "described", lambda name, text: "")
    said = refused(capsys, "provision")
    assert "refuses POST /collection with 400: it does not like description." in said
    provision_card = bodies.card_body(BOARDS[0], BOARDS[0].cards[0], 1, 1, {})
    status, answer = server.answer("POST", "/card", {}, provision_card, next(iter(server.sessions)))
    assert status == 400 and "description" in answer["errors"]


def test_a_renamed_column_that_a_filter_is_bound_to_is_named(server, full, capsys, monkeypatch):
    provision()
    monkeypatch.setattr(metabase_provisioning, "SYNCING", 0.3)
    full.execute("alter view reports.treatments rename column department to unit")
    database = f"/database/{max(server.databases)}"
    instance = metabase_client.log_in(may_set_up=False)
    instance.call("POST", f"{database}/sync_schema")  # as Metabase does every hour
    for _ in range(3):
        instance.call("GET", f"{database}/metadata")
    server.log.clear()
    try:
        said = refused(capsys, "provision")
    finally:
        full.execute("alter view reports.treatments rename column unit to department")
    assert "does not find the column department of reports.treatments" in said
    assert server.log == [f"POST {database}/sync_schema"], "it looked again, and published nothing"
    assert provision() == {"unchanged": ALL}


def test_a_new_password_of_the_reader_is_given_to_metabase(server):
    provision()
    [held] = [one for one in server.databases.values() if one["name"] == "Hospital"]
    held["details"]["password"] = "an old one"
    assert provision() == {"changed": 1, "unchanged": ALL - 1}
    assert server.databases[held["id"]]["details"]["password"] == settings.get("POSTGRES_DASHBOARDS_PASSWORD")


@pytest.mark.parametrize("finds_tls", [True, False])
def test_what_metabase_found_out_of_a_connection_is_kept_with_a_new_password(server, monkeypatch, finds_tls):
    """Covers TLS, which Metabase tries only when a database is added, and settings made by people."""
    server.finds_tls = finds_tls
    provision()
    [held] = [one for one in server.databases.values() if one["name"] == "Hospital"]
    assert held["details"]["ssl"] is finds_tls
    held["details"] |= {"password": "an old one", "ssl-mode": "verify-ca", "tunnel-enabled": True}
    provision()
    now = server.databases[held["id"]]["details"]
    assert (now["ssl"], now["ssl-mode"], now["tunnel-enabled"]) == (finds_tls, "verify-ca", True)
    assert now["password"] == settings.get("POSTGRES_DASHBOARDS_PASSWORD")
    assert provision() == {"unchanged": ALL}


def test_tls_that_pgsslmode_asks_for_is_given_to_metabase(server, capsys, monkeypatch):
    server.finds_tls = False
    provision()
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert "cannot connect to PostgreSQL at 127.0.0.1:" in (said := refused(capsys, "provision")) and "with TLS" in said
    server.finds_tls = True
    assert provision() == {"changed": 1, "unchanged": ALL - 1}
    assert provision() == {"unchanged": ALL}
    [held] = [one for one in server.databases.values() if one["name"] == "Hospital"]
    assert held["details"]["ssl"] is True


@pytest.mark.parametrize("version", ["v0.58.3", "v0.66.0"])
def test_hidden_tables_and_sensitive_columns_are_found(server, monkeypatch, version):
    monkeypatch.setattr(metabase_provisioning, "SYNCING", 0.3)
    server.version = version
    server.hidden, server.sensitive = {"activity"}, {("treatments", "department")}
    assert provision()["created"] == ALL + 1
    assert provision() == {"unchanged": ALL}


def test_a_user_who_is_no_administrator_is_told(server, capsys, monkeypatch):
    keep = server.keep_database

    def forbidden(*_):
        raise Refusal(403, "You don't have permissions to do that.")

    monkeypatch.setattr(server, "keep_database", forbidden)
    assert "refuses POST /database with 403; METABASE_USER must be an administrator" in refused(capsys, "provision")
    monkeypatch.setattr(server, "keep_database", keep)
    provision()


def test_metabase_that_somebody_else_set_up_is_left_alone(server, capsys):
    server.user = ("somebody@else.org", "their own 7 secrets")
    said = refused(capsys, "provision")
    assert "already set up and does not let METABASE_USER in" in said
    for _ in range(5):
        said = refused(capsys, "provision")
    assert "too many failed logins; wait a minute" in said
    assert server.log == []


def test_a_pinned_setup_token_does_not_make_it_new(server, capsys, monkeypatch):
    """Pins a token with MB_SETUP_TOKEN; has-user-setup may lag behind."""
    server.is_token_pinned = True
    server.user = ("somebody@else.org", "their own 7 secrets")
    wait = metabase_client.wait
    monkeypatch.setattr(metabase_client, "wait", lambda instance: wait(instance) | {"has-user-setup": False})
    assert "already set up and does not let METABASE_USER in" in refused(capsys, "provision")


@pytest.mark.parametrize("is_token_pinned", [False, True])
@pytest.mark.parametrize("is_us", [False, True])
def test_a_metabase_that_is_set_up_meanwhile_is_used_or_left_alone(server, capsys, monkeypatch, is_token_pinned, is_us):
    """Lets another run or a person use the token between reading Metabase's properties and setting it up."""
    server.is_token_pinned = is_token_pinned
    ask = metabase_client.Metabase.ask

    def late(instance, method, path, *rest, **query):
        if path == "/setup":
            ours = (settings.get("METABASE_USER"), settings.get("METABASE_PASSWORD"))
            server.user = ours if is_us else ("somebody@else.org", "their own 7 secrets")
        return ask(instance, method, path, *rest, **query)

    monkeypatch.setattr(metabase_client.Metabase, "ask", late)
    if is_us:
        assert provision() == {"created": ALL}  # no first user
    else:
        assert "already set up and does not let METABASE_USER in" in refused(capsys, "provision")


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"METABASE_PASSWORD": "password1"}, "finds METABASE_PASSWORD too simple or too common"),
        ({"METABASE_USER": "admin"}, "refuses METABASE_USER as its first user: it does not like user.email"),
        ({"POSTGRES_DASHBOARDS_PASSWORD": "not this one"}, "cannot connect to PostgreSQL at 127.0.0.1:"),
        ({"POSTGRES_PORT": "9"}, "cannot connect to PostgreSQL at 127.0.0.1:"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said_in_a_sentence(server, capsys, monkeypatch, environment, sentence):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said = refused(capsys, "provision")
    assert sentence in said and "\n" not in said
    assert not server.collections


@pytest.mark.parametrize(
    ("version", "starting", "sentence"),
    [
        ("v0.57.9", 2, "is v0.57.9; the dashboards need v0.58 or later"),
        ("v1.57.9", 2, "is v1.57.9; the dashboards need v0.58 or later"),
        ("v0.58.3", 10_000, "is still starting, after"),
    ],
)
def test_it_waits_until_metabase_serves_and_no_longer(server, capsys, monkeypatch, version, starting, sentence):
    server.version, server.starting = version, starting
    monkeypatch.setattr(metabase_client, "STARTING", 0.2)
    assert sentence in refused(capsys, "provision")


def test_a_server_that_is_down_or_something_else_is_named_without_what_is_secret_in_its_url(capsys, monkeypatch):
    monkeypatch.setattr(metabase_client, "SILENT", 0.1)
    monkeypatch.setattr(metabase_client, "PAUSE", 0.05)
    [port] = free_ports(1)
    monkeypatch.setenv("METABASE_URL", f"http://proxy:hidden@127.0.0.1:{port}/")
    for word in ("provision", "verify"):
        said = refused(capsys, word)
        assert said.startswith(f"Metabase at http://127.0.0.1:{port} does not answer, after 0 seconds; start it,")
        assert "hidden" not in said


def test_what_is_not_metabase_is_not_waited_for(server, capsys, monkeypatch):
    monkeypatch.setattr(metabase_client, "SILENT", 0.1)
    monkeypatch.setattr(server, "answer", lambda *_: (200, "<html>Welcome to nginx!</html>"))
    assert "answers as something else would, after 0 seconds" in refused(capsys, "provision")


def test_an_answer_of_another_form_ends_in_a_sentence_too(server, capsys, monkeypatch):
    monkeypatch.setattr(server, "told", lambda database: {})
    assert refused(capsys, "provision").startswith("Metabase gave an answer that is not known here (KeyError)")


def test_the_program_ends_with_a_sentence(server, full):
    def program(*words):
        done = subprocess.run(
            [sys.executable, "-m", "dashboards.metabase", *words],
            cwd=settings.ROOT,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    code, said, _ = program("provision")
    assert code == 0 and said.splitlines()[-1] == f"{ALL + 1} created, 0 changed, 0 removed, 0 unchanged"
    code, said, _ = program("provision")
    assert (code, said) == (0, f"0 created, 0 changed, 0 removed, {ALL} unchanged\n")
    server.cards[min(server.cards)]["dataset_query"]["stages"][0]["native"] = "select 1 / 0"
    code, said, errors = program("verify")
    assert code == 1 and "fails (invalid-query)" in errors and "Traceback" not in errors


def test_metabase_s_own_validator_takes_every_query(tmp_path):
    """Covers cards with distinct tags, since the validator reads no SQL, and one wrong card."""
    if not shutil.which("npx"):
        pytest.skip("npx is not on the PATH: Metabase's validator is a program of Node.js")
    queries = {}
    for board in BOARDS:
        for card in board.cards:
            fields = {(card.report, tag): 7 for tag in card.tags}
            queries[tuple(sorted(card.tags))] = bodies.card_body(board, card, 1, 1, fields)["dataset_query"]
    wrong = json.loads(json.dumps(queries[max(queries, key=len)]))
    [tag] = [tag for tag in wrong["stages"][0]["template-tags"].values() if tag["type"] == "dimension"][:1]
    tag["dimension"] = ["field", 7, None]  # in the order of MBQL 4
    for number, query in enumerate([wrong, *queries.values()]):
        (tmp_path / f"{number}.json").write_text(json.dumps(query))
    # required, although it calls no server
    environment = os.environ | {"MB_URL": "http://127.0.0.1:1", "MB_API_KEY": "none"}
    script = 'for file in *.json; do mb query --file "$file" --dry-run --json >"$file.out" 2>"$file.err"; done; true'
    command = ["npx", "--yes", "--package", "@metabase/cli@0.3.1", "--call", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npx cannot have @metabase/cli: {done.stderr[-200:]}")
    told = [json.loads((tmp_path / f"{number}.json.out").read_text())["ok"] for number in range(len(queries) + 1)]
    assert told == [False, *[True] * len(queries)]
