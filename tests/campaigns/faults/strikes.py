"""Implements the faults that strike a job at a boundary, and the repair of the stack afterwards."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import psutil

from jobs import object_store, settings
from stack import services, supervision
from tests.campaigns.faults import ground
from tests.campaigns.faults.proxy import Proxy

LATE = 5.0  # seconds
BALLAST = "ballast"
BACK = 120.0  # seconds within which killed services must be up again


class Boundary(NamedTuple):
    """Describes a moment of a job: a message to a store, and its sender."""

    name: str
    store: str  # postgres or minio
    pattern: str
    sender: str = "driver"
    begun: str = ""  # a message that must pass first


class Blow(NamedTuple):
    """Holds what a strike needs: the job's pid, the boundary, the two proxies and the message's dataset."""

    pid: int
    boundary: Boundary
    proxies: dict[str, Proxy]
    dataset: str


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_driver(blow: Blow) -> bool:
    """Kills the job's process; the Spark Connect server continues its work for the job."""
    kill(blow.pid)
    return blow.boundary.sender == "spark"


def kill_driver_and_wait(blow: Blow) -> bool:
    """Kills the job's process and delays its message until the same command runs again."""
    kill(blow.pid)
    time.sleep(LATE)
    return True


def kill_driver_and_wait_for_the_next(blow: Blow) -> bool:
    """Kills the job's process and delays its rows until the next load has created its staging tables."""
    with ground.connect() as connection:

        def newest() -> int:
            query = "select coalesce(max(oid), 0)::bigint from pg_class where relnamespace = 'staging'::regnamespace"
            return connection.execute(query).fetchone()[0]

        before, began = newest(), time.monotonic()
        kill(blow.pid)
        while newest() <= before and time.monotonic() - began < 30:
            time.sleep(0.02)
        return True


def kill_executors(blow: Blow) -> bool:
    for process in ground.executors():
        kill(process.pid)
    return blow.boundary.sender != "spark"


def kill_service(name: str) -> Callable[[Blow], bool]:
    def strike(_: Blow) -> bool:
        process = supervision.processes().get(name, {})
        if process.get("pid"):
            kill(process["pid"])
        return False

    return strike


def cut(_: Blow) -> bool:
    """Ends the message's connection."""
    return False


def cut_all(blow: Blow) -> bool:
    for proxy in blow.proxies.values():
        proxy.cut()
    return False


def slow(blow: Blow) -> bool:
    """Delays all messages from now on."""
    for proxy in blow.proxies.values():
        proxy.delay = 0.03
    return True


def shut(blow: Blow) -> bool:
    """Ends the connection of every message like this one, however often it is sent."""
    proxy = blow.proxies[blow.boundary.store]
    proxy.refused = proxy.trap and proxy.trap.pattern
    return False


def has_disk() -> bool:
    """Tells whether the stack has a disk of its own, which may be filled."""
    return os.path.ismount(services.stack_dir())


def fill_disk(_: Blow) -> bool:
    """Fills the disk of all services to the last byte."""
    home = services.stack_dir()
    with (home / BALLAST).open("wb") as ballast:
        size = 1 << 26
        while size:
            try:
                os.posix_fallocate(ballast.fileno(), ballast.seek(0, os.SEEK_END), size)
            except OSError:
                size //= 2
    return True


def tear(left: str) -> Callable[[Blow], bool]:
    """Returns a strike that leaves a part of the message in the store without an answer, and refuses retries."""

    def strike(blow: Blow) -> bool:
        shut(blow)
        trap = blow.proxies["minio"].trap
        assert trap is not None
        key = trap.found.split(b"?")[0].split(b" ")[1].decode().lstrip("/").partition("/")[2]
        bucket = settings.get("MINIO_BUCKET_SILVER")
        text = object_store.s3().get_object(Bucket=bucket, Key=key)["Body"].read()
        parts = {"nothing": b"", "half": text[: len(text) // 2], "first line": text[: text.index(b"\n") + 1]}
        object_store.s3().put_object(Bucket=bucket, Key=key, Body=parts[left])
        return False

    return strike


STRIKES: dict[str, Callable[[Blow], bool]] = {
    "kill -9 of the driver": kill_driver,
    "kill -9 of the driver, and the message late": kill_driver_and_wait,
    "kill -9 of the driver, and its rows in the next load": kill_driver_and_wait_for_the_next,
    "kill -9 of the executors": kill_executors,
    "kill -9 of the Connect server": kill_service("spark-connect"),
    "kill -9 of PostgreSQL": kill_service("postgres"),
    "kill -9 of MinIO": kill_service("minio"),
    "kill -9 of luigid": kill_service("luigid"),
    "the connection cut": cut,
    "all connections cut": cut_all,
    "slow answers": slow,
    "the message lost each time": shut,
    "a full disk": fill_disk,
    "an empty commit left": tear("nothing"),
    "half a commit left": tear("half"),
    "a commit's first line left": tear("first line"),
}


def put_right(proxies: dict[str, Proxy]) -> list[str]:
    """Waits until the supervisor has restarted every service; returns those that are not up.

    After a full disk, frees the space and runs `make up`, as an operator would.
    """
    for proxy in proxies.values():
        proxy.trap, proxy.refused, proxy.delay = None, None, 0.0
    ballast = services.stack_dir() / BALLAST
    if ballast.exists():
        ballast.unlink()
        up = [sys.executable, "-m", "stack", "up"]
        done = subprocess.run(up, cwd=settings.ROOT, env=dict(os.environ), capture_output=True, text=True)
        if done.returncode:
            return [f"make up failed: {done.stdout[-300:]}{done.stderr[-300:]}"]
    needed, began = ["postgres", "minio", "luigid", "spark-master", "spark-worker", "spark-connect"], time.monotonic()
    while lacking := ground.lacking(needed):
        if time.monotonic() - began > BACK:
            return [f"{name} lacks {lack}" for name, lack in lacking.items()]
        time.sleep(0.5)
    return []


def password_file(ports: list[int]) -> None:
    """Adds PostgreSQL's password for the proxies' addresses; every service start rewrites the file without them."""
    path = services.stack_dir() / "pgpass"
    lines = path.read_text().splitlines()[:1]
    host, _, rest = lines[0].split(":", 2)
    path.write_text("".join(f"{line}\n" for line in (*lines, *(f"{host}:{port}:{rest}" for port in ports))))


def end_tree(pid: int) -> None:
    """Kills a process and its descendants."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (*process.children(recursive=True), process):
            kill(each.pid)


def restart(name: str) -> Any:
    return supervision.supervisor().stopProcess(name) and supervision.supervisor().startProcess(name)
