"""Compacts the silver tables of a dataset: `spark-submit jobs/maintain.py visits 2026-01-31`."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from jobs import delta_maintenance, delta_tables, ledger, program, warehouse
from jobs.dataset import Dataset

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def maintain(dataset: Dataset, day: date) -> str:
    """Compacts small files and deletes files that no recent version of a table references; returns a line per table.

    Rows, their run ids and the markers of runs stay as they are; `day` only names the run.
    """
    spark = program.spark(f"maintain {dataset.name} {day}")
    with warehouse.connect() as connection:
        hours = delta_maintenance.keep_hours(spark, connection)
        with (
            warehouse.writer(connection, f"silver {dataset.name}"),
            ledger.run(connection, "maintenance", dataset.name, day, "") as row,
        ):
            delta_maintenance.repair_tables(connection, dataset)
            done = [in_words(spark, dataset, kind, hours, row["run_id"]) for kind in ("accepted", "rejected")]
            ledger.settle(connection, row, "")
    return "\n".join(done)


def in_words(spark: SparkSession, dataset: Dataset, kind: str, hours: float, run_id: str) -> str:
    """Compacts one table and deletes its old files; returns a sentence that says by how much the table shrank."""
    if not delta_tables.has_silver(dataset, kind):
        return f"silver {dataset.name}, {kind}: no table yet"
    before = delta_maintenance.held(dataset, kind)
    merged = delta_maintenance.merge_files(spark, dataset, kind, run_id)
    delta_maintenance.remove_old_files(spark, dataset, kind, hours)
    after = delta_maintenance.held(dataset, kind)
    sizes = " -> ".join(f"{files:,} files of {size / 1e6:,.1f} MB" for files, size in (before, after))
    return f"silver {dataset.name}, {kind}: {sizes}" + (f"; {merged:,} partitions merged" if merged else "")


if __name__ == "__main__":
    program.run(maintain)
