"""Shows what a changed declaration would do to stored data, before anything runs under it.

python -m jobs.backtest [--first 2026-01-01] [--last 2026-01-31]
"""

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import product
from typing import Any

from psycopg.rows import dict_row
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs import borders, lake, ledger, marts, program, schema, validation, warehouse
from jobs.catalog import CATALOG
from jobs.dataset import WHITE_SPACE, Dataset
from jobs.program import Refused

FEW_DATES = 10  # up to so many are shown one by one
DIRECTIONS = REJECTED, ACCEPTED, CHANGED, OTHERWISE = (
    "accepted -> rejected",
    "rejected -> accepted",
    "accepted, other values",
    "rejected, other reasons",
)
WITHHELD = ("dataset", "_partition_date", "row_key", "visit_id", "row_day", "department", "amount", "reasons")
OF_ALL = {"ops.mart_trust": "department = '*'"}  # the rows that sum up the whole hospital
Run = dict[str, Any]  # a row of ops.standing
Reader = Callable[[Any, Dataset, date], tuple[Sequence[str], DataFrame]]
Flips = Counter[tuple[str, date, str, str]]  # (dataset, partition, direction, codes) -> rows


@dataclass(frozen=True)
class Retrial:
    """Holds the revalidation of a dataset: what would be accepted and rejected, and how that differs from silver."""

    dataset: Dataset
    counts: dict[date, validation.Counts]  # by partition revalidated
    accepted: DataFrame  # the typed rows of all partitions, revalidated or not
    rejected: DataFrame  # in the form of silver, of the partitions revalidated
    changes: DataFrame  # (_partition_date, key, kind) of accepted rows that come, go or change
    kinds: set[str]  # the kinds that occur
    flips: Flips


def main() -> None:
    """Prints what the catalog would change in the dates of the command line, or ends the program with a sentence."""
    parser = argparse.ArgumentParser(prog="backtest", description=__doc__)
    parser.add_argument("--first", default="0001-01-01", help="the first date to revalidate")
    parser.add_argument("--last", default="9999-12-31", help="the last one")
    given = parser.parse_args()
    first, last = program.given_day(given.first), program.given_day(given.last)
    try:
        for line in backtest(first, last):
            borders.say(line)
    except Exception as error:
        program.leave(1, program.sentence(error))


def backtest(first: date, last: date) -> Iterator[str]:
    """Validates stored bronze by the catalog as it is here, and yields what would change; publishes nothing."""
    with warehouse.connect() as connection:
        runs, state = standing_runs(connection), fingerprint(connection)
        due = due_days(runs, first, last)
        if not any(due.values()):
            yield "No declaration differs from what silver was validated by: nothing would change."
            return
        spark = program.resident("backtest")
        program.tune_for_small_input(
            spark, sum(run["bronze_rows"] for by_day in runs.values() for run in by_day.values())
        )
        yield from what_is_not_current(connection)
        yield from report(connection, runs, retry(spark, runs, due))
        if fingerprint(connection) != state:
            yield "Another run has written silver or gold meanwhile; these figures may mix two states: try again."


def report(
    connection: warehouse.Connection, runs: Mapping[str, Mapping[date, Run]], trials: Mapping[str, Retrial]
) -> Iterator[str]:
    """Yields what the revalidation would change in rows and in figures."""
    yield from flip_lines(trials, runs)
    yield from reason_lines(connection, trials, runs)
    yield from stop_lines(connection, trials, runs)
    yield from mart_lines(connection, trials)


def standing_runs(connection: warehouse.Connection) -> dict[str, dict[date, Run]]:
    """Returns the current silver runs by dataset and partition."""
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute("select * from ops.standing order by partition_date").fetchall()
    return {name: {run["partition_date"]: run for run in found if run["dataset"] == name} for name in CATALOG}


def due_days(runs: Mapping[str, Mapping[date, Run]], first: date, last: date) -> dict[str, list[date]]:
    """Returns by dataset the partitions that were validated by another declaration than the one in the catalog."""
    return {
        name: [day for day, run in by_day.items() if first <= day <= last and run["rule_set"] != CATALOG[name].rule_set]
        for name, by_day in runs.items()
    }


def fingerprint(connection: warehouse.Connection) -> str:
    """Returns a hash of the runs that silver, gold and marts were made by."""
    return warehouse.value(
        connection,
        "select md5(string_agg(run_id, ',' order by layer, dataset, partition_date)) from ops.receipts "
        "where layer in ('silver', 'gold', 'marts')",
    )


def what_is_not_current(connection: warehouse.Connection) -> Iterator[str]:
    """Yields the dates on which an ordinary run would change something, whatever the declaration."""
    found = connection.execute("select partition_date, why from ops.dates where not is_current order by 1").fetchall()
    current = ledger.marts_marker(marts.rule_set(), ledger.turn())
    if found or not current:
        yield "Not all that differs is the declaration's doing; bring these up to date first:"
        yield from (f"  {day}: {why}" for day, why in found[:FEW_DATES])
        if len(found) > FEW_DATES:
            yield f"  and {len(found) - FEW_DATES:,} more dates (`make ledger`)"
        if not current:
            yield "  the marts are older than gold or than sql/marts"


# ---- revalidating -------------------------------------------------------------------------------------------------


def retry(spark: Any, runs: Mapping[str, Mapping[date, Run]], due: Mapping[str, list[date]]) -> dict[str, Retrial]:
    """Revalidates the partitions that are due, and those whose parents would come or go as a result."""
    trials: dict[str, Retrial] = {}
    for name, dataset in CATALOG.items():
        shaken = shaken_days(spark, dataset, trials)
        if days := [day for day in runs[name] if day in due[name] or day in shaken]:
            trials[name] = retrial(spark, dataset, days, trials)
    return trials


def shaken_days(spark: Any, dataset: Dataset, trials: Mapping[str, Retrial]) -> set[date]:
    """Returns the partitions with rows whose parents would come or go."""
    found = []
    for name, parent in dataset.parents.items():
        if parent in trials and trials[parent].kinds - {"changes"}:
            moved = trials[parent].changes.filter("kind <> 'changes'")
            keys = moved.select(F.col(CATALOG[parent].key).alias("moved")).distinct()
            for kind in ("accepted", "rejected"):
                rows = lake.silver(spark, dataset, kind).select(
                    "_partition_date", F.btrim(name, F.lit(WHITE_SPACE)).alias("key")
                )
                found.append(rows.join(keys, on=F.col("key") == F.col("moved"), how="left_semi"))
    if not found:
        return set()
    return {day for (day, _) in union(found).dropDuplicates(["_partition_date"]).collect()}


def union(frames: Sequence[DataFrame]) -> DataFrame:
    """Returns the rows of all frames; joins them by halves, because a chain of a thousand is too deep for Python."""
    half = len(frames) // 2
    return union(frames[:half]).unionAll(union(frames[half:])) if half else frames[0]


def retrial(
    spark: Any, dataset: Dataset, days: list[date], trials: Mapping[str, Retrial], read: Reader | None = None
) -> Retrial:
    """Revalidates partitions of one dataset; finds the rows whose verdicts or values differ from those of silver.

    `read` returns the header and the records of a partition; by default those of bronze. Raises Refused if the columns
    of silver's table, or their types, are not those of the catalog.

    Long because frames that the comparison shares live only while it runs.
    """

    def again(day: date) -> tuple[validation.Counts, validation.Verdict]:
        header, validated = validate(spark, dataset, day, trials, read)
        verdict = validation.split(validated, dataset, {day: header})
        return validation.count(validated, dataset, [day])[day], verdict

    with ThreadPoolExecutor(4) as pool:
        counts, verdicts = zip(*pool.map(again, days), strict=True)
    would = validation.Verdict(*(union(parts) for parts in zip(*verdicts, strict=True)))
    in_days = F.col("_partition_date").isin(days)
    was = validation.Verdict(would.accepted.limit(0), would.rejected.limit(0))
    if lake.has_silver(dataset, "accepted"):  # the first date has none
        was = validation.Verdict(
            lake.silver(spark, dataset).select(*would.accepted.columns),
            lake.silver(spark, dataset, "rejected"),
        )
    if was.accepted.dtypes != would.accepted.dtypes:
        raise Refused(
            f"the columns of {dataset.name}, or their types, are not those of its silver table; a backtest tells what "
            "other rules would do to the tables there are."
        )
    place = ["_partition_date", dataset.key]
    changes = differences(was.accepted.filter(in_days), would.accepted, place).cache()
    moved = moved_rejects(was.rejected.filter(in_days), would.rejected, dataset).cache()
    flips: Flips = Counter()
    for day, direction, codes, rows in (
        moved.groupBy("_partition_date", "direction", "codes").agg(F.sum("rows")).collect()
    ):
        flips[dataset.name, day, direction, codes] = rows
    # If another row of a key is accepted in place of the earlier one, two rows flip and none has other values.
    replaced = moved.filter(F.col("direction") == ACCEPTED).select(*place, F.lit(True).alias("replaced")).distinct()
    kinds = (
        changes.join(replaced, on=place, how="left").groupBy("_partition_date", "kind", "replaced").count().collect()
    )
    for day, kind, is_replaced, rows in kinds:
        if kind == "changes" and not is_replaced:
            flips[dataset.name, day, CHANGED, ""] += rows
    return Retrial(
        dataset,
        dict(zip(days, counts, strict=True)),
        would.accepted.unionAll(was.accepted.filter(~in_days)),
        would.rejected,
        changes,
        {row["kind"] for row in kinds},
        flips,
    )


def read_bronze(spark: Any, dataset: Dataset, day: date) -> tuple[Sequence[str], DataFrame]:
    """Returns the header and the records of a bronze file."""
    facts = lake.facts_of(dataset, day)
    return facts.header, lake.records(spark, dataset, day, facts)


def validate(
    spark: Any, dataset: Dataset, day: date, trials: Mapping[str, Retrial], read: Reader | None = None
) -> tuple[Sequence[str], DataFrame]:
    """Returns a file's header, and its rows validated as in bronze_to_silver, but against parents as they would be."""
    parents = {}
    for name, parent in dataset.parents.items():
        accepted = trials[parent].accepted if parent in trials else lake.silver(spark, CATALOG[parent])
        in_time = F.col("_partition_date") <= dataset.waits_until(day)
        parents[name] = accepted.filter(in_time).select(CATALOG[parent].key, "_partition_date")
    header, records = (read or read_bronze)(spark, dataset, day)
    records = records.withColumn("_partition_date", F.lit(day))

    def keep(rows: DataFrame) -> DataFrame:
        return rows.localCheckpoint(eager=False)

    validated = validation.validate(records, dataset, {day: header}, parents, keep, keep)
    # The plan ends here, or Spark would plan it again for each query, each child and each of their dates.
    return header, validated.localCheckpoint()


def differences(was: DataFrame, would: DataFrame, place: Sequence[str]) -> DataFrame:
    """Returns the keys of accepted rows that differ, with a `kind`: the row comes, goes or changes."""
    values = F.struct(*(name for name in was.columns if name not in place))
    one, other = was.select(*place, values.alias("was")), would.select(*place, values.alias("would"))
    both = one.join(other, on=list(place), how="full_outer").filter(~F.col("was").eqNullSafe(F.col("would")))
    kind = F.when(F.col("was").isNull(), "comes").when(F.col("would").isNull(), "goes").otherwise("changes")
    return both.select(*place, kind.alias("kind"))


def moved_rejects(was: DataFrame, would: DataFrame, dataset: Dataset) -> DataFrame:
    """Returns (_partition_date, key, direction, codes, rows) of the records whose verdict would change.

    The codes are those that the records would have, or had. Records are counted by their text, because keys of rejected
    rows may be missing and texts may repeat.
    """
    columns = "_partition_date", F.btrim(dataset.key, F.lit(WHITE_SPACE)).alias(dataset.key), "_raw", "_reject_reason"
    both = was.select(*columns, F.lit(-1).alias("sign")).unionAll(would.select(*columns, F.lit(1).alias("sign")))
    is_new = F.col("sign") > 0
    by_text = both.groupBy("_partition_date", "_raw").agg(
        F.max(dataset.key).alias(dataset.key),
        F.sum("sign").alias("more"),
        F.count_if(is_new).alias("rows"),
        F.max(F.when(~is_new, F.col("_reject_reason"))).alias("was"),
        F.max(F.when(is_new, F.col("_reject_reason"))).alias("would"),
    )
    more, other_reasons = F.col("more"), F.col("was") != F.col("would")
    return by_text.select(
        "_partition_date",
        dataset.key,
        F.when(more > 0, REJECTED).when(more < 0, ACCEPTED).when(other_reasons, OTHERWISE).alias("direction"),
        F.when(more < 0, F.col("was")).when(more > 0, F.col("would")).otherwise("").alias("codes"),
        F.when(more == 0, F.col("rows")).otherwise(F.abs(more)).alias("rows"),
    ).filter(F.col("direction").isNotNull())


# ---- what would become of rows -------------------------------------------------------------------------------------


def flip_lines(trials: Mapping[str, Retrial], runs: Mapping[str, Mapping[date, Run]]) -> Iterator[str]:
    """Yields what was revalidated, and the rows that would flip by dataset, direction and reason."""
    flips: Flips = Counter()
    for name, trial in trials.items():
        again = [runs[name][day] for day in trial.counts]
        differ = any(run["rule_set"] != trial.dataset.rule_set for run in again)
        why = "its declaration differs" if differ else "its parents would come or go"
        dates = f"{len(again):,} {'date' if len(again) == 1 else 'dates'}"
        yield f"{name}: {why}; {dates} revalidated, {sum(run['bronze_rows'] for run in again):,} rows"
        flips += trial.flips
    yield "Rows that would flip" + ("" if flips else ": none")
    yield from (f"  {line}" for line in summed(flips))
    if 1 < len(days := sorted({day for _, day, _, _ in flips})) <= FEW_DATES:
        yield "By date"
        for each in days:
            of_day = Counter({key: rows for key, rows in flips.items() if key[1] == each})
            yield from (f"  {each}  {line}" for line in summed(of_day))


def summed(flips: Flips) -> Iterator[str]:
    """Yields a line for each dataset and direction, with the reasons that the rows would have, or had."""
    occurring = {(name, direction) for name, _, direction, _ in flips}
    for name, direction in (each for each in product(CATALOG, DIRECTIONS) if each in occurring):
        total, reasons = 0, Counter[str]()
        for (of, _, to, codes), rows in flips.items():
            if (of, to) == (name, direction):
                total += rows
                reasons.update(dict.fromkeys(filter(None, codes.split(";")), rows))
        named = ", ".join(f"{code} {rows:,}" for code, rows in reasons.most_common())
        yield f"{name:<12}{direction:<25}{total:>9,}" + (f"  ({named})" if named else "")


def reason_lines(
    connection: warehouse.Connection, trials: Mapping[str, Retrial], runs: Mapping[str, Mapping[date, Run]]
) -> Iterator[str]:
    """Yields the numbers of accepted and rejected rows, and of rows by reason, as they are and as they would be."""
    lines = []
    for name, trial in trials.items():
        again = [runs[name][day] for day in trial.counts]
        found = connection.execute(
            "select reason, sum(hits)::bigint from ops.reasons where run_id = any(%s) group by reason",
            [[run["run_id"] for run in again]],
        ).fetchall()
        now, then = Counter[str](), Counter[str]()
        for counts in trial.counts.values():
            then.update({"accepted": counts.accepted, "rejected": counts.rows - counts.accepted} | counts.hits)
        for run in again:
            now.update({"accepted": run["accepted"], "rejected": run["rejected"]})
        now.update(dict(found))
        codes = dict.fromkeys(["accepted", "rejected", *trial.dataset.reasons, *now])
        lines += [(name, code, now[code], then[code]) for code in codes if now[code] != then[code]]
    if lines:
        yield f"{'Rows by verdict and reason':<46}{'now':>10}{'then':>10}{'change':>10}"
    for name, code, before, after in lines:
        yield f"  {name:<12}{code:<32}{before:>10,}{after:>10,}{after - before:>+10,}"


def stop_lines(
    connection: warehouse.Connection, trials: Mapping[str, Retrial], runs: Mapping[str, Mapping[date, Run]]
) -> Iterator[str]:
    """Yields the threshold breaches that would stop a date before gold."""
    passed = dict(connection.execute("select made_from, true from ops.receipts where layer = 'override'").fetchall())
    lines = []
    for name, trial in trials.items():
        limits = {"rejected": trial.dataset.limit} | trial.dataset.limits
        for day, counts in trial.counts.items():
            hits = {"rejected": counts.faulty} | counts.hits
            for code, limit in limits.items():
                reached = [level for level in limit.stop if level.is_reached(hits[code], counts.rows)]
                if reached and runs[name][day]["bronze_sha256"] not in passed:
                    level = min(reached, key=lambda level: (level.share, level.rows))
                    tripped = {"dataset": name, "partition_date": day, "reason": code, "hits": hits[code]}
                    of_level = {"action": "stop", "level_share": level.share, "level_rows": level.rows}
                    lines.append(ledger.in_words(tripped | of_level | {"bronze_rows": counts.rows}))
    if lines:
        yield "Would stop before gold; the figures below are those once it is let pass with OVERRIDE=1"
    yield from (f"  {line}" for line in lines)


# ---- what would become of figures ----------------------------------------------------------------------------------


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


if __name__ == "__main__":
    main()
