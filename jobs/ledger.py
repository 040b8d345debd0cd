"""Reads and writes the ledger of runs and the completion markers, in the schema ops."""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, timezone
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row

from jobs import program, settings, warehouse
from jobs.dataset import Dataset
from jobs.program import Refused
from jobs.warehouse import Connection


@contextmanager
def run(
    connection: Connection, layer: str, name: str, day: date, rule_set: str, log: str = ""
) -> Iterator[dict[str, Any]]:
    """Writes the ledger row of a run of one date, as `runs` does for several dates.

    Its parameters are the columns of the row.
    """
    with runs(connection, layer, name, [day], rule_set, log) as rows:
        yield rows[day]


@contextmanager
def runs(
    connection: Connection, layer: str, name: str, days: Sequence[date], rule_set: str, log: str = ""
) -> Iterator[dict[date, dict[str, Any]]]:
    """Writes a ledger row for each date of a run over several dates; yields the rows by date.

    The caller adds the counts and settles the rows. If the block fails, its error is recorded here. While a run lasts,
    its connection holds the lock `run <run_id>`, which tells other processes that the run is alive.

    Its parameters are the columns of the rows.
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
        with suppress(psycopg.Error):  # the locks ended with the connection
            for lock in locks:
                connection.execute("select pg_advisory_unlock(hashtext(%s))", lock)


def record_failure(
    connection: Connection, layer: str, name: str, day: date, log: str, error: str, at: datetime
) -> None:
    """Ensures that a task that failed at the time `at` has a row in the ledger.

    Most failed jobs have written their own row. A job that was killed has left a row with the outcome `running`, which
    becomes `failed`. A job that ended before it wrote a row gets one, unless it has run since.

    Its parameters are the columns of the row.
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
    """Returns a unique name for a run that begins now (UTC)."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def settle(connection: Connection, row: dict[str, Any], made_from: str, stands: str | None = None) -> None:
    """Ends a successful run: writes its ledger row and its completion marker in one transaction.

    A run that changed nothing gives the earlier run `stands`, whose content remains current.
    """
    with connection.transaction():
        write(connection, "ops.ledger", row | {"outcome": "done"})
        marker = {name: row[name] for name in ("layer", "dataset", "partition_date", "run_id", "rule_set")}
        marker["run_id"] = stands or row["run_id"]
        stale = {"stale_since": None, "stale_turn": None, "stale_lost": None}
        write(connection, "ops.receipts", marker | {"made_from": made_from} | stale)


def withdraw(connection: Connection, row: dict[str, Any]) -> None:
    """Clears the input in a partition's marker before its content changes: the partition is due until settled."""
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
    """Writes the counts of a run so far to the ledger."""
    write(connection, "ops.ledger", row)


def write(connection: Connection, table: str, row: dict[str, Any]) -> None:
    """Inserts a row or updates the one of its key; stamps the time of a marker, and of a run that has an outcome."""
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
    """Returns the next turn: higher than that of all markers and runs, and independent of clocks."""
    return warehouse.value(warehouse.process_connection(), "select nextval('ops.turns')")


def marker(layer: str, dataset: str, day: date, since: int | None = None) -> dict[str, Any] | None:
    """Returns the marker of a partition, or None if there is none or the ledger's run is missing or of another input.

    A marker with the sequence number `since` or a later one counts even if it is withdrawn, because the task that
    withdrew it validates the partition again.
    """
    with warehouse.process_connection().cursor(row_factory=dict_row) as cursor:
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
    """Ends a silver run with one row per reason code, also for codes without hits; returns its warnings.

    These are the given `warnings` and a sentence for each threshold that the hits reached.
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
    """Returns a row of ops.tripped in words."""
    what = "rejected" if level["reason"] == "rejected" else f"rejected with {level['reason']}"
    share = 100 * level["hits"] / level["bronze_rows"]
    return (
        f"{level['dataset']} {level['partition_date']}: {level['hits']:,} of {level['bronze_rows']:,} rows {what} "
        f"({share:.1f} %), the {level['action']} level is {100 * level['level_share']:.0f} % and "
        f"{level['level_rows']:,} rows"
    )


class Change(NamedTuple):
    """Tells in words why a partition is to be validated again, and whether rows of it have lost parents."""

    why: str
    is_lost: bool


class Stopped(Refused):
    """Reports that a threshold keeps a date out of gold."""


def standing(connection: Connection, dataset: Dataset, day: date) -> dict[str, Any] | None:
    """Returns the current silver run of a partition, a row of ops.standing, or None."""
    with connection.cursor(row_factory=dict_row) as cursor:
        where = "dataset = %s and partition_date = %s"
        return cursor.execute(f"select * from ops.standing where {where}", [dataset.name, day]).fetchone()


def hits(connection: Connection, dataset: Dataset, day: date, run_id: str) -> dict[str, int]:
    """Returns how many rows of a partition a silver run rejected, by reason code, zero hits included."""
    found = connection.execute(
        "select reason, hits from ops.reasons where run_id = %s and dataset = %s and partition_date = %s",
        [run_id, dataset.name, day],
    )
    return dict(found.fetchall())


def rows_in_silver(connection: Connection, names: Iterable[str]) -> int:
    """Returns the number of rows, accepted and rejected, that silver has of these datasets."""
    query = "select coalesce(sum(accepted + rejected), 0)::bigint from ops.standing where dataset = any(%s)"
    return warehouse.value(connection, query, [[*names]])


def usual_rows(connection: Connection, dataset: Dataset, day: date) -> tuple[int, float | None]:
    """Returns (dates, median rows) of up to eight earlier dates of the same weekday."""
    [found] = connection.execute(
        "select count(*), percentile_cont(0.5) within group (order by bronze_rows) from (select bronze_rows from "
        "ops.receipts join ops.ledger using (run_id, layer, dataset, partition_date) "
        "where layer = 'bronze' and dataset = %s and partition_date < %s "
        "and (%s - partition_date) %% 7 = 0 order by partition_date desc limit 8) as earlier",
        [dataset.name, day, day],
    ).fetchmany(1)
    return found


def dates_of_file(connection: Connection, dataset: Dataset, day: date, sha256: str) -> list[date]:
    """Returns the other dates with the same file in bronze, latest first; none if this date has it already."""
    found = connection.execute(
        "select partition_date from ops.receipts where layer = 'bronze' and dataset = %(dataset)s "
        "and made_from = %(sha256)s order by partition_date desc",
        {"dataset": dataset.name, "sha256": sha256},
    ).fetchall()
    dates = [other for (other,) in found]
    return [] if day in dates else dates


def dates_with(connection: Connection, dataset: Dataset, reason: str) -> list[date]:
    """Returns the partitions whose current silver run rejected rows for a reason."""
    found = connection.execute(
        "select partition_date from ops.receipts natural join ops.reasons "
        "where layer = 'silver' and dataset = %s and reason = %s and hits > 0",
        [dataset.name, reason],
    )
    return [day for (day,) in found]


def current_run(connection: Connection, layer: str, dataset: Dataset, day: date) -> str | None:
    """Returns the run whose rows a layer has of a partition, or None."""
    found = connection.execute(
        "select run_id from ops.receipts where layer = %s and dataset = %s and partition_date = %s",
        [layer, dataset.name, day],
    ).fetchone()
    return found[0] if found else None


def to_reconcile(connection: Connection) -> tuple[str, date] | None:
    """Returns the dataset and date of the oldest validation by key that was not compared with its file; or None."""
    found = connection.execute(
        "select dataset, partition_date from ops.standing where since_run is not null and not exists (select "
        "from ops.receipts as done where done.layer = 'reconciliation' and done.dataset = standing.dataset "
        "and done.partition_date = standing.partition_date and done.made_from = standing.run_id) "
        "order by ended_at limit 1"
    ).fetchone()
    return (found[0], found[1]) if found else None


def runs_since(connection: Connection, dataset: Dataset, day: date, run_id: str, base: str) -> list[str]:
    """Returns the silver runs of a partition from `run_id` back to, but without, the run `base`.

    Each of them has written only the rows of records concerned by parents that came or went. Returns none if one of
    them validated the whole partition.
    """
    found = connection.execute(
        "with recursive chain as (select run_id, since_run from ops.ledger where run_id = %(run_id)s and "
        "layer = 'silver' and dataset = %(dataset)s and partition_date = %(day)s union select before.run_id, "
        "before.since_run from chain join ops.ledger as before on before.run_id = chain.since_run and "
        "before.layer = 'silver' and before.dataset = %(dataset)s and before.partition_date = %(day)s "
        "where chain.since_run <> %(base)s) select run_id, since_run from chain",
        {"run_id": run_id, "dataset": dataset.name, "day": day, "base": base},
    ).fetchall()
    return [run for run, _ in found] if base in {since for _, since in found} else []


FORGOTTEN = "forgotten"  # in place of a checksum: what a silver partition was made from whose date is taken back


def knows(connection: Connection, day: date) -> bool:
    """Tells whether a date has a marker, or a run that failed or died since the date was last forgotten."""
    return warehouse.value(
        connection,
        "select exists(select from ops.receipts where partition_date = %(day)s) or exists(select from ops.ledger "
        "where partition_date = %(day)s and layer in ('source', 'bronze', 'silver', 'gold', 'forget') "
        "and outcome <> 'done' and turn > (select coalesce(max(turn), 0) from ops.ledger where layer = 'forget' "
        "and partition_date = %(day)s and outcome = 'done'))",
        {"day": day},
    )


def not_emptied(connection: Connection, day: date) -> list[str]:
    """Returns the datasets of a date whose silver partition, or its rows in gold, are not those of a forgotten date."""
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
    """Deletes all markers of a date, so that no layer and no task counts as done for it."""
    connection.execute("delete from ops.receipts where partition_date = %s", [day])


def newest(connection: Connection) -> date | None:
    """Returns the newest date in gold, or None."""
    return warehouse.value(connection, "select day from ops.newest")


def versions(connection: Connection, dataset: Dataset) -> dict[str, int | None]:
    """Returns the newest Delta version in the ledger of each silver table of a dataset, by kind, or None."""
    [found] = connection.execute(
        "select max(delta_accepted), max(delta_rejected) from ops.ledger where layer = 'silver' and dataset = %s",
        [dataset.name],
    ).fetchmany(1)
    return dict(zip(("accepted", "rejected"), found, strict=True))


def ran_before(connection: Connection, dataset: Dataset, runs: Mapping[date, Mapping[str, Any]]) -> set[date]:
    """Returns those dates of `runs` whose silver partition another run may have written, finished or not."""
    found = connection.execute(
        "select distinct partition_date from ops.ledger where layer = 'silver' and dataset = %s "
        "and partition_date = any(%s) and run_id <> all(%s)",
        [dataset.name, [*runs], [run["run_id"] for run in runs.values()]],
    )
    return {day for (day,) in found}


def died_before(connection: Connection, row: Mapping[str, Any]) -> bool:
    """Tells whether a run over a silver partition died since the current one and may have removed keys."""
    found = connection.execute(
        "select 1 from ops.ledger where layer = 'silver' and dataset = %(dataset)s and run_id <> %(run_id)s "
        "and partition_date = %(partition_date)s and outcome <> 'done' and lost > 0 and turn > (select "
        "coalesce(max(turn), 0) from ops.ledger where layer = 'silver' and dataset = %(dataset)s "
        "and partition_date = %(partition_date)s and outcome = 'done') limit 1",
        row,
    )
    return found.fetchone() is not None


def invalidate(connection: Connection, dataset: Dataset, kind: str, version: int) -> None:
    """Marks the partitions that a lost version of a Delta table wrote as due for revalidation."""
    connection.execute(
        "update ops.receipts set made_from = '', stale_since = clock_timestamp(), stale_turn = nextval('ops.turns') "
        f"from ops.ledger where receipts.layer = 'silver' and receipts.dataset = %s and delta_{kind} = %s "
        "and (ledger.run_id, ledger.layer, ledger.dataset, ledger.partition_date) "
        "= (receipts.run_id, receipts.layer, receipts.dataset, receipts.partition_date)",
        [dataset.name, version],
    )


def longest_run(connection: Connection) -> float:
    """Returns the seconds of the longest run over a silver table that ended in the last 90 days."""
    return warehouse.value(
        connection,
        "select coalesce(extract(epoch from max(ended_at - started_at)), 0)::float from ops.ledger "
        "where layer in ('silver', 'gold') and ended_at > now() - interval '90 days'",
    )


def mark_stale(connection: Connection, dataset: str, days: Mapping[date, Change]) -> None:
    """Marks silver partitions as due for revalidation because parents came or went."""
    for day, change in days.items():
        connection.execute(
            "update ops.receipts set stale_since = clock_timestamp(), stale_turn = nextval('ops.turns'), "
            "stale_lost = %s or (stale_turn is not null and stale_lost is distinct from false) "
            "where layer = 'silver' and dataset = %s and partition_date = %s",
            [change.is_lost, dataset, day],
        )


def stale(dataset: Dataset | None = None, day: date | None = None) -> list[tuple[str, date, int]]:
    """Returns (dataset, partition, turn) of the silver partitions due for revalidation, and since which turn."""
    connection = warehouse.process_connection()
    return connection.execute(
        "select dataset, partition_date, stale_turn from ops.receipts where stale_turn is not null "
        "and layer = 'silver' and dataset = coalesce(%s, dataset) "
        "and partition_date = coalesce(%s, partition_date) "
        "order by partition_date",
        [dataset and dataset.name, day],
    ).fetchall()


def remaining(day: date) -> str:
    """Returns a sentence on what is still to do for a date and by which command; "" if it is done or running."""
    found = None
    # The job that asks is done, whatever is down since.
    with suppress(psycopg.Error), warehouse.connect() as connection:
        found = connection.execute(
            "select why from ops.dates where partition_date = %s and state not in ('done', 'running')", [day]
        ).fetchone()
    return f"{day} is not done: {found[0]}; next: luigi --module pipelines GoldPipeline --date {day}" if found else ""


def gold_state(connection: Connection) -> str:
    """Returns a fingerprint of the current gold loads, from which marts are made."""
    return warehouse.value(
        connection,
        "select coalesce(md5(string_agg(run_id, ',' order by dataset, partition_date)), '') "
        "from ops.receipts where layer = 'gold'",
    )


def marts_marker(rule_set: str, session: int) -> dict[str, Any] | None:
    """Returns the newest marker of marts that this SQL made from current gold, or since turn `session`; or None."""
    connection = warehouse.process_connection()
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select * from ops.receipts where layer = 'marts' and rule_set = %s "
            "and (made_from = %s or turn >= %s) order by turn desc limit 1",
            [rule_set, gold_state(connection), session],
        ).fetchone()


def behind(connection: Connection, dataset: Dataset) -> list[date]:
    """Returns the partitions of which gold holds the rows of an earlier silver run."""
    found = connection.execute(
        "select partition_date from ops.receipts as gold join ops.receipts as silver using (dataset, partition_date) "
        "where gold.layer = 'gold' and silver.layer = 'silver' and gold.made_from <> silver.run_id "
        "and silver.made_from <> '' and dataset = %s",
        [dataset.name],
    )
    return [day for (day,) in found]
