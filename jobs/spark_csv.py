"""Reads the records of CSV files with Spark, each as its text; records may span lines."""

from collections.abc import Sequence
from datetime import date
from functools import reduce
from operator import or_
from typing import Any

from pyspark.sql import Column as Expression
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import lake_paths
from jobs.dataset import WHITE_SPACE, Dataset
from jobs.dialect import RFC_4180, Dialect
from jobs.landing import MOST_COLUMNS, Facts

NO_QUOTE = "\ufdd0"  # no character; without a quote, Spark would take NUL for one
MANY_FIELDS = 100  # a record with more is broken, unless the header has more itself


def records(spark: SparkSession, dataset: Dataset, day: date, facts: Facts, path: str = "") -> DataFrame:
    """Returns one row per data record of a bronze file, or of the file at `path`: its text in `_raw`, without line end.

    All cores read the lines. If records span lines, Spark's CSV reader finds where each ends: it is asked for more
    fields than any record has, so that it calls every record corrupt and returns the text.
    """
    path = path or lake_paths.bronze_path(dataset, day)
    place = F.monotonically_increasing_id().bitwiseAND(F.lit((1 << 33) - 1))  # in Spark's partition
    if facts.spans:
        rows, raw = spanning_records(spark, [path], len(facts.header), facts.widest)
        skipped, first = facts.header_records, F.lit(True)
    else:
        rows = spark.read.text(path, lineSep="\n")
        raw, skipped, first = F.col("value"), facts.header_lines, F.col("_metadata.file_block_start") == 0
    rows = rows.select(raw.alias("_raw"), (first & (place < skipped)).alias("header"))
    # Spark warns about rtrim with two arguments; TRIM without the test of the last character is slow.
    without_return = F.expr(r"if(endswith(_raw, '\r'), trim(trailing '\r' from _raw), _raw)")
    rows = rows.select(without_return.alias("_raw"), "header")
    is_record = F.contains("_raw", F.lit(",")) | (F.btrim("_raw", F.lit(WHITE_SPACE)) != "")
    return rows.filter(~F.col("header") & is_record).select("_raw")


def spanning_records(
    spark: SparkSession, paths: Sequence[str], columns: int, widest: int, dialect: Dialect = RFC_4180, **options: Any
) -> tuple[DataFrame, Expression]:
    """Returns the rows of files whose records may span lines, and the column that holds each record's text.

    Headers are among the rows unless `options` exclude them. `columns` is the number of columns in the header, `widest`
    the largest number of fields in a record.
    """
    # Never exactly as many fields as a sound record has: one more, or fewer if a spreadsheet has padded its lines.
    most = columns if columns <= MOST_COLUMNS else MOST_COLUMNS - 1
    fields = [f"_{number}" for number in range(min(widest, max(MANY_FIELDS, most)) + 1)]
    quote = dialect.quote or NO_QUOTE
    rows = spark.read.option("columnPruning", False).csv(
        [*paths],
        schema=", ".join(f"{name} string" for name in (*fields, "_raw")),
        multiLine=True,
        lineSep="\n",
        sep=dialect.separator,
        quote=quote,
        escape=quote,
        maxColumns=widest + 1,
        columnNameOfCorruptRecord="_raw",
        **options,
    )
    # Spark returns no text for a record of exactly this many fields. There is none, or it is malformed: it is rebuilt.
    together = F.array_join(F.array(*(written(field, dialect) for field in fields)), dialect.separator, "")
    return rows, F.coalesce("_raw", together if len(fields) <= widest else fields[0])


def written(field: str, dialect: Dialect = RFC_4180) -> Expression:
    """Returns a field as a CSV file has it: in quotes if it contains a separator, a quote or a line end."""
    quote = F.lit(dialect.quote)
    quoted = F.concat(quote, F.replace(field, quote, F.lit(dialect.quote * 2)), quote)
    is_special = reduce(or_, (F.contains(field, F.lit(mark)) for mark in (*dialect, "\n") if mark))
    return F.when(is_special, quoted).otherwise(F.col(field))
