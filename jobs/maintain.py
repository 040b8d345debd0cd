"""Compacts the silver tables of a dataset: `spark-submit jobs/maintain.py visits 2026-01-31`."""

import re
from datetime import date
from typing import Any

from jobs import borders, delta_maintenance, delta_tables, ledger, program, warehouse
from jobs.dataset import Dataset

KEEP = "spark.healthcare.silver.keepHours"  # in spark-defaults.conf
LEAST = 1.0  # hours


def maintain(dataset: Dataset, day: date) -> str:
    """Compacts small files and deletes files that no recent version of a table references; returns a line per table.

    Rows, their run ids and the markers of runs stay as they are; `day` only names the run.
    """
    spark = program.spark(f"maintain {dataset.name} {day}")
    with warehouse.connect() as connection:
        hours = keep_hours(spark, connection)
        with (
            warehouse.writer(connection, f"silver {dataset.name}"),
            ledger.run(connection, "maintenance", dataset.name, day, "") as row,
        ):
            delta_maintenance.repair_tables(connection, dataset)
            done = [in_words(spark, dataset, kind, hours, row["run_id"]) for kind in ("accepted", "rejected")]
            ledger.settle(connection, row, "")
    return "\n".join(done)


def in_words(spark: Any, dataset: Dataset, kind: str, hours: float, run_id: str) -> str:
    """Compacts one table and deletes its old files; returns a sentence that says by how much the table shrank."""
    if not delta_tables.has_silver(dataset, kind):
        return f"silver {dataset.name}, {kind}: no table yet"
    before = delta_maintenance.held(dataset, kind)
    merged = delta_maintenance.merge_files(spark, dataset, kind, run_id)
    delta_maintenance.remove_old_files(spark, dataset, kind, hours)
    after = delta_maintenance.held(dataset, kind)
    sizes = " -> ".join(f"{files:,} files of {size / 1e6:,.1f} MB" for files, size in (before, after))
    return f"silver {dataset.name}, {kind}: {sizes}" + (f"; {merged:,} partitions merged" if merged else "")


def keep_hours(spark: Any, connection: warehouse.Connection) -> float:
    """Returns how many hours unreferenced files are kept; raises Refused if a run may last longer and still read them.

    The locks keep writers out, and readers of this very table. A run that looks up a parent or a child in the table, or
    a person's query, goes on reading the version with which it began.
    """
    text = spark.conf.get(KEEP, "168")
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


if __name__ == "__main__":
    program.run(maintain)
