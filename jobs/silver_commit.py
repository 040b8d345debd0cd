"""Compares validated partitions with silver, and commits those that differ to silver's two tables."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import concerned, delta_log, delta_tables, landing, ledger, program, validation, warehouse
from jobs.dataset import Dataset


def compare(
    spark: SparkSession,
    connection: warehouse.Connection,
    dataset: Dataset,
    facts: Mapping[date, landing.Facts],
    counts: Mapping[date, validation.Counts],
    verdict: validation.Verdict,
    runs: Mapping[date, dict[str, Any]],
) -> dict[date, Mapping[str, Any]]:
    """Returns, by date, the runs that remain current because silver already has exactly these rows.

    Such a run has validated this very file by these rules, and no other run may have begun to write since. Sets in
    `runs` how many keys silver would lose (`lost`).

    Its parameters are all that is known of the run at that point.
    """
    salt = next(iter(runs.values()))["run_id"]

    def by_day(rows: DataFrame, *sums: Any) -> dict[date, Any]:
        of_days = rows.filter(F.col("_partition_date").isin(*runs)).groupBy("_partition_date")
        return {day: found for day, *found in of_days.agg(*sums).collect()}

    stood = delta_tables.silver(spark, dataset)
    known = by_day(stood, *validation.checksums(dataset, salt))
    nothing = [(0, 0, 0), (0, 0, 0)]
    alike: dict[date, Mapping[str, Any]] = {}
    losing = []
    for day, run in runs.items():
        keys, content = known.get(day, nothing)
        if keys != counts[day].keys:
            losing.append(day)
        standing = ledger.standing(connection, dataset, day) or {}
        input_of = standing.get("made_from"), standing.get("rule_set")
        if content == counts[day].content and input_of == (facts[day].sha256, run["rule_set"]):
            alike[day] = standing
    if losing:
        gone = stood.filter(F.col("_partition_date").isin(losing))
        gone = gone.join(verdict.accepted, on=["_partition_date", dataset.key], how="left_anti")
        lost = by_day(gone, F.count("*"))
    for day, run in runs.items():
        run["lost"] = lost.get(day, [0])[0] if day in losing else 0
    if alike:
        names = [*dataset.names, "_raw", "_reject_reason", "_reject_reasons"]
        one, other = (
            by_day(rows, validation.checksum(names, salt))
            for rows in (delta_tables.silver(spark, dataset, "rejected"), verdict.rejected)
        )
        alike = {day: run for day, run in alike.items() if one.get(day) == other.get(day)}
    return alike


def publish(
    connection: warehouse.Connection,
    dataset: Dataset,
    runs: Sequence[dict[str, Any]],
    verdict: validation.Verdict,
    counts: Mapping[date, validation.Counts],
    is_new: bool,
) -> None:
    """Commits the partitions of `runs` to both silver tables, and notes the version of each commit in `runs`.

    `is_new` tells that the ledger has no other run of these partitions: a table that gets no rows of them is left as it
    is. Raises Refused unless each table received as many rows of each partition as there are verdicts.

    Its parameters are all that is known of the runs before the commit.
    """
    days, run_id = [run["partition_date"] for run in runs], runs[0]["run_id"]
    since, ready = ledger.versions(connection, dataset), partial(warehouse.must_hold, connection)
    of_days = F.col("_partition_date").isin(days)
    of_run = F.coalesce(*(F.when(F.col("_partition_date") == run["partition_date"], run["run_id"]) for run in runs))
    tables = {
        "rejected": (verdict.rejected, {day: counts[day].rows - counts[day].accepted for day in days}),
        "accepted": (verdict.accepted, {day: counts[day].accepted for day in days}),
    }

    def commit(kind: str) -> int:
        table, rows = tables[kind]
        known = since[kind]
        # If the ledger knows the table's newest commit, the table has no row of a partition that the ledger lacks.
        if (
            is_new
            and not any(rows.values())
            and known is not None
            and delta_log.last_commit(dataset, kind, known).version == known
        ):
            return known
        done = delta_tables.replace(
            table.filter(of_days).withColumn("_run_id", of_run), dataset, kind, days, run_id, known, ready
        )
        for day in days:
            if (written := done.rows.get(day, 0)) != rows[day]:
                raise program.Refused(
                    f"{rows[day]:,} rows of {day} were {kind} but {written:,} written, and the numbers must be equal; "
                    "run the date again."
                )
        return done.version

    with ThreadPoolExecutor() as pool:
        for kind, version in zip(tables, pool.map(commit, tables), strict=True):
            for run in runs:
                run[f"delta_{kind}"] = version


def publish_difference(
    connection: warehouse.Connection,
    dataset: Dataset,
    run: dict[str, Any],
    found: concerned.Difference,
    counts: validation.Counts,
) -> None:
    """Replaces the concerned rows of a partition by their new verdicts, and notes the version of each commit in `run`.

    If a table loses rows, its partition is rewritten from the rows that stay and the new ones: to delete rows, Delta
    rewrites their files, and most partitions have one file. A MERGE would also shuffle all rows. If a table only gets
    rows, they are inserted. Raises Refused unless a rewritten partition has as many rows as `counts` counts, and an
    insertion as many as were found.
    """
    day, run_id = run["partition_date"], run["run_id"]
    since, ready = ledger.versions(connection, dataset), partial(warehouse.must_hold, connection)
    # Rows of the same text share their key and, but for duplicates, their verdict: all of them are concerned.
    gone_of = {
        "rejected": found.rows.rejected.select("_raw").distinct(),
        "accepted": found.rows.accepted.select(dataset.key),
    }
    numbers = {
        "rejected": [each.rows - each.accepted for each in (found.before, found.now, counts)],
        "accepted": [each.accepted for each in (found.before, found.now, counts)],
    }
    for kind, gone in gone_of.items():
        leave, come, wanted = numbers[kind]
        new = getattr(found.verdict, kind).withColumn("_run_id", F.lit(run_id))
        if leave:
            stay = delta_tables.silver(new.sparkSession, dataset, kind).filter(F.col("_partition_date") == F.lit(day))
            stay = stay.join(F.broadcast(gone), on=gone.columns, how="left_anti")
            table = stay.unionByName(new, allowMissingColumns=True)
            done = delta_tables.replace(table, dataset, kind, [day], run_id, since[kind], ready)
        elif come:
            wanted = come
            done = delta_tables.insert(new, dataset, kind, day, run_id, since[kind], ready)
        else:
            continue
        if (written := done.rows.get(day, 0)) != wanted:
            raise program.Refused(
                f"{wanted:,} rows of {day} were {kind} but {written:,} written, and the numbers must be equal; "
                "run the date again."
            )
        run[f"delta_{kind}"] = done.version
