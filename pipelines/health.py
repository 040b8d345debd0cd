"""Finds what needs an operator's attention: one sentence per problem."""

import shutil
import sys
from collections.abc import Container, Iterator
from contextlib import suppress
from datetime import date

import psycopg
from botocore.exceptions import BotoCoreError, ClientError
from luigi.rpc import RPCError

from jobs import borders, exports, landing, ledger, object_store, program, schema, settings, warehouse
from jobs.catalog import CATALOG
from pipelines import runs, scheduler
from stack import backup, passwords, prepare, services, supervision

NEARLY_FULL = 0.95  # share of a disk in use
LONG = 1.0  # hours that a job may always take
OLD_MARTS = "the marts are older than gold"
STATES = {
    "failed": "failed",
    "stopped": "is stopped before gold",
    "unbalanced": "does not balance",
    "incomplete": "is incomplete",
    "due": "is due again",
}


def tell_health() -> None:
    """Prints one line per problem, or that there is none; exits with 1 if there is any.

    Known passwords are no problem while nothing listens beyond loopback, but are mentioned.
    """
    record_pending()
    found = list(problems())
    if notice := passwords.notice():
        borders.say(notice)
    borders.say("\n".join(found) or "Healthy: every service answers, every date is complete, balanced and current.")
    sys.exit(1 if found else 0)


def record_pending() -> None:
    """Brings the warehouse in line with the catalog and records failures that the ledger lacks, if PostgreSQL is up."""
    with suppress(psycopg.Error), warehouse.connect() as connection:
        schema.bring_up_to_date(connection)
        runs.record_pending(connection)


def problems() -> Iterator[str]:
    """Yields a line for each service that is down, open port, full disk, missing backup, problem date, or late file."""
    down = list(services_down())
    yield from down
    yield from open_ports()
    yield from full_disks()
    yield from backup.problems()
    try:
        with warehouse.connect() as connection:
            of_dates = list(dates(connection))
            yield from of_dates
            yield from late_files(connection, told={line.partition(" ")[0] for line in of_dates})
            yield from changes_by_hand(connection)
            yield from corrected(connection)
    except psycopg.Error as error:
        if not down:
            yield program.sentence(error)


def services_down() -> Iterator[str]:
    """Yields a line for each service of the embedded stack that is down; elsewhere, for those that a run needs."""
    if (services.stack_dir() / prepare.MARKER).exists():
        for name, service in services.SERVICES.items():
            try:
                lacking = service.lacking()
            except SystemExit as error:  # it has its own sentence, as for a wrong password
                yield f"{name}: {error}"
                continue
            if lacking:
                yield f"{name} is down (it lacks {lacking}); start it with `make up`"
        return
    try:
        object_store.s3().head_bucket(Bucket=settings.get("MINIO_BUCKET_BRONZE"))
    except (BotoCoreError, ClientError) as error:
        yield program.sentence(error)
    try:
        scheduler.luigid().worker_list()
    except RPCError:
        yield "luigid does not answer"


def open_ports() -> Iterator[str]:
    """Yields a line for each port open to other machines under a known password, and for a `make secrets` to finish."""
    if passwords.journal().exists():
        yield "`make secrets` was interrupted: give it again"
    if settings.known_secrets() and (services.stack_dir() / prepare.MARKER).exists():
        for place, address in supervision.open_addresses():
            yield f"{place} listens on {address} while known passwords are in use; run `make secrets`"


def full_disks() -> Iterator[str]:
    """Yields a line for each nearly full disk that holds the stack or the landing files."""
    seen = set()
    for name in ("STACK_DIR", "LANDING_DIR"):
        with suppress(OSError):
            place = settings.path(name)
            if (disk := place.stat().st_dev) in seen:
                continue
            seen.add(disk)
            space = shutil.disk_usage(place)
            if space.used >= NEARLY_FULL * (space.used + space.free):
                free, whole = space.free / 1e9, space.total / 1e9
                yield f"the disk of {name} is nearly full: {free:,.1f} of {whole:,.0f} GB are free; make room on it"


def dates(connection: warehouse.Connection) -> Iterator[str]:
    """Yields a line for each date that failed, is stopped, incomplete, unbalanced or due, and for each overlong job.

    Outdated marts concern every date, so they get one line of their own, unless a run is about to build them.
    """
    found = connection.execute(
        "select partition_date, state, why from ops.dates where state <> 'done' "
        "union all select partition_date, 'never ran', coalesce(error, outcome) from ops.never_ran "
        "where layer <> 'forget' or outcome <> 'done' order by 1"
    ).fetchall()
    of_marts = [day for day, state, why in found if state == "incomplete" and why == OLD_MARTS]
    if of_marts and "running" not in [state for _, state, _ in found]:
        yield f"{OLD_MARTS}: luigi --module pipelines GoldPipeline --date {of_marts[-1]}"
    for day, state, why in found:
        if state not in ("running", "never ran") and day not in of_marts:
            yield f"{day} {STATES[state]}: {why}"
        elif state == "never ran" and not is_running(connection, day):
            yield f"{day} never ran: {why}"
    yield from long_runs(connection)


def is_running(connection: warehouse.Connection, day: date) -> bool:
    """Tells whether a `make run` holds this date, or one of its jobs is running."""
    return warehouse.value(
        connection,
        "select ops.is_locked('the date ' || %(day)s) or exists(select from ops.ledger "
        "where partition_date = %(day)s and outcome = 'running' and ops.is_locked('run ' || run_id))",
        {"day": day},
    )


def long_runs(connection: warehouse.Connection) -> Iterator[str]:
    """Yields a line for each job that has run longer than on any of the last 90 days, and longer than LONG."""
    found = connection.execute(
        "select layer, dataset, partition_date, extract(epoch from now() - started_at)::int / 60 from ops.ledger "
        "where outcome = 'running' and ops.is_locked('run ' || run_id) and layer <> 'revalidated' "
        "and now() - started_at > greatest(%s * interval '1 hour', %s * interval '1 second') order by started_at",
        [LONG, ledger.longest_run(connection)],
    )
    for layer, dataset, day, minutes in found:
        yield f"{day} {layer} {dataset} has been running for {minutes:,} minutes; look at Spark's page, or end its job"


def late_files(connection: warehouse.Connection, told: Container[str] = ()) -> Iterator[str]:
    """Yields a line for each dataset whose next file is late, and for each date with landed files that have not run.

    Skips dates that are already reported (`told`).
    """
    found = connection.execute("select dataset, next_date from ops.freshness where overdue order by next_date")
    not_run: dict[date, list[str]] = {}
    for dataset, day in found.fetchall():
        if str(day) in told:
            continue
        if exports.folders(day) or landing.has_landed(CATALOG[dataset], day):
            not_run.setdefault(day, []).append(dataset)
        else:
            yield f"{dataset} is late: the file of {day} should have come and been run by now"
    for day, datasets in not_run.items():
        if not is_running(connection, day):
            yield f"{day} is not run: {', '.join(datasets)} landed; make run DATE={day}"


def corrected(connection: warehouse.Connection) -> Iterator[str]:
    """Yields a line for each partition that differed from its file when they were last compared."""
    found = connection.execute(
        "select distinct on (dataset, partition_date) dataset, partition_date, outcome, error from ops.ledger "
        "where layer = 'reconciliation' and outcome <> 'running' order by dataset, partition_date, turn desc"
    )
    for _, _, outcome, error in found:
        if outcome == "failed":
            yield error


def changes_by_hand(connection: warehouse.Connection) -> Iterator[str]:
    """Yields a line for each gold table that was changed outside a load."""
    for dataset, rows, _ in connection.execute("select * from ops.unaccounted").fetchall():
        yield f"gold {dataset} has {rows:+,} rows outside any load; run its dates again with FORCE=1"
