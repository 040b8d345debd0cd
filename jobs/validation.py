"""Sorts a file's records into accepted and rejected rows; a rejected row has every reason.

All functions are pure (DataFrame -> DataFrame), without UDFs: the executors need none of our Python. The rules are
those of DESIGN section 4.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import reduce
from operator import add, and_
from typing import NamedTuple

from pyspark.sql import Column as Expression
from pyspark.sql import DataFrame, Row, Window
from pyspark.sql import functions as F

from jobs import landing
from jobs.dataset import TYPES, WHITE_SPACE, Column, Dataset, is_retryable
from jobs.dialect import RFC_4180, Dialect

# Written digit by digit, and the year 0 is excluded by comparing texts: loops and lookaheads are slower in Java.
TWO = "[0-9][0-9]"
DATE = f"^{TWO}{TWO}-{TWO}-{TWO}$"
TIMESTAMP = rf"^{TWO}{TWO}-{TWO}-{TWO}[T ]{TWO}:{TWO}(?::{TWO}(?:\.[0-9]{{1,6}})?)?(?:Z|[+-]{TWO}:{TWO})?$"
FIRST_YEAR = "0001"
YEARS = "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"  # an offset may move a timestamp out of them
DECIMAL = r"^[+-]?([0-9]+(\.[0-9]+)?|\.[0-9]+)$"

Keep = Callable[[DataFrame], DataFrame]


class Verdict(NamedTuple):
    """Holds validated rows: every record is in exactly one of the two frames."""

    accepted: DataFrame
    rejected: DataFrame


class Counts(NamedTuple):
    """Holds how many rows of one partition were accepted and rejected, and the sums of their readable amounts."""

    rows: int
    accepted: int
    faulty: int  # rejected rows with a code that is not retryable
    amounts: int  # rows whose amount could be read
    amount_accepted: Decimal
    amount_rejected: Decimal
    hits: dict[str, int]  # per reason code, in declared order, zero hits included
    differing: int  # keys whose sound rows differ in more than their text
    keys: tuple[int, int, int] = (0, 0, 0)  # checksums of the accepted rows, if they were asked for
    content: tuple[int, int, int] = (0, 0, 0)


def validate(
    records: DataFrame,
    dataset: Dataset,
    headers: Mapping[date, Sequence[str]],
    parents: Mapping[str, DataFrame],
    keep: Keep = lambda rows: rows,
    keep_keys: Keep = lambda rows: rows,
) -> DataFrame:
    """Returns a row per record: its partition and text, its typed values, and its codes in `_reject_reason`.

    `records` has the columns `_partition_date date` and `_raw string`. `_versions_differ` is true for one row of each
    key of a partition whose sound rows differ in content.

    `headers` names the fields of each partition's file in their order; the declared columns among them are the same in
    all. A column that they lack was declared after the files had arrived: it is null, and no rule applies to it.
    `parents` holds, by foreign key column, a DataFrame of the accepted keys and their partitions, in this order. `keep`
    persists the rows, which are read more than once, and `keep_keys` the few keys and codes that are joined to them.

    The last two parameters are the places at which the caller may materialise rows.
    """

    def texts(rows: DataFrame, header: Sequence[str]) -> DataFrame:
        return rows.transform(split_fields, header).transform(read_texts, sent, header)

    sent = landing.as_of(dataset, next(iter(headers.values())))
    rows = keep(by_header(records, headers, texts).transform(read_types, sent).transform(give_codes, sent))
    parents = {name: keys for name, keys in parents.items() if name in sent.parents}
    validated = rows.transform(add_codes, keep_keys(compare(rows, sent, parents, keep_keys)), sent)
    later = {c.name: F.lit(None).cast(TYPES[c.type]) for c in dataset.columns if c.name not in sent.names}
    return validated.withColumns(later) if later else validated


def by_header(
    rows: DataFrame, headers: Mapping[date, Sequence[str]], read: Callable[[DataFrame, Sequence[str]], DataFrame]
) -> DataFrame:
    """Applies `read` to the rows of each header's partitions, with that header; returns the union of the results."""
    days: dict[tuple[str, ...], list[date]] = {}
    for day, header in headers.items():
        days.setdefault(tuple(header), []).append(day)
    if len(days) == 1:
        return read(rows, *days)
    in_days = ((rows.filter(F.col("_partition_date").isin(its)), header) for header, its in days.items())
    return union([read(*part) for part in in_days])


def union(frames: Sequence[DataFrame]) -> DataFrame:
    """Returns the union of one or more frames with the same columns.

    Nested as a balanced tree: Spark Connect cannot send a plan that is nested more than a hundred levels deep.
    """
    if not frames[1:]:
        return frames[0]
    middle = len(frames) // 2
    return union(frames[:middle]).unionAll(union(frames[middle:]))


def split(validated: DataFrame, dataset: Dataset, headers: Mapping[date, Sequence[str]]) -> Verdict:
    """Splits validated rows into what silver stores: typed accepted rows, and texts of rejected rows with reasons.

    `headers` names the fields of each partition's file, as in `validate`.
    """

    def texts(rows: DataFrame, header: Sequence[str]) -> DataFrame:
        sent = (F.nullif(source(name, header), F.lit("")).alias(name) for name in dataset.names)
        return rows.transform(split_fields, header).select(*sent, *kept)

    codes, kept = F.col("_reject_reason"), ("_partition_date", "_raw", "_reject_reason", "_record_hash")
    declared = F.array(*(reason(dataset, code) for code in dataset.reasons))
    validated = validated.withColumn("_record_hash", record_hash(headers))
    rejected = validated.filter(codes != "").select(*kept)
    return Verdict(
        accepted=validated.filter(codes == "").select(*dataset.names, "_record_hash", "_partition_date"),
        rejected=by_header(rejected, headers, texts).select(
            *dataset.names,
            "_raw",
            "_reject_reason",
            F.filter(declared, lambda each: has_code(each["code"])).alias("_reject_reasons"),
            "_record_hash",
            "_partition_date",
        ),
    )


def record_hash(headers: Mapping[date, Sequence[str]]) -> Expression:
    """Returns a 64-bit hash of a record's text (`_raw`) and of its file's header, by which the text is read.

    `headers` names the fields of each partition's file.
    """
    days: dict[str, list[date]] = {}
    for day, header in headers.items():
        days.setdefault(",".join(header), []).append(day)
    texts = [F.when(F.col("_partition_date").isin(its), F.lit(header)) for header, its in days.items()]
    return F.xxhash64(F.coalesce(*texts) if texts[1:] else F.lit(*days), "_raw")


def count(validated: DataFrame, dataset: Dataset, days: Iterable[date], salt: str | None = None) -> dict[date, Counts]:
    """Counts the rows of each partition of `days`, and their money, in one pass.

    Given a salt, adds checksums of the accepted rows. Rows are grouped by their combination of codes, of which there
    are few, and not counted once for each code.
    """
    amount = (F.col(dataset.amount) if dataset.amount else F.lit(None)).cast("decimal(12,2)")
    groups = (
        validated.groupBy(F.col("_partition_date").alias("day"), F.col("_reject_reason").alias("codes"))
        .agg(
            F.count("*").alias("rows"),
            F.count(amount).alias("amounts"),
            F.coalesce(F.sum(amount), F.lit(0).cast("decimal(22,2)")).alias("amount"),
            F.count_if("_versions_differ").alias("differing"),
            *(checksums(dataset, salt) if salt else ()),
        )
        .collect()
    )
    return {day: add_up(dataset, [group for group in groups if group.day == day]) for day in days}


def add_up(dataset: Dataset, groups: Sequence[Row]) -> Counts:
    """Adds up the groups of one partition's rows; each group has one combination of codes.

    No groups mean a file of no rows.
    """
    sound, rejected = [group for group in groups if not group.codes], [group for group in groups if group.codes]
    hits = Counter[str]()
    for group in rejected:
        hits.update(dict.fromkeys(group.codes.split(";"), group.rows))
    return Counts(
        rows=sum(group.rows for group in groups),
        accepted=sum(group.rows for group in sound),
        faulty=sum(group.rows for group in rejected if not all(map(is_retryable, group.codes.split(";")))),
        amounts=sum(group.amounts for group in groups),
        amount_accepted=sum((group.amount for group in sound), Decimal()),
        amount_rejected=sum((group.amount for group in rejected), Decimal()),
        hits={code: hits[code] for code in dataset.reasons},
        differing=sum(group.differing for group in groups),
        **{name: group[name] for group in sound for name in ("keys", "content") if name in group},
    )


def checksums(dataset: Dataset, salt: str) -> list[Expression]:
    """Returns the expressions `keys` and `content`: checksums of the keys and of all values of accepted rows."""
    return [checksum([dataset.key], salt).alias("keys"), checksum(dataset.names, salt).alias("content")]


def checksum(names: Sequence[str], salt: str) -> Expression:
    """Returns the number of rows and two sums, as a struct; the order of the rows does not change them.

    The sums add up the halves of a 64-bit hash of each row and cannot overflow. Nobody can make other rows with the
    same sums without the `salt`. Spark's hash ignores nulls, so which values are null is hashed too.
    """
    hashed = F.xxhash64(F.lit(salt), *names, *map(F.isnull, names))
    halves = hashed.bitwiseAND(F.lit(0xFFFFFFFF)), F.shiftrightunsigned(hashed, 32)
    return F.struct(F.count("*"), *(F.coalesce(F.sum(half), F.lit(0)) for half in halves))


def withheld(rejected: DataFrame, dataset: Dataset) -> DataFrame:
    """Returns what the marts lack by each rejected row: its key, visit, day, department, amount and codes.

    Values that cannot be read are null. Of a malformed row only the codes are read.
    """
    rows = read_again(rejected, dataset)
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


def read_again(rejected: DataFrame, dataset: Dataset) -> DataFrame:
    """Returns silver's rejected rows with typed values, read from their texts as when a file is validated."""
    texts = {name: f"text_{name}" for name in dataset.names}
    trimmed = {text: trim(F.col(text)) for text in texts.values()}
    return rejected.withColumnsRenamed(texts).withColumns(trimmed).transform(read_types, dataset)


def split_fields(records: DataFrame, header: Sequence[str], dialect: Dialect = RFC_4180) -> DataFrame:
    """Adds each record's `fields` by RFC 4180, with their quotes.

    If a quote is open, the fields found are not the whole record. A complete record never has more separators than
    LONGEST_RECORD. An open record with more is not split, to save memory: its `fields` are null.
    """
    mark, separator = F.lit(dialect.separator), re.escape(dialect.separator)
    few = F.length("_raw") - F.length(F.replace("_raw", mark, F.lit(""))) < landing.LONGEST_RECORD
    unquoted = F.split("_raw", separator, len(header) + 1)  # nearly all records, and far cheaper
    if not dialect.quote:
        return records.withColumn("fields", unquoted)
    # A field that ends in a separator; one that begins with a quote goes on behind the closing quote. No loop
    # backtracks.
    quote = re.escape(dialect.quote)
    field = rf"\G((?:{quote}(?:[^{quote}]++|{quote}{quote})*+{quote}|(?!{quote}))[^{separator}]*+){separator}"
    quoted = F.regexp_extract_all(F.concat("_raw", mark), F.lit(field), F.lit(1))
    return records.withColumn("fields", F.when(~has_quotes(dialect), unquoted).when(few, quoted))


def has_quotes(dialect: Dialect = RFC_4180) -> Expression:
    """Tells whether a record contains a quote."""
    return F.contains("_raw", F.lit(dialect.quote)) if dialect.quote else F.lit(False)


def is_malformed(header: Sequence[str], dialect: Dialect = RFC_4180) -> Expression:
    """Tells whether a record's `fields` do not match its header, a quote is left open, or it has a NUL character."""
    whole = F.array_join("fields", dialect.separator) == F.col("_raw")
    sound = (F.size("fields") == len(header)) & (~has_quotes(dialect) | whole)
    return F.contains("_raw", F.lit("\0")) | ~F.coalesce(sound, F.lit(False))


def source(name: str, header: Sequence[str], dialect: Dialect = RFC_4180) -> Expression:
    """Returns a column's field as it was sent, without the quotes around it; null if the file has no such column.

    A field that goes on behind its closing quote, with more than white space, is returned with its quotes.
    """
    if name not in header:
        return F.lit(None).cast("string")
    field = F.get("fields", F.lit(header.index(name)))
    if not dialect.quote:
        return field
    return F.when(has_quotes(dialect), without_quotes(field, dialect.quote)).otherwise(field)


def read_texts(records: DataFrame, dataset: Dataset, header: Sequence[str]) -> DataFrame:
    """Returns each record with whether it is `malformed`, and each column's trimmed text as `text_<column>`.

    A blank text is null. Goes from `fields` to texts in one step, because each step copies all texts of a row.
    """
    texts = (trim(source(name, header)).alias(f"text_{name}") for name in dataset.names)
    return records.select("_partition_date", "_raw", is_malformed(header).alias("malformed"), *texts)


def without_quotes(field: Expression, mark: str = RFC_4180.quote) -> Expression:
    """Returns the text between the quotes of a field that ends with them; any other field unchanged."""
    bare, quote = F.replace(field, F.lit(mark), F.lit("")), F.lit(mark)
    in_quotes = r"^{0}((?:[^{0}]++|{0}{0})*+){0}[\x00-\x20]*+\z".format(re.escape(mark))
    within = F.replace(F.regexp_extract(field, in_quotes, 1), F.lit(mark * 2), quote)
    # Nearly all fields have no quote, or just those two; a regular expression is far slower.
    plain = F.when(field == bare, field).when(field == F.concat(quote, bare, quote), bare)
    return plain.when(field.rlike(in_quotes), within).otherwise(field)


def read_types(rows: DataFrame, dataset: Dataset) -> DataFrame:
    """Adds the typed value of each column's text."""
    return rows.select("*", *(read(column).alias(column.name) for column in dataset.columns))


def trim(text: Expression) -> Expression:
    """Returns a text without white space around it; null if nothing is left."""
    # btrim looks up every character in WHITE_SPACE. The first and last characters of most texts, which are ASCII
    # characters without white space, show that they need no trimming.
    plain = text.between("!", "~") & F.substring(text, -1, 1).between("!", "~")
    return F.when(plain, text).otherwise(F.nullif(F.btrim(text, F.lit(WHITE_SPACE)), F.lit("")))


def read(column: Column) -> Expression:
    """Returns the typed value of one column's text; null if it is blank, unreadable or not a listed value."""
    text = F.col(f"text_{column.name}")
    if column.one_of:
        as_spelt = (F.when(text == value, F.lit(value)) for value in column.one_of)
        any_case = (F.when(F.lower(text) == value.lower(), F.lit(value)) for value in column.one_of)
        return F.coalesce(*as_spelt, *any_case)
    if column.type == "date":
        return F.when((text >= FIRST_YEAR) & text.rlike(DATE), text.try_cast("date"))
    if column.type == "timestamp":
        has_seconds = F.substring(text, 17, 1) == ":"
        with_seconds = F.when(has_seconds, text).otherwise(F.regexp_replace(text, r"^(.{16})(?!:)", "$1:00"))
        value = F.when((text >= FIRST_YEAR) & text.rlike(TIMESTAMP), with_seconds.try_cast("timestamp"))
        return F.when(value.between(*YEARS), value)
    if column.type == "decimal":
        # Rounding half up needs no more than the third decimal, so that long texts cost no time.
        needed = F.regexp_extract(text, r"^[^.]*(\.[0-9]{1,3})?", 0)
        has_two = F.substring(text, -3, 1) == "."
        return F.when(text.rlike(DECIMAL), F.when(has_two, text).otherwise(needed).try_cast("decimal(12,2)"))
    return text


def give_codes(rows: DataFrame, dataset: Dataset) -> DataFrame:
    """Numbers the rows and adds the codes that a record earns by itself, in declared order, joined by `;`.

    A malformed record has that code alone, and no values. Spark always splits a file in the same way, so that a row
    that is read again gets the same number.
    """
    broken = F.concat_ws(";", *(F.when(condition, code) for code, condition in rules(dataset)))
    malformed = F.col("malformed")
    return rows.select(
        F.monotonically_increasing_id().alias("_row"),
        "_partition_date",
        "_raw",
        *(F.when(~malformed, F.col(name)).alias(name) for name in dataset.names),
        F.when(malformed, "malformed_row").otherwise(broken).alias("_reject_reason"),
    )


def rules(dataset: Dataset) -> Iterable[tuple[str, Expression]]:
    """Yields (code, condition under which a row earns it) for every code that a row earns by itself."""
    for column in dataset.columns:
        text, value = F.col(f"text_{column.name}"), F.col(column.name)
        unread = text.isNotNull() & value.isNull()
        if column.required:
            yield f"missing_{column.name}", text.isNull()
        if column.type != "text":
            yield f"unreadable_{column.name}", unread
        if column.one_of:
            yield f"unknown_{column.name}", unread
    for rule in dataset.rules:
        readable = reduce(and_, (F.col(f"text_{name}").isNull() | F.col(name).isNotNull() for name in rule.columns))
        yield rule.reason, readable & ~F.expr(rule.holds)


def compare(rows: DataFrame, dataset: Dataset, parents: Mapping[str, DataFrame], keep: Keep) -> DataFrame:
    """Returns (_row, codes, _versions_differ) of orphans, and of duplicates among the sound rows of one partition.

    These are the codes that a row earns only by comparison with others. Of the sound rows of a key, the first by
    `precedence` is accepted, whatever their order in the file. One of the others is marked if their content differs.
    Whole rows are sorted only if their key occurs twice.
    """
    sound, found = rows.filter(F.col("_reject_reason") == ""), []
    for name, keys in parents.items():
        wanted = rows.select("_row", name, "_partition_date").filter(F.col(name).isNotNull())
        in_time = F.col("day") <= F.date_add("_partition_date", dataset.orphan_days)
        is_there = (F.col(name) == F.col("known")) & in_time
        orphans = keep(wanted.join(keys.toDF("known", "day"), on=is_there, how="left_anti").select("_row"))
        found.append(orphans.select("_row", F.lit(f"orphan_{name}").alias("code"), F.lit(False).alias("differ")))
        sound = sound.join(orphans, on="_row", how="left_anti")
    one_file = ["_partition_date", dataset.key]
    twice = keep(sound.groupBy(*one_file).count().filter("count > 1").select(*one_file))
    of_key, content = Window.partitionBy(*one_file), F.struct(*dataset.names)
    versions = sound.join(twice, on=one_file, how="left_semi").select(
        "_row",
        F.row_number().over(of_key.orderBy(*precedence(dataset), F.desc("_raw"))).alias("place"),
        (~F.min(content).over(of_key).eqNullSafe(F.max(content).over(of_key))).alias("differ"),
    )
    duplicate = F.lit(f"duplicate_{dataset.key}").alias("code")
    marked = F.col("differ") & (F.col("place") == 2)
    found.append(versions.filter("place > 1").select("_row", duplicate, marked.alias("differ")))
    codes = F.concat_ws(";", F.collect_list("code")).alias("codes")
    return union(found).groupBy("_row").agg(codes, F.max("differ").alias("_versions_differ"))


def precedence(dataset: Dataset) -> list[Expression]:
    """Returns the order of a key's versions, of which the first is accepted.

    The version with the most known values comes first, then the furthest along, then the latest, then the greatest.
    """
    columns = dataset.columns[1:]
    return [
        F.desc(reduce(add, (is_known(column).cast("int") for column in columns), F.lit(0))),
        *(F.asc_nulls_last(rank(column)) for column in columns if column.ranks),
        *(F.desc_nulls_last(column.name) for column in columns if column.is_time),
        *(F.desc_nulls_last(column.name) for column in columns if not column.is_time),
    ]


def is_known(column: Column) -> Expression:
    """Tells whether a value is present and is not the one that means "not known"."""
    value = F.col(column.name)
    return F.coalesce(value != column.not_known, F.lit(False)) if column.not_known else value.isNotNull()


def rank(column: Column) -> Expression:
    """Returns the rank of a listed value; null for a null."""
    return F.coalesce(*(F.when(F.col(column.name) == value, place) for value, place in column.ranks.items()))


def add_codes(rows: DataFrame, others: DataFrame, dataset: Dataset) -> DataFrame:
    """Adds the codes of `others(_row, codes, _versions_differ)` to those of the rows, in declared order."""
    codes = F.concat_ws(";", F.nullif("_reject_reason", F.lit("")), "codes")
    in_order = F.concat_ws(";", *(F.when(has_code(F.lit(code), codes), code) for code in dataset.reasons))
    return (
        rows.join(others, on="_row", how="left")
        .withColumn("_reject_reason", F.when(F.col("codes").isNull(), F.col("_reject_reason")).otherwise(in_order))
        .drop("_row", "codes")
    )


def has_code(code: Expression, codes: Expression | str = "_reject_reason") -> Expression:
    """Tells whether a code is among codes joined by `;`."""
    return F.find_in_set(code, F.replace(codes, F.lit(";"), F.lit(","))) > 0


def reason(dataset: Dataset, code: str) -> Expression:
    """Returns a reason as silver stores it: code, column to blame (null if a rule uses several) and sentence."""
    return F.struct(
        F.lit(code).alias("code"),
        F.lit(dataset.blamed[code]).cast("string").alias("column"),
        F.lit(dataset.reasons[code]).alias("message"),
    )
