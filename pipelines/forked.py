"""Runs a program in a process forked from this one, which has imported what the program needs: a job's imports take
about as long as a small file.
"""

import ctypes
import importlib
import multiprocessing
import os
import runpy
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import BinaryIO, NamedTuple

import setproctitle

from jobs import program

# None of them opens a connection or starts a thread when it is imported: neither survives a fork.
NEEDED = (
    "jobs.bronze_to_silver",
    "jobs.gold_to_marts",
    "jobs.landing_to_bronze",
    "jobs.silver_to_gold",
    "pandas",
    "pyspark.logger",
    "pyspark.sql.connect.client",
    "pyspark.sql.connect.functions",
    "pyspark.sql.connect.readwriter",
    "pyspark.sql.connect.session",
)
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
# The first call finds the command line in memory, which works while the environment is as it was at the start.
with suppress(UnicodeDecodeError):
    setproctitle.getproctitle()
WORKER = os.getpid()  # Luigi's, which forks a process for each task; a task's process forks its job


class Process(NamedTuple):
    """Holds a program that runs: its standard output and error as one stream, and its process."""

    output: BinaryIO
    process: multiprocessing.process.BaseProcess

    @property
    def returncode(self) -> int:
        """Returns the exit code, once it has ended: negative for the signal that killed it."""
        return self.process.exitcode or 0


@cache
def preload() -> None:
    """Imports what the jobs need, once, in the process that Luigi forks for each task."""
    for module in NEEDED:
        importlib.import_module(module)


@contextmanager
def started(script: str, words: Sequence[str], environment: Mapping[str, str]) -> Iterator[Process]:
    """Starts a program with words of a command line and settings of its own, and waits for its end.

    The process has the command line, output and exit code of a program that was called by itself. It is killed when the
    process that started it dies. Call this in the main thread alone: a forked process has no other threads, and Linux
    counts the end of the thread that forked as the death of the parent.
    """
    if os.getpid() != WORKER:
        die_with(WORKER)
    receiving, sending = os.pipe()
    process = multiprocessing.get_context("fork").Process(
        target=become, args=(script, words, environment, sending, os.getpid())
    )
    with open(receiving, "rb") as output:
        try:
            process.start()
        finally:
            os.close(sending)
        try:
            yield Process(output, process)
        finally:
            process.join()


def become(script: str, words: Sequence[str], environment: Mapping[str, str], output: int, parent: int) -> None:
    """Turns this process, which has just been forked, into one that runs a program; never returns."""
    die_with(parent)
    program.OPEN.clear()  # the parent's sessions are the parent's to end
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.stdout = open(1, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115  # they last as long as it does
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    os.environ |= environment
    warnings.simplefilter("ignore")
    sys.argv = [script, *words]
    setproctitle.setproctitle(" ".join([sys.executable, *sys.argv]))
    try:
        runpy.run_path(script, run_name="__main__")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        program.close_sessions()
        sys.stdout.flush()


def die_with(parent: int) -> None:
    """Has Linux kill this process when its parent, the process of that id, dies.

    The two share connections, and PostgreSQL frees a connection's locks only when no process holds it any more.
    """
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
