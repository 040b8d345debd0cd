"""Validates partitions of bronze, publishes them to silver, and settles their runs in the ledger."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import (
    bronze_files,
    delta_maintenance,
    delta_tables,
    landing,
    ledger,
    program,
    revalidation,
    silver_account,
    silver_by_key,
    silver_commit,
    spark_csv,
    validation,
    warehouse,
)
from jobs.catalog import relatives
from jobs.dataset import Dataset


def bronze_to_silver(dataset: Dataset, *days: date) -> str:
    """Validates partitions of a dataset, and with them those that are due because parents came or went.

    Writes each record to silver's accepted or rejected table, and the markers last. Returns a sentence for each
    partition. If a partition's file cannot be read, the others are validated all the same, and Refused is raised at the
    end.
    """
    with (
        warehouse.connect() as connection,
        warehouse.writer(connection, f"silver {dataset.name}", reads=[f"silver {p}" for p in dataset.parents.values()]),
    ):
        delta_maintenance.repair_tables(connection, dataset)
        due = [day for _, day, _ in ledger.stale(dataset)]
        facts, refused = read_facts(connection, dataset, sorted({*days, *due}))
        rows = {day: each.records for day, each in facts.items()}
        columns = {day: landing.as_of(dataset, each.header).names for day, each in facts.items()}
        done: list[str] = []
        if facts:
            spark = program.spark(f"bronze_to_silver {dataset.name} {program.listed(days)}")
            for day in facts:
                if base := silver_by_key.base_of(connection, dataset, day, facts[day]):
                    said = silver_by_key.validate_by_key(spark, connection, dataset, day, facts[day], base)
                    done += said
                    if said:
                        del rows[day]
            for plan in program.plans(rows, columns):
                done += validate(spark, connection, dataset, {day: facts[day] for day in plan})
    if refused:
        program.refuse(refused, done)
    return "\n".join(done)


def read_facts(
    connection: warehouse.Connection, dataset: Dataset, days: Sequence[date]
) -> tuple[dict[date, landing.Facts], list[program.Refused]]:
    """Returns the profiles of the bronze files by date, and the errors of the others, recorded in the ledger."""
    facts: dict[date, landing.Facts] = {}
    refused: list[program.Refused] = []
    for day in days:
        try:
            facts[day] = bronze_files.facts_of(dataset, day)
        except program.Refused as error:
            refused.append(error)
            with suppress(program.Refused), ledger.run(connection, "silver", dataset.name, day, dataset.rule_set):
                raise
    return facts, refused


def validate(
    spark: SparkSession, connection: warehouse.Connection, dataset: Dataset, facts: Mapping[date, landing.Facts]
) -> list[str]:
    """Validates partitions in one plan and publishes them to silver in one commit per table.

    `facts` are the profiles of the bronze files, which have the same declared columns. Returns a sentence for each
    partition, with its warnings, and for each partition that is to be validated again.

    Long because this is the order on which recovery depends: ledger row, validation, control total, marker withdrawn,
    commit, marker.
    """
    days, rows = list(facts), sum(each.records for each in facts.values())
    headers = {day: each.header for day, each in facts.items()}
    with (
        ledger.runs(connection, "silver", dataset.name, days, dataset.rule_set) as runs,
        ExitStack() as release,
    ):
        run_id = runs[days[0]]["run_id"]
        program.tune_for_small_input(spark, rows, ledger.rows_in_silver(connection, relatives(dataset)))
        program.step(spark, dataset, days, "validate")
        parents = delta_tables.parents_until(spark, dataset, days[-1])
        files = [
            spark_csv.records(spark, dataset, day, facts[day]).withColumn("_partition_date", F.lit(day)) for day in days
        ]
        # A run that was killed leaves its rows cached on the Spark Connect server. The run's id makes this plan unique,
        # so that Spark does not reuse those rows: their file may have been corrected since.
        records = validation.union(files).filter(F.lit(run_id) != "")
        if rows < program.FEW_ROWS:
            # Reads into one partition: Spark would copy the rules to each file's scan and run tasks for each file.
            records = records.coalesce(1)
            # Computed once, on the server: later steps read its rows and do not send the validation's plan again.
            validated = validation.validate(records, dataset, headers, parents, program.checkpoint).localCheckpoint()
        else:
            keep = release.enter_context(kept())
            validated = validation.validate(records, dataset, headers, parents, keep, keep)
        ran = ledger.ran_before(connection, dataset, runs)
        counts = validation.count(validated, dataset, days, run_id if ran else None)
        for day in days:
            silver_account.must_balance(day, facts[day], counts[day])
        verdict = validation.split(validated, dataset, headers)
        standing: dict[date, Mapping[str, Any]] = {}
        if ran:
            program.step(spark, dataset, days, "compare with the last run")
            standing = silver_commit.compare(
                spark, connection, dataset, facts, counts, verdict, {day: runs[day] for day in ran}
            )
            for day in ran:  # before the commit, so that a run that dies has recorded what it removed
                ledger.note(connection, runs[day])
        for day, run in standing.items():
            runs[day] |= {name: run[name] for name in ("delta_accepted", "delta_rejected")}
        changes: list[str] = []
        if changed := [run for day, run in runs.items() if day not in standing]:
            for run in changed:
                ledger.withdraw(connection, run)
            program.step(spark, dataset, days, "publish")
            silver_commit.publish(connection, dataset, changed, verdict, counts, is_new=not ran)
            came = verdict.accepted.filter(F.col("_partition_date").isin([run["partition_date"] for run in changed]))
            came = came.select(dataset.key, "_partition_date")
            program.step(spark, dataset, days, "find dates to validate again")
            changes = revalidation.mark_stale(spark, connection, dataset, changed, came)
        said = silver_account.settle(connection, dataset, facts, counts, runs, standing)
    return [*said, *changes]


@contextmanager
def kept() -> Iterator[validation.Keep]:
    """Yields a function that persists frames until the block ends, whether it succeeds or fails.

    The function counts each frame at once, so that Spark has its size and chooses joins that suit it.
    """
    frames: list[DataFrame] = []

    def keep(rows: DataFrame) -> DataFrame:
        frames.append(rows.persist())
        rows.count()
        return rows

    try:
        yield keep
    finally:
        for rows in frames:
            rows.unpersist()
