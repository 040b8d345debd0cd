"""Warns about a new file: far fewer or more rows than expected, or the same file as on another date."""

from collections.abc import Sequence
from datetime import date

from jobs import landing, ledger, warehouse
from jobs.dataset import Dataset
from jobs.landing import Facts

FEW = 20  # rows; a smaller difference does not matter, whatever its share


def warnings(connection: warehouse.Connection, dataset: Dataset, day: date, facts: Facts) -> list[str]:
    """Returns the warnings about a file before it is stored in bronze."""
    usual = unusual(facts.records, dataset, *ledger.usual_rows(connection, dataset, day))
    sent_before = repeated(ledger.dates_of_file(connection, dataset, day, facts.sha256) if facts.records else [])
    return [warning for warning in (usual, sent_before) if warning]


def unusual(rows: int, dataset: Dataset, dates: int, median: float | None) -> str | None:
    """Returns a warning if the number of rows is far from the median of three or more earlier dates of the weekday."""
    low, high = dataset.usual
    if median is None or dates < 3 or abs(rows - median) < FEW or low * median <= rows <= high * median:
        return None
    return f"{rows:,} rows, where {dates} earlier dates of its weekday have a median of {median:,.0f}"


def repeated(dates: Sequence[date]) -> str | None:
    """Returns a warning if other dates have the same file."""
    if not dates:
        return None
    return (
        f"the very file of {landing.listed(map(str, dates), 5)}; if it was sent by mistake, put the right file in its "
        "place and run the date again"
    )
