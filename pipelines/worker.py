"""Runs Luigi's tasks by a worker in this process, once no other worker has tasks of the same date."""

import sys
import time
from contextlib import suppress
from datetime import date

from luigi.retcodes import retcode, run_with_retcodes
from luigi.rpc import RPCError

from pipelines import progress, scheduler


def luigi_in_turn(day: date, task: str, *options: str) -> int:
    """Runs a Luigi task of a date that the caller has locked, after any other worker on it; returns Luigi's code."""
    # Luigi's own lock would block the second attempt.
    words, told = [task, "--no-lock", *options], False
    while must_wait(code := luigi_code(day, *words)):
        if not told:
            print(f"waiting: luigid knows of another worker with tasks of {day}", file=sys.stderr, flush=True)
        told = True
        time.sleep(2)
    return code


def luigi_code(day: date, task: str, *words: str) -> int:
    """Runs a Luigi task of a date, retrying disabled tasks too; returns Luigi's exit code."""
    scheduler.disabled.cache_clear()
    with progress.shown(day):
        return code_of(task, "--date", str(day), *words)


def code_of(*words: str) -> int:
    """Runs a Luigi task; returns Luigi's exit code."""
    try:
        run_with_retcodes(["--module", "pipelines", "--log-level", "WARNING", *words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def must_wait(code: int) -> bool:
    """Tells whether Luigi stopped because another worker, possibly a dead one, has running tasks.

    luigid notices a dead worker within a minute; until then, tasks that depend on its tasks do not start.
    """
    codes = retcode()
    return code == codes.already_running or (code == codes.not_run and is_a_worker_missed())


def is_a_worker_missed() -> bool:
    """Tells whether a busy worker missed three heartbeats, or luigid has marked its tasks as failed.

    Such tasks can be retried after `retry_delay` at the latest, even if they are disabled.
    """

    def last_heard() -> dict[str, float]:
        return {each["name"]: each["last_active"] for each in scheduler.luigid().worker_list() if each["num_running"]}

    with suppress(RPCError):
        before = last_heard()
        if scheduler.tasks("FAILED") or set(scheduler.tasks("DISABLED")) - scheduler.disabled():
            return True
        time.sleep(3)
        after = last_heard()
        return any(after.get(name, heard) == heard for name, heard in before.items())
    return False
