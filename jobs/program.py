"""Provides what all jobs share: command-line words, Spark sessions, and one sentence for each failure."""

from __future__ import annotations

import atexit
import os
import pwd
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg
from botocore import exceptions as s3
from botocore.exceptions import BotoCoreError, ClientError, SSLError

from jobs import borders, settings
from jobs.borders import quoted
from jobs.catalog import CATALOG
from jobs.dataset import Dataset

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TRACKING = "LUIGI_TRACKING_URL="  # a job writes this to standard error, with a link that the Luigi task shows

OPEN: list[SparkSession] = []  # the Spark sessions of this process

WAITS: list[float] = []  # seconds that this process has waited for a lock

FEW_ROWS = 100_000  # with fewer, a job takes more time to plan than to compute
FEW_KEYS = 1_000_000  # with fewer, adaptive execution gains nothing; measured at 610,000
MANY_DATES = 31  # the most in one job and one plan; each date adds a scan to the plan


class Refused(Exception):
    """Reports that a request cannot be carried out; its text is one sentence with the cause and the next step."""


def parse_day(text: str) -> date:
    """Returns the date of a text in the form YYYY-MM-DD; raises Refused for any other text."""
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise Refused(f"{quoted(text)} is not a date; write it as YYYY-MM-DD, for example 2026-01-31.")


def given_day(text: str) -> date:
    """Returns a date of the command line; ends the program with a sentence if it is none."""
    try:
        return parse_day(text)
    except Refused as error:
        leave(2, str(error))


def given_dataset(name: str) -> Dataset:
    """Returns a dataset of the command line; ends the program with a sentence if there is none of that name."""
    if name not in CATALOG:
        leave(2, f"{quoted(name)} is not a dataset; the datasets are {', '.join(CATALOG)}.")
    return CATALOG[name]


def must_have_begun(day: date) -> None:
    """Raises Refused for a date that has not begun yet (UTC), unless the environment says FUTURE=1.

    A mistyped year would otherwise become the newest date, as of which freshness, ages and dashboards are computed.
    """
    if day > datetime.now(timezone.utc).date() and os.environ.get("FUTURE") != "1":
        raise Refused(f"{day} has not begun yet (UTC); correct the date, or give FUTURE=1 to run it nevertheless.")


def user() -> str:
    """Returns the name of the operating system's user of this process, or the user's number if it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def run(
    job: Callable[..., str],
    words: Sequence[str] = ("dataset", "date"),
    together: bool = False,
    future: bool = True,
    remaining: Callable[[date], str] = lambda day: "",
) -> None:
    """Calls `job` with the command line's words; prints the sentence it returns, with the seconds it worked.

    Several dates are processed `together` in one call, or else one by one, so that one that fails leaves the others
    alone. If `future` is false, a date that has not begun fails. If a person runs the job by hand, prints what
    `remaining` says is still to do for the dates. Exits with 2 if a word is wrong and with 1 if the job fails, with one
    sentence each and without patient values.
    """
    given = sys.argv[1:]
    if len(given) < len(words):
        leave(2, f"usage: {os.path.basename(sys.argv[0])} " + " ".join(f"<{word}>" for word in words))
    dataset = [given_dataset(given.pop(0))] if "dataset" in words else []
    days = [given_day(day) for day in given]
    failures = []
    for each in [days] if together else [[day] for day in days]:
        started, waits = time.monotonic(), len(WAITS)
        try:
            if not future:
                for day in each:
                    must_have_begun(day)
            bring_up_to_date()
            done = job(*dataset, *each)
        except Exception as error:
            failures.append(f"{' '.join([*(d.name for d in dataset), listed(each)])}: {sentence(error)}")
            continue
        borders.say(f"{done} ({time.monotonic() - started - sum(WAITS[waits:]):.1f} s)")
    if failures:
        leave(1, " ".join(failures))
    if not settings.given("RUN_LOG"):
        for said in filter(None, map(remaining, dict.fromkeys(days))):
            borders.say(said)


def listed(days: Sequence[date]) -> str:
    """Returns dates in words: the first of them, and how many more there are."""
    more = len(days) - 1
    return str(days[0]) + (f" and {more:,} more date{'s' * (more > 1)}" if more else "")


@cache  # a process has one catalog
def bring_up_to_date() -> None:
    """Brings the warehouse's tables in line with the catalog if it was edited since; once per process."""
    from jobs import schema, warehouse  # both import this module

    with warehouse.connect() as connection:
        schema.bring_up_to_date(connection)


def leave(code: int, text: str) -> NoReturn:
    """Prints a sentence to standard error, and ends the program with this exit code."""
    borders.say(text, sys.stderr)
    sys.exit(code)


def sentence(error: BaseException) -> str:
    """Returns an error as one sentence with cause and next step, without values, secrets or a stack trace."""
    return borders.printable(explain(error))


def explain(error: BaseException) -> str:
    """Returns the cause of an error and the next step; texts of a store or the operating system are left unchanged."""
    store = f"MinIO at {settings.s3_endpoint()}"
    postgres = f"PostgreSQL at {settings.get('POSTGRES_HOST')}:{settings.get('POSTGRES_PORT')}"
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        if "authentication failed" in str(error):
            return f"{postgres} refuses the user; check POSTGRES_USER and POSTGRES_PASSWORD in .env."
        if "method requirement" in str(error):
            return (
                f"{postgres} does not ask for the password by {settings.required_auth()}, so it got none; see who "
                "listens there, or name its method in PGREQUIREAUTH in .env (docs/access.md)."
            )
        if re.search("SSL|certificate|no encryption", str(error)):
            return f"{postgres} and we do not agree about TLS; check PGSSLMODE and PGSSLROOTCERT in .env."
        return f"{postgres} does not answer; start the stack with `make up`."
    if isinstance(error, psycopg.Error):
        return f"{postgres} refused a statement ({error.sqlstate} {type(error).__name__}); nothing was published."
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        if code in ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
            return f"{store} refuses the key; check MINIO_ACCESS_KEY and MINIO_SECRET_KEY in .env."
        return f"{store} answered {code}; is its bucket there? `make up` creates the buckets."
    if isinstance(error, SSLError):
        return f"{store} shows a certificate that nobody here vouches for; check AWS_CA_BUNDLE in .env."
    if isinstance(error, s3.ProxyConnectionError):
        return f"{store} is asked of a proxy that does not answer; name its host in no_proxy."
    if isinstance(error, (s3.ConnectionError, s3.HTTPClientError)):
        return f"{store} does not answer; start the stack with `make up`."
    if isinstance(error, BotoCoreError):
        return f"{store} could not be asked ({type(error).__name__}); check the settings MINIO_* in .env."
    if isinstance(error, OSError) and error.filename and error.strerror:
        return of_file(error)
    condition = getattr(error, "getCondition", lambda: None)() or type(error).__name__
    logs = settings.path("STACK_DIR") / "logs"
    return f"failed with {condition}; nothing was published; the Spark UI and {logs} say more."


def of_file(error: OSError) -> str:
    """Returns a sentence on a file that the operating system refuses; names landing files relative to LANDING_DIR."""
    path, landing = Path(os.fsdecode(error.filename)), settings.path("LANDING_DIR")
    name, may = str(path), "read or written"
    if path.is_relative_to(landing):
        name, may = str(path.relative_to(landing)), "read"
    if isinstance(error, PermissionError):
        wrong = f"may not be {may} by this user (permission denied)"
        remedy = "give this user the rights to it and to the folders above it"
    else:
        wrong, remedy = f"cannot be {may} ({(error.strerror or '').lower()})", "see to it"
    return f"{name} {wrong}; {remedy} and run the same again; nothing was published."


def spark(name: str) -> SparkSession:
    """Opens a Spark session: on the Spark Connect server if SPARK_REMOTE names it, else one of its own on the cluster.

    If Luigi runs the job, prints the link to Spark's history, which Luigi's page shows.
    """
    session = connect(name)
    if settings.given("RUN_LOG"):
        borders.say(f"{TRACKING}{history()}{session.conf.get('spark.app.id')}/jobs/", sys.stderr)
    return session


def history() -> str:
    """Returns the beginning of an application's address in Spark's history."""
    return f"http://127.0.0.1:{settings.get('SPARK_HISTORY_PORT')}/history/"


def plans(rows: Mapping[date, int], kinds: Mapping[date, Any] | None = None) -> list[list[date]]:
    """Groups partitions into shared plans: of one kind, at most MANY_DATES, and fewer than FEW_ROWS rows together.

    `rows` holds each partition's number of rows. A partition with more rows has a plan of its own.
    """
    found: list[list[date]] = []
    for day in rows:
        for plan in found:
            alike = kinds is None or kinds[plan[0]] == kinds[day]
            if alike and len(plan) < MANY_DATES and sum(rows[other] for other in (*plan, day)) < FEW_ROWS:
                plan.append(day)
                break
        else:
            found.append([day])
    return found


def refuse(refused: Sequence[Refused], done: Sequence[str]) -> NoReturn:
    """Prints what was done for the other partitions, then raises the errors, several of them as one."""
    for line in done:
        borders.say(line)
    raise refused[0] if len(refused) == 1 else Refused(" ".join(map(str, refused)))


def step(session: SparkSession, dataset: Dataset, days: Sequence[date], name: str) -> None:
    """Describes the Spark jobs that a session starts from now on, as in `visits 2026-01-31: publish` on Spark's pages.

    The description holds no value of a row, so that none reaches a page or an event log.
    """
    describe(session, f"{dataset.name} {listed(days)}: {name}")


def describe(session: SparkSession, text: str) -> None:
    """Sets the description of the Spark jobs that a session starts from now on.

    Spark copies a session's settings into the properties of each job. This setting is the property that holds a job's
    description, and replaces the one that Spark Connect sets: "Spark Connect - session_id: ...". Spark's pages escape
    what they read as HTML.
    """
    session.conf.set("spark.job.description", borders.printable(text))


def checkpoint(rows: DataFrame) -> DataFrame:
    """Computes rows on the server, where later plans find them."""
    return rows.localCheckpoint()


def spark_connect() -> str:
    """Returns the address of the Spark Connect server."""
    return f"sc://{settings.get('SPARK_CONNECT_HOST')}:{settings.get('SPARK_CONNECT_PORT')}"


def resident(name: str) -> SparkSession:
    """Opens a session on the Spark Connect server for a command that answers a person, without a link to track it."""
    os.environ.setdefault("SPARK_REMOTE", spark_connect())
    return connect(name)


def connect(name: str) -> SparkSession:
    """Opens a session that ends with the program; raises Refused if the Spark Connect server is down or refuses us."""
    remote = settings.given("SPARK_REMOTE")
    if remote:
        host, _, port = remote.removeprefix("sc://").partition("/")[0].partition(":")
        with socket.socket() as probe:
            probe.settimeout(3)
            if probe.connect_ex((host, int(port or 15002))):
                raise Refused(f"Spark Connect at {host}:{port} does not answer; start the stack with `make up`.")
    from pyspark.logger import PySparkLogger

    for logger in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
        PySparkLogger.getLogger(logger).disabled = True  # they print Spark's errors, including values
    try:
        session = builder(remote).appName(name).getOrCreate()
        describe(session, name)
    except Exception as error:
        if "UNAUTHENTICATED" in str(error):
            raise Refused(
                f"{remote} refuses SPARK_CONNECT_TOKEN; set the one in .env that it was started with."
            ) from None
        raise
    OPEN.append(session)
    return session


@atexit.register
def close_sessions() -> None:
    """Ends the sessions of this process. The Spark Connect server would keep them, and their caches, for an hour."""
    while OPEN:
        OPEN.pop().stop()


def builder(remote: str) -> Any:
    """Returns the builder of a session on the Spark Connect server at `remote`, or without it of a session of its own.

    Sends SPARK_CONNECT_TOKEN with each call. PySpark itself sends a token only over TLS, or to a host named localhost.
    """
    if not remote:
        from pyspark.sql import SparkSession

        return SparkSession.builder
    from pyspark.sql.connect.client import DefaultChannelBuilder
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"  # as PySpark sets it: its functions read the kind of session here
    token = settings.get("SPARK_CONNECT_TOKEN")

    class Channel(DefaultChannelBuilder):
        token = None

        def metadata(self) -> Any:
            return [*super().metadata(), ("authorization", f"Bearer {token}")]

    return ConnectSession.builder.channelBuilder(Channel(remote))


INTERPRETED = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}
PLANNED_ONCE = {"spark.sql.adaptive.enabled": "false", "spark.sql.shuffle.partitions": "1"}


def tune_for_small_input(session: SparkSession, rows: int, near: int = 0) -> None:
    """Sets a session up for plans over few rows, of which planning takes most of the time, or for many.

    With fewer than FEW_ROWS `rows` of input, Spark interprets plans and does not compile them. If there are also fewer
    than FEW_KEYS rows with the `near` ones, those of the tables that the plans look into, Spark plans each query once.
    Adaptive execution would plan it again after each stage, and run each stage as a Spark job.
    """
    is_small = rows < FEW_ROWS
    for quick, few in ((INTERPRETED, is_small), (PLANNED_ONCE, is_small and rows + near < FEW_KEYS)):
        for name, value in quick.items():
            if few:
                session.conf.set(name, value)
            else:
                session.conf.unset(name)
