"""Keeps the output of each run of a date in a file, and sees that every task that fails has a row in the ledger."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, datetime, timezone
from pathlib import Path

import psycopg

from jobs import borders, settings, warehouse

STARTED = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{os.getpid()}"  # this process; Luigi forks those of its tasks
LOG = "RUN_LOG"  # the variable by which a job knows that Luigi runs it, and which file has its output


def home() -> Path:
    """Returns the directory of the files, beside the logs of the services."""
    return settings.path("STACK_DIR") / "logs" / "runs"


def log(day: date) -> str:
    """Names the file of this process for a date, as the ledger does: relative to `home`."""
    return f"{day}/{STARTED}.log"


def add(day: date, task: str, line: str) -> None:
    """Appends a line of a task's output to the file of its date; of a text of several lines each one as such."""
    with suppress(OSError):  # a full disk must not fail a job that can do without its log
        for each in borders.plain(line).split("\n"):
            append(home() / log(day), f"{datetime.now(timezone.utc):%H:%M:%S} {borders.printable(task)}: {each}")


def append(file: Path, line: str) -> None:
    """Appends a line to a file of this user alone, in one write, so that lines of several processes never mix."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, f"{line}\n".encode())
    finally:
        os.close(handle)


def remove(before: datetime) -> int:
    """Removes the files of runs of which nothing was written since; returns their number."""
    removed = 0
    for file in home().glob("*/*.log"):
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < before.timestamp():
                file.unlink()
                removed += 1
    for folder in home().glob("*/"):
        with suppress(OSError):  # it is not empty
            folder.rmdir()
    return removed


def record_failure(layer: str, dataset: str, day: date, sentence: str) -> None:
    """Records in the ledger that a task failed; later, by `record_pending`, if PostgreSQL is what is down."""
    now, sentence = datetime.now(timezone.utc), borders.plain(sentence)  # no NUL, which PostgreSQL does not take
    try:
        with warehouse.connect() as connection:
            warehouse.record_failure(connection, layer, dataset, day, log(day), sentence, now)
    except psycopg.Error:
        row = {"layer": layer, "dataset": dataset, "day": str(day), "log": log(day), "error": sentence, "at": str(now)}
        append(pending(), json.dumps(row))


def record_pending(connection: warehouse.Connection) -> None:
    """Records the failures that PostgreSQL could not be told of when they happened."""
    taken = pending().with_suffix(f".{os.getpid()}")
    with suppress(FileNotFoundError):  # there are none, or another process records them
        pending().rename(taken)
        for failure in read(taken):
            warehouse.record_failure(
                connection,
                failure["layer"],
                failure["dataset"],
                date.fromisoformat(failure["day"]),
                failure["log"],
                failure["error"],
                datetime.fromisoformat(failure["at"]),
            )
        taken.unlink()


def pending() -> Path:
    return home() / "not-in-the-ledger.jsonl"


def read(file: Path) -> Iterator[dict[str, str]]:
    """Yields the failures of a file, without a last line that a full disk has cut."""
    for line in file.read_text().splitlines():
        with suppress(ValueError):
            yield json.loads(line)
