"""Measures lower bounds for any loader here: `python -m benchmarks.limits 2026-01-01`, after the DuckDB peer has run.

Reads each CSV file once; copies the accepted rows, as prepared text, into tables like gold's but without keys and
indexes; then creates primary keys, indexes and foreign keys, each for a whole table.
"""

import json
import sys
import tempfile
from datetime import date
from pathlib import Path

from benchmarks import peer
from benchmarks.duckdb_peer import connect
from jobs import landing
from jobs.catalog import CATALOG
from jobs.object_store import s3
from jobs.warehouse import literal


def read_files(day: date) -> None:
    for dataset in CATALOG.values():
        with landing.landing_path(dataset, day).open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def write_text(folder: Path, day: date) -> None:
    """Writes the accepted rows that the DuckDB peer left on MinIO as text for COPY."""
    duckdb = connect()
    for name, dataset in CATALOG.items():
        parquet = folder / f"{name}.parquet"
        s3().download_file(peer.bucket("duckdb"), peer.silver_key(dataset, day, "accepted"), str(parquet))
        duckdb.execute(
            f"copy (select *, date '{day}' as _partition_date, '{peer.RUN}' as _run_id "
            f"from {literal(str(parquet))}) to {literal(str(folder / name))} (format csv, header false)"
        )


def main() -> None:
    day, seconds = date.fromisoformat(sys.argv[1]), dict[str, float]()
    with peer.stage(seconds, "read"):
        read_files(day)
    keys, indexes, references = [], [], []
    for name, dataset in CATALOG.items():
        keys.append(f"alter table bare_{name} add primary key ({dataset.key})")
        indexes += [f"create index on bare_{name} ({column})" for column in (*dataset.parents, "_partition_date")]
        references += [
            f"alter table bare_{name} add foreign key ({column}) references bare_{parent}"
            for column, parent in dataset.parents.items()
        ]
    connection = peer.connect(peer.database("limits"))
    connection.autocommit = True
    with tempfile.TemporaryDirectory() as folder, connection.cursor() as cursor:
        write_text(Path(folder), day)
        cursor.execute("".join(peer.tables()))
        for name in CATALOG:
            cursor.execute(f"drop table if exists bare_{name} cascade")
            cursor.execute(f"create table bare_{name} (like {name} including defaults including generated)")
        cursor.execute("checkpoint")
        with peer.stage(seconds, "copy"):
            for name, dataset in CATALOG.items():
                with Path(folder, name).open() as file:
                    columns = ", ".join(peer.columns(dataset))
                    cursor.copy_expert(f"copy bare_{name} ({columns}) from stdin (format csv)", file)
        for step, statements in {"keys": keys, "indexes": indexes, "foreign keys": references}.items():
            with peer.stage(seconds, step):
                for statement in statements:
                    cursor.execute(statement)
    connection.close()
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
