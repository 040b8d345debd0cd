"""Finds the partitions of silver whose verdicts no longer hold, because parents came or went."""

from collections.abc import Mapping, Sequence
from datetime import date
from functools import reduce
from operator import or_
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import delta_tables, ledger, validation, warehouse
from jobs.catalog import children
from jobs.dataset import WHITE_SPACE, Dataset


def mark_stale(
    spark: SparkSession,
    connection: warehouse.Connection,
    dataset: Dataset,
    runs: Sequence[Mapping[str, Any]],
    came: DataFrame | None = None,
) -> list[str]:
    """Marks the partitions that `stale_dates` finds as due for revalidation; returns a sentence for each.

    Its parameters are those of `stale_dates`.
    """
    said = []
    for child, dates in stale_dates(spark, connection, dataset, runs, came).items():
        ledger.mark_stale(connection, child, dates)
        said += [f"{change.why}: to be validated again" for change in dates.values()]
    return said


def stale_dates(
    spark: SparkSession,
    connection: warehouse.Connection,
    dataset: Dataset,
    runs: Sequence[Mapping[str, Any]],
    came: DataFrame | None = None,
) -> dict[str, dict[date, ledger.Change]]:
    """Returns the partitions of a dataset's children whose verdicts no longer hold after these runs, by child.

    Each partition has what came or went. `came` has the keys and partitions of the rows that these runs
    accepted: orphans may have found their parent among them. If the runs removed keys, or one that died before them may
    have, rows may have lost their parent: accepted rows, and rows rejected for another reason.

    Long because one query finds the children of all datasets.
    """
    first = min(run["partition_date"] for run in runs)
    took = any(run.get("lost") or ledger.died_before(connection, run) for run in runs)
    waiting, having = [], []
    for child in children(dataset):
        name = next(column for column, parent in child.parents.items() if parent == dataset.name)
        orphan = f"orphan_{name}"
        wanted = (
            F.lit(child.name).alias("dataset"),
            F.col("_partition_date").alias("of_day"),
            F.btrim(name, F.lit(WHITE_SPACE)).alias("wanted"),
            F.date_add("_partition_date", child.orphan_days).alias("until"),
        )
        days = [day for day in ledger.dates_with(connection, child, orphan) if first <= child.waits_until(day)]
        if days and came is not None:
            rejected = delta_tables.silver(spark, child, "rejected").filter(F.col("_partition_date").isin(days))
            waiting.append(rejected.filter(validation.has_code(F.lit(orphan))).select(*wanted))
        if took and delta_tables.has_silver(child, "rejected"):
            without_one = map(validation.has_code, map(F.lit, (orphan, f"missing_{name}", "malformed_row")))
            rejected = delta_tables.silver(spark, child, "rejected").filter(~reduce(or_, without_one))
            having += [delta_tables.silver(spark, child).select(*wanted), rejected.select(*wanted)]
    is_there = (F.col("wanted") == F.col("known")) & (F.col("day") <= F.col("until"))
    found = []
    if waiting and came is not None:
        found_one = validation.union(waiting).join(came.toDF("known", "day"), on=is_there, how="left_semi")
        found.append(found_one.withColumn("change", F.lit("found")))
    if having:
        keys = delta_tables.silver(spark, dataset).select(dataset.key, "_partition_date").toDF("known", "day")
        lost_one = validation.union(having).join(keys, on=is_there, how="left_anti")
        found.append(lost_one.withColumn("change", F.lit("lost")))
    dates: dict[str, dict[date, ledger.Change]] = {}
    if found:
        counted = validation.union(found).groupBy("dataset", "of_day", "change").count().collect()
        for name, day, change, rows in sorted(counted):
            changes = dates.setdefault(name, {})
            why = f"{rows:,} {name} of {day} {change} their {dataset.name}"
            why = f"{changes[day].why}, {why}" if day in changes else why
            changes[day] = ledger.Change(why, is_lost=change == "lost")  # "lost" comes after "found"
    return dates
