"""Provides the stack that tests run on: real, on free ports, in its own directory, and removed afterwards."""

import csv
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from jobs import program, settings
from jobs.catalog import CATALOG
from stack import own
from tests.support.examples import VALID

# The stores' users: whatever .env says, the jobs are not the root user.
USERS = {"MINIO_ROOT_USER": "root-user", "MINIO_ACCESS_KEY": "jobs-user", "MINIO_READ_ACCESS_KEY": "lake-reader"}
USERS |= {"MINIO_FORGET_ACCESS_KEY": "lake-forgetter"}
# Every secret of a store or page; tests use random ones, so that a search finds none by chance.
SECRETS = (
    "POSTGRES_PASSWORD",
    "POSTGRES_READ_PASSWORD",
    "POSTGRES_DASHBOARDS_PASSWORD",
    "MINIO_ROOT_PASSWORD",
    "MINIO_SECRET_KEY",
    "MINIO_FORGET_SECRET_KEY",
    "MINIO_READ_SECRET_KEY",
    "METABASE_PASSWORD",
    "METABASE_DB_PASSWORD",
    "METABASE_ENCRYPTION_KEY",
    "SPARK_AUTH_SECRET",
    "SPARK_CONNECT_TOKEN",
    "LUIGI_PASSWORD",
)


def pytest_configure(config: pytest.Config) -> None:
    """Points this process and its children at the tests' own stack, before any test can reach another one."""
    worker = getattr(config, "workerinput", None)  # of pytest-xdist, with which several processes run tests
    config.stash[HOME] = home = Path(worker["home"] if worker else tempfile.mkdtemp(prefix="healthcare-tests-"))
    home.mkdir(exist_ok=True)
    if config.getoption("numprocesses", None) and not worker:
        own.be_interrupted_by_sigterm()
        install_once()
        return  # this process hands out the tests and runs none
    if worker:  # processes that look for free ports at the same time find different ones
        number, count = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
        own.CANDIDATES = own.CANDIDATES[number::count]
    os.environ |= {name: secrets.token_hex(16) for name in SECRETS} | USERS
    os.environ |= {"CURRENCY": "EUR", "SMALL_CELLS": "5"}  # whatever .env says
    os.environ["FUTURE"] = "1"  # tests use hospitals in separate years
    own.set_apart(home)


def install_once() -> None:
    """Installs what processes that start at the same time would each install: apt-get refuses to run twice."""
    from dashboards import screenshots
    from stack import prepare

    prepare.java()
    with suppress(program.Refused):  # the tests that need a browser say so
        screenshots.chromium()


def pytest_configure_node(node: Any) -> None:
    """Gives a process of pytest-xdist a directory of its own, which `pytest_unconfigure` looks after."""
    node.workerinput["home"] = str(node.config.stash[HOME] / node.gateway.id)


# `make test` runs two groups of directories at once, since one stack leaves a third of two cores idle. Each group has
# its own stack and a fixed order, so that a test always finds the same tests before it.
GROUPS = {"spark": "jobs", "sql": "jobs", "campaigns": "dates", "flow": "dates", "unit": "jobs"}


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Returns a scheduler of pytest-xdist that gives each group of tests to one process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByDirectory(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return GROUPS[nodeid.split("/")[1]]

    return ByDirectory(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests that need a server, which `make test-unit` skips, and sorts tests by file name.

    The tests of a group share a stack, so their order must not depend on their directories. Faults come first.
    """
    items.sort(key=lambda item: ("faults" not in item.path.parts, item.path.name))
    for item in items:
        if {"stack", "warehouse_server", "browser"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("stack")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the tests' directory; first stops the stacks of processes that were interrupted and had no time to."""
    for left in config.stash[HOME].glob("gw*/stack"):
        run_stack("down", STACK_DIR=str(left))
    shutil.rmtree(config.stash[HOME], ignore_errors=True)


HOME = pytest.StashKey[Path]()


def run_stack(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m stack` as a person would."""
    command = [sys.executable, "-m", "stack", *words]
    return subprocess.run(command, env=os.environ | environment, cwd=settings.ROOT, capture_output=True, text=True)


@pytest.fixture(scope="session")
def stack() -> Iterator[Path]:
    """Yields the directory of the running stack, which is started once for all tests."""
    try:
        started = run_stack("up")
        if started.returncode:
            pytest.exit(f"The tests' stack did not start.\n{started.stdout}{started.stderr}", returncode=1)
        yield Path(os.environ["STACK_DIR"])
    finally:
        run_stack("down")


@pytest.fixture(scope="session")
def spark(stack: Path) -> Iterator[Any]:
    """Yields a Spark Connect session to the stack."""
    session = program.builder(f"sc://127.0.0.1:{os.environ['SPARK_CONNECT_PORT']}").getOrCreate()
    program.tune_for_small_input(session, rows=0)
    yield session
    session.stop()


@pytest.fixture
def postgres(stack: Path) -> Iterator[Any]:
    """Yields a connection to the stack's warehouse that commits each statement."""
    from stack.services import connect

    with connect() as connection:
        yield connection


@pytest.fixture(scope="session")
def warehouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yields a connection to a PostgreSQL server with the platform's schema, for tests of SQL alone."""
    from stack import prepare, services, supervision

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STACK_DIR", str(tmp_path_factory.mktemp("warehouse") / "stack"))
        patch.setenv("POSTGRES_PORT", str(own.free_ports(1)[0]))
        prepare.state_directory()
        prepare.database()
        server = subprocess.Popen(services.postgres().command, stderr=subprocess.DEVNULL, cwd="/")
        try:
            while services.lacks_login():
                assert server.poll() is None, "the server ended"
                time.sleep(0.1)
            supervision.create_schema()
            connection = services.connect()
        except BaseException:
            server.terminate()
            raise
    with connection:
        yield connection
    server.terminate()
    server.wait()


@pytest.fixture
def empty_warehouse(warehouse_server: Any) -> Any:
    """Empties the tables of `warehouse_server`, in which earlier tests have left rows."""
    tables = warehouse_server.execute(
        "select string_agg(format('%I.%I', schemaname, tablename), ', ') from pg_tables "
        "where schemaname in ('public', 'ops') and tablename not in ('datasets', 'rules')"
    ).fetchone()[0]
    warehouse_server.execute(f"truncate {tables}")
    return warehouse_server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yields a headless Chromium; without one, tests fail and name what to install."""
    from dashboards import screenshots

    try:
        screenshots.chromium()
    except program.Refused as error:
        pytest.fail(str(error), pytrace=False)
    with screenshots.browser() as chrome:
        yield chrome


YEARS = count(2050)


class Hospital:
    """Lands files with keys and dates of its own year, and runs single jobs over them."""

    def __init__(self, postgres, landing):
        self.postgres, self.landing, self.year = postgres, landing, next(YEARS)

    def day(self, number):
        return date(self.year, 1, number)

    def key(self, name):
        return f"{name}-{self.year}"

    def row(self, dataset, key, **changes):
        own = {name: self.key(VALID[dataset][name]) for name in CATALOG[dataset].parents}
        return VALID[dataset] | own | {CATALOG[dataset].key: self.key(key)} | changes

    def land(self, dataset, number, *rows):
        """Writes a landing file."""
        folder = self.landing / f"{self.day(number):%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{dataset}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, CATALOG[dataset].names)
            writer.writeheader()
            writer.writerows(rows)

    def bronze(self, dataset, number):
        from jobs.landing_to_bronze import landing_to_bronze

        return landing_to_bronze(CATALOG[dataset], self.day(number))

    def validate(self, dataset, number, *rows):
        """Lands a file and loads it to silver."""
        from jobs.bronze_to_silver import bronze_to_silver

        self.land(dataset, number, *rows)
        self.bronze(dataset, number)
        return bronze_to_silver(CATALOG[dataset], self.day(number))

    def revalidate(self):
        """Revalidates what is due, as Luigi's tasks do."""
        from jobs import ledger
        from jobs.bronze_to_silver import bronze_to_silver

        again = []
        for dataset in CATALOG.values():
            for name, day, _ in ledger.stale(dataset):
                if day.year != self.year:
                    continue
                bronze_to_silver(dataset, day)
                again.append((name, day))
        return again

    def load(self, dataset, number):
        from jobs.silver_to_gold import silver_to_gold

        return silver_to_gold(CATALOG[dataset], self.day(number))

    def close(self):
        """Removes this hospital's rows from the warehouse, since the next test's run would revalidate and load them."""
        year = [self.day(1), date(self.year, 12, 31)]
        with self.postgres.transaction():
            for dataset in reversed(CATALOG):
                self.postgres.execute(f"delete from {dataset} where _partition_date between %s and %s", year)
            self.postgres.execute("delete from ops.withheld where _partition_date between %s and %s", year)
            for table in ("ops.ledger", "ops.receipts", "ops.reasons"):
                self.postgres.execute(f"delete from {table} where partition_date between %s and %s", year)

    def gold(self, dataset, *columns):
        """Returns this hospital's rows of a gold table in key order."""
        key = CATALOG[dataset].key
        names = ", ".join(columns or [key])
        found = self.postgres.execute(
            f"select {names} from {dataset} where {key} like %s order by {key}", [f"%-{self.year}"]
        )
        return [tuple(row) for row in found]

    def ledger(self, layer, dataset, *columns):
        """Returns columns of the ledger rows of a dataset's runs, the oldest first."""
        found = self.postgres.execute(
            f"select {', '.join(columns)} from ops.ledger where layer = %s and dataset = %s "
            "and extract(year from partition_date) = %s order by started_at",
            [layer, dataset, self.year],
        )
        return [tuple(row) for row in found]


@pytest.fixture
def hospital(stack, spark, postgres, monkeypatch):
    """Yields a hospital whose single jobs run in this process, on the stack's Spark Connect server."""
    monkeypatch.setenv("SPARK_REMOTE", f"sc://127.0.0.1:{settings.get('SPARK_CONNECT_PORT')}")
    hospital = Hospital(postgres, settings.path("LANDING_DIR"))
    yield hospital
    hospital.close()
