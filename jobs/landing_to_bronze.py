"""Copies one landing file to bronze, byte for byte: `python jobs/landing_to_bronze.py visits 2026-01-31`."""

from datetime import date

from jobs import lake, landing, program, warehouse
from jobs.dataset import Dataset


def landing_to_bronze(dataset: Dataset, day: date) -> str:
    """Reads the file once, refuses it whole where its header or its bytes are wrong, and only then uploads it."""
    path = landing.landing_path(dataset, day)
    name = f"{day:%Y/%m/%d}/{dataset.name}.csv"
    if not path.is_file():
        raise program.Refused(f"the file {name} has not landed; put it there or run `make generate DATE={day}`.")
    with (
        warehouse.connect() as connection,
        warehouse.run(connection, "bronze", dataset.name, day, dataset.rule_set) as row,
    ):
        facts = landing.describe(path, dataset, name)
        row |= {"bronze_rows": facts.records, "bronze_bytes": facts.bytes, "bronze_sha256": facts.sha256}
        lake.upload(path, dataset, day, facts)
        warehouse.settle(connection, row, facts.sha256)
    undeclared = [column for column in facts.header if column not in dataset.names]
    ignored = f"; columns nobody declared stay behind: {', '.join(map(repr, undeclared))}" if undeclared else ""
    return f"bronze {dataset.name} {day}: {facts.records:,} rows, {facts.bytes:,} bytes{ignored}"


if __name__ == "__main__":
    program.run(landing_to_bronze)
