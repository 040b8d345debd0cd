"""Loads one silver partition into PostgreSQL: `spark-submit jobs/silver_to_gold.py visits 2026-01-31`."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

from pyspark.sql import functions as F

from jobs import lake, program, validation, warehouse
from jobs.catalog import CATALOG
from jobs.dataset import Dataset


def silver_to_gold(dataset: Dataset, day: date) -> str:
    """Brings gold in line with a partition, and with those of the dataset judged again since gold last read them."""
    spark = program.spark(f"silver_to_gold {dataset.name} {day}")  # while another run may still be writing gold
    with (
        warehouse.connect() as connection,
        warehouse.writer(connection, "gold", reads=[f"silver {dataset.name}"]),
    ):
        warehouse.drop_staging(connection)  # of a load that died, even if there is nothing left to do
        stops = warehouse.stops(connection)
        stopped = sorted({stop["partition_date"] for stop in stops})
        if day in stopped:
            warehouse.refuse([stop for stop in stops if stop["partition_date"] == day])
        again = [other for other in warehouse.behind(connection, dataset) if other not in (day, *stopped)]
        done = [load(spark, connection, dataset, each, stopped) for each in [day, *again]]
    return "\n".join(done)


def load(spark: Any, connection: warehouse.Connection, dataset: Dataset, day: date, stopped: Sequence[date]) -> str:
    """Stages the partition over JDBC and applies it, with ledger rows and receipt, in one transaction."""
    silver = warehouse.standing(connection, dataset, day)
    if silver is None or not silver["made_from"]:
        raise program.Refused(
            f"{dataset.name} of {day} has not been judged to the end; run SilverPipeline for {day} first."
        )
    in_partition = F.col("_partition_date") == day
    with warehouse.run(connection, "gold", dataset.name, day, dataset.rule_set) as row:
        run_id = row["run_id"]
        if stands := warehouse.loaded(connection, dataset, day, silver["run_id"]):
            row |= {"staged": 0, "inserted": 0, "updated": 0, "unchanged": silver["accepted"], "removed": 0}
            warehouse.settle(connection, row, silver["run_id"], stands)
            return f"{in_words(row)}; as it stood"
        warehouse.create_staging(connection, silver, run_id)
        program.step(spark, dataset, day, "stage")
        with ThreadPoolExecutor() as pool:
            writes = [pool.submit(warehouse.stage, lake.silver(spark, dataset).filter(in_partition), dataset, run_id)]
            if silver["rejected"]:
                rejected = lake.silver(spark, dataset, "rejected").filter(in_partition)
                withheld, table = validation.withheld(rejected, dataset), warehouse.staging("withheld", run_id)
                writes.append(pool.submit(warehouse.append, withheld, table, ["row_day"]))
            for write in writes:
                write.result()
        warehouse.must_be_staged(connection, dataset, silver, run_id)
        losing = warehouse.find_lost(connection, dataset, day, run_id)
        for loser in losing:
            stage_versions(spark, warehouse.lost(loser, run_id), loser, stopped, run_id)
        restating = bool(losing)
        for child in reversed(CATALOG.values()):
            for name, parent in child.parents.items():
                if missing := warehouse.find_missing(connection, child, name, run_id):
                    stage_versions(spark, missing, CATALOG[parent], stopped, run_id)
                    restating = True
        with connection.transaction():
            if restating:
                connection.execute("set constraints all deferred")
            touched = CATALOG.values() if restating else [dataset]
            counts = {each.name: warehouse.load(connection, each, restating, run_id) for each in touched}
            warehouse.replace_withheld(connection, dataset, day, run_id)
            for name in counts.keys() - {dataset.name}:
                warehouse.note(connection, row | {"dataset": name, "outcome": "done"} | counts[name])
            row |= counts[dataset.name] | {"checksums": warehouse.checksums(connection, dataset, day)}
            changed = any(c["inserted"] or c["updated"] or c["removed"] for c in counts.values())
            # Marts made from the run that stands are not older than a load that changed nothing.
            stands = None if changed else warehouse.loaded_alike(connection, row)
            warehouse.settle(connection, row, silver["run_id"], stands)
        warehouse.drop_staging(connection)
    others = ", ".join(
        f"{name} {c['inserted'] + c['updated']:,} restated {c['removed']:,} removed"
        for name, c in counts.items()
        if name != dataset.name and (c["inserted"] or c["updated"] or c["removed"])
    )
    return in_words(row) + (f"; {others}" if others else "")


def in_words(row: dict[str, Any]) -> str:
    """What became of a partition's rows, by the ledger's row of its load."""
    numbers = ", ".join(f"{row[word]:,} {word}" for word in ("inserted", "updated", "unchanged", "removed"))
    return f"gold {row['dataset']} {row['partition_date']}: {numbers}"


def stage_versions(spark: Any, keys: str, dataset: Dataset, stopped: Sequence[date], run_id: str) -> None:
    """Stages what all partitions accept for the keys of a table: versions to fall back on, parents on their way."""
    versions = lake.silver(spark, dataset).join(warehouse.read_keys(spark, keys), on=dataset.key, how="left_semi")
    if stopped:
        held = versions.filter(F.col("_partition_date").isin(*stopped)).select("_partition_date").distinct().collect()
        if held:
            raise program.Refused(
                f"this load needs {dataset.name} of {', '.join(sorted(str(day) for (day,) in held))}, which a stop "
                "level keeps out of gold; correct that file, or let it pass with OVERRIDE=1, then run this date again."
            )
    warehouse.stage(versions, dataset, run_id, of_runs=True)


if __name__ == "__main__":
    program.run(silver_to_gold, remaining=warehouse.remaining)
