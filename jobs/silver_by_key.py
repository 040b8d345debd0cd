"""Validates only those records of a partition that changed parents or a corrected file concern."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import (
    borders,
    concerned,
    delta_tables,
    gold,
    landing,
    ledger,
    program,
    revalidation,
    silver_account,
    silver_commit,
    spark_csv,
    validation,
    warehouse,
)
from jobs.dataset import Dataset


class Partition(NamedTuple):
    """Holds a partition as silver has it, the records of its file, and the keys of its parents as in `validate`."""

    accepted: DataFrame
    rejected: DataFrame
    bronze: DataFrame
    parents: Mapping[str, DataFrame]


class Changes(NamedTuple):
    """Tells what may have changed since a partition was validated: its file, its parents or both."""

    records: int  # in the file
    is_corrected: bool
    is_due: bool  # because parents came or went
    may_have_lost: bool  # rows may have lost parents


def base_of(
    connection: warehouse.Connection, dataset: Dataset, day: date, facts: landing.Facts
) -> dict[str, Any] | None:
    """Returns the current silver run of a partition if only its concerned records need to be validated; or None.

    That run has validated a file by these rules, no run has begun to write since, and both tables exist. The file is
    another one, or the partition is due because parents came or went: otherwise somebody wants the whole of it.
    """
    if facts.records < concerned.MANY_ROWS:  # most dates, of which the ledger need not be asked
        return None
    run = ledger.standing(connection, dataset, day)
    if run is None or run["differing"] is None or run["bronze_rows"] < concerned.MANY_ROWS:
        return None
    if not run["made_from"] or run["rule_set"] != dataset.rule_set:
        return None
    if run["stale_since"] is None and run["made_from"] == facts.sha256:
        return None
    return run if all(delta_tables.has_silver(dataset, kind) for kind in ("accepted", "rejected")) else None


def validate_by_key(
    spark: SparkSession,
    connection: warehouse.Connection,
    dataset: Dataset,
    day: date,
    facts: landing.Facts,
    base: Mapping[str, Any],
) -> list[str]:
    """Validates the records of a partition that changed parents or a corrected file concern; publishes their verdicts.

    `base` is the partition's current silver run. Returns the sentences that `validate` returns; none if the whole
    partition must be validated instead. Nothing has been written then.

    Its parameters are a partition and all that is known of it. Long because this is the order on which recovery
    depends, as in `validate`.
    """
    program.tune_for_small_input(spark, base["bronze_rows"])
    program.step(spark, dataset, [day], "find the records concerned")
    hits = ledger.hits(connection, dataset, day, base["run_id"])
    is_corrected = base["made_from"] != facts.sha256
    may_have_lost = base["stale_lost"] is not False
    changes = Changes(facts.records, is_corrected, base["stale_since"] is not None, may_have_lost)
    partition = read(spark, dataset, day, facts)
    found = find_difference(partition, dataset, day, facts.header, changes) if partition else None
    counts = None
    if found:
        # The ledger does not have the number of readable amounts in the file before.
        amounts = facts.amounts + (found.before.amounts - found.now.amounts if is_corrected else 0)
        counts = concerned.brought_forward(base, hits, found.before, found.now, amounts)
    if not found or not counts or not silver_account.is_balanced(facts, counts):
        borders.say(
            f"silver {dataset.name} {day}: many records are concerned, or silver does not have those of the file; "
            "validating the whole partition"
        )
        return []
    with ledger.runs(connection, "silver", dataset.name, [day], dataset.rule_set) as runs:
        run = runs[day]
        standing: Mapping[date, Mapping[str, Any]] = {day: base}
        again: list[str] = []
        run |= {name: base[name] for name in ("delta_accepted", "delta_rejected")}
        if found.now.rows or found.before.rows or is_corrected:
            standing = {}
            key = dataset.key
            left = found.rows.accepted.select(key)
            lost = left.join(found.verdict.accepted, key, "left_anti").count() if found.before.accepted else 0
            run |= {"since_run": base["run_id"], "lost": lost}
            ledger.note(connection, run)  # before the commit, so that a run that dies has recorded what it removed
            ledger.withdraw(connection, run)
            if is_corrected:
                gone = found.gone.select(F.lit(dataset.name), F.lit(day), F.lit(run["run_id"]), key)
                gold.append(gone.toDF(*gold.GONE_KEYS), "ops.gone_keys", ["_partition_date"])
            program.step(spark, dataset, [day], "publish")
            silver_commit.publish_difference(connection, dataset, run, found, counts)
            program.step(spark, dataset, [day], "find dates to validate again")
            came = found.verdict.accepted.join(left, key, "left_anti").select(key, "_partition_date")
            again = revalidation.mark_stale(spark, connection, dataset, [run], came)
        said = silver_account.settle(connection, dataset, {day: facts}, {day: counts}, runs, standing)
    return [*said, *again]


def read(spark: SparkSession, dataset: Dataset, day: date, facts: landing.Facts) -> Partition | None:
    """Reads a partition of silver and its file; returns None if silver lacks the hashes of the records."""
    of_day = F.col("_partition_date") == F.lit(day)
    accepted, rejected = (delta_tables.silver(spark, dataset, kind).filter(of_day) for kind in ("accepted", "rejected"))
    if not all("_record_hash" in rows.columns for rows in (accepted, rejected)):
        return None
    bronze = spark_csv.records(spark, dataset, day, facts).withColumn("_partition_date", F.lit(day))
    return Partition(accepted, rejected, bronze, delta_tables.parents_until(spark, dataset, day))


def find_difference(
    partition: Partition, dataset: Dataset, day: date, header: Sequence[str], changes: Changes
) -> concerned.Difference | None:
    """Validates the concerned records of a partition, whose file has the fields `header`.

    Returns None if they are many, or if rows of silver lack the hashes of their records. Long because its steps share
    their frames.
    """
    keep, key = program.checkpoint, dataset.key
    # A record that was corrected counts twice: as it was and as it is.
    most = concerned.MOST * changes.records * (2 if changes.is_corrected else 1)
    headers, spark = {day: header}, partition.accepted.sparkSession
    accepted, rejected = partition.accepted, concerned.with_types(partition.rejected, dataset)
    bronze = partition.bronze.withColumn("_record_hash", validation.record_hash(headers))
    found, came, hashes = [], None, None
    if changes.is_corrected:
        hashes = keep(concerned.differing_hashes(accepted, rejected, bronze))
        [(differ, known)] = hashes.agg(F.count("*"), F.count("_record_hash")).collect()
        if differ > most or known < differ:
            return None
        left = concerned.with_hashes(accepted, hashes).select(key, F.lit(None).cast("string").alias("_raw"))
        left = left.unionAll(concerned.with_hashes(rejected, hashes).select(key, "_raw"))
        came = keep(concerned.with_hashes(bronze, hashes))
        found += [left, concerned.keys_and_texts(came, dataset, header)]
    if changes.is_due:
        having = accepted if changes.may_have_lost else None
        found.append(concerned.with_changed_parents(having, rejected, dataset, partition.parents))
    changed = keep(validation.union(found))
    number = changed.count()
    if number > most:
        return None
    rows = concerned.rows_of(changed, accepted, rejected, dataset)
    # If parents came, most often no accepted row is concerned. The keys alone show it, far sooner than whole rows.
    if not changes.is_corrected and not rows.accepted.select(key).count():
        rows = rows._replace(accepted=accepted.limit(0))
        program.tune_for_small_input(spark, number)
    rows = concerned.Concerned(*map(keep, rows))
    before = validation.count(concerned.as_validated(rows, dataset), dataset, [day])[day]
    others, any_other = rows, before.accepted > 0
    if hashes is not None:
        others = concerned.Concerned(*(concerned.without_hashes(each, hashes) for each in rows))
        any_other = others.accepted.count() > 0
    records = keep(concerned.records(others, bronze, came, any_other))
    reached = concerned.in_reach(partition.parents, records, dataset, header)
    validated = keep(validation.validate(records, dataset, headers, reached, keep))
    now = validation.count(validated, dataset, [day])[day]
    keys = rows.accepted.select(key).unionAll(rows.rejected.select(key)).filter(F.col(key).isNotNull()).distinct()
    gone = keys.join(validated.select(key), on=key, how="left_anti")
    return concerned.Difference(rows, validation.split(validated, dataset, headers), before, now, gone)
