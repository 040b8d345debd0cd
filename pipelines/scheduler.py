"""Talks to luigid, the central scheduler, with the login of the settings; accepts only its own tasks."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import date
from functools import cache
from typing import Any

import luigi
from luigi import rpc, worker
from luigi.rpc import RemoteScheduler, RPCError
from luigi.task_register import TaskClassException

from jobs import settings


class Fetcher(rpc.RequestsFetcher):
    """Sends LUIGI_USER and LUIGI_PASSWORD with each call; in Luigi's URL they would appear in its logs and errors."""

    def fetch(self, full_url: str, body: dict[str, str], timeout: float) -> str:
        self.check_pid()
        # Both are empty if a run schedules itself, as on Kubernetes.
        self.session.auth = (settings.given("LUIGI_USER"), settings.given("LUIGI_PASSWORD"))
        return str(super().fetch(full_url, body, timeout))


SCHEDULED: dict[str, luigi.Task] = {}  # tasks scheduled by this process, by id


def load(module: str, task_name: str, params_str: dict[str, Any]) -> luigi.Task:
    """Returns the batch task that luigid hands out; raises TaskClassException unless this process scheduled its tasks.

    Luigi's own function would import any module that luigid names and run it with the parameters that luigid names.
    Luigi also loads dynamic dependencies with it; no task here has any.
    """
    lists = {name: texts for name, texts in params_str.items() if isinstance(texts, list)}
    for family in {type(task) for task in SCHEDULED.values() if lists and task.task_family == task_name}:
        ones = [dict(zip(lists, texts, strict=True)) for texts in zip(*lists.values(), strict=True)]
        ids = [family.from_str_params(params_str | one).task_id for one in ones]
        if all(task_id in SCHEDULED for task_id in ids):
            batch = family.from_str_params(params_str)
            # luigid decides only which dates a batch joins; this process decides whether to override the gate.
            return SCHEDULED[ids[0]].clone(**{name: getattr(batch, name) for name in lists})
    raise TaskClassException(f"luigid handed out {task_name!r}, which this command did not ask for; it is not run")


def tell_load_error(teller: worker.Worker, error: Exception, task_ids: list[str]) -> None:
    """Tells luigid why tasks were not loaded; Luigi 3.8.1 passes the exception itself, which JSON cannot encode.

    luigid may batch tasks of several workers. This worker declines such a batch and excludes other workers' tasks from
    batches; luigid sets all of them to pending when this worker asks for work again.
    """
    of_others = [task_id for task_id in task_ids if task_id not in SCHEDULED]
    if len(of_others) < len(task_ids):
        for task_id in of_others:
            luigid().add_task(worker=teller._id, task_id=task_id, runnable=False, batchable=False)
        return
    tell_luigid(teller, str(error), task_ids)


tell_luigid = worker.Worker._handle_task_load_error
rpc.RequestsFetcher = Fetcher  # type: ignore[misc]
worker.load_task = load
worker.Worker._handle_task_load_error = tell_load_error  # type: ignore[method-assign]


def is_refused(error: RPCError) -> bool:
    """Tells whether luigid rejected the login of the settings."""
    answer = getattr(error.sub_exception, "response", None)
    return getattr(answer, "status_code", None) in (401, 403)


def luigid() -> Any:
    """Returns the client of the central scheduler that Luigi's workers use."""
    core = luigi.configuration.get_config()
    host, port = (core.get("core", f"default_scheduler_{name}") for name in ("host", "port"))
    return RemoteScheduler(f"http://{host}:{port}")


def tasks(status: str, day: date | None = None) -> dict[str, dict[str, Any]]:
    """Returns the tasks with a status by id, of one date or all; raises RPCError if luigid is down."""
    found = luigid().task_list(status, "")
    return {name: task for name, task in found.items() if day is None or task["params"].get("date") == str(day)}


@cache
def disabled() -> set[str]:
    """Returns the ids of tasks that luigid had disabled after earlier runs, read once per process."""
    with suppress(RPCError):  # the run itself reports that luigid is down
        return set(tasks("DISABLED"))
    return set()


def tell_done(together: str, done: Iterable[luigi.Task]) -> None:
    """Tells luigid that some tasks of the running batch `together` are done while the others still run."""
    worker_id = tasks("RUNNING")[together]["worker_running"]
    for task in done:
        luigid().add_task(
            worker=worker_id,
            task_id=task.task_id,
            status="DONE",
            family=task.task_family,
            module=task.task_module,
            params=task.to_str_params(),
        )


def name_of(task: dict[str, Any]) -> str:
    """Returns the name of a task, followed by its dataset if it has one."""
    return " ".join(filter(None, [task["name"], task["params"].get("dataset")]))


def ran(day: date, since: float) -> int:
    """Counts the tasks of a date that completed since a time (seconds since 1970); 0 if luigid is down."""
    with suppress(RPCError):
        return sum((task["time_running"] or 0) >= since for task in tasks("DONE", day).values())
    return 0
