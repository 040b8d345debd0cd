"""Provides what both peers share: a bucket and a database of their own on the platform's servers, and a clock."""

import csv
import io
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import psycopg2

from jobs import landing, schema, settings
from jobs.catalog import CATALOG
from jobs.dataset import WHITE_SPACE, Dataset
from jobs.object_store import s3

PEERS = ("pandas", "duckdb")
STAGES = ("bronze", "silver", "gold", "marts")
RUN = "benchmark"  # the peers' value of _run_id
# The marts that every peer builds. The platform builds more, which its seconds include.
MARTS = {
    name: (settings.ROOT / "sql" / "marts" / f"{name}.sql").read_text()
    for name in ("mart_daily_kpis", "mart_department_stats", "mart_patient_stats")
}


def database(peer: str) -> str:
    return f"bench_{peer}"


def bucket(peer: str) -> str:
    return f"bench-{peer}"


def connect(database: str) -> Any:
    """Returns a psycopg2 connection to a database of the platform's server as its loader; `with` is a transaction."""
    return psycopg2.connect(
        host=settings.get("POSTGRES_HOST"),
        port=settings.get("POSTGRES_PORT"),
        user=settings.get("POSTGRES_USER"),
        password=settings.get("POSTGRES_PASSWORD"),
        dbname=database,
        options="-c timezone=UTC",
    )


def bronze_key(dataset: Dataset, day: date) -> str:
    return f"bronze/{dataset.name}/{day:%Y/%m/%d}/{dataset.name}.csv"


def silver_key(dataset: Dataset, day: date, kind: str) -> str:
    """Returns the key of a silver file; `kind` is accepted or rejected."""
    return f"silver/{kind}/{dataset.name}/{day}.parquet"


def to_bronze(peer: str, day: date) -> None:
    """Copies the five landing files to bronze, byte for byte."""
    for dataset in CATALOG.values():
        store(peer, landing.landing_path(dataset, day), bronze_key(dataset, day))


def read_header(start: bytes, dataset: Dataset) -> list[str]:
    """Returns the names in a file's header; exits with a sentence if a declared column is missing or appears twice."""
    line = io.StringIO(start.partition(b"\n")[0].decode("utf-8-sig"))
    header = [name.strip(WHITE_SPACE) for name in next(csv.reader(line))]
    wrong = [name for name in dataset.names if header.count(name) != 1]
    if wrong:
        raise SystemExit(f"{dataset.name}: the header must name {', '.join(wrong)} once.")
    return header


def tables() -> Iterator[str]:
    """Yields the statements that create gold's tables and the three marts, with keys, indexes and a view they read."""
    for statement in re.findall(r"^create (?:table|index) if not exists [^;]+;", schema.ddl(), re.M):
        if re.search(rf"(?:exists|on) (?:{'|'.join([*CATALOG, *MARTS])}) \(", statement):
            yield statement
    yield f"create schema if not exists ops; create or replace view ops.as_of as {schema.gold_queries()['as_of'][0]};"


def columns(dataset: Dataset) -> list[str]:
    """Returns the columns of a gold table that a load fills."""
    return [*dataset.names, "_partition_date", "_run_id"]


def upsert(dataset: Dataset, rows: str) -> str:
    """Returns the plain upsert with which both peers load a table from `rows`."""
    names = columns(dataset)
    changes = ", ".join(f"{name} = excluded.{name}" for name in names if name != dataset.key)
    return (
        f"insert into {dataset.name} ({', '.join(names)}) {rows} "
        f"on conflict ({dataset.key}) do update set {changes}, _loaded_at = default"
    )


@contextmanager
def stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began


def run(peer: str, silver: Callable[[date], Any], gold: Callable[..., None], marts: Callable[..., None]) -> None:
    """Runs a date through all layers; prints the seconds of each layer and the rejected rows per reason."""
    day, seconds = date.fromisoformat(sys.argv[1]), dict[str, float]()
    with stage(seconds, "bronze"):
        to_bronze(peer, day)
    with stage(seconds, "silver"):
        validated, hits = silver(day)
    connection = connect(database(peer))
    with stage(seconds, "gold"):
        gold(connection, validated, day)
    with stage(seconds, "marts"):
        marts(connection, day)
    connection.close()
    print(json.dumps({"seconds": seconds, "hits": hits}))


def store(peer: str, path: Path, key: str) -> None:
    s3().upload_file(str(path), bucket(peer), key)
