"""Converts a source's records into rows of our datasets, in the notation of our files.

All functions are pure (DataFrame -> DataFrame), without UDFs: the executors need none of our Python. The rules are
those of DESIGN section 8.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import reduce
from operator import add, or_
from typing import Any, NamedTuple

from pyspark.sql import Column as Expression
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import patterns, spark_csv, validation
from jobs.dataset import WHITE_SPACE, Column, Dataset
from jobs.patterns import Form, Pattern
from jobs.sources import Cell, Source

LOCAL = "timestamp"  # in a session in UTC: what a clock on the wall shows
OFFSET = patterns.OFFSET
# Appended to a text that is not in the source's notation, but could be read in ours, with another meaning.
NOT_CONVERTED = " (not in the source's notation)"
# The types to which SQL's numbers are cast: such values are in no notation.
TYPED = {"decimal": "decimal(18,2)", "double": "decimal(18,2)", "float": "decimal(18,2)"}
LATER = (30, 60, 120)  # minutes by which clocks are put back
READ = ("_file", "_raw", "_malformed")  # `_malformed` is the text of a malformed record, and null for others


class Files(NamedTuple):
    """Describes files that one scan reads: they have one header, and are alike in `spans` and `quotes`."""

    paths: tuple[str, ...]
    heading: str  # the text of the header, without line end
    header: tuple[str, ...]
    spans: bool  # not to be read by lines (exports.RawFile)
    widest: int  # the number of fields in the widest record of these files
    quotes: bool = True  # a record may have a quote


def prepare(spark: SparkSession) -> None:
    """Sets the options that a session needs to read and convert a source's files."""
    spark.conf.set("spark.sql.legacy.javaCharsets", "true")  # else Spark reads Unicode, ASCII and Latin 1 only
    # Bytes that are not of the declared encoding have been refused (exports.read); Java may lack one that Python has.
    spark.conf.set("spark.sql.legacy.codingErrorAction", "true")
    # Before a join, Spark would derive constraints on every column in terms of all columns that it is made from.
    spark.conf.set("spark.sql.constraintPropagation.enabled", "false")


def read_records(spark: SparkSession, files: Files, source: Source, named: bool = True) -> DataFrame:
    """Reads one row per record, blank lines included: its text in `_raw`, without the line end, and its `_file`.

    Rows that need not be `named` have an empty `_file`: for its name alone, Spark adds all it knows of a file to each
    row.

    All cores read the lines; headers are among the rows. If records span lines, Spark's CSV reader finds where each
    ends, and leaves out the headers (spark_csv.spanning_records). It does not read lines, because it ends each of them
    by an exception, which took half of the CPU.
    """
    file = F.col("_metadata.file_name") if named else F.lit("")
    if files.spans:
        options: dict[str, Any] = {"encoding": source.charset, "header": True}
        columns = len(files.header)
        rows, raw = spark_csv.spanning_records(spark, files.paths, columns, files.widest, source.dialect, **options)
        rows = rows.select(file.alias("_file"), raw.alias("_raw"))
        without_return = F.expr(r"if(endswith(_raw, '\r'), trim(trailing '\r' from _raw), _raw)")
        return rows.select("_file", without_return.alias("_raw"))
    rows = spark.read.text([*files.paths])  # skips UTF-8's mark, takes a return away with the line end, decodes nothing
    raw = F.col("value")
    if source.charset != "UTF-8":
        raw = F.decode(raw.cast("binary"), source.charset)
    return rows.select(file.alias("_file"), raw.alias("_raw"))


def read_fields(
    spark: SparkSession, files: Sequence[Files], names: Sequence[str], source: Source, named: bool = True
) -> DataFrame:
    """Reads one row per record of files whose headers may differ: READ, and the fields of the columns `names`.

    Blank lines and headers are left out. The fields have no quotes, and are in columns named by `place`. Each field is
    a column and not an item of an array: Spark would repeat the field's whole expression wherever such an item is used,
    and the plan would fill the driver's memory.
    """

    def read(part: Files) -> DataFrame:
        form = source.dialect if part.quotes else source.dialect._replace(quote="")
        records = read_records(spark, part, source, named).transform(validation.split_fields, part.header, form)
        malformed = F.when(validation.is_malformed(part.header, form), F.col("_raw")).alias("_malformed")
        fields = (validation.source(name, part.header, form) for name in names)
        rows = records.select("_file", "_raw", malformed, *(field.alias(place(at)) for at, field in enumerate(fields)))
        is_record = F.col("_raw").between("!", "~") | (F.btrim("_raw", F.lit(WHITE_SPACE)) != "")
        return rows.transform(cut).filter(is_record if part.spans else is_record & (F.col("_raw") != part.heading))

    return validation.union([read(part) for part in files])


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

    nothing = [F.lit("").alias("_file"), F.lit("").alias("_raw"), F.lit(None).cast("string").alias("_malformed")]
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
    times = [name for name, of in kinds.items() if of == "timestamp"]

    def texts(name: str) -> Iterable[Expression]:
        trimmed, came = validation.trim(F.col(name)), F.col(name)
        text, codes = known(trimmed, source), cells[name].values if name in cells else ()
        code = decode(trimmed, codes) if codes else F.lit(None)
        if name in ours:
            yield came
        elif kinds[name] == "text":
            yield F.coalesce(code, F.when(text.isNotNull(), came)).alias(name)
        else:
            yield from (came, text.alias(f"_text_{name}"), code.cast("string").alias(f"_code_{name}"))

    def values(name: str) -> Iterable[Expression]:
        text, code, came = F.col(f"_text_{name}"), F.col(f"_code_{name}"), F.col(name)
        if kinds[name] == "timestamp":
            form = patterns.read_pattern(source.timestamps, with_time=True)
            yield from (came, text, code, as_iso(text, form).try_cast(LOCAL).alias(f"_local_{name}"))
        elif kinds[name] == "text":
            yield came
        else:
            yield F.coalesce(code, F.when(text.isNotNull(), CONVERSIONS[kinds[name]](text, came, source))).alias(name)

    def result(name: str) -> Expression:
        if name not in times:
            return F.col(name)
        text, code, came = F.col(f"_text_{name}"), F.col(f"_code_{name}"), F.col(name)
        value = F.when(text.isNotNull(), to_timestamp(F.col(f"_local_{name}"), text, came, source))
        return F.coalesce(code, value).alias(name)

    # Step by step, so that no expression is computed or planned again for each use; and a column is finished as early
    # as can be, because each step copies all texts of a row.
    rows = rows.select(*READ, *(each for name in dataset.names for each in texts(name)))
    rows = rows.select(*READ, *(each for name in dataset.names for each in values(name)))
    doubled = reduce(add, (came_twice(F.col(f"_local_{name}"), source).cast("int") for name in times), F.lit(0))
    return rows.select(*READ, *map(result, dataset.names), doubled.alias("_doubled"))


def kind(column: Column, cell: Cell | None) -> str:
    """Returns how a column's texts are converted: by its type, or as `day` if a date is taken from a timestamp."""
    return "day" if column.type == "date" and cell and cell.as_timestamp else column.type


def decode(text: Expression, values: Sequence[tuple[str, str]]) -> Expression:
    """Returns the value of a code; null for any other text. An empty code stands for a blank."""
    return F.coalesce(*(F.when(text == code if code else text.isNull(), F.lit(value)) for code, value in values))


def as_iso(text: Expression, pattern: Pattern) -> Expression:
    """Returns a text that fits a pattern as yyyy-MM-dd or yyyy-MM-ddTHH:mm:ss; null for any other text.

    Parts that the text leaves out become zeros. Each part is taken from its place, which needs one regular expression;
    a replacement would need more.
    """
    symbols = [symbol for symbol in patterns.DIGITS if "T" in pattern.template or symbol in patterns.DAY]
    marks = dict(zip(patterns.DIGITS, ("", "-", "-", "T", ":", ":", "."), strict=True))

    def iso(form: Form) -> Expression:
        pieces = []
        for symbol in symbols:
            digits = patterns.DIGITS[symbol]
            if symbol in form.places:
                pieces += [F.lit(marks[symbol]), F.substring(text, form.places[symbol], digits)]
            elif symbol != "SSS":
                pieces += [F.lit(marks[symbol] + "0" * digits)]
        return F.concat(*pieces)

    fits = ((F.octet_length(text) == form.bytes) & text.rlike(form.regex) for form in pattern.forms)
    return F.coalesce(*(F.when(is_it, iso(form)) for is_it, form in zip(fits, pattern.forms, strict=True)))


def to_date(text: Expression, came: Expression, source: Source) -> Expression:
    """Returns a date that is read by the pattern of dates; any other text unchanged."""
    iso = as_iso(text, patterns.read_pattern(source.dates, with_time=False))
    return F.when(iso.try_cast("date").isNotNull(), iso).otherwise(came)


def to_day(text: Expression, came: Expression, source: Source) -> Expression:
    """Returns the local date of a timestamp; any other text unchanged."""
    iso = as_iso(text, patterns.read_pattern(source.timestamps, with_time=True))
    return F.when(iso.try_cast(LOCAL).isNotNull(), F.substring(iso, 1, 10)).otherwise(came)


def to_decimal(text: Expression, came: Expression, source: Source) -> Expression:
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


def to_timestamp(local: Expression, text: Expression, came: Expression, source: Source) -> Expression:
    """Returns the `local` time of a text as a timestamp in UTC.

    Any other text, and a local time that the clock skipped or of year 0, is returned unchanged. An offset in the text
    is used as it is. A text without an offset that is not converted but fits our notation would be read as UTC: it is
    marked (NOT_CONVERTED), unless the source's time zone is UTC.
    """
    utc = F.to_utc_timestamp(local, source.time_zone)
    is_in_years = local.between(*validation.YEARS) & utc.between(*validation.YEARS)
    is_there = ~is_near_change(local, source) | (F.from_utc_timestamp(utc, source.time_zone) == local)
    is_real = is_there & is_in_years
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


def came_twice(local: Expression, source: Source) -> Expression:
    """Tells whether a local time occurred twice because the clock was put back; the first of the two is taken."""
    if source.time_zone == "UTC":
        return F.lit(False)
    again = reduce(or_, (shown(local, minutes, source) == local for minutes in LATER))
    return F.coalesce(is_near_change(local, source) & again, F.lit(False))


def is_near_change(local: Expression, source: Source) -> Expression:
    """Tells whether the clock skipped a local time, or was changed within two hours of it.

    Rarely true, and therefore asked before the times themselves, because each change of time zone takes long. No zone
    has changed its clocks twice within two hours.
    """
    return shown(local, LATER[-1], source) != plus(local, LATER[-1])


def shown(local: Expression, minutes: int, source: Source) -> Expression:
    """Returns the local time that a clock shows when some minutes have passed since a local time."""
    return F.from_utc_timestamp(plus(F.to_utc_timestamp(local, source.time_zone), minutes), source.time_zone)


def plus(time: Expression, minutes: int) -> Expression:
    """Returns a time some minutes later; Spark's intervals would go by way of a calendar."""
    return F.timestamp_micros(F.unix_micros(time) + F.lit(minutes * 60_000_000))


CONVERSIONS: Mapping[str, Callable[[Expression, Expression, Source], Expression]] = {
    "date": to_date,
    "day": to_day,
    "decimal": to_decimal,
}


def to_lines(rows: DataFrame, dataset: Dataset) -> DataFrame:
    """Writes each row as a record of our file into `value`; keeps `_file`, its own record in `_raw`, and `_doubled`.

    A malformed record remains malformed: its whole text becomes one field, which is a wrong number of fields.
    """
    line = F.concat_ws(",", *(F.coalesce(name, F.lit("")) for name in dataset.names))
    in_quotes = F.concat_ws(",", *(F.coalesce(spark_csv.written(name), F.lit("")) for name in dataset.names))
    has_commas = reduce(or_, (F.coalesce(F.contains(name, F.lit(",")), F.lit(False)) for name in dataset.names))
    needs_quotes = F.contains(line, F.lit('"')) | F.contains(line, F.lit("\n")) | has_commas
    text, is_malformed = spark_csv.written("_malformed"), F.col("_malformed").isNotNull()
    if len(dataset.names) == 1:  # in which a blank line is not a record, and a record of one field is complete
        needs_quotes, in_quotes = needs_quotes | (line == ""), F.when(line == "", F.lit('""')).otherwise(in_quotes)
        text = F.concat(text, F.lit(","))
    # Nearly all rows are the plain line: whether one is not is asked first, so that Spark computes the line once.
    value = F.when(needs_quotes | is_malformed, F.when(is_malformed, text).otherwise(in_quotes)).otherwise(line)
    return rows.select("_file", "_raw", value.alias("value"), "_doubled")
