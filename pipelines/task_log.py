"""Turns what Luigi logs of a run into sentences: warnings, its summary, and why a task failed; no stack trace."""

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from botocore.exceptions import BotoCoreError, ClientError
from luigi.rpc import RPCError
from luigi.task_register import TaskClassException

from jobs import borders, program
from jobs.program import Refused
from pipelines import progress, scheduler

SUMMARY = "Luigi Execution Summary"


class Failed(Exception):
    """Signals that a job failed; the message is the job's own sentence, shown without a stack trace.

    `is_printed` tells that the job has already printed the sentence as its last line.
    """

    def __init__(self, sentence: str, is_printed: bool = False) -> None:
        super().__init__(sentence)
        self.is_printed = is_printed


class OnlySentences(logging.Filter):
    """Passes only warnings and the summary of a run; turns each failure into a sentence without a stack trace.

    Drops Luigi's lines about each task that it checks, starts and ends: the jobs' own lines say the same.
    """

    tried = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING and SUMMARY not in record.getMessage():
            return False
        if record.getMessage().startswith("Failed connecting to remote scheduler"):
            told, self.tried, record.exc_info = self.tried, True, None
            return not told
        error, said = record.exc_info[1] if record.exc_info else None, ""
        if isinstance(error, Failed):
            if error.is_printed:
                return False
            said = (
                f"{record.args[-1]} failed: {error}" if isinstance(record.args, tuple) and record.args else str(error)
            )
        elif isinstance(error, RPCError):
            said = "luigid does not answer; see to it with `make status` and `make up`, then run the same again."
            if scheduler.is_refused(error):
                said = "luigid refuses LUIGI_USER and LUIGI_PASSWORD; set those in .env that it was started with."
        elif isinstance(error, TaskClassException):
            said = f"{error}; see who else has the login of luigid."
        elif isinstance(error, ValueError) and "Uncaught" in record.getMessage():
            # Luigi itself parses its own parameters, such as those of RangeDaily.
            said = f"A word of the command line cannot be read: {error}."
        if said:
            record.msg, record.args = said, ()
        if said or error is None:  # Luigi asks for a trace even if there is no error
            record.exc_info = None
        for kind in (Failed, RPCError):
            text, _, sentence = record.getMessage().partition(f"{kind.__module__}.{kind.__name__}: ")
            if sentence:  # the message contains a trace
                record.msg, record.args = f"{text.partition('Traceback')[0].strip()} {sentence.strip()}", ()
        record.msg, record.args = f"{progress.erase(sys.stderr)}{borders.plain(record.getMessage())}", ()
        if record.exc_info:
            record.exc_text = borders.plain("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return True


@contextmanager
def sentences() -> Iterator[None]:
    """Raises Failed in place of the error of a store that is down, a wrong key or an unreadable file."""
    try:
        yield
    except (psycopg.Error, BotoCoreError, ClientError, OSError, Refused) as error:
        raise Failed(program.sentence(error)) from None
