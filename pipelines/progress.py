"""Shows the progress of a date's run on a terminal: tasks done of all, running tasks and their duration."""

import multiprocessing
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from typing import TextIO

from luigi.rpc import RPCError
from tqdm import tqdm

from jobs import borders
from pipelines import scheduler

SECONDS = 1.0  # seconds between two queries of luigid
FORMAT = "{n_fmt} of {total_fmt} tasks, {elapsed}{postfix}"


def erase(stream: TextIO) -> str:
    """Returns the characters that erase the progress line, to be written before other output; "" if none is drawn."""
    return "\r\x1b[K" if stream.isatty() and sys.stderr.isatty() else ""


@contextmanager
def shown(day: date) -> Iterator[None]:
    """Draws the progress of a date on the last line of the terminal while the block runs.

    Drawing is done by a separate process: Luigi forks its tasks, which could inherit a drawing thread's lock that is
    never released. Draws nothing if standard error is not a terminal.
    """
    if not sys.stderr.isatty():
        yield
        return
    drawing = multiprocessing.get_context("fork").Process(target=draw, args=(day,), daemon=True)
    drawing.start()
    try:
        yield
    finally:
        drawing.terminate()
        drawing.join()
        print(erase(sys.stderr), end="", file=sys.stderr, flush=True)


def draw(day: date) -> None:
    """Draws the progress until the process is ended."""
    with tqdm(leave=False, dynamic_ncols=True, bar_format=FORMAT) as bar:
        while True:
            with suppress(RPCError):  # the run itself reports that luigid is down
                done, running, bar.total = state(day)
                bar.n = done
                names = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in running)
                bar.set_postfix_str(borders.printable(names), refresh=False)
                bar.refresh()
            time.sleep(SECONDS)


def state(day: date) -> tuple[int, list[tuple[str, float]], int]:
    """Returns the tasks done, the (name, seconds) of running tasks, and the number of all tasks of a date in luigid."""
    found = {
        status: scheduler.tasks(status, day).values() for status in ("PENDING", "RUNNING", "DONE", "FAILED", "DISABLED")
    }
    now = time.time()
    running = [(scheduler.name_of(task), now - (task["time_running"] or now)) for task in found["RUNNING"]]
    return len(found["DONE"]), sorted(running), sum(map(len, found.values()))
