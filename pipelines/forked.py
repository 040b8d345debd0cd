"""Runs a program in a process forked from this one, which has already imported what the program needs.

A job's imports take about as long as processing a small file.
"""

import ctypes
import gc
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

# None of these opens a connection or starts a thread on import: neither would survive a fork.
NEEDED = (
    "jobs.gold_load",
    "jobs.landing_to_bronze",
    "jobs.mart_build",
    "jobs.silver_partitions",
    "pandas",
    "pyspark.logger",
    "pyspark.sql.connect.client",
    "pyspark.sql.connect.functions",
    "pyspark.sql.connect.readwriter",
    "pyspark.sql.connect.session",
)
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG on Linux
# The first call locates the command line in memory, which works only while the environment is unchanged.
with suppress(UnicodeDecodeError):
    setproctitle.getproctitle()
WORKER = os.getpid()  # Luigi's process; it forks a process for each task, which forks the task's job


class Process(NamedTuple):
    """Holds a running program: its combined standard output and error, and its process."""

    output: BinaryIO
    process: multiprocessing.process.BaseProcess

    @property
    def returncode(self) -> int:
        """Returns the exit code of the ended process; negative for the signal that killed it."""
        return self.process.exitcode or 0


@cache
def preload() -> None:
    """Imports what the jobs need, once, before Luigi forks a process for each task.

    Hides what is imported from the garbage collector: a collection in a forked process would copy the shared memory.
    """
    for module in NEEDED:
        importlib.import_module(module)
    gc.freeze()


@contextmanager
def started(script: str, words: Sequence[str], environment: Mapping[str, str]) -> Iterator[Process]:
    """Starts a program with its own command line and environment, and waits until it ends.

    The process has the command line, output and exit code of a program started by itself, and is killed if the process
    that started it dies. Call this only in the main thread: a forked process has no other threads, and Linux treats the
    end of the forking thread as the death of the parent.
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
    """Turns this newly forked process into one that runs a program; never returns."""
    die_with(parent)
    program.OPEN.clear()  # only the parent may close its sessions
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.stdout = open(1, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115  # open to the end
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
    """Makes Linux kill this process when its parent, the process with that id, dies.

    Both share connections, and PostgreSQL releases a connection's locks only when no process holds it.
    """
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
