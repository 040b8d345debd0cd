"""Provisions the declared dashboards in Metabase through its REST API, and verifies that they work there.

`provision` changes only what differs from conf/dashboards.yml, so that a second run writes nothing. Our items lie in
one collection and are marked at the end of their descriptions; all other items there belong to people and are left
alone. `verify` runs every card as a reader would, without and with each of its filters, and leaves no filter set.
"""

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from dashboards import bodies, cards
from dashboards.cards import Card, Dashboard
from jobs import borders, program, settings
from jobs.program import Refused

NAME = "Hospital"  # name of the collection and of the database in Metabase
ABOUT = "The hospital's dashboards, and the questions they are made of."
OLDEST = 58  # v0.58 is the oldest version with this API
TLS = ("require", "verify-ca", "verify-full")  # values of PGSSLMODE that require TLS
SILENT = 60  # seconds to wait for an answer that comes from Metabase
STARTING = 300  # seconds to wait while Metabase is starting
SYNCING = 180  # seconds to wait until Metabase has read the warehouse's columns
SAVING = 30  # seconds to wait until Metabase has saved a user's filters, which it does every five seconds
PAUSE = 1.0
NEVER = {"from": "2999-01-01", "to": "1900-01-01"}  # no row matches; other filters use "(no such value)"


class Metabase:
    """Holds a session with a Metabase instance, and counts what was changed there."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self.shown = self.url.replace(parts.netloc, parts.netloc.rpartition("@")[2])
        self.http = requests.Session()
        # Retry idempotent requests if a proxy or a restart is in the way; retry a POST only if it was never sent.
        patience = Retry(total=4, backoff_factor=0.3, status_forcelist=(502, 503, 504), raise_on_status=False)
        self.http.mount(self.url, HTTPAdapter(max_retries=patience))
        self.done: Counter[str] = Counter()

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> requests.Response:
        """Sends a request; returns the answer, errors included. Raises Refused if there is none."""
        try:
            # Use a new connection: v0.59 loses the start of a request that follows a query on the same connection.
            with self.http:
                return self.http.request(method, f"{self.url}/api{path}", json=body, params=query, timeout=120)
        except requests.RequestException:
            raise Refused(
                f"Metabase at {self.shown} does not answer; is it running? METABASE_URL says where."
            ) from None

    def call(self, method: str, path: str, body: Any = None, what: str = "", **query: Any) -> Any:
        """Sends a request; returns the content of the answer.

        Raises Refused if Metabase rejects it; the sentence names `what` and the rejected fields, never a value.
        """
        answer = self.ask(method, path, body, **query)
        if answer.ok:
            return content(answer)
        raise self.refusal(f"{method} {path}" + (f" ({what})" if what else ""), answer)

    def refusal(self, asked: str, answer: requests.Response) -> Refused:
        """Returns the error for a request that Metabase rejected."""
        rights = "; METABASE_USER must be an administrator there" if answer.status_code == 403 else ""
        return Refused(f"Metabase at {self.shown} refuses {asked} with {answer.status_code}{dislikes(answer)}{rights}.")

    def note(self, what: str, name: str, how: str) -> None:
        """Counts an item as created, changed, removed or unchanged; prints a line unless it is unchanged."""
        self.done[how] += 1
        if how != "unchanged":
            borders.say(f"{what} {name}: {how}")


def content(answer: requests.Response) -> Any:
    """Returns the JSON of an answer, or its text if it is no JSON."""
    try:
        return answer.json()
    except requests.JSONDecodeError:
        return answer.text


def dislikes(answer: requests.Response) -> str:
    """Returns in words the names of the fields that an answer rejects, without their values, which may be secrets."""
    errors = fault(answer)
    return f": it does not like {', '.join(sorted(errors))}" if errors else ""


def fault(answer: requests.Response) -> dict[str, Any]:
    """Returns the errors of an answer by field; empty if it has none."""
    said = content(answer)
    errors = said.get("errors") if isinstance(said, dict) else None
    return errors if isinstance(errors, dict) else {}


def log_in(may_set_up: bool) -> Metabase:
    """Waits for the instance at METABASE_URL and logs METABASE_USER in.

    On an instance that is not set up, creates this user as administrator if `may_set_up`. Raises Refused if that is not
    allowed or the login fails.
    """
    metabase = Metabase(settings.get("METABASE_URL"))
    user, password = settings.get("METABASE_USER"), settings.get("METABASE_PASSWORD")
    properties = wait(metabase)
    answer = metabase.ask("POST", "/session", {"username": user, "password": password})
    if answer.status_code >= 500:
        raise Refused(f"Metabase at {metabase.shown} fails to log anybody in ({answer.status_code}); its log says why.")
    if not answer.ok:
        if "too many attempts" in answer.text.lower():
            raise Refused(
                f"Metabase at {metabase.shown} has seen too many failed logins; wait a minute, then try again."
            )
        if properties.get("has-user-setup") or not properties.get("setup-token"):
            raise not_let_in(metabase)
        if not may_set_up:
            raise Refused(f"Metabase at {metabase.shown} is not set up yet; `make metabase` does that.")
        answer = set_up(metabase, properties["setup-token"], user, password)
    metabase.http.headers["X-Metabase-Session"] = content(answer)["id"]
    return metabase


def set_up(metabase: Metabase, token: str, user: str, password: str) -> requests.Response:
    """Creates the first user, who is the administrator; returns the answer with the session. Raises Refused."""
    body = {"token": token, "user": {"email": user, "password": password}, "prefs": {"site_name": NAME}}
    answer = metabase.ask("POST", "/setup", body)
    if answer.status_code == 403 or "token" in fault(answer):  # the token is spent: another run or a person was faster
        answer = metabase.ask("POST", "/session", {"username": user, "password": password})
        if not answer.ok:
            raise not_let_in(metabase)
        return answer
    if "password" in str(fault(answer)).lower():
        raise Refused("Metabase finds METABASE_PASSWORD too simple or too common; choose another one in .env.")
    if not answer.ok:
        raise Refused(f"Metabase at {metabase.shown} refuses METABASE_USER as its first user{dislikes(answer)}.")
    metabase.note("user", user, "created")
    return answer


def not_let_in(metabase: Metabase) -> Refused:
    """Returns the error for an instance that is set up but rejects METABASE_USER."""
    return Refused(
        f"Metabase at {metabase.shown} is already set up and does not let METABASE_USER in; "
        "put an administrator's name and password into METABASE_USER and METABASE_PASSWORD in .env."
    )


def wait(metabase: Metabase) -> dict[str, Any]:
    """Returns Metabase's public properties once it is healthy; reports every ten seconds what it waits for.

    Raises Refused if Metabase stays silent, takes too long to start, or is too old.
    """
    began = said = time.monotonic()
    while True:
        state, properties = condition(metabase)
        if properties:
            break
        now = time.monotonic()
        if now - began > (STARTING if state == "is still starting" else SILENT):
            raise Refused(
                f"Metabase at {metabase.shown} {state}, after {now - began:.0f} seconds; is it running? "
                "METABASE_URL says where it is looked for."
            )
        if now - said >= 10:
            print(f"Waiting for Metabase at {metabase.shown}: it {state}.", flush=True)
            said = now
        time.sleep(PAUSE)
    tag = (properties.get("version") or {}).get("tag") or ""
    release = re.match(r"v[01]\.(\d+)", tag)
    if release and int(release[1]) < OLDEST:
        raise Refused(f"Metabase at {metabase.shown} is {tag}; the dashboards need v0.{OLDEST} or later.")
    return properties


def condition(metabase: Metabase) -> tuple[str, dict[str, Any]]:
    """Returns in words what Metabase is doing, and its properties once it serves them: /health is green before that."""
    try:
        health = requests.get(f"{metabase.url}/api/health", timeout=10)
        properties = requests.get(f"{metabase.url}/api/session/properties", timeout=10)
    except requests.RequestException:
        return "does not answer", {}
    said = content(properties)
    if health.ok and properties.ok and isinstance(said, dict) and "version" in said:
        return "is up", said
    is_known = isinstance(content(health), dict) and "status" in content(health)
    return ("is still starting" if is_known else "answers as something else would"), {}


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
    if not (same and run_sql(metabase, database, "select 1") == [[1]]):
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
        return content(answer)
    if answer.status_code == 400:
        tls = " with TLS" if details.get("ssl") else ""
        raise Refused(
            f"Metabase at {metabase.shown} cannot connect to PostgreSQL at {details['host']}:{details['port']}{tls} as "
            f"{details['user']}; check POSTGRES_DASHBOARDS_USER and POSTGRES_DASHBOARDS_PASSWORD, and that "
            "POSTGRES_HOST is an address that Metabase reaches (in a container of its own 127.0.0.1 is not)."
        )
    raise metabase.refusal(f"{method} {path}", answer)


def run_sql(metabase: Metabase, database: int, sql: str) -> list[list[Any]] | None:
    """Runs a query through Metabase; returns its rows, or None if Metabase or PostgreSQL refuses it."""
    answer = content(metabase.ask("POST", "/dataset", bodies.native(sql, database)))
    is_done = isinstance(answer, dict) and answer.get("status") == "completed"
    return answer["data"]["rows"] if is_done else None


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
        time.sleep(PAUSE)


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


def verify(metabase: Metabase, boards: list[Dashboard]) -> list[str]:
    """Runs every card; returns a sentence per fault: a failed or missing card, a missing column, an ignored filter."""
    found = [one["id"] for one in metabase.call("GET", "/database")["data"] if one["name"] == NAME]
    collections = [
        one["id"] for one in metabase.call("GET", "/collection") if one["name"] == NAME and bodies.is_ours(one)
    ]
    if not found or not collections:
        return [f"Metabase at {metabase.shown} has no dashboards of ours; `make metabase` brings them there."]
    held, _ = ours_in(metabase, collections[0])
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
            time.sleep(PAUSE)
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
    said = content(answer)
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
        [[day]] = run_sql(metabase, database, query) or [[None]]
        return (day or date.today().isoformat())[:10]
    recent, order = ("and day <= (select day from ops.newest)", "day desc, ") if has_days else ("", "")
    rows = run_sql(
        metabase,
        database,
        f"select {tag} from reports.{report} where {tag} is not null {recent} order by {order}1 limit 1",
    )
    return rows[0] if rows else ["(none)"]


def main(words: list[str]) -> None:
    """Runs `provision` or `verify`; exits 1 with a sentence if it cannot, or if verification finds a fault."""
    if words not in (["provision"], ["verify"]):
        program.leave(2, "usage: python -m dashboards.metabase provision|verify")
    try:
        boards = cards.load()
        metabase = log_in(may_set_up=words == ["provision"])
        if words == ["provision"]:
            provision(metabase, boards)
        else:
            failures = verify(metabase, boards)
    except (Refused, cards.Misdeclared) as error:
        program.leave(1, str(error))
    except Exception as error:
        program.leave(
            1, f"Metabase gave an answer that is not known here ({type(error).__name__}); is it v0.58 to v0.66?"
        )
    count = sum(len(board.cards) for board in boards)
    if words == ["provision"]:
        done = metabase.done
        print(", ".join(f"{done[how]} {how}" for how in ("created", "changed", "removed", "unchanged")))
    elif failures:
        program.leave(
            1, "\n".join([*failures, f"faults: {len(failures)}, in {count} cards of {len(boards)} dashboards"])
        )
    else:
        print(f"all {count} cards of {len(boards)} dashboards complete, plain and under each of their filters")


if __name__ == "__main__":
    main(sys.argv[1:])
