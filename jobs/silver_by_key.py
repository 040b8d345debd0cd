"""Validates again only those records of a partition that are concerned by parents that came or went."""

from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs import (
    borders,
    concerned,
    delta_tables,
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

MALFORMED = "malformed_row"


class Difference(NamedTuple):
    """Holds what a validation by key found: the concerned rows as they were, their verdicts now, and both counts."""

    rows: concerned.Concerned
    verdict: validation.Verdict
    before: validation.Counts
    now: validation.Counts


def base_of(
    connection: warehouse.Connection, dataset: Dataset, day: date, facts: landing.Facts
) -> dict[str, Any] | None:
    """Returns the current silver run of a partition if only its concerned records need to be validated again; or None.

    That run has validated this very file by these rules, no run has begun to write since, and both tables exist.
    """
    run = ledger.standing(connection, dataset, day)
    if run is None or run["differing"] is None or run["bronze_rows"] < concerned.MANY_ROWS:
        return None
    if (run["made_from"], run["rule_set"]) != (facts.sha256, dataset.rule_set):
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
    """Validates the records of a partition that are concerned by parents that came or went; writes only their rows.

    `base` is the partition's current silver run. Returns the sentences that `validate` returns; none if the whole
    partition must be validated instead. Nothing has been written then.

    Its parameters are a partition and all that is known of it.
    """
    program.tune_for_small_input(spark, base["bronze_rows"])
    program.step(spark, dataset, [day], "find records whose parents came or went")
    hits = ledger.hits(connection, dataset, day, base["run_id"])
    found = find_difference(spark, dataset, day, facts, may_have_lost=base["stale_lost"] is not False)
    if found is None:
        borders.say(
            f"silver {dataset.name} {day}: many records are concerned, or silver does not have those of the file; "
            "validating the whole partition"
        )
        return []
    counts = concerned.brought_forward(base, hits, found.before, found.now, facts.amounts)
    silver_account.must_balance(day, facts, counts)
    with ledger.runs(connection, "silver", dataset.name, [day], dataset.rule_set) as runs:
        run = runs[day]
        standing: Mapping[date, Mapping[str, Any]] = {day: base}
        changes: list[str] = []
        run |= {name: base[name] for name in ("delta_accepted", "delta_rejected")}
        if found.now.rows:
            standing = {}
            key = dataset.key
            gone = found.rows.accepted.select(key)
            lost = gone.join(found.verdict.accepted, key, "left_anti").count() if found.before.accepted else 0
            run |= {"since_run": base["run_id"], "lost": lost}
            ledger.note(connection, run)  # before the commit, so that a run that dies has recorded what it removed
            ledger.withdraw(connection, run)
            program.step(spark, dataset, [day], "publish")
            silver_commit.publish_difference(connection, dataset, run, *found)
            program.step(spark, dataset, [day], "find dates to validate again")
            came = found.verdict.accepted.join(gone, key, "left_anti").select(key, "_partition_date")
            changes = revalidation.mark_stale(spark, connection, dataset, [run], came)
        said = silver_account.settle(connection, dataset, {day: facts}, {day: counts}, runs, standing)
    return [*said, *changes]


def find_difference(
    spark: SparkSession, dataset: Dataset, day: date, facts: landing.Facts, may_have_lost: bool
) -> Difference | None:
    """Validates the concerned records of a partition, whose rows may also have lost parents.

    Returns None if they are more than MOST of its rows, or if silver does not have as many of them, or other amounts,
    as the file.
    """
    keep = program.checkpoint
    of_day, parents = F.col("_partition_date") == F.lit(day), delta_tables.parents_until(spark, dataset, day)
    accepted = delta_tables.silver(spark, dataset).filter(of_day)
    rejected = delta_tables.silver(spark, dataset, "rejected").filter(of_day & (F.col("_reject_reason") != MALFORMED))
    rejected = rejected.transform(validation.read_again, dataset)
    changed = keep(concerned.with_changed_parents(accepted if may_have_lost else None, rejected, dataset, parents))
    number = changed.count()
    if number > concerned.MOST * facts.records:
        return None
    rows = concerned.rows_of(changed, accepted, rejected, dataset)
    # Most often no accepted row is concerned. Reading the keys alone shows it, and costs far less than whole rows.
    if not rows.accepted.select(dataset.key).count():
        rows = rows._replace(accepted=accepted.limit(0))
        program.tune_for_small_input(spark, number)
    rows = concerned.Concerned(*map(keep, rows))
    before = validation.count(concerned.as_validated(rows, dataset), dataset, [day])[day]
    bronze = spark_csv.records(spark, dataset, day, facts).withColumn("_partition_date", F.lit(day))
    records = keep(concerned.records(rows, bronze, dataset, facts.header, any_accepted=before.accepted > 0))
    headers, reached = {day: facts.header}, concerned.in_reach(parents, rows)
    validated = keep(validation.validate(records, dataset, headers, reached, keep))
    now = validation.count(validated, dataset, [day])[day]
    money = [counts.amount_accepted + counts.amount_rejected for counts in (before, now)]
    if (before.rows, before.amounts, money[0]) != (now.rows, now.amounts, money[1]):
        return None
    return Difference(rows, validation.split(validated, dataset, headers), before, now)
