"""Reports the ledger: which dates are complete, balanced and current, and which files have not run or never came."""

from collections.abc import Mapping, Sequence
from datetime import date

from jobs import exports, landing, schema, warehouse
from jobs.catalog import CATALOG
from pipelines import runs


def ledger_of(last: int) -> str:
    """Returns the newest dates of ops.dates, dates without a current run, rows waiting for parents, and late files."""
    with warehouse.connect() as connection:
        schema.bring_up_to_date(connection)
        runs.record_pending(connection)
        not_run = landed_and_not_run(connection)
        lines = [
            *date_lines(connection, last),
            *never_ran_lines(connection, last),
            *not_run_lines(not_run, last),
            *orphan_lines(connection, last),
            *late_lines(connection, not_run),
        ]
    return "\n".join(lines)


def date_lines(connection: warehouse.Connection, last: int) -> list[str]:
    """Returns the header of the report, and a line for each of the newest dates: rows, money, state and seconds."""
    dates = connection.execute(
        "select partition_date, bronze_rows, accepted, dates.rejected, amount_in, amount_accepted, "
        "amount_rejected, is_complete, is_balanced, is_current, why, dates.state, seconds, usual_seconds "
        "from ops.dates left join reports.dates as times on times.day = partition_date "
        "order by partition_date desc limit %s",
        [last],
    ).fetchall()
    lines = [
        f"{'date':<12}{'rows':>10} ={'accepted':>10} +{'rejected':>9}{'money':>18} ={'accepted':>17} +{'rejected':>14}"
    ]
    for day, rows, accepted, rejected, *money, complete, balanced, current, why, state, seconds, usual in dates:
        numbers = f"{rows or 0:>10,} ={accepted or 0:>10,} +{rejected or 0:>9,}"
        sums = "{:>18,.2f} ={:>17,.2f} +{:>14,.2f}".format(*(amount or 0 for amount in money))
        states = {"complete": complete, "balanced": balanced, "current": current}
        verdict = ", ".join(word if holds else f"NOT {word}" for word, holds in states.items())
        verdict += f", {state}" if state not in ("done", "incomplete") else ""
        took = f"; {seconds:,.0f} s" + (f", usually {usual:,.0f} s" if usual else "") if seconds else ""
        lines.append(f"{day!s:<12}{numbers}{sums}  {verdict}" + (f": {why}" if why else "") + took)
    return lines


def never_ran_lines(connection: warehouse.Connection, last: int) -> list[str]:
    """Returns a line for each date without a current run: its error, or that it is running or was forgotten."""
    never = connection.execute(
        "select partition_date, layer, error, asked_by, ended_at at time zone 'UTC', times.state = 'running' "
        "from ops.never_ran left join reports.dates as times on times.day = partition_date "
        "order by partition_date desc limit %s",
        [last],
    ).fetchall()
    lines = ["Never ran"] if never else []
    for day, layer, error, asked_by, ended, running in never:
        forgotten = f"forgotten on {ended:%Y-%m-%d %H:%M} UTC by {asked_by}" if ended else "is being forgotten"
        why = "is running" if running else error or (forgotten if layer == "forget" else "a job of it did not end")
        lines.append(f"  {day!s:<12}{why}")
    return lines


def not_run_lines(not_run: Mapping[date, Sequence[str]], last: int) -> list[str]:
    """Returns a line for each of the newest dates whose files landed and have not run: datasets and command."""
    lines = ["Landed and not run"] if not_run else []
    for day, names in sorted(not_run.items(), reverse=True)[:last]:
        lines.append(f"  {day!s:<12}{', '.join(names)}; make run DATE={day}")
    return lines


def orphan_lines(connection: warehouse.Connection, last: int) -> list[str]:
    """Returns a line for each partition with rows that wait for a parent: how many, and for how many more days."""
    waiting = connection.execute(
        "select dataset, partition_date, reason, waiting, attempts, age_days, orphan_days, is_final "
        "from ops.orphans order by partition_date desc, dataset limit %s",
        [last],
    ).fetchall()
    lines = ["Rows that wait for a parent"] if waiting else []
    for dataset, day, reason, rows, attempts, age, limit, final in waiting:
        state = "final" if final else f"a parent counts for {limit - age} more days"
        lines.append(
            f"  {dataset:<12}{day!s:<12}{reason:<20}{rows:>8,}  validated {attempts} times in {age} days, {state}"
        )
    return lines


def late_lines(connection: warehouse.Connection, not_run: Mapping[date, Sequence[str]]) -> list[str]:
    """Returns a line for each dataset whose files are late or missing; files that landed and have not run are not."""
    late = connection.execute(
        "select dataset, newest, newest - (missing_dates + dates - 1)::int, missing_dates, next_date, overdue "
        "from ops.freshness "
        "where overdue or missing_dates > 0 or newest is null"
    ).fetchall()
    lines = []
    for dataset, newest, oldest, missing, following, overdue in late:
        landed = {day for day, names in not_run.items() if dataset in names}
        faults = [f"{following} should be here by now"] if overdue and following not in landed else []
        never_came = (missing or 0) - len([day for day in landed if newest and oldest < day < newest])
        faults += [f"{never_came:,} earlier dates never came"] if never_came > 0 else []
        if newest and not faults:
            continue
        lines.append(f"  {dataset:<12}newest {newest}: {', '.join(faults) or 'nothing is in gold'}")
    return ["Files that are late or missing", *lines] if lines else []


def landed_and_not_run(connection: warehouse.Connection) -> dict[date, list[str]]:
    """Returns by date the datasets whose landing file no run has taken up or tried to."""
    found = connection.execute("select distinct dataset, partition_date from ops.ledger where layer = 'bronze'")
    tried, not_run = set(found.fetchall()), dict[date, list[str]]()
    for dataset in CATALOG.values():
        for day in {*landing.landed_days(dataset), *exports.landed_days()}:
            if day >= dataset.since and (dataset.name, day) not in tried:
                not_run.setdefault(day, []).append(dataset.name)
    return not_run
