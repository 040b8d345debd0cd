"""Connects to the PostgreSQL warehouse and takes its locks."""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import psycopg

from jobs import program, settings
from jobs.program import Refused

Connection = psycopg.Connection[Any]


def connect(role: str = "POSTGRES", host: str = "") -> Connection:
    """Opens a connection that commits each statement, for use in `with`; code that needs a transaction opens it.

    The role is the loader's, or POSTGRES_READ or POSTGRES_DASHBOARDS, which only read. The time zone is UTC, whatever
    PGTZ says. Client and server notice within a minute that the other has disappeared, so that no lock outlives its
    holder.
    """
    alive: dict[str, Any] = {"keepalives_idle": 20, "keepalives_interval": 10, "keepalives_count": 3}
    theirs = " ".join(f"-c tcp_{name}={seconds}" for name, seconds in alive.items())
    connection = psycopg.connect(
        host=host or settings.get("POSTGRES_HOST"),
        port=settings.get("POSTGRES_PORT"),
        user=settings.get(f"{role}_USER"),
        password=settings.get(f"{role}_PASSWORD"),
        dbname=settings.get("POSTGRES_DB"),
        require_auth=settings.required_auth(),
        connect_timeout=5,
        autocommit=True,
        client_encoding="utf8",
        options=f"-c client_connection_check_interval=10s {theirs}",
        **alive,
    )
    connection.execute("set timezone to 'UTC'")
    return connection


def process_connection() -> Connection:
    """Returns the connection that this process keeps open to read markers. A task reads some twenty of them.

    Opens another one where the server has ended it. Do not use it in `with`, which would close it.
    """
    server = os.getpid(), *map(settings.get, ("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DB"))
    try:
        open_connection(*server).execute("select 1")
    except psycopg.OperationalError:
        open_connection.cache_clear()
    return open_connection(*server)


@lru_cache(maxsize=4)
def open_connection(process: int, *server: str) -> Connection:
    """Opens a connection once for each process and server: a forked process must not use its parent's."""
    return connect()


def value(connection: Connection, query: str, arguments: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
    """Returns the first column of a query's first row."""
    [row] = connection.execute(query, arguments).fetchmany(1)
    return row[0]


def literal(value: str | float | None) -> str:
    """Returns a value as SQL spells it."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "null" if value is None else str(value).lower()


STORES = "the stores"  # the lock that each writer shares, and that a backup has to itself


@contextmanager
def writer(connection: Connection, thing: str, reads: Sequence[str] = ()) -> Iterator[None]:
    """Locks `thing` for writing and `reads` against writers while the block runs; waits for other holders.

    Delta on S3 is safe for one writer per table only. PostgreSQL's advisory locks end with the process that holds them.
    Every writer takes `reads` first, which are upstream of what it writes, so that no writers wait for each other.
    """
    locks = [("pg_try_advisory_lock_shared", name) for name in (STORES, *reads)] + [("pg_try_advisory_lock", thing)]
    for function, name in locks:
        why = "a backup is being taken" if name == STORES else f"another run is writing {name}"
        wait_for(connection, function, name, why)
    try:
        yield
    finally:
        with suppress(psycopg.OperationalError):  # the locks ended with the connection
            connection.execute("select pg_advisory_unlock_all()")


@contextmanager
def standstill(connection: Connection) -> Iterator[None]:
    """Prevents writers from starting while the block runs; waits for those that have started."""
    wait_for(connection, "pg_try_advisory_lock", STORES, "a run is writing, and a backup wants all runs to stand still")
    try:
        yield
    finally:
        with suppress(psycopg.Error):
            connection.execute("select pg_advisory_unlock(hashtext(%s))", [STORES])


def wait_for(connection: Connection, function: str, name: str, why: str) -> None:
    """Tries to take a lock until it succeeds; says once why it waits."""
    began = time.monotonic()
    pause = 0.0
    while not value(connection, f"select {function}(hashtext(%s))", [name]):
        if not pause:
            print(f"waiting: {why}", file=sys.stderr, flush=True)
        pause = min(pause + 0.01, 0.2)  # short at first: a small load ends soon
        time.sleep(pause)
    program.WAITS.append(time.monotonic() - began)


def must_hold(connection: Connection) -> None:
    """Raises Refused if the connection was lost, and its locks with it."""
    try:
        connection.execute("select 1")
    except psycopg.OperationalError:
        raise Refused("The right to write was lost with the connection to PostgreSQL; run the date again.") from None
