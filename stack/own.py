"""Sets up a separate stack for tests and benchmarks, on free ports and in its own directory."""

import os
import random
import signal
import socket
import sys
from pathlib import Path

from jobs import settings
from stack import services

PORTS = [name for service in services.SERVICES.values() for name in service.ports if name != "MINIO_ENDPOINT"]


CANDIDATES = range(10_000, 32_000)  # below the ports that the system uses for outgoing connections


def free_ports(count: int) -> list[int]:
    """Returns free ports among CANDIDATES."""
    free: list[int] = []
    for port in random.sample(CANDIDATES, 1_000):
        with socket.socket() as probe:
            if probe.connect_ex((services.LOOPBACK, port)):
                free.append(port)
        if len(free) == count:
            return free
    raise RuntimeError("No free ports.")


def addresses(home: Path) -> dict[str, str]:
    """Returns the settings of a stack in `home` that listens on free ports."""
    *ports, minio = free_ports(len(PORTS) + 1)
    return {
        **{name: str(port) for name, port in zip(PORTS, ports, strict=True)},
        "MINIO_ENDPOINT": f"http://{services.LOOPBACK}:{minio}",
        **{name: services.LOOPBACK for name in ("POSTGRES_HOST", "SPARK_CONNECT_HOST", "LUIGI_HOST")},
        "STACK_DIR": str(home / "stack"),
        "LANDING_DIR": str(home / "landing"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def set_apart(home: Path) -> None:
    """Points this process and its children at a stack in `home`, before they can reach another one."""
    os.environ |= addresses(home) | {"LUIGI_CONFIG_PATH": str(settings.ROOT / "conf" / "luigi.cfg")}
    os.environ.pop("SPARK_REMOTE", None)
    settings.load()
    be_interrupted_by_sigterm()


def be_interrupted_by_sigterm() -> None:
    """Makes SIGTERM and SIGHUP interrupt this process, so that it can stop its stack."""
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.default_int_handler)
