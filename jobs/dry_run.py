"""Validates partitions without publishing, and compares the verdicts and values with those of silver."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg.rows import dict_row
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import bronze_files, delta_tables, spark_csv, validation, warehouse
from jobs.catalog import CATALOG
from jobs.dataset import WHITE_SPACE, Dataset
from jobs.program import Refused

DIRECTIONS = REJECTED, ACCEPTED, CHANGED, OTHERWISE = (
    "accepted -> rejected",
    "rejected -> accepted",
    "accepted, other values",
    "rejected, other reasons",
)
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


def standing_runs(connection: warehouse.Connection) -> dict[str, dict[date, Run]]:
    """Returns the current silver runs by dataset and partition."""
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute("select * from ops.standing order by partition_date").fetchall()
    return {name: {run["partition_date"]: run for run in found if run["dataset"] == name} for name in CATALOG}


def retry(
    spark: SparkSession, runs: Mapping[str, Mapping[date, Run]], due: Mapping[str, list[date]]
) -> dict[str, Retrial]:
    """Revalidates the partitions that are due, and those whose parents would come or go as a result."""
    trials: dict[str, Retrial] = {}
    for name, dataset in CATALOG.items():
        shaken = shaken_days(spark, dataset, trials)
        if days := [day for day in runs[name] if day in due[name] or day in shaken]:
            trials[name] = retrial(spark, dataset, days, trials)
    return trials


def shaken_days(spark: SparkSession, dataset: Dataset, trials: Mapping[str, Retrial]) -> set[date]:
    """Returns the partitions with rows whose parents would come or go."""
    found = []
    for name, parent in dataset.parents.items():
        if parent in trials and trials[parent].kinds - {"changes"}:
            moved = trials[parent].changes.filter("kind <> 'changes'")
            keys = moved.select(F.col(CATALOG[parent].key).alias("moved")).distinct()
            for kind in ("accepted", "rejected"):
                rows = delta_tables.silver(spark, dataset, kind).select(
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
    spark: SparkSession, dataset: Dataset, days: list[date], trials: Mapping[str, Retrial], read: Reader | None = None
) -> Retrial:
    """Revalidates partitions of one dataset; finds the rows whose verdicts or values differ from those of silver.

    `read` returns the header and the records of a partition; by default those of bronze. Raises Refused if the columns
    of silver's table, or their types, are not those of the catalog.
    """

    def again(day: date) -> tuple[validation.Counts, validation.Verdict]:
        header, validated = validate(spark, dataset, day, trials, read)
        verdict = validation.split(validated, dataset, {day: header})
        verdict = validation.Verdict(*(rows.drop("_record_hash") for rows in verdict))  # only a correction reads it
        return validation.count(validated, dataset, [day])[day], verdict

    with ThreadPoolExecutor(4) as pool:
        counts, verdicts = zip(*pool.map(again, days), strict=True)
    would = validation.Verdict(*(union(parts) for parts in zip(*verdicts, strict=True)))
    was = verdict_in_silver(spark, dataset, would)
    in_days = F.col("_partition_date").isin(days)
    changes = differences(was.accepted.filter(in_days), would.accepted, ["_partition_date", dataset.key]).cache()
    moved = moved_rejects(was.rejected.filter(in_days), would.rejected, dataset).cache()
    kinds, flips = count_flips(dataset, moved, changes)
    return Retrial(
        dataset,
        dict(zip(days, counts, strict=True)),
        would.accepted.unionAll(was.accepted.filter(~in_days)),
        would.rejected,
        changes,
        kinds,
        flips,
    )


def verdict_in_silver(spark: SparkSession, dataset: Dataset, would: validation.Verdict) -> validation.Verdict:
    """Returns the rows of silver's tables, which have no rows before the first date has been validated.

    Raises Refused if the columns of the accepted rows, or their types, are not those of the revalidated ones (`would`).
    """
    was = validation.Verdict(would.accepted.limit(0), would.rejected.limit(0))
    if delta_tables.has_silver(dataset, "accepted"):
        was = validation.Verdict(
            delta_tables.silver(spark, dataset).select(*would.accepted.columns),
            delta_tables.silver(spark, dataset, "rejected"),
        )
    if was.accepted.dtypes != would.accepted.dtypes:
        raise Refused(
            f"the columns of {dataset.name}, or their types, are not those of its silver table; a backtest tells what "
            "other rules would do to the tables there are."
        )
    return was


def count_flips(dataset: Dataset, moved: DataFrame, changes: DataFrame) -> tuple[set[str], Flips]:
    """Returns the kinds of `changes` that occur, and counts the rows of both frames by partition, direction and codes.

    `moved` is the result of `moved_rejects`, `changes` that of `differences`.
    """
    flips: Flips = Counter()
    for day, direction, codes, rows in (
        moved.groupBy("_partition_date", "direction", "codes").agg(F.sum("rows")).collect()
    ):
        flips[dataset.name, day, direction, codes] = rows
    # If another row of a key is accepted in place of the earlier one, two rows flip and none has other values.
    place = ["_partition_date", dataset.key]
    replaced = moved.filter(F.col("direction") == ACCEPTED).select(*place, F.lit(True).alias("replaced")).distinct()
    kinds = (
        changes.join(replaced, on=place, how="left").groupBy("_partition_date", "kind", "replaced").count().collect()
    )
    for day, kind, is_replaced, rows in kinds:
        if kind == "changes" and not is_replaced:
            flips[dataset.name, day, CHANGED, ""] += rows
    return {row["kind"] for row in kinds}, flips


def read_bronze(spark: SparkSession, dataset: Dataset, day: date) -> tuple[Sequence[str], DataFrame]:
    """Returns the header and the records of a bronze file."""
    facts = bronze_files.facts_of(dataset, day)
    return facts.header, spark_csv.records(spark, dataset, day, facts)


def validate(
    spark: SparkSession, dataset: Dataset, day: date, trials: Mapping[str, Retrial], read: Reader | None = None
) -> tuple[Sequence[str], DataFrame]:
    """Returns a file's header, and its rows validated as in silver_partitions, but against parents as they would be."""
    parents = {}
    for name, parent in dataset.parents.items():
        accepted = trials[parent].accepted if parent in trials else delta_tables.silver(spark, CATALOG[parent])
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
