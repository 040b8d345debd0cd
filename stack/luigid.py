"""Runs luigid, Luigi's central scheduler, so that only who knows its login adds or changes tasks.

    LUIGI_USER=... LUIGI_PASSWORD=... python -m stack.luigid --address 127.0.0.1 --port 8082

Luigi's own luigid asks nobody: whoever reaches its port, and any web page that a browser on this machine shows, can
have a worker load a module and run a task of it. Here

- a request must name luigid by a name of its own, so that no web page can have its own name lead here (DNS rebinding);
- a call of the API that changes something needs the login, and may not come from another site's page;
- Luigi's pages and the calls that only read are open to this machine, as Spark's pages are.
"""

import argparse
import base64
import hmac
import os
import sys
from urllib.parse import urlsplit

import luigi.server
from luigi.cmdline import luigid
from tornado.httputil import HTTPServerRequest
from tornado.routing import AnyMatches, Matcher, Rule, RuleRouter
from tornado.web import Application, RequestHandler

from jobs import settings

# The calls of luigi.scheduler.RPC_METHODS that add no task and no worker, as the pages need them.
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
    """Returns the host that an address names, without its port; "" where it names none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def refusal(request: HTTPServerRequest) -> int:
    """Returns the HTTP status with which a request is refused, or 0 for one that is answered."""
    headers = request.headers
    if not NAMES.issuperset(map(host_of, [f"//{request.host}", *headers.get_list("Origin")])):
        return 403
    area, _, method = request.path.lstrip("/").partition("/")
    if area != "api" or method in READING:
        return 0
    # A browser that has asked for the login once sends it with whatever any page makes it call.
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return 403
    login = f"{os.environ['LUIGI_USER']}:{os.environ['LUIGI_PASSWORD']}".encode()
    expected = b"Basic " + base64.b64encode(login)
    return 0 if hmac.compare_digest(headers.get("Authorization", "").encode(), expected) else 401


class IsRefused(Matcher):
    """Matches requests that are refused."""

    def match(self, request: HTTPServerRequest) -> dict[str, str] | None:
        return {} if refusal(request) else None


class Refusal(RequestHandler):
    """Answers a request that is refused."""

    def prepare(self) -> None:
        status = refusal(self.request)
        self.set_status(status)
        if status == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="luigid", charset="UTF-8"')
        self.finish(REFUSALS[status])


def guarded(scheduler: luigi.server.Scheduler) -> RuleRouter:
    """Returns Luigi's application behind the check."""
    return RuleRouter([Rule(IsRefused(), Application([(".*", Refusal)])), Rule(AnyMatches(), application(scheduler))])


application = luigi.server.app

if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--address", default="")
    asked = parser.parse_known_args(sys.argv[1:])[0].address
    settings.refuse_open({f"luigid's address {asked or '0.0.0.0'}": asked}, [os.environ["LUIGI_PASSWORD"]])
    luigi.server.app = guarded
    luigid()
