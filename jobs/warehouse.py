"""The PostgreSQL warehouse: connections and locks, ledger and receipts, staging, the load by key."""

import os
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import date, datetime, timezone
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.rows import dict_row

from jobs import program, settings
from jobs.catalog import CATALOG, children
from jobs.dataset import Dataset
from jobs.program import Refused

Connection = psycopg.Connection[Any]
AUDIT = ("_partition_date", "_run_id")
WITHHELD = ("dataset", "_partition_date", "row_key", "visit_id", "row_day", "department", "amount", "reasons")


# ---- connections and locks -----------------------------------------------------------------------------------------


def connect(role: str = "POSTGRES", host: str = "") -> Connection:
    """A connection that commits each statement, for use in `with`; transactions are opened where they are meant.

    It is the loader's or, as POSTGRES_READ or POSTGRES_DASHBOARDS, of those who only read; its zone is UTC, whatever
    PGTZ says. Either side notices within a minute that the other is gone without a word, so that no lock outlives its
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
    """The one value of a query's first row."""
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
    """Holds the right to write `thing` against every other process, and keeps `reads` from being written meanwhile.

    Delta on S3 is safe for one writer per table only. The locks are PostgreSQL's, so that they go with the process.
    Everybody takes `reads` first, and reads lie upstream of what is written: nobody waits in a circle.
    """
    locks = [("pg_try_advisory_lock_shared", name) for name in (STORES, *reads)] + [("pg_try_advisory_lock", thing)]
    for function, name in locks:
        why = "a backup is being taken" if name == STORES else f"another run is writing {name}"
        wait_for(connection, function, name, why)
    try:
        yield
    finally:
        with suppress(psycopg.OperationalError):  # they have gone with the connection
            connection.execute("select pg_advisory_unlock_all()")


@contextmanager
def standstill(connection: Connection) -> Iterator[None]:
    """Keeps every writer from beginning until the caller is done; waits for those that have begun."""
    wait_for(connection, "pg_try_advisory_lock", STORES, "a run is writing, and a backup wants all runs to stand still")
    try:
        yield
    finally:
        with suppress(psycopg.Error):
            connection.execute("select pg_advisory_unlock(hashtext(%s))", [STORES])


def wait_for(connection: Connection, function: str, name: str, why: str) -> None:
    """Tries to take a lock until it succeeds; says once why it waits."""
    began = time.monotonic()
    waited = False
    while not value(connection, f"select {function}(hashtext(%s))", [name]):
        if not waited:
            print(f"waiting: {why}", file=sys.stderr, flush=True)
        waited = True
        time.sleep(0.2)
    program.WAITS.append(time.monotonic() - began)


def must_hold(connection: Connection) -> None:
    """Refused where the server has gone since, and with it the locks."""
    try:
        connection.execute("select 1")
    except psycopg.OperationalError:
        raise Refused("The right to write was lost with the connection to PostgreSQL; run the date again.") from None


# ---- ledger and receipts -------------------------------------------------------------------------------------------


@contextmanager
def run(
    connection: Connection, layer: str, name: str, day: date, rule_set: str, log: str = ""
) -> Iterator[dict[str, Any]]:
    """Writes the ledger row of a run of one date, as `runs` does of several."""
    with runs(connection, layer, name, [day], rule_set, log) as rows:
        yield rows[day]


@contextmanager
def runs(
    connection: Connection, layer: str, name: str, days: Sequence[date], rule_set: str, log: str = ""
) -> Iterator[dict[date, dict[str, Any]]]:
    """Writes the ledger rows of runs that are done at once, one for each date: the caller adds their counts and settles
    them; a failure is recorded here.

    While a run lasts, its connection holds the lock `run <run_id>`, by which others know that the run is alive.
    """
    about = {"layer": layer, "dataset": name, "rule_set": rule_set, "log": log or settings.given("RUN_LOG") or None}
    rows: dict[date, dict[str, Any]] = {day: about | {"run_id": new_run_id(), "partition_date": day} for day in days}
    locks = [[f"run {row['run_id']}"] for row in rows.values()]
    for lock in locks:
        connection.execute("select pg_advisory_lock(hashtext(%s))", lock)
    for row in rows.values():
        write(connection, "ops.ledger", row)
    try:
        yield rows
    except BaseException as error:
        if not connection.closed:
            outcome = "stopped" if isinstance(error, Stopped) else "failed"
            for row in rows.values():
                write(connection, "ops.ledger", row | {"outcome": outcome, "error": program.sentence(error)})
        raise
    finally:
        with suppress(psycopg.Error):  # the locks have gone with the connection
            for lock in locks:
                connection.execute("select pg_advisory_unlock(hashtext(%s))", lock)


def record_failure(
    connection: Connection, layer: str, name: str, day: date, log: str, error: str, at: datetime
) -> None:
    """Sees that a task that failed at `at` has a row in the ledger.

    A job that could, has written its row itself. One that died, or is being ended, has left a row that says it is
    running, which becomes a failed one. One that never came so far has no row: it gets one, unless it has run since.
    """
    values = {"layer": layer, "dataset": name, "day": day, "log": log, "error": error, "at": at}
    partition = "layer = %(layer)s and dataset = %(dataset)s and partition_date = %(day)s"
    died = connection.execute(
        "update ops.ledger set outcome = 'failed', error = %(error)s, ended_at = clock_timestamp() "
        f"where {partition} and log = %(log)s and outcome = 'running'",
        values,
    )
    if not died.rowcount:
        connection.execute(
            "insert into ops.ledger "
            "(run_id, layer, dataset, partition_date, started_at, ended_at, outcome, error, log) "
            f"select %(run_id)s, %(layer)s, %(dataset)s, %(day)s, %(at)s, %(at)s, 'failed', %(error)s, %(log)s "
            f"where not exists (select from ops.ledger where {partition} and (started_at > %(at)s "
            "or (log = %(log)s and outcome in ('failed', 'stopped') and position(error in %(error)s) > 0)))",
            values | {"run_id": new_run_id()},
        )


def new_run_id() -> str:
    """Returns a name for a run that begins now (UTC), which no other run has."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def settle(connection: Connection, row: dict[str, Any], made_from: str, stands: str | None = None) -> None:
    """Ends a run that succeeded: its ledger row and its receipt, the marker by which Luigi knows, at one stroke.

    A run that found everything as an earlier one left it names that one: it is what goes on to stand.
    """
    with connection.transaction():
        write(connection, "ops.ledger", row | {"outcome": "done"})
        receipt = {name: row[name] for name in ("layer", "dataset", "partition_date", "run_id", "rule_set")}
        receipt["run_id"] = stands or row["run_id"]
        stale = {"stale_since": None, "stale_turn": None}
        write(connection, "ops.receipts", receipt | {"made_from": made_from} | stale)


def withdraw(connection: Connection, row: dict[str, Any]) -> None:
    """Before a partition's content changes: its receipt no longer says what it was made from, until one is settled."""
    connection.execute(
        "update ops.receipts set made_from = '' "
        "where layer = %(layer)s and dataset = %(dataset)s and partition_date = %(partition_date)s",
        row,
    )


KEYS = {
    "ops.ledger": ("run_id", "layer", "dataset", "partition_date"),
    "ops.receipts": ("layer", "dataset", "partition_date"),
}
CLOCKS = {"ops.ledger": "ended_at", "ops.receipts": "finished_at"}


def note(connection: Connection, row: dict[str, Any]) -> None:
    """Writes what is known of a run so far to the ledger."""
    write(connection, "ops.ledger", row)


def write(connection: Connection, table: str, row: dict[str, Any]) -> None:
    """Inserts a row or updates the one of its key; stamps the time of a receipt, and of a run that has an outcome."""
    values = {name: f"%({name})s" for name in row}
    if table == "ops.receipts":
        values["turn"] = "nextval('ops.turns')"
    if table == "ops.receipts" or "outcome" in row:
        values[CLOCKS[table]] = "clock_timestamp()"
    connection.execute(
        f"insert into {table} ({', '.join(values)}) values ({', '.join(values.values())}) "
        f"on conflict ({', '.join(KEYS[table])}) do update "
        f"set {', '.join(f'{name} = excluded.{name}' for name in values if name not in KEYS[table])}",
        row,
    )


def turn() -> int:
    """The next turn: higher than that of all receipts and runs there are. No clock can set it back or ahead."""
    return value(process_connection(), "select nextval('ops.turns')")


def receipt(layer: str, dataset: str, day: date, since: int | None = None) -> dict[str, Any] | None:
    """The receipt of one partition, or None: also where the ledger knows of no such run, or of another input.

    One of turn `since` or later counts though it is withdrawn: who has done that judges the partition again, or has it
    judged.
    """
    with process_connection().cursor(row_factory=dict_row) as cursor:
        where = (
            "layer = %s and dataset = %s and partition_date = %s and outcome = 'done' "
            "and (layer not in ('bronze', 'silver') or made_from = bronze_sha256 "
            "or (made_from = '' and receipts.turn >= %s))"
        )
        query = "select receipts.* from ops.receipts join ops.ledger using (run_id, layer, dataset, partition_date)"
        return cursor.execute(f"{query} where {where}", [layer, dataset, day, since]).fetchone()


def settle_silver(
    connection: Connection,
    row: dict[str, Any],
    hits: dict[str, int],
    stands: str | None = None,
    warnings: Iterable[str] = (),
) -> list[str]:
    """Ends a silver run with one row per reason code, zero hits included, and its `warnings`: those given, and a
    sentence for each level that the hits reached.
    """
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            "insert into ops.reasons (run_id, dataset, partition_date, reason, hits) values (%s, %s, %s, %s, %s)",
            [(row["run_id"], row["dataset"], row["partition_date"], code, count) for code, count in hits.items()],
        )
        note(connection, row)
        tripped = cursor.execute(
            "select distinct on (reason) * from ops.tripped where run_id = %s order by reason, action", [row["run_id"]]
        )
        tripped.row_factory = dict_row
        warnings = [*warnings, *(f"{level['action']}: {in_words(level)}" for level in tripped)]
        settle(connection, row | {"warnings": "; ".join(warnings) or None}, row["bronze_sha256"], stands)
    return warnings


def in_words(level: dict[str, Any]) -> str:
    """A row of ops.tripped in words."""
    what = "rejected" if level["reason"] == "rejected" else f"rejected with {level['reason']}"
    share = 100 * level["hits"] / level["bronze_rows"]
    return (
        f"{level['dataset']} {level['partition_date']}: {level['hits']:,} of {level['bronze_rows']:,} rows {what} "
        f"({share:.1f} %), the {level['action']} level is {100 * level['level_share']:.0f} % and "
        f"{level['level_rows']:,} rows"
    )


def stops(connection: Connection, day: date | None = None) -> list[dict[str, Any]]:
    """The rows of ops.tripped that keep standing silver runs out of gold: of one date, or of all."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select tripped.*, standing.bronze_sha256 from ops.tripped join ops.standing "
            "using (run_id, dataset, partition_date) where action = 'stop' and not overridden "
            "and partition_date = coalesce(%s, partition_date) and not exists (select from ops.receipts as gold "
            "where layer = 'gold' and gold.dataset = tripped.dataset "
            "and gold.partition_date = tripped.partition_date and gold.made_from = tripped.run_id) "
            "order by dataset, reason <> 'rejected', reason",
            [day],
        ).fetchall()


class Stopped(Refused):
    """A threshold keeps a date out of gold."""


def stopped(levels: Sequence[dict[str, Any]]) -> Stopped:
    """Returns the refusal of a date, which names the thresholds that keep it out of gold."""
    day = levels[0]["partition_date"]
    return Stopped(
        f"{'; '.join(map(in_words, levels))}; nothing of {day} goes to gold. See `make rejects DATE={day}`; correct "
        f"the file and run the date again, or let it pass as it is: `make run DATE={day} OVERRIDE=1`."
    )


def override(connection: Connection, stopped: Sequence[dict[str, Any]]) -> None:
    """Lets these levels pass, for the very files that reached them; the ledger keeps which ones and when."""
    for level in {level["dataset"]: level for level in stopped}.values():
        dataset = CATALOG[level["dataset"]]
        levels = [in_words(each) for each in stopped if each["dataset"] == dataset.name]
        with run(connection, "override", dataset.name, level["partition_date"], dataset.rule_set) as row:
            row |= {"overridden": "; ".join(levels), "asked_by": program.user()}
            settle(connection, row, level["bronze_sha256"])


def standing(connection: Connection, dataset: Dataset, day: date) -> dict[str, Any] | None:
    """The silver run that stands for a partition, a row of ops.standing; or None."""
    with connection.cursor(row_factory=dict_row) as cursor:
        where = "dataset = %s and partition_date = %s"
        return cursor.execute(f"select * from ops.standing where {where}", [dataset.name, day]).fetchone()


def checksums(connection: Connection, dataset: Dataset, day: date) -> str:
    """What gold holds of a partition, withheld rows included, as a text that is the same for the same rows.

    A count and the sum of a 64-bit hash of each row, to find what somebody changed. A server of another version may
    hash otherwise, which only costs a load.
    """
    parts = (
        (dataset.name, dataset.names, ""),
        ("ops.withheld", WITHHELD, f" and dataset = {literal(dataset.name)}"),
    )
    return ", ".join(
        value(
            connection,
            f"select concat_ws(' ', count(*), sum(hash_record_extended(row({', '.join(names)}), 0))) from {table} "
            f"where _partition_date = %s{where}",
            [day],
        )
        for table, names, where in parts
    )


def loaded(connection: Connection, dataset: Dataset, day: date, silver_run: str) -> str | None:
    """The gold run that stands for a partition if it loaded this silver run and gold still has what it left there."""
    found = connection.execute(
        "select run_id, checksums from ops.receipts join ops.ledger using (run_id, layer, dataset, partition_date) "
        "where layer = 'gold' and dataset = %s and partition_date = %s and made_from = %s",
        [dataset.name, day, silver_run],
    ).fetchone()
    return found[0] if found and found[1] == checksums(connection, dataset, day) else None


def loaded_alike(connection: Connection, row: dict[str, Any]) -> str | None:
    """The gold run that stands for the partition of `row` if it left there just what `row` did; or None."""
    found = connection.execute(
        "select run_id from ops.receipts join ops.ledger using (run_id, layer, dataset, partition_date) "
        "where layer = 'gold' and dataset = %(dataset)s and partition_date = %(partition_date)s "
        "and checksums = %(checksums)s",
        row,
    ).fetchone()
    return found[0] if found else None


def usual_rows(connection: Connection, dataset: Dataset, day: date) -> tuple[int, float | None]:
    """(dates, median rows) of up to eight earlier dates of the same weekday."""
    [found] = connection.execute(
        "select count(*), percentile_cont(0.5) within group (order by bronze_rows) from (select bronze_rows from "
        "ops.receipts join ops.ledger using (run_id, layer, dataset, partition_date) "
        "where layer = 'bronze' and dataset = %s and partition_date < %s "
        "and (%s - partition_date) %% 7 = 0 order by partition_date desc limit 8) as earlier",
        [dataset.name, day, day],
    ).fetchmany(1)
    return found


def dates_of_file(connection: Connection, dataset: Dataset, day: date, sha256: str) -> list[date]:
    """The other dates that have these very bytes in bronze, latest first; none where this date has them already."""
    found = connection.execute(
        "select partition_date from ops.receipts where layer = 'bronze' and dataset = %(dataset)s "
        "and made_from = %(sha256)s order by partition_date desc",
        {"dataset": dataset.name, "sha256": sha256},
    ).fetchall()
    dates = [other for (other,) in found]
    return [] if day in dates else dates


def dates_with(connection: Connection, dataset: Dataset, reason: str) -> list[date]:
    """The partitions whose standing silver run rejected rows for this reason."""
    found = connection.execute(
        "select partition_date from ops.receipts natural join ops.reasons "
        "where layer = 'silver' and dataset = %s and reason = %s and hits > 0",
        [dataset.name, reason],
    )
    return [day for (day,) in found]


FORGOTTEN = "forgotten"  # in place of a checksum: what a silver partition was made from whose date is taken back


def knows(connection: Connection, day: date) -> bool:
    """Whether a date has a marker, or a run that failed or died since the date was last forgotten."""
    return value(
        connection,
        "select exists(select from ops.receipts where partition_date = %(day)s) or exists(select from ops.ledger "
        "where partition_date = %(day)s and layer in ('source', 'bronze', 'silver', 'gold', 'forget') "
        "and outcome <> 'done' and turn > (select coalesce(max(turn), 0) from ops.ledger where layer = 'forget' "
        "and partition_date = %(day)s and outcome = 'done'))",
        {"day": day},
    )


def not_emptied(connection: Connection, day: date) -> list[str]:
    """The datasets of a date whose silver partition, or what gold has loaded of it, is not that of a forgotten date."""
    found = connection.execute(
        "select datasets.dataset from ops.datasets left join ops.receipts as silver "
        "on silver.layer = 'silver' and silver.dataset = datasets.dataset and silver.partition_date = %(day)s "
        "left join ops.receipts as gold "
        "on gold.layer = 'gold' and gold.dataset = datasets.dataset and gold.partition_date = %(day)s "
        "where (silver.made_from is distinct from %(forgotten)s or gold.made_from is distinct from silver.run_id) "
        "and (datasets.since <= %(day)s or silver.made_from is not null or gold.made_from is not null)",
        {"day": day, "forgotten": FORGOTTEN},
    )
    return [name for (name,) in found]


def delete_markers(connection: Connection, day: date) -> None:
    """Deletes every marker of a date: no layer and no task counts as done for it."""
    connection.execute("delete from ops.receipts where partition_date = %s", [day])


def newest(connection: Connection) -> date | None:
    """The newest date that stands in gold; None where there is none."""
    return value(connection, "select day from ops.newest")


def versions(connection: Connection, dataset: Dataset) -> dict[str, int | None]:
    """Returns the newest version of each of a dataset's silver tables, by kind, that the ledger knows; None of none."""
    [found] = connection.execute(
        "select max(delta_accepted), max(delta_rejected) from ops.ledger where layer = 'silver' and dataset = %s",
        [dataset.name],
    ).fetchmany(1)
    return dict(zip(("accepted", "rejected"), found, strict=True))


def ran_before(connection: Connection, dataset: Dataset, days: Sequence[date], run_id: str) -> set[date]:
    """Returns those of the dates whose silver partition another run may have written, finished or not."""
    found = connection.execute(
        "select distinct partition_date from ops.ledger where layer = 'silver' and dataset = %s "
        "and partition_date = any(%s) and run_id <> %s",
        [dataset.name, [*days], run_id],
    )
    return {day for (day,) in found}


def died_before(connection: Connection, row: Mapping[str, Any]) -> bool:
    """Whether a run over this silver partition died since the one that stands, and may have taken keys away."""
    found = connection.execute(
        "select 1 from ops.ledger where layer = 'silver' and dataset = %(dataset)s and run_id <> %(run_id)s "
        "and partition_date = %(partition_date)s and outcome <> 'done' and lost > 0 and turn > (select "
        "coalesce(max(turn), 0) from ops.ledger where layer = 'silver' and dataset = %(dataset)s "
        "and partition_date = %(partition_date)s and outcome = 'done') limit 1",
        row,
    )
    return found.fetchone() is not None


def doubt(connection: Connection, dataset: Dataset, kind: str, version: int) -> None:
    """Notes that a version of a Delta table is lost: whoever stands on it must be judged again before it is loaded."""
    connection.execute(
        "update ops.receipts set made_from = '', stale_since = clock_timestamp(), stale_turn = nextval('ops.turns') "
        f"from ops.ledger where receipts.layer = 'silver' and receipts.dataset = %s and delta_{kind} = %s "
        "and (ledger.run_id, ledger.layer, ledger.dataset, ledger.partition_date) "
        "= (receipts.run_id, receipts.layer, receipts.dataset, receipts.partition_date)",
        [dataset.name, version],
    )


def longest_run(connection: Connection) -> float:
    """The seconds that the longest run over a silver table has taken, of those that ended in the last 90 days."""
    return value(
        connection,
        "select coalesce(extract(epoch from max(ended_at - started_at)), 0)::float from ops.ledger "
        "where layer in ('silver', 'gold') and ended_at > now() - interval '90 days'",
    )


def mark_stale(connection: Connection, dataset: str, days: Sequence[date]) -> None:
    """Notes that parents came or went, so that these silver partitions must be judged again."""
    connection.execute(
        "update ops.receipts set stale_since = clock_timestamp(), stale_turn = nextval('ops.turns') "
        "where layer = 'silver' and dataset = %s and partition_date = any(%s)",
        [dataset, days],
    )


def stale(dataset: Dataset | None = None, day: date | None = None) -> list[tuple[str, date, int]]:
    """(dataset, partition, since which turn) of the silver partitions that must be judged again."""
    connection = process_connection()
    return connection.execute(
        "select dataset, partition_date, stale_turn from ops.receipts where stale_turn is not null "
        "and layer = 'silver' and dataset = coalesce(%s, dataset) "
        "and partition_date = coalesce(%s, partition_date) "
        "order by partition_date",
        [dataset and dataset.name, day],
    ).fetchall()


def remaining(day: date) -> str:
    """Says what is still to do for a date, and by which command; nothing if all of it is done, or being done."""
    found = None
    with suppress(psycopg.Error), connect() as connection:  # the job that asks is done, whatever is down since
        found = connection.execute(
            "select why from ops.dates where partition_date = %s and state not in ('done', 'running')", [day]
        ).fetchone()
    return f"{day} is not done: {found[0]}; next: luigi --module pipelines GoldPipeline --date {day}" if found else ""


def gold_state(connection: Connection) -> str:
    """A fingerprint of the gold loads that stand: what marts are made from."""
    return value(
        connection,
        "select coalesce(md5(string_agg(run_id, ',' order by dataset, partition_date)), '') "
        "from ops.receipts where layer = 'gold'",
    )


def marts_receipt(rule_set: str, session: int) -> dict[str, Any] | None:
    """The newest receipt of marts made by this SQL from gold as it stands, or made since turn `session`; or None."""
    connection = process_connection()
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select * from ops.receipts where layer = 'marts' and rule_set = %s "
            "and (made_from = %s or turn >= %s) order by turn desc limit 1",
            [rule_set, gold_state(connection), session],
        ).fetchone()


def behind(connection: Connection, dataset: Dataset) -> list[date]:
    """The partitions of which gold holds what an earlier silver run accepted."""
    found = connection.execute(
        "select partition_date from ops.receipts as gold join ops.receipts as silver using (dataset, partition_date) "
        "where gold.layer = 'gold' and silver.layer = 'silver' and gold.made_from <> silver.run_id "
        "and silver.made_from <> '' and dataset = %s",
        [dataset.name],
    )
    return [day for (day,) in found]


# ---- the load ------------------------------------------------------------------------------------------------------


def staging(name: str, run_id: str) -> str:
    """A staging table of one load alone. Spark goes on writing for a load that died, and must find no other's table."""
    return f"staging.{name}_{run_id.rpartition('-')[2]}"


def lost(dataset: Dataset, run_id: str) -> str:
    return staging(f"lost_{dataset.name}", run_id)


def jdbc(table: str) -> dict[str, str]:
    """Options of Spark's JDBC source. The driver finds the password in PGPASSFILE: Spark Connect writes options to its
    event log as they are. Row values stay out of its errors. What libpq is told of TLS and of the ways to ask for a
    password, it is told as well.
    """
    place = f"{settings.get('POSTGRES_HOST')}:{settings.get('POSTGRES_PORT')}/{settings.get('POSTGRES_DB')}"
    checks = {"requireAuth": settings.required_auth()}
    checks |= {"sslmode": settings.given("PGSSLMODE"), "sslrootcert": settings.given("PGSSLROOTCERT")}
    return {
        "url": f"jdbc:postgresql://{place}?user={quote(settings.get('POSTGRES_USER'))}"
        + "".join(f"&{name}={quote(value)}" for name, value in checks.items() if value)
        + "&reWriteBatchedInserts=true&logServerErrorDetail=false&stringtype=unspecified",
        "driver": "org.postgresql.Driver",
        "dbtable": table,
        "batchsize": "1024",  # of 10,000 rows each, a load takes longer
    }


def drop_staging(connection: Connection) -> None:
    """No staging tables, neither a load's own nor those of one that died: who still writes there is cut off."""
    connection.execute(
        "select pg_terminate_backend(pid) from pg_locks join pg_class on pg_class.oid = relation "
        "join pg_stat_activity using (pid) where relnamespace = 'staging'::regnamespace "
        "and usename = current_user and pid <> pg_backend_pid()"
    )
    tables = connection.execute("select quote_ident(tablename) from pg_tables where schemaname = 'staging'").fetchall()
    for (table,) in tables:
        connection.execute(f"drop table staging.{table}")


def create_staging(connection: Connection, run_id: str, silver: Mapping[str, Any] | None = None) -> None:
    """Creates empty staging tables for every dataset and for the keys it may lose; rows are of the run `silver` where
    they do not say of which.
    """
    for dataset in CATALOG.values():
        names = ", ".join([*dataset.names, *AUDIT])
        for table, columns in ((staging(dataset.name, run_id), names), (lost(dataset, run_id), dataset.key)):
            connection.execute(f"create unlogged table {table} as select {columns} from {dataset.name} with no data")
        of_run = {"_partition_date": silver["partition_date"], "_run_id": silver["run_id"]} if silver else {}
        for name, default in of_run.items():
            table = staging(dataset.name, run_id)
            connection.execute(f"alter table {table} alter {name} set default {literal(str(default))}")
    withheld = staging("withheld", run_id)
    connection.execute(f"create unlogged table {withheld} as select * from ops.withheld with no data")
    connection.execute(f"alter table {withheld} drop column id")


def stage(rows: Any, dataset: Dataset, run_id: str, of_runs: bool = False) -> None:
    """Appends silver rows to the staging table over JDBC; where they are not all of one run, with partition and run."""
    names = (*dataset.names, *(AUDIT if of_runs else ()))
    days = [column.name for column in dataset.columns if column.type in ("date", "timestamp")]
    append(rows.select(*names), staging(dataset.name, run_id), days)


def must_be_staged(
    connection: Connection, dataset: Dataset, silver: Mapping[date, Mapping[str, Any]], run_id: str
) -> None:
    """Refused where not every row of the silver runs is staged once: an executor that died may have written twice."""
    for kind, table in {"accepted": dataset.name, "rejected": "withheld"}.items():
        found = connection.execute(f"select _partition_date, count(*) from {staging(table, run_id)} group by 1")
        staged = dict(found.fetchall())
        for day, run in silver.items():
            if (rows := staged.get(day, 0)) != run[kind]:
                raise Refused(
                    f"{run[kind]:,} rows of {dataset.name} {day} were {kind} but {rows:,} staged; nothing was "
                    "published; run the date again."
                )


def append(rows: Any, table: str, days: Sequence[str] = ()) -> None:
    """Appends rows over JDBC; the dates and timestamps `days` go as texts, for java.sql knows no day from 5 to 14
    October 1582 and would make others of them.
    """
    from pyspark.sql import functions as F

    texts = {name: F.col(name).cast("string") for name in days}
    rows = rows.withColumns(texts) if texts else rows
    rows.write.format("jdbc").options(**jdbc(table)).mode("append").save()


def read_keys(spark: Any, table: str) -> Any:
    """A table of keys in `staging` as a DataFrame of one column."""
    return spark.read.format("jdbc").options(**jdbc(table)).load()


def find_lost(connection: Connection, dataset: Dataset, days: Sequence[date], run_id: str) -> list[Dataset]:
    """Fills `lost`: the keys gold has from these partitions that are no longer staged of them, and what hangs on those.

    Returns the datasets that lose keys, parents first.
    """
    staged = staging(dataset.name, run_id)
    connection.execute(f"analyze {staged}")
    connection.execute(
        f"insert into {lost(dataset, run_id)} select g.{dataset.key} from {dataset.name} as g "
        f"where g._partition_date = any(%s) and not exists (select from {staged} as s "
        f"where s.{dataset.key} = g.{dataset.key} and s._partition_date = g._partition_date)",
        [[*days]],
    )
    losing = []
    for loser in CATALOG.values():
        for name, parent in loser.parents.items():
            if CATALOG[parent] in losing:
                connection.execute(
                    f"insert into {lost(loser, run_id)} select c.{loser.key} from {loser.name} as c "
                    f"join {lost(CATALOG[parent], run_id)} as p on p.{CATALOG[parent].key} = c.{name}"
                )
        if connection.execute(f"select 1 from {lost(loser, run_id)} limit 1").fetchone():
            losing.append(loser)
    return losing


def find_missing(connection: Connection, dataset: Dataset, name: str, run_id: str) -> str | None:
    """A table of the staged foreign keys whose parents are neither in gold nor staged; None if there are none."""
    parent = CATALOG[dataset.parents[name]]
    table = staging(f"missing_{parent.name}", run_id)
    connection.execute(f"drop table if exists {table}")
    connection.execute(
        f"create unlogged table {table} as select distinct s.{name} as {parent.key} "
        f"from {staging(dataset.name, run_id)} as s "
        f"where not exists (select from {parent.name} as p where p.{parent.key} = s.{name}) "
        f"and not exists (select from {staging(parent.name, run_id)} as p where p.{parent.key} = s.{name})"
    )
    return table if connection.execute(f"select 1 from {table} limit 1").fetchone() else None


def load(connection: Connection, dataset: Dataset, choosing: bool, run_id: str) -> dict[date, dict[str, Any]]:
    """Brings one gold table in line with its staging table, in the caller's transaction; returns what became of the
    rows of each partition.

    For every key the staged version of the newest partition counts, if its parents are in gold; `choosing` is false
    where there is but one version of each, whose parents are there. An older partition never undoes a newer one, unless
    the newer version is among the `lost`. Rows that do not differ are not touched.
    """
    key, names = dataset.key, dataset.names
    standing, going = f"{dataset.name}_standing", lost(dataset, run_id)
    with_parents = "".join(
        f" and exists (select from {parent} as p where p.{CATALOG[parent].key} = s.{name})"
        for name, parent in dataset.parents.items()
    )
    if choosing:
        connection.execute(
            f"create temp table {standing} on commit drop as select distinct on ({key}) * "
            f"from {staging(dataset.name, run_id)} as s where true{with_parents} order by {key}, _partition_date desc"
        )
        connection.execute(f"analyze {standing}")
    else:
        standing = staging(dataset.name, run_id)
    columns = ", ".join([*names, *AUDIT])
    content = [*names[1:], "_partition_date"]
    differs = f"({', '.join(f'g.{n}' for n in content)}) is distinct from ({', '.join(f's.{n}' for n in content)})"
    is_lost = f"exists (select from {going} as l where l.{key} = g.{key})"
    amount = dataset.amount or "null::numeric"

    def sums(rows: str, amount: str = "amount") -> dict[date, tuple[int, Any]]:
        """Returns the number of rows of a query and their money, by partition."""
        found = connection.execute(
            f"with done as ({rows}) select _partition_date, count(*), coalesce(sum({amount}), 0) from done group by 1"
        )
        return {day: (count, money) for day, count, money in found.fetchall()}

    staged = sums(f"select _partition_date from {standing}", "0")
    rows = sum(count for count, _ in staged.values())
    # Restating moves rows between tables whose keys must hold together only at the end: those keys stay, and wait.
    with nullcontext() if choosing else without_keys(connection, dataset, rows):
        connection.execute(
            f"create temp table changed as select s.*, {f'g.{amount}' if dataset.amount else amount} "
            f"as amount_before from {standing} as s join {dataset.name} as g using ({key}) "
            f"where (s._partition_date >= g._partition_date or {is_lost}) and {differs}"
        )
        updated = sums("select * from changed", f"coalesce({amount}, 0) - coalesce(amount_before, 0)")
        if updated:
            connection.execute("analyze changed")
            connection.execute(
                f"update {dataset.name} as g set {', '.join(f'{n} = s.{n}' for n in [*content, '_run_id'])}, "
                f"_loaded_at = clock_timestamp() from changed as s where g.{key} = s.{key}"
            )
        connection.execute("drop table changed")
        inserted = sums(
            f"insert into {dataset.name} ({columns}) select {columns} from {standing} as s "
            f"where not exists (select from {dataset.name} as g where g.{key} = s.{key}) "
            f"returning _partition_date, {amount} as amount"
        )
        removed = sums(
            f"delete from {dataset.name} as g using {going} as l where l.{key} = g.{key} "
            f"and not exists (select from {standing} as s where s.{key} = g.{key}) "
            f"returning _partition_date, {amount} as amount"
        )
    done: dict[date, dict[str, Any]] = {}
    for day in staged.keys() | removed.keys():
        of_day = {"staged": staged, "inserted": inserted, "updated": updated, "removed": removed}
        counts = {name: found.get(day, (0, 0))[0] for name, found in of_day.items()}
        money = sum(found.get(day, (0, 0))[1] for found in (updated, inserted)) - removed.get(day, (0, 0))[1]
        done[day] = counts | {
            "unchanged": counts["staged"] - counts["inserted"] - counts["updated"],
            "amount_change": money if dataset.amount else None,
        }
    return done


def together(dataset: Dataset, counts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Adds up what became of the rows of several partitions of a dataset."""
    words = ["staged", "inserted", "updated", "unchanged", "removed", *(["amount_change"] if dataset.amount else [])]
    counts = list(counts)
    return {"amount_change": None} | {word: sum(each[word] for each in counts) for word in words}


MANY = 100_000  # rows


def is_large(rows: int, there: int) -> bool:
    """Whether rows to come are so many, and those there so few, that keys are better built afterwards."""
    return rows >= MANY and there <= rows // 10


@contextmanager
def without_keys(connection: Connection, dataset: Dataset, rows: int) -> Iterator[None]:
    """Takes keys and indexes from a table that holds next to nothing beside the `rows` to come, and then builds them.

    Kept up row by row they cost more than the rows themselves; nor is noted row by row what is touched. Readers wait
    until the caller commits: for tables that are in use there is no such time.
    """
    there = value(connection, f"select count(*) from (select from {dataset.name} limit {rows // 10 + 1}) as known")
    if not is_large(rows, there):
        yield
        return
    near = {dataset.name, *dataset.parents.values(), *(child.name for child in children(dataset))}
    # In the order in which marts lock them, lest each wait for the other.
    connection.execute(f"lock table {', '.join(name for name in CATALOG if name in near)} in access exclusive mode")
    keys = connection.execute(
        "select conrelid::regclass, quote_ident(conname), pg_get_constraintdef(oid) from pg_constraint "
        "where %s::regclass in (conrelid, confrelid) and contype in ('f', 'p') order by contype",
        [dataset.name],
    ).fetchall()
    indexes = connection.execute(
        "select indexrelid::regclass, pg_get_indexdef(indexrelid) from pg_index "
        "where indrelid = %s::regclass and not indisprimary",
        [dataset.name],
    ).fetchall()
    for table, name, _ in keys:
        connection.execute(f"alter table {table} drop constraint {name}")
    for name, _ in indexes:
        connection.execute(f"drop index {name}")
    connection.execute(f"alter table {dataset.name} disable trigger user")
    connection.execute("insert into ops.touched values (null, null)")
    if not there:
        connection.execute(f"truncate {dataset.name}")  # what a transaction begins with an empty file needs no log
    yield
    for table, name, definition in reversed(keys):
        connection.execute(f"alter table {table} add constraint {name} {definition}")
    for _, definition in indexes:
        connection.execute(definition)
    connection.execute(f"alter table {dataset.name} enable trigger user")
    connection.execute(f"analyze {dataset.name}")


def account_for(connection: Connection, day: date) -> list[str]:
    """Notes in the ledger what gold has gained or lost by no load; a sentence for each table that somebody changed."""
    warnings = []
    for dataset, rows, amount in connection.execute("select * from ops.unaccounted").fetchall():
        with run(connection, "gold", dataset, day, CATALOG[dataset].rule_set) as row:
            row |= {"inserted": max(rows, 0), "removed": max(-rows, 0), "amount_change": amount}
            note(connection, row | {"outcome": "unaccounted"})
        money = f" and {amount:+,.2f} of {CATALOG[dataset].amount}" if amount else ""
        warnings.append(
            f"warn: gold {dataset}: {rows:+,} rows{money} by no load: somebody changed it by hand. "
            "The ledger has it now; run the dates again with FORCE=1 to bring gold back in line with silver."
        )
    return warnings


def replace_withheld(connection: Connection, dataset: Dataset, days: Sequence[date], run_id: str) -> None:
    """Brings ops.withheld in line with what was staged of partitions, in the caller's transaction."""
    connection.execute(
        "delete from ops.withheld where dataset = %s and _partition_date = any(%s)", [dataset.name, [*days]]
    )
    names = ", ".join(WITHHELD)
    connection.execute(f"insert into ops.withheld ({names}) select {names} from {staging('withheld', run_id)}")
