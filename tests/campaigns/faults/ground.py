"""Provides a small hospital's files in two versions, and digests of the stores' content.

Reads silver from the Delta logs, not through Spark; run ids and load times do not count as content.
"""

import csv
import io
import json
import os
from datetime import date
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet

from jobs import lake_paths, object_store, settings, warehouse
from jobs.catalog import CATALOG
from jobs.landing import landing_path
from stack import services, supervision

NOT_CONTENT = {"_run_id", "_loaded_at", "id"}
SQL = settings.ROOT / "sql"
MARTS = {file.stem: file for file in sorted((SQL / "marts").glob("*.sql"))}
CHECKS = {file.stem: file.read_text() for file in sorted((SQL / "checks").glob("*.sql"))}

# Changes for a third of a corrected file's rows; none changes a key that other rows reference.
CORRECTED = {
    "patients": ("city", "Corrected"),
    "visits": ("doctor_id", "D-corrected"),
    "admissions": ("room_type", "ICU"),
    "treatments": ("treatment_cost", "11.11"),
    "billing": ("patient_amount", "7.77"),
}
LEAVES = ("admissions", "treatments", "billing")  # rows of these may be removed as well


def corrected(dataset: str, text: bytes) -> bytes:
    """Returns the other version of a landing file."""
    head, *rows = csv.reader(io.StringIO(text.decode(), newline=""))
    column, value = CORRECTED[dataset]
    place = head.index(column)
    for row in rows[::3]:
        if len(row) == len(head):
            row[place] = value
    kept = [row for number, row in enumerate(rows) if dataset not in LEAVES or number % 20 != 7]
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([head, *kept])
    return out.getvalue().encode()


def land(dataset: str, day: date, text: bytes) -> None:
    path = landing_path(CATALOG[dataset], day)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_bytes(text)
    new.replace(path)


def digest(rows: Any) -> str:
    return sha256("\n".join(sorted(map(repr, rows))).encode()).hexdigest()[:16]


# ---- content of the stores -----------------------------------------------------------------------------------------


def bronze(dataset: str, day: date) -> str:
    """Returns a digest of a bronze file and its metadata."""
    answer = object_store.s3().get_object(
        Bucket=settings.get("MINIO_BUCKET_BRONZE"), Key=lake_paths.bronze_key(CATALOG[dataset], day)
    )
    return digest([answer["Body"].read(), *sorted(answer["Metadata"].items())])


@lru_cache(maxsize=4096)
def stored(key: str, etag: str) -> bytes:
    return object_store.s3().get_object(Bucket=settings.get("MINIO_BUCKET_SILVER"), Key=key)["Body"].read()


@lru_cache(maxsize=1024)
def rows_of(key: str, etag: str) -> tuple[str, ...]:
    table = pyarrow.parquet.read_table(io.BytesIO(stored(key, etag)))
    return tuple(repr({n: v for n, v in row.items() if n not in NOT_CONTENT}) for row in table.to_pylist())


def silver(dataset: str, kind: str, day: date) -> str:
    """Returns a digest of the rows of one partition of a silver table, by its log."""
    root = lake_paths.silver_path(CATALOG[dataset], kind).removeprefix("s3a://").partition("/")[2]
    pages = object_store.s3().get_paginator("list_objects_v2")
    there = {
        entry["Key"]: entry["ETag"]
        for page in pages.paginate(Bucket=settings.get("MINIO_BUCKET_SILVER"), Prefix=f"{root}/")
        for entry in page.get("Contents", [])
    }
    files: set[str] = set()
    for key in sorted(name for name in there if name.startswith(f"{root}/_delta_log/0") and name.endswith(".json")):
        try:
            entries = [json.loads(line) for line in stored(key, there[key]).splitlines()]
        except ValueError:
            return "its log is torn"
        for entry in entries:
            if "add" in entry:
                files.add(entry["add"]["path"])
            elif "remove" in entry:
                files.discard(entry["remove"]["path"])
    mine = [f"{root}/{name}" for name in files if name.startswith(f"_partition_date={day}/")]
    return digest(row for key in mine for row in rows_of(key, there[key]))


def table(connection: Any, name: str, where: str = "true") -> str:
    # Plans the query anew: a name may mean another table in the next call.
    columns = connection.execute(f"select * from {name} limit 0", prepare=False).description
    names = ", ".join(column.name for column in columns if column.name not in NOT_CONTENT)
    return digest(map(tuple, connection.execute(f"select {names} from {name} where {where}")))


def gold(connection: Any, dataset: str, day: date) -> str:
    """Returns digests of a gold table's rows of one partition, and of its excluded rows."""
    of_day = f"_partition_date = '{day}'"
    withheld = table(connection, "ops.withheld", f"dataset = '{dataset}' and {of_day}")
    return f"{table(connection, dataset, of_day)} {withheld}"


def marts(connection: Any) -> dict[str, str]:
    return {name: table(connection, name) for name in MARTS}


def marts_by_hand(connection: Any) -> dict[str, str]:
    """Returns digests of the marts that their SQL makes from the current gold."""
    found = {}
    for name, file in MARTS.items():
        columns = ", ".join(column.name for column in connection.execute(f"select * from {name} limit 0").description)
        with connection.transaction():
            connection.execute(f"create temp table made (like {name}) on commit drop")  # with the mart's types
            connection.execute(f"insert into made ({columns}) select {columns} from (\n{file.read_text()}\n) as rows")
            found[name] = table(connection, "made")
    return found


def violated_invariants(connection: Any) -> list[str]:
    return [name for name, query in CHECKS.items() if connection.execute(query).rowcount]


def state(connection: Any) -> dict[str, str]:
    """Returns digests of everything: silver, gold, excluded rows, marts."""
    found = {name: table(connection, name) for name in (*CATALOG, "ops.withheld")} | marts(connection)
    with connection.cursor() as cursor:
        days = cursor.execute("select distinct partition_date from ops.receipts where layer = 'silver'").fetchall()
    for (day,) in days:
        for dataset in CATALOG:
            for kind in ("accepted", "rejected"):
                found[f"silver {kind} {dataset} {day}"] = silver(dataset, kind, day)
    return found


# ---- leftovers -----------------------------------------------------------------------------------------------------


def left_behind(connection: Any) -> list[str]:
    """Lists staging tables, locks, open transactions, uploads and jobs that nobody will continue."""
    found = [
        f"the staging table {name}"
        for (name,) in connection.execute("select tablename from pg_tables where schemaname = 'staging'")
    ]
    found += [
        f"an advisory lock of {pid}"
        for (pid,) in connection.execute("select distinct pid from pg_locks where locktype = 'advisory'")
    ]
    found += [
        f"a transaction that has been {state} since {since}"
        for state, since in connection.execute(
            "select state, xact_start from pg_stat_activity where datname = current_database() "
            "and state like 'idle in transaction%' and pid <> pg_backend_pid()"
        )
    ]
    for name in ("MINIO_BUCKET_BRONZE", "MINIO_BUCKET_SILVER"):
        uploads = object_store.s3().list_multipart_uploads(Bucket=settings.get(name)).get("Uploads", [])
        found += [f"an upload of {upload['Key']}" for upload in uploads]
    return found


def jobs_alive() -> list[str]:
    """Lists this stack's running jobs."""
    home, found = os.environ["STACK_DIR"], []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            if "jobs/" in words or "-m pipelines" in words:
                # For a job that Luigi forked, the process title overwrites its environment.
                family = [process, *process.parents()]
                if any(each.environ().get("STACK_DIR") == home for each in family):
                    found.append(words)
        except psutil.Error:
            continue
    return found


def executors() -> list[psutil.Process]:
    """Lists the executors of this stack."""
    found = []
    for process in supervision.leftovers():
        try:
            if "CoarseGrainedExecutorBackend" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def temporary(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def markers(connection: Any) -> list[tuple]:
    query = "select layer, dataset, partition_date, run_id, made_from from ops.receipts order by 1, 2, 3"
    return [tuple(row) for row in connection.execute(query)]


def lacking(names: list[str]) -> dict[str, str]:
    return {name: lack for name in names if (lack := services.SERVICES[name].lacking())}


def connect() -> Any:
    return warehouse.connect()
