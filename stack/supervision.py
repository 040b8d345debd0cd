"""Starts, watches and stops the services through supervisord."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Container
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

import psutil

from jobs import settings
from stack import jars, passwords, prepare, services
from stack.services import SERVICES, stack_dir

SILENCE = 180  # seconds without a new log line before waiting for a service is given up
ALIVE = ("STARTING", "RUNNING", "BACKOFF")  # states in which supervisord manages a process
STARTS = 3  # starts of one service before it is given up


@cache
def opened(directory: Path) -> int:
    """Opens a directory; the descriptor gives its files a short path."""
    return os.open(directory, os.O_RDONLY)


def supervisor() -> Any:
    """Returns supervisord's remote interface; calls raise OSError if it does not run."""
    from supervisor.xmlrpc import SupervisorTransport

    # Socket paths are limited to about 100 characters, and STACK_DIR may be longer.
    socket_url = f"unix:///proc/self/fd/{opened(stack_dir())}/supervisor.sock"
    return ServerProxy("http://localhost", SupervisorTransport(None, None, socket_url)).supervisor


def processes() -> dict[str, dict[str, Any]]:
    """Returns supervisord's record of each service; empty if it does not run."""
    try:
        return {process["name"]: process for process in supervisor().getAllProcessInfo()}
    except OSError:
        return {}


def leftovers() -> list[psutil.Process]:
    """Lists this stack's processes, whatever their parent, except supervisord; each with its name in `info`.

    Each process is read once, since it may end at any moment; one that ends while it is read is left out.
    """
    home, found = str(stack_dir()), []
    for process in psutil.process_iter(["name", "cwd", "environ"]):
        known = process.info
        # PostgreSQL overwrites its environment with its title, but never leaves its data directory.
        is_postgres = known["name"] == "postgres" and known["cwd"] == f"{home}/postgres"
        if is_postgres or (known["environ"] or {}).get("STACK_OF") == home:
            found.append(process)
    return [process for process in found if process.pid != os.getpid()]


def up(given: Container[str] = ()) -> None:
    """Starts every service that does not run and waits until all answer; idempotent.

    Skips secrets that the environment provides (`given`) when it completes `.env`.
    """
    began = time.monotonic()
    passwords.settle(given)
    refuse_open()
    prepare.state_directory()
    with prepare.alone(stack_dir() / "up.lock"):
        known = processes()
        missing = [name for name in SERVICES if known.get(name, {}).get("statename") not in ALIVE]
        if not known:
            sweep()
        prepare.free_ports(missing)
        if missing:
            start(missing, bool(known))
        wait(began)
        if settings.known_secrets() and (found := open_addresses()):
            sweep()
            settings.refuse_open(dict(found), settings.KNOWN)
        create_stores(spark_runs="spark-connect" not in missing)
    if missing:
        print(f"The stack is ready ({time.monotonic() - began:.0f} s).")
        for name in SERVICES:
            print(f"  {name:14} {services.url(name)}")
    else:
        print("The stack is up; `make status` shows its services and their addresses.")
    if notice := passwords.notice():
        print(notice)


# The addresses that spark-defaults.conf binds; all other services are bound to services.LOOPBACK.
BOUND = ("spark.driver.host", "spark.driver.bindAddress", "spark.connect.grpc.binding.address")


def refuse_open() -> None:
    """Exits with a sentence if Spark would listen beyond loopback while a known password is in use."""
    bound = {
        f"{name} in spark-defaults.conf": services.spark_setting(name, services.LOOPBACK).strip() for name in BOUND
    }
    settings.refuse_open(bound, map(settings.given, settings.SECRETS))


def open_addresses() -> list[tuple[str, str]]:
    """Lists (process and port, address) of each port of this stack that other machines can reach."""
    ours = {process.pid: process.info["name"] for process in leftovers()}
    listening = [c for c in psutil.net_connections("tcp") if c.pid in ours and c.status == psutil.CONN_LISTEN]
    found = [(f"{ours[c.pid]} at port {c.laddr.port}", c.laddr.ip.removeprefix("::ffff:")) for c in listening]
    return [(place, address) for place, address in found if not settings.is_loopback(address)]


def start(missing: list[str], supervised: bool) -> None:
    """Passes services to supervisord, starting it if it does not run."""
    prepare.java()
    prepare.database()
    if "postgres" in missing:
        prepare.roles()
        prepare.wal_archive()
    prepare.spark_configuration(jars.ensure())
    if supervised:
        # A supervisord started by an earlier version does not know services added since.
        [[added, _, _]] = supervisor().reloadConfig()
        for name in missing:
            if name in added:
                supervisor().addProcessGroup(name)
            else:
                supervisor().startProcess(name, False)
        return
    # The applications in the master's state ended with their stack; it would wait a minute for them to return.
    shutil.rmtree(stack_dir() / "spark" / "recovery", ignore_errors=True)
    # Spill files of killed applications are not removed otherwise.
    shutil.rmtree(services.spark_local(), ignore_errors=True)
    services.spark_local().mkdir()
    print(f"Starting the stack in {stack_dir()}.", flush=True)
    subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(settings.ROOT / "conf" / "supervisord.conf")],
        env=os.environ | {"STACK_DIR": str(stack_dir()), "STACK_PYTHON": sys.executable},
        cwd=stack_dir(),
        check=True,
    )


def wait(began: float) -> None:
    """Waits until every service is ready; reports what is missing, and gives up if one dies or stops logging."""
    starts: dict[str, set[int]] = {name: set() for name in SERVICES}
    said, said_at, since, waiting = "", 0.0, time.time(), list(SERVICES)
    while True:
        lacking = {name: lack for name in waiting if (lack := SERVICES[name].lacking())}
        if not lacking:
            return
        waiting = list(lacking)
        known = processes()
        if not known:
            raise SystemExit(f"supervisord has ended (its log: {stack_dir() / 'logs' / 'supervisord.log'})")
        for name, process in known.items():
            starts[name].add(process["start"])
            log = stack_dir() / "logs" / f"{name}.log"
            heard = max(since, log.stat().st_mtime if log.exists() else 0)
            if process["statename"] == "FATAL" or len(starts[name]) > STARTS:
                raise SystemExit(f"{name} does not stay up: {telling_line(name)} (its log: {log})")
            if name in lacking and time.time() - heard > SILENCE:
                raise SystemExit(f"{name} does not answer: {telling_line(name)} (its log: {log})")
        line = ", ".join(f"{name} ({lack})" for name, lack in lacking.items())
        if line != said or time.monotonic() - said_at > 10:
            first = next(iter(lacking))
            news = f": {prepare.last_line(tail(first))}" if line == said and tail(first).strip() else ""
            print(f"{time.monotonic() - began:4.0f} s  waiting for {line}{news}", flush=True)
            said, said_at = line, time.monotonic()
        time.sleep(1)


def tail(name: str) -> str:
    """Returns the end of a service's log."""
    log = stack_dir() / "logs" / f"{name}.log"
    return log.read_text(errors="replace")[-20_000:] if log.exists() else ""


def telling_line(name: str) -> str:
    """Returns the last line of a service's log that reports an error, else its last line."""
    lines = [line.strip() for line in tail(name).splitlines() if line.strip() and not re.match(r"\s+at ", line)]
    errors = [line for line in lines if re.search(r"error|fatal|exception|cannot|could not|refuse", line, re.I)]
    return prepare.last_line("\n".join(errors or lines))


def create_stores(spark_runs: bool = False) -> None:
    """Creates buckets, the store's users, and tables; exits with a sentence if a store does not answer or refuses."""
    from jobs import program
    from stack import store

    try:
        store.create(spark_runs)
        create_schema()
    except Exception as error:
        raise SystemExit(program.sentence(error)) from None


def create_schema() -> None:
    """Applies the warehouse's DDL, which changes nothing if its tables exist."""
    from jobs import program, schema, warehouse

    with warehouse.connect() as connection:
        if not warehouse.value(connection, "select to_regrole('healthcare_dashboards') is not null"):
            raise program.Refused(
                "PostgreSQL lacks the roles of sql/roles.sql: `make down`, then `make up`; on a server that is not the "
                "stack's own a superuser runs `psql -f sql/roles.sql` (docs/access.md)."
            )
        schema.apply(connection)


def down() -> None:
    """Stops everything and keeps the data; does nothing if no service runs."""
    sweep()
    print("The stack is down.")


def sweep() -> None:
    """Ends every process of this stack: first supervisord and its services gracefully, then any others."""
    pid_file = stack_dir() / "supervisord.pid"
    try:
        daemon = psutil.Process(int(pid_file.read_text()))
        if "supervisor.supervisord" in daemon.cmdline() and daemon.cwd() == str(stack_dir()):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(timeout=120)
    except (OSError, ValueError, psutil.NoSuchProcess):
        pass
    left = leftovers()
    for process in left:
        # SIGINT is PostgreSQL's fast shutdown; the other services stop on it as well.
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGINT)
    _, stubborn = psutil.wait_procs(left, timeout=20)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=10)


def status() -> bool:
    """Prints state, address and age of each service; returns True if everything is up."""
    known, all_up = processes(), True
    print(f"{'service':14} {'state':9} {'since (UTC)':19} address")
    for name, service in SERVICES.items():
        process = known.get(name, {"statename": "STOPPED", "start": 0})
        running = process["statename"] in ALIVE
        is_up = running and not service.lacking()
        state = "up" if is_up else "starting" if running else process["statename"].lower()
        since = f"{datetime.fromtimestamp(process['start']):%Y-%m-%d %H:%M:%S}" if running else "-"
        print(f"{name:14} {state:9} {since:19} {services.url(name)}")
        all_up = all_up and is_up
    return all_up


def clean() -> None:
    """Stops everything and removes STACK_DIR if it belongs to a stack."""
    home = stack_dir()
    if not home.exists():
        return
    if not (home / prepare.MARKER).exists():
        raise SystemExit(f"STACK_DIR {home} is not a stack's directory ({prepare.MARKER} is missing): nothing removed.")
    down()
    shutil.rmtree(home)
    print(f"{home} is removed.")
