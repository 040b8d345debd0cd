"""Brings the declared dashboards into Metabase, and changes only what differs: a second run writes nothing.

The platform's items are in one collection and are marked at the end of their descriptions. All other items there belong
to people and are left alone.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from dashboards import bodies, metabase_client
from dashboards.cards import Dashboard
from dashboards.metabase_client import NAME, Metabase
from jobs import settings
from jobs.program import Refused

ABOUT = "The hospital's dashboards, and the questions they are made of."
TLS = ("require", "verify-ca", "verify-full")  # values of PGSSLMODE that require TLS
SYNCING = 180  # seconds to wait until Metabase has read the warehouse's columns


def provision(metabase: Metabase, boards: list[Dashboard]) -> None:
    """Creates or updates the declared collection, cards and dashboards; archives those that are no longer declared."""
    database = connected(metabase)
    fields = filtered_columns(metabase, database, boards)
    collection = collected(metabase)
    held, surplus = ours_in(metabase, collection)
    ours = {item["id"] for item in [*held.values(), *surplus] if item["model"] == "card"}
    ids = {
        bodies.card_name(board, card): saved(
            metabase,
            bodies.card_body(board, card, collection, database, fields),
            held.pop(("card", bodies.card_name(board, card)), None),
        )
        for board in boards
        for card in board.cards
    }
    for place, board in enumerate(boards, 1):
        titled = {card.title: ids[bodies.card_name(board, card)] for card in board.cards}
        arranged(metabase, board, titled, ours, collection, place, held.pop(("dashboard", board.name), None))
    # Dashboards come before cards, so that no dashboard shows a card that is archived.
    for item in sorted([*held.values(), *surplus], key=lambda item: item["model"], reverse=True):
        metabase.call("PUT", f"/{item['model']}/{item['id']}", {"archived": True}, item["name"])
        metabase.note(item["model"], item["name"], "removed")


def connected(metabase: Metabase) -> int:
    """Ensures that Metabase has the warehouse as a database, read as POSTGRES_DASHBOARDS_USER; returns its id."""
    details: dict[str, Any] = {
        "host": settings.get("POSTGRES_HOST"),
        "port": int(settings.get("POSTGRES_PORT")),
        "dbname": settings.get("POSTGRES_DB"),
        "user": settings.get("POSTGRES_DASHBOARDS_USER"),
        "schema-filters-type": "inclusion",
        "schema-filters-patterns": "ops,reports",
    }
    if settings.given("PGSSLMODE") in TLS:
        details["ssl"] = True
    secret = {"password": settings.get("POSTGRES_DASHBOARDS_PASSWORD")}
    databases = metabase.call("GET", "/database")["data"]
    found = [one["id"] for one in databases if one["name"] == NAME and one["engine"] == "postgres"]
    if not found:
        # Metabase tries TLS first, and sets `ssl` if that works.
        body = {"name": NAME, "engine": "postgres", "details": {"ssl": False} | details | secret, "is_full_sync": True}
        made = reached(metabase, details, "POST", "/database", body)
        metabase.note("database", NAME, "created")
        return made["id"]
    database = min(found)
    held = metabase.call("GET", f"/database/{database}")["details"]
    # Metabase returns no password; only a query shows whether it is still valid.
    same = all(held.get(key) == value for key, value in details.items())
    if not (same and metabase_client.run_sql(metabase, database, "select 1") == [[1]]):
        # Send all details: those left out would be lost, such as TLS that Metabase found or a person set.
        details = held | details
        reached(metabase, details, "PUT", f"/database/{database}", {"details": details | secret})
        metabase.note("database", NAME, "changed")
        return database
    metabase.note("database", NAME, "unchanged")
    return database


def reached(metabase: Metabase, details: Mapping[str, Any], method: str, path: str, body: dict[str, Any]) -> Any:
    """Sends a database's connection details; raises Refused if Metabase, which connects at once, cannot connect."""
    answer = metabase.ask(method, path, body)
    if answer.ok:
        return metabase_client.content(answer)
    if answer.status_code == 400:
        tls = " with TLS" if details.get("ssl") else ""
        raise Refused(
            f"Metabase at {metabase.shown} cannot connect to PostgreSQL at {details['host']}:{details['port']}{tls} as "
            f"{details['user']}; check POSTGRES_DASHBOARDS_USER and POSTGRES_DASHBOARDS_PASSWORD, and that "
            "POSTGRES_HOST is an address that Metabase reaches (in a container of its own 127.0.0.1 is not)."
        )
    raise metabase.refusal(f"{method} {path}", answer)


def filtered_columns(metabase: Metabase, database: int, boards: list[Dashboard]) -> dict[tuple[str, str], int]:
    """Returns Metabase's ids of the columns that filters are bound to, by (report, column).

    Waits until Metabase has read the warehouse; raises Refused if a column is still missing after SYNCING seconds.
    """
    needed = {(card.report, tag) for board in boards for card in board.cards for tag in card.tags} - {
        (card.report, tag) for board in boards for card in board.cards for tag in bodies.DATES
    }
    began, is_asked = time.monotonic(), False
    while True:
        # Include columns that people hid or marked sensitive; v0.66 and later have a separate option for the latter.
        every = {"include_hidden": "true", "include_sensitive_fields": "true"}
        tables = metabase.call("GET", f"/database/{database}/metadata", **every)["tables"]
        found = {
            (table["name"], field["name"]): field["id"]
            for table in tables
            if table["schema"] == "reports"
            for field in table.get("fields") or []
        }
        if needed <= found.keys():
            return {key: found[key] for key in needed}
        if not is_asked:
            metabase.call("POST", f"/database/{database}/sync_schema")
            is_asked = True
        if time.monotonic() - began > SYNCING:
            report, column = min(needed - found.keys())
            raise Refused(
                f"Metabase at {metabase.shown} does not find the column {column} of reports.{report}; "
                "`make up` creates the reports, and lets POSTGRES_DASHBOARDS_USER read them."
            )
        time.sleep(metabase_client.PAUSE)


def collected(metabase: Metabase) -> int:
    """Returns the id of our collection; creates it if it is missing."""
    for one in metabase.call("GET", "/collection"):
        if one["id"] != "root" and one["name"] == NAME and bodies.is_ours(one) and not one.get("archived"):
            metabase.note("collection", NAME, "unchanged")
            return one["id"]
    made = metabase.call("POST", "/collection", {"name": NAME, "description": bodies.described(NAME, ABOUT)})
    metabase.note("collection", NAME, "created")
    return made["id"]


def ours_in(metabase: Metabase, collection: int) -> tuple[dict[tuple[str, str], dict[str, Any]], list[dict[str, Any]]]:
    """Returns our items in the collection by (model, name), and a list of duplicates, left by two simultaneous runs."""
    held: dict[tuple[str, str], dict[str, Any]] = {}
    surplus = []
    for item in sorted(items(metabase, collection), key=lambda item: item["id"]):
        if bodies.is_ours(item) and held.setdefault((item["model"], item["name"]), item) is not item:
            surplus.append(item)
    return held, surplus


def items(metabase: Metabase, collection: int) -> Iterator[dict[str, Any]]:
    """Yields the cards and dashboards in a collection."""
    read = 0
    while True:
        page = metabase.call(
            "GET", f"/collection/{collection}/items", models=["card", "dashboard"], offset=read, limit=500
        )
        yield from page["data"]
        read += len(page["data"])
        if not page["data"] or read >= page["total"]:
            return


def saved(metabase: Metabase, body: dict[str, Any], held: Mapping[str, Any] | None) -> int:
    """Creates or updates a card unless it already matches `body`; returns its id."""
    if held is None:
        made = metabase.call("POST", "/card", body, body["name"])
        metabase.note("card", body["name"], "created")
        return made["id"]
    if bodies.meaning(metabase.call("GET", f"/card/{held['id']}")) == bodies.meaning(body):
        metabase.note("card", body["name"], "unchanged")
    else:
        metabase.call("PUT", f"/card/{held['id']}", body, body["name"])
        metabase.note("card", body["name"], "changed")
    return held["id"]


def arranged(
    metabase: Metabase,
    board: Dashboard,
    ids: Mapping[str, int],
    ours: set[int],
    collection: int,
    place: int,
    held: Mapping[str, Any] | None,
) -> None:
    """Creates or updates a dashboard as declared.

    Reads the dashboard after its cards were written, since Metabase changes mappings when it saves a card. `place` is
    its position in the collection.

    Its parameters are the parts of Metabase's request.
    """
    how = "changed" if held else "created"
    if held is None:
        body = {
            "name": board.name,
            "description": bodies.described(board.name, board.about),
            "collection_id": collection,
            "collection_position": place,  # shown before the cards, in the declared order
        }
        held = metabase.call("POST", "/dashboard", body, board.name)
    now = metabase.call("GET", f"/dashboard/{held['id']}")
    body = bodies.dashboard_body(board, ids, now, ours)
    if bodies.arrangement(body) == bodies.arrangement(now):
        metabase.note("dashboard", board.name, "unchanged")
        return
    metabase.call("PUT", f"/dashboard/{held['id']}", body, board.name)
    metabase.note("dashboard", board.name, how)
