"""Removes a date: its rows from silver, its files from bronze."""

from datetime import date
from decimal import Decimal
from functools import partial

from pyspark.sql import functions as F

from jobs import bronze_files, delta_maintenance, delta_tables, ledger, program, raw, revalidation, warehouse
from jobs.catalog import CATALOG, relatives
from jobs.dataset import Dataset

KINDS = ("accepted", "rejected")


def empty(dataset: Dataset, day: date) -> str:
    """Removes all rows of a partition from silver, and marks partitions that referenced them for revalidation."""
    with (
        warehouse.connect() as connection,
        warehouse.writer(connection, f"silver {dataset.name}"),
        ledger.run(connection, "silver", dataset.name, day, dataset.rule_set) as row,
    ):
        delta_maintenance.repair_tables(connection, dataset)
        spark = program.spark(f"forget {dataset.name} {day}")
        program.tune_for_small_input(spark, rows=0, near=ledger.rows_in_silver(connection, relatives(dataset)))
        tables = {
            kind: delta_tables.silver(spark, dataset, kind) for kind in KINDS if delta_tables.has_silver(dataset, kind)
        }
        counts = {kind: table.filter(F.col("_partition_date") == day).count() for kind, table in tables.items()}
        row["lost"] = counts.get("accepted", 0)
        ledger.note(connection, row)  # before the commit, so that a run that dies has recorded what it removed
        ledger.withdraw(connection, row)
        since, ready = ledger.versions(connection, dataset), partial(warehouse.must_hold, connection)
        for kind, table in tables.items():
            none = table.filter(F.lit(False))
            done = delta_tables.replace(none, dataset, kind, [day], row["run_id"], since[kind], ready)
            row[f"delta_{kind}"] = done.version
        revalidation.mark_stale(spark, connection, dataset, [row])
        row |= dict.fromkeys(("bronze_rows", "bronze_bytes", "accepted", "rejected", "faulty"), 0)
        row |= dict.fromkeys(("amount_in", "amount_accepted", "amount_rejected"), Decimal()) if dataset.amount else {}
        row["bronze_sha256"] = ledger.FORGOTTEN
        ledger.settle(connection, row, ledger.FORGOTTEN)
    return f"silver {dataset.name} {day}: " + ", ".join(
        f"{counts.get(kind, 0):,} {kind} rows removed" for kind in KINDS
    )


def remove_source(day: date) -> None:
    """Deletes a date's bronze files and markers under the locks of silver and gold; raises Refused if it ran again."""
    reads = [f"silver {name}" for name in CATALOG]
    with warehouse.connect() as connection, warehouse.writer(connection, "gold", reads):
        if back := ledger.not_emptied(connection, day):
            raise program.Refused(
                f"another run has brought {', '.join(back)} of {day} back meanwhile; see that nothing runs this date, "
                f"then give `make forget DATE={day}` again."
            )
        for dataset in CATALOG.values():
            bronze_files.remove_bronze(dataset, day)
        raw.remove(day)
        ledger.delete_markers(connection, day)
