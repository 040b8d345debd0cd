"""Counts the rejected rows of a date by reason, and compares them with earlier dates: `make rejects`."""

import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from jobs import borders, key_history, ledger, program, warehouse
from jobs.catalog import CATALOG
from jobs.dataset import Dataset, is_retryable
from jobs.program import Refused

FEW = 3  # rows; a smaller difference is not a trend


def rejects(day: date, datasets: Sequence[Dataset], keys: bool) -> Iterator[str]:
    """Yields for each dataset how many rows of its file were rejected for each reason, compared with earlier dates.

    Lists the keys of the rejected rows if `keys` is true.
    """
    with warehouse.connect() as connection:
        runs = standing_runs(connection, day, datasets)
        by_reason = rejected_keys(day, runs) if keys else {}
        for name, run in runs.items():
            share = f" ({percent(run['rejected'], run['bronze_rows'])})" if run["rejected"] else ""
            due = "; due to be revalidated: parents came or went" if run["stale_since"] else ""
            yield (
                f"{name} {day}: {run['bronze_rows']:,} rows = {run['accepted']:,} accepted + "
                f"{run['rejected']:,} rejected{share}{due}"
            )
            yield from reason_lines(connection, CATALOG[name], run, by_reason)


def standing_runs(
    connection: warehouse.Connection, day: date, datasets: Sequence[Dataset]
) -> dict[str, dict[str, Any]]:
    """Returns the current silver runs of a date by dataset; raises Refused if there are none."""
    found = {dataset.name: ledger.standing(connection, dataset, day) for dataset in datasets}
    runs = {name: run for name, run in found.items() if run}
    if not runs:
        what = day if len(datasets) > 1 else f"{datasets[0].name} of {day}"
        raise Refused(f"{what} has not been validated; run it first: `make run DATE={day}`.")
    return runs


def reason_lines(
    connection: warehouse.Connection,
    dataset: Dataset,
    run: Mapping[str, Any],
    keys: Mapping[tuple[str, str], list[str]],
) -> Iterator[str]:
    """Yields a line for each reason that has rejected rows, or that has some on a usual date."""
    rows, usual = run["bronze_rows"], usual_shares(connection, dataset, run["partition_date"])
    hits = dict(
        connection.execute("select reason, hits from ops.reasons where run_id = %s", [run["run_id"]]).fetchall()
    )
    most_first = sorted(hits, key=lambda code: (-hits[code], code))
    if shown := [code for code in most_first if hits[code] or usual.get(code, 0) * rows >= FEW]:
        yield f"  {'reason':<28}{'rows':>7}{'share':>9}{'usual':>9}  {'trend':<18}what must hold"
    for code in shown:
        before = percent(usual[code], 1) if code in usual else "-"
        waits = f"; {key_history.may_repair(connection, dataset, run['partition_date'])}" if is_retryable(code) else ""
        yield (
            f"  {code:<28}{hits[code]:>7,}{percent(hits[code], rows):>9}{before:>9}  "
            f"{trend(hits[code], rows, usual.get(code)):<18}"
            f"{dataset.reasons.get(code, 'no longer declared')}{waits}"
        )
        yield from list_keys(keys.get((dataset.name, code), []))


def usual_shares(connection: warehouse.Connection, dataset: Dataset, day: date) -> dict[str, float]:
    """Returns by reason the median share of the rows of up to eight earlier dates, whatever their rules were."""
    found = connection.execute(
        "with earlier as (select run_id, bronze_rows from ops.standing where dataset = %s and partition_date < %s "
        "and bronze_rows > 0 order by partition_date desc limit 8) "
        "select reason, percentile_cont(0.5) within group (order by hits::float / bronze_rows) "
        "from earlier join ops.reasons using (run_id) group by reason",
        [dataset.name, day],
    )
    return dict(found.fetchall())


def trend(hits: int, rows: int, usual: float | None) -> str:
    """Returns in words how the number of rejected rows compares with their usual share."""
    if usual is None:
        return "no earlier date"
    if not usual:
        return "new" if hits else "as usual"
    if abs(hits - usual * rows) < FEW or 0.5 <= hits / (usual * rows) <= 2:
        return "as usual"
    return f"{hits / (usual * rows):.1f} times usual"


def percent(part: float, whole: float) -> str:
    """Returns a part as a percentage of the whole."""
    return f"{100 * part / whole:.2f} %" if whole else "-"


def rejected_keys(day: date, runs: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """Returns the keys of rejected rows by (dataset, reason); blank for a row without a key that can be trusted."""
    datasets = [CATALOG[name] for name, run in runs.items() if run["rejected"]]
    if not datasets:
        return {}
    spark = program.resident(f"rejects {day}")
    program.tune_for_small_input(spark, sum(run["rejected"] for run in runs.values()))
    found = defaultdict(list)
    rows = key_history.union(key_history.rows_of(spark, each, "rejected", day) for each in datasets).select(
        "dataset", "key", "codes"
    )
    for name, key, codes in rows.collect():
        for code in codes:
            found[name, code].append("" if code == "malformed_row" else key or "")
    return found


def list_keys(keys: Sequence[str]) -> Iterator[str]:
    """Yields keys in order, on wrapped lines, and the number of rows without a readable key."""
    named = sorted(borders.printable(key) for key in keys if key)
    without = [f"{len(keys) - len(named):,} without a key that can be read"] if len(named) < len(keys) else []
    yield from textwrap.wrap(
        ", ".join([*named, *without]),
        width=116,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
