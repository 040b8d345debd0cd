"""Shows what a changed declaration would do to stored data, before anything runs under it.

python -m jobs.backtest [--first 2026-01-01] [--last 2026-01-31]
"""

import argparse
from collections.abc import Iterator, Mapping
from datetime import date

from jobs import borders, dry_run, ledger, mart_diff, marts, program, verdict_diff, warehouse
from jobs.catalog import CATALOG
from jobs.dry_run import Retrial, Run
from jobs.verdict_diff import FEW_DATES


def main() -> None:
    """Prints what the catalog would change in the dates of the command line, or ends the program with a sentence."""
    parser = argparse.ArgumentParser(prog="backtest", description=__doc__)
    parser.add_argument("--first", default="0001-01-01", help="the first date to revalidate")
    parser.add_argument("--last", default="9999-12-31", help="the last one")
    given = parser.parse_args()
    first, last = program.given_day(given.first), program.given_day(given.last)
    try:
        for line in backtest(first, last):
            borders.say(line)
    except Exception as error:
        program.leave(1, program.sentence(error))


def backtest(first: date, last: date) -> Iterator[str]:
    """Validates stored bronze by the catalog of this clone, and yields what would change; publishes nothing."""
    with warehouse.connect() as connection:
        runs, state = dry_run.standing_runs(connection), fingerprint(connection)
        due = due_days(runs, first, last)
        if not any(due.values()):
            yield "No declaration differs from what silver was validated by: nothing would change."
            return
        spark = program.resident("backtest")
        program.tune_for_small_input(
            spark, sum(run["bronze_rows"] for by_day in runs.values() for run in by_day.values())
        )
        yield from what_is_not_current(connection)
        yield from report(connection, runs, dry_run.retry(spark, runs, due))
        if fingerprint(connection) != state:
            yield "Another run has written silver or gold meanwhile; these figures may mix two states: try again."


def report(
    connection: warehouse.Connection, runs: Mapping[str, Mapping[date, Run]], trials: Mapping[str, Retrial]
) -> Iterator[str]:
    """Yields what the revalidation would change in rows and in figures."""
    yield from verdict_diff.flip_lines(trials, runs)
    yield from verdict_diff.reason_lines(connection, trials, runs)
    yield from verdict_diff.stop_lines(connection, trials, runs)
    yield from mart_diff.mart_lines(connection, trials)


def due_days(runs: Mapping[str, Mapping[date, Run]], first: date, last: date) -> dict[str, list[date]]:
    """Returns by dataset the partitions that were validated by another declaration than the one in the catalog."""
    return {
        name: [day for day, run in by_day.items() if first <= day <= last and run["rule_set"] != CATALOG[name].rule_set]
        for name, by_day in runs.items()
    }


def fingerprint(connection: warehouse.Connection) -> str:
    """Returns a hash of the runs that silver, gold and marts were made by."""
    return warehouse.value(
        connection,
        "select md5(string_agg(run_id, ',' order by layer, dataset, partition_date)) from ops.receipts "
        "where layer in ('silver', 'gold', 'marts')",
    )


def what_is_not_current(connection: warehouse.Connection) -> Iterator[str]:
    """Yields the dates on which an ordinary run would change something, whatever the declaration."""
    found = connection.execute("select partition_date, why from ops.dates where not is_current order by 1").fetchall()
    current = ledger.marts_marker(marts.rule_set(), ledger.turn())
    if found or not current:
        yield "Not all that differs is the declaration's doing; bring these up to date first:"
        yield from (f"  {day}: {why}" for day, why in found[:FEW_DATES])
        if len(found) > FEW_DATES:
            yield f"  and {len(found) - FEW_DATES:,} more dates (`make ledger`)"
        if not current:
            yield "  the marts are older than gold or than sql/marts"


if __name__ == "__main__":
    main()
