"""Measures the cost of accounting: runs a date in this process and adds up the seconds of ledger and checks.

python -m benchmarks.accounting 2026-01-01    # on a running stack in which that date has landed and has not run
"""

import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import Any

from jobs import (
    bronze_to_silver,
    delta_log,
    gold,
    gold_to_marts,
    landing,
    landing_to_bronze,
    ledger,
    marts,
    program,
    revalidation,
    settings,
    silver_to_gold,
    thresholds,
    validation,
)
from jobs.catalog import CATALOG

spent: dict[str, float] = defaultdict(float)
inside: list[str] = []  # only the outermost of nested parts counts


def timed(module: Any, name: str, part: str, applies: Callable[..., bool] = lambda *_: True) -> None:
    """Wraps a function so that the seconds of each call count for a part, if `applies` holds."""
    real = getattr(module, name)

    @wraps(real)
    def call(*words: Any, **named: Any) -> Any:
        if inside or not applies(*words):
            return real(*words, **named)
        inside.append(part)
        began = time.monotonic()
        try:
            return real(*words, **named)
        finally:
            spent[part] += time.monotonic() - began
            inside.pop()

    setattr(module, name, call)


def count_again() -> None:
    """Counts verdicts twice: the first count also reads, validates and caches the rows, so only the second is timed."""
    real = validation.count

    @wraps(real)
    def call(validated: Any, dataset: Any, days: Any, salt: str | None = None) -> Any:
        counts = real(validated, dataset, days, salt)
        began = time.monotonic()
        real(validated, dataset, days, salt)
        again = time.monotonic() - began
        spent["counting verdicts and money"] += again
        spent["(measuring)"] += again
        return counts

    validation.count = call


def main() -> None:
    day = program.given_day(sys.argv[1])
    os.environ["SPARK_REMOTE"] = f"sc://127.0.0.1:{settings.get('SPARK_CONNECT_PORT')}"
    timed(landing, "describe", "a plain reading of the files")
    timed(revalidation, "stale_dates", "parents that came or went")
    timed(delta_log, "last_commit", "the log of what was committed")
    for name in ("write", "settle", "settle_silver", "versions", "ran_before", "usual_rows", "standing"):
        timed(ledger, name, "ledger, markers and levels")
    timed(thresholds, "stops", "ledger, markers and levels")
    timed(gold, "append", "withheld rows", lambda _, table, *__: "withheld" in table)
    timed(gold, "replace_withheld", "withheld rows")
    timed(gold, "account_for", "gold against its loads")
    timed(marts, "_replace", "mart_trust", lambda _, mart, __: mart == "ops.mart_trust")
    timed(marts, "check", "sql/checks")
    count_again()
    layers: dict[str, float] = {}
    jobs: dict[str, Callable[..., str]] = {
        "bronze": landing_to_bronze.landing_to_bronze,
        "silver": bronze_to_silver.bronze_to_silver,
        "gold": silver_to_gold.silver_to_gold,
    }
    for layer, job in jobs.items():
        began = time.monotonic()
        for dataset in CATALOG.values():
            print(job(dataset, day), flush=True)
        layers[layer] = time.monotonic() - began
    began = time.monotonic()
    print(gold_to_marts.gold_to_marts(day), flush=True)
    layers["marts"] = time.monotonic() - began
    total = sum(layers.values()) - spent.pop("(measuring)")
    print("\n".join(f"{layer:<36}{seconds:>9.1f} s" for layer, seconds in layers.items()))
    print(f"{'the whole date':<36}{total:>9.1f} s")
    for part, seconds in sorted(spent.items(), key=lambda pair: -pair[1]):
        print(f"  {part:<34}{seconds:>9.1f} s  {100 * seconds / total:>5.1f} %")
    cost = sum(spent.values())
    print(f"{'keeping account, all together':<36}{cost:>9.1f} s  {100 * cost / total:>5.1f} %")


if __name__ == "__main__":
    main()
