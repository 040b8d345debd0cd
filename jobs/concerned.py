"""Finds the records of a partition whose verdicts may change, and counts the difference.

A record is concerned if its orphan codes no longer hold, because parents came or went; if only the corrected file of
the partition has it, or only the file before; or if it shares its key with such a record, since duplicates are decided
among the records of a key. The verdicts of all other records depend on nothing that has changed.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs import validation
from jobs.dataset import Dataset

MANY_ROWS = 100_000  # a partition with fewer is validated whole; the crossing point is not measured
MOST = 0.1  # the largest share of changed records in a partition that is validated by key


class Concerned(NamedTuple):
    """Holds the concerned rows of a partition as silver has them; both frames have typed values."""

    accepted: DataFrame
    rejected: DataFrame  # with `_raw` and `_reject_reason`


class Difference(NamedTuple):
    """Holds what a validation by key found: the concerned rows as they were, their verdicts now, and both counts."""

    rows: Concerned
    verdict: validation.Verdict
    before: validation.Counts
    now: validation.Counts
    gone: DataFrame  # the keys that no record has any more


def with_changed_parents(
    accepted: DataFrame | None, rejected: DataFrame, dataset: Dataset, parents: Mapping[str, DataFrame]
) -> DataFrame:
    """Returns the key and the text of each row of a partition whose orphan codes no longer hold, some of them twice.

    `accepted` and `rejected` are the partition's rows in silver, with typed values; `accepted` is None if no row may
    have lost its parent, so that only orphans need to be looked at. `parents` holds, by foreign key column, the keys
    and partitions of all parents that come in time. The text of an accepted row is null.
    """
    found = []
    for name, keys in parents.items():
        was = validation.has_code(F.lit(f"orphan_{name}"))
        known = keys.toDF("known", "day").select("known")
        orphans = rejected.filter(was & F.col(name).isNotNull()).select(dataset.key, "_raw", name)
        is_there = F.col(name) == F.col("known")
        found.append(orphans.join(known, on=is_there, how="left_semi").select(dataset.key, "_raw"))
        if accepted is not None:
            others = rejected.filter(~was).select(dataset.key, "_raw", name)
            having = accepted.select(dataset.key, F.lit(None).cast("string").alias("_raw"), name).unionAll(others)
            lost = having.filter(F.col(name).isNotNull()).join(known, on=is_there, how="left_anti")
            found.append(lost.select(dataset.key, "_raw"))
    return validation.union(found)


def with_types(rejected: DataFrame, dataset: Dataset) -> DataFrame:
    """Returns silver's rejected rows with typed values; those of malformed records are null."""
    whole = F.col("_reject_reason") != "malformed_row"
    rows = rejected.transform(validation.read_again, dataset)
    return rows.withColumns({name: F.when(whole, F.col(name)) for name in dataset.names})


def differing_hashes(accepted: DataFrame, rejected: DataFrame, bronze: DataFrame) -> DataFrame:
    """Returns the hashes of those records of which a corrected file and silver have different numbers.

    `bronze` has the records of the file. A row of null shows that silver has rows without a hash.
    """
    of_silver = (
        accepted.select("_record_hash").unionAll(rejected.select("_record_hash")).withColumn("number", F.lit(-1))
    )
    numbers = of_silver.unionAll(bronze.select("_record_hash", F.lit(1).alias("number"))).groupBy("_record_hash")
    differ = (F.col("number") != 0) | F.col("_record_hash").isNull()
    return numbers.agg(F.sum("number").alias("number")).filter(differ).select("_record_hash")


def without_hashes(rows: DataFrame, hashes: DataFrame) -> DataFrame:
    """Returns the rows whose record has none of some hashes, which are few."""
    return rows.join(F.broadcast(hashes), on="_record_hash", how="left_anti")


def with_hashes(rows: DataFrame, hashes: DataFrame) -> DataFrame:
    """Returns the rows whose record has one of some hashes, which are few."""
    return rows.join(F.broadcast(hashes), on="_record_hash", how="left_semi")


def keys_and_texts(records: DataFrame, dataset: Dataset, header: Sequence[str]) -> DataFrame:
    """Returns the key and the text of each record of a file; the key of a malformed record is null."""
    key = next(column for column in dataset.columns if column.name == dataset.key)
    read = records.transform(validation.split_fields, header).transform(validation.read_texts, dataset, header)
    return read.select(F.when(~F.col("malformed"), validation.read(key)).alias(dataset.key), "_raw")


def rows_of(changed: DataFrame, accepted: DataFrame, rejected: DataFrame, dataset: Dataset) -> Concerned:
    """Returns the `changed` rows, which are few, and all rows that share a key with one of them."""
    key = dataset.key
    keys = F.broadcast(changed.filter(F.col(key).isNotNull()).select(key).distinct())
    texts = F.broadcast(changed.filter(F.col(key).isNull()).select("_raw").distinct())
    return Concerned(
        accepted=accepted.join(keys, on=key, how="left_semi"),
        rejected=rejected.join(keys, on=key, how="left_semi").unionByName(
            rejected.filter(F.col(key).isNull()).join(texts, on="_raw", how="left_semi")
        ),
    )


def records(concerned: Concerned, bronze: DataFrame, came: DataFrame | None, any_other: bool) -> DataFrame:
    """Returns the records of a partition's file that are to be validated: their partition and text.

    If the file was corrected, `concerned` has only the rows of records of which the file still has as many, and `came`
    the records of which the file and silver have different numbers. Silver has the texts of rejected rows. Those of
    accepted rows, if there is `any_other`, are read from the records of the file (`bronze`) by their hashes, in one
    scan.
    """
    wanted = ["_partition_date", "_raw"]
    found, rejected = [] if came is None else [came], concerned.rejected
    if any_other:  # with all records of the same text
        accepted = concerned.accepted.select("_record_hash")
        rejected = without_hashes(rejected, accepted)
        found.append(with_hashes(bronze, accepted))
    return validation.union([each.select(*wanted) for each in (*found, rejected)])


def in_reach(
    parents: Mapping[str, DataFrame], records: DataFrame, dataset: Dataset, header: Sequence[str]
) -> dict[str, DataFrame]:
    """Returns those parents, by foreign key column, to which some records, which are few, refer."""
    read = records.transform(validation.split_fields, header).transform(validation.read_texts, dataset, header)
    reached = {}
    for name, keys in parents.items():
        wanted = F.broadcast(read.select(F.col(f"text_{name}").alias("wanted")).distinct())
        known = keys.toDF("known", "day")
        reached[name] = known.join(wanted, on=F.col("wanted") == F.col("known"), how="left_semi")
    return reached


def as_validated(concerned: Concerned, dataset: Dataset) -> DataFrame:
    """Returns concerned rows as silver has them in the form of `validation.validate`, for `validation.count`.

    Marks one row of each key whose sound rows differ, as `validate` does: here the accepted row.
    """
    names, key = [*dataset.names, "_partition_date"], dataset.key
    reasons = concerned.rejected.select(*names, "_reject_reason")
    rows = concerned.accepted.select(*names, F.lit("").alias("_reject_reason")).unionAll(reasons)
    content = F.struct(*dataset.names)
    sound = rows.filter(F.col("_reject_reason").isin("", f"duplicate_{key}"))
    differ = (~F.min(content).eqNullSafe(F.max(content))).alias("differ")
    of_key = sound.groupBy(key).agg(differ).filter("differ")
    is_marked = (F.col("_reject_reason") == "") & F.coalesce("differ", F.lit(False))
    return rows.join(of_key, on=key, how="left").withColumn("_versions_differ", is_marked)


def brought_forward(
    base: Mapping[str, Any], hits: Mapping[str, int], before: validation.Counts, now: validation.Counts, amounts: int
) -> validation.Counts:
    """Returns a partition's counts after its concerned rows were validated again.

    `base` is the partition's current silver run, with its `hits` by reason code. `before` and `now` count the
    concerned rows as they were and as they are; `amounts` is the number of readable amounts before.
    """
    return validation.Counts(
        rows=base["bronze_rows"] - before.rows + now.rows,
        accepted=base["accepted"] - before.accepted + now.accepted,
        faulty=base["faulty"] - before.faulty + now.faulty,
        amounts=amounts - before.amounts + now.amounts,
        amount_accepted=(base["amount_accepted"] or Decimal()) - before.amount_accepted + now.amount_accepted,
        amount_rejected=(base["amount_rejected"] or Decimal()) - before.amount_rejected + now.amount_rejected,
        hits={code: hits[code] - before.hits[code] + now.hits[code] for code in now.hits},
        differing=base["differing"] - before.differing + now.differing,
    )
