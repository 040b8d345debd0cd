"""Tells the whole story of a key, from its files to gold: `make why`."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import reduce
from typing import NamedTuple

from psycopg.rows import dict_row
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import borders, delta_tables, lake_paths, ledger, program, provenance, warehouse
from jobs.catalog import CATALOG, children
from jobs.dataset import WHITE_SPACE, Dataset
from jobs.program import Refused


class Sighting(NamedTuple):
    """Holds a row of silver that has a key; it was accepted if it has no `codes`."""

    dataset: str
    key: str
    day: date
    run_id: str
    codes: list[str] | None
    parents: list[str]  # the keys of its parents, in the order of its dataset's foreign keys
    values: list[str | None]  # of its columns, in declared order: to be compared, never to be shown


def why(text: str) -> Iterator[str]:
    """Yields the story of a key: each partition whose file has it, with the file and the verdict, and what gold has.

    Of an orphan, it also says which parent is missing and until when that may come. Raises Refused if no validated file
    has the key.
    """
    key = text.strip(WHITE_SPACE)
    if not key:
        raise Refused("no key is given; name one, as in: make why KEY=V00000123")
    with warehouse.connect() as connection:
        spark = program.resident("why")
        program.tune_for_small_input(
            spark, warehouse.value(connection, "select coalesce(sum(bronze_rows), 0) from ops.standing")
        )
        seen = sightings(spark, {name: {key} for name in CATALOG})
        if not seen:
            raise Refused(
                f"no file that was validated holds a row with the key {borders.printable(key)}; keys are spelt "
                "exactly as in the file, and `make ledger` shows which dates were validated."
            )
        wanted = defaultdict(set)
        for row in seen:
            for _, parent, parent_key in waiting_for(row):
                wanted[parent].add(parent_key)
        parents = sightings(spark, wanted) if wanted else []
        for name in dict.fromkeys(row.dataset for row in seen):
            yield f"{name} {borders.printable(key)}"
            for day in sorted({row.day for row in seen if row.dataset == name}):
                rows = [row for row in seen if (row.dataset, row.day) == (name, day)]
                yield from partition_story(connection, CATALOG[name], day, rows, parents)
            yield from gold_story(connection, CATALOG[name], key)


def sightings(spark: SparkSession, wanted: Mapping[str, set[str]]) -> list[Sighting]:
    """Returns the silver rows of these keys, which are given by dataset.

    The keys go to Spark as data, so that no plan and no log shows them.
    """
    keys = spark.createDataFrame(
        [(name, key) for name in wanted for key in sorted(wanted[name])], "of string, is string"
    )
    rows = union(rows_of(spark, CATALOG[name], kind) for name in wanted for kind in ("accepted", "rejected"))
    same = (F.col("dataset") == F.col("of")) & (F.col("key") == F.col("is"))
    found = rows.join(F.broadcast(keys), on=same, how="left_semi").collect()
    order = {name: place for place, name in enumerate(CATALOG)}
    return sorted(
        (Sighting(*row) for row in found),
        key=lambda row: (order[row.dataset], row.day, row.codes or [], [value or "" for value in row.values]),
    )


def rows_of(spark: SparkSession, dataset: Dataset, kind: str, day: date | None = None) -> DataFrame:
    """Returns a silver table, or one partition of it, with the columns of a sighting."""
    from jobs import validation

    rows = delta_tables.silver(spark, dataset, kind)
    is_rejected = kind == "rejected" and "_reject_reasons" in rows.columns
    rows = validation.read_again(rows, dataset) if is_rejected else rows
    return (rows.filter(F.col("_partition_date") == day) if day else rows).select(
        F.lit(dataset.name).alias("dataset"),
        F.col(dataset.key).alias("key"),
        F.col("_partition_date").alias("day"),
        "_run_id",
        (F.col("_reject_reasons.code") if is_rejected else F.lit(None).cast("array<string>")).alias("codes"),
        F.array(*dataset.parents).cast("array<string>").alias("parents"),
        F.array(*(F.col(name).cast("string") for name in dataset.names)).alias("values"),
    )


def union(frames: Iterator[DataFrame]) -> DataFrame:
    """Returns the rows of all frames."""
    return reduce(lambda one, other: one.unionAll(other), frames)


def waiting_for(row: Sighting) -> Iterator[tuple[str, str, str]]:
    """Yields (foreign key, parent dataset, parent's key) for each parent that a row lacks."""
    for (name, parent), key in zip(CATALOG[row.dataset].parents.items(), row.parents, strict=True):
        if row.codes and f"orphan_{name}" in row.codes:
            yield name, parent, key


def partition_story(
    connection: warehouse.Connection, dataset: Dataset, day: date, rows: Sequence[Sighting], parents: Sequence[Sighting]
) -> Iterator[str]:
    """Yields the story of a key in one partition: the file, and each row with its verdict and its reasons."""
    yield from file_lines(connection, dataset, day)
    yield from (f"    {line}" for line in provenance.lines(connection, dataset, day, rows[0].key))
    stands = next((row for row in rows if not row.codes), None)
    for row in rows:
        verdict = f"rejected: {';'.join(row.codes)}" if row.codes else "accepted"
        yield f"    {verdict}  (run {row.run_id})"
        for code in row.codes or ():
            yield f"      {code}: {dataset.reasons.get(code, 'no longer declared')}"
        if stands and row.codes == [f"duplicate_{dataset.key}"]:
            yield f"      {difference(row, stands)}"
        for name, parent, key in waiting_for(row):
            found = [each for each in parents if (each.dataset, each.key) == (parent, key)]
            yield f"      {name} {borders.printable(key)}: {parent_story(connection, dataset, day, found)}"


def difference(row: Sighting, stands: Sighting) -> str:
    """Returns the columns in which a row differs from the accepted row of its key and partition, without values."""
    names = CATALOG[row.dataset].names
    differing = [name for name, *values in zip(names, row.values, stands.values, strict=True) if len({*values}) > 1]
    if differing:
        return f"differs from the version that stands in {', '.join(differing)}"
    return "has the values of the version that stands; at most it is written differently"


def file_lines(connection: warehouse.Connection, dataset: Dataset, day: date) -> Iterator[str]:
    """Yields the bronze file from which a partition was validated, and whether the partition is due again."""
    run = ledger.standing(connection, dataset, day)
    path = lake_paths.bronze_path(dataset, day)
    if run is None:
        yield f"  {day}  {path}, whose run has not finished"
        return
    of_partition = "dataset = %(dataset)s and partition_date = %(partition_date)s"
    came, newest = connection.execute(
        "select min(ended_at) filter (where bronze_sha256 = %(bronze_sha256)s), "
        f"(select made_from from ops.receipts where layer = 'bronze' and {of_partition}) "
        f"from ops.ledger where layer = 'bronze' and outcome = 'done' and {of_partition}",
        run,
    ).fetchmany(1)[0]
    arrival = f"came {came:%Y-%m-%d %H:%M:%S} UTC" if came else "put there by another program"
    yield f"  {day}  {path}, {run['bronze_bytes']:,} bytes, {arrival}"
    yield f"    sha256 {run['bronze_sha256']}"
    if came and newest != run["bronze_sha256"]:
        yield "    the file came again since and waits to be validated"
    if run["stale_since"]:
        yield f"    due to be revalidated: parents came or went at {run['stale_since']:%Y-%m-%d %H:%M:%S} UTC"


def parent_story(connection: warehouse.Connection, dataset: Dataset, day: date, found: Sequence[Sighting]) -> str:
    """Returns what became of the parent that an orphan of `day` lacks, and how long the orphan waits for it."""
    last = dataset.waits_until(day)
    accepted = [row.day for row in found if not row.codes]
    if in_time := [each for each in accepted if each <= last]:
        return f"has come since, with {min(in_time)}; the next run validates this date again"
    if accepted:
        return f"came too late, with {min(accepted)}; it counted until {last}"
    fate = "has not come"
    if found:
        rejected = max(found, key=lambda row: row.day)
        fate = f"was rejected itself, in {rejected.day} ({';'.join(rejected.codes or ())})"
    return f"{fate}; {may_repair(connection, dataset, day)}"


def may_repair(connection: warehouse.Connection, dataset: Dataset, day: date) -> str:
    """Returns a phrase on whether a parent that comes now would still count for the orphans of a date.

    It would as long as the newest date in gold is not past the last partition that counts.
    """
    last = dataset.waits_until(day)
    newest = ledger.newest(connection) or day
    return f"retryable: its parent may come up to {last}" if newest <= last else f"final: its parent was due by {last}"


def gold_story(connection: warehouse.Connection, dataset: Dataset, key: str) -> Iterator[str]:
    """Yields the version of a key in gold, with the keys of its parents and the number of rows that reference it."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(f"select * from {dataset.name} where {dataset.key} = %s", [key]).fetchone()
    if row is None:
        yield "  gold: no version of it"
        return
    yield (
        f"  gold: the version of {row['_partition_date']}, loaded {row['_loaded_at']:%Y-%m-%d %H:%M:%S} UTC  "
        f"(run {row['_run_id']})"
    )
    facts = [f"its {name} is {borders.printable(row[name])}" for name in dataset.parents]
    for child in children(dataset):
        name = next(column for column, parent in child.parents.items() if parent == dataset.name)
        rows = warehouse.value(connection, f"select count(*) from {child.name} where {name} = %s", [key])
        facts.append(f"{rows:,} {child.name}")
    if facts:
        yield f"    {', '.join(facts)}"
