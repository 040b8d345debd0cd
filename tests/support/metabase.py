"""A stand-in for Metabase that keeps to what is known of its REST API, v0.58 and later, traps included.

It checks each body against metabase_schemas.yml, and runs cards' SQL on the PostgreSQL server that it is given, with
their tags replaced as Metabase does it. What it cannot show is how a chart looks.
"""

import json
import re
import threading
import uuid
from copy import deepcopy
from datetime import date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import yaml
from jsonschema import Draft202012Validator

SCHEMAS = yaml.safe_load(Path(__file__).with_name("metabase_schemas.yml").read_text())
VALIDATORS = {
    route: Draft202012Validator({"$defs": SCHEMAS["$defs"], **schema})
    for route, schema in SCHEMAS.items()
    if route != "$defs"
}
COMMON = ("password1", "qwerty123")
QUERIES = ("POST /dataset", "POST /card/N/query", "POST /dashboard/N/dashcard/N/card/N/query")
READS = ("POST /session", *QUERIES)
PROTECTED = "**MetabasePass**"
TYPES = {psycopg.adapters.types["date"].oid: "type/Date"}


class Refusal(Exception):
    """An answer that is not 200."""

    def __init__(self, status, body):
        self.status, self.body = status, body


class Metabase:
    """One instance and all it holds; `log` has the requests that wrote something."""

    def __init__(self, version="v0.58.3", starting=2, syncing=2):
        self.version, self.starting, self.syncing, self.tells_legacy = version, starting, syncing, False
        self.token, self.is_token_pinned, self.user = str(uuid.uuid4()), False, None
        self.sessions, self.failed_logins = set(), 0
        self.databases = {1: {"id": 1, "name": "Sample Database", "engine": "h2", "details": {}}}
        self.columns, self.tables, self.hidden, self.sensitive = {}, {}, set(), set()
        self.finds_tls = True  # with the PostgreSQL that it is given; no test needs one that really speaks it
        self.saves_filters, self.used, self.last_used, self.looks = True, [], {}, 0
        self.collections, self.cards, self.dashboards = {}, {}, {}
        self.ids = iter(range(10, 100_000))
        self.log, self.fail_at, self.is_answer_lost = [], None, False
        self.lock, self.pool = threading.Lock(), {}

    def start(self):
        """Serves on a free port until `stop`; the URL."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"metabase": self}))
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        for connection in self.pool.values():
            connection.close()

    @property
    def release(self):
        return int(self.version.split(".")[1])

    def answer(self, method, path, query, body, session):
        """Status and body for a request to /api."""
        route = route_of(method, path)
        numbers = [int(number) for number in re.findall(r"/(\d+)", path)]
        handler = ROUTES.get(route)
        if not handler:
            return 404, "API endpoint does not exist."
        if route not in OPEN and session not in self.sessions:
            return 401, "Unauthenticated"
        if route in VALIDATORS:
            errors = {
                ".".join(map(str, error.absolute_path)) or error.message: error.message
                for error in VALIDATORS[route].iter_errors(body)
            }
            if errors:
                return 400, {"errors": errors}
        is_write = method != "GET" and route not in READS
        fails = is_write and self.fail_at is not None and len(self.log) + 1 == self.fail_at
        if fails and not self.is_answer_lost:
            self.fail_at = None
            return 500, {"message": "the application database went away"}
        try:
            status, said = handler(self, *numbers, query=query, body=body)
        except Refusal as refusal:
            return refusal.status, refusal.body
        if is_write:
            self.log.append(f"{method} {path}")
        if fails:
            self.fail_at = None
            return 500, {"message": "done, but the answer was lost"}
        return status, said

    # -- starting, users

    def health(self, query, body):
        self.starting -= 1
        if self.starting > 0:
            return 503, {"status": "initializing", "progress": 0.5}
        return 200, {"status": "ok"}

    def properties(self, query, body):
        if self.starting > -1:  # health is green already
            return 503, "Metabase is still initializing. Please sit tight..."
        told = {"setup-token": self.told_token, "has-user-setup": bool(self.user), "version": {"tag": self.version}}
        return 200, told

    @property
    def told_token(self):
        """It is taken back with the first user, unless the environment pins it."""
        return self.token if self.is_token_pinned or not self.user else None

    def setup(self, query, body):
        """The body is checked first, and the token is part of it."""
        if body["token"] != self.told_token:
            return 400, {"errors": {"token": "That is not the token of this set-up."}}
        if body["user"]["password"] in COMMON:
            return 400, {"errors": {"password": "password is too common."}}
        if self.user:
            return 403, "There is a first user already."
        self.user = (body["user"]["email"], body["user"]["password"])
        return 200, {"id": self.new_session()}

    def login(self, query, body):
        if self.failed_logins >= 5:
            return 401, {"errors": {"username": "Too many attempts! You must wait 15 seconds before trying again."}}
        if (body["username"], body["password"]) != self.user:
            self.failed_logins += 1
            return 401, {"errors": {"password": "did not match stored password"}}
        return 200, {"id": self.new_session()}

    def new_session(self):
        session = str(uuid.uuid4())
        self.sessions.add(session)
        return session

    # -- databases

    def list_databases(self, query, body):
        return 200, {"data": [self.told(one) for one in self.databases.values()], "total": len(self.databases)}

    def get_database(self, database, query, body):
        return 200, self.told(self.found(self.databases, database))

    def told(self, database):
        """A database without its secret."""
        details = {key: PROTECTED if key == "password" else value for key, value in database["details"].items()}
        return database | {"details": details}

    def create_database(self, query, body):
        """TLS is tried first, and kept where it works, whatever was asked for."""
        details = {"tunnel-enabled": False} | body["details"] | ({"ssl": True} if self.finds_tls else {})
        return 200, self.told(self.keep_database(next(self.ids), body | {"details": details}))

    def change_database(self, database, query, body):
        """The details are replaced as a whole, and TLS is not tried; only a hidden secret stays what it was."""
        held = self.found(self.databases, database)
        secrets = {key: held["details"][key] for key, value in body["details"].items() if value == PROTECTED}
        return 200, self.told(self.keep_database(database, held | body | {"details": body["details"] | secrets}))

    def keep_database(self, database, body):
        """Connects first, and keeps the details that did it."""
        try:
            if body["details"].get("ssl") and not self.finds_tls:
                raise psycopg.OperationalError("the server does not speak TLS")
            self.connect(body["details"]).close()
        except psycopg.Error as error:
            raise Refusal(400, {"message": str(error), "errors": {"host": "check your host settings"}}) from None
        self.databases[database] = body | {"id": database}
        if database not in self.tables:
            self.tables[database], self.pending = [], self.syncing
        return self.databases[database]

    def pooled(self, details):
        """A connection for queries, kept for the next one."""
        key = json.dumps(details, sort_keys=True)
        if key not in self.pool:
            self.pool[key] = self.connect(details)
        return self.pool[key]

    def connect(self, details):
        names = {key: details[key] for key in ("host", "port", "dbname", "user", "password")}
        return psycopg.connect(**names, sslmode="prefer", autocommit=True)  # PGSSLMODE is not Metabase's

    def sync(self, database, query, body):
        self.found(self.databases, database)
        self.pending = self.syncing
        return 200, {"status": "ok"}

    def metadata(self, database, query, body):
        """Tables and columns as of the last sync, which ends some requests after it began.

        What people hid is told where that is asked for; sensitive columns from v0.66 on only by a word of their own.
        """
        held = self.found(self.databases, database)
        if self.pending is not None:
            self.pending -= 1
            if self.pending < 0:
                self.tables[database], self.pending = self.read(held["details"]), None
        is_all = query.get("include_hidden") == ["true"]
        is_sensitive = query.get("include_sensitive_fields") == ["true"] if self.release >= 66 else is_all
        tables = [
            table
            | {"fields": [one for one in table["fields"] if is_sensitive or (table["name"], one["name"]) not in hidden]}
            for hidden in [self.sensitive]
            for table in self.tables[database]
            if is_all or table["name"] not in self.hidden
        ]
        return 200, held | {"tables": tables}

    def read(self, details):
        with self.connect(details) as connection:
            columns = connection.execute(
                "select table_schema, table_name, column_name from information_schema.columns "
                "where table_schema = any(%s) order by 1, 2, ordinal_position",  # those that the user may see
                [details["schema-filters-patterns"].split(",")],
            ).fetchall()
        tables = {}
        for schema, table, column in columns:
            field = self.columns.setdefault((schema, table, column), 1000 + len(self.columns))
            tables.setdefault((schema, table), []).append({"id": field, "name": column})
        return [{"schema": schema, "name": name, "fields": fields} for (schema, name), fields in tables.items()]

    # -- collections

    def list_collections(self, query, body):
        return 200, [{"id": "root", "name": "Our analytics"}, *self.collections.values()]

    def create_collection(self, query, body):
        made = {"description": None, "archived": False, "location": "/", **body, "id": next(self.ids)}
        self.collections[made["id"]] = made
        return 200, made

    def collection_items(self, collection, query, body):
        self.found(self.collections, collection)
        found = [
            {key: one[key] for key in ("id", "name", "description", "collection_id")} | {"model": model}
            for model, kind in (("card", self.cards), ("dashboard", self.dashboards))
            for one in kind.values()
            if model in query["models"] and one["collection_id"] == collection and not one["archived"]
        ]
        begin, size = int(query.get("offset", ["0"])[0]), min(int(query.get("limit", ["50"])[0]), 50)
        return 200, {"data": found[begin : begin + size], "total": len(found) or None}

    # -- cards

    def create_card(self, query, body):
        made = {"description": None, "collection_id": None, "archived": False, **body, "id": next(self.ids)}
        self.cards[made["id"]] = made
        return 200, self.card_as_told(made, query)

    def get_card(self, card, query, body):
        return 200, self.card_as_told(self.found(self.cards, card), query)

    def change_card(self, card, query, body):
        self.found(self.cards, card).update(body)
        return 200, self.card_as_told(self.cards[card], query)

    def card_as_told(self, card, query):
        """A card, its query with keys that the server adds; as MBQL 4 where that is asked for."""
        told = deepcopy(card)
        [stage] = told["dataset_query"]["stages"]
        is_legacy = self.tells_legacy or query.get("legacy-mbql") == ["true"]
        for tag in stage.get("template-tags", {}).values():
            if "dimension" in tag:
                name, options, field = tag["dimension"]
                options = options | {"lib/uuid": str(uuid.uuid4()), "base-type": "type/Text"}
                tag["dimension"] = [name, field, {"base-type": "type/Text"}] if is_legacy else [name, options, field]
        if is_legacy:
            native = {"query": stage["native"], "template-tags": stage.get("template-tags", {})}
            told["dataset_query"] = {"type": "native", "database": told["dataset_query"]["database"], "native": native}
        elif self.release >= 63 and "template-tags" in stage:
            stage["template-tags"] = list(stage["template-tags"].values())
        return told | {"entity_id": f"{card['id']:021}", "result_metadata": None, "parameters": [], "creator_id": 1}

    # -- dashboards

    def create_dashboard(self, query, body):
        empty = {"description": None, "parameters": [], "collection_id": None, "archived": False, "tabs": []}
        made = empty | body | {"id": next(self.ids), "dashcards": []}
        self.dashboards[made["id"]] = made
        return 200, made

    def get_dashboard(self, dashboard, query, body):
        """A dashboard, with the filters that its user had set last: stored now and then, here every third time."""
        told = deepcopy(self.found(self.dashboards, dashboard))
        self.looks += 1
        if self.looks % 3 == 0:
            for place, value in self.used:
                self.last_used[place] = value
            self.used = []
        if self.saves_filters:
            last = {tag: value for (of, tag), value in self.last_used.items() if of == dashboard}
            told["last_used_param_values"] = {tag: value for tag, value in last.items() if value is not None}
        for one in told["dashcards"]:
            one |= {"card": self.cards.get(one.get("card_id")), "dashboard_id": dashboard, "created_at": "2026-01-01"}
        return 200, told

    def change_dashboard(self, dashboard, query, body):
        held = self.found(self.dashboards, dashboard)
        changes = deepcopy(body)
        if "dashcards" in changes:
            changes["tabs"] = changes.get("tabs", [])  # they come and go together
            ids = [one["id"] for one in changes["dashcards"]]
            known = {one["id"] for one in held["dashcards"]}
            if len(set(ids)) < len(ids):
                raise Refusal(400, {"errors": {"dashcards": "value must be seq of maps in which ids are unique"}})
            if changes["tabs"] and any(one.get("dashboard_tab_id") is None for one in changes["dashcards"]):
                raise Refusal(400, "This dashboard has tab, makes sure every card has a tab")
            for one in changes["dashcards"]:
                if one["id"] not in known:  # in truth the id of another dashboard's card would be lost here
                    assert one["id"] < 0, "only negative ids are new"
                    card = one.get("card_id") and self.found(self.cards, one["card_id"])
                    if card and card["archived"]:
                        raise Refusal(404, "The object has been archived.")
                    one["id"] = next(self.ids)
        held |= changes
        return self.get_dashboard(dashboard, query, body)

    # -- queries

    def run_adhoc(self, query, body):
        return 202, self.run(body, {})

    def run_card(self, card, query, body):
        given = {tuple(one["target"][1])[1]: one["value"] for one in body.get("parameters", [])}
        return 202, self.run(self.found(self.cards, card)["dataset_query"], given)

    def run_dashcard(self, dashboard, dashcard, card, query, body):
        """Only a mapping with the card's id takes a filter's value to the card; a filter without one is ignored."""
        held = self.found(self.dashboards, dashboard)
        [shown] = [one for one in held["dashcards"] if (one["id"], one.get("card_id")) == (dashcard, card)] or [None]
        if not shown:
            raise Refusal(404, "Not found.")
        given = {}
        for one in body.get("parameters", []):
            if one["id"] not in [parameter["id"] for parameter in held["parameters"]]:
                raise Refusal(400, f"Dashboard does not have a parameter with ID {one['id']!r}.")
            if self.saves_filters:
                self.used.append(((dashboard, one["id"]), one["value"]))
            for mapping in shown.get("parameter_mappings") or []:
                if mapping["parameter_id"] == one["id"] and mapping.get("card_id") == card:
                    given[mapping["target"][1][1]] = one["value"]
        return 202, self.run(self.found(self.cards, card)["dataset_query"], given)

    def run(self, query, given):
        """A query's result, or its failure, which is told in the body alone."""
        [stage] = query["stages"]
        try:
            sql, values = self.substituted(stage["native"], stage.get("template-tags", {}), given)
            cursor = self.pooled(self.databases[query["database"]]["details"]).execute(sql, values)
            columns = [
                {"name": column.name, "display_name": column.name, "base_type": TYPES.get(column.type_code, "type/*")}
                for column in cursor.description
            ]
            rows = [[plain(value) for value in row] for row in cursor]
        except (psycopg.Error, Refusal) as error:
            return {
                "status": "failed",
                "error_type": "invalid-query",
                "error": str(error),
                "data": {"rows": [], "cols": []},
            }
        return {"status": "completed", "row_count": len(rows), "data": {"rows": rows, "cols": columns}}

    def substituted(self, sql, tags, given):
        """SQL and its values: a clause in [[ ]] needs a value for each tag in it, a field filter is a condition."""
        values = {}

        def clause(found):
            return (
                found[1] if all(given.get(tag) is not None for tag in re.findall(r"{{\s*(\S+?)\s*}}", found[1])) else ""
            )

        def tag(found):
            name = found[1]
            declared, value = tags[name], given.get(name)
            if declared["type"] == "dimension":
                if value is None:
                    return "1 = 1"
                place = {field: column for column, field in self.columns.items()}[declared["dimension"][2]]
                values[name] = list(value)
                return ".".join(f'"{part}"' for part in place) + f" = any(%({name})s)"
            if value is None:
                raise Refusal(400, f"missing required parameter {name}")
            values[name] = date.fromisoformat(value)
            return f"%({name})s"

        plain_sql = re.sub(r"\[\[(.*?)\]\]", clause, sql.replace("%", "%%"), flags=re.DOTALL)
        return re.sub(r"{{\s*(\S+?)\s*}}", tag, plain_sql), values

    def found(self, kind, number):
        """A thing that is there."""
        if number not in kind:
            raise Refusal(404, "Not found.")
        return kind[number]


def route_of(method, path):
    return re.sub(r"/\d+", "/N", f"{method} {path}")


def plain(value):
    """A value as JSON has it."""
    if isinstance(value, Decimal):
        return float(value)
    return value.isoformat() if isinstance(value, (date, datetime)) else value


ROUTES = {
    "GET /health": Metabase.health,
    "GET /session/properties": Metabase.properties,
    "POST /setup": Metabase.setup,
    "POST /session": Metabase.login,
    "GET /database": Metabase.list_databases,
    "GET /database/N": Metabase.get_database,
    "POST /database": Metabase.create_database,
    "PUT /database/N": Metabase.change_database,
    "POST /database/N/sync_schema": Metabase.sync,
    "GET /database/N/metadata": Metabase.metadata,
    "GET /collection": Metabase.list_collections,
    "POST /collection": Metabase.create_collection,
    "GET /collection/N/items": Metabase.collection_items,
    "POST /card": Metabase.create_card,
    "GET /card/N": Metabase.get_card,
    "PUT /card/N": Metabase.change_card,
    "POST /dashboard": Metabase.create_dashboard,
    "GET /dashboard/N": Metabase.get_dashboard,
    "PUT /dashboard/N": Metabase.change_dashboard,
    "POST /dataset": Metabase.run_adhoc,
    "POST /card/N/query": Metabase.run_card,
    "POST /dashboard/N/dashcard/N/card/N/query": Metabase.run_dashcard,
}
OPEN = ("GET /health", "GET /session/properties", "POST /setup", "POST /session")


UNITS = {"day": 1, "week": 7, "month": 30.5, "quarter": 91.2}  # days, give or take a tenth
SHOWN = {"day": "%-d %B %Y", "week": "week of %-d %B %Y", "month": "%B %Y", "quarter": "%m %Y", "year": "%Y"}


def trend(card, data):
    """What a reader sees of a smart scalar: date and figure, then date and figure of what it is held against, or None.

    The figure is the last one that is not null, its date that of the first column of dates. Where that is the only one,
    a unit is inferred from its two last dates, and they are written by it.
    """
    dates = [place for place, column in enumerate(data["cols"]) if column["base_type"] == "type/Date"]
    names = [column["name"] for column in data["cols"]]
    figure = names.index(card["visualization_settings"]["scalar.field"])
    rows = [(date.fromisoformat(row[dates[0]]), row[figure]) for row in data["rows"] if row[figure] is not None]
    unit = None
    if len(dates) == 1 and len(rows) > 1:
        days = abs((rows[-1][0] - rows[-2][0]).days)
        units = [name for name, length in UNITS.items() if 0.9 < days / length < 1.1]
        unit = next(iter(units), "year" if 365 <= days <= 366 else None)
    told = [(day.strftime(SHOWN.get(unit, "%-d %B %Y")), value) for day, value in reversed(rows)]
    return [*told, None, None][:2]


class Handler(BaseHTTPRequestHandler):
    metabase: Metabase
    is_bitten = False
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def serve(self):
        """Answers a request. In v0.59 a query's answer bites off the beginning of what next comes that way."""
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/api")
        if self.is_bitten:
            self.close_connection = True
            return self.send_error(400)
        self.is_bitten = self.metabase.release == 59 and route_of(self.command, path) in QUERIES
        size = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(size)
        with self.metabase.lock:
            status, said = self.metabase.answer(
                self.command,
                path,
                parse_qs(parts.query),
                json.loads(sent) if sent else None,
                self.headers.get("X-Metabase-Session"),
            )
        text = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = serve

    def log_message(self, *words):
        pass
