"""The stack that tests run on: real, on free ports, in a directory of its own, gone afterwards."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import settings

PORTS = [
    "POSTGRES_PORT",
    "MINIO_CONSOLE_PORT",
    "SPARK_MASTER_PORT",
    "SPARK_MASTER_WEBUI_PORT",
    "SPARK_WORKER_WEBUI_PORT",
    "SPARK_CONNECT_PORT",
    "SPARK_HISTORY_PORT",
    "LUIGI_PORT",
    "DASHBOARDS_PORT",
]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the system hands out to outgoing connections."""
    free: list[int] = []
    for port in random.sample(range(10_000, 32_000), 1_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                free.append(port)
        if len(free) == count:
            return free
    raise RuntimeError("No free ports.")


def pytest_configure(config: pytest.Config) -> None:
    """Points this process and its children at a stack of the tests' own, before any test can reach another one."""
    home = Path(tempfile.mkdtemp(prefix="healthcare-tests-"))
    config.stash[HOME] = home
    *ports, minio = free_ports(len(PORTS) + 1)
    os.environ |= {name: str(port) for name, port in zip(PORTS, ports, strict=True)}
    os.environ |= {
        "MINIO_ENDPOINT": f"http://127.0.0.1:{minio}",
        "POSTGRES_HOST": "127.0.0.1",
        "STACK_DIR": str(home / "stack"),
        "LANDING_DIR": str(home / "landing"),
        "LUIGI_CONFIG_PATH": str(settings.ROOT / "conf" / "luigi.cfg"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    os.environ.pop("SPARK_REMOTE", None)
    settings.load()
    # A run that is told to end ends like one that was interrupted: its fixtures clean up.
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[HOME], ignore_errors=True)


HOME = pytest.StashKey[Path]()


def run_stack(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m stack` as a person would call it."""
    command = [sys.executable, "-m", "stack", *words]
    return subprocess.run(command, env=os.environ | environment, cwd=settings.ROOT, capture_output=True, text=True)


@pytest.fixture(scope="session")
def stack() -> Iterator[Path]:
    """The running stack, started once for all tests; its directory."""
    try:
        started = run_stack("up")
        if started.returncode:
            pytest.exit(f"The tests' stack did not start.\n{started.stdout}{started.stderr}", returncode=1)
        yield Path(os.environ["STACK_DIR"])
    finally:
        run_stack("down")


@pytest.fixture(scope="session")
def spark(stack: Path) -> Iterator[Any]:
    """A Spark Connect session to the stack."""
    from pyspark.sql import SparkSession

    session = SparkSession.builder.remote(f"sc://127.0.0.1:{os.environ['SPARK_CONNECT_PORT']}").getOrCreate()
    yield session
    session.stop()


@pytest.fixture
def postgres(stack: Path) -> Iterator[Any]:
    """A connection to the stack's warehouse that commits each statement."""
    from stack.services import connect

    with connect() as connection:
        yield connection
