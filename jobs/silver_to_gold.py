"""Loads one silver partition into PostgreSQL: `spark-submit jobs/silver_to_gold.py visits 2026-01-31`."""

from datetime import date
from typing import Any

from pyspark.sql import functions as F

from jobs import lake, program, warehouse
from jobs.catalog import CATALOG
from jobs.dataset import Dataset


def silver_to_gold(dataset: Dataset, day: date) -> str:
    """Brings gold in line with a partition, and with those of the dataset judged again since gold last read them."""
    with (
        warehouse.connect() as connection,
        warehouse.writer(connection, "gold", reads=[f"silver {dataset.name}"]),
    ):
        spark = program.spark(f"silver_to_gold {dataset.name} {day}")
        again = [other for other in warehouse.behind(connection, dataset) if other != day]
        done = [load(spark, connection, dataset, each) for each in [day, *again]]
    return "\n".join(done)


def load(spark: Any, connection: warehouse.Connection, dataset: Dataset, day: date) -> str:
    """Stages the partition over JDBC and applies it, with ledger row and receipt, in one transaction."""
    silver = warehouse.receipt("silver", dataset.name, day)
    if silver is None:
        raise program.Refused(f"{dataset.name} of {day} has not been judged; run SilverPipeline for {day} first.")
    with warehouse.run(connection, "gold", dataset.name, day, dataset.rule_set) as row:
        warehouse.create_staging(connection)
        accepted = lake.silver(spark, dataset)
        warehouse.stage(accepted.filter(F.col("_partition_date") == day), dataset)
        losing = warehouse.find_lost(connection, dataset, day)
        for loser in losing:
            stage_versions(spark, warehouse.lost(loser), loser)
        restating = bool(losing)
        for child in reversed(CATALOG.values()):
            for name, parent in child.parents.items():
                if missing := warehouse.find_missing(connection, child, name):
                    stage_versions(spark, missing, CATALOG[parent])
                    restating = True
        with connection.transaction():
            if restating:
                connection.execute("set constraints all deferred")
            touched = CATALOG.values() if restating else [dataset]
            counts = {each.name: warehouse.load(connection, each, restating) for each in touched}
            row |= counts[dataset.name]
            warehouse.settle(connection, row, silver["run_id"])
        warehouse.drop_staging(connection)
    others = ", ".join(
        f"{name} {c['inserted'] + c['updated']:,} restated {c['removed']:,} removed"
        for name, c in counts.items()
        if name != dataset.name and (c["inserted"] or c["updated"] or c["removed"])
    )
    numbers = ", ".join(f"{row[word]:,} {word}" for word in ("inserted", "updated", "unchanged", "removed"))
    return f"gold {dataset.name} {day}: {numbers}" + (f"; {others}" if others else "")


def stage_versions(spark: Any, keys: str, dataset: Dataset) -> None:
    """Stages what all partitions accept for the keys of a table: versions to fall back on, parents on their way."""
    wanted = warehouse.read_keys(spark, keys)
    warehouse.stage(lake.silver(spark, dataset).join(wanted, on=dataset.key, how="left_semi"), dataset)


if __name__ == "__main__":
    program.run(silver_to_gold)
