"""Judges one bronze partition: `spark-submit jobs/bronze_to_silver.py visits 2026-01-31`."""

from datetime import date
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
        lake.replace(verdict.rejected, dataset, "rejected", day, row["run_id"])
        lake.replace(verdict.accepted, dataset, "accepted", day, row["run_id"])
        judged.unpersist()
        for child in children(dataset):
            warehouse.mark_stale(connection, child, stale_dates(spark, connection, dataset, child, row))
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


def stale_dates(spark, connection, dataset: Dataset, child: Dataset, row: dict[str, Any]) -> list[date]:
    """The partitions of `child` whose verdicts no longer hold after this run over `dataset`.

    Orphans there may have found a parent among this day's rows; and where the day was judged before, rows accepted
    there may have lost theirs.
    """
    name = next(column for column, parent in child.parents.items() if parent == dataset.name)
    keys = lake.silver(spark, dataset).select(F.col("_partition_date").alias("day"), F.col(dataset.key).alias("key"))
    found = []
    if orphans := warehouse.dates_with(connection, child, f"orphan_{name}"):
        rejected = lake.silver(spark, child, "rejected").filter(F.col("_partition_date").isin(orphans))
        waiting = rejected.filter(F.array_contains("_reject_reasons.code", f"orphan_{name}")).select(
            "_partition_date", F.trim(name, F.lit(WHITE_SPACE)).alias("key")
        )
        found.append(waiting.join(keys.filter(F.col("day") == row["partition_date"]), on="key", how="left_semi"))
    if warehouse.was_judged(connection, row):
        accepted = lake.silver(spark, child).select("_partition_date", F.col(name).alias("key"))
        found.append(accepted.join(keys, on="key", how="left_anti"))
    return sorted({row[0] for rows in found for row in rows.select("_partition_date").distinct().collect()})


if __name__ == "__main__":
    program.run(bronze_to_silver)
