"""Checks the schedule of dates; tests/flow/test_flow.py and tests/campaigns/compose run it on a stack."""

import subprocess
import sys
import time
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone

import psutil
import pytest

from jobs import settings
from jobs.catalog import CATALOG
from pipelines import alert, runs, schedule


@pytest.mark.parametrize("crontab", ["every day", "30 25 * * *", "30 1 * *"])
def test_what_is_no_time_of_crontabs_is_refused_with_a_sentence(crontab):
    refused = subprocess.run(
        [sys.executable, "-m", "pipelines", "schedule", crontab], cwd=settings.ROOT, text=True, capture_output=True
    )
    assert refused.returncode == 2
    assert refused.stderr.strip() == (
        f"SCHEDULE {crontab!r} is not a time of crontab's; write five fields, as in: 15 6 * * *"
    )


@pytest.mark.parametrize("days", ["0", "-1", "a week", "367"])
def test_a_number_of_days_to_catch_up_that_is_none_is_refused(monkeypatch, days):
    monkeypatch.setenv("CATCH_UP_DAYS", days)
    with pytest.raises(schedule.Refused, match="CATCH_UP_DAYS"):
        schedule.by("15 6 * * *")


@pytest.mark.parametrize("hours", ["0", "-1", "24", "nan", "a night"])
def test_a_time_of_the_scheduled_run_that_is_none_is_refused(monkeypatch, hours):
    monkeypatch.setenv("SCHEDULE_TIMEOUT", hours)
    with pytest.raises(schedule.Refused, match="SCHEDULE_TIMEOUT"):
        schedule.by("15 6 * * *")


class Night:
    """Simulates a scheduled run with the test's clock and `make run`; records the dates and times of runs."""

    def __init__(self, monkeypatch, landing, codes):
        self.now, self.codes, self.ran, self.landing = (
            datetime(2026, 3, 2, 1, 30, tzinfo=timezone.utc),
            codes,
            [],
            landing,
        )
        monkeypatch.setenv("LANDING_DIR", str(landing))
        monkeypatch.setattr(schedule, "now", lambda: self.now)
        monkeypatch.setattr(schedule, "due_dates", lambda: [date(2026, 2, 27), date(2026, 3, 1)])
        monkeypatch.setattr(schedule.time, "sleep", self.sleep)
        monkeypatch.setattr(schedule, "run", self.run)

    def run_due(self):
        schedule.run_due(self.now + timedelta(hours=12))

    def sleep(self, seconds):
        self.now += timedelta(seconds=seconds)

    def land(self, day, names=CATALOG):
        folder = self.landing / f"{day:%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / f"{name}.csv").touch()

    def run(self, words, until):
        self.ran.append((words[-1], f"{self.now:%H:%M}"))
        return self.codes.pop(0) if self.codes else 0


def test_a_date_that_fails_is_tried_again_twice_and_the_others_are_run(monkeypatch, tmp_path):
    night = Night(monkeypatch, tmp_path, codes=[1, 0, 1, 1])
    for day in schedule.due_dates():
        night.land(day)
    night.run_due()
    assert night.ran == [
        ("2026-02-27", "01:30"),
        ("2026-03-01", "01:30"),
        ("2026-02-27", "01:35"),
        ("2026-02-27", "01:40"),
    ]


def test_a_file_that_is_missing_is_waited_for_until_it_is_due(monkeypatch, tmp_path):
    night = Night(monkeypatch, tmp_path, codes=[0, 30, 30, 30])
    night.land(date(2026, 2, 27))
    night.land(date(2026, 3, 1), ["patients"])
    night.run_due()
    assert night.ran[:2] == [("2026-02-27", "01:30"), ("2026-03-01", "06:00")] and len(night.ran) == 4


def test_a_file_that_comes_meanwhile_is_run_at_once(monkeypatch, tmp_path):
    night = Night(monkeypatch, tmp_path, codes=[])
    night.land(date(2026, 2, 27))
    waits = night.sleep
    monkeypatch.setattr(schedule.time, "sleep", lambda seconds: (waits(seconds), night.land(date(2026, 3, 1))))
    night.run_due()
    assert night.ran == [("2026-02-27", "01:30"), ("2026-03-01", "01:35")]


# ---- a run that takes too long ---------------------------------------------------------------------------------------

# Hangs with a job that hangs, both ignoring SIGTERM, on the first night; ends at once on any later night.
HUNG = """
import pathlib, signal, subprocess, sys, time
day, place = sys.argv[-1], pathlib.Path({place!r})
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
if day == "2026-02-27" and not (place / "hung").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    job = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    job.stdout.readline()
    (place / "hung").write_text(f"{{__import__('os').getpid()}} {{job.pid}}")
    time.sleep(600)
(place / day).touch()
"""


@pytest.fixture
def hung(tmp_path, monkeypatch):
    """Provides a `python -m pipelines` whose first date hangs, and a schedule with a time limit of seconds."""
    modules = tmp_path / "modules" / "pipelines"
    modules.mkdir(parents=True)
    (modules / "__init__.py").touch()
    (modules / "__main__.py").write_text(HUNG.format(place=str(tmp_path)))
    (tmp_path / "told.sh").write_text(f"#!/bin/sh\ncat >> {tmp_path}/told\n")
    (tmp_path / "told.sh").chmod(0o755)
    settings.load()
    monkeypatch.chdir(tmp_path / "modules")
    monkeypatch.setenv("STACK_DIR", str(tmp_path / "stack"))
    monkeypatch.setenv("LANDING_DIR", str(tmp_path / "landing"))
    monkeypatch.setenv("ON_FAILURE", str(tmp_path / "told.sh"))
    monkeypatch.setenv("POSTGRES_PORT", "1")  # nothing listens there: the failure is recorded later
    monkeypatch.setenv("SCHEDULE_TIMEOUT", str(3 / 3600))
    monkeypatch.setattr(schedule, "GRACE", timedelta(seconds=1))
    monkeypatch.setattr(schedule, "due_dates", lambda: [date(2026, 2, 27), date(2026, 3, 1)])
    return tmp_path


def ends(process):
    """Tells whether a killed process is gone, or a zombie, within seconds: on a busy machine it takes a moment."""
    until = time.monotonic() + 10
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
    return True


def test_a_run_that_hangs_is_ended_with_its_jobs_and_told_and_the_next_night_runs(hung, capfd):
    began = time.monotonic()
    schedule.nightly()
    assert 3 <= time.monotonic() - began < 20
    for process in map(int, (hung / "hung").read_text().split()):
        assert ends(process)
    hanging, late = (hung / "told").read_text().splitlines()
    assert hanging.startswith("2026-02-27 was ended with all its jobs: the scheduled run took longer than")
    assert late.startswith("2026-03-01 was not run: the scheduled run took longer than")
    assert "Maintenance is left to the next scheduled run" in capfd.readouterr().out
    assert alert.remembered(date(2026, 2, 27)).is_file()
    assert [row["day"] for row in runs.read(runs.pending())] == ["2026-02-27", "2026-03-01"]
    assert not (hung / "2026-03-01").exists() and not (hung / "maintain").exists()
    schedule.nightly()
    assert {"2026-02-27", "2026-03-01", "maintain"} <= {path.name for path in hung.iterdir()}


def test_what_runs_ends_with_the_schedule(hung, monkeypatch):
    monkeypatch.setattr(schedule, "ended", type("Ended", (), {"is_set": lambda self: (hung / "hung").exists()})())
    monkeypatch.setenv("SCHEDULE_TIMEOUT", "1")
    schedule.run_due(schedule.now() + schedule.timeout())
    for process in map(int, (hung / "hung").read_text().split()):
        assert ends(process)
    assert not (hung / "told").exists() and not (hung / "2026-03-01").exists()


def test_a_backup_that_hangs_is_ended_like_a_run_for_it_holds_up_every_run(tmp_path, monkeypatch, capfd):
    """Replaces the backup with a program that never ends, and checks that it is ended after the time limit."""
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(schedule, "timeout", lambda: timedelta(seconds=2))
    monkeypatch.setattr(schedule, "GRACE", timedelta(seconds=2))
    run, began = schedule.run, time.monotonic()
    monkeypatch.setattr(schedule, "run", lambda words, until, module: run(words, until, "hangs"))
    schedule.back_up()
    assert time.monotonic() - began < 30
    assert "The backup was ended" in capfd.readouterr().out
