"""Runs, backfills and forgets dates by Luigi, and prints what was done."""

import sys
import time
from datetime import date, datetime, timedelta, timezone

from dashboards import pages
from jobs import ledger, marts, program, warehouse
from jobs.catalog import CATALOG, expected
from pipelines import alert, runs, scheduler, worker
from pipelines.tasks import Day, Forget


def run_day(text: str, force: bool, override: bool) -> None:
    """Runs Day for a date under its lock, or reports that the date is current; then rebuilds the static pages.

    Prints a closing line with what was done. Exits with Luigi's code.
    """
    day = program.parse_day(text)
    program.must_have_begun(day)
    began, code = time.time(), 0
    with warehouse.connect() as connection, warehouse.writer(connection, f"the date {day}"):
        is_current = not force and Day(date=day).complete()
        if not is_current:
            options = []
            if force:
                marts.forget(connection)
                options = ["--since", str(ledger.turn())]
            options += ["--QualityGate-override"] if override else []
            code = worker.luigi_in_turn(day, "Day", *options)
    if code:
        log = runs.home() / runs.log(day)
        print(
            f"{day} is not done; the same command goes on from here once the cause is gone"
            + (f". Its output is in {log}." if log.is_file() else "."),
            file=sys.stderr,
        )
        sys.exit(code)
    rebuild_pages()
    nothing_to_do = (
        f"{day} is current: its files, rules and parents are those of its last run. FORCE=1 runs it all the same."
    )
    print(nothing_to_do if is_current else closing_line(day, began), flush=True)


def run_backfill(first: str, last: str) -> None:
    """Runs Day for all dates from the first to the last in one Luigi run, then rebuilds the static pages.

    Prints a closing line with what was done. A failed date does not affect the others. Exits with Luigi's code.
    """
    days = [program.parse_day(text) for text in (first, last)]
    for day in days:
        program.must_have_begun(day)
    if days[0] > days[1]:
        raise program.Refused(f"{days[0]} comes after {days[1]}; give FROM the earlier of the two.")
    began, stop = time.time(), days[1] + timedelta(1)
    ahead = max(0, (stop - datetime.now(timezone.utc).date()).days)  # only with FUTURE=1
    for task in ("BronzeIngestion", "Day"):  # with all files in bronze first, Luigi can put all dates into one job
        scheduler.disabled.cache_clear()
        # Luigi's own lock would block the second task.
        words = "--no-lock", "--of", task, "--start", str(days[0]), "--stop", str(stop), "--days-forward", str(ahead)
        code = worker.code_of("RangeDaily", *words)
    rebuild_pages()
    with warehouse.connect() as connection:
        done, rows, accepted, rejected = connection.execute(
            "select count(*) filter (where state = 'done'), coalesce(sum(bronze_rows), 0), coalesce(sum(accepted), 0), "
            "coalesce(sum(rejected), 0) from ops.dates where partition_date between %s and %s",
            days,
        ).fetchmany(1)[0]
    print(
        f"{days[0]} to {days[1]}: {done:,} of {(stop - days[0]).days:,} dates are done: {rows:,} rows = {accepted:,} "
        f"accepted + {rejected:,} rejected, {time.time() - began:.0f} s",
        flush=True,
    )
    if code or done < (stop - days[0]).days:
        sys.exit(code or 1)


def closing_line(day: date, began: float) -> str:
    """Describes what was done for a date since a time (seconds since 1970): rows, tasks that ran, seconds."""
    with warehouse.connect() as connection:
        rows, accepted, rejected = connection.execute(
            "select coalesce(sum(bronze_rows), 0), coalesce(sum(accepted), 0), coalesce(sum(rejected), 0) "
            "from ops.dates where partition_date = %s",
            [day],
        ).fetchmany(1)[0]
    return (
        f"{day} is done: {rows:,} rows = {accepted:,} accepted + {rejected:,} rejected, "
        f"{scheduler.ran(day, began)} tasks, {time.time() - began - sum(program.WAITS):.0f} s"
    )


def forget_day(text: str) -> None:
    """Runs Forget for a date once no `make run` works on it; exits with Luigi's code."""
    day = program.parse_day(text)
    with warehouse.connect() as connection, warehouse.writer(connection, f"the date {day}"):
        if Forget(date=day).complete():
            print(f"{day} never ran, or is forgotten already: there is nothing to forget.")
            return
        code = worker.luigi_in_turn(day, "Forget")
    if code:
        print(f"{day} is not forgotten yet; give the same command again once the cause is gone.", file=sys.stderr)
        sys.exit(code)
    alert.forget(day)
    rebuild_pages()


def reconcile_day(text: str) -> None:
    """Compares all partitions of a date with their files; brings the marts up to date if something was corrected.

    Exits with Luigi's code.
    """
    day = program.parse_day(text)
    with warehouse.connect() as connection, warehouse.writer(connection, f"the date {day}"):
        if missing := [
            name for name in expected(day) if not ledger.current_run(connection, "gold", CATALOG[name], day)
        ]:
            raise program.Refused(f"Gold lacks {', '.join(missing)} of {day}; give `make run DATE={day}` first.")
        code = worker.luigi_in_turn(day, "ReconciledDate", "--since", str(ledger.turn()))
    if code:
        run_day(text, force=False, override=False)
        sys.exit(code)
    print(f"{day}: silver and gold have the rows that its files give.", flush=True)


def rebuild_pages() -> None:
    """Rebuilds the static pages unless they already show the current marts and dates; exits on failure."""
    with warehouse.connect() as connection:
        is_due = not pages.are_current(connection)
    if is_due:
        pages.build_or_leave(pages.home())
