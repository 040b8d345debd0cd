"""Validates partitions of bronze, publishes them to silver, and settles their runs in the ledger."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from decimal import Decimal
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
    silver_commit,
    spark_csv,
    validation,
    warehouse,
)
from jobs.catalog import CATALOG, relatives
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
        parents = parents_until(spark, dataset, days[-1])
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
            validated = validation.validate(records, dataset, headers, parents, checkpoint).localCheckpoint()
        else:
            keep = release.enter_context(kept())
            validated = validation.validate(records, dataset, headers, parents, keep, keep)
        ran = ledger.ran_before(connection, dataset, runs)
        counts = validation.count(validated, dataset, days, run_id if ran else None)
        for day in days:
            must_balance(day, facts[day], counts[day])
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
            for child, dates in revalidation.stale_dates(spark, connection, dataset, changed, came).items():
                ledger.mark_stale(connection, child, list(dates))
                changes += (f"{change}: to be validated again" for change in dates.values())
        said = settle(connection, dataset, facts, counts, runs, standing)
    return [*said, *changes]


def parents_until(spark: SparkSession, dataset: Dataset, day: date) -> dict[str, DataFrame]:
    """Returns, by foreign key column, the accepted keys and partitions of the parents that rows of a date may have."""
    return {
        name: delta_tables.silver(spark, CATALOG[parent])
        .filter(F.col("_partition_date") <= dataset.waits_until(day))
        .select(CATALOG[parent].key, "_partition_date")
        for name, parent in dataset.parents.items()
    }


def settle(
    connection: warehouse.Connection,
    dataset: Dataset,
    facts: Mapping[date, landing.Facts],
    counts: Mapping[date, validation.Counts],
    runs: Mapping[date, dict[str, Any]],
    standing: Mapping[date, Mapping[str, Any]],
) -> list[str]:
    """Settles all partitions in one transaction; returns a sentence for each, with its warnings.

    `standing` has the runs that remain current. The parameters are all that the ledger records of the runs.
    """
    said = []
    with connection.transaction():
        for day, run in runs.items():
            run |= account(dataset, facts[day], counts[day])
            warnings = ledger.settle_silver(
                connection,
                run,
                counts[day].hits,
                standing[day]["run_id"] if day in standing else None,
                differing_versions(dataset, day, counts[day].differing),
            )
            said += [
                in_words(dataset, day, counts[day]) + ("; already up to date" if day in standing else ""),
                *warnings,
            ]
    return said


def in_words(dataset: Dataset, day: date, counts: validation.Counts) -> str:
    """Returns a sentence on what became of a partition's rows."""
    reasons = ", ".join(f"{code} {hits:,}" for code, hits in counts.hits.items() if hits)
    numbers = f"{counts.rows:,} rows = {counts.accepted:,} accepted + {counts.rows - counts.accepted:,} rejected"
    return f"silver {dataset.name} {day}: {numbers}" + (f" ({reasons})" if reasons else "")


def checkpoint(rows: DataFrame) -> DataFrame:
    """Computes rows on the server, where later plans find them."""
    return rows.localCheckpoint()


def differing_versions(dataset: Dataset, day: date, keys: int) -> Iterator[str]:
    """Yields a warning if a file has keys with versions of different content: one version of each is accepted."""
    if keys:
        come = "1 key comes" if keys == 1 else f"{keys:,} keys come"
        yield (
            f"warn: {dataset.name} {day}: {come} in versions that differ, of which the fullest stands: "
            f"`make rejects DATE={day} DATASET={dataset.name} KEYS=1` names them under duplicate_{dataset.key}, "
            "`make why KEY=...` tells in what they differ"
        )


def account(dataset: Dataset, facts: landing.Facts, counts: validation.Counts) -> dict[str, Any]:
    """Returns what the ledger records of a partition's input, rows and money."""
    found = {
        "bronze_rows": counts.rows,
        "bronze_bytes": facts.bytes,
        "bronze_sha256": facts.sha256,
        "accepted": counts.accepted,
        "rejected": counts.rows - counts.accepted,
        "faulty": counts.faulty,
    }
    money = {
        "amount_in": Decimal(facts.cents) / 100,
        "amount_accepted": counts.amount_accepted,
        "amount_rejected": counts.amount_rejected,
    }
    return found | (money if dataset.amount else {})


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


def must_balance(day: date, facts: landing.Facts, counts: validation.Counts) -> None:
    """Raises Refused unless the rows and the money validated equal those of a plain reading of the file.

    Runs before anything is written.
    """
    cents = int((counts.amount_accepted + counts.amount_rejected) * 100)
    if (counts.rows, counts.amounts, cents) != (facts.records, facts.amounts, facts.cents):
        what = f"{facts.records:,} rows" + (f" with {facts.amounts:,} amounts" if facts.amount else "")
        validated = f"{counts.rows:,}" + (f" with {counts.amounts:,}" if facts.amount else "")
        raise program.Refused(
            f"{what} in bronze of {day} but {validated} validated, or other sums, and both must be equal; nothing was "
            "published. Look for quotes that RFC 4180 does not allow."
        )
