"""Talks to Metabase through its REST API: waits until it serves, logs in or sets it up, and sends requests."""

import re
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from dashboards import bodies
from jobs import borders, settings
from jobs.program import Refused

NAME = "Hospital"  # name of the collection and of the database in Metabase
OLDEST = 58  # v0.58 is the oldest version with this API
SILENT = 60  # seconds to wait for an answer that comes from Metabase
STARTING = 300  # seconds to wait while Metabase is starting
PAUSE = 1.0


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
            raise Refused(f"Metabase at {self.shown} does not answer; start it, or correct METABASE_URL.") from None

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
    """Returns the JSON of an answer, or its text if it is not JSON."""
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
        raise Refused(f"Metabase at {metabase.shown} cannot log anybody in ({answer.status_code}); see its log.")
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
                f"Metabase at {metabase.shown} {state}, after {now - began:.0f} seconds; start it, or "
                "correct METABASE_URL."
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


def run_sql(metabase: Metabase, database: int, sql: str) -> list[list[Any]] | None:
    """Runs a query through Metabase; returns its rows, or None if Metabase or PostgreSQL refuses it."""
    answer = content(metabase.ask("POST", "/dataset", bodies.native(sql, database)))
    is_done = isinstance(answer, dict) and answer.get("status") == "completed"
    return answer["data"]["rows"] if is_done else None
