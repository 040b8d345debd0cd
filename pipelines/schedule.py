"""Runs dates by the clock."""

import subprocess
import sys
from datetime import datetime, timedelta, timezone

from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.cron import CronTrigger

from jobs.program import Refused


def by(crontab: str) -> None:
    """Waits for ever, and at the times of a crontab line (UTC) runs the date that has ended; an empty one is never."""
    scheduler = BlockingScheduler(timezone=timezone.utc)
    if crontab.strip():
        try:
            trigger = CronTrigger.from_crontab(crontab, timezone=timezone.utc)
        except ValueError:
            raise Refused(
                f"SCHEDULE {crontab!r} is not a time of crontab's; write five fields, as in: 30 1 * * *"
            ) from None
        # A run that is late is made up for, and never beside another one.
        scheduler.add_job(yesterday, trigger, misfire_grace_time=None, coalesce=True, max_instances=1)
        print(f"Runs the date that has ended, at {crontab} (UTC).", flush=True)
    else:
        print("No SCHEDULE: runs what it is asked for.", flush=True)
    scheduler.start()


def yesterday() -> None:
    """The date that has ended through all layers, the pages made anew, and maintenance; each says why it fails."""
    day = (datetime.now(timezone.utc) - timedelta(days=1)).date()
    run = subprocess.run([sys.executable, "-m", "pipelines", "run", str(day)])
    if run.returncode == 0:
        run = subprocess.run([sys.executable, "-m", "dashboards.pages"])
    if run.returncode == 0:
        run = subprocess.run([sys.executable, "-m", "pipelines", "maintain"])
    print(f"{day}: {'done' if run.returncode == 0 else f'failed with code {run.returncode}'}", flush=True)
