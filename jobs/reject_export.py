"""Exports rejected rows as CSV files to hand back to their owners: `make export-rejects`."""

import csv
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs import bronze_files, delta_tables, landing, program, provenance, reject_counts, warehouse
from jobs.catalog import CATALOG
from jobs.dataset import Dataset
from jobs.dialect import RFC_4180, Dialect
from jobs.program import Refused

# Matches the start of a spreadsheet's cell: at the start of a field, and, if it does not split at commas, behind other
# characters that end a field. White space and quotes may come before the sign of a formula, which may be a wide form.
# Each character is read once, however long the blanks are: the lookahead always succeeds, so that nothing backtracks.
CELL_END = r"[;\t\r\n]"
CELL = re.compile(rf'(\A|{CELL_END})[\s"]*(?=([=+\-@＝＋－＠]?))')  # noqa: RUF001
NUMBER = r'[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)[\s"]*'  # a plain number is not a formula
NUMBER_CELL, NUMBER_FIELD = re.compile(rf"{NUMBER}(?={CELL_END}|\Z)"), re.compile(rf"{NUMBER}\Z")


def export(day: date, datasets: Sequence[Dataset], folder: Path) -> Iterator[str]:
    """Writes a CSV for each dataset with rejected rows: the fields of its file as they were sent, then the reasons.

    If the dataset was made from a source's records, writes one CSV for each file of the source, in its encoding and
    with its separator. A malformed record has no fields that can be trusted: they are empty, and its text is in
    `_record`. A field that a spreadsheet would take for a formula, plain numbers excepted, gets an apostrophe in front.
    Each file is written whole or not at all, and only its owner may read it. Yields a sentence on each.
    """
    with warehouse.connect() as connection:
        runs, spark = reject_counts.standing_runs(connection, day, datasets), None
        for name, run in runs.items():
            if not run["rejected"]:
                yield f"{name} {day}: nothing was rejected"
                continue
            dataset = CATALOG[name]
            facts = bronze_files.facts_of(dataset, day)
            if facts.sha256 != run["bronze_sha256"]:
                raise Refused(
                    f"{name} of {day} came again since it was validated; run it first: `make run DATE={day}`."
                )
            spark = spark or program.resident(f"export-rejects {day}")
            place = folder / landing.folder(day)
            if made_of := provenance.rejected_records(spark, connection, dataset, day):
                source, files = made_of
                for file, rows in files:
                    path = place / source.name / name / file
                    count = write_whole(path, rows, source.encoding, source.dialect)
                    yield f"{name} {day}: {count:,} rejected records of {source.name} in {path}"
                continue
            path = place / f"{name}.csv"
            count = write_whole(path, records_with_reasons(spark, dataset, day, facts.header))
            yield f"{name} {day}: {count:,} rejected rows in {path}"


def records_with_reasons(
    spark: SparkSession, dataset: Dataset, day: date, header: Sequence[str]
) -> Iterator[Sequence[str]]:
    """Yields the header, then each rejected record of a partition in the order of their keys."""
    yield [*header, "_reject_reason", "_reject_messages", "_record"]
    rejected = delta_tables.silver(spark, dataset, "rejected").filter(F.col("_partition_date") == day)
    rows = rejected.orderBy(dataset.key, "_raw").select("_raw", "_reject_reason", "_reject_reasons.message")
    for record, reason, messages in rows.toLocalIterator():
        fields = landing.plain_fields(record) if reason != "malformed_row" else []
        # If Spark has split a record differently, its text is given instead of its fields.
        fields, text = (fields, "") if len(fields) == len(header) else ([""] * len(header), record)
        yield [*fields, reason, "; ".join(messages), text]


def write_whole(path: Path, rows: Iterator[Sequence[str]], encoding: str = "utf-8", dialect: Dialect = RFC_4180) -> int:
    """Writes a CSV beside its path and then moves it there; returns the number of rows below the header."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(  # of mode 0600
        "w", dir=path.parent, prefix=f".{path.name}.", encoding=encoding, newline="", delete=False
    ) as file:
        try:
            writer = csv.writer(file, delimiter=dialect.separator, quotechar=dialect.quote or RFC_4180.quote)
            count = -1
            for count, row in enumerate(rows):  # noqa: B007
                writer.writerow(map(as_text, row))
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    return count


def as_text(field: str) -> str:
    """Returns a field, changed if a spreadsheet would take it for a formula."""
    text = CELL.sub(defused, field)
    return f"'{text}" if text.startswith(("\t", "\r", "\n")) else text


def defused(cell: re.Match[str]) -> str:
    """Returns the start of a cell, with an apostrophe if a formula would follow; `cell` is a match of CELL."""
    start, field, sign = cell[0], cell.string, cell.end()
    if not cell[2]:
        return start
    if not NUMBER_CELL.match(field, sign):
        start = re.sub(CELL_END, r"\g<0>'", start)
    is_first = cell[1] == "" and not NUMBER_FIELD.match(field, sign)
    return f"'{start}" if is_first else start
