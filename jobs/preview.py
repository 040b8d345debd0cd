"""Tells what a date's files would become before they land; publishes nothing.

python -m jobs.preview FOLDER [--source clinique] [--date 2026-01-31]
"""

import argparse
import fnmatch
import io
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from psycopg.rows import dict_row
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from jobs import (
    borders,
    derivation,
    drift,
    dry_run,
    exports,
    lake_paths,
    landing,
    ledger,
    mart_diff,
    object_store,
    program,
    raw,
    settings,
    sources,
    spark_csv,
    verdict_diff,
    warehouse,
)
from jobs.borders import quoted
from jobs.catalog import CATALOG, expected
from jobs.dataset import Dataset
from jobs.derivation import Export
from jobs.dry_run import Retrial
from jobs.landing import Facts
from jobs.profiling import profile
from jobs.program import Refused
from jobs.sources import Source

EXAMPLES = 3  # line numbers for each reason
STAGED = "_previewed"  # beside what sources convert: no source's name begins so


class Coming(NamedTuple):
    """Holds the files of a date that has not landed, as ours; `export` has those of its source."""

    day: date
    files: dict[str, Path]  # by dataset
    facts: dict[str, Facts]
    export: Export | None
    said: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(prog="preview", description=__doc__)
    parser.add_argument("folder", help="the folder of the date's files")
    parser.add_argument("--source", default="", help="the source that they are of")
    parser.add_argument("--date", default="", help="the date that they are for")
    given = parser.parse_args()
    day = program.given_day(given.date) if given.date else None
    if not given.folder:
        program.leave(2, "FROM is missing: name the folder of a date's files, as in make preview FROM=export.")
    try:
        for line in preview(Path(given.folder).expanduser().resolve(), given.source, day):
            borders.say(line)
    except Exception as error:
        program.leave(1, program.sentence(error))


def preview(folder: Path, named: str = "", day: date | None = None) -> Iterator[str]:
    """Validates a folder's files as a run would, and tells what silver, gold and the marts would become."""
    program.bring_up_to_date()
    with warehouse.connect() as connection:
        day = day or date_of(folder) or next_date(connection)
        source = source_of(folder, named)
        by = f" by the source {source.name}" if source else ""
        yield f"Preview of {folder.name} as {day}{by}: nothing is published."
        with (
            warehouse.writer(connection, f"preview {day}"),
            tempfile.TemporaryDirectory() as place,
            landed(folder, source, day, Path(place, "landing")),
        ):
            yield from schema_lines(connection, folder, source, day)
            spark = program.resident(f"preview {day}")
            with raw.staging(STAGED, day, "files") as staging:
                coming = read(folder, source, day, staging, Path(place))
                yield from coming.said
                for name, path in coming.files.items():
                    put(path, f"{staging}/{name}.csv")
                rows = sum(facts.records for facts in coming.facts.values())
                program.tune_for_small_input(spark, rows, ledger.rows_in_silver(connection, CATALOG))
                runs, trials = try_out(spark, connection, coming, staging)
                yield from verdict_lines(coming, trials)
                yield from verdict_diff.stop_lines(connection, {n: only(t, day) for n, t in trials.items()}, runs)
                yield from other_lines(trials, day)
                yield from mart_diff.mart_lines(connection, trials, coming=day)


# ---- which files, and of which date --------------------------------------------------------------------------------


def date_of(folder: Path) -> date | None:
    """Returns the date that a folder's path ends in, its source left out."""
    found = re.search(r"/([0-9]{4})/([0-9]{2})/([0-9]{2})(/[^/]+)?$", str(folder))
    with suppress(ValueError):
        return date(*map(int, found.groups()[:3])) if found else None
    return None


def next_date(connection: warehouse.Connection) -> date:
    """Returns the day after gold's newest partition, or today (UTC) if gold is empty."""
    newest = ledger.newest(connection)
    return newest + timedelta(days=1) if newest else datetime.now(timezone.utc).date()


def names_in(folder: Path) -> list[str]:
    """Returns the names of a folder's files."""
    if not folder.is_dir():
        raise Refused(f"{quoted(str(folder))} is not a folder; give the folder of a date's files as FROM.")
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def source_of(folder: Path, named: str) -> Source | None:
    """Returns the source of a folder's files: the one named, that of the folder's name, or the one whose patterns fit;
    None where they are our own files.
    """
    names, known = names_in(folder), sources.declared()
    if named:
        if named not in known:
            raise Refused(f"sources/{named}.yml is missing; `make profile FROM={folder} NAME={named}` drafts it.")
        return sources.load(named)
    if folder.name in known:
        return sources.load(folder.name)
    if any(f"{name}.csv" in names for name in CATALOG):
        return None
    fitting = [source for each in known if (source := declaration(each)) and fits(source, names)]
    if len(fitting) == 1:
        return fitting[0]
    which = f"the sources {', '.join(each.name for each in fitting)}" if fitting else "no source"
    raise Refused(f"{quoted(str(folder))} has files of {which}; name one as SOURCE, or draft it with `make profile`.")


def declaration(name: str) -> Source | None:
    """Returns a source, or None where its declaration has a mistake."""
    with suppress(Refused):
        return sources.load(name)
    return None


def fits(source: Source, names: Sequence[str]) -> bool:
    """Tells whether each pattern of a source finds a file."""
    patterns = {table.files for mapping in source.mappings for table in mapping.tables}
    return all(any(fnmatch.fnmatchcase(name, pattern) for name in names) for pattern in patterns)


@contextmanager
def landed(folder: Path, source: Source | None, day: date, landing_dir: Path) -> Iterator[None]:
    """Has a folder's files stand where a date's files land, in a landing directory of this process alone."""
    place = landing_dir / landing.folder(day)
    place = place / source.name if source else place
    place.mkdir(parents=True)
    for name in names_in(folder):
        (place / name).symlink_to(folder / name)
    before = os.environ.get("LANDING_DIR")
    settings.load()
    os.environ["LANDING_DIR"] = str(landing_dir)
    try:
        yield
    finally:
        if before is None:
            del os.environ["LANDING_DIR"]
        else:
            os.environ["LANDING_DIR"] = before


def read(folder: Path, source: Source | None, day: date, staging: str, place: Path) -> Coming:
    """Reads a date's files, or makes them of its source's; raises Refused as a run would."""
    datasets = expected(day)
    if source is None:
        files = {name: landing.landing_path(dataset, day) for name, dataset in datasets.items()}
        if lacking := [path.name for path in files.values() if not path.exists()]:
            raise Refused(f"{quoted(str(folder))} lacks {landing.listed(lacking)}; put it there, or name its SOURCE.")
        facts = {name: landing.describe(path, datasets[name], path.name) for name, path in files.items()}
        return Coming(day, files, facts, None, ())
    export = derivation.read_export(source, day)
    for name, path in export.paths.items():
        put(path, f"{staging}/raw/{name}")
    # A name of its own keeps these lines apart from those of a run that converts the date meanwhile.
    apart = replace(source, name=f"{STAGED}/{source.name}")
    made = derivation.derive(
        export._replace(source=apart, place=raw.staged(f"{staging}/raw")), datasets, "preview", place
    )
    said = []
    for name, each in made.items():
        said.append(derivation.in_words(export, name, each).removeprefix("bronze "))
        said += (f"warn: {name}: {warning}" for warning in derivation.warnings_of(each))
    return Coming(day, {n: e.path for n, e in made.items()}, {n: e.facts for n, e in made.items()}, export, tuple(said))


def put(path: Path, key: str) -> None:
    """Puts a file into the staging place of the lake, where Spark reads it."""
    object_store.s3().upload_file(str(path.resolve()), settings.get("MINIO_BUCKET_SILVER"), key)


# ---- validation ----------------------------------------------------------------------------------------------------


def try_out(
    spark: SparkSession, connection: warehouse.Connection, coming: Coming, staging: str
) -> tuple[dict[str, dict[date, Any]], dict[str, Retrial]]:
    """Validates the date's files, and the partitions whose parents would come or go with them."""
    runs, trials, day = dry_run.standing_runs(connection), dict[str, Retrial](), coming.day

    def records(spark: SparkSession, dataset: Dataset, of_day: date) -> tuple[Sequence[str], DataFrame]:
        if of_day != day:
            return dry_run.read_bronze(spark, dataset, of_day)
        facts = coming.facts[dataset.name]
        path = raw.staged(f"{staging}/{dataset.name}.csv")
        return facts.header, spark_csv.records(spark, dataset, day, facts, path)

    for name, dataset in CATALOG.items():
        shaken = dry_run.shaken_days(spark, dataset, trials)
        days = [each for each in runs[name] if each in shaken and each != day]
        if name in coming.facts:
            runs[name][day] = {"bronze_sha256": coming.facts[name].sha256}
            days = sorted([*days, day])
        if days:
            trials[name] = dry_run.retrial(spark, dataset, days, trials, records)
    return runs, trials


def only(trial: Retrial, day: date) -> Retrial:
    """Returns a trial with the counts of one partition alone."""
    return replace(trial, counts={each: counts for each, counts in trial.counts.items() if each == day})


# ---- what is told --------------------------------------------------------------------------------------------------


def verdict_lines(coming: Coming, trials: Mapping[str, Retrial]) -> Iterator[str]:
    """Yields each dataset's rows by verdict, and its reasons with the lines of some records."""
    for name in coming.facts:
        counts, dataset = trials[name].counts[coming.day], CATALOG[name]
        numbers = f"{counts.accepted:,} accepted + {counts.rows - counts.accepted:,} rejected"
        yield f"{name}: {counts.rows:,} rows = {numbers}"
        if counts.rows == counts.accepted:
            continue
        found = examples(trials[name], dataset, coming)
        for code, hits in counts.hits.items():
            if hits:
                yield f"  {code:<32}{hits:>9,}  {found.get(code, '')}".rstrip()


def examples(trial: Retrial, dataset: Dataset, coming: Coming) -> dict[str, str]:
    """Returns, by reason, the file and lines of some of its records."""
    rejected = trial.rejected.filter(F.col("_partition_date") == coming.day)
    of_code = Window.partitionBy("code").orderBy("_raw")
    rows = (
        rejected.select(dataset.key, "_raw", F.explode("_reject_reasons.code").alias("code"))
        .withColumn("place", F.row_number().over(of_code))
        .filter(F.col("place") <= EXAMPLES)
        .collect()
    )
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["code"], []).extend(places(row[dataset.key], row["_raw"], row["code"], dataset, coming))
    return {code: landing.listed(dict.fromkeys(lines), EXAMPLES) for code, lines in found.items() if lines}


def places(key: str | None, text: str, code: str, dataset: Dataset, coming: Coming) -> Iterator[str]:
    """Yields the file and line of a rejected row: by its text, or by its key in the source's files."""
    most = 2 if code.startswith("duplicate_") else 1
    if coming.export is None:
        with coming.files[dataset.name].open(encoding="utf-8-sig", errors="replace", newline="\n") as lines:
            yield from (f"line {line:,}" for line in islice(lines_with(lines, text), most))
        return
    source = coming.export.source
    mapping = source.by_dataset[dataset.name]
    for file in coming.export.files(mapping):
        with coming.export.paths[file.name].open("rb") as opened:
            lines = io.TextIOWrapper(opened, encoding=source.encoding, newline="\n")
            if code == "malformed_row":
                numbers: Iterator[int] = lines_with(lines, text, source)
            elif key and key.strip():
                numbers = exports.find(lines, key.strip(), source, mapping, dataset.key)
            else:
                return
            yield from (f"{borders.printable(file.name)} line {line:,}" for line in islice(numbers, most))


def lines_with(lines: Iterator[str], text: str, source: Source | None = None) -> Iterator[int]:
    """Yields the lines in which a record of this text begins."""
    number = 1
    form = source.dialect if source else landing.RFC_4180
    for record, span, _ in landing.read_records(lines, form):
        if record.rstrip("\n").removesuffix("\r") == text:
            yield number
        number += span


def other_lines(trials: Mapping[str, Retrial], day: date) -> Iterator[str]:
    """Yields the rows of other dates that would flip, as their parents come or go."""
    lines = []
    for trial in trials.values():
        of_others = {key: rows for key, rows in trial.flips.items() if key[1] != day}
        lines += list(verdict_diff.summed(Counter(of_others)))
    if lines:
        yield "Rows of other dates that would flip"
    yield from (f"  {line}" for line in lines)


# ---- change of schema ----------------------------------------------------------------------------------------------


def schema_lines(connection: warehouse.Connection, folder: Path, source: Source | None, day: date) -> Iterator[str]:
    """Yields how the files differ in shape from those of the last date; first, as a change may be why a run refuses."""
    with tempfile.TemporaryDirectory() as place:
        before = fetch_last(connection, source, day, Path(place))
        if before is None:
            yield "Change of schema: there is no date before to compare with"
            return
        now = profile(folder)
        if source is None:  # other files beside the datasets' own are not read
            own = tuple(table for table in now.tables if table.pattern.removesuffix(".csv") in CATALOG)
            now = now._replace(tables=own)
        told = list(drift.compare(profile(Path(place)), now, listed(source), settings.small_cells()))
    yield f"Change of schema since {before}: {'none' if not told else ''}".rstrip()
    yield from (f"  {line}" for line in told)


def listed(source: Source | None) -> set[str]:
    """Returns the columns whose values are codes, by their names in the files."""
    of_ours = {(n, column.name) for n, dataset in CATALOG.items() for column in dataset.columns if column.one_of}
    if source is None:
        return {column for _, column in of_ours}
    cells = ((mapping.dataset, *each) for mapping in source.mappings for each in mapping.columns)
    return {name for dataset, column, cell in cells if (dataset, column) in of_ours for name in cell.names}


def fetch_last(connection: warehouse.Connection, source: Source | None, day: date, place: Path) -> date | None:
    """Copies the files of the newest date but this one from bronze; returns that date, or None if there is none."""
    cursor = connection.cursor(row_factory=dict_row)
    bucket = settings.get("MINIO_BUCKET_BRONZE")
    if source is None:
        found = cursor.execute(
            "select dataset, max(partition_date) as day from ops.receipts "
            "where layer = 'bronze' and partition_date < %s group by dataset",
            [day],
        ).fetchall()
        for row in found:
            if row["dataset"] in CATALOG:
                key = lake_paths.bronze_key(CATALOG[row["dataset"]], row["day"])
                object_store.s3().download_file(bucket, key, str(place / f"{row['dataset']}.csv"))
        return max((row["day"] for row in found), default=None)
    found = cursor.execute(
        "select distinct file_name, partition_date as day from ops.source_files join ops.receipts "
        "using (run_id, partition_date) where layer = 'source' and source_name = %s and partition_date = ("
        "select max(partition_date) from ops.receipts where layer = 'source' and dataset = %s and partition_date < %s)",
        [source.name, source.name, day],
    ).fetchall()
    for row in found:
        if "/" not in row["file_name"]:
            key = raw.key(source.name, row["day"], row["file_name"])
            object_store.s3().download_file(bucket, key, str(place / row["file_name"]))
    return found[0]["day"] if found else None


if __name__ == "__main__":
    main()
