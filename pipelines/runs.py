"""Writes the output of each run of a date to a file, and ensures that every failed task has a row in the ledger."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, datetime, timezone
from pathlib import Path

import psycopg

from jobs import borders, ledger, settings, warehouse

# identifies this process; Luigi forks its tasks from it
STARTED = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{os.getpid()}"
LOG = "RUN_LOG"  # set for jobs that Luigi runs, to the file with their output


def home() -> Path:
    """Returns the directory of the run logs, beside the services' logs."""
    return settings.path("STACK_DIR") / "logs" / "runs"


def log(day: date) -> str:
    """Returns the log file of this process for a date as the ledger stores it, relative to `home`."""
    return f"{day}/{STARTED}.log"


def add(day: date, task: str, line: str) -> None:
    """Appends a task's output to the log file of its date, one log line per line of text."""
    with suppress(OSError):  # a full disk must not fail a job that needs no log
        for each in borders.plain(line).split("\n"):
            append(home() / log(day), f"{datetime.now(timezone.utc):%H:%M:%S} {borders.printable(task)}: {each}")


def append(file: Path, line: str) -> None:
    """Appends a line to a file private to this user in one write, so that lines of several processes never mix."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, f"{line}\n".encode())
    finally:
        os.close(handle)


def remove(before: datetime) -> int:
    """Removes the run logs that were last written before a time; returns their number."""
    removed = 0
    for file in home().glob("*/*.log"):
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < before.timestamp():
                file.unlink()
                removed += 1
    for folder in home().glob("*/"):
        with suppress(OSError):  # the directory is not empty
            folder.rmdir()
    return removed


def record_failure(layer: str, dataset: str, day: date, sentence: str) -> None:
    """Records a failed task in the ledger; if PostgreSQL is down, saves the failure for `record_pending`."""
    now, sentence = datetime.now(timezone.utc), borders.plain(sentence)  # no NUL, which PostgreSQL rejects
    try:
        with warehouse.connect() as connection:
            ledger.record_failure(connection, layer, dataset, day, log(day), sentence, now)
    except psycopg.Error:
        row = {"layer": layer, "dataset": dataset, "day": str(day), "log": log(day), "error": sentence, "at": str(now)}
        append(pending(), json.dumps(row))


def record_pending(connection: warehouse.Connection) -> None:
    """Records the failures that were saved while PostgreSQL was down."""
    taken = pending().with_suffix(f".{os.getpid()}")
    with suppress(FileNotFoundError):  # there are none, or another process records them
        pending().rename(taken)
        for failure in read(taken):
            ledger.record_failure(
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
    """Yields the failures saved in a file, except a last line truncated by a full disk."""
    for line in file.read_text().splitlines():
        with suppress(ValueError):
            yield json.loads(line)
