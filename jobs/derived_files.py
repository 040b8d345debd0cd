"""Publishes the files derived from a source's, and records what became of each of the source's files."""

from collections.abc import Mapping
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

from jobs import arrival, bronze_files, derivation, headers, landing, ledger, warehouse
from jobs.borders import quoted
from jobs.dataset import Dataset
from jobs.derivation import Export, Made


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
