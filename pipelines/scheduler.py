"""Asks luigid, the central scheduler, what it knows of tasks."""

from contextlib import suppress
from datetime import date
from typing import Any

import luigi
from luigi.rpc import RemoteScheduler, RPCError


def luigid() -> Any:
    """Returns the central scheduler, as Luigi's workers ask it."""
    core = luigi.configuration.get_config()
    host, port = (core.get("core", f"default_scheduler_{name}") for name in ("host", "port"))
    return RemoteScheduler(f"http://{host}:{port}")


def tasks(status: str, day: date | None = None) -> dict[str, dict[str, Any]]:
    """Returns the tasks in a status by their ids, of one date or of all; raises RPCError where luigid is down."""
    found = luigid().task_list(status, "")
    return {name: task for name, task in found.items() if day is None or task["params"].get("date") == str(day)}


def name_of(task: dict[str, Any]) -> str:
    """Returns the name of a task, with its dataset if it has one."""
    return " ".join(filter(None, [task["name"], task["params"].get("dataset")]))


def ran(day: date, since: float) -> int:
    """Counts the tasks of a date that ran to their end since a time (seconds since 1970); 0 where luigid is down."""
    with suppress(RPCError):
        return sum((task["time_running"] or 0) >= since for task in tasks("DONE", day).values())
    return 0
