"""Dates by the clock. That they run is shown where a stack is up: tests/compose."""

import subprocess
import sys

import pytest

from jobs import settings


@pytest.mark.parametrize("crontab", ["every day", "30 25 * * *", "30 1 * *"])
def test_what_is_no_time_of_crontabs_is_refused_with_a_sentence(crontab):
    refused = subprocess.run(
        [sys.executable, "-m", "pipelines", "schedule", crontab], cwd=settings.ROOT, text=True, capture_output=True
    )
    assert refused.returncode == 2
    assert refused.stderr.strip() == (
        f"SCHEDULE {crontab!r} is not a time of crontab's; write five fields, as in: 30 1 * * *"
    )
