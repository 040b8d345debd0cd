"""Calls the operator's commands when a date fails, and when it succeeds after a failure."""

import os
import shlex
import subprocess
import sys
from contextlib import suppress
from datetime import date
from pathlib import Path

from jobs import borders, settings

SECONDS = 60  # time limit of the operator's command
INHERITED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR")


def failed(day: date, task: str, sentence: str, outcome: str = "failed") -> None:
    """Calls ON_FAILURE and records that the date failed or was stopped by a threshold."""
    place, task, sentence = remembered(day), borders.printable(task), borders.plain(sentence)
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    place.write_text(f"{task}\n{sentence}\n")
    call("ON_FAILURE", day, task, outcome, sentence)


def done(day: date) -> None:
    """Calls ON_RECOVERY if the date had failed before, and clears the record."""
    place = remembered(day)
    with suppress(FileNotFoundError):
        task, _, before = place.read_text().partition("\n")
        place.unlink()
        call("ON_RECOVERY", day, task, "recovered", f"{day} is done; before, it failed: {before.strip()}")


def forget(day: date) -> None:
    """Clears the record of a failed date without calling a command, since the date no longer exists."""
    remembered(day).unlink(missing_ok=True)


def remembered(day: date) -> Path:
    """Returns the file that exists while a date has failed; it is kept outside the stores, since they may be down."""
    return settings.path("STACK_DIR") / "failed" / str(day)


def call(setting: str, day: date, task: str, outcome: str, sentence: str) -> None:
    """Runs the command of a setting, if set, with the sentence on its standard input.

    Sets ALERT_DATE, ALERT_TASK and ALERT_OUTCOME, each on one line, and passes none of the platform's secrets. No shell
    interprets any of them. A failing command is reported in a sentence and has no other effect.
    """
    if not (text := settings.given(setting)).strip():
        return
    told = {"ALERT_DATE": str(day), "ALERT_TASK": borders.printable(task), "ALERT_OUTCOME": outcome}
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    try:
        command = [str(Path(word).expanduser()) if word.startswith("~/") else word for word in shlex.split(text)]
        subprocess.run(
            command,
            input=f"{borders.plain(sentence)}\n",
            encoding="utf-8",
            env=environment | told,
            cwd=settings.ROOT,
            timeout=SECONDS,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        if isinstance(error, subprocess.CalledProcessError):
            reason = f"code {error.returncode}"
        print(f"{setting} could not tell of {day} ({reason}); try its command by hand.", file=sys.stderr, flush=True)
