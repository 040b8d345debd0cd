"""Compares rejects with the generator's manifest: `python -m tests.support.score 2026-01-01 2026-01-07`."""

import csv
import sys
from collections import Counter
from datetime import date, timedelta

from jobs import delta_tables, program, settings
from jobs.catalog import CATALOG
from jobs.dataset import WHITE_SPACE

Rejects = Counter[tuple[str, str, str, str]]  # (dataset, date, key, reasons) -> rows


def days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def injected(first: date, last: date) -> Rejects:
    """Returns the rows that the manifests expect to be rejected once all dates, with late parents, have run."""
    expected: Rejects = Counter()
    for day in days(first, last):
        with (settings.path("LANDING_DIR") / f"{day:%Y/%m/%d}" / "manifest.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                if not row["resolved_on"] or row["resolved_on"] > str(last):
                    expected[row["dataset"], str(day), row["key"], row["reasons"]] += 1
    return expected


def rejected(spark, first: date, last: date) -> Rejects:
    """Returns the rows that silver has rejected; a malformed record has no reliable key."""
    found: Rejects = Counter()
    for name, dataset in CATALOG.items():
        rows = delta_tables.silver(spark, dataset, "rejected").filter(f"_partition_date between '{first}' and '{last}'")
        for day, key, reasons in rows.select("_partition_date", dataset.key, "_reject_reason").collect():
            key = "" if reasons == "malformed_row" else (key or "").strip(WHITE_SPACE)
            found[name, str(day), key, reasons] += 1
    return found


def score(expected: Rejects, found: Rejects) -> dict[tuple[str, str], tuple[int, float, float]]:
    """Returns by (dataset, reason) the rows expected, precision and recall."""

    def by_reason(rejects: Rejects) -> Counter[tuple[str, str]]:
        totals: Counter[tuple[str, str]] = Counter()
        for (dataset, _, _, reasons), rows in rejects.items():
            for reason in reasons.split(";"):
                totals[dataset, reason] += rows
        return totals

    wanted, given = by_reason(expected), by_reason(found)
    # A row counts for a reason only if all of its reasons are right, since whole rows are compared.
    right = by_reason(expected & found)
    return {
        code: (wanted[code], right[code] / given[code] if given[code] else 0.0, right[code] / max(wanted[code], 1))
        for code in sorted(wanted | given)
    }


def main() -> None:
    first, last = map(program.parse_day, sys.argv[1:])
    spark = program.spark("score")
    table = score(injected(first, last), rejected(spark, first, last))
    for (dataset, reason), (rows, precision, recall) in table.items():
        print(f"{dataset:<12}{reason:<30}{rows:>7,}  precision {precision:.3f}  recall {recall:.3f}")
    perfect = all(numbers[1:] == (1.0, 1.0) for numbers in table.values())
    print(f"{len(table)} reason codes, " + ("all 1.0" if perfect else "NOT all 1.0"))
    sys.exit(not perfect)


if __name__ == "__main__":
    main()
