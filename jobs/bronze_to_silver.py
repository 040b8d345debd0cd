"""Judges one bronze partition: `spark-submit jobs/bronze_to_silver.py visits 2026-01-31`."""

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import date
from decimal import Decimal
from functools import partial, reduce
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs import lake, landing, program, validation, warehouse
from jobs.catalog import CATALOG, children
from jobs.dataset import WHITE_SPACE, Dataset


def bronze_to_silver(dataset: Dataset, day: date) -> str:
    """Leaves each record of the partition in silver's accepted or rejected table, the receipt last."""
    with (
        warehouse.connect() as connection,
        warehouse.writer(connection, f"silver {dataset.name}", reads=[f"silver {p}" for p in dataset.parents.values()]),
        warehouse.run(connection, "silver", dataset.name, day, dataset.rule_set) as row,
        ExitStack() as release,
    ):
        facts = lake.facts_of(dataset, day)
        before = warehouse.runs_before(connection, row)
        mend(connection, dataset, before)
        spark = program.spark(f"bronze_to_silver {dataset.name} {day}")
        program.hasten(spark, facts.records)
        program.step(spark, dataset, day, "validate")
        parents = {
            name: lake.silver(spark, CATALOG[parent])
            .filter(F.col("_partition_date") <= dataset.waits_until(day))
            .select(CATALOG[parent].key)
            for name, parent in dataset.parents.items()
        }
        # A run that was killed leaves its rows cached in the resident application. With its own run in it this plan
        # is no other's: those rows are of a file that may have been corrected since.
        records = lake.records(spark, dataset, day, facts).filter(F.lit(row["run_id"]) != "")
        if facts.records < program.FEW_ROWS:
            # Computed once, on the server: what follows reads its rows, and sends no plan of the validation again.
            judged = validation.judge(records, dataset, facts.header, parents, checkpoint).localCheckpoint()
        else:
            keep = release.enter_context(kept())
            judged = validation.judge(records, dataset, facts.header, parents, keep, keep)
        counts = validation.count(judged, dataset, row["run_id"] if before["runs"] else None)
        rejected = counts.rows - counts.accepted
        must_balance(facts, counts)
        verdict = validation.split(judged, dataset, facts.header)
        standing: Mapping[str, Any] = {}
        changes: list[str] = []
        if before["runs"]:
            row["lost"], standing = compare(spark, connection, dataset, facts, counts, verdict, row)
            warehouse.note(connection, row)  # before the commit: a run that dies leaves word of what it took away
        if standing:
            row |= {name: standing[name] for name in ("delta_accepted", "delta_rejected")}
        else:
            warehouse.withdraw(connection, row)
            program.step(spark, dataset, day, "publish")
            tables = {"rejected": (verdict.rejected, rejected), "accepted": (verdict.accepted, counts.accepted)}
            with ThreadPoolExecutor() as pool:
                versions = pool.map(lambda kind: publish(connection, dataset, kind, row, before, *tables[kind]), tables)
                row |= {f"delta_{kind}": version for kind, version in zip(tables, versions, strict=True)}
            release.close()
            for child, days in stale_dates(spark, connection, dataset, row).items():
                warehouse.mark_stale(connection, child, list(days))
                changes += days.values()
        row |= account(dataset, facts, counts)
        warnings = warehouse.settle_silver(
            connection, row, counts.hits, standing.get("run_id"), differing_versions(dataset, day, counts.differing)
        )
    reasons = ", ".join(f"{code} {hits:,}" for code, hits in counts.hits.items() if hits)
    numbers = f"{counts.rows:,} rows = {counts.accepted:,} accepted + {rejected:,} rejected"
    numbers += (f" ({reasons})" if reasons else "") + ("; as it stood" if standing else "")
    again = (f"{change}: to be validated again" for change in changes)
    return "\n".join([f"silver {dataset.name} {day}: {numbers}", *again, *warnings])


def checkpoint(rows: DataFrame) -> DataFrame:
    """Computes rows on the server, where later plans find them as they are."""
    return rows.localCheckpoint()


def differing_versions(dataset: Dataset, day: date, keys: int) -> Iterator[str]:
    """A warning where keys of a file come in versions that say different things: only one of them counts."""
    if keys:
        come = "1 key comes" if keys == 1 else f"{keys:,} keys come"
        yield (
            f"warn: {dataset.name} {day}: {come} in versions that differ, of which the fullest stands: "
            f"`make rejects DATE={day} DATASET={dataset.name} KEYS=1` names them under duplicate_{dataset.key}, "
            "`make why KEY=...` tells in what they differ"
        )


def compare(
    spark: Any,
    connection: warehouse.Connection,
    dataset: Dataset,
    facts: landing.Facts,
    counts: validation.Counts,
    verdict: validation.Verdict,
    run: Mapping[str, Any],
) -> tuple[int, Mapping[str, Any]]:
    """How many keys silver would lose of the partition; and the run that stands, if silver has just these rows, or {}.

    That run must have judged this very file, by these rules, and none may have begun to write since.
    """
    day, salt = run["partition_date"], run["run_id"]
    program.step(spark, dataset, day, "compare with the last run")
    stood = lake.silver(spark, dataset).filter(F.col("_partition_date") == day)
    [(keys, content)] = stood.agg(*validation.checksums(dataset, salt)).collect()
    lost = 0 if keys == counts.keys else stood.join(verdict.accepted, on=dataset.key, how="left_anti").count()
    standing = warehouse.standing(connection, dataset, day) or {}
    input_of = standing.get("made_from"), standing.get("rule_set")
    if content != counts.content or input_of != (facts.sha256, run["rule_set"]):
        return lost, {}
    refused = lake.silver(spark, dataset, "rejected").filter(F.col("_partition_date") == day)
    names = [*dataset.names, "_raw", "_reject_reason", "_reject_reasons"]
    one, other = (rows.agg(validation.checksum(names, salt)).collect() for rows in (refused, verdict.rejected))
    return lost, standing if one == other else {}


def publish(
    connection: warehouse.Connection,
    dataset: Dataset,
    kind: str,
    run: Mapping[str, Any],
    before: Mapping[str, Any],
    table: DataFrame,
    rows: int,
) -> int:
    """Commits one of the two tables, which has so many rows; the version of it."""
    since, ready = before[f"delta_{kind}"], partial(warehouse.must_hold, connection)
    commit = lake.replace(table, dataset, kind, run["partition_date"], run["run_id"], since, ready)
    if commit.rows != rows:
        raise program.Refused(
            f"{rows:,} rows were {kind} but {commit.rows:,} written: law 1 is broken; run the date again."
        )
    return commit.version


def account(dataset: Dataset, facts: landing.Facts, counts: validation.Counts) -> dict[str, Any]:
    """What the ledger says of a partition's rows and money."""
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


def mend(connection: warehouse.Connection, dataset: Dataset, before: Mapping[str, Any]) -> None:
    """Takes half a commit away from the logs of a dataset, as a writer that died may have left it, and says so."""
    for kind in ("accepted", "rejected"):
        half = lake.mend(dataset, kind, before[f"delta_{kind}"])
        if half is not None:
            print(f"half a commit of {kind} {dataset.name} is taken away: version {half}", file=sys.stderr)
            warehouse.doubt(connection, dataset, kind, half)


@contextmanager
def kept() -> Iterator[validation.Keep]:
    """Persists the frames that it is given until it ends, whether its run succeeds or fails.

    They are counted at once, so that Spark knows how many rows there are and joins suit their size.
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


def must_balance(facts: landing.Facts, counts: validation.Counts) -> None:
    """Law 1, before anything is written: rows and money of the file, by a plain reading of it, are those judged."""
    judged_cents = int((counts.amount_accepted + counts.amount_rejected) * 100)
    if (counts.rows, counts.amounts, judged_cents) != (facts.records, facts.amounts, facts.cents):
        what = f"{facts.records:,} rows" + (f" with {facts.amounts:,} amounts" if facts.amount else "")
        judged = f"{counts.rows:,}" + (f" with {counts.amounts:,}" if facts.amount else "")
        raise program.Refused(
            f"{what} in bronze but {judged} judged, or other sums: law 1 is broken, nothing was published; "
            "look for quotes that RFC 4180 does not allow."
        )


def stale_dates(
    spark: Any, connection: warehouse.Connection, dataset: Dataset, row: dict[str, Any]
) -> dict[str, dict[date, str]]:
    """The partitions, by dataset, of children of `dataset` whose verdicts no longer hold after this run.

    Orphans there may have found a parent among the rows it accepted; and where it took keys away, or a run before
    it died and may have, rows that had a parent may have lost it, accepted ones and those rejected for something else.
    """
    program.step(spark, dataset, row["partition_date"], "find dates to validate again")
    keys = lake.silver(spark, dataset).select(F.col("_partition_date").alias("day"), F.col(dataset.key).alias("known"))
    came = keys.filter(F.col("day") == row["partition_date"])
    took = row.get("lost") or warehouse.died_before(connection, row)
    codes, found = F.col("_reject_reasons.code"), []
    for child in children(dataset):
        name = next(column for column, parent in child.parents.items() if parent == dataset.name)
        orphan = f"orphan_{name}"
        wanted = F.lit(child.name).alias("dataset"), "_partition_date", F.btrim(name, F.lit(WHITE_SPACE)).alias("key")
        waiting = warehouse.dates_with(connection, child, orphan)
        if orphans := [day for day in waiting if row["partition_date"] <= child.waits_until(day)]:
            rejected = lake.silver(spark, child, "rejected").filter(F.col("_partition_date").isin(orphans))
            without = rejected.filter(F.array_contains(codes, orphan)).select(*wanted)
            having_now = without.join(came, on=F.col("key") == F.col("known"), how="left_semi")
            found.append(having_now.withColumn("change", F.lit(f"found their {dataset.name}")))
        if took and lake.has_silver(child, "rejected"):
            without_one = F.array(*map(F.lit, (orphan, f"missing_{name}", "malformed_row")))
            rejected = lake.silver(spark, child, "rejected").filter(~F.arrays_overlap(codes, without_one))
            having = lake.silver(spark, child).select(*wanted).unionAll(rejected.select(*wanted))
            in_time = F.col("day") <= F.date_add("_partition_date", child.orphan_days)
            lacking_now = having.join(keys, on=(F.col("key") == F.col("known")) & in_time, how="left_anti")
            found.append(lacking_now.withColumn("change", F.lit(f"lost their {dataset.name}")))
    dates: dict[str, dict[date, str]] = {}
    if found:
        partitions = reduce(
            lambda one, other: one.unionAll(other),
            (rows.select("dataset", "_partition_date", "change") for rows in found),
        )
        counted = partitions.groupBy("dataset", "_partition_date", "change").count().collect()
        for name, day, change, rows in sorted(counted):
            whys = dates.setdefault(name, {})
            why = f"{rows:,} {name} of {day} {change}"
            whys[day] = f"{whys[day]}, {why}" if day in whys else why
    return dates


if __name__ == "__main__":
    program.run(bronze_to_silver, remaining=warehouse.remaining)
