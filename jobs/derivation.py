"""Derives our files from a source's: finds the records, converts them with Spark, and checks that they add up."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pyspark.errors import AnalysisException, ParseException, PySparkException
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from jobs import conversion, exports, landing, program, raw, validation
from jobs.borders import quoted
from jobs.conversion import Files
from jobs.dataset import Dataset
from jobs.exports import RawFile
from jobs.program import Refused
from jobs.sources import DatasetMapping, Source, Table

TOGETHER = 3  # datasets that are converted at the same time
SORTED_PARTS = 16  # into which rows from SQL are split by a hash of their text; the file's order depends on it


class Export(NamedTuple):
    """Holds a source's files of one date: paths and checksums by name, and the files from which each table is read."""

    source: Source
    day: date
    paths: dict[str, Path]
    sha256: dict[str, str]
    tables: dict[str, list[RawFile]]  # by the pattern of their names
    place: str = ""  # where Spark reads the files, if not in bronze

    def path(self, name: str) -> str:
        """Returns where Spark reads a file."""
        return f"{self.place}/{name}" if self.place else raw.path(self.source.name, self.day, name)

    def files(self, mapping: DatasetMapping) -> list[RawFile]:
        """Returns the files of a mapping, each once: those of its first table, then those of the others."""
        return list(dict.fromkeys(file for table in mapping.tables for file in self.tables[table.files]))


class Made(NamedTuple):
    """Holds a derived file of a dataset: its path, its profile, and the counts of the records behind it."""

    path: Path
    facts: landing.Facts
    records: int
    left_out: int
    doubled: int


def read_export(source: Source, day: date) -> Export:
    """Profiles each file of an export; raises Refused if one is missing, lacks a column or is not as declared."""
    paths, files = exports.paths(day, source), dict[str, RawFile]()
    tables = [(mapping, table) for mapping in source.mappings for table in mapping.tables]
    names = {table.files: exports.matching(table, list(paths), source, day) for _, table in tables}
    used: dict[str, dict[str, int]] = {}  # by file, the columns that it must have
    for mapping, table in tables:
        for name in names[table.files]:
            used[name] = mapping.used | used.get(name, {})
    for name, columns in used.items():
        files[name] = exports.read(paths[name], name, source, columns)
    of_tables = {pattern: [files[name] for name in found] for pattern, found in names.items()}
    for mapping, table in tables:
        if mapping.sql_file:
            exports.check_alike(table, of_tables[table.files], source)
    sha256 = {name: files[name].sha256 if name in files else landing.checksum(path) for name, path in paths.items()}
    return Export(source, day, paths, sha256, of_tables)


def derive(export: Export, datasets: Mapping[str, Dataset], run_id: str, place: Path) -> dict[str, Made]:
    """Derives the file of each dataset into a local directory; raises Refused if the records do not add up."""
    source, day = export.source, export.day
    spark = program.spark(f"source_to_bronze {source.name} {day}")
    program.tune_for_small_input(
        spark, sum(file.records for file in {file for each in export.tables.values() for file in each})
    )
    conversion.prepare(spark)
    for table in {table for mapping in source.mappings if mapping.sql_file for table in mapping.tables}:
        as_view(spark, export, table).createOrReplaceTempView(table.name)
    with raw.staging(source.name, day, run_id) as staging, ThreadPoolExecutor(TOGETHER) as pool:
        make = partial(make_file, spark, export, staging=staging, place=place)
        return dict(zip(datasets, pool.map(make, datasets.values()), strict=True))


def make_file(spark: SparkSession, export: Export, dataset: Dataset, staging: str, place: Path) -> Made:
    """Derives the file of one dataset, with only a header if the source has nothing for the dataset.

    Raises Refused if the rows derived by columns are not as many as the records, or if Spark cannot run the SQL.
    """
    mapping = export.source.by_dataset.get(dataset.name)
    path, name = place / f"{dataset.name}.csv", f"{dataset.name} of the source {export.source.name}, {export.day}"
    files, doubled = export.files(mapping) if mapping else [], 0
    if mapping:
        try:
            doubled = write_lines(
                convert(spark, export, mapping, dataset, named=False), raw.staged(f"{staging}/{dataset.name}")
            )
        except PySparkException as error:
            raise wrong_sql(mapping, error) if mapping.sql_file else error from None
    raw.collect(f"{staging}/{dataset.name}", ",".join(dataset.names) + "\n", path)
    facts = landing.describe(path, dataset, name)
    records, left_out = sum(file.records for file in files), 0
    if mapping and mapping.sql_file:
        first = sum(file.records for file in export.tables[mapping.tables[0].files])
        left_out = max(0, first - facts.records)
    elif facts.records != records:
        raise Refused(
            f"{name}: {records:,} records were read and {facts.records:,} rows derived, and the numbers must be "
            "equal; nothing was published. Look for quotes that RFC 4180 does not allow."
        )
    return Made(path, facts, records, left_out, doubled)


def convert(
    spark: SparkSession, export: Export, mapping: DatasetMapping, dataset: Dataset, named: bool = True
) -> DataFrame:
    """Returns the records of our file, derived from the source's records by columns or by SQL.

    Rows derived by columns have the name of their file, unless they need not be `named`.
    """
    source = export.source
    if not mapping.sql_file:
        names, cells = list(mapping.used), dict(mapping.columns)
        records = conversion.read_fields(spark, scans(export, export.files(mapping)), names, source, named)
        rows = conversion.take_cells(records, names, cells, dataset, source)
        return conversion.to_lines(conversion.convert(rows, dataset, source, cells), dataset)
    result = spark.sql(mapping.sql)
    check_result(mapping, dataset, result.columns)
    typed = [name for name, kind in result.dtypes if kind != "string"]
    rows = conversion.convert(conversion.take_result(result, dataset), dataset, source, {}, typed)
    if files := [file for file in export.files(mapping) if not file.is_sound]:
        # The views lack the records that cannot be split: they are added as malformed rows.
        broken = conversion.read_fields(spark, scans(export, files), [], source, named).filter("_malformed is not null")
        broken = conversion.take_cells(broken, [], {}, dataset, source)
        rows = rows.unionByName(broken.withColumn("_doubled", F.lit(0)))
    lines = conversion.to_lines(rows, dataset)
    # SQL returns rows in any order: sorting them by their text makes the file the same each time. A global sort would
    # compute all rows once more for a sample.
    return lines.repartition(SORTED_PARTS, "value").sortWithinPartitions("value")


def scans(export: Export, files: Sequence[RawFile]) -> list[Files]:
    """Groups files into those that one scan reads: with the same header, and alike in `spans` and `quotes`."""
    alike: dict[tuple[str, tuple[str, ...], bool, bool], list[RawFile]] = {}
    for file in files:
        alike.setdefault((file.heading, file.header, file.spans, file.quotes), []).append(file)
    return [
        Files(
            tuple(export.path(file.name) for file in group),
            heading,
            header,
            spans,
            max(file.widest for file in group),
            quotes,
        )
        for (heading, header, spans, quotes), group in alike.items()
    ]


def as_view(spark: SparkSession, export: Export, table: Table) -> DataFrame:
    """Returns the records of a table for SQL: trimmed texts under the source's own names, null if blank.

    Malformed records are left out.
    """
    files = export.tables[table.files]
    names = [name for name in files[0].header if name]
    records = conversion.read_fields(spark, scans(export, files), names, export.source, named=False)
    records = records.filter("_malformed is null")
    fields = (validation.trim(F.col(conversion.place(at))).alias(name) for at, name in enumerate(names))
    return records.select(*fields)


def check_result(mapping: DatasetMapping, dataset: Dataset, columns: Sequence[str]) -> None:
    """Raises Refused if SQL returns a column that the dataset lacks, returns one twice, or lacks a required one."""
    odd = [name for name in columns if name not in dataset.names]
    lacking = [column.name for column in dataset.columns if column.required and column.name not in columns]
    twice = [name for name in dataset.names if columns.count(name) > 1]
    faults = [f"returns {landing.listed(map(quoted, odd))}, which {dataset.name} does not have"] if odd else []
    faults += [f"lacks {landing.listed(map(quoted, lacking))}"] if lacking else []
    faults += [f"returns {landing.listed(map(quoted, twice))} twice"] if twice else []
    if faults:
        raise Refused(f"{mapping.sql_file}: it {' and '.join(faults)}; name what it returns as {dataset.name} does.")


def wrong_sql(mapping: DatasetMapping, error: PySparkException) -> Refused:
    """Returns the error for SQL that Spark cannot run: with its line, without Spark's text, which may show values."""
    condition = error.getCondition() or type(error).__name__
    found = (
        re.search(r"\bline ([0-9]+)", str(error)) if isinstance(error, (AnalysisException, ParseException)) else None
    )
    known = {
        "UNRESOLVED_COLUMN": "names a column that its tables do not have",
        "PARSE_SYNTAX_ERROR": "is not Spark SQL",
    }
    known |= {"TABLE_OR_VIEW_NOT_FOUND": "names a table that `tables` does not have"}
    name = (error.getMessageParameters() or {}).get("objectName") or (error.getMessageParameters() or {}).get("error")
    what = f"{known.get(condition.partition('.')[0], 'fails')} ({condition}{f' {name}' if found and name else ''})"
    return Refused(f"{mapping.sql_file}{f' line {found[1]}' if found else ''}: it {what}; correct the SQL.")


def write_lines(lines: DataFrame, path: str) -> int:
    """Writes records to a staging path; returns how many local times in them occurred twice."""
    seen = Observation()
    counted = lines.observe(seen, F.sum("_doubled").alias("doubled"))
    counted.select("value").write.mode("overwrite").text(path, lineSep="\n")
    return int(seen.get["doubled"] or 0)


def warnings_of(made: Made) -> list[str]:
    """Returns the warnings about a dataset's conversion."""
    twice = f"{made.doubled:,} local times came twice, as the clock was put back; they are taken as the first"
    return [twice] if made.doubled else []


def in_words(export: Export, name: str, made: Made) -> str:
    """Returns a sentence on what a dataset's file was made from."""
    mapping = export.source.by_dataset.get(name)
    if not mapping:
        return f"bronze {name} {export.day}: no rows; the source {export.source.name} has none"
    files = landing.listed((quoted(file.name) for file in export.files(mapping)), 5)
    left_out = f", {made.left_out:,} left out by {mapping.sql_file}" if made.left_out else ""
    rows = f"{made.facts.records:,} rows of {made.records:,} records"
    return f"bronze {name} {export.day}: {rows} in {files}{left_out}"
