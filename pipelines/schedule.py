"""Runs dates on a schedule: each date once it has ended, and missed dates of the last days."""

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

PAUSE = timedelta(minutes=5)  # before retrying a date that failed or lacks a file
TRIES = 3  # attempts for a date whose files have all landed
GRACE = timedelta(seconds=30)  # between SIGTERM and SIGKILL for a run that exceeds its time
ended = Event()  # set when the schedule itself must end, which ends the processes it started


def by(crontab: str) -> None:
    """Runs what is due at the times of a crontab line (UTC), forever; an empty line never runs."""
    scheduler = BlockingScheduler(timezone=timezone.utc)
    timeout()  # reports an invalid number now rather than at night
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
        # A missed run is caught up once, and never runs at the same time as another.
        scheduler.add_job(nightly, trigger, misfire_grace_time=None, coalesce=True, max_instances=1)
        print(f"Runs the dates that have ended, at {crontab} (UTC).", flush=True)
    else:
        print("No SCHEDULE: runs what it is asked for.", flush=True)
    try:
        scheduler.start()
    finally:
        ended.set()


def catch_up_days() -> int:
    """Returns how many ended dates a scheduled run checks; raises Refused if CATCH_UP_DAYS is not in 1 to 366."""
    text = settings.given("CATCH_UP_DAYS") or "7"
    if not text.isdecimal() or not 0 < int(text) <= 366:
        raise Refused(f"CATCH_UP_DAYS is {borders.quoted(text)}; write a number of days from 1 to 366, as in: 7")
    return int(text)


def timeout() -> timedelta:
    """Returns the time limit of a scheduled run; raises Refused unless SCHEDULE_TIMEOUT is hours below 24."""
    text = settings.given("SCHEDULE_TIMEOUT") or "12"
    with suppress(ValueError):
        if 0 < (hours := float(text)) < 24:
            return timedelta(hours=hours)
    raise Refused(f"SCHEDULE_TIMEOUT is {borders.quoted(text)}; write a number of hours below 24, as in: 12")


def nightly() -> None:
    """Runs what is due and then maintenance, both within the time limit; each reports its own failures."""
    until = now() + timeout()
    run_due(until)
    if now() >= until or run(["maintain"], until) is None:
        print("Maintenance is left to the next scheduled run: the time of this one is over.", flush=True)


def back_up() -> None:
    """Takes a backup, which reports its own failures; ends one that hangs, since it would hold up every run."""
    if run(["scheduled"], now() + timeout(), "stack.backup") is None:
        print("The backup was ended: it took longer than SCHEDULE_TIMEOUT allows, or the schedule ended.", flush=True)


def run(words: list[str], until: datetime, module: str = "pipelines") -> int | None:
    """Runs one of the platform's commands; returns its code, or None if it was ended for exceeding its time."""
    process = subprocess.Popen([sys.executable, "-m", module, *words], start_new_session=True)
    while not ended.is_set() and now() < until:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=1)
    end(process)
    return None


def end(process: subprocess.Popen[bytes]) -> None:
    """Sends SIGTERM to a process group, jobs and their children included, and SIGKILL after GRACE."""
    last = time.monotonic() + GRACE.total_seconds()
    with suppress(ProcessLookupError):  # the group no longer exists
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < last:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_due(until: datetime) -> None:
    """Runs yesterday and earlier missed dates, oldest first.

    Retries a failed date twice. Waits for missing files until they are due (`due_hours` of the catalog), then runs the
    date anyway, so that the ledger records what is missing. `make run` reports why a date fails, and takes
    seconds for a current date. When the time limit ends, the dates that remain are recorded as failed; the next
    scheduled run tries them again.
    """
    waiting, tries = due_dates(), dict[date, int]()
    while waiting and not ended.is_set():
        again = []
        for day in waiting:
            if ended.is_set():
                return
            if now() >= until:
                if day not in tries:  # otherwise its own run has reported why it failed
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
    """Reports a date that exceeded the time limit of the scheduled run, like any other failure."""
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
    """Returns the dates that a scheduled run checks; if PostgreSQL stays down, reports that and returns none."""
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
    """Lists the datasets whose file of a date has not landed; none if the files come from a source."""
    if exports.folders(day):
        return []
    return [name for name, dataset in expected(day).items() if not landing.landing_path(dataset, day).is_file()]


def due(day: date) -> datetime:
    """Returns the time (UTC) at which the last missing file of a date is due."""
    hours = max((CATALOG[name].due_hours for name in missing(day)), default=0)
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc) + timedelta(days=1, hours=hours)
