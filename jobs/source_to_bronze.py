"""Converts a source's files of a date into our files in bronze: `spark-submit jobs/source_to_bronze.py 2026-01-31`."""

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pyspark.errors import AnalysisException, ParseException, PySparkException
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from jobs import arrival, conversion, exports, lake, landing, program, raw, validation, warehouse
from jobs.borders import quoted
from jobs.catalog import expected
from jobs.conversion import Files
from jobs.dataset import Dataset
from jobs.exports import RawFile
from jobs.program import Refused
from jobs.sources import DatasetMapping, Source, Table

TOGETHER = 3  # datasets are converted at once


class Export(NamedTuple):
    """The files of a source of one date: all by their names with their checksums, and those that tables are made of."""

    source: Source
    day: date
    paths: dict[str, Path]
    sha256: dict[str, str]
    tables: dict[str, list[RawFile]]  # by the pattern of their names

    def files(self, mapping: DatasetMapping) -> list[RawFile]:
        """Returns the files of a mapping's first table, then those of the others."""
        return list(dict.fromkeys(file for table in mapping.tables for file in self.tables[table.files]))


class Made(NamedTuple):
    """A dataset's file as it was made: where it lies, its facts, and the account of the records it was made of."""

    path: Path
    facts: landing.Facts
    records: int
    left_out: int
    doubled: int


def source_to_bronze(day: date, named: str = "") -> str:
    """Keeps a date's raw files in bronze and derives the datasets' files from them; either all of these are published
    or, where one cannot be made, none.
    """
    with warehouse.connect() as connection, ExitStack() as held:
        datasets = expected(day)
        for name in datasets:
            held.enter_context(warehouse.writer(connection, f"bronze {name} {day}"))
        folders = exports.folders(day)
        row = held.enter_context(warehouse.run(connection, "source", named or (folders or ["all"])[0], day, ""))
        source = exports.source_of(day)
        if named not in ("", source.name):
            raise Refused(f"{day} comes by the source {source.name} and not by {quoted(named)}.")
        export = read_export(source, day)
        made_from = exports.fingerprint(export.sha256)
        row |= {"rule_set": source.fingerprint, "bronze_sha256": made_from}
        row |= {"bronze_bytes": sum(path.stat().st_size for path in export.paths.values())}
        for name, path in export.paths.items():
            raw.upload(path, source.name, day, name, export.sha256[name])
        place = Path(held.enter_context(tempfile.TemporaryDirectory()))
        made = derive(export, datasets, row["run_id"], place)
        return publish(connection, export, row, made, datasets)


def read_export(source: Source, day: date) -> Export:
    """Reads each file once; raises Refused where one is missing, lacks a column or is not as declared."""
    paths, files = exports.paths(day, source), dict[str, RawFile]()
    tables = [(mapping, table) for mapping in source.mappings for table in mapping.tables]
    names = {table.files: exports.matching(table, list(paths), source, day) for _, table in tables}
    used: dict[str, dict[str, int]] = {}  # of each file the columns that must be there
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
    """Makes the file of each dataset in a local directory; raises Refused where the records do not add up."""
    source, day = export.source, export.day
    spark = program.spark(f"source_to_bronze {source.name} {day}")
    program.hasten(spark, sum(file.records for file in {file for each in export.tables.values() for file in each}))
    spark.conf.set("spark.sql.legacy.javaCharsets", "true")  # else Spark reads Unicode, ASCII and Latin 1 alone
    for table in {table for mapping in source.mappings if mapping.sql_file for table in mapping.tables}:
        as_view(spark, export, table).createOrReplaceTempView(table.name)
    with raw.staging(source.name, day, run_id) as staging, ThreadPoolExecutor(TOGETHER) as pool:
        make = partial(make_file, spark, export, staging=staging, place=place)
        return dict(zip(datasets, pool.map(make, datasets.values()), strict=True))


def make_file(spark: Any, export: Export, dataset: Dataset, staging: str, place: Path) -> Made:
    """Makes the file of one dataset; it has a header and no rows where the source has nothing for it."""
    mapping = export.source.by_dataset.get(dataset.name)
    path, name = place / f"{dataset.name}.csv", f"{dataset.name} of the source {export.source.name}, {export.day}"
    files, doubled = export.files(mapping) if mapping else [], 0
    if mapping:
        try:
            doubled = write_lines(convert(spark, export, mapping, dataset), raw.staged(f"{staging}/{dataset.name}"))
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
            f"{name}: {records:,} records were read and {facts.records:,} rows made: law 1 is broken, nothing was "
            "published; look for quotes that RFC 4180 does not allow."
        )
    return Made(path, facts, records, left_out, doubled)


def convert(spark: Any, export: Export, mapping: DatasetMapping, dataset: Dataset) -> DataFrame:
    """The records of our file, from theirs or from what their SQL returns of them."""
    source = export.source
    if not mapping.sql_file:
        names, cells = list(mapping.used), dict(mapping.columns)
        records = conversion.read_fields(spark, scans(export, export.files(mapping)), names, source)
        rows = conversion.take_cells(records, names, cells, dataset, source)
        return conversion.to_lines(conversion.convert(rows, dataset, source, cells), dataset)
    result = spark.sql(mapping.sql)
    check_result(mapping, dataset, result.columns)
    typed = [name for name, kind in result.dtypes if kind != "string"]
    made = conversion.convert(conversion.take_result(result, dataset), dataset, source, {}, typed)
    # No records of ours, and nobody's order: what cannot be split stands for itself, and rows are sorted by their text.
    whole = conversion.read_fields(spark, scans(export, export.files(mapping)), [], source)
    broken = conversion.take_cells(whole.filter("_malformed"), [], {}, dataset, source)
    lines = conversion.to_lines(made.unionByName(broken.withColumn("_doubled", F.lit(0))), dataset)
    return lines.orderBy("value")


def scans(export: Export, files: Sequence[RawFile]) -> list[Files]:
    """Groups files into those that one scan reads."""
    alike: dict[tuple[tuple[str, ...], bool], list[RawFile]] = {}
    for file in files:
        alike.setdefault((file.header, file.spans), []).append(file)
    return [
        Files(
            tuple(raw.path(export.source.name, export.day, file.name) for file in group),
            header,
            spans,
            max(file.widest for file in group),
        )
        for (header, spans), group in alike.items()
    ]


def as_view(spark: Any, export: Export, table: Table) -> DataFrame:
    """The records of a table as SQL sees them: trimmed texts under their own names, null where nothing is left."""
    files = export.tables[table.files]
    names = [name for name in files[0].header if name]
    records = conversion.read_fields(spark, scans(export, files), names, export.source).filter("not _malformed")
    fields = (validation.trim(F.col(conversion.place(at))).alias(name) for at, name in enumerate(names))
    return records.select(*fields)


def check_result(mapping: DatasetMapping, dataset: Dataset, columns: Sequence[str]) -> None:
    """Raises Refused where SQL returns columns that a dataset does not have, one twice, or lacks one it needs."""
    odd = [name for name in columns if name not in dataset.names]
    lacking = [column.name for column in dataset.columns if column.required and column.name not in columns]
    twice = [name for name in dataset.names if columns.count(name) > 1]
    faults = [f"returns {landing.listed(map(quoted, odd))}, which {dataset.name} does not have"] if odd else []
    faults += [f"lacks {landing.listed(map(quoted, lacking))}"] if lacking else []
    faults += [f"returns {landing.listed(map(quoted, twice))} twice"] if twice else []
    if faults:
        raise Refused(f"{mapping.sql_file}: it {' and '.join(faults)}; name what it returns as {dataset.name} does.")


def wrong_sql(mapping: DatasetMapping, error: PySparkException) -> Refused:
    """The refusal of SQL that Spark cannot run, with its line; of the error's text, which may show values, no more."""
    condition = error.getCondition() or type(error).__name__
    found = (
        re.search(r"\bline ([0-9]+)", str(error)) if isinstance(error, (AnalysisException, ParseException)) else None
    )
    known = {"UNRESOLVED_COLUMN": "names a column that its tables do not have", "PARSE_SYNTAX_ERROR": "is no Spark SQL"}
    known |= {"TABLE_OR_VIEW_NOT_FOUND": "names a table that `tables` does not have"}
    name = (error.getMessageParameters() or {}).get("objectName") or (error.getMessageParameters() or {}).get("error")
    what = f"{known.get(condition.partition('.')[0], 'fails')} ({condition}{f' {name}' if found and name else ''})"
    return Refused(f"{mapping.sql_file}{f' line {found[1]}' if found else ''}: it {what}; correct the SQL.")


def write_lines(lines: DataFrame, path: str) -> int:
    """Writes records to a staging place; returns how many local times came twice in them."""
    seen = Observation()
    counted = lines.observe(seen, F.sum("_doubled").alias("doubled"))
    counted.select("value").write.mode("overwrite").text(path, lineSep="\n")
    return int(seen.get["doubled"] or 0)


def publish(
    connection: warehouse.Connection,
    export: Export,
    row: dict[str, Any],
    made: Mapping[str, Made],
    datasets: Mapping[str, Dataset],
) -> str:
    """Puts the files into bronze, and settles their runs and the source's at one stroke."""
    source, day, said = export.source, export.day, []
    about = {"source": source.name, "mapping": source.fingerprint, "made-from": row["bronze_sha256"]}
    with ExitStack() as runs:
        rows = {
            name: runs.enter_context(warehouse.run(connection, "bronze", name, day, dataset.rule_set))
            for name, dataset in datasets.items()
        }
        for name, dataset in datasets.items():
            facts, warnings = made[name].facts, arrival.warnings(connection, dataset, day, made[name].facts)
            warnings += warnings_of(made[name])
            rows[name] |= {"bronze_rows": facts.records, "bronze_bytes": facts.bytes, "bronze_sha256": facts.sha256}
            rows[name] |= {"amount_in": Decimal(facts.cents) / 100} if facts.amount else {}
            rows[name]["warnings"] = "; ".join(warnings) or None
            said.append(in_words(export, name, made[name]))
            said += (f"warn: {name} {day}: {warning}" for warning in warnings)
        for name, dataset in datasets.items():
            lake.upload(made[name].path, dataset, day, made[name].facts, about)
        with connection.transaction():
            for name in datasets:
                warehouse.settle(connection, rows[name], made[name].facts.sha256)
            said += account_for(connection, export, row, made)
            warehouse.settle(connection, row, row["bronze_sha256"])
    return "\n".join(said)


def warnings_of(made: Made) -> list[str]:
    """What the conversion of a dataset is worth a warning for."""
    twice = f"{made.doubled:,} local times came twice, as the clock was put back; they are taken as the first"
    return [twice] if made.doubled else []


def in_words(export: Export, name: str, made: Made) -> str:
    """Says what a dataset's file was made of."""
    mapping = export.source.by_dataset.get(name)
    if not mapping:
        return f"bronze {name} {export.day}: no rows; the source {export.source.name} has none"
    files = landing.listed((quoted(file.name) for file in export.files(mapping)), 5)
    left_out = f", {made.left_out:,} left out by {mapping.sql_file}" if made.left_out else ""
    rows = f"{made.facts.records:,} rows of {made.records:,} records"
    return f"bronze {name} {export.day}: {rows} in {files}{left_out}"


def account_for(
    connection: warehouse.Connection, export: Export, row: dict[str, Any], made: Mapping[str, Made]
) -> list[str]:
    """Records what each file of a source had and what became of it; returns a warning where nobody reads some."""
    about = [row["run_id"], export.source.name, export.day]
    takers: dict[str, list[str]] = {name: [] for name in export.paths}
    records = {file.name: file for files in export.tables.values() for file in files}
    for mapping in export.source.mappings:
        for file in export.files(mapping):
            takers[file.name].append(mapping.dataset)
    row["bronze_rows"] = sum(file.records for file in records.values())
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ops.source_files "
            "(run_id, source_name, partition_date, file_name, sha256, bytes, records, datasets) "
            "values (%s, %s, %s, %s, %s, %s, %s, %s)",
            [
                [*about, name, export.sha256[name], path.stat().st_size, known and known.records, ", ".join(taken)]
                for name, path in export.paths.items()
                for known, taken in [(records.get(name), takers[name])]
            ],
        )
        cursor.executemany(
            "insert into ops.source_rows "
            "(run_id, source_name, partition_date, dataset, records, rows_made, left_out, doubled_times) "
            "values (%s, %s, %s, %s, %s, %s, %s, %s)",
            [[*about, name, m.records, m.facts.records, m.left_out, m.doubled] for name, m in made.items()],
        )
    unread = [quoted(name) for name, taken in takers.items() if not taken]
    if not unread:
        return []
    row["warnings"] = f"files that no dataset is made of stay behind: {landing.listed(unread, 5)}"
    return [f"warn: {export.source.name} {export.day}: {row['warnings']}"]


if __name__ == "__main__":
    is_named = len(sys.argv) > 2 and not re.match(r"[0-9]{4}-", sys.argv[1])
    name = sys.argv.pop(1) if is_named else ""
    program.run(partial(source_to_bronze, named=name), words=("date",), future=False, remaining=warehouse.remaining)
