"""Runs luigid, Luigi's central scheduler, so that only clients with its login can add or change tasks.

    LUIGI_USER=... LUIGI_PASSWORD=... python -m stack.luigid --address 127.0.0.1 --port 8082

Luigi's own luigid has no authentication: anybody who reaches its port, and any web page open in a browser on this
machine, can make a worker load a module and run a task from it. Here

- a request must address luigid by one of its own names, which prevents DNS rebinding;
- an API call that changes something needs the login and must not come from another site's page;
- Luigi's pages and read-only calls are open to this machine, as Spark's pages are.

The scheduler differs from Luigi's in two places: a batch of tasks that runs again belongs to the worker that runs it,
and a task keeps its `retry_count` while it reports what it does.
"""

import argparse
import base64
import hmac
import os
import sys
from typing import Any
from urllib.parse import urlsplit

import luigi.server
from luigi.cmdline import luigid
from luigi.scheduler import BATCH_RUNNING, PENDING, RUNNING
from tornado.httputil import HTTPServerRequest
from tornado.routing import AnyMatches, Matcher, Rule, RuleRouter
from tornado.web import Application, RequestHandler

from jobs import settings

# The read-only calls of luigi.scheduler.RPC_METHODS, which the pages need; they add no task or worker.
READING = frozenset(
    {
        *("dep_graph", "fetch_error", "get_running_task_resources", "get_task_progress_percentage"),
        *("get_task_status_message", "graph", "has_task_history", "inverse_dep_graph", "is_pause_enabled", "is_paused"),
        *("resource_list", "task_list", "task_search", "worker_list"),
    }
)
NAMES = frozenset({"127.0.0.1", "localhost", "::1", *os.environ.get("LUIGI_NAMES", "").split()})
REFUSALS = {
    401: "This call needs a login: LUIGI_USER and LUIGI_PASSWORD of .env.",
    403: "The page or the name by which luigid was asked is not its own; add the name to LUIGI_NAMES in .env.",
}


def host_of(address: str) -> str:
    """Returns the host of an address without its port, or "" if there is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def refusal(request: HTTPServerRequest) -> int:
    """Returns the HTTP status that refuses a request, or 0 to accept it."""
    headers = request.headers
    if not NAMES.issuperset(map(host_of, [f"//{request.host}", *headers.get_list("Origin")])):
        return 403
    area, _, method = request.path.lstrip("/").partition("/")
    if area != "api" or method in READING:
        return 0
    # A browser that once asked for the login sends it with calls from any page.
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return 403
    login = f"{os.environ['LUIGI_USER']}:{os.environ['LUIGI_PASSWORD']}".encode()
    expected = b"Basic " + base64.b64encode(login)
    return 0 if hmac.compare_digest(headers.get("Authorization", "").encode(), expected) else 401


class IsRefused(Matcher):
    """Matches requests to refuse."""

    def match(self, request: HTTPServerRequest) -> dict[str, str] | None:
        return {} if refusal(request) else None


class Refusal(RequestHandler):
    """Answers a refused request."""

    def prepare(self) -> None:
        status = refusal(self.request)
        self.set_status(status)
        if status == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="luigid", charset="UTF-8"')
        self.finish(REFUSALS[status])


class Scheduler(luigi.server.Scheduler):
    """Schedules tasks as Luigi does, except that batches change workers and tasks keep their retry policy.

    Luigi 3.8.1 keeps a finished batch for ten minutes together with the worker that ran it. Where the same dates run
    again within that time, Luigi would take the new run for the old worker's, declare it failed once that worker is
    forgotten (after a minute), and hand the batch out a second time while it still runs.

    It also forgets a task's own `retry_count` as soon as the task sets a tracking URL or a status message, and would
    try a task three times that is to be tried once.
    """

    def add_task(self, task_id: str = "", status: str = PENDING, **more: Any) -> None:
        task = self._state.get_task(task_id)
        if task and status == RUNNING and task.status not in (RUNNING, BATCH_RUNNING):
            task.worker_running = None
        if task and more.get("retry_policy_dict") is None:
            more["retry_policy_dict"] = task.retry_policy._asdict()
        super().add_task(task_id=task_id, status=status, **more)


def guarded(scheduler: luigi.server.Scheduler) -> RuleRouter:
    """Returns Luigi's web application behind the access check."""
    return RuleRouter([Rule(IsRefused(), Application([(".*", Refusal)])), Rule(AnyMatches(), application(scheduler))])


application = luigi.server.app

if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--address", default="")
    asked = parser.parse_known_args(sys.argv[1:])[0].address
    settings.refuse_open({f"luigid's address {asked or '0.0.0.0'}": asked}, [os.environ["LUIGI_PASSWORD"]])
    luigi.server.app = guarded
    luigi.server.Scheduler = Scheduler  # type: ignore[misc]
    luigid()
