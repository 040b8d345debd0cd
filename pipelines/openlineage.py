"""Emits OpenLineage events START, COMPLETE and FAIL for Luigi tasks, from Luigi's event handlers.

This module does not depend on the platform:

    openlineage.observe(MyTask, describe, home=lambda: Path("lineage"))

`describe(task, state, error)` yields a TaskRun, with the datasets read and written, for each run that a task stands
for. Luigi calls the handlers in the process that it forks for a task, or in its own process if the task's process died.
Each event is appended to `events.jsonl` in `home`. If OPENLINEAGE_URL is set, a detached process also sends the event
there, so that a slow or dead server cannot delay or fail a task. OPENLINEAGE_ENDPOINT, OPENLINEAGE_API_KEY,
OPENLINEAGE_NAMESPACE and OPENLINEAGE_DISABLED have the same meaning as for OpenLineage's other clients.
"""

import hashlib
import json
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import luigi
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    documentation_job,
    error_message_run,
    job_type_job,
    nominal_time_run,
    processing_engine_run,
)
from openlineage.client.serde import Serde
from openlineage.client.transport.http import HttpConfig, HttpTransport
from openlineage.client.uuid import generate_new_uuid

EVENTS = "events.jsonl"
UNSENT = "unsent.log"
LARGEST = 16_000_000  # bytes of EVENTS above which `rotate` begins a new file
SECONDS = 5.0  # time limit of a request to the server
LIFE = 20  # seconds after which a sender is ended by SIGALRM
RETRIES = {"total": 2, "connect": 2, "read": 0, "backoff_factor": 0.5}


@dataclass
class TaskRun:
    """Describes one run of a task; `key` tells the runs of one task apart.

    `state` is the run's own outcome, if that differs from the task's state.
    """

    job: str
    namespace: str = "luigi"
    key: str = ""
    doc: str = ""
    day: datetime | None = None
    inputs: list[InputDataset] = field(default_factory=list)
    outputs: list[OutputDataset] = field(default_factory=list)
    state: RunState | None = None
    error: str = ""


Describe = Callable[[luigi.Task, RunState, Any], Iterable[TaskRun]]


def observe(tasks: type[luigi.Task], describe: Describe, home: Callable[[], Path]) -> None:
    """Registers handlers that make the tasks of a class and its subclasses emit events."""

    def handler(state: RunState) -> Callable[..., None]:
        return lambda task, error=None, *_: emit(task, state, error, describe, home())

    for event, state in (
        (luigi.Event.START, RunState.START),
        (luigi.Event.SUCCESS, RunState.COMPLETE),
        (luigi.Event.FAILURE, RunState.FAIL),
        (luigi.Event.TIMEOUT, RunState.FAIL),
        (luigi.Event.PROCESS_FAILURE, RunState.FAIL),
    ):
        tasks.event_handler(event)(handler(state))


def emit(task: luigi.Task, state: RunState, error: Any, describe: Describe, home: Path) -> None:
    """Emits an event for each run that a task stands for; an error here is only a line in Luigi's log."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return
    now = datetime.now(timezone.utc)
    try:
        events = []
        with run_ids(home, task.task_id, ends=state != RunState.START) as ids:
            for run in describe(task, state, error):
                run_id = ids.setdefault(f"{run.job} {run.key}", str(generate_new_uuid(now)))
                events.append(event_of(run, state, run_id, now))
        for event in events:
            append(home / EVENTS, Serde.to_json(event))
        if url := os.environ.get("OPENLINEAGE_URL", "").strip():
            start_sender(url, events, home / UNSENT)
    except Exception as fault:  # log only its type: its text may quote a value
        logging.getLogger("luigi-interface").warning(
            "%s has no lineage event %s (%s); its run goes on.", task.task_family, state.value, type(fault).__name__
        )


@contextmanager
def run_ids(home: Path, task_id: str, ends: bool) -> Iterator[dict[str, str]]:
    """Yields the ids of a task's runs, by job and key, for the caller to read and to extend.

    A file passes the ids from the process that starts the task to the process that ends it. A later attempt gets new
    ids. A task without a START event gets its ids at its end.
    """
    file = home / "running" / hashlib.sha256(task_id.encode()).hexdigest()[:32]
    known: dict[str, str] = {}
    if ends:
        with suppress(OSError, ValueError):
            known = json.loads(file.read_text())
    yield known
    if ends:
        file.unlink(missing_ok=True)
    else:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(json.dumps(known))


def event_of(run: TaskRun, state: RunState, run_id: str, now: datetime) -> RunEvent:
    """Returns the OpenLineage event of a run."""
    state = run.state or state
    facets: dict[str, Any] = {
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(version("luigi"), name="Luigi")
    }
    if run.day:
        end = (run.day + timedelta(1)).isoformat()
        facets["nominalTime"] = nominal_time_run.NominalTimeRunFacet(run.day.isoformat(), end)
    if state == RunState.FAIL and run.error:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(run.error, programmingLanguage="python")
    of_job: dict[str, Any] = {"jobType": job_type_job.JobTypeJobFacet("BATCH", "LUIGI", "TASK")}
    if run.doc:
        of_job["documentation"] = documentation_job.DocumentationJobFacet(run.doc)
    namespace = os.environ.get("OPENLINEAGE_NAMESPACE") or run.namespace
    return RunEvent(
        eventType=state,
        eventTime=now.isoformat(),
        run=Run(run_id, facets),
        job=Job(namespace, run.job, of_job),
        inputs=run.inputs,
        outputs=run.outputs,
    )


def append(file: Path, line: str) -> None:
    """Appends a line to a file private to this user in one write, so that lines of several processes never mix."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, f"{line}\n".encode())
    finally:
        os.close(handle)


def rotate(home: Path, before: datetime) -> int:
    """Begins a new event file if the current one is large; removes older files last written before a time.

    Also removes the list of unsent events and the ids of runs that never ended, if they are that old. Returns the
    number of files removed.
    """
    file = home / EVENTS
    if file.is_file() and file.stat().st_size > LARGEST:
        file.rename(home / f"events-{datetime.now(timezone.utc):%Y%m%dT%H%M%S}.jsonl")
    former = [*home.glob("events-*.jsonl"), *home.glob("running/*"), *home.glob(UNSENT)]
    old = [each for each in former if each.stat().st_mtime < before.timestamp()]
    for each in old:
        each.unlink(missing_ok=True)
    return len(old)


def start_sender(url: str, events: list[RunEvent], unsent: Path) -> None:
    """Starts a detached process that sends events to a server.

    The process is forked twice, so that no process has to wait for it. It closes all inherited files: a database
    connection, whose locks would outlive their holder, and output that another process reads to its end.
    """
    if first := os.fork():
        os.waitpid(first, 0)
        return
    try:
        if not os.fork():
            os.setsid()
            for name in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(name, signal.SIG_DFL)
            signal.alarm(LIFE)
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(nothing, stream)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            send(url, events, unsent)
    finally:
        os._exit(0)


def send(url: str, events: list[RunEvent], unsent: Path) -> None:
    """Sends events in order; at the first that the server does not accept, writes a line to `unsent` and stops.

    The line does not contain the server's address.
    """
    way = transport(url)
    for number, event in enumerate(events):
        try:
            way.emit(event)
        except Exception as error:
            name, left = f"{event.job.name} {getattr(event.eventType, 'value', '')}", len(events) - number
            append(unsent, f"{event.eventTime} {name}: {left} not sent ({type(error).__name__})")
            return


def transport(url: str) -> HttpTransport:
    """Returns a new HTTP transport to a server; each process creates its own, since no connection survives a fork."""
    key = os.environ.get("OPENLINEAGE_API_KEY")
    settings: dict[str, Any] = {
        "url": url,
        "endpoint": os.environ.get("OPENLINEAGE_ENDPOINT") or "api/v1/lineage",
        "timeout": SECONDS,
        "retry": RETRIES,
        "auth": {"type": "api_key", "apiKey": key} if key else {},
    }
    return HttpTransport(HttpConfig.from_dict(settings))
