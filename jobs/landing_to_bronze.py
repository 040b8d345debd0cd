"""Copies one landing file to bronze, byte for byte: `python jobs/landing_to_bronze.py visits 2026-01-31`."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal

from jobs import arrival, bronze_files, exports, landing, ledger, program, warehouse
from jobs.dataset import Dataset


def landing_to_bronze(dataset: Dataset, day: date) -> str:
    """Profiles the file, raises Refused if its header or its bytes are wrong, and only then uploads it to bronze.

    Returns a sentence on the file, and its warnings.
    """
    path = landing.landing_path(dataset, day)
    name = f"{landing.folder(day)}/{dataset.name}.csv"
    with (
        warehouse.connect() as connection,
        warehouse.writer(connection, f"bronze {dataset.name} {day}"),
        ledger.run(connection, "bronze", dataset.name, day, dataset.rule_set) as row,
    ):
        if source := exports.folders(day):
            raise program.Refused(
                f"the files of {day} come from the source {source[0]}: run `make run DATE={day}`, or "
                "jobs/source_to_bronze.py."
            )
        if not landing.has_landed(dataset, day):
            raise program.Refused(f"the file {name} has not landed; put it there or run `make generate DATE={day}`.")
        head = bronze_files.bronze_head(dataset, day)
        came_before = head is not None and head["Metadata"].get("sha256") == landing.checksum(path)
        facts = landing.describe(path, dataset, name, came_before)
        row |= {"bronze_rows": facts.records, "bronze_bytes": facts.bytes, "bronze_sha256": facts.sha256}
        if facts.amount:
            row["amount_in"] = Decimal(facts.cents) / 100
        warnings = arrival.warnings(connection, dataset, day, facts)
        bronze_files.upload(path, dataset, day, facts)
        ledger.settle(connection, row | {"warnings": "; ".join(warnings) or None}, facts.sha256)
    undeclared = [column for column in facts.header if column not in dataset.names]
    ignored = f"; columns nobody declared stay behind: {listed(undeclared)}" if undeclared else ""
    done = f"bronze {dataset.name} {day}: {facts.records:,} rows, {facts.bytes:,} bytes{ignored}"
    return "\n".join([done, *(f"warn: {dataset.name} {day}: {warning}" for warning in warnings)])


def listed(columns: Sequence[str]) -> str:
    """Returns the columns of a file as a sentence may name them: only legible names, and at most 20 of them."""
    named = [column for column in columns if column]
    shown = [repr(column) for column in named if landing.is_legible(column)][:20]
    left_out = [f"{len(named) - len(shown):,} more"] if len(shown) < len(named) else []
    nameless = len(columns) - len(named)
    without = [f"{nameless:,} column{'s' * (nameless > 1)} without a name"] if nameless else []
    return ", ".join([*shown, *left_out, *without])


if __name__ == "__main__":
    program.run(landing_to_bronze, future=False, remaining=ledger.remaining)
