"""Converts a source's records into rows of our datasets, in the notation of our files.

All functions are pure (DataFrame -> DataFrame), without UDFs: the executors need none of our Python. The rules are
those of DESIGN section 8.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from operator import add, or_
from typing import Any, NamedTuple

from pyspark.sql import Column as Expression
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import patterns, spark_csv, validation
from jobs.dataset import WHITE_SPACE, Column, Dataset
from jobs.patterns import Pattern
from jobs.sources import Cell, Source

# A separator and a quote that occur in no file that is read line by line (exports.ODD), so that a line is one field.
WHOLE_LINES = {"sep": "\x01", "quote": "\x02"}
LOCAL = "timestamp"  # in a session in UTC: what a clock on the wall shows
OFFSET = patterns.OFFSET
# Appended to a text that is not in the source's notation, but could be read in ours, with another meaning.
NOT_CONVERTED = " (not in the source's notation)"
# The types to which SQL's numbers are cast: such values are in no notation.
TYPED = {"decimal": "decimal(18,2)", "double": "decimal(18,2)", "float": "decimal(18,2)"}
LATER = ("30 minutes", "1 hour", "2 hours")  # the times by which clocks are put back
READ = ("_file", "_raw", "_malformed")


class Files(NamedTuple):
    """Describes files that one scan reads: they share a header, and whether their records may span lines."""

    paths: tuple[str, ...]
    header: tuple[str, ...]
    spans: bool
    widest: int  # the number of fields in the widest record of these files


def prepare(spark: SparkSession) -> None:
    """Sets the options that a session needs to read and convert a source's files."""
    spark.conf.set("spark.sql.legacy.javaCharsets", "true")  # else Spark reads Unicode, ASCII and Latin 1 only
    # Before a join, Spark would derive constraints on every column in terms of all columns that it is made from.
    spark.conf.set("spark.sql.constraintPropagation.enabled", "false")


def read_records(spark: SparkSession, files: Files, source: Source) -> DataFrame:
    """Reads one row per record, without headers: its text in `_raw`, without the line end, and its `_file`.

    All cores read the lines. If records span lines, Spark's CSV reader finds where each ends
    (spark_csv.spanning_records).
    """
    options: dict[str, Any] = {"encoding": source.charset, "header": True}
    if files.spans:
        columns = len(files.header)
        rows, raw = spark_csv.spanning_records(spark, files.paths, columns, files.widest, source.dialect, **options)
    else:
        rows = spark.read.csv([*files.paths], schema="_raw string", lineSep="\n", **WHOLE_LINES, **options)
        raw = F.col("_raw")
    rows = rows.select(F.col("_metadata.file_name").alias("_file"), raw.alias("_raw"))
    without_return = F.expr(r"if(endswith(_raw, '\r'), trim(trailing '\r' from _raw), _raw)")
    return rows.select("_file", without_return.alias("_raw")).filter(F.btrim("_raw", F.lit(WHITE_SPACE)) != "")


def read_fields(spark: SparkSession, files: Sequence[Files], names: Sequence[str], source: Source) -> DataFrame:
    """Reads one row per record of files whose headers may differ: READ, and the fields of the columns `names`.

    The fields have no quotes, and are in columns named by `place`. Each field is a column and not an item of an array:
    Spark would repeat the field's whole expression wherever such an item is used, and the plan would fill the driver's
    memory.
    """

    def read(part: Files) -> DataFrame:
        records = read_records(spark, part, source).transform(validation.split_fields, part.header, source.dialect)
        malformed = validation.is_malformed(part.header, source.dialect).alias("_malformed")
        fields = (validation.source(name, part.header, source.dialect) for name in names)
        return records.select("_file", "_raw", malformed, *(f.alias(place(at)) for at, f in enumerate(fields)))

    return validation.union([read(part) for part in files]).transform(cut)


def cut(rows: DataFrame) -> DataFrame:
    """Returns the same rows behind a barrier through which Spark pushes no filter.

    A pushed filter repeats a column's whole expression for each use, and such plans fill the driver's memory.
    """
    return rows.withColumn("_at", F.monotonically_increasing_id()).filter("_at >= 0").drop("_at")


def place(number: int) -> str:
    """Returns the name of our column for one of the source's columns, whose own name may be anything."""
    return f"_field_{number}"


def take_cells(
    records: DataFrame, names: Sequence[str], cells: Mapping[str, Cell], dataset: Dataset, source: Source
) -> DataFrame:
    """Returns one row of the dataset per record: READ, and each column's text unchanged, in the source's notation.

    `names` are the source's columns in `records`. Several columns that make one of ours are joined by a blank.
    """

    def field(name: str) -> Expression:
        return F.col(place(names.index(name)))

    def text(column: Column) -> Expression:
        cell = cells.get(column.name, Cell(value=""))
        if cell.value is not None:
            return F.lit(cell.value)
        if len(cell.names) == 1:
            return field(cell.names[0])
        return F.concat_ws(" ", *(known(validation.trim(field(name)), source) for name in cell.names))

    return records.select(*READ, *(text(column).alias(column.name) for column in dataset.columns))


def known(text: Expression, source: Source) -> Expression:
    """Returns a trimmed text, or null if the source declares it among its `nulls`."""
    return F.when(~text.isin(*source.nulls), text) if source.nulls else text


def take_result(result: DataFrame, dataset: Dataset) -> DataFrame:
    """Returns the result of SQL with our columns, all of them as text; columns that the result lacks are null."""
    types = dict(result.dtypes)

    def text(name: str) -> Expression:
        kind = TYPED.get(types.get(name, "").partition("(")[0])
        column = F.col(f"`{name}`") if name in types else F.lit(None)
        return (column.cast(kind) if kind else column).cast("string").alias(name)

    nothing = [F.lit("").alias("_file"), F.lit("").alias("_raw"), F.lit(False).alias("_malformed")]
    return result.select(*nothing, *map(text, dataset.names))


def convert(
    rows: DataFrame, dataset: Dataset, source: Source, cells: Mapping[str, Cell], typed: Collection[str] = ()
) -> DataFrame:
    """Converts each column's text to our notation; adds `_doubled`, the number of local times that occurred twice.

    A text that cannot be converted is passed on unchanged. `typed` are columns that SQL returned with a type. They are
    in our notation already, as are columns that a `value` of the declaration fills.
    """
    ours = {name for name, cell in cells.items() if cell.value is not None} | {*typed}
    kinds = {c.name: "text" if c.name in ours else kind(c, cells.get(c.name)) for c in dataset.columns}
    # Step by step, so that no expression is computed or planned again for each use.
    rows = rows.withColumns({f"_trim_{name}": validation.trim(F.col(name)) for name in dataset.names})
    texts = {f"_text_{name}": known(F.col(f"_trim_{name}"), source) for name in dataset.names}
    codes = {name: decode(F.col(f"_trim_{name}"), cell.values) for name, cell in cells.items() if cell.values}
    rows = rows.withColumns(texts | {f"_code_{name}": code for name, code in codes.items()})
    times = [name for name, of in kinds.items() if of == "timestamp"]
    form = patterns.read_pattern(source.timestamps, with_time=True)
    local = {f"_local_{name}": as_iso(F.col(f"_text_{name}"), form).try_cast(LOCAL) for name in times}
    utc = {f"_utc_{name}": F.to_utc_timestamp(f"_local_{name}", source.time_zone) for name in times}
    rows = rows.withColumns(local).withColumns(utc) if times else rows

    def result(name: str) -> Expression:
        if name in ours:
            return F.col(name)
        text, came = F.col(f"_text_{name}"), F.col(name)
        value = F.when(text.isNotNull(), CONVERSIONS[kinds[name]](name, text, came, source))
        return (F.coalesce(F.col(f"_code_{name}"), value) if name in codes else value).alias(name)

    doubled = reduce(add, (came_twice(name, source).cast("int") for name in times), F.lit(0))
    return rows.select(*READ, *map(result, dataset.names), doubled.alias("_doubled"))


def kind(column: Column, cell: Cell | None) -> str:
    """Returns how a column's texts are converted: by its type, or as `day` if a date is taken from a timestamp."""
    return "day" if column.type == "date" and cell and cell.as_timestamp else column.type


def decode(text: Expression, values: Sequence[tuple[str, str]]) -> Expression:
    """Returns the value of a code; null for any other text. An empty code stands for a blank."""
    return F.coalesce(*(F.when(text == code if code else text.isNull(), F.lit(value)) for code, value in values))


def as_iso(text: Expression, pattern: Pattern) -> Expression:
    """Returns a text that fits a pattern as yyyy-MM-dd or yyyy-MM-ddTHH:mm:ss; null for any other text.

    Parts that the text leaves out become zeros.
    """
    iso = F.regexp_replace(text, pattern.regex, pattern.template)
    for gap, filled in (("T:", "T00:"), ("::", ":00:"), (":.", ":00.")) if "T" in pattern.template else ():
        iso = F.replace(iso, F.lit(gap), F.lit(filled))
    iso = F.regexp_replace(iso, r"[.]$", "")
    return F.when(
        text.rlike(pattern.regex), F.when(F.endswith(iso, F.lit(":")), F.concat(iso, F.lit("00"))).otherwise(iso)
    )


def to_date(name: str, text: Expression, came: Expression, source: Source) -> Expression:
    """Returns a date that is read by the pattern of dates; any other text unchanged."""
    iso = as_iso(text, patterns.read_pattern(source.dates, with_time=False))
    return F.when(iso.try_cast("date").isNotNull(), iso).otherwise(came)


def to_day(name: str, text: Expression, came: Expression, source: Source) -> Expression:
    """Returns the local date of a timestamp; any other text unchanged."""
    iso = as_iso(text, patterns.read_pattern(source.timestamps, with_time=True))
    return F.when(iso.try_cast(LOCAL).isNotNull(), F.substring(iso, 1, 10)).otherwise(came)


def to_decimal(name: str, text: Expression, came: Expression, source: Source) -> Expression:
    """Returns a decimal with a point; any other text unchanged.

    If the source's mark is a comma, a point may separate thousands. A text with a point that would be a decimal in our
    notation is then marked (NOT_CONVERTED).
    """
    if source.decimal_mark == ".":
        return came
    mark = re.escape(source.decimal_mark)
    is_decimal = text.rlike(validation.DECIMAL.replace(r"\.", mark))
    pointed = F.replace(text, F.lit(source.decimal_mark), F.lit("."))
    mistakable = F.contains(text, F.lit(".")) & text.rlike(validation.DECIMAL)
    return F.when(is_decimal, pointed).when(mistakable, F.concat(came, F.lit(NOT_CONVERTED))).otherwise(came)


def to_timestamp(name: str, text: Expression, came: Expression, source: Source) -> Expression:
    """Returns a timestamp in UTC; any other text, and a local time that the clock skipped or of year 0, unchanged.

    An offset in the text is used as it is. A text without an offset that is not converted but fits our notation would
    be read as UTC: it is marked (NOT_CONVERTED), unless the source's time zone is UTC.
    """
    local, utc = F.col(f"_local_{name}"), F.col(f"_utc_{name}")
    is_in_years = local.between(*validation.YEARS) & utc.between(*validation.YEARS)
    is_real = (F.from_utc_timestamp(utc, source.time_zone) == local) & is_in_years
    bare = F.regexp_replace(text, OFFSET, "")
    iso = as_iso(bare, patterns.read_pattern(source.timestamps, with_time=True))
    with_offset = F.when(iso.try_cast(LOCAL).isNotNull(), F.concat(iso, F.regexp_extract(text, OFFSET, 1)))
    mistakable = text.rlike(validation.TIMESTAMP) & F.lit(source.time_zone != "UTC")
    return (
        F.when(is_real, utc.cast("string"))
        .when(text.rlike(OFFSET) & (local.isNull() | ~is_real), F.coalesce(with_offset, came))
        .when(mistakable, F.concat(came, F.lit(NOT_CONVERTED)))
        .otherwise(came)
    )


def came_twice(name: str, source: Source) -> Expression:
    """Tells whether a local time occurred twice because the clock was put back; the first of the two is taken."""
    local, utc = F.col(f"_local_{name}"), F.col(f"_utc_{name}")
    if source.time_zone == "UTC":
        return F.lit(False)
    again = (F.from_utc_timestamp(utc + F.expr(f"interval {later}"), source.time_zone) == local for later in LATER)
    is_real = F.from_utc_timestamp(utc, source.time_zone) == local
    return F.coalesce(is_real & reduce(or_, again), F.lit(False))


CONVERSIONS: Mapping[str, Callable[[str, Expression, Expression, Source], Expression]] = {
    "text": lambda name, text, came, source: came,
    "date": to_date,
    "day": to_day,
    "decimal": to_decimal,
    "timestamp": to_timestamp,
}


def to_lines(rows: DataFrame, dataset: Dataset) -> DataFrame:
    """Writes each row as a record of our file into `value`; keeps `_file`, its own record in `_raw`, and `_doubled`.

    A malformed record remains malformed: its whole text becomes one field, which is a wrong number of fields.
    """
    fields = (F.coalesce(spark_csv.written(name), F.lit("")) for name in dataset.names)
    line, text = F.concat_ws(",", *fields), spark_csv.written("_raw")
    if len(dataset.names) == 1:  # in which a blank line is not a record, and a record of one field is complete
        line, text = F.when(line == "", F.lit('""')).otherwise(line), F.concat(text, F.lit(","))
    value = F.when(F.col("_malformed"), text).otherwise(line).alias("value")
    return rows.select("_file", "_raw", value, "_doubled")
