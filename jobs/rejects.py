"""Shows rejected rows and why, tells the whole story of a key, and exports files to hand back to their owners.

python -m jobs.rejects show 2026-01-31 [--dataset visits] [--keys]
KEY=V00000123 python -m jobs.rejects why    (other users could see a key that is an argument in the list of processes)
python -m jobs.rejects export 2026-01-31 [--dataset visits] [--to data/rejects]
"""

import argparse
import csv
import os
import re
import tempfile
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from psycopg.rows import dict_row

from jobs import (
    borders,
    bronze_files,
    delta_tables,
    lake_paths,
    landing,
    ledger,
    program,
    provenance,
    settings,
    warehouse,
)
from jobs.catalog import CATALOG, children
from jobs.dataset import WHITE_SPACE, Dataset, is_retryable
from jobs.dialect import RFC_4180, Dialect
from jobs.program import Refused

# Matches the start of a spreadsheet's cell: at the start of a field, and, if it does not split at commas, behind other
# characters that end a field. White space and quotes may come before the sign of a formula, which may be a wide form.
# Each character is read once, however long the blanks are: the lookahead always succeeds, so that nothing backtracks.
CELL_END = r"[;\t\r\n]"
CELL = re.compile(rf'(\A|{CELL_END})[\s"]*(?=([=+\-@＝＋－＠]?))')  # noqa: RUF001
NUMBER = r'[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)[\s"]*'  # a plain number is no formula
NUMBER_CELL, NUMBER_FIELD = re.compile(rf"{NUMBER}(?={CELL_END}|\Z)"), re.compile(rf"{NUMBER}\Z")
FEW = 3  # rows; a smaller difference is no trend


def main() -> None:
    """Prints the answer to the command line, or ends the program with a sentence."""
    parser = argparse.ArgumentParser(prog="rejects", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="counts by reason, against earlier dates")
    show.add_argument("date")
    show.add_argument("--keys", action="store_true", help="name the rejected rows by their keys")
    story = commands.add_parser("why", help="the whole story of a key")
    story.add_argument("key", nargs="?", default=os.environ.get("KEY", ""), help="else the environment's KEY is taken")
    export = commands.add_parser("export", help="a CSV per dataset: the rows as they came, with their reasons")
    export.add_argument("date")
    export.add_argument("--to", default="data/rejects", help="the folder; relative ones are taken from the clone")
    for command in (show, export):
        command.add_argument("--dataset", choices=list(CATALOG))
    given = parser.parse_args()
    try:
        for line in answer(given):
            borders.say(line)
    except Exception as error:
        program.leave(1, program.sentence(error))


def answer(given: argparse.Namespace) -> Iterator[str]:
    """Returns the lines that answer one command."""
    if given.command == "why":
        program.bring_up_to_date()
        return why(given.key)
    day = program.given_day(given.date)  # checked before any store is asked
    program.bring_up_to_date()
    datasets = [CATALOG[given.dataset]] if given.dataset else list(CATALOG.values())
    if given.command == "show":
        return rejects(day, datasets, given.keys)
    return export_rejects(day, datasets, settings.ROOT / Path(given.to).expanduser())


# ---- counts by reason ----------------------------------------------------------------------------------------------


def rejects(day: date, datasets: Sequence[Dataset], keys: bool) -> Iterator[str]:
    """Yields for each dataset how many rows of its file were rejected for each reason, compared with earlier dates.

    Lists the keys of the rejected rows if `keys` is true.
    """
    with warehouse.connect() as connection:
        runs = standing_runs(connection, day, datasets)
        by_reason = rejected_keys(day, runs) if keys else {}
        for name, run in runs.items():
            share = f" ({percent(run['rejected'], run['bronze_rows'])})" if run["rejected"] else ""
            due = "; due to be revalidated: parents came or went" if run["stale_since"] else ""
            yield (
                f"{name} {day}: {run['bronze_rows']:,} rows = {run['accepted']:,} accepted + "
                f"{run['rejected']:,} rejected{share}{due}"
            )
            yield from reason_lines(connection, CATALOG[name], run, by_reason)


def standing_runs(
    connection: warehouse.Connection, day: date, datasets: Sequence[Dataset]
) -> dict[str, dict[str, Any]]:
    """Returns the current silver runs of a date by dataset; raises Refused if there are none."""
    found = {dataset.name: ledger.standing(connection, dataset, day) for dataset in datasets}
    runs = {name: run for name, run in found.items() if run}
    if not runs:
        what = day if len(datasets) > 1 else f"{datasets[0].name} of {day}"
        raise Refused(f"{what} has not been validated; run it first: `make run DATE={day}`.")
    return runs


def reason_lines(
    connection: warehouse.Connection,
    dataset: Dataset,
    run: Mapping[str, Any],
    keys: Mapping[tuple[str, str], list[str]],
) -> Iterator[str]:
    """Yields a line for each reason that has rejected rows, or that has some on a usual date."""
    rows, usual = run["bronze_rows"], usual_shares(connection, dataset, run["partition_date"])
    hits = dict(
        connection.execute("select reason, hits from ops.reasons where run_id = %s", [run["run_id"]]).fetchall()
    )
    most_first = sorted(hits, key=lambda code: (-hits[code], code))
    if shown := [code for code in most_first if hits[code] or usual.get(code, 0) * rows >= FEW]:
        yield f"  {'reason':<28}{'rows':>7}{'share':>9}{'usual':>9}  {'trend':<18}what must hold"
    for code in shown:
        before = percent(usual[code], 1) if code in usual else "-"
        waits = f"; {may_repair(connection, dataset, run['partition_date'])}" if is_retryable(code) else ""
        yield (
            f"  {code:<28}{hits[code]:>7,}{percent(hits[code], rows):>9}{before:>9}  "
            f"{trend(hits[code], rows, usual.get(code)):<18}"
            f"{dataset.reasons.get(code, 'no longer declared')}{waits}"
        )
        yield from list_keys(keys.get((dataset.name, code), []))


def may_repair(connection: warehouse.Connection, dataset: Dataset, day: date) -> str:
    """Returns a phrase on whether a parent that comes now would still count for the orphans of a date.

    It would as long as the newest date in gold is not past the last partition that counts.
    """
    last = dataset.waits_until(day)
    newest = ledger.newest(connection) or day
    return f"retryable: its parent may come up to {last}" if newest <= last else f"final: its parent was due by {last}"


def usual_shares(connection: warehouse.Connection, dataset: Dataset, day: date) -> dict[str, float]:
    """Returns by reason the median share of the rows of up to eight earlier dates, whatever their rules were."""
    found = connection.execute(
        "with earlier as (select run_id, bronze_rows from ops.standing where dataset = %s and partition_date < %s "
        "and bronze_rows > 0 order by partition_date desc limit 8) "
        "select reason, percentile_cont(0.5) within group (order by hits::float / bronze_rows) "
        "from earlier join ops.reasons using (run_id) group by reason",
        [dataset.name, day],
    )
    return dict(found.fetchall())


def trend(hits: int, rows: int, usual: float | None) -> str:
    """Returns in words how the number of rejected rows compares with their usual share."""
    if usual is None:
        return "no earlier date"
    if not usual:
        return "new" if hits else "as usual"
    if abs(hits - usual * rows) < FEW or 0.5 <= hits / (usual * rows) <= 2:
        return "as usual"
    return f"{hits / (usual * rows):.1f} times usual"


def percent(part: float, whole: float) -> str:
    """Returns a part as a percentage of the whole."""
    return f"{100 * part / whole:.2f} %" if whole else "-"


def rejected_keys(day: date, runs: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """Returns the keys of rejected rows by (dataset, reason); blank for a row without a key that can be trusted."""
    datasets = [CATALOG[name] for name, run in runs.items() if run["rejected"]]
    if not datasets:
        return {}
    spark = program.resident(f"rejects {day}")
    program.tune_for_small_input(spark, sum(run["rejected"] for run in runs.values()))
    found = defaultdict(list)
    rows = union(rows_of(spark, each, "rejected", day) for each in datasets).select("dataset", "key", "codes")
    for name, key, codes in rows.collect():
        for code in codes:
            found[name, code].append("" if code == "malformed_row" else key or "")
    return found


def list_keys(keys: Sequence[str]) -> Iterator[str]:
    """Yields keys in order, on wrapped lines, and the number of rows without a readable key."""
    named = sorted(borders.printable(key) for key in keys if key)
    without = [f"{len(keys) - len(named):,} without a key that can be read"] if len(named) < len(keys) else []
    yield from textwrap.wrap(
        ", ".join([*named, *without]),
        width=116,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


# ---- the story of a key --------------------------------------------------------------------------------------------


class Sighting(NamedTuple):
    """Holds a row of silver that has a key; it was accepted if it has no `codes`."""

    dataset: str
    key: str
    day: date
    run_id: str
    codes: list[str] | None
    parents: list[str]  # the keys of its parents, in the order of its dataset's foreign keys
    values: list[str | None]  # of its columns, in declared order: to be compared, never to be shown


def why(text: str) -> Iterator[str]:
    """Yields the story of a key: each partition whose file has it, with the file and the verdict, and what gold has.

    Of an orphan, it also says which parent is missing and until when that may come. Raises Refused if no validated file
    has the key.
    """
    key = text.strip(WHITE_SPACE)
    if not key:
        raise Refused("say which key, as in: make why KEY=V00000123")
    with warehouse.connect() as connection:
        spark = program.resident("why")
        program.tune_for_small_input(
            spark, warehouse.value(connection, "select coalesce(sum(bronze_rows), 0) from ops.standing")
        )
        seen = sightings(spark, {name: {key} for name in CATALOG})
        if not seen:
            raise Refused(
                f"no file that was validated holds a row with the key {borders.printable(key)}; keys are spelt "
                "exactly as in the file, and `make ledger` shows which dates were validated."
            )
        wanted = defaultdict(set)
        for row in seen:
            for _, parent, parent_key in waiting_for(row):
                wanted[parent].add(parent_key)
        parents = sightings(spark, wanted) if wanted else []
        for name in dict.fromkeys(row.dataset for row in seen):
            yield f"{name} {borders.printable(key)}"
            for day in sorted({row.day for row in seen if row.dataset == name}):
                rows = [row for row in seen if (row.dataset, row.day) == (name, day)]
                yield from partition_story(connection, CATALOG[name], day, rows, parents)
            yield from gold_story(connection, CATALOG[name], key)


def sightings(spark: Any, wanted: Mapping[str, set[str]]) -> list[Sighting]:
    """Returns the silver rows of these keys, which are given by dataset.

    The keys go to Spark as data, so that no plan and no log shows them.
    """
    from pyspark.sql import functions as F

    keys = spark.createDataFrame(
        [(name, key) for name in wanted for key in sorted(wanted[name])], "of string, is string"
    )
    rows = union(rows_of(spark, CATALOG[name], kind) for name in wanted for kind in ("accepted", "rejected"))
    same = (F.col("dataset") == F.col("of")) & (F.col("key") == F.col("is"))
    found = rows.join(F.broadcast(keys), on=same, how="left_semi").collect()
    order = {name: place for place, name in enumerate(CATALOG)}
    return sorted(
        (Sighting(*row) for row in found),
        key=lambda row: (order[row.dataset], row.day, row.codes or [], [value or "" for value in row.values]),
    )


def rows_of(spark: Any, dataset: Dataset, kind: str, day: date | None = None) -> Any:
    """Returns a silver table, or one partition of it, with the columns of a sighting."""
    from pyspark.sql import functions as F

    from jobs import validation

    rows = delta_tables.silver(spark, dataset, kind)
    is_rejected = kind == "rejected" and "_reject_reasons" in rows.columns
    rows = validation.read_again(rows, dataset) if is_rejected else rows
    return (rows.filter(F.col("_partition_date") == day) if day else rows).select(
        F.lit(dataset.name).alias("dataset"),
        F.col(dataset.key).alias("key"),
        F.col("_partition_date").alias("day"),
        "_run_id",
        (F.col("_reject_reasons.code") if is_rejected else F.lit(None).cast("array<string>")).alias("codes"),
        F.array(*dataset.parents).cast("array<string>").alias("parents"),
        F.array(*(F.col(name).cast("string") for name in dataset.names)).alias("values"),
    )


def union(frames: Iterator[Any]) -> Any:
    """Returns the rows of all frames."""
    return reduce(lambda one, other: one.unionAll(other), frames)


def waiting_for(row: Sighting) -> Iterator[tuple[str, str, str]]:
    """Yields (foreign key, parent dataset, parent's key) for each parent that a row lacks."""
    for (name, parent), key in zip(CATALOG[row.dataset].parents.items(), row.parents, strict=True):
        if row.codes and f"orphan_{name}" in row.codes:
            yield name, parent, key


def partition_story(
    connection: warehouse.Connection, dataset: Dataset, day: date, rows: Sequence[Sighting], parents: Sequence[Sighting]
) -> Iterator[str]:
    """Yields the story of a key in one partition: the file, and each row with its verdict and its reasons."""
    yield from file_lines(connection, dataset, day)
    yield from (f"    {line}" for line in provenance.lines(connection, dataset, day, rows[0].key))
    stands = next((row for row in rows if not row.codes), None)
    for row in rows:
        verdict = f"rejected: {';'.join(row.codes)}" if row.codes else "accepted"
        yield f"    {verdict}  (run {row.run_id})"
        for code in row.codes or ():
            yield f"      {code}: {dataset.reasons.get(code, 'no longer declared')}"
        if stands and row.codes == [f"duplicate_{dataset.key}"]:
            yield f"      {difference(row, stands)}"
        for name, parent, key in waiting_for(row):
            found = [each for each in parents if (each.dataset, each.key) == (parent, key)]
            yield f"      {name} {borders.printable(key)}: {parent_story(connection, dataset, day, found)}"


def difference(row: Sighting, stands: Sighting) -> str:
    """Returns the columns in which a row differs from the accepted row of its key and partition, without values."""
    names = CATALOG[row.dataset].names
    differing = [name for name, *values in zip(names, row.values, stands.values, strict=True) if len({*values}) > 1]
    if differing:
        return f"differs from the version that stands in {', '.join(differing)}"
    return "has the values of the version that stands; at most it is written differently"


def file_lines(connection: warehouse.Connection, dataset: Dataset, day: date) -> Iterator[str]:
    """Yields the bronze file from which a partition was validated, and whether the partition is due again."""
    run = ledger.standing(connection, dataset, day)
    path = lake_paths.bronze_path(dataset, day)
    if run is None:
        yield f"  {day}  {path}, whose run has not finished"
        return
    of_partition = "dataset = %(dataset)s and partition_date = %(partition_date)s"
    came, newest = connection.execute(
        "select min(ended_at) filter (where bronze_sha256 = %(bronze_sha256)s), "
        f"(select made_from from ops.receipts where layer = 'bronze' and {of_partition}) "
        f"from ops.ledger where layer = 'bronze' and outcome = 'done' and {of_partition}",
        run,
    ).fetchmany(1)[0]
    arrival = f"came {came:%Y-%m-%d %H:%M:%S} UTC" if came else "put there by another program"
    yield f"  {day}  {path}, {run['bronze_bytes']:,} bytes, {arrival}"
    yield f"    sha256 {run['bronze_sha256']}"
    if came and newest != run["bronze_sha256"]:
        yield "    the file came again since and waits to be validated"
    if run["stale_since"]:
        yield f"    due to be revalidated: parents came or went at {run['stale_since']:%Y-%m-%d %H:%M:%S} UTC"


def parent_story(connection: warehouse.Connection, dataset: Dataset, day: date, found: Sequence[Sighting]) -> str:
    """Returns what became of the parent that an orphan of `day` lacks, and how long the orphan waits for it."""
    last = dataset.waits_until(day)
    accepted = [row.day for row in found if not row.codes]
    if in_time := [each for each in accepted if each <= last]:
        return f"has come since, with {min(in_time)}; the next run validates this date again"
    if accepted:
        return f"came too late, with {min(accepted)}; it counted until {last}"
    fate = "has not come"
    if found:
        rejected = max(found, key=lambda row: row.day)
        fate = f"was rejected itself, in {rejected.day} ({';'.join(rejected.codes or ())})"
    return f"{fate}; {may_repair(connection, dataset, day)}"


def gold_story(connection: warehouse.Connection, dataset: Dataset, key: str) -> Iterator[str]:
    """Yields the version of a key in gold, with the keys of its parents and the number of rows that reference it."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(f"select * from {dataset.name} where {dataset.key} = %s", [key]).fetchone()
    if row is None:
        yield "  gold: no version of it"
        return
    yield (
        f"  gold: the version of {row['_partition_date']}, loaded {row['_loaded_at']:%Y-%m-%d %H:%M:%S} UTC  "
        f"(run {row['_run_id']})"
    )
    facts = [f"its {name} is {borders.printable(row[name])}" for name in dataset.parents]
    for child in children(dataset):
        name = next(column for column, parent in child.parents.items() if parent == dataset.name)
        rows = warehouse.value(connection, f"select count(*) from {child.name} where {name} = %s", [key])
        facts.append(f"{rows:,} {child.name}")
    if facts:
        yield f"    {', '.join(facts)}"


# ---- files to hand back --------------------------------------------------------------------------------------------


def export_rejects(day: date, datasets: Sequence[Dataset], folder: Path) -> Iterator[str]:
    """Writes a CSV for each dataset with rejected rows: the fields of its file as they were sent, then the reasons.

    If the dataset was made from a source's records, writes one CSV for each file of the source, in its encoding and
    with its separator. A malformed record has no fields that can be trusted: they are empty, and its text is in
    `_record`. A field that a spreadsheet would take for a formula, and that is no plain number, gets an apostrophe in
    front. Each file is written whole or not at all, and only its owner may read it. Yields a sentence on each.
    """
    with warehouse.connect() as connection:
        runs, spark = standing_runs(connection, day, datasets), None
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


def records_with_reasons(spark: Any, dataset: Dataset, day: date, header: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yields the header, then each rejected record of a partition in the order of their keys."""
    from pyspark.sql import functions as F

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


if __name__ == "__main__":
    main()
