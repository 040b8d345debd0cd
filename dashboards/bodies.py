"""Builds the request bodies of cards and dashboards for Metabase's API from the declaration and Metabase's own ids.

Nothing here talks to Metabase. Metabase returns bodies in another form than it accepts (MBQL 5 with keys of its own,
settings that it adds), so bodies are compared by content: `meaning` for cards, `arrangement` for dashboards.
"""

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from dashboards.cards import FILTERS, GRAINS, Card, Dashboard
from jobs import settings as project

GRID = 24  # columns of a dashboard
TAGS = {tag for tags in FILTERS.values() for tag in tags}
DATES = FILTERS["period"]  # tags with a date as value; the others hold a condition on a column
DISPLAYS = {"heat": "table", **{name: name for name in ("line", "area", "bar", "row", "pie", "table")}}
LOOKS: dict[str, dict[str, Any]] = {  # `look` adds money, with its currency
    "integer": {},
    "number": {"decimals": 1},
    "percent": {"decimals": 1, "suffix": " %"},
    "hours": {"decimals": 1, "suffix": " h"},
    "days": {"decimals": 1, "suffix": " d"},
}
HEAT = ("#FFFFFF", "#509EE3")
SETTINGS = {  # all that a declared card sets; any other setting that Metabase keeps is not compared
    *("scalar.field", "scalar.comparisons", "pie.dimension", "pie.metric", "pie.percent_visibility"),
    *("graph.dimensions", "graph.metrics", "graph.x_axis.scale", "graph.x_axis.title_text", "graph.y_axis.title_text"),
    *("graph.show_goal", "graph.goal_value", "graph.goal_label", "stackable.stack_type", "column_settings"),
    *("table.columns", "table.pivot", "table.pivot_column", "table.cell_column", "table.column_formatting"),
}


def mark(name: str) -> str:
    """Returns the last paragraph of a declared item's description, which marks the item as declared.

    A copy that a person makes has another name, so this mark does not match it.
    """
    return f'Declared as "{name}" in conf/dashboards.yml: what is changed here does not last.'


def is_ours(held: Mapping[str, Any]) -> bool:
    """Tells whether an item in Metabase is declared here, by the mark in its description."""
    return (held.get("description") or "").endswith(mark(held["name"]))


def explained(card: Card) -> str:
    """Returns a card's description: question, measure, goal and time grain, which Metabase's axis does not show."""
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
    """Returns a description that ends with the mark of a declared item."""
    return f"{text}\n\n{mark(name)}"


def card_name(board: Dashboard, card: Card) -> str:
    """Returns a card's name in the collection; unique, although two dashboards may have cards with the same title."""
    return f"{board.name}: {card.title}"


def title(name: str) -> str:
    """Returns the name of a column or tag as people read it."""
    return name.replace("_", " ").capitalize()


def native(sql: str, database: int, tags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns a native query in MBQL 5, as Metabase stores it since v0.57."""
    stage = {"lib/type": "mbql.stage/native", "native": sql} | ({"template-tags": tags} if tags else {})
    return {"lib/type": "mbql/query", "database": database, "stages": [stage]}


def template_tag(owner: str, name: str, field: int | None) -> dict[str, Any]:
    """Returns a template tag of a card's SQL: a date, or a condition on the column with Metabase's id `field`."""
    tag = {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{owner}/{name}")), "name": name, "display-name": title(name)}
    if name in DATES:
        return tag | {"type": "date"}
    return tag | {"type": "dimension", "dimension": ["field", {}, field], "widget-type": kind(name)}


def card_body(
    board: Dashboard, card: Card, collection: int, database: int, fields: Mapping[tuple[str, str], int]
) -> dict[str, Any]:
    """Returns the body of a saved question; `fields` has Metabase's ids of filtered columns by (report, column)."""
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
    """Returns Metabase's name for a card's kind of chart."""
    if card.chart == "headline":
        return "smartscalar" if card.is_compared else "scalar"
    return DISPLAYS[card.chart]


def settings(card: Card) -> dict[str, Any]:
    """Returns a card's visualization settings; they name only columns of its result."""
    dimensions = [*card.by, *(card.fold or ())[:1]]
    metrics = [card.fold[1]] if card.fold else [figure.name for figure in card.figures]
    made: dict[str, Any] = {"column_settings": looks(card)}
    if card.chart == "headline":
        made["scalar.field"] = metrics[0]
        if card.is_compared:  # "previous period" would expect days, weeks or months; periods here have any length
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
        # Metabase has no heat map; a table pivoted on the second column with cells coloured by value replaces it.
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
    """Returns the titles and number formats of the columns of a card's result; dates follow Metabase's own settings."""
    figures = {figure.name: {"column_title": figure.label} | look(figure.format) for figure in card.figures}
    if card.fold:
        figures = {card.fold[1]: {"column_title": title(card.fold[1])} | look(card.format)}
    named = {name: figures.get(name, {"column_title": title(name)}) for name in card.result}
    return {json.dumps(["name", name], separators=(",", ":")): look for name, look in named.items()}


def look(form: str) -> dict[str, Any]:
    """Returns the number format of a figure; money has the code of its currency."""
    if form == "money":
        style = {"number_style": "currency", "currency": project.currency(), "currency_style": "code"}
        return style | {"currency_in_header": False, "decimals": 2}
    return LOOKS[form]


def columns_named(made: Mapping[str, Any]) -> set[str]:
    """Returns the result columns that visualization settings name."""
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
    """Returns the result column that a key of `column_settings` names, in either of its forms; None for a field id."""
    match json.loads(key):
        case ["name", str(name)] | ["ref", ["field", str(name), *_]]:
            return name
    return None


def parameters(board: Dashboard) -> list[dict[str, Any]]:
    """Returns the filters of a dashboard; the id of each is the name of the tag that it sets."""
    tags = [tag for name in board.filters for tag in FILTERS[name]]
    return [
        {"id": tag, "name": title(tag), "slug": tag, "type": kind(tag), "sectionId": kind(tag).split("/")[0]}
        for tag in tags
    ]


def kind(tag: str) -> str:
    """Returns the type of the filter for a tag; Metabase offers no filter of another type for it."""
    return "date/single" if tag in DATES else "string/="


def target(tag: str) -> list[Any]:
    """Returns the target of a filter in a card; mappings still use the form from before MBQL 5."""
    return ["variable" if tag in DATES else "dimension", ["template-tag", tag]]


def mappings(card: Card, card_id: int) -> list[dict[str, Any]]:
    """Returns the mappings of filters to a card's tags.

    Metabase accepts a mapping without `card_id`, but then silently ignores the filter.
    """
    return [{"parameter_id": tag, "card_id": card_id, "target": target(tag)} for tag in card.tags]


def places(sizes: Iterable[tuple[int, int]]) -> list[dict[str, int]]:
    """Places cards of these (width, height) left to right in rows; each row is as high as its highest card."""
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
    """Returns the body of a dashboard, given the ids of its cards by title and what Metabase holds of it.

    The arrays in the body replace Metabase's arrays as a whole. So the body repeats whatever people have put on the
    dashboard, that is every card not in `ours`; such a card keeps its place if it is still free.
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
    """Converts a dashcard that Metabase returned to the keys that Metabase accepts."""
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
    """Returns a dashcard at its own place if no other of its tab overlaps it, else below all others."""
    same_tab = [one for one in dashcards if one.get("dashboard_tab_id") == body.get("dashboard_tab_id")]
    if any(overlap(body, one) for one in same_tab):
        return body | {"row": max(one["row"] + one["size_y"] for one in same_tab)}
    return body


def overlap(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    """Tells whether two dashcards overlap."""
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("row", "size_y"), ("col", "size_x"))
    )


def meaning(card: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of a card's body, ours or Metabase's, for comparison; accepts MBQL 5 and its predecessor."""
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
    """Returns a query's database, SQL and tags, without ids such as `lib/uuid` and the order within a field reference.

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
    """Returns the content of a dashboard's body, ours or Metabase's, for comparison: description, filters, cards."""
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
    """Returns a filter mapping in a form that can be sorted and compared."""
    return mapping["parameter_id"], mapping.get("card_id") or 0, json.dumps(mapping["target"][:2])
