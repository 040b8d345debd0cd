"""Reads silver's Delta tables and replaces their partitions, with Spark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING

from jobs import delta_log, lake_paths, object_store, settings
from jobs.catalog import CATALOG
from jobs.dataset import TYPES, Dataset

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def has_silver(dataset: Dataset, kind: str) -> bool:
    """Tells whether a silver table exists."""
    found = object_store.s3().list_objects_v2(
        Bucket=settings.get("MINIO_BUCKET_SILVER"), Prefix=f"{lake_paths.log_prefix(dataset, kind)}0", MaxKeys=1
    )
    return "Contents" in found


def silver(spark: SparkSession, dataset: Dataset, kind: str = "accepted") -> DataFrame:
    """Reads a silver table with all its partitions; returns no rows if the dataset was never validated.

    Columns declared since the table was last written are null in all rows.
    """
    from pyspark.sql import functions as F

    if not has_silver(dataset, kind):
        names = ", ".join(f"{name} string" for name in dataset.names)
        return spark.createDataFrame([], f"{names}, _partition_date date, _run_id string")
    rows = spark.read.format("delta").load(lake_paths.silver_path(dataset, kind))
    there = set(rows.columns)
    added = [column for column in dataset.columns if column.name not in there]
    types = {column.name: TYPES[column.type] if kind == "accepted" else "string" for column in added}
    return rows.withColumns({name: F.lit(None).cast(of) for name, of in types.items()}) if types else rows


def parents_until(spark: SparkSession, dataset: Dataset, day: date) -> dict[str, DataFrame]:
    """Returns, by foreign key column, the accepted keys and partitions of the parents that rows of a date may have."""
    from pyspark.sql import functions as F

    return {
        name: silver(spark, CATALOG[parent])
        .filter(F.col("_partition_date") <= dataset.waits_until(day))
        .select(CATALOG[parent].key, "_partition_date")
        for name, parent in dataset.parents.items()
    }


def replace(
    rows: DataFrame,
    dataset: Dataset,
    kind: str,
    days: Sequence[date],
    run_id: str,
    since: int | None,
    ready: Callable[[], None],
) -> delta_log.Commit:
    """Replaces some partitions of a silver table by exactly these rows, in one Delta transaction.

    Marks the commit with `run_id`; each row has the run of its partition in `_run_id`. Returns the commit as the
    table's log has it; `since` is a version known to be older. `ready` raises if the caller is not, or no longer, the
    only writer. Even then another commit may be first, because the Spark Connect server may still write for a run that
    was killed: the commit is tried up to five times.

    Its parameters are the content, the place and the conditions of one commit.
    """

    within = ", ".join(f"'{day}'" for day in days)
    writer = (
        rows.write.format("delta")
        .mode("overwrite")
        .partitionBy("_partition_date")
        .option("replaceWhere", f"_partition_date in ({within})")
        .option("userMetadata", run_id)
        .option("mergeSchema", True)  # adds columns declared since the table was made
        # For new tables. Rows are looked up by key only, and statistics of all columns take a fourth of the write.
        .option("delta.dataSkippingStatsColumns", dataset.key)
        # A checkpoint is a separate Spark job; by default every tenth commit writes one.
        .option("delta.checkpointInterval", 50)
    )
    return commit(lambda: writer.save(lake_paths.silver_path(dataset, kind)), dataset, kind, run_id, since, ready)


def insert(
    rows: DataFrame,
    dataset: Dataset,
    kind: str,
    day: date,
    run_id: str,
    since: int | None,
    ready: Callable[[], None],
) -> delta_log.Commit:
    """Adds rows to a partition of a silver table, in one Delta transaction.

    The parameters, the commit's mark and its tries are those of `replace`. This is a MERGE that matches nothing: unlike
    a plain append, it fails if another run has replaced the partition since this one died.

    Its parameters are the content, the place and the conditions of one commit.
    """
    spark = rows.sparkSession
    merge = (
        f"merge into delta.`{lake_paths.silver_path(dataset, kind)}` as t using {{rows}} as s "
        f"on t._partition_date = date'{day}' and t._run_id = s._run_id when not matched then insert "
        f"({', '.join(rows.columns)}) values ({', '.join(f's.{name}' for name in rows.columns)})"
    )
    settings_of_merge = {
        "spark.databricks.delta.commitInfo.userMetadata": run_id,
        "spark.databricks.delta.schema.autoMerge.enabled": "true",  # adds columns declared since the table was made
    }
    for name, value in settings_of_merge.items():
        spark.conf.set(name, value)
    try:
        return commit(lambda: spark.sql(merge, rows=rows).collect(), dataset, kind, run_id, since, ready)
    finally:
        for name in settings_of_merge:
            spark.conf.unset(name)


def commit(
    write: Callable[[], object],
    dataset: Dataset,
    kind: str,
    run_id: str,
    since: int | None,
    ready: Callable[[], None],
) -> delta_log.Commit:
    """Commits to a silver table by `write`, up to five times if another commit is first; the rest as in `replace`.

    Its parameters are the place and the conditions of one commit.
    """
    for tries_left in reversed(range(5)):
        ready()
        try:
            write()
            break
        except Exception as error:
            if not (tries_left and is_overtaken(error)):
                raise
    done = delta_log.last_commit(dataset, kind, since)
    # Delta commits nothing if nothing changes.
    return done if done.run_id == run_id else done._replace(rows={})


def is_overtaken(error: BaseException) -> bool:
    """Tells whether Delta refused a commit only because another commit was first."""
    condition = getattr(error, "getCondition", lambda: None)() or ""
    return condition.startswith(("DELTA_CONCURRENT_", "DELTA_METADATA_CHANGED", "DELTA_PROTOCOL_CHANGED"))
