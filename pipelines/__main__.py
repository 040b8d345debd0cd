"""Commands that make calls: `python -m pipelines run 2026-01-31 [--force] [--override]`, `forget`, `ledger`, ..."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime, timedelta, timezone

import psycopg
from luigi.retcodes import retcode, run_with_retcodes
from luigi.rpc import RPCError

from dashboards import pages
from jobs import borders, exports, landing, ledger, marts, program, schema, settings, warehouse
from jobs.catalog import CATALOG
from pipelines import alert, health, progress, runs, schedule, scheduler, tasks
from pipelines.tasks import Day, Failed, Forget
from stack import passwords


def main() -> None:
    """Runs one command of the platform; long because it declares each command with its options."""
    parser = argparse.ArgumentParser(prog="pipelines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="bring one date through all layers, if it is due")
    run.add_argument("date")
    run.add_argument("--force", action="store_true", help="run it all the same")
    run.add_argument("--override", action="store_true", help="let it pass where its rejects stop it before gold")
    backfill = commands.add_parser("backfill", help="bring all dates from one to another through all layers, if due")
    backfill.add_argument("first")
    backfill.add_argument("last")
    forget = commands.add_parser("forget", help="take a date back, as if it had never run")
    forget.add_argument("date")
    commands.add_parser("summary", help="rows per table, rejects per reason, URLs")
    ledger = commands.add_parser("ledger", help="is every date complete, balanced and current, and if not, why")
    ledger.add_argument("--last", type=int, default=31, help="dates to show, the newest first")
    commands.add_parser("health", help="one line per problem; code 1 if there is any")
    commands.add_parser("maintain", help="few files in silver, none that nobody reads; Luigi's old history forgotten")
    by_clock = commands.add_parser(
        "schedule", help="wait, and run each date that has ended, those that were missed too"
    )
    by_clock.add_argument(
        "crontab", nargs="?", help="when, as crontab writes it, in UTC; empty for never; else SCHEDULE"
    )
    given = parser.parse_args()
    try:
        if given.command == "summary":
            borders.say(summary())
        elif given.command == "ledger":
            borders.say(ledger_of(given.last))
        elif given.command == "health":
            tell_health()
        elif given.command == "maintain":
            run_maintenance()
        elif given.command == "backfill":
            run_backfill(given.first, given.last)
        elif given.command == "forget":
            forget_day(given.date)
        elif given.command == "schedule":
            schedule.by(settings.given("SCHEDULE") if given.crontab is None else given.crontab)
        else:
            with told(given.date):
                run_day(given.date, given.force, given.override)
    except program.Refused as error:
        program.leave(2, str(error))
    except Failed as error:
        program.leave(1, str(error))
    except KeyboardInterrupt:
        program.leave(130, "Ended by the keyboard; the same command goes on from what is done.")
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        os._exit(1)
    except Exception as error:
        program.leave(1, program.sentence(error))


@contextmanager
def told(text: str) -> Iterator[None]:
    """Calls the operator's commands when the run of a date fails, or succeeds after a failure.

    An invalid date, or one that has not begun, is a usage error and no failure of the date.
    """
    try:
        yield
    except program.Refused:
        raise
    except SystemExit as end:
        if end.code:
            day, said = program.parse_day(text), end.code if isinstance(end.code, str) else ""
            tell_failure(day, *failure(day, said or f"{day} ended with code {end.code}; its output says why."))
        raise
    except Exception as error:
        tell_failure(program.parse_day(text), "Day", program.sentence(error))
        raise
    alert.done(program.parse_day(text))


def tell_failure(day: date, task: str, sentence: str) -> None:
    """Calls the operator's command for a failed date; records the failure in the ledger unless a task has done so."""
    if task == "Day" or not is_told(day):
        runs.add(day, task, sentence)
        runs.record_failure("run", "all", day, sentence)
    alert.failed(day, task, sentence, "stopped" if task == "QualityGate" else "failed")
    with suppress(Exception, SystemExit):  # reporting the failure comes first; a store may be down
        rebuild_pages()


def is_told(day: date) -> bool:
    """Tells whether the ledger already explains why a date is not done; False if PostgreSQL is down."""
    with suppress(psycopg.Error), warehouse.connect() as connection:
        return warehouse.value(
            connection,
            "select exists(select from ops.dates where partition_date = %(day)s and state in ('failed', 'stopped')) "
            "or exists(select from ops.never_ran where partition_date = %(day)s)",
            {"day": day},
        )
    return False


def failure(day: date, otherwise: str) -> tuple[str, str]:
    """Returns the name of a failed task of a date and the sentences of all failed tasks, as luigid has them."""
    names, sentences = [], []
    with suppress(RPCError):
        for status in ("FAILED", "DISABLED"):
            for task_id, task in scheduler.tasks(status, day).items():
                if task_id not in tasks.disabled():
                    names.append(scheduler.name_of(task))
                    sentences.append(json.loads(scheduler.luigid().fetch_error(task_id)["error"] or '""'))
    return (min(names, default="Day"), "\n".join(dict.fromkeys(filter(None, sentences))) or otherwise)


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
            code = luigi_in_turn(day, "Day", *options)
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
        tasks.disabled.cache_clear()
        # Luigi's own lock would block the second task.
        words = "--no-lock", "--of", task, "--start", str(days[0]), "--stop", str(stop), "--days-forward", str(ahead)
        code = code_of("RangeDaily", *words)
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
        code = luigi_in_turn(day, "Forget")
    if code:
        print(f"{day} is not forgotten yet; give the same command again once the cause is gone.", file=sys.stderr)
        sys.exit(code)
    alert.forget(day)
    rebuild_pages()


def rebuild_pages() -> None:
    """Rebuilds the static pages unless they already show the current marts and dates; exits on failure."""
    with warehouse.connect() as connection:
        is_due = not pages.are_current(connection)
    if is_due:
        pages.build_or_leave(pages.home())


def luigi_in_turn(day: date, task: str, *options: str) -> int:
    """Runs a Luigi task of a date that the caller has locked, after any other worker on it; returns Luigi's code."""
    # Luigi's own lock would block the second attempt.
    words, told = [task, "--no-lock", *options], False
    while must_wait(code := luigi_code(day, *words)):
        if not told:
            print(f"waiting: luigid knows of another worker with tasks of {day}", file=sys.stderr, flush=True)
        told = True
        time.sleep(2)
    return code


def luigi_code(day: date, task: str, *words: str) -> int:
    """Runs a Luigi task of a date, retrying disabled tasks too; returns Luigi's exit code."""
    tasks.disabled.cache_clear()
    with progress.shown(day):
        return code_of(task, "--date", str(day), *words)


def code_of(*words: str) -> int:
    """Runs a Luigi task; returns Luigi's exit code."""
    try:
        run_with_retcodes(["--module", "pipelines", "--log-level", "WARNING", *words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def must_wait(code: int) -> bool:
    """Tells whether Luigi stopped because another worker, possibly a dead one, has running tasks.

    luigid notices a dead worker within a minute; until then, tasks that depend on its tasks do not start.
    """
    codes = retcode()
    return code == codes.already_running or (code == codes.not_run and is_a_worker_missed())


def is_a_worker_missed() -> bool:
    """Tells whether a busy worker missed three heartbeats, or luigid has marked its tasks as failed.

    Such tasks can be retried after `retry_delay` at the latest, even if they are disabled.
    """

    def last_heard() -> dict[str, float]:
        return {each["name"]: each["last_active"] for each in scheduler.luigid().worker_list() if each["num_running"]}

    with suppress(RPCError):
        before = last_heard()
        if scheduler.tasks("FAILED") or set(scheduler.tasks("DISABLED")) - tasks.disabled():
            return True
        time.sleep(3)
        after = last_heard()
        return any(after.get(name, heard) == heard for name, heard in before.items())
    return False


def run_maintenance() -> None:
    """Runs Maintenance even if it has already run today; exits with Luigi's code."""
    today = datetime.now(timezone.utc).date()
    sys.exit(luigi_code(today, "Maintenance", "--since", str(ledger.turn())))


def tell_health() -> None:
    """Prints one line per problem, or that there is none; exits with 1 if there is any.

    Known passwords are no problem while nothing listens beyond loopback, but are mentioned.
    """
    record_pending()
    found = list(health.problems())
    if notice := passwords.notice():
        borders.say(notice)
    borders.say("\n".join(found) or "Healthy: every service answers, every date is complete, balanced and current.")
    sys.exit(1 if found else 0)


def record_pending() -> None:
    """Brings the warehouse in line with the catalog and records failures that the ledger lacks, if PostgreSQL is up."""
    with suppress(psycopg.Error), warehouse.connect() as connection:
        schema.bring_up_to_date(connection)
        runs.record_pending(connection)


def summary() -> str:
    """Returns the rows of every gold table and mart, rejected rows per dataset and reason, and addresses."""
    with warehouse.connect() as connection:
        trust = connection.execute(
            "select sum(revenue), sum(revenue_withheld), sum(revenue_unknown) from ops.mart_trust "
            "where department = '*'"
        ).fetchmany(1)[0]
        lines = ["Rows"]
        for table in [*CATALOG, *sorted(name for name in marts.selects() if name.startswith("mart_"))]:
            rows = warehouse.value(connection, f"select count(*) from {table}")
            lines.append(f"  {table:<24}{rows:>12,}")
        lines.append("Rejected, all dates")
        for dataset in CATALOG:
            found = connection.execute(
                "select reason, sum(hits) from ops.reasons natural join ops.receipts "
                "where layer = 'silver' and dataset = %s and hits > 0 group by reason order by 2 desc, 1",
                [dataset],
            )
            lines += [f"  {dataset:<12}{reason:<28}{hits:>8,}" for reason, hits in found]
    if trust[0]:
        share = 100 * trust[0] / (trust[0] + trust[1])
        lines += [
            "Revenue in the marts, and what was withheld from them",
            f"  {'counted':<24}{trust[0]:>16,.2f}  ({share:.2f} % of what could be read)",
            f"  {'withheld':<24}{trust[1]:>16,.2f}  (and {trust[2]:,} bills whose amount cannot be relied on)",
        ]
    lines.append("Look at")
    places = {
        "Luigi": f"http://127.0.0.1:{settings.get('LUIGI_PORT')}",
        "Spark master": f"http://127.0.0.1:{settings.get('SPARK_MASTER_WEBUI_PORT')}",
        "Spark history": f"http://127.0.0.1:{settings.get('SPARK_HISTORY_PORT')}/?showIncomplete=true",
        "MinIO console": f"http://127.0.0.1:{settings.get('MINIO_CONSOLE_PORT')}",
        "PostgreSQL": f"{settings.get('POSTGRES_HOST')}:{settings.get('POSTGRES_PORT')}/{settings.get('POSTGRES_DB')}",
        "Dashboards": f"http://127.0.0.1:{settings.get('DASHBOARDS_PORT')}",
    }
    return "\n".join([*lines, *(f"  {name:<16}{place}" for name, place in places.items())])


def ledger_of(last: int) -> str:
    """Returns the newest dates of ops.dates, dates without a current run, rows waiting for parents, and late files.

    Long because each part of the report is a query and the words for its rows.
    """
    with warehouse.connect() as connection:
        schema.bring_up_to_date(connection)
        runs.record_pending(connection)
        dates = connection.execute(
            "select partition_date, bronze_rows, accepted, dates.rejected, amount_in, amount_accepted, "
            "amount_rejected, is_complete, is_balanced, is_current, why, dates.state, seconds, usual_seconds "
            "from ops.dates left join reports.dates as times on times.day = partition_date "
            "order by partition_date desc limit %s",
            [last],
        ).fetchall()
        waiting = connection.execute(
            "select dataset, partition_date, reason, waiting, attempts, age_days, orphan_days, is_final "
            "from ops.orphans order by partition_date desc, dataset limit %s",
            [last],
        ).fetchall()
        never = connection.execute(
            "select partition_date, layer, error, asked_by, ended_at at time zone 'UTC', times.state = 'running' "
            "from ops.never_ran left join reports.dates as times on times.day = partition_date "
            "order by partition_date desc limit %s",
            [last],
        ).fetchall()
        late = connection.execute(
            "select dataset, newest, newest - (missing_dates + dates - 1)::int, missing_dates, next_date, overdue "
            "from ops.freshness "
            "where overdue or missing_dates > 0 or newest is null"
        ).fetchall()
        not_run = landed_and_not_run(connection)
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
    if never:
        lines.append("Never ran")
    for day, layer, error, asked_by, ended, running in never:
        forgotten = f"forgotten on {ended:%Y-%m-%d %H:%M} UTC by {asked_by}" if ended else "is being forgotten"
        why = "is running" if running else error or (forgotten if layer == "forget" else "a job of it did not end")
        lines.append(f"  {day!s:<12}{why}")
    if not_run:
        lines.append("Landed and not run")
    for day, names in sorted(not_run.items(), reverse=True)[:last]:
        lines.append(f"  {day!s:<12}{', '.join(names)}; make run DATE={day}")
    if waiting:
        lines.append("Rows that wait for a parent")
    for dataset, day, reason, rows, attempts, age, limit, final in waiting:
        state = "final" if final else f"a parent counts for {limit - age} more days"
        lines.append(
            f"  {dataset:<12}{day!s:<12}{reason:<20}{rows:>8,}  validated {attempts} times in {age} days, {state}"
        )
    missing_files = []
    for dataset, newest, oldest, missing, following, overdue in late:
        landed = {day for day, names in not_run.items() if dataset in names}
        faults = [f"{following} should be here by now"] if overdue and following not in landed else []
        never_came = (missing or 0) - len([day for day in landed if newest and oldest < day < newest])
        faults += [f"{never_came:,} earlier dates never came"] if never_came > 0 else []
        if newest and not faults:
            continue
        missing_files.append(f"  {dataset:<12}newest {newest}: {', '.join(faults) or 'nothing is in gold'}")
    if missing_files:
        lines += ["Files that are late or missing", *missing_files]
    return "\n".join(lines)


def landed_and_not_run(connection: warehouse.Connection) -> dict[date, list[str]]:
    """Returns by date the datasets whose landing file no run has taken up or tried to."""
    found = connection.execute("select distinct dataset, partition_date from ops.ledger where layer = 'bronze'")
    tried, not_run = set(found.fetchall()), dict[date, list[str]]()
    for dataset in CATALOG.values():
        for day in {*landing.landed_days(dataset), *exports.landed_days()}:
            if day >= dataset.since and (dataset.name, day) not in tried:
                not_run.setdefault(day, []).append(dataset.name)
    return not_run


if __name__ == "__main__":
    main()
