"""Runs dates by the clock: each that has ended, and those of the last days that were missed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from threading import Event

import psycopg
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.cron import CronTrigger

from jobs import borders, exports, landing, program, settings, warehouse
from jobs.catalog import CATALOG, expected
from jobs.program import Refused
from pipelines import alert, runs
from stack import backup

PAUSE = timedelta(minutes=5)  # before a date that failed, or lacks a file, is tried again
TRIES = 3  # of a date whose files are there
GRACE = timedelta(seconds=30)  # between the request to end and the kill of a run whose time is over
ended = Event()  # the schedule itself is ended: what it has started ends as well


def by(crontab: str) -> None:
    """Waits for ever, and runs what is due at the times of a crontab line (UTC); an empty one is never."""
    scheduler = BlockingScheduler(timezone=timezone.utc)
    timeout()  # a wrong number is told now, and not at night
    if times := backup.trigger():
        scheduler.add_job(back_up, times, misfire_grace_time=None, coalesce=True, max_instances=1)
        print(f"Takes a backup at {settings.given('BACKUP_SCHEDULE')} (UTC).", flush=True)
    if crontab.strip():
        try:
            trigger = CronTrigger.from_crontab(crontab, timezone=timezone.utc)
        except ValueError:
            raise Refused(
                f"SCHEDULE {crontab!r} is not a time of crontab's; write five fields, as in: 15 6 * * *"
            ) from None
        catch_up_days()
        # A run that is late is made up for, and never beside another one.
        scheduler.add_job(nightly, trigger, misfire_grace_time=None, coalesce=True, max_instances=1)
        print(f"Runs the dates that have ended, at {crontab} (UTC).", flush=True)
    else:
        print("No SCHEDULE: runs what it is asked for.", flush=True)
    try:
        scheduler.start()
    finally:
        ended.set()


def catch_up_days() -> int:
    """The number of ended dates that a scheduled run looks at; Refused where CATCH_UP_DAYS is no such number."""
    text = settings.given("CATCH_UP_DAYS") or "7"
    if not text.isdecimal() or not 0 < int(text) <= 366:
        raise Refused(f"CATCH_UP_DAYS is {borders.quoted(text)}; write a number of days from 1 to 366, as in: 7")
    return int(text)


def timeout() -> timedelta:
    """The time that a scheduled run may take; Refused where SCHEDULE_TIMEOUT is no number of hours below a day."""
    text = settings.given("SCHEDULE_TIMEOUT") or "12"
    with suppress(ValueError):
        if 0 < (hours := float(text)) < 24:
            return timedelta(hours=hours)
    raise Refused(f"SCHEDULE_TIMEOUT is {borders.quoted(text)}; write a number of hours below 24, as in: 12")


def nightly() -> None:
    """Runs what is due, and then maintenance; each says why it fails. Both end when the time of the run is over."""
    until = now() + timeout()
    run_due(until)
    if now() >= until or run(["maintain"], until) is None:
        print("Maintenance is left to the next scheduled run: the time of this one is over.", flush=True)


def back_up() -> None:
    """Takes a backup, which says why it fails, as `make health` does; one that hangs would hold up every run."""
    if run(["scheduled"], now() + timeout(), "stack.backup") is None:
        print("The backup was ended: it took longer than SCHEDULE_TIMEOUT allows, or the schedule ended.", flush=True)


def run(words: list[str], until: datetime, module: str = "pipelines") -> int | None:
    """Runs a command of ours; returns its code, or None where it took too long and was ended with what it started."""
    process = subprocess.Popen([sys.executable, "-m", module, *words], start_new_session=True)
    while not ended.is_set() and now() < until:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=1)
    end(process)
    return None


def end(process: subprocess.Popen[bytes]) -> None:
    """Asks the group of a process to end, and kills what is still there after GRACE: jobs and their children too."""
    last = time.monotonic() + GRACE.total_seconds()
    with suppress(ProcessLookupError):  # the group is gone
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < last:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_due(until: datetime) -> None:
    """Runs yesterday and the dates before it that were missed, oldest first.

    A date that fails is tried again twice. One whose files are not all there is waited for until they are due
    (`due_hours` of the catalog), and then run as it is, so that the ledger says what is missing. `make run` itself says
    why a date fails; a date that is current takes it seconds. What is not done when the time of the scheduled run is
    over fails, and is left to the next one.
    """
    waiting, tries = due_dates(), dict[date, int]()
    while waiting and not ended.is_set():
        again = []
        for day in waiting:
            if ended.is_set():
                return
            if now() >= until:
                if day not in tries:  # else its own run has said why it failed
                    fail(day, "was not run")
                continue
            if missing(day) and now() < due(day):
                again.append(day)
                continue
            tries[day] = tries.get(day, 0) + 1
            code = run(["run", str(day)], until)
            if code is None:
                if not ended.is_set():
                    fail(day, "was ended with all its jobs")
                continue
            print(f"{day}: {'done' if code == 0 else f'failed with code {code}'}", flush=True)
            if code and tries[day] < TRIES:
                again.append(day)
        waiting = again
        if waiting:
            print(f"{', '.join(map(str, waiting))}: tried again in {PAUSE.seconds // 60} minutes", flush=True)
            time.sleep(max(0.0, min(PAUSE, until - now()).total_seconds()))


def fail(day: date, what: str) -> None:
    """Tells of a date that the time of the scheduled run did not suffice for, as of any other that fails."""
    hours = timeout() / timedelta(hours=1)
    sentence = (
        f"{day} {what}: the scheduled run took longer than {hours:g} hours. Look for what hangs (`make health`); the "
        "next scheduled run tries the date again, and SCHEDULE_TIMEOUT gives it more time."
    )
    print(sentence, file=sys.stderr, flush=True)
    runs.add(day, "Day", sentence)
    runs.record_failure("run", "all", day, sentence)
    alert.failed(day, "Day", sentence)


def due_dates() -> list[date]:
    """The dates that a scheduled run looks at; none where PostgreSQL stays down, which is told in a sentence."""
    for left in reversed(range(TRIES)):
        try:
            return list(dates(now().date()))
        except psycopg.Error as error:
            print(f"{program.sentence(error)} The scheduled run is tried again.", file=sys.stderr, flush=True)
            if left:
                time.sleep(PAUSE.seconds)
    return []


def now() -> datetime:
    return datetime.now(timezone.utc)


def dates(today: date) -> Iterator[date]:
    """Yields the dates to run, oldest first: yesterday, and earlier ones with landed files that were not forgotten."""
    with warehouse.connect() as connection:
        found = connection.execute("select partition_date from ops.never_ran where layer = 'forget'").fetchall()
    for ago in range(catch_up_days(), 0, -1):
        day = today - timedelta(days=ago)
        if (day,) not in found and (ago == 1 or len(missing(day)) < len(expected(day))):
            yield day


def missing(day: date) -> list[str]:
    """Lists the datasets whose file of a date has not landed; none where the date comes by a source."""
    if exports.folders(day):
        return []
    return [name for name, dataset in expected(day).items() if not landing.landing_path(dataset, day).is_file()]


def due(day: date) -> datetime:
    """Returns the time (UTC) at which the last missing file of a date is due."""
    hours = max((CATALOG[name].due_hours for name in missing(day)), default=0)
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc) + timedelta(days=1, hours=hours)
