"""Converts a source's files of a date into our files in bronze: `spark-submit jobs/source_to_bronze.py 2026-01-31`."""

import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from jobs import arrival, bronze_files, derivation, exports, headers, landing, ledger, program, raw, warehouse
from jobs.borders import quoted
from jobs.catalog import expected
from jobs.dataset import Dataset
from jobs.derivation import Export, Made, derive, read_export
from jobs.program import Refused


def source_to_bronze(day: date, named: str = "") -> str:
    """Stores a date's raw files in bronze, and derives the files of all datasets from them.

    Publishes all derived files or, if one cannot be made, none. Raises Refused if the files come from another
    source than `named`. Returns a sentence for each file, and the warnings.
    """
    with warehouse.connect() as connection, ExitStack() as held:
        datasets = expected(day)
        for name in datasets:
            held.enter_context(warehouse.writer(connection, f"bronze {name} {day}"))
        folders = exports.folders(day)
        row = held.enter_context(ledger.run(connection, "source", named or (folders or ["all"])[0], day, ""))
        source = exports.source_of(day)
        if named not in ("", source.name):
            raise Refused(
                f"the files of {day} come from the source {source.name}, not from {quoted(named)}; name that one."
            )
        export = read_export(source, day)
        made_from = exports.fingerprint(export.sha256)
        row |= {"rule_set": source.fingerprint, "bronze_sha256": made_from}
        row |= {"bronze_bytes": sum(path.stat().st_size for path in export.paths.values())}
        for name, path in export.paths.items():
            raw.upload(path, source.name, day, name, export.sha256[name])
        place = Path(held.enter_context(tempfile.TemporaryDirectory()))
        made = derive(export, datasets, row["run_id"], place)
        return publish(connection, export, row, made, datasets)


def publish(
    connection: warehouse.Connection,
    export: Export,
    row: dict[str, Any],
    made: Mapping[str, Made],
    datasets: Mapping[str, Dataset],
) -> str:
    """Uploads the derived files to bronze, and settles their runs and the source's run in one transaction."""
    source, day, said = export.source, export.day, []
    about = {"source": source.name, "mapping": source.fingerprint, "made-from": row["bronze_sha256"]}
    with ExitStack() as runs:
        rows = {
            name: runs.enter_context(ledger.run(connection, "bronze", name, day, dataset.rule_set))
            for name, dataset in datasets.items()
        }
        for name, dataset in datasets.items():
            facts, warnings = made[name].facts, arrival.warnings(connection, dataset, day, made[name].facts)
            warnings += derivation.warnings_of(made[name])
            rows[name] |= {"bronze_rows": facts.records, "bronze_bytes": facts.bytes, "bronze_sha256": facts.sha256}
            rows[name] |= {"amount_in": Decimal(facts.cents) / 100} if facts.amount else {}
            rows[name]["warnings"] = "; ".join(warnings) or None
            said.append(derivation.in_words(export, name, made[name]))
            said += (f"warn: {name} {day}: {warning}" for warning in warnings)
        for name, dataset in datasets.items():
            bronze_files.upload(made[name].path, dataset, day, made[name].facts, about)
        with connection.transaction():
            for name in datasets:
                ledger.settle(connection, rows[name], made[name].facts.sha256)
            said += account_for(connection, export, row, made)
            ledger.settle(connection, row, row["bronze_sha256"])
    return "\n".join(said)


def account_for(
    connection: warehouse.Connection, export: Export, row: dict[str, Any], made: Mapping[str, Made]
) -> list[str]:
    """Records what each file of a source held and what became of it.

    Returns a warning about files that go unused, or whose columns differ from those of the last date.
    """
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
            "(run_id, source_name, partition_date, file_name, sha256, bytes, records, datasets, header) "
            "values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                [
                    *(*about, name, export.sha256[name], path.stat().st_size, known and known.records),
                    *(", ".join(taken), known and list(known.header)),
                ]
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
    warnings = [f"files that no dataset is made of stay behind: {landing.listed(unread, 5)}"] if unread else []
    warnings += headers.warnings(connection, export)
    row["warnings"] = "; ".join(warnings) or None
    return [f"warn: {export.source.name} {export.day}: {warning}" for warning in warnings]


if __name__ == "__main__":
    is_named = len(sys.argv) > 2 and not re.match(r"[0-9]{4}-", sys.argv[1])
    name = sys.argv.pop(1) if is_named else ""
    program.run(partial(source_to_bronze, named=name), words=("date",), future=False, remaining=ledger.remaining)
