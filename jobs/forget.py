"""Removes a date as if it had never run: `spark-submit jobs/forget.py 2062-03-04`."""

from datetime import date
from decimal import Decimal
from functools import partial

from pyspark.sql import functions as F

from jobs import (
    bronze_files,
    bronze_to_silver,
    delta_maintenance,
    delta_tables,
    gold_to_marts,
    ledger,
    object_store,
    program,
    raw,
    revalidation,
    silver_to_gold,
    warehouse,
)
from jobs.catalog import CATALOG, relatives
from jobs.dataset import Dataset

KINDS = ("accepted", "rejected")


def forget(day: date) -> str:
    """Removes a date from silver, gold, bronze and the markers, in this order, and brings the marts up to date.

    The steps are those for a date whose files hold no rows. The same code as for a corrected file makes gold fall back
    on versions of other dates, and revalidates orphans. Bronze and the markers are removed last: until then the date is
    like any other, and after a crash the same command, or a run of the date, continues from what is left. Landing files
    and the ledger's history stay; one more row of the ledger says who asked. Raises Refused if another run brings the
    date back meanwhile.
    """
    with warehouse.connect() as connection:
        if not (ledger.knows(connection, day) or any(bronze_files.bronze_head(each, day) for each in CATALOG.values())):
            return f"{day} never ran: there is nothing to forget"
        object_store.remover()  # raises Refused for a key that may not delete, before anything is removed
        with ledger.run(connection, "forget", "all", day, "") as row:
            row["asked_by"] = program.user()
            ledger.note(connection, row)
            for dataset in reversed(CATALOG.values()):
                print(empty(dataset, day), flush=True)
            for dataset in CATALOG.values():
                if others := [other for _, other, _ in ledger.stale(dataset)]:
                    print(bronze_to_silver.bronze_to_silver(dataset, *others), flush=True)
            for dataset in CATALOG.values():
                print(silver_to_gold.silver_to_gold(dataset, day), flush=True)
            remove_source(day)
            # A build of the marts needs a date: the newest that is left.
            print(gold_to_marts.gold_to_marts(ledger.newest(connection) or day), flush=True)
            with connection.transaction():
                ledger.delete_markers(connection, day)
                ledger.note(connection, row | {"outcome": "done"})
    return f"{day} is forgotten; a landing file of it that stays comes in again with the next run of this date"


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
        for child, days in revalidation.stale_dates(spark, connection, dataset, [row]).items():
            ledger.mark_stale(connection, child, list(days))
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


if __name__ == "__main__":
    program.run(forget, words=("date",))
