"""Copies one landing file to bronze, byte for byte: `python jobs/landing_to_bronze.py visits 2026-01-31`."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal

from jobs import lake, landing, program, warehouse
from jobs.dataset import Dataset

FEW = 20  # rows more or less are no matter, whatever their share


def landing_to_bronze(dataset: Dataset, day: date) -> str:
    """Reads the file once, refuses it whole where its header or its bytes are wrong, and only then uploads it."""
    path = landing.landing_path(dataset, day)
    name = f"{landing.folder(day)}/{dataset.name}.csv"
    if not path.is_file():
        raise program.Refused(f"the file {name} has not landed; put it there or run `make generate DATE={day}`.")
    with (
        warehouse.connect() as connection,
        warehouse.run(connection, "bronze", dataset.name, day, dataset.rule_set) as row,
    ):
        facts = landing.describe(path, dataset, name)
        row |= {"bronze_rows": facts.records, "bronze_bytes": facts.bytes, "bronze_sha256": facts.sha256}
        if facts.amount:
            row["amount_in"] = Decimal(facts.cents) / 100
        warning = unusual(facts.records, dataset, *warehouse.usual_rows(connection, dataset, day))
        lake.upload(path, dataset, day, facts)
        warehouse.settle(connection, row | {"warnings": warning}, facts.sha256)
    undeclared = [column for column in facts.header if column not in dataset.names]
    ignored = f"; columns nobody declared stay behind: {listed(undeclared)}" if undeclared else ""
    done = f"bronze {dataset.name} {day}: {facts.records:,} rows, {facts.bytes:,} bytes{ignored}"
    return f"{done}\nwarn: {dataset.name} {day}: {warning}" if warning else done


def listed(columns: Sequence[str]) -> str:
    """Names of columns as a sentence may say them, which came with the file: no odd ones, and not all of very many."""
    shown = [repr(column) for column in columns if landing.is_legible(column)][:20]
    left_out = [f"{len(columns) - len(shown):,} more"] if len(shown) < len(columns) else []
    return ", ".join([*shown, *left_out])


def unusual(rows: int, dataset: Dataset, dates: int, median: float | None) -> str | None:
    """A warning where a file has far fewer or more rows than those of the weekday before it, three of them at least."""
    low, high = dataset.usual
    if median is None or dates < 3 or abs(rows - median) < FEW or low * median <= rows <= high * median:
        return None
    return f"{rows:,} rows, where {dates} earlier dates of its weekday have a median of {median:,.0f}"


if __name__ == "__main__":
    program.run(landing_to_bronze, future=False)
