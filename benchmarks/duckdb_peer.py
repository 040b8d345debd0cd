"""Processes the same date with DuckDB and COPY: `python -m benchmarks.duckdb_peer 2026-01-01` on a running stack.

DuckDB's CSV reader separates malformed records, one query per dataset validates the rest, Parquet goes to MinIO, and
accepted rows go through COPY and one `insert ... on conflict do update` per table. Files pass through the local disk,
since DuckDB's own S3 client is an extension that it would have to download.
"""

import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import peer
from jobs.catalog import CATALOG
from jobs.dataset import WHITE_SPACE, Column, Dataset
from jobs.object_store import s3
from jobs.warehouse import literal

DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
TIME = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
ZONE = "(Z|[+-]((0[0-9]|1[0-7]):[0-5][0-9]|18:00))"
DECIMAL = r"[+-]?([0-9]+(\.[0-9]+)?|\.[0-9]+)"
TYPES = {"text": "text", "date": "date", "timestamp": "timestamp", "decimal": "decimal(12, 2)"}


def connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    connection.execute("set preserve_insertion_order = false")
    return connection


def validate(connection: duckdb.DuckDBPyConnection, path: Path, dataset: Dataset) -> None:
    """Writes a file's records to the tables `accepted_<dataset>` and `rejected_<dataset>`.

    Reads the accepted parent keys from the parents' `accepted_` tables.
    """
    name, key = dataset.name, dataset.key
    with path.open("rb") as file:
        header = peer.read_header(file.readline(), dataset)
    connection.execute(f"create temp table validated as {verdicts_query(path, dataset, header)}")
    # Orders only rows with duplicate keys, and by content, so that the same version always wins.
    content = ", ".join(precedence(dataset))
    connection.execute(
        f"update validated set reasons = 'duplicate_{key}' where rowid in (select rowid from (select rowid, "
        f"row_number() over (partition by {key} order by {content}) as place from validated where reasons = '' "
        f"and {key} in (select {key} from validated where reasons = '' group by {key} having count(*) > 1)) "
        "where place > 1)"
    )
    names = ", ".join(dataset.names)
    connection.execute(f"create table accepted_{name} as select {names} from validated where reasons = ''")
    source = ", ".join(f"nullif(source.{column}, '') as {column}" for column in dataset.names)
    # A record can have two defects, and a blank line is not a record.
    connection.execute(
        f"create table rejected_{name} as "
        f"select {source}, _raw, reasons as _reject_reason from validated where reasons <> '' "
        f"union all by name select any_value(csv_line) as _raw, 'malformed_row' as _reject_reason from errors_{name} "
        f"where trim(csv_line, {literal(WHITE_SPACE)}) <> '' group by line_byte_position"
    )
    connection.execute("drop table validated")


def precedence(dataset: Dataset) -> Iterator[str]:
    """Yields the order of a key's versions: most values, highest rank, latest, greatest first."""
    columns = dataset.columns[1:]
    known = {column: f"{column.name} is not null" for column in columns}
    known |= {c: f"{known[c]} and {c.name} <> {literal(c.not_known)}" for c in columns if c.not_known}
    yield " + ".join(f"({condition})::int" for condition in known.values()) + " desc"
    for column in columns:
        if column.ranks:
            ranks = " ".join(f"when {literal(value)} then {place}" for value, place in column.ranks.items())
            yield f"case {column.name} {ranks} end nulls last"
    yield from (f"{column.name} desc nulls last" for column in columns if column.is_time)
    yield from (f"{column.name} desc nulls last" for column in columns if not column.is_time)


def verdicts_query(path: Path, dataset: Dataset, header: list[str]) -> str:
    """Returns a query with one row per well-formed record: typed values, source text if rejected, and `reasons`."""
    fields = ", ".join(f"{literal(field)}: 'varchar'" for field in header)
    # If empty fields were read as null, DuckDB would miss one surplus empty field at the end of a record.
    reader = (
        f"read_csv({literal(str(path))}, auto_detect = false, header = true, delim = ',', quote = '\"', "
        f"escape = '\"', columns = {{{fields}}}, nullstr = '\x01\x02', store_rejects = true, rejects_limit = 0, "
        f"rejects_table = 'errors_{dataset.name}', rejects_scan = 'scans_{dataset.name}', max_line_size = 10000000)"
    )
    names = ", ".join(dataset.names)
    texts = ", ".join(f"{trimmed(name)} as text_{name}" for name in dataset.names)
    values = ", ".join(f"{read(column)} as {column.name}" for column in dataset.columns)
    has_nul = " or ".join(f"contains({name}, chr(0))" for name in dataset.names)
    broken = ", ".join(f"case when {condition} then '{code}' end" for code, condition in rules(dataset))
    parents = " ".join(
        f"left join accepted_{parent} as parent_{name} on text_{name} = parent_{name}.{CATALOG[parent].key}"
        for name, parent in dataset.parents.items()
    )
    own = ", ".join(f"typed.{name}" for name in dataset.names)
    return f"""
        with texts as (
            select struct_pack({names}) as source, {has_nul} as has_nul, {texts} from {reader}
        ),
        typed as (select *, {values} from texts),
        validated as (
            select {own}, source, has_nul,
                case when coalesce(has_nul, false) then 'malformed_row' else concat_ws(';', {broken}) end as reasons
            from typed {parents}
        )
        select {names}, reasons, case when reasons <> '' then source end as source,
            case when has_nul then concat_ws(',', {", ".join(f"source.{name}" for name in dataset.names)}) end as _raw
        from validated
    """


def trimmed(name: str) -> str:
    """Returns SQL for a column's text without surrounding white space; null if nothing is left."""
    # trim() with a list of characters is much slower than checking whether there is anything to trim.
    plain = f"regexp_full_match({name}, '[!-~]([ -~]*[!-~])?')"
    return f"case when {plain} then {name} else nullif(trim({name}, {literal(WHITE_SPACE)}), '') end"


def read(column: Column) -> str:
    """Returns SQL for a column's typed value; null if it is blank, unreadable or not a listed value."""
    text = f"text_{column.name}"
    if column.one_of:
        listed = " ".join(f"when {literal(value.lower())} then {literal(value)}" for value in column.one_of)
        return f"case lower({text}) {listed} end"
    if column.type == "date":
        return f"case when regexp_full_match({text}, '{DATE}') and {text} >= '0001' then try_cast({text} as date) end"
    if column.type == "timestamp":
        zoned = f"(try_cast({text} as timestamptz) at time zone 'UTC')"
        return f"""
            case when {text} < '0001' then null
            when regexp_full_match({text}, '{DATE}[T ]{TIME}') then try_cast({text} as timestamp)
            when regexp_full_match({text}, '{DATE}[T ]{TIME}{ZONE}')
                and {zoned} between timestamp '0001-01-01' and timestamp '9999-12-31 23:59:59.999999' then {zoned}
            end
        """
    if column.type == "decimal":
        return f"case when regexp_full_match({text}, '{DECIMAL}') then try_cast({text} as decimal(12, 2)) end"
    return text


def rules(dataset: Dataset) -> list[tuple[str, str]]:
    """Returns (code, condition for the code) in declared order."""
    found = []
    for column in dataset.columns:
        text, value = f"text_{column.name}", f"typed.{column.name}"
        if column.required:
            found.append((f"missing_{column.name}", f"{text} is null"))
        if column.type != "text":
            found.append((f"unreadable_{column.name}", f"{text} is not null and {value} is null"))
        if column.one_of:
            found.append((f"unknown_{column.name}", f"{text} is not null and {value} is null"))
        if column.references:
            key = CATALOG[column.references].key
            found.append((f"orphan_{column.name}", f"{text} is not null and parent_{column.name}.{key} is null"))
    for rule in dataset.rules:
        readable = " and ".join(f"(text_{name} is null or typed.{name} is not null)" for name in rule.columns)
        found.append((rule.reason, f"{readable} and not ({rule.holds})"))
    return found


def silver(day: date) -> tuple[duckdb.DuckDBPyConnection, dict[str, dict[str, int]]]:
    """Validates the five files and writes the results to MinIO as Parquet; returns the connection and rejects."""
    connection, hits = connect(), {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        for dataset in CATALOG.values():
            s3().download_file(peer.bucket("duckdb"), peer.bronze_key(dataset, day), str(path))
            validate(connection, path, dataset)
            for kind in ("accepted", "rejected"):
                connection.execute(f"copy {kind}_{dataset.name} to {literal(str(path))} (format parquet)")
                peer.store("duckdb", path, peer.silver_key(dataset, day, kind))
            found = connection.execute(
                "select code, count(*) from (select unnest(string_split(_reject_reason, ';')) as code "
                f"from rejected_{dataset.name}) group by code"
            )
            hits[dataset.name] = dict(found.fetchall())
    return connection, hits


def gold(postgres: Any, connection: duckdb.DuckDBPyConnection, day: date) -> None:
    """Copies accepted rows into unlogged staging tables and upserts them in one transaction."""
    with tempfile.TemporaryDirectory() as folder, postgres, postgres.cursor() as cursor:
        cursor.execute("".join(peer.tables()))
        for dataset in CATALOG.values():
            names, path = ", ".join(peer.columns(dataset)), Path(folder, f"{dataset.name}.csv")
            connection.execute(
                f"copy (select *, date '{day}' as _partition_date, '{peer.RUN}' as _run_id "
                f"from accepted_{dataset.name}) to {literal(str(path))} (format csv, header false)"
            )
            staging = f"staging_{dataset.name}"
            cursor.execute(f"create unlogged table {staging} as select {names} from {dataset.name} with no data")
            with path.open() as file:
                cursor.copy_expert(f"copy {staging} from stdin (format csv)", file)
            cursor.execute(f"analyze {staging}")
            cursor.execute(peer.upsert(dataset, f"select {names} from {staging}"))
            cursor.execute(f"drop table {staging}")


def marts(postgres: Any, day: date) -> None:
    """Rebuilds all marts with the platform's own statements."""
    with postgres, postgres.cursor() as cursor:
        cursor.execute(f"analyze {', '.join(CATALOG)}")
        for mart, select in peer.MARTS.items():
            cursor.execute(f"delete from {mart}")
            cursor.execute(f"insert into {mart} {select}")


if __name__ == "__main__":
    peer.run("duckdb", silver, gold, marts)
