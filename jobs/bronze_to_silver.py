"""Judges one bronze partition: `spark-submit jobs/bronze_to_silver.py visits 2026-01-31`."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import reduce
from typing import Any

from pyspark.sql import functions as F

from jobs import lake, program, validation, warehouse
from jobs.catalog import CATALOG, children
from jobs.dataset import WHITE_SPACE, Dataset


def bronze_to_silver(dataset: Dataset, day: date) -> str:
    """Leaves each record of the partition in silver's accepted or rejected table, the receipt last."""
    with (
        warehouse.connect() as connection,
        warehouse.writer(connection, f"silver {dataset.name}", reads=[f"silver {p}" for p in dataset.parents.values()]),
        warehouse.run(connection, "silver", dataset.name, day, dataset.rule_set) as row,
    ):
        facts = lake.facts_of(dataset, day)
        spark = program.spark(f"bronze_to_silver {dataset.name} {day}")
        parents = {
            name: lake.silver(spark, CATALOG[parent]).select(CATALOG[parent].key)
            for name, parent in dataset.parents.items()
        }
        records = lake.records(spark, dataset, day, facts)
        judged = validation.judge(records, dataset, facts.header, parents).persist()
        counts = validation.count(judged, dataset)
        rows, accepted = counts.pop("rows"), counts.pop("accepted")
        rejected = rows - accepted
        if rows != facts.records:
            raise program.Refused(
                f"{facts.records:,} rows in bronze but {rows:,} judged: law 1 is broken, nothing was published; "
                "look for quotes that RFC 4180 does not allow."
            )
        verdict = validation.split(judged, dataset)
        if warehouse.ran_before(connection, row):
            before = lake.silver(spark, dataset).filter(F.col("_partition_date") == day)
            row["lost"] = before.join(verdict.accepted, on=dataset.key, how="left_anti").count()
            warehouse.note(connection, row)  # before the commit: a run that dies leaves word of what it took away
        with ThreadPoolExecutor() as pool:
            tables = [(verdict.rejected, "rejected"), (verdict.accepted, "accepted")]
            list(pool.map(lambda table: lake.replace(table[0], dataset, table[1], day, row["run_id"]), tables))
        judged.unpersist()
        for child, stale in stale_dates(spark, connection, dataset, row).items():
            warehouse.mark_stale(connection, child, stale)
        row |= {
            "bronze_rows": rows,
            "bronze_bytes": facts.bytes,
            "bronze_sha256": facts.sha256,
            "accepted": accepted,
            "rejected": rejected,
        }
        warehouse.count_reasons(connection, row, counts)
        warehouse.settle(connection, row, facts.sha256)
    reasons = ", ".join(f"{code} {hits:,}" for code, hits in counts.items() if hits)
    return f"silver {dataset.name} {day}: {rows:,} rows = {accepted:,} accepted + {rejected:,} rejected" + (
        f" ({reasons})" if reasons else ""
    )


def stale_dates(
    spark: Any, connection: warehouse.Connection, dataset: Dataset, row: dict[str, Any]
) -> dict[str, list[date]]:
    """The partitions, by dataset, of children of `dataset` whose verdicts no longer hold after this run.

    Orphans there may have found a parent among the rows it accepted; and where it took keys away, or a run before
    it died and may have, rows accepted there may have lost theirs.
    """
    keys = lake.silver(spark, dataset).select(F.col("_partition_date").alias("day"), F.col(dataset.key).alias("key"))
    came = keys.filter(F.col("day") == row["partition_date"])
    took = row.get("lost") or warehouse.died_before(connection, row)
    found = []
    for child in children(dataset):
        name = next(column for column, parent in child.parents.items() if parent == dataset.name)
        partition = F.lit(child.name).alias("dataset"), "_partition_date"
        if orphans := warehouse.dates_with(connection, child, f"orphan_{name}"):
            rejected = lake.silver(spark, child, "rejected").filter(F.col("_partition_date").isin(orphans))
            waiting = rejected.filter(F.array_contains("_reject_reasons.code", f"orphan_{name}"))
            wanted = waiting.select(*partition, F.btrim(name, F.lit(WHITE_SPACE)).alias("key"))
            found.append(wanted.join(came, on="key", how="left_semi"))
        if took:
            accepted = lake.silver(spark, child).select(*partition, F.col(name).alias("key"))
            found.append(accepted.join(keys, on="key", how="left_anti"))
    dates: dict[str, list[date]] = {}
    if found:
        partitions = reduce(
            lambda one, other: one.unionAll(other), (rows.select("dataset", "_partition_date") for rows in found)
        )
        for name, day in partitions.distinct().collect():
            dates.setdefault(name, []).append(day)
    return dates


if __name__ == "__main__":
    program.run(bronze_to_silver)
