"""Accounts for validated partitions: checks their rows and money, and settles their runs in the ledger."""

from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from jobs import landing, ledger, program, validation, warehouse
from jobs.dataset import Dataset


def must_balance(day: date, facts: landing.Facts, counts: validation.Counts) -> None:
    """Raises Refused unless the rows and the money validated equal those of a plain reading of the file.

    Runs before anything is written.
    """
    if not is_balanced(facts, counts):
        what = f"{facts.records:,} rows" + (f" with {facts.amounts:,} amounts" if facts.amount else "")
        validated = f"{counts.rows:,}" + (f" with {counts.amounts:,}" if facts.amount else "")
        raise program.Refused(
            f"{what} in bronze of {day} but {validated} validated, or other sums, and both must be equal; nothing was "
            "published. Look for quotes that RFC 4180 does not allow."
        )


def is_balanced(facts: landing.Facts, counts: validation.Counts) -> bool:
    """Tells whether as many rows, and as much money, were validated as a plain reading of the file has found."""
    cents = int((counts.amount_accepted + counts.amount_rejected) * 100)
    return (counts.rows, counts.amounts, cents) == (facts.records, facts.amounts, facts.cents)


def settle(
    connection: warehouse.Connection,
    dataset: Dataset,
    facts: Mapping[date, landing.Facts],
    counts: Mapping[date, validation.Counts],
    runs: Mapping[date, dict[str, Any]],
    standing: Mapping[date, Mapping[str, Any]],
) -> list[str]:
    """Settles all partitions in one transaction; returns a sentence for each, with its warnings.

    `standing` has the runs that remain current. The parameters are all that the ledger records of the runs.
    """
    said = []
    with connection.transaction():
        for day, run in runs.items():
            run |= account(dataset, facts[day], counts[day])
            warnings = ledger.settle_silver(
                connection,
                run,
                counts[day].hits,
                standing[day]["run_id"] if day in standing else None,
                differing_versions(dataset, day, counts[day].differing),
            )
            said += [
                in_words(dataset, day, counts[day]) + ("; already up to date" if day in standing else ""),
                *warnings,
            ]
    return said


def in_words(dataset: Dataset, day: date, counts: validation.Counts) -> str:
    """Returns a sentence on what became of a partition's rows."""
    reasons = ", ".join(f"{code} {hits:,}" for code, hits in counts.hits.items() if hits)
    numbers = f"{counts.rows:,} rows = {counts.accepted:,} accepted + {counts.rows - counts.accepted:,} rejected"
    return f"silver {dataset.name} {day}: {numbers}" + (f" ({reasons})" if reasons else "")


def differing_versions(dataset: Dataset, day: date, keys: int) -> Iterator[str]:
    """Yields a warning if a file has keys with versions of different content: one version of each is accepted."""
    if keys:
        come = "1 key comes" if keys == 1 else f"{keys:,} keys come"
        yield (
            f"warn: {dataset.name} {day}: {come} in versions that differ, of which the fullest stands: "
            f"`make rejects DATE={day} DATASET={dataset.name} KEYS=1` names them under duplicate_{dataset.key}, "
            "`make why KEY=...` tells in what they differ"
        )


def account(dataset: Dataset, facts: landing.Facts, counts: validation.Counts) -> dict[str, Any]:
    """Returns what the ledger records of a partition's input, rows and money."""
    found = {
        "bronze_rows": counts.rows,
        "bronze_bytes": facts.bytes,
        "bronze_sha256": facts.sha256,
        "accepted": counts.accepted,
        "rejected": counts.rows - counts.accepted,
        "faulty": counts.faulty,
        "differing": counts.differing,
    }
    money = {
        "amount_in": Decimal(facts.cents) / 100,
        "amount_accepted": counts.amount_accepted,
        "amount_rejected": counts.amount_rejected,
    }
    return found | (money if dataset.amount else {})
