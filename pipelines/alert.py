"""Tells the operator's own command that a date has failed, or that it is done after it had failed."""

import os
import shlex
import subprocess
import sys
from contextlib import suppress
from datetime import date
from pathlib import Path

from jobs import borders, settings

SECONDS = 60  # after which the operator's command is ended
INHERITED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR")


def failed(day: date, task: str, sentence: str, outcome: str = "failed") -> None:
    """Calls ON_FAILURE, and remembers that the date has failed, or that a threshold has stopped it."""
    place, task, sentence = remembered(day), borders.printable(task), borders.plain(sentence)
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    place.write_text(f"{task}\n{sentence}\n")
    call("ON_FAILURE", day, task, outcome, sentence)


def done(day: date) -> None:
    """Calls ON_RECOVERY if the date had failed before, and forgets that."""
    place = remembered(day)
    with suppress(FileNotFoundError):
        task, _, before = place.read_text().partition("\n")
        place.unlink()
        call("ON_RECOVERY", day, task, "recovered", f"{day} is done; before, it failed: {before.strip()}")


def forget(day: date) -> None:
    """Forgets that a date has failed, without a word: it is there no more."""
    remembered(day).unlink(missing_ok=True)


def remembered(day: date) -> Path:
    """The file that is there while a date has failed; kept beside the stores, since these may be what is down."""
    return settings.path("STACK_DIR") / "failed" / str(day)


def call(setting: str, day: date, task: str, outcome: str, sentence: str) -> None:
    """Runs the command of a setting, if there is one, with the sentence on its standard input.

    ALERT_DATE, ALERT_TASK and ALERT_OUTCOME are in its environment, each on one line, and none of the platform's
    secrets. No shell reads any of it. That the command fails is told in a sentence and changes nothing.
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
