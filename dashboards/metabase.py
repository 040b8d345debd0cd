"""Brings the declared dashboards into Metabase through its REST API, and shows that they work there.

`provision` changes what differs from conf/dashboards.yml and nothing else: a second run writes nothing. What is ours
lies in one collection and says so at the end of its description; everything else there belongs to people, and stays.
`verify` runs every card as a reader would, plain and under each of its filters, and leaves no filter set.
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

NAME = "Hospital"  # of the collection and of the database, as Metabase shows them
ABOUT = "The hospital's dashboards, and the questions they are made of."
OLDEST = 58  # v0.58: the oldest whose API is this one
TLS = ("require", "verify-ca", "verify-full")  # what PGSSLMODE says where there must be TLS
SILENT = 60  # seconds to wait for an answer that is Metabase's
STARTING = 300  # for it to be up
SYNCING = 180  # for it to have read the warehouse's columns
SAVING = 30  # for it to have stored a user's filters, which it does every five seconds
PAUSE = 1.0
NEVER = {"from": "2999-01-01", "to": "1900-01-01"}  # dates that leave nothing; (no such value) does for other filters


class Metabase:
    """An instance that somebody is logged in to, and a count of what was changed there."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self.shown = self.url.replace(parts.netloc, parts.netloc.rpartition("@")[2])
        self.http = requests.Session()
        # What may be sent twice is, when a proxy or a restart is in the way; a POST only if it never left.
        patience = Retry(total=4, backoff_factor=0.3, status_forcelist=(502, 503, 504), raise_on_status=False)
        self.http.mount(self.url, HTTPAdapter(max_retries=patience))
        self.done: Counter[str] = Counter()

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> requests.Response:
        """Its answer, whatever that is; Refused where there is none."""
        try:
            # Over a connection of its own: v0.59 loses the beginning of a request that follows a query on the same one.
            with self.http:
                return self.http.request(method, f"{self.url}/api{path}", json=body, params=query, timeout=120)
        except requests.RequestException:
            raise Refused(
                f"Metabase at {self.shown} does not answer; is it running? METABASE_URL says where."
            ) from None

    def call(self, method: str, path: str, body: Any = None, what: str = "", **query: Any) -> Any:
        """What it answers; Refused with `what` was asked for and the fields it dislikes, never with a value."""
        answer = self.ask(method, path, body, **query)
        if answer.ok:
            return content(answer)
        raise self.refusal(f"{method} {path}" + (f" ({what})" if what else ""), answer)

    def refusal(self, asked: str, answer: requests.Response) -> Refused:
        rights = "; METABASE_USER must be an administrator there" if answer.status_code == 403 else ""
        return Refused(f"Metabase at {self.shown} refuses {asked} with {answer.status_code}{dislikes(answer)}{rights}.")

    def note(self, what: str, name: str, how: str) -> None:
        """Counts a thing as created, changed, removed or unchanged, and prints what was done to it."""
        self.done[how] += 1
        if how != "unchanged":
            borders.say(f"{what} {name}: {how}")


def content(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except requests.JSONDecodeError:
        return answer.text


def dislikes(answer: requests.Response) -> str:
    """The names of the fields that an answer finds fault with; their values may be secrets."""
    errors = fault(answer)
    return f": it does not like {', '.join(sorted(errors))}" if errors else ""


def fault(answer: requests.Response) -> dict[str, Any]:
    said = content(answer)
    errors = said.get("errors") if isinstance(said, dict) else None
    return errors if isinstance(errors, dict) else {}


def log_in(may_set_up: bool) -> Metabase:
    """The instance at METABASE_URL once it is up, with METABASE_USER logged in, or made its first user."""
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
    """Makes the first user, who is the administrator."""
    body = {"token": token, "user": {"email": user, "password": password}, "prefs": {"site_name": NAME}}
    answer = metabase.ask("POST", "/setup", body)
    if answer.status_code == 403 or "token" in fault(answer):  # spent: another run, or somebody, was faster
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
    return Refused(
        f"Metabase at {metabase.shown} is already set up and does not let METABASE_USER in; "
        "put an administrator's name and password into METABASE_USER and METABASE_PASSWORD in .env."
    )


def wait(metabase: Metabase) -> dict[str, Any]:
    """Its public properties, once it is healthy and serves them; says every ten seconds what it waits for."""
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
    """What it is doing in a few words, and its properties once it serves them: health turns green before that."""
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
    """Makes collection, cards and dashboards in Metabase what is declared; what no longer is, is archived."""
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
    # Dashboards first, then cards: by now no dashboard shows them.
    for item in sorted([*held.values(), *surplus], key=lambda item: item["model"], reverse=True):
        metabase.call("PUT", f"/{item['model']}/{item['id']}", {"archived": True}, item["name"])
        metabase.note(item["model"], item["name"], "removed")


def connected(metabase: Metabase) -> int:
    """The id of the warehouse as a database of Metabase's, which reads it as POSTGRES_DASHBOARDS_USER."""
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
        # It tries TLS first, and sets `ssl` where that works.
        body = {"name": NAME, "engine": "postgres", "details": {"ssl": False} | details | secret, "is_full_sync": True}
        made = reached(metabase, details, "POST", "/database", body)
        metabase.note("database", NAME, "created")
        return made["id"]
    database = min(found)
    held = metabase.call("GET", f"/database/{database}")["details"]
    # It tells no password; whether that is still right only a query shows.
    same = all(held.get(key) == value for key, value in details.items())
    if not (same and run_sql(metabase, database, "select 1") == [[1]]):
        # All details at once: what is left out, TLS that it found or people set among it, would be lost.
        details = held | details
        reached(metabase, details, "PUT", f"/database/{database}", {"details": details | secret})
        metabase.note("database", NAME, "changed")
        return database
    metabase.note("database", NAME, "unchanged")
    return database


def reached(metabase: Metabase, details: Mapping[str, Any], method: str, path: str, body: dict[str, Any]) -> Any:
    """What Metabase answers to a database's connection; Refused where it cannot connect, which it tries at once."""
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
    """The rows of a query; None where Metabase or PostgreSQL refuses it."""
    answer = content(metabase.ask("POST", "/dataset", bodies.native(sql, database)))
    is_done = isinstance(answer, dict) and answer.get("status") == "completed"
    return answer["data"]["rows"] if is_done else None


def filtered_columns(metabase: Metabase, database: int, boards: list[Dashboard]) -> dict[tuple[str, str], int]:
    """Metabase's ids of the columns (report, column) that filters are bound to, once it has read the warehouse."""
    needed = {(card.report, tag) for board in boards for card in board.cards for tag in card.tags} - {
        (card.report, tag) for board in boards for card in board.cards for tag in bodies.DATES
    }
    began, is_asked = time.monotonic(), False
    while True:
        # Those too that people hid or marked sensitive, which has a word of its own from v0.66 on.
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
    """The id of our collection."""
    for one in metabase.call("GET", "/collection"):
        if one["id"] != "root" and one["name"] == NAME and bodies.is_ours(one) and not one.get("archived"):
            metabase.note("collection", NAME, "unchanged")
            return one["id"]
    made = metabase.call("POST", "/collection", {"name": NAME, "description": bodies.described(NAME, ABOUT)})
    metabase.note("collection", NAME, "created")
    return made["id"]


def ours_in(metabase: Metabase, collection: int) -> tuple[dict[tuple[str, str], dict[str, Any]], list[dict[str, Any]]]:
    """What is ours in the collection by model and name, and what is there twice: two runs at once leave that."""
    held: dict[tuple[str, str], dict[str, Any]] = {}
    surplus = []
    for item in sorted(items(metabase, collection), key=lambda item: item["id"]):
        if bodies.is_ours(item) and held.setdefault((item["model"], item["name"]), item) is not item:
            surplus.append(item)
    return held, surplus


def items(metabase: Metabase, collection: int) -> Iterator[dict[str, Any]]:
    """The cards and dashboards in a collection."""
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
    """The id of a card that says what `body` does."""
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
    """Makes a dashboard what is declared. Read after its cards were written: Metabase changes mappings with them."""
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
    """What does not work, a sentence each: cards that fail, name columns they lack, or hear nothing of a filter."""
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
    """Sets each of our filters to nothing: Metabase opens a dashboard with the values that its user had last."""
    tags = [one["id"] for one in shown.get("parameters") or [] if one["id"] in bodies.TAGS]
    ran(metabase, path, [parameter(tag, None) for tag in tags])


def still_filtered(metabase: Metabase, filtered: Mapping[str, int]) -> list[str]:
    """A sentence for each of these dashboards that Metabase would open with a filter of ours set."""
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
    """Runs a card, and on its dashboard under each of its filters: with a value that has rows, and with one without."""
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
    return {"id": tag, "type": bodies.kind(tag), "target": bodies.target(tag), "value": value}


def ran(metabase: Metabase, path: str, parameters: list[dict[str, Any]]) -> Any:
    """A query's columns and rows, or why there are none: the answer is 202 either way, its status tells."""
    answer = metabase.ask("POST", path, {"parameters": parameters})
    said = content(answer)
    if answer.ok and isinstance(said, dict) and said.get("status") == "completed":
        return said["data"]
    reason = said.get("error_type") or said.get("class") if isinstance(said, dict) else None
    return f"fails ({reason or answer.status_code})"


def says_nothing(card: Card, data: Mapping[str, Any]) -> bool:
    """Whether a result has no row, or in its figures only zeros and nulls."""
    if card.columns:
        return not data["rows"]
    figures = {card.fold[1]} if card.fold else {figure.name for figure in card.figures}
    places = [number for number, column in enumerate(data["cols"]) if column["name"] in figures]
    return not any(row[number] for row in data["rows"] for number in places)


def real_value(metabase: Metabase, database: int, tag: str, report: str, has_days: bool) -> Any:
    """A value of a filter that its report has rows for, of the newest of its days."""
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
    """`provision` or `verify`; exits 1 with a sentence where it cannot, or where something there does not work."""
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
