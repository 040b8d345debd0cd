"""Dates by the clock. That they run is shown where a stack is up: tests/test_flow.py, tests/compose."""

import subprocess
import sys
from datetime import date, datetime, timedelta, timezone

import pytest

from jobs import settings
from jobs.catalog import CATALOG
from pipelines import schedule


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


class Night:
    """A scheduled run whose clock and whose `make run` are the test's: what was run when, and with which result."""

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
        monkeypatch.setattr(schedule.subprocess, "run", self.run)

    def sleep(self, seconds):
        self.now += timedelta(seconds=seconds)

    def land(self, day, names=CATALOG):
        folder = self.landing / f"{day:%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / f"{name}.csv").touch()

    def run(self, command):
        code = self.codes.pop(0) if self.codes else 0
        self.ran.append((command[-1], f"{self.now:%H:%M}"))
        return subprocess.CompletedProcess(command, code)


def test_a_date_that_fails_is_tried_again_twice_and_the_others_are_run(monkeypatch, tmp_path):
    night = Night(monkeypatch, tmp_path, codes=[1, 0, 1, 1])
    for day in schedule.due_dates():
        night.land(day)
    schedule.run_due()
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
    schedule.run_due()
    assert night.ran[:2] == [("2026-02-27", "01:30"), ("2026-03-01", "06:00")] and len(night.ran) == 4


def test_a_file_that_comes_meanwhile_is_run_at_once(monkeypatch, tmp_path):
    night = Night(monkeypatch, tmp_path, codes=[])
    night.land(date(2026, 2, 27))
    waits = night.sleep
    monkeypatch.setattr(schedule.time, "sleep", lambda seconds: (waits(seconds), night.land(date(2026, 3, 1))))
    schedule.run_due()
    assert night.ran == [("2026-02-27", "01:30"), ("2026-03-01", "01:35")]
