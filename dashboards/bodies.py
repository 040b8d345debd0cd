"""What Metabase's API is told of cards and dashboards: request bodies made of the declaration and Metabase's own ids.

Nothing here talks to Metabase. What it answers has another form (MBQL 5 with keys of its own, settings that it adds),
so two bodies are compared by what they say: `meaning` and `arrangement`.
"""

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from dashboards.cards import FILTERS, GRAINS, Card, Dashboard
from jobs import settings as project

GRID = 24  # columns of a dashboard
TAGS = {tag for tags in FILTERS.values() for tag in tags}
DATES = FILTERS["period"]  # tags whose value is a date; the others hold a condition on a column
DISPLAYS = {"heat": "table", **{name: name for name in ("line", "area", "bar", "row", "pie", "table")}}
LOOKS: dict[str, dict[str, Any]] = {  # money has its currency beside
    "integer": {},
    "number": {"decimals": 1},
    "percent": {"decimals": 1, "suffix": " %"},
    "hours": {"decimals": 1, "suffix": " h"},
    "days": {"decimals": 1, "suffix": " d"},
}
HEAT = ("#FFFFFF", "#509EE3")
SETTINGS = {  # all that a card of ours may set; what else Metabase keeps with one is not ours to compare
    *("scalar.field", "scalar.comparisons", "pie.dimension", "pie.metric", "pie.percent_visibility"),
    *("graph.dimensions", "graph.metrics", "graph.x_axis.scale", "graph.x_axis.title_text", "graph.y_axis.title_text"),
    *("graph.show_goal", "graph.goal_value", "graph.goal_label", "stackable.stack_type", "column_settings"),
    *("table.columns", "table.pivot", "table.pivot_column", "table.cell_column", "table.column_formatting"),
}


def mark(name: str) -> str:
    """The end of a description by which a thing of that name is known as ours; a copy has another name, and is not."""
    return f'Declared as "{name}" in conf/dashboards.yml: what is changed here does not last.'


def is_ours(held: Mapping[str, Any]) -> bool:
    return (held.get("description") or "").endswith(mark(held["name"]))


def explained(card: Card) -> str:
    """What it answers, and in which steps: Metabase draws the same axis of time whatever these are."""
    said = [card.answers, *([card.definition] if card.definition else [])]
    if card.goal is not None:
        said.append(f"The goal is {card.goal:g}{' %' if card.format == 'percent' else ''}.")
    if card.grain and card.grain != "day" and "period" in card.filters:
        said.append(f"The period may hold only a part of its first and last {card.grain}.")
    if card.coarser:
        *names, last = card.coarser
        grains = f"{', '.join(names)} or {last}" if names else last
        said.append(f"A period too long to draw by {card.grain} is drawn by {grains}.")
    return " ".join(said)


def described(name: str, text: str) -> str:
    return f"{text}\n\n{mark(name)}"


def card_name(board: Dashboard, card: Card) -> str:
    """Two dashboards may have cards of one title; in the collection each card has a name of its own."""
    return f"{board.name}: {card.title}"


def title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def native(sql: str, database: int, tags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A native query in MBQL 5, as Metabase stores it since v0.57."""
    stage = {"lib/type": "mbql.stage/native", "native": sql} | ({"template-tags": tags} if tags else {})
    return {"lib/type": "mbql/query", "database": database, "stages": [stage]}


def template_tag(owner: str, name: str, field: int | None) -> dict[str, Any]:
    """A tag of a card's SQL: a date, or a condition on the column that `field` is Metabase's id of."""
    tag = {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{owner}/{name}")), "name": name, "display-name": title(name)}
    if name in DATES:
        return tag | {"type": "date"}
    return tag | {"type": "dimension", "dimension": ["field", {}, field], "widget-type": kind(name)}


def card_body(
    board: Dashboard, card: Card, collection: int, database: int, fields: Mapping[tuple[str, str], int]
) -> dict[str, Any]:
    """A saved question; `fields` has the ids of the columns (report, column) that filters are bound to."""
    name = card_name(board, card)
    tags = {tag: template_tag(name, tag, fields.get((card.report, tag))) for tag in card.tags}
    return {
        "name": name,
        "description": described(name, explained(card)),
        "collection_id": collection,
        "type": "question",
        "display": display(card),
        "visualization_settings": settings(card),
        "dataset_query": native(card.sql, database, tags),
    }


def display(card: Card) -> str:
    if card.chart == "headline":
        return "smartscalar" if card.is_compared else "scalar"
    return DISPLAYS[card.chart]


def settings(card: Card) -> dict[str, Any]:
    """A card's visualization settings; every column they name is one of its result."""
    dimensions = [*card.by, *(card.fold or ())[:1]]
    metrics = [card.fold[1]] if card.fold else [figure.name for figure in card.figures]
    made: dict[str, Any] = {"column_settings": looks(card)}
    if card.chart == "headline":
        made["scalar.field"] = metrics[0]
        if card.is_compared:  # periods of any length: "previous period" would look for days, weeks or months
            made["scalar.comparisons"] = [{"id": "before", "type": "previousValue"}]
            if card.goal is not None:
                made["scalar.comparisons"] += [
                    {"id": "goal", "type": "staticNumber", "value": card.goal, "label": "Goal"}
                ]
    elif card.chart == "pie":
        made |= {"pie.dimension": dimensions[0], "pie.metric": metrics[0], "pie.percent_visibility": "inside"}
    elif card.chart == "table":
        made["table.columns"] = [{"name": name, "enabled": True} for name in card.result]
    elif card.chart == "heat":
        # There is no such chart, but a table turned by its second column, its cells coloured by value, is one.
        colours = {"id": 0, "columns": metrics, "type": "range", "colors": list(HEAT), "highlight_row": False}
        made |= {"table.pivot": True, "table.pivot_column": dimensions[1], "table.cell_column": metrics[0]}
        made["table.column_formatting"] = [colours]
    else:
        made |= {"graph.dimensions": dimensions, "graph.metrics": metrics}
        made["graph.x_axis.title_text"] = title(dimensions[0]) + (" or coarser" if card.coarser else "")
        made["graph.y_axis.title_text"] = title(card.fold[1]) if card.fold else card.figures[0].label
        if card.chart != "row":
            is_time = dimensions[0] in GRAINS
            made["graph.x_axis.scale"] = "timeseries" if is_time else "ordinal"
        if card.stacked:
            made["stackable.stack_type"] = "stacked"
        if card.goal is not None:
            made |= {"graph.show_goal": True, "graph.goal_value": card.goal, "graph.goal_label": "Goal"}
    return made


def looks(card: Card) -> dict[str, dict[str, Any]]:
    """How the columns of a card's result are named and written. Dates are left to what the people of Metabase chose."""
    figures = {figure.name: {"column_title": figure.label} | look(figure.format) for figure in card.figures}
    if card.fold:
        figures = {card.fold[1]: {"column_title": title(card.fold[1])} | look(card.format)}
    named = {name: figures.get(name, {"column_title": title(name)}) for name in card.result}
    return {json.dumps(["name", name], separators=(",", ":")): look for name, look in named.items()}


def look(form: str) -> dict[str, Any]:
    """How a figure of that format is written; money with the code of its currency."""
    if form == "money":
        style = {"number_style": "currency", "currency": project.currency(), "currency_style": "code"}
        return style | {"currency_in_header": False, "decimals": 2}
    return LOOKS[form]


def columns_named(made: Mapping[str, Any]) -> set[str]:
    """The columns of a card's result that its settings name."""
    single = [made.get(key) for key in ("scalar.field", "pie.metric", "table.pivot_column", "table.cell_column")]
    several = [made.get(key) for key in ("graph.dimensions", "graph.metrics")]
    several += [rule["columns"] for rule in made.get("table.column_formatting") or []]
    slices = made.get("pie.dimension")  # one, or a list since v0.53
    several += [slices if isinstance(slices, list) else [slices]]
    names = [*single, *(name for names in several for name in names or ())]
    names += [column["name"] for column in made.get("table.columns") or []]
    names += map(column_of, made.get("column_settings") or {})
    return {name for name in names if name}


def column_of(key: str) -> str | None:
    """The column of a result that a key of `column_settings` names, in either of Metabase's forms; None for a field."""
    match json.loads(key):
        case ["name", str(name)] | ["ref", ["field", str(name), *_]]:
            return name
    return None


def parameters(board: Dashboard) -> list[dict[str, Any]]:
    """The filters of a dashboard. Their ids are the names of the tags they set."""
    tags = [tag for name in board.filters for tag in FILTERS[name]]
    return [
        {"id": tag, "name": title(tag), "slug": tag, "type": kind(tag), "sectionId": kind(tag).split("/")[0]}
        for tag in tags
    ]


def kind(tag: str) -> str:
    """The type of the filter that sets a tag; another one would not be offered for it."""
    return "date/single" if tag in DATES else "string/="


def target(tag: str) -> list[Any]:
    """What a filter sets in a card. In a mapping it stands as before MBQL 5."""
    return ["variable" if tag in DATES else "dimension", ["template-tag", tag]]


def mappings(card: Card, card_id: int) -> list[dict[str, Any]]:
    """Which filter sets which tag. A mapping without `card_id` is taken, and its filter ignored without a word."""
    return [{"parameter_id": tag, "card_id": card_id, "target": target(tag)} for tag in card.tags]


def places(sizes: Iterable[tuple[int, int]]) -> list[dict[str, int]]:
    """Where cards of these sizes lie: left to right in shelves as high as the highest card on them."""
    found, row, column, height = [], 0, 0, 0
    for width, high in sizes:
        if column + width > GRID:
            row, column, height = row + height, 0, 0
        found.append({"row": row, "col": column, "size_x": width, "size_y": high})
        column, height = column + width, max(height, high)
    return found


def dashboard_body(
    board: Dashboard, ids: Mapping[str, int], held: Mapping[str, Any], ours: Collection[int]
) -> dict[str, Any]:
    """All that a dashboard is to be, given the ids of its cards by title and what Metabase holds of it.

    The arrays replace Metabase's as a whole: whatever is on the dashboard and not `ours` (people put it there) is said
    again; it keeps its place as long as that is free.
    """
    standing = list(held.get("dashcards") or [])
    tabs = [{"id": tab["id"], "name": tab["name"]} for tab in held.get("tabs") or []]
    dashcards: list[dict[str, Any]] = []
    for number, (card, place) in enumerate(zip(board.cards, places(card.size for card in board.cards), strict=True)):
        card_id = ids[card.title]
        before = next((one for one in standing if one.get("card_id") == card_id), None)
        if before:
            standing.remove(before)
        body = place | {
            "id": before["id"] if before else -1 - number,
            "card_id": card_id,
            "parameter_mappings": mappings(card, card_id),
            "visualization_settings": {"card.title": card.title},
            "series": [],
        }
        if tabs:
            body["dashboard_tab_id"] = (before or {}).get("dashboard_tab_id") or tabs[0]["id"]
        dashcards.append(body)
    for one in standing:
        if one.get("card_id") not in ours:
            dashcards.append(beside(dashcards, as_sent(one)))
    known = {parameter["id"] for parameter in parameters(board)} | TAGS
    added = [one for one in held.get("parameters") or [] if one["id"] not in known]
    return {
        "name": board.name,
        "description": described(board.name, board.about),
        "parameters": [*parameters(board), *added],
        "tabs": tabs,
        "dashcards": dashcards,
    }


def as_sent(dashcard: Mapping[str, Any]) -> dict[str, Any]:
    """A dashcard that Metabase holds, in the keys that it takes."""
    keys = ("id", "card_id", "action_id", "row", "col", "size_x", "size_y", "dashboard_tab_id", "inline_parameters")
    body = {key: dashcard[key] for key in keys if dashcard.get(key) is not None}
    body["visualization_settings"] = dashcard.get("visualization_settings") or {}
    body["series"] = [{"id": one["id"]} for one in dashcard.get("series") or []]
    body["parameter_mappings"] = [
        {key: one[key] for key in ("parameter_id", "card_id", "target") if key in one}
        for one in dashcard.get("parameter_mappings") or []
    ]
    return body


def beside(dashcards: Sequence[Mapping[str, Any]], body: dict[str, Any]) -> dict[str, Any]:
    """The same where it stands if nothing of its tab lies there, else below all of them."""
    same_tab = [one for one in dashcards if one.get("dashboard_tab_id") == body.get("dashboard_tab_id")]
    if any(overlap(body, one) for one in same_tab):
        return body | {"row": max(one["row"] + one["size_y"] for one in same_tab)}
    return body


def overlap(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("row", "size_y"), ("col", "size_x"))
    )


def meaning(card: Mapping[str, Any]) -> dict[str, Any]:
    """What a card's body says, whether it is ours or came from Metabase, in MBQL 5 or as before."""
    made = card.get("visualization_settings") or {}
    looks = {
        column_of(key) or key: {name: value for name, value in look.items() if value is not None}
        for key, look in (made.get("column_settings") or {}).items()
    }
    columns = [(one["name"], one.get("enabled", True)) for one in made.get("table.columns") or []]
    compared = {"column_settings": looks, "table.columns": columns}
    return {
        "description": card.get("description"),
        "display": card.get("display"),
        "settings": {k: v for k, v in made.items() if k in SETTINGS and v is not None} | compared,
        "query": meaning_of_query(card["dataset_query"]),
    }


def meaning_of_query(query: Mapping[str, Any]) -> tuple[int, str, dict[str, Any]]:
    """Its database, SQL and tags: `lib/uuid` and the like are left out, and the order within a field's reference.

    Tags are a map by name, or a list from v0.63 on.
    """
    if query.get("type") == "native":
        sql, tags = query["native"]["query"], query["native"].get("template-tags")
    else:
        [stage] = query["stages"]
        sql, tags = stage.get("native", ""), stage.get("template-tags")
    said = {}
    for tag in tags.values() if isinstance(tags, Mapping) else tags or ():
        keys = ("id", "name", "display-name", "type", "widget-type", "default")
        said[tag["name"]] = {key: tag.get(key) for key in keys} | {
            "field": next((part for part in tag.get("dimension") or () if isinstance(part, int)), None),
            "required": bool(tag.get("required")),
        }
    return query["database"], sql, said


def arrangement(board: Mapping[str, Any]) -> dict[str, Any]:
    """What a dashboard's body says, ours or Metabase's: its text, its filters, what lies where under which of them."""
    keys = ("id", "card_id", "row", "col", "size_x", "size_y")
    dashcards = [
        (
            [one.get(key) for key in keys],
            (one.get("visualization_settings") or {}).get("card.title"),
            sorted(mapped(mapping) for mapping in one.get("parameter_mappings") or ()),
        )
        for one in board.get("dashcards") or ()
    ]
    filters = [[one.get(key) for key in ("id", "name", "slug", "type")] for one in board.get("parameters") or ()]
    return {"description": board.get("description"), "filters": filters, "cards": sorted(dashcards, key=str)}


def mapped(mapping: Mapping[str, Any]) -> tuple[str, int, str]:
    return mapping["parameter_id"], mapping.get("card_id") or 0, json.dumps(mapping["target"][:2])
