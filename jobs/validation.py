"""Sorts a file's records into accepted and rejected rows, each rejected one with every reason.

Pure DataFrame -> DataFrame, no UDF: the executors need none of our Python. DESIGN section 4 is the source of the rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import reduce
from operator import and_
from typing import NamedTuple

from pyspark.sql import Column as Expression
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.dataset import WHITE_SPACE, Column, Dataset, is_retryable

DATE = r"^(?!0000)[0-9]{4}-[0-9]{2}-[0-9]{2}$"
TIMESTAMP = (
    r"^(?!0000)[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?$"
)
DECIMAL = r"^[+-]?[0-9]+(\.[0-9]+)?$"
CSV = {"quote": '"', "escape": '"', "mode": "PERMISSIVE", "columnNameOfCorruptRecord": "_bad"}


class Verdict(NamedTuple):
    """Every record stands in exactly one of the two."""

    accepted: DataFrame
    rejected: DataFrame


class Counts(NamedTuple):
    """What became of the rows of one partition, and of the amounts that could be read."""

    rows: int
    accepted: int
    faulty: int  # rejected, and not only because a parent has yet to come
    amounts: int  # rows whose amount could be read
    amount_accepted: Decimal
    amount_rejected: Decimal
    hits: dict[str, int]  # per reason code, in declared order, zero hits included


def judge(records: DataFrame, dataset: Dataset, header: Sequence[str], parents: Mapping[str, DataFrame]) -> DataFrame:
    """One row per record of `records(_raw string)`: its typed values, its source text and `_reject_reasons`.

    `header` names the file's fields in their order; `parents` holds, per foreign key column, a DataFrame with
    one column, the keys accepted in the partitions that count. The source's texts stand in the struct `source`.
    """
    rows = records.transform(split_fields, dataset, header).transform(read_types, dataset)
    for name in dataset.parents:
        rows = rows.transform(find_parent, name, parents[name])
    return rows.transform(give_reasons, dataset).transform(mark_duplicates, dataset)


def split(judged: DataFrame, dataset: Dataset) -> Verdict:
    """The judged rows as silver keeps them: typed columns, or texts with their reasons."""
    sound = F.size("_reject_reasons") == 0
    codes = F.concat_ws(";", F.col("_reject_reasons.code")).alias("_reject_reason")
    return Verdict(
        accepted=judged.filter(sound).select(*dataset.names),
        rejected=judged.filter(~sound).select(
            *(F.nullif(f"source.{name}", F.lit("")).alias(name) for name in dataset.names),
            "_raw",
            codes,
            "_reject_reasons",
        ),
    )


def count(judged: DataFrame, dataset: Dataset) -> Counts:
    """What became of the rows and of their money, in one pass."""
    codes = F.col("_reject_reasons.code")
    retryable = [F.lit(code) for code in dataset.reasons if is_retryable(code)]
    sound = F.size(codes) == 0
    # The fields of a malformed record may have slipped: its amount is nobody's to add up.
    amount = F.when(~F.array_contains(codes, "malformed_row"), F.col(dataset.amount)) if dataset.amount else F.lit(None)
    amount = amount.cast("decimal(12,2)")

    def total(amounts: Expression) -> Expression:
        return F.coalesce(F.sum(amounts), F.lit(0).cast("decimal(22,2)"))

    [counts] = judged.agg(
        F.count("*").alias("rows"),
        F.count_if(sound).alias("accepted"),
        F.count_if(F.size(F.array_except(codes, F.array(*retryable).cast("array<string>"))) > 0).alias("faulty"),
        F.count(amount).alias("amounts"),
        total(F.when(sound, amount)).alias("amount_accepted"),
        total(F.when(~sound, amount)).alias("amount_rejected"),
        F.struct(*(F.count_if(F.array_contains(codes, code)).alias(code) for code in dataset.reasons)).alias("hits"),
    ).collect()
    return Counts(**counts.asDict() | {"hits": counts["hits"].asDict()})


def withheld(rejected: DataFrame, dataset: Dataset) -> DataFrame:
    """What the figures lack by each rejected row: its key, visit, day, department and amount as far as they can be
    read, and its codes. Nothing but the codes is read of a malformed row.
    """
    rows = rejected.withColumn("source", F.struct(*dataset.names)).transform(read_types, dataset)
    whole = F.col("_reject_reason") != "malformed_row"
    visit = next((name for name, parent in dataset.parents.items() if parent == "visits"), None)

    def known(name: str | None, kind: str) -> Expression:
        return F.when(whole, F.col(name) if name else F.lit(None)).cast(kind)

    return rows.select(
        F.lit(dataset.name).alias("dataset"),
        "_partition_date",
        known(dataset.key, "string").alias("row_key"),
        known(visit, "string").alias("visit_id"),
        known(dataset.day, "date").alias("row_day"),
        known("department" if "department" in dataset.names else None, "string").alias("department"),
        known(dataset.amount, "decimal(12,2)").alias("amount"),
        F.col("_reject_reason").alias("reasons"),
    )


def split_fields(records: DataFrame, dataset: Dataset, header: Sequence[str]) -> DataFrame:
    """Each record's fields by RFC 4180 as struct `source`, and whether the record is `malformed`.

    Closing a record with one more quote changes its last field, unless a quote was open: then it only closes it.
    """
    fields = ", ".join(f"_{number} string" for number in range(len(header))) + ", _bad string"
    last = f"_{len(header) - 1}"
    closed = F.from_csv(F.concat("_raw", F.lit('"')), F.lit(fields), CSV)[last]
    malformed = (
        F.col("fields._bad").isNotNull()
        | F.contains("_raw", F.lit("\0"))
        | F.when(F.contains("_raw", F.lit('"')), closed.eqNullSafe(F.col(f"fields.{last}"))).otherwise(False)
    )
    places = {name: header.index(name) for name in dataset.names}
    return records.withColumn("fields", F.from_csv("_raw", F.lit(fields), CSV)).select(
        "_raw",
        malformed.alias("malformed"),
        F.struct(*(F.col(f"fields._{place}").alias(name) for name, place in places.items())).alias("source"),
    )


def read_types(rows: DataFrame, dataset: Dataset) -> DataFrame:
    """Adds the trimmed texts as struct `text` (blank is null) and a typed column for each of them."""
    trimmed = [F.nullif(F.btrim(f"source.{name}", F.lit(WHITE_SPACE)), F.lit("")).alias(name) for name in dataset.names]
    return rows.withColumn("text", F.struct(*trimmed)).withColumns({c.name: read(c) for c in dataset.columns})


def read(column: Column) -> Expression:
    """The value of one column's text; null where it is blank, unreadable or not a listed value."""
    text = F.col(f"text.{column.name}")
    if column.one_of:
        return F.coalesce(*(F.when(F.lower(text) == value.lower(), F.lit(value)) for value in column.one_of))
    if column.type == "date":
        return F.when(text.rlike(DATE), text.try_cast("date"))
    if column.type == "timestamp":
        with_seconds = F.regexp_replace(text, r"^(.{16})(?!:)", "$1:00")
        value = with_seconds.try_cast("timestamp")
        in_range = value.between("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999")
        return F.when(text.rlike(TIMESTAMP) & in_range, value)
    if column.type == "decimal":
        # Half up looks at the third decimal and no further, so that the length of the text costs nothing.
        return F.when(
            text.rlike(DECIMAL), F.regexp_extract(text, r"^[^.]+(\.[0-9]{1,3})?", 0).try_cast("decimal(12,2)")
        )
    return text


def find_parent(rows: DataFrame, name: str, keys: DataFrame) -> DataFrame:
    """Adds `known_<name>`: true where the row's foreign key is among `keys`; multiplies no row."""
    known = keys.distinct().toDF(f"key_{name}").withColumn(f"known_{name}", F.lit(True))
    return rows.join(known, on=F.col(f"text.{name}") == F.col(f"key_{name}"), how="left").drop(f"key_{name}")


def give_reasons(rows: DataFrame, dataset: Dataset) -> DataFrame:
    """Adds `_reject_reasons`: every broken rule in declared order; a malformed record has that one alone."""
    broken = [F.when(condition, reason(dataset, code, column)) for code, column, condition in rules(dataset)]
    malformed = F.array(reason(dataset, "malformed_row", None))
    return rows.select(
        "_raw",
        "source",
        *dataset.names,
        F.when(F.col("malformed"), malformed).otherwise(F.array_compact(F.array(*broken))).alias("_reject_reasons"),
    )


def rules(dataset: Dataset) -> Iterable[tuple[str, str | None, Expression]]:
    """(code, column to blame, condition under which the rule is broken) for every rule but duplicates."""
    for column in dataset.columns:
        text, value = F.col(f"text.{column.name}"), F.col(column.name)
        unread = text.isNotNull() & value.isNull()
        if column.required:
            yield f"missing_{column.name}", column.name, text.isNull()
        if column.type != "text":
            yield f"unreadable_{column.name}", column.name, unread
        if column.one_of:
            yield f"unknown_{column.name}", column.name, unread
        if column.references:
            yield f"orphan_{column.name}", column.name, text.isNotNull() & F.col(f"known_{column.name}").isNull()
    for rule in dataset.rules:
        readable = reduce(and_, (F.col(f"text.{name}").isNull() | F.col(name).isNotNull() for name in rule.columns))
        yield rule.reason, rule.column, readable & ~F.expr(rule.holds)


def reason(dataset: Dataset, code: str, column: str | None) -> Expression:
    return F.struct(
        F.lit(code).alias("code"),
        F.lit(column).cast("string").alias("column"),
        F.lit(dataset.reasons[code]).alias("message"),
    )


def mark_duplicates(rows: DataFrame, dataset: Dataset) -> DataFrame:
    """Among sound rows of one key the one with the greatest content stands, whatever order they came in.

    Content is compared column by column, a value above a null: the discharged stay above the open one.
    """
    sound = F.size("_reject_reasons") == 0
    content = [F.desc_nulls_last(name) for name in dataset.names[1:]]
    same_key = Window.partitionBy(sound, dataset.key).orderBy(*content, F.desc("_raw"))
    duplicate = F.array(reason(dataset, f"duplicate_{dataset.key}", dataset.key))
    reasons = F.when(sound & (F.col("place") > 1), duplicate).otherwise(F.col("_reject_reasons"))
    return (
        rows.withColumn("place", F.row_number().over(same_key))
        .withColumn("_reject_reasons", reasons)
        .withColumns({name: F.when(~sound, F.col(name)) for name in ("_raw", "source")})  # sound rows drop theirs
        .drop("place")
    )
