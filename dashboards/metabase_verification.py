"""Runs every card in Metabase as a reader would, without and with each of its filters, and leaves no filter set."""

import time
from collections.abc import Mapping
from datetime import date
from functools import cache, partial
from typing import Any

from dashboards import bodies, metabase_client, metabase_provisioning
from dashboards.cards import Card, Dashboard
from dashboards.metabase_client import NAME, Metabase

SAVING = 30  # seconds to wait until Metabase has saved a user's filters, which it does every five seconds
NEVER = {"from": "2999-01-01", "to": "1900-01-01"}  # no row matches; other filters use "(no such value)"


def verify(metabase: Metabase, boards: list[Dashboard]) -> list[str]:
    """Runs every card; returns a sentence per fault: a failed or missing card, a missing column, an ignored filter."""
    found = [one["id"] for one in metabase.call("GET", "/database")["data"] if one["name"] == NAME]
    collections = [
        one["id"] for one in metabase.call("GET", "/collection") if one["name"] == NAME and bodies.is_ours(one)
    ]
    if not found or not collections:
        return [f"Metabase at {metabase.shown} has no dashboards of ours; `make metabase` brings them there."]
    held, _ = metabase_provisioning.ours_in(metabase, collections[0])
    value = cache(partial(real_value, metabase, min(found)))
    failures: list[str] = []
    filtered: dict[str, int] = {}
    for board in boards:
        before, path = len(failures), ""
        item = held.get(("dashboard", board.name))
        shown = metabase.call("GET", f"/dashboard/{item['id']}") if item else {}
        dashcards = {one.get("card_id"): one for one in shown.get("dashcards") or []}
        try:
            for card in board.cards:
                name = bodies.card_name(board, card)
                saved_card = held.get(("card", name))
                if not saved_card:
                    failures.append(f"{name}: no such card, or its description was changed; `make metabase` adds it.")
                elif saved_card["id"] not in dashcards:
                    failures.append(f"{name}: it is not on its dashboard; `make metabase` adds it.")
                else:
                    place = f"/dashboard/{shown['id']}/dashcard/{dashcards[saved_card['id']]['id']}"
                    path = f"{place}/card/{saved_card['id']}/query"
                    faults = tried(metabase, card, saved_card["id"], path, value)
                    see = f"see {metabase.shown}/question/{saved_card['id']}."
                    failures += [f"{name}: {fault}; {see}" for fault in faults]
        finally:
            if path:
                filtered[board.name] = shown["id"]
                unfilter(metabase, shown, path)
        print(f"{board.name}: {len(board.cards)} cards, {len(failures) - before} faults", flush=True)
    return failures + still_filtered(metabase, filtered)


def unfilter(metabase: Metabase, shown: Mapping[str, Any], path: str) -> None:
    """Clears our filters, since Metabase opens a dashboard with the values that its user set last."""
    tags = [one["id"] for one in shown.get("parameters") or [] if one["id"] in bodies.TAGS]
    ran(metabase, path, [parameter(tag, None) for tag in tags])


def still_filtered(metabase: Metabase, filtered: Mapping[str, int]) -> list[str]:
    """Returns a sentence for each dashboard that Metabase would still open with one of our filters set."""
    began, failures = time.monotonic(), []
    for name, dashboard in filtered.items():
        while True:
            last = metabase.call("GET", f"/dashboard/{dashboard}").get("last_used_param_values") or {}
            tags = sorted(tag for tag in last.keys() & bodies.TAGS if last[tag] is not None)
            if not tags or time.monotonic() - began > SAVING:
                break
            time.sleep(metabase_client.PAUSE)
        if tags:
            failures.append(
                f"{name}: METABASE_USER still finds it with {', '.join(tags)} set; "
                f"clear these filters at {metabase.shown}/dashboard/{dashboard}."
            )
    return failures


def tried(metabase: Metabase, card: Card, card_id: int, on_dashboard: str, value: Any) -> list[str]:
    """Runs a card alone, then on its dashboard with each filter: a value with rows and one without; returns faults."""
    plain = ran(metabase, f"/card/{card_id}/query", [])
    if isinstance(plain, str):
        return [plain]
    made = metabase.call("GET", f"/card/{card_id}")["visualization_settings"]
    columns = {column["name"] for column in plain["cols"]}
    faults = [
        f"its settings name the column {name}, which it lacks" for name in sorted(bodies.columns_named(made) - columns)
    ]
    for tag in card.tags:
        real, none = value(tag, card.report, "period" in card.filters), NEVER.get(tag, ["(no such value)"])
        for given, is_real in ((real, True), (none, False)):
            filtered = ran(metabase, on_dashboard, [parameter(tag, given)])
            if isinstance(filtered, str):
                faults.append(f"under the filter {tag} {filtered}")
            elif is_real and plain["rows"] and not filtered["rows"] and not card.is_compared:
                faults.append(f"under the filter {tag} it has no row for {given}")
            elif not is_real and not says_nothing(card, plain) and not says_nothing(card, filtered):
                faults.append(f"the filter {tag} does not reach it")
    return faults


def parameter(tag: str, value: Any) -> dict[str, Any]:
    """Returns a filter with a value, as a query takes it."""
    return {"id": tag, "type": bodies.kind(tag), "target": bodies.target(tag), "value": value}


def ran(metabase: Metabase, path: str, parameters: list[dict[str, Any]]) -> Any:
    """Runs a saved card; returns columns and rows, or in words why it fails: the HTTP code is 202 in both cases."""
    answer = metabase.ask("POST", path, {"parameters": parameters})
    said = metabase_client.content(answer)
    if answer.ok and isinstance(said, dict) and said.get("status") == "completed":
        return said["data"]
    reason = said.get("error_type") or said.get("class") if isinstance(said, dict) else None
    return f"fails ({reason or answer.status_code})"


def says_nothing(card: Card, data: Mapping[str, Any]) -> bool:
    """Tells whether a result has no rows, or only zeros and nulls in its figures."""
    if card.columns:
        return not data["rows"]
    figures = {card.fold[1]} if card.fold else {figure.name for figure in card.figures}
    places = [number for number, column in enumerate(data["cols"]) if column["name"] in figures]
    return not any(row[number] for row in data["rows"] for number in places)


def real_value(metabase: Metabase, database: int, tag: str, report: str, has_days: bool) -> Any:
    """Returns a value of a filter for which its report has rows, from the newest day in gold or before."""
    if tag in bodies.DATES:
        newest = "select day from ops.newest"
        query = f"select coalesce(max(day), ({newest})) from reports.{report} where day <= ({newest})"
        [[day]] = metabase_client.run_sql(metabase, database, query) or [[None]]
        return (day or date.today().isoformat())[:10]
    recent, order = ("and day <= (select day from ops.newest)", "day desc, ") if has_days else ("", "")
    rows = metabase_client.run_sql(
        metabase,
        database,
        f"select {tag} from reports.{report} where {tag} is not null {recent} order by {order}1 limit 1",
    )
    return rows[0] if rows else ["(none)"]
