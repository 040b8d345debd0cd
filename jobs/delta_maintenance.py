"""Maintains silver's Delta tables: repairs logs, compacts small files and deletes files no longer referenced."""

from __future__ import annotations

import re
import sys
from collections import Counter
from typing import TYPE_CHECKING

from jobs import borders, delta_log, lake_paths, ledger, object_store, program, settings
from jobs.dataset import Dataset
from jobs.warehouse import Connection

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MANY_FILES = 4  # a partition with at least so many files is compacted
SMALL, LARGE = 64 << 20, 128 << 20  # bytes: files smaller than SMALL are merged into files of up to LARGE
KEEP = "spark.healthcare.silver.keepHours"  # in spark-defaults.conf: how long unreferenced files are kept
LEAST = 1.0  # hours; KEEP may not be less


def repair_tables(connection: Connection, dataset: Dataset) -> None:
    """Removes incomplete commits of dead writers from a dataset's logs; prints each, and invalidates its markers."""
    for kind, version in ledger.versions(connection, dataset).items():
        half = repair_log(dataset, kind, version)
        if half is not None:
            print(f"removed version {half} of {kind} {dataset.name}, an incomplete commit", file=sys.stderr)
            ledger.invalidate(connection, dataset, kind, half)


def repair_log(dataset: Dataset, kind: str, since: int | None = None) -> int | None:
    """Removes an incomplete commit from the end of a table's log; returns its version, or None if the log is complete.

    An upload that broke off leaves one if the store keeps what it received. Delta would fail on such a commit forever,
    or read only part of it. The caller must be the only writer.
    """
    head = delta_log.head_of_log(dataset, kind, since)
    if head is None or delta_log.is_whole(*head):
        return None
    for ending in ("json", "crc"):
        key = f"{lake_paths.log_prefix(dataset, kind)}{head[0]:020d}.{ending}"
        object_store.s3().delete_object(Bucket=settings.get("MINIO_BUCKET_SILVER"), Key=key)
    return head[0]


def merge_files(spark: SparkSession, dataset: Dataset, kind: str, run_id: str) -> int:
    """Merges the small files of partitions that have at least MANY_FILES; returns the number of partitions merged.

    Runs one Delta transaction, which changes no row. The caller must be the only writer.
    """
    path = lake_paths.silver_path(dataset, kind)
    files = spark.read.format("delta").load(path).inputFiles()
    of_days = Counter(found[1] for name in files if (found := re.search(r"/_partition_date=([0-9-]{10})/", name)))
    if not (days := [day for day, count in of_days.items() if count >= MANY_FILES]):
        return 0
    spark.conf.set("spark.databricks.delta.optimize.minFileSize", SMALL)
    spark.conf.set("spark.databricks.delta.optimize.maxFileSize", LARGE)
    spark.conf.set("spark.databricks.delta.commitInfo.userMetadata", run_id)
    try:
        within = ", ".join(f"'{day}'" for day in sorted(days))
        [[merged]] = (
            spark.sql(f"optimize delta.`{path}` where _partition_date in ({within})")
            .select("metrics.partitionsOptimized")
            .collect()
        )
    finally:
        spark.conf.unset("spark.databricks.delta.commitInfo.userMetadata")
    return int(merged)


def keep_hours(spark: SparkSession, connection: Connection) -> float:
    """Returns how many hours unreferenced files are kept; raises Refused if a run may last longer and still read them.

    The locks keep writers out, and readers of this very table. A run that looks up a parent or a child in the table, or
    a person's query, goes on reading the version with which it began.
    """
    text = spark.conf.get(KEEP, "168") or ""
    if not re.fullmatch(r"[0-9]{1,6}([.][0-9]{1,6})?", text):
        raise program.Refused(
            f"{KEEP} is {borders.quoted(text)}; write a number of hours in spark-defaults.conf, as in 168."
        )
    longest = ledger.longest_run(connection) / 3600
    if float(text) < max(LEAST, longest):
        why = f"a run has taken {longest:.1f} hours" if longest > LEAST else f"{LEAST:g} is the least"
        raise program.Refused(
            f"{KEEP} is {text} hours, but {why}, and what a run still reads must stay; give it more in "
            "spark-defaults.conf."
        )
    return float(text)


def remove_old_files(spark: SparkSession, dataset: Dataset, kind: str, hours: float) -> None:
    """Deletes files that no table version of the last `hours` references, including those of runs that died.

    Turns off Delta's minimum retention of a week; the caller ensures that no reader needs these files.
    """
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    # The number of tasks that list a table. The default of 10,000 is slow for tables of few directories.
    spark.conf.set("spark.sql.sources.parallelPartitionDiscovery.parallelism", "16")
    spark.sql(f"vacuum delta.`{lake_paths.silver_path(dataset, kind)}` retain {hours:f} hours")


def held(dataset: Dataset, kind: str) -> tuple[int, int]:
    """Returns the number and the total bytes of a table's data files, referenced or not; the log is left out."""
    bucket, log = settings.get("MINIO_BUCKET_SILVER"), lake_paths.log_prefix(dataset, kind)
    pages = (
        object_store.s3()
        .get_paginator("list_objects_v2")
        .paginate(Bucket=bucket, Prefix=log.removesuffix("_delta_log/"))
    )
    sizes = [entry["Size"] for page in pages for entry in page.get("Contents", []) if not entry["Key"].startswith(log)]
    return len(sizes), sum(sizes)
