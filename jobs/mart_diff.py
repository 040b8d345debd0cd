"""Computes the marts over copies of gold as a dry run would leave it, and describes the figures that would change."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs import marts, schema, validation, warehouse
from jobs.dataset import Dataset
from jobs.dry_run import Retrial

WITHHELD = ("dataset", "_partition_date", "row_key", "visit_id", "row_day", "department", "amount", "reasons")
OF_ALL = {"ops.mart_trust": "department = '*'"}  # the rows that sum up the whole hospital


def mart_lines(
    connection: warehouse.Connection, trials: Mapping[str, Retrial], coming: date | None = None
) -> Iterator[str]:
    """Yields each figure of the marts that would change, computed by the SQL of sql/marts over copies of gold.

    A partition that is `coming` counts as if gold had it. Temporary tables hide all others of the same name, in this
    connection alone; nothing is committed.
    """
    with connection.transaction(force_rollback=True):
        connection.execute("set transaction isolation level repeatable read")
        for trial in trials.values():
            copy_gold(connection, trial, coming)
        copy_withheld(connection, trials, coming)
        for name, (query, _) in schema.gold_queries().items():
            connection.execute(f"create temp view {name} as {query}")
        copies = rf"\bops\.({'|'.join(['withheld', *schema.gold_queries()])})\b"
        gold = [gold_line(connection, trial) for trial in trials.values()] if coming else []
        lines: list[str] = []
        for mart, select in marts.selects().items():
            lines += compare_mart(connection, mart, re.sub(copies, r"pg_temp.\1", select))
    yield from gold
    if lines:
        yield f"{'Figures of the marts':<46}{'now':>18}{'then':>18}{'change':>16}"
    else:
        yield "No figure of the marts would change."
    yield from lines


def copy_gold(connection: warehouse.Connection, trial: Retrial, coming: date | None = None) -> None:
    """Copies a gold table to a temporary one, and gives each affected key the newest version that would be accepted."""
    dataset, table = trial.dataset, trial.dataset.name
    connection.execute(f"create temp table {table} on commit drop as table public.{table}")
    names = ", ".join([*dataset.names, "_partition_date"])
    connection.execute(f"create temp table fresh on commit drop as select {names} from public.{table} with no data")
    copy(connection, "fresh", newest_versions(trial, loaded_days(connection, dataset, coming)))
    connection.execute(f"create unique index on pg_temp.{table} ({dataset.key})")
    connection.execute(f"analyze pg_temp.{table}, pg_temp.fresh")
    connection.execute(f"delete from pg_temp.{table} as g using fresh where fresh.{dataset.key} = g.{dataset.key}")
    computed = "".join(f", {name}" for name, _, _ in dataset.computed)
    values = "".join(f", {value}" for _, _, value in dataset.computed)
    connection.execute(
        f"insert into pg_temp.{table} ({names}{computed}, _run_id, _loaded_at) "
        f"select {names}{values}, '', now() from fresh where _partition_date is not null"
    )
    connection.execute("drop table fresh")


def gold_line(connection: warehouse.Connection, trial: Retrial) -> str:
    """Returns a sentence on the rows of a gold table that change, come and go in its copy."""
    table, key = trial.dataset.name, trial.dataset.key
    one, other = (f"row({', '.join(f'{of}.{name}' for name in trial.dataset.names)})" for of in ("was", "would"))
    come, gone, changed = connection.execute(
        f"select count(*) filter (where was.{key} is null), count(*) filter (where would.{key} is null), "
        f"count(*) filter (where was.{key} is not null and would.{key} is not null) "
        f"from public.{table} as was full join pg_temp.{table} as would on was.{key} = would.{key} "
        f"where {one} is distinct from {other}"
    ).fetchmany(1)[0]
    return f"gold {table}: {changed:,} rows change, {come:,} come, {gone:,} go"


def loaded_days(connection: warehouse.Connection, dataset: Dataset, coming: date | None = None) -> list[date]:
    """Returns the partitions of a dataset that are loaded into gold, and the one that is coming."""
    found = connection.execute(
        "select partition_date from ops.receipts where layer = 'gold' and dataset = %s", [dataset.name]
    )
    return list({day for (day,) in found} | ({coming} if coming else set()))


def newest_versions(trial: Retrial, days: Sequence[date]) -> DataFrame:
    """Returns each key whose rows come, go or change, with its newest version, or with nulls if no version is left."""
    dataset = trial.dataset
    keys = trial.changes.select(dataset.key).distinct()
    others = [F.col(c.name).cast("timestamp_ntz") if c.type == "timestamp" else F.col(c.name) for c in dataset.columns]
    versions = trial.accepted.filter(F.col("_partition_date").isin(list(days))).select(*others, "_partition_date")
    newest = versions.join(keys, on=dataset.key, how="left_semi").groupBy(dataset.key)
    whole = newest.agg(F.max_by(F.struct(*dataset.names[1:], "_partition_date"), "_partition_date").alias("version"))
    return keys.join(whole, on=dataset.key, how="left").select(dataset.key, "version.*")


def copy_withheld(connection: warehouse.Connection, trials: Mapping[str, Retrial], coming: date | None = None) -> None:
    """Copies ops.withheld to a temporary table, with the rows that would be excluded of the partitions in gold."""
    names = ", ".join(WITHHELD)
    connection.execute("create temp table withheld (like ops.withheld including identity) on commit drop")
    connection.execute(f"insert into pg_temp.withheld ({names}) select {names} from ops.withheld")
    for name, trial in trials.items():
        days = [day for day in loaded_days(connection, trial.dataset, coming) if day in trial.counts]
        connection.execute(
            "delete from pg_temp.withheld where dataset = %s and _partition_date = any(%s)", [name, days]
        )
        rejected = trial.rejected.filter(F.col("_partition_date").isin(days))
        copy(connection, f"pg_temp.withheld ({names})", validation.withheld(rejected, trial.dataset).select(*WITHHELD))
    connection.execute("analyze pg_temp.withheld")


def copy(connection: warehouse.Connection, table: str, rows: DataFrame) -> None:
    """Copies rows from Spark to a table of PostgreSQL."""
    with connection.cursor().copy(f"copy {table} from stdin") as target:
        for row in rows.toLocalIterator():
            target.write_row(row)


def compare_mart(connection: warehouse.Connection, mart: str, select: str) -> Iterator[str]:
    """Builds a mart in a temporary table; yields the figures and row counts that differ from the current mart."""
    standing, would = (mart if "." in mart else f"public.{mart}"), f"pg_temp.{mart.rpartition('.')[2]}"
    key, columns = marts.columns_of(connection, standing)
    names = ", ".join(columns)
    connection.execute(f"create temp table {would.removeprefix('pg_temp.')} (like {standing}) on commit drop")
    connection.execute(f"insert into {would} ({names}) select {names} from (\n{select}\n) as mart")
    same_key = " and ".join(f"was.{column} = would.{column}" for column in key)
    changed, come, gone = connection.execute(
        f"select count(*) filter (where was.{key[0]} is not null and would.{key[0]} is not null), "
        f"count(*) filter (where was.{key[0]} is null), count(*) filter (where would.{key[0]} is null) "
        f"from {standing} as was full join {would} as would on {same_key} "
        "where row(was.*) is distinct from row(would.*)"
    ).fetchmany(1)[0]
    if not (changed or come or gone):
        return
    yield f"  {mart}: {changed:,} rows change, {come:,} come, {gone:,} go"
    figures = dict(figures_of(connection, standing))
    now, then = (
        connection.execute(
            f"select {', '.join(figures.values())} from {table} where {OF_ALL.get(mart, 'true')}"
        ).fetchmany(1)[0]
        for table in (standing, would)
    )
    for name, before, after in zip(figures, now, then, strict=True):
        if before != after:
            change = number((after or 0) - (before or 0), "+")
            yield f"    {name:<42}{number(before):>18}{number(after):>18}{change:>16}"


def figures_of(connection: warehouse.Connection, table: str) -> Iterator[tuple[str, str]]:
    """Yields (label, SQL) for each figure of a mart: the mean of averages, shares and ages, the sum of all others."""
    found = connection.execute(
        "select attname, format_type(atttypid, null) from pg_attribute "
        "where attrelid = %s::regclass and attnum > 0 and not attisdropped order by attnum",
        [table],
    )
    for name, kind in found:
        if kind == "boolean":
            yield name, f"count(*) filter (where {name})"
        elif kind in ("bigint", "integer", "numeric"):
            is_mean = name.startswith("avg_") or name.endswith(("_pct", "_years"))
            yield (f"{name} (mean)", f"round(avg({name}), 4)") if is_mean else (name, f"sum({name})")


def number(value: int | Decimal | None, sign: str = "") -> str:
    """Returns a figure as text, or "-" if there is none."""
    return "-" if value is None else f"{value:{sign},}"
