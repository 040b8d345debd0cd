"""Loads partitions of silver into gold: stages them over JDBC, applies them by key, and settles their runs."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs import delta_tables, gold, ledger, program, thresholds, validation, warehouse
from jobs.catalog import CATALOG, relatives
from jobs.dataset import Dataset


def silver_to_gold(dataset: Dataset, *days: date) -> str:
    """Brings gold in line with partitions of a dataset, and with those validated again since gold last read them.

    If a threshold stops a partition, or it was never validated, the others are loaded all the same, and Refused is
    raised at the end. Returns a sentence for each partition.
    """
    # Opened before the locks are taken, while another run may still be writing gold.
    spark = program.spark(f"silver_to_gold {dataset.name} {program.listed(days)}")
    with (
        warehouse.connect() as connection,
        warehouse.writer(connection, "gold", reads=[f"silver {dataset.name}"]),
    ):
        gold.drop_staging(connection)  # tables of a load that died, even if nothing is left to load
        stops = thresholds.stops(connection)
        stopped = sorted({stop["partition_date"] for stop in stops})
        again = [day for day in ledger.behind(connection, dataset) if day not in stopped]
        silver: dict[date, dict[str, Any]] = {}
        refused: list[program.Refused] = []
        for day in dict.fromkeys([*days, *again]):
            run = ledger.standing(connection, dataset, day)
            if day in stopped:
                refused.append(thresholds.stopped([stop for stop in stops if stop["partition_date"] == day]))
            elif run is None or not run["made_from"]:
                why = f"{dataset.name} of {day} has not been validated to the end; run SilverPipeline for {day} first."
                refused.append(program.Refused(why))
            else:
                silver[day] = run
        done: list[str] = []
        for plan in program.plans({day: run["accepted"] for day, run in silver.items()}):
            done += load(spark, connection, dataset, {day: silver[day] for day in plan}, stopped)
    if refused:
        program.refuse(refused, done)
    return "\n".join(done)


def load(
    spark: SparkSession,
    connection: warehouse.Connection,
    dataset: Dataset,
    silver: Mapping[date, dict[str, Any]],
    stopped: Sequence[date],
) -> list[str]:
    """Loads the partitions that gold does not hold as they are, and settles the others; returns a sentence for each.

    `silver` holds the current silver run of each partition.
    """
    with ledger.runs(connection, "gold", dataset.name, [*silver], dataset.rule_set) as runs:
        said: dict[date, str] = {}
        for day, run in silver.items():
            if stands := gold.loaded(connection, dataset, day, run["run_id"]):
                row = runs.pop(day)  # this run does not fail if those of other partitions do
                row |= {"staged": 0, "inserted": 0, "updated": 0, "unchanged": run["accepted"], "removed": 0}
                ledger.settle(connection, row, run["run_id"], stands)
                said[day] = f"{in_words(row)}; already up to date"
        if runs:
            said |= apply(spark, connection, dataset, {day: silver[day] for day in runs}, runs, stopped)
    return [said[day] for day in silver]


def apply(
    spark: SparkSession,
    connection: warehouse.Connection,
    dataset: Dataset,
    silver: Mapping[date, dict[str, Any]],
    runs: Mapping[date, dict[str, Any]],
    stopped: Sequence[date],
) -> dict[date, str]:
    """Stages partitions over JDBC and applies them, with ledger rows and markers, in one transaction.

    `silver` and `runs` hold each partition's current silver run and the run of this load. Returns a sentence for each
    partition; that of the first also counts the changed rows of other datasets.

    Long because all that it loads and marks succeeds or fails together.
    """
    days, first = list(silver), next(iter(runs.values()))
    run_id, several = first["run_id"], len(days) > 1
    stage_partitions(spark, connection, dataset, silver, run_id)
    losing = gold.find_lost(connection, dataset, days, run_id)
    for loser in losing:
        stage_versions(spark, gold.lost(loser, run_id), loser, stopped, run_id)
    restating = bool(losing)
    for child in reversed(CATALOG.values()):
        for name, parent in child.parents.items():
            if missing := gold.find_missing(connection, child, name, run_id):
                stage_versions(spark, missing, CATALOG[parent], stopped, run_id)
                restating = True
    with connection.transaction():
        if restating:
            connection.execute("set constraints all deferred")
        touched = CATALOG.values() if restating else [dataset]
        counts = {each.name: gold.load(connection, each, restating or several, run_id) for each in touched}
        gold.replace_withheld(connection, dataset, days, run_id)
        own = counts.pop(dataset.name)
        others = note_restated(connection, first, counts)
        changed = bool(others) or any(c["inserted"] or c["updated"] or c["removed"] for c in own.values())
        for day, row in runs.items():
            row |= gold.together(dataset, [own.pop(day)] if day in own else [])
        # Versions of other partitions, on which keys fall back, are counted with the first.
        first |= gold.together(dataset, [first, *own.values()])
        for day, row in runs.items():
            row["checksums"] = gold.checksums(connection, dataset, day)
            # If the load changed nothing, the earlier run stays current, so that marts made from it are up to date.
            stands = None if changed else gold.loaded_alike(connection, row)
            ledger.settle(connection, row, silver[day]["run_id"], stands)
    gold.drop_staging(connection)
    said = {day: in_words(row) for day, row in runs.items()}
    said[days[0]] += f"; {', '.join(others)}" if others else ""
    return said


def stage_partitions(
    spark: SparkSession,
    connection: warehouse.Connection,
    dataset: Dataset,
    silver: Mapping[date, dict[str, Any]],
    run_id: str,
) -> None:
    """Stages the accepted rows of partitions, and the excluded ones of the rejected, both at once over JDBC."""
    days = list(silver)
    in_partitions = F.col("_partition_date").isin(days)
    several = len(days) > 1
    gold.create_staging(connection, run_id, None if several else silver[days[0]])
    rows = sum(run["accepted"] + run["rejected"] for run in silver.values())
    program.tune_for_small_input(spark, rows, ledger.rows_in_silver(connection, relatives(dataset)))
    program.step(spark, dataset, days, "stage")
    with ThreadPoolExecutor() as pool:
        accepted = delta_tables.silver(spark, dataset).filter(in_partitions)
        writes = [pool.submit(gold.stage, accepted, dataset, run_id, of_runs=several)]
        if any(run["rejected"] for run in silver.values()):
            rejected = delta_tables.silver(spark, dataset, "rejected").filter(in_partitions)
            withheld, table = validation.withheld(rejected, dataset), gold.staging("withheld", run_id)
            writes.append(pool.submit(gold.append, withheld, table, ["row_day"]))
        for write in writes:
            write.result()
    gold.must_be_staged(connection, dataset, silver, run_id)


def note_restated(
    connection: warehouse.Connection, run: Mapping[str, Any], counts: Mapping[str, Mapping[date, dict[str, Any]]]
) -> list[str]:
    """Notes in the ledger what a run did to the rows of other datasets; returns a phrase for each that it changed."""
    others = []
    for name in counts:
        moved = gold.together(CATALOG[name], counts[name].values())
        ledger.note(connection, dict(run) | {"dataset": name, "outcome": "done"} | moved)
        if moved["inserted"] or moved["updated"] or moved["removed"]:
            others.append(f"{name} {moved['inserted'] + moved['updated']:,} restated {moved['removed']:,} removed")
    return others


def in_words(row: dict[str, Any]) -> str:
    """Returns a sentence on what became of a partition's rows, from the ledger's row of its load."""
    numbers = ", ".join(f"{row[word]:,} {word}" for word in ("inserted", "updated", "unchanged", "removed"))
    return f"gold {row['dataset']} {row['partition_date']}: {numbers}"


def stage_versions(spark: SparkSession, keys: str, dataset: Dataset, stopped: Sequence[date], run_id: str) -> None:
    """Stages what all partitions accept for the keys of a table: versions to fall back on, and parents not yet in gold.

    Raises Refused if such a version is in a partition that a threshold keeps out of gold (`stopped`).
    """
    versions = delta_tables.silver(spark, dataset).join(gold.read_keys(spark, keys), on=dataset.key, how="left_semi")
    if stopped:
        held = versions.filter(F.col("_partition_date").isin(*stopped)).select("_partition_date").distinct().collect()
        if held:
            raise program.Refused(
                f"this load needs {dataset.name} of {', '.join(sorted(str(day) for (day,) in held))}, which a stop "
                "level keeps out of gold; correct that file, or let it pass with OVERRIDE=1, then run this date again."
            )
    gold.stage(versions, dataset, run_id, of_runs=True)
