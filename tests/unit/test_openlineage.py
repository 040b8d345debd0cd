"""Luigi's tasks as OpenLineage's events, without this platform: from a task of the tests to a file and a server."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jsonschema
import luigi
import pytest
from openlineage.client.event_v2 import InputDataset, OutputDataset

from pipelines import openlineage
from pipelines.openlineage import TaskRun
from tests.support.openlineage_core import RUN_EVENT

# Luigi warns of how it reads its own [core], and of what it does not read there.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:luigi.parameter"),
    pytest.mark.filterwarnings("ignore::luigi.parameter.UnconsumedParameterWarning"),
]
VALIDATOR = jsonschema.Draft202012Validator(RUN_EVENT)


@contextmanager
def receiver():
    """Yields the address of a server that receives OpenLineage's events, and each event with its path and key."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append((self.path, self.headers["Authorization"], body))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()


def wait_for(holds, seconds=60):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.05)


class Copying(luigi.Task):
    """Copies a file.

    More of it.
    """

    home = luigi.Parameter()
    does = luigi.Parameter(default="work")
    retry_count = 1

    def complete(self):
        return os.path.exists(f"{self.home}/{self.does}.done")

    def run(self):
        if self.does == "fail":
            raise ValueError("QZAN01 is not a number")
        if self.does == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        open(f"{self.home}/{self.does}.done", "w").close()


def described(task, state, error):
    if task.does == "undescribed":
        raise KeyError("QZAN02")
    yield TaskRun(
        "Copying",
        inputs=[InputDataset("file", "/in.csv")],
        outputs=[OutputDataset("file", "/out.csv")],
        error="The file cannot be copied." if error else "",
    )


HOME = {}


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("OPENLINEAGE_URL", "OPENLINEAGE_NAMESPACE", "OPENLINEAGE_DISABLED", "OPENLINEAGE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    if not HOME:
        openlineage.observe(Copying, described, lambda: HOME["at"])
    HOME["at"] = tmp_path
    return tmp_path


def run(home, *kinds):
    """Runs the tasks with Luigi in separate processes; returns the seconds that this took."""
    began = time.monotonic()
    tasks = [Copying(home=str(home), does=does) for does in kinds]
    luigi.build(tasks, local_scheduler=True, workers=2, log_level="CRITICAL")
    return time.monotonic() - began


def run_apart(home, *kinds, seconds=openlineage.SECONDS):
    """Runs the tasks from a new process; returns the seconds that this took.

    A sender is forked. The process of the tests has threads of gRPC by then, and a lock that one of them holds would
    stay locked in the sender, which then sends nothing and leaves no line.
    """
    code = "import sys; from tests.unit import test_openlineage as tests; tests.run_observed(*sys.argv[1:])"
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", code, str(home), str(seconds), *kinds], cwd=Path(__file__).parents[2], check=True
    )
    return time.monotonic() - began


def run_observed(home, seconds, *kinds):
    openlineage.SECONDS = float(seconds)
    openlineage.observe(Copying, described, lambda: Path(home))
    run(home, *kinds)


def events(home):
    found = [json.loads(line) for line in (home / "events.jsonl").read_text().splitlines()]
    for event in found:
        VALIDATOR.validate(event)
    return found


def test_a_task_that_is_done_starts_and_completes_as_one_run(home):
    run(home, "work")
    start, complete = events(home)
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"] and start["eventTime"] <= complete["eventTime"]
    assert (start["job"]["namespace"], start["job"]["name"]) == ("luigi", "Copying")
    assert [complete["inputs"][0]["name"], complete["outputs"][0]["name"]] == ["/in.csv", "/out.csv"]
    assert [*(home / "running").iterdir()] == []
    assert (home / "events.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("does", ["fail", "die"])
def test_a_task_that_fails_or_whose_process_dies_fails_as_the_run_that_it_started(home, does):
    run(home, does)
    start, failed = events(home)
    assert (start["eventType"], failed["eventType"]) == ("START", "FAIL")
    assert start["run"]["runId"] == failed["run"]["runId"]
    assert failed["run"]["facets"]["errorMessage"]["message"] == "The file cannot be copied."
    assert "QZAN" not in json.dumps([start, failed])


def test_another_attempt_is_another_run(home):
    run(home, "fail")
    run(home, "fail")
    assert len({event["run"]["runId"] for event in events(home)}) == 2


def test_a_server_gets_every_event_with_its_key(home, monkeypatch):
    with receiver() as (url, received):
        monkeypatch.setenv("OPENLINEAGE_URL", url)
        monkeypatch.setenv("OPENLINEAGE_API_KEY", "a-key")
        monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "ward")
        run_apart(home, "work", "fail")
        wait_for(lambda: len(received) == 4)
    assert {(path, key) for path, key, _ in received} == {("/api/v1/lineage", "Bearer a-key")}
    by_run = lambda event: (event["run"]["runId"], event["eventType"])  # noqa: E731
    assert sorted((event for *_, event in received), key=by_run) == sorted(events(home), key=by_run)
    assert {event["job"]["namespace"] for *_, event in received} == {"ward"}


@pytest.mark.parametrize("silent", [False, True])
def test_a_server_that_is_dead_or_says_nothing_delays_nothing(home, monkeypatch, silent):
    seconds = 30.0  # far more than a busy machine takes for two runs
    without = run_apart(home, "work", seconds=seconds)
    (home / "work.done").unlink()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        if not silent:
            server.close()
        monkeypatch.setenv("OPENLINEAGE_URL", url)
        assert run_apart(home, "work", seconds=seconds) < without + seconds / 2
    assert [event["eventType"] for event in events(home)] == ["START", "COMPLETE"] * 2
    assert (home / "work.done").exists()
    if not silent:
        # Each event has a sender of its own, and either may be the first to give up.
        unsent = home / "unsent.log"
        wait_for(lambda: unsent.is_file() and "Copying START: 1 not sent (ConnectionError)" in unsent.read_text())
        assert "127.0.0.1" not in unsent.read_text()


def test_a_sender_holds_nothing_of_the_process_that_it_comes_from(home, monkeypatch):
    """Checks output and connections: a process that waits for their end would wait for the server."""
    monkeypatch.setattr(openlineage, "SECONDS", 60.0)  # far more than a busy machine takes to close a pipe
    receiving, sending = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        run(home, "work")
        os.close(sending)
        began = time.monotonic()
        assert os.read(receiving, 1) == b""
        assert time.monotonic() - began < openlineage.SECONDS / 2
    os.close(receiving)


def test_a_task_goes_on_where_its_lineage_cannot_be_told_and_no_value_is(home, caplog):
    caplog.set_level("WARNING", "luigi-interface")  # Luigi may have been told to say less
    run(home, "undescribed")
    assert (home / "undescribed.done").exists() and not (home / "events.jsonl").exists()
    assert "QZAN" not in caplog.text


def test_a_disk_that_is_full_fails_nothing(home, monkeypatch):
    monkeypatch.setattr(openlineage, "append", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    run(home, "work")
    assert (home / "work.done").exists()


def test_it_can_be_switched_off(home, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    run(home, "work")
    assert not (home / "events.jsonl").exists() and (home / "work.done").exists()


def test_events_are_rotated_when_they_are_many_and_removed_when_they_are_old(home, monkeypatch):
    run(home, "work")
    now = datetime.now()
    assert openlineage.rotate(home, now + timedelta(1)) == 0 and (home / "events.jsonl").exists()
    monkeypatch.setattr(openlineage, "LARGEST", 100)
    assert openlineage.rotate(home, now - timedelta(1)) == 0
    [former] = home.glob("events-*.jsonl")
    assert len(former.read_text().splitlines()) == 2 and not (home / "events.jsonl").exists()
    assert openlineage.rotate(home, now + timedelta(1)) == 1 and not former.exists()
