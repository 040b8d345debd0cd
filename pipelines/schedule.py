"""Runs dates by the clock: each that has ended, and those of the last days that were missed."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone

import psycopg
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.cron import CronTrigger

from jobs import borders, landing, program, settings, warehouse
from jobs.catalog import CATALOG, expected
from jobs.program import Refused

PAUSE = timedelta(minutes=5)  # before a date that failed, or lacks a file, is tried again
TRIES = 3  # of a date whose files are there


def by(crontab: str) -> None:
    """Waits for ever, and runs what is due at the times of a crontab line (UTC); an empty one is never."""
    scheduler = BlockingScheduler(timezone=timezone.utc)
    if crontab.strip():
        try:
            trigger = CronTrigger.from_crontab(crontab, timezone=timezone.utc)
        except ValueError:
            raise Refused(
                f"SCHEDULE {crontab!r} is not a time of crontab's; write five fields, as in: 15 6 * * *"
            ) from None
        catch_up_days()  # a wrong number is told now, and not at night
        # A run that is late is made up for, and never beside another one.
        scheduler.add_job(nightly, trigger, misfire_grace_time=None, coalesce=True, max_instances=1)
        print(f"Runs the dates that have ended, at {crontab} (UTC).", flush=True)
    else:
        print("No SCHEDULE: runs what it is asked for.", flush=True)
    scheduler.start()


def catch_up_days() -> int:
    """The number of ended dates that a scheduled run looks at; Refused where CATCH_UP_DAYS is no such number."""
    text = settings.given("CATCH_UP_DAYS") or "7"
    if not text.isdecimal() or not 0 < int(text) <= 366:
        raise Refused(f"CATCH_UP_DAYS is {borders.quoted(text)}; write a number of days from 1 to 366, as in: 7")
    return int(text)


def nightly() -> None:
    """Runs what is due, and then maintenance; each says why it fails."""
    run_due()
    subprocess.run([sys.executable, "-m", "pipelines", "maintain"])


def run_due() -> None:
    """Runs yesterday and the dates before it that were missed, oldest first.

    A date that fails is tried again twice. One whose files are not all there is waited for until they are due
    (`due_hours` of the catalog), and then run as it is, so that the ledger says what is missing. `make run` itself says
    why a date fails; a date that is current takes it seconds.
    """
    waiting, tries = due_dates(), dict[date, int]()
    while waiting:
        again = []
        for day in waiting:
            if missing(day) and now() < due(day):
                again.append(day)
                continue
            tries[day] = tries.get(day, 0) + 1
            code = subprocess.run([sys.executable, "-m", "pipelines", "run", str(day)]).returncode
            print(f"{day}: {'done' if code == 0 else f'failed with code {code}'}", flush=True)
            if code and tries[day] < TRIES:
                again.append(day)
        waiting = again
        if waiting:
            print(f"{', '.join(map(str, waiting))}: tried again in {PAUSE.seconds // 60} minutes", flush=True)
            time.sleep(PAUSE.seconds)


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
    """Lists the datasets whose file of a date has not landed."""
    return [name for name, dataset in expected(day).items() if not landing.landing_path(dataset, day).is_file()]


def due(day: date) -> datetime:
    """Returns the time (UTC) at which the last missing file of a date is due."""
    hours = max((CATALOG[name].due_hours for name in missing(day)), default=0)
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc) + timedelta(days=1, hours=hours)
