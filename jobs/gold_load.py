"""Loads partitions of silver into gold: stages them over JDBC, applies them by key, and settles their runs."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import reduce
from operator import or_
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs import delta_tables, gold, ledger, program, thresholds, validation, warehouse
from jobs.catalog import CATALOG, relatives
from jobs.dataset import Dataset


def silver_to_gold(dataset: Dataset, *days: date, whole: bool = False) -> str:
    """Brings gold in line with partitions of a dataset, and with those validated again since gold last read them.

    Loads all rows of the partitions if they are to be loaded `whole`, even if gold seems to have them.

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
            done += load(spark, connection, dataset, {day: silver[day] for day in plan}, stopped, whole)
    if refused:
        program.refuse(refused, done)
    return "\n".join(done)


def load(
    spark: SparkSession,
    connection: warehouse.Connection,
    dataset: Dataset,
    silver: Mapping[date, dict[str, Any]],
    stopped: Sequence[date],
    whole: bool = False,
) -> list[str]:
    """Loads the partitions that gold does not hold as they are, and settles the others; returns a sentence for each.

    `silver` holds the current silver run of each partition. Loads all rows of all partitions if they are to be loaded
    `whole`.

    Its parameters are the partitions, and all that the caller has decided about them.
    """
    with ledger.runs(connection, "gold", dataset.name, [*silver], dataset.rule_set) as runs:
        said: dict[date, str] = {}
        for day, run in silver.items():
            if not whole and (stands := gold.loaded(connection, dataset, day, run["run_id"])):
                row = runs.pop(day)  # this run does not fail if those of other partitions do
                row |= {"staged": 0, "inserted": 0, "updated": 0, "unchanged": run["accepted"], "removed": 0}
                ledger.settle(connection, row, run["run_id"], stands)
                said[day] = f"{in_words(row)}; already up to date"
        if runs:
            loading = {day: silver[day] for day in runs}
            found = {} if whole else {day: changed_since(connection, dataset, day, run) for day, run in loading.items()}
            since = {day: made for day, made in found.items() if made}
            said |= apply(spark, connection, dataset, loading, runs, stopped, since)
    return [said[day] for day in silver]


def apply(
    spark: SparkSession,
    connection: warehouse.Connection,
    dataset: Dataset,
    silver: Mapping[date, dict[str, Any]],
    runs: Mapping[date, dict[str, Any]],
    stopped: Sequence[date],
    since: Mapping[date, Sequence[str]],
) -> dict[date, str]:
    """Stages partitions over JDBC and applies them, with ledger rows and markers, in one transaction.

    `silver` and `runs` hold each partition's current silver run and the run of this load; `since` holds the silver runs
    of those partitions of which only the rows that these runs wrote are loaded. Returns a sentence for each partition;
    that of the first also counts the changed rows of other datasets.

    Long because all that it loads and marks succeeds or fails together.
    """
    days, first = list(silver), next(iter(runs.values()))
    run_id, several = first["run_id"], len(days) > 1 or bool(since)
    stage_partitions(spark, connection, dataset, silver, since, run_id)
    losing = gold.find_lost(connection, dataset, days, since, run_id)
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
        counts = {
            each.name: gold.load(connection, each, restating or several, run_id, restating=each != dataset)
            for each in touched
        }
        gold.replace_withheld(connection, dataset, days, since, run_id)
        own = counts.pop(dataset.name)
        others = note_restated(connection, first, counts)
        changed = bool(others) or any(c["inserted"] or c["updated"] or c["removed"] for c in own.values())
        for day, row in runs.items():
            row |= gold.together(dataset, [own.pop(day)] if day in own else [])
            if day in since:  # rows that did not have to be staged
                row["unchanged"] += silver[day]["accepted"] - row["staged"]
        # Versions of other partitions, on which keys fall back, are counted with the first.
        first |= gold.together(dataset, [first, *own.values()])
        for day, row in runs.items():
            # The load has brought the sums of a partition forward of which not all rows were staged.
            by_key = gold.sums(connection, dataset, day) if day in since else None
            sums = by_key or gold.checksums(connection, dataset, day)
            row["checksums"] = " ".join(map(str, sums))
            # If the load changed nothing, the earlier run stays current, so that marts made from it are up to date.
            stands = None if changed else gold.loaded_alike(connection, row, sums)
            ledger.settle(connection, row, silver[day]["run_id"], stands)
            gold.set_sums(connection, dataset, day, sums)
    gold.drop_staging(connection)
    said = {day: in_words(row) for day, row in runs.items()}
    said[days[0]] += f"; {', '.join(others)}" if others else ""
    return said


def changed_since(connection: warehouse.Connection, dataset: Dataset, day: date, run: Mapping[str, Any]) -> list[str]:
    """Returns the silver runs that wrote what changed in a partition since gold loaded it; none if it must be whole.

    `run` is the partition's current silver run. All runs since gold's must have validated by key.
    """
    made_from = gold.made_from(connection, dataset, day)
    return ledger.runs_since(connection, dataset, day, run["run_id"], made_from) if made_from else []


def stage_partitions(
    spark: SparkSession,
    connection: warehouse.Connection,
    dataset: Dataset,
    silver: Mapping[date, dict[str, Any]],
    since: Mapping[date, Sequence[str]],
    run_id: str,
) -> None:
    """Stages the accepted rows of partitions, and the excluded ones of the rejected, both at once over JDBC.

    Of the partitions in `since` only the rows that its runs wrote are staged, and all that have no key.

    Its parameters are the partitions and the ways in which they are staged.
    """
    days = list(silver)
    several = len(days) > 1 or bool(since)
    gold.create_staging(connection, run_id, None if several else silver[days[0]])
    rows = sum(run["accepted"] + run["rejected"] for run in silver.values())
    program.tune_for_small_input(spark, rows, ledger.rows_in_silver(connection, relatives(dataset)))
    program.step(spark, dataset, days, "stage")
    whole = F.col("_partition_date").isin([day for day in days if day not in since])
    written = (
        (F.col("_partition_date") == F.lit(day)) & F.col("_run_id").isin(list(runs)) for day, runs in since.items()
    )
    no_key = validation.trim(F.col(dataset.key)).isNull() | (F.col("_reject_reason") == "malformed_row")
    no_key = F.col("_partition_date").isin([*since]) & no_key
    of_runs = reduce(or_, written, whole)
    accepted = delta_tables.silver(spark, dataset).filter(of_runs)
    rejected = delta_tables.silver(spark, dataset, "rejected").filter(of_runs | no_key if since else of_runs)
    wanted = {day: (run["accepted"], run["rejected"]) for day, run in silver.items()}
    for day in since:
        of_day = F.col("_partition_date") == F.lit(day)
        wanted[day] = accepted.filter(of_day).count(), rejected.filter(of_day).count()
    with ThreadPoolExecutor() as pool:
        writes = [pool.submit(gold.stage, accepted, dataset, run_id, of_runs=several)]
        if any(rows for _, rows in wanted.values()):
            withheld, table = validation.withheld(rejected, dataset), gold.staging("withheld", run_id)
            writes.append(pool.submit(gold.append, withheld, table, ["row_day"]))
        for write in writes:
            write.result()
    gold.must_be_staged(connection, dataset, wanted, run_id)


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
