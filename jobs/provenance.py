"""Traces a row back to its source: the file and line of its record, and the rejected records to hand back."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import groupby
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from jobs import bronze_files, conversion, delta_tables, exports, landing, program, raw, sources, warehouse
from jobs.borders import printable
from jobs.conversion import Files
from jobs.dataset import WHITE_SPACE, Dataset
from jobs.program import Refused
from jobs.sources import Source


def source_of(dataset: Dataset, day: date) -> tuple[Source, bool] | None:
    """Returns the source of a bronze file and whether its declaration is unchanged; None for a landing file."""
    known = (bronze_files.bronze_head(dataset, day) or {"Metadata": {}})["Metadata"]
    if "source" not in known:
        return None
    source = sources.load(known["source"])
    return source, source.fingerprint == known["mapping"]


def files_of(connection: warehouse.Connection, source: Source, dataset: Dataset, day: date) -> list[str]:
    """Returns the names of the source's files from which the current run derived a dataset."""
    found = connection.execute(
        "select file_name from ops.source_files as files join ops.receipts using (run_id, partition_date) "
        "where layer = 'source' and files.source_name = %s and partition_date = %s "
        "and %s = any(string_to_array(files.datasets, ', ')) order by file_name",
        [source.name, day, dataset.name],
    )
    return [file for (file,) in found]


def lines(connection: warehouse.Connection, dataset: Dataset, day: date, key: str) -> Iterator[str]:
    """Yields a sentence on each place in the source's files that has a record of a key."""
    try:
        found = source_of(dataset, day)
    except Refused as error:
        yield f"made from a source's files; {error}"
        return
    if found is None:
        return
    source, is_same = found
    mapping = source.by_dataset.get(dataset.name)
    for file in files_of(connection, source, dataset, day) if mapping else ():
        with raw.lines_of(source, day, file) as text:
            for line in exports.find(text, key, source, mapping, dataset.key) if mapping else ():
                yield f"from {raw.path(source.name, day, printable(file))}, line {line:,}"
    if not is_same:
        yield f"{source.file} has changed since; `make run DATE={day}` converts the date again"


def rejected_records(
    spark: SparkSession, connection: warehouse.Connection, dataset: Dataset, day: date
) -> tuple[Source, Iterator[tuple[str, Iterator[Sequence[str]]]]] | None:
    """Returns the source, and for each of its files the header and the rejected records with their reasons.

    The records have the source's columns. Returns None unless each row was made from one record of a source. A record
    is found by the text of ours that it becomes; if several become the same text, as many are taken as were rejected.
    Raises Refused if the declaration has changed since.
    """
    found = source_of(dataset, day)
    if found is None or not (mapping := found[0].by_dataset.get(dataset.name)) or mapping.sql_file:
        return None
    source, is_same = found
    if not is_same:
        raise Refused(f"{source.file} has changed since {day} was converted; run it first: `make run DATE={day}`.")
    scans: dict[str, Files] = {}
    for file in files_of(connection, source, dataset, day):
        with raw.lines_of(source, day, file) as text:
            scans[file] = Files((raw.path(source.name, day, file),), *shape_of(text, source))
    names, cells = list(mapping.used), dict(mapping.columns)
    program.tune_for_small_input(spark, rows=0)
    conversion.prepare(spark)
    rows = conversion.read_fields(spark, list(scans.values()), names, source)
    rows = conversion.take_cells(rows, names, cells, dataset, source)
    made = conversion.to_lines(conversion.convert(rows, dataset, source, cells), dataset)
    made = made.localCheckpoint()  # one plan with the join below would exceed the driver's memory
    rejected = delta_tables.silver(spark, dataset, "rejected").filter(F.col("_partition_date") == day)
    return source, by_file(with_reasons(made, rejected), {file: scan.header for file, scan in scans.items()}, source)


def shape_of(text: Iterator[str], source: Source) -> tuple[str, tuple[str, ...], bool, int, bool]:
    """Returns a file's header, as text and by columns, and `spans`, `widest` and `quotes` of exports.RawFile."""
    heading, header, spans, widest, quotes = "", tuple[str, ...](), source.charset.startswith("UTF-16"), 1, False
    for record, span, is_open in landing.read_records(text, source.dialect):
        if header:
            spans = spans or span > 1 or is_open or not exports.is_of_lines(record, heading)
        elif record.strip(WHITE_SPACE):
            heading, header = exports.heading_of(record, source), exports.names_of(record, source.dialect)
            spans = spans or span > 1 or is_open
        quotes = quotes or (source.quote != "" and source.quote in record)
        widest = max(widest, record.count(source.separator) + 1)
    return heading, header, spans, widest, quotes


def with_reasons(made: DataFrame, rejected: DataFrame) -> DataFrame:
    """Returns (file, record, codes, messages) of each rejected record of `made`, file by file."""
    of_text = Window.partitionBy("value")
    records = made.select("value", F.col("_raw").alias("record"), F.col("_file").alias("file"))
    records = records.withColumn("nth", F.row_number().over(of_text.orderBy("file", "record")))
    reasons = rejected.select(
        F.col("_raw").alias("value"),
        F.col("_reject_reason").alias("codes"),
        F.col("_reject_reasons.message").alias("messages"),
        F.row_number().over(Window.partitionBy("_raw").orderBy("_reject_reason")).alias("nth"),
    )
    found = records.join(reasons, on=["value", "nth"])
    return found.select("file", "record", "codes", "messages").orderBy("file", "record", "codes")


def by_file(
    found: DataFrame, headers: Mapping[str, Sequence[str]], source: Source
) -> Iterator[tuple[str, Iterator[Sequence[str]]]]:
    """Yields each file with its rows; the caller must take the rows of a file before asking for the next file."""

    def rows(header: Sequence[str], records: Iterator[Any]) -> Iterator[Sequence[str]]:
        yield [*header, "_reject_reason", "_reject_messages", "_record"]
        for _, record, codes, messages in records:
            fields = landing.plain_fields(record, source.dialect) if codes != "malformed_row" else []
            fields, text = (fields, "") if len(fields) == len(header) else ([""] * len(header), record)
            yield [*fields, codes, "; ".join(messages), text]

    for file, records in groupby(found.toLocalIterator(), key=lambda row: row.file):
        yield file, rows(headers[file], records)
