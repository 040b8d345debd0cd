"""What needs an operator's attention: one sentence per problem."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import date

import psycopg
from botocore.exceptions import BotoCoreError, ClientError
from luigi.rpc import RPCError

from jobs import lake, program, settings, warehouse
from pipelines import tasks
from stack import prepare, services

NEARLY_FULL = 0.95  # of a disk


def problems() -> Iterator[str]:
    """A line for each service that is down, disk that is nearly full, date that is not as it should be, late file."""
    down = list(services_down())
    yield from down
    yield from full_disks()
    try:
        with warehouse.connect() as connection:
            yield from dates(connection)
            yield from late_files(connection)
            yield from changes_by_hand(connection)
    except psycopg.Error as error:
        if not down:
            yield program.sentence(error)


def services_down() -> Iterator[str]:
    """A line for each service of the embedded stack that does not answer; elsewhere for those that a run needs."""
    if (services.stack_dir() / prepare.MARKER).exists():
        for name, service in services.SERVICES.items():
            try:
                lacking = service.lacking()
            except SystemExit as error:  # a sentence of its own, as for a wrong password
                yield f"{name}: {error}"
                continue
            if lacking:
                yield f"{name} is down (it lacks {lacking}); start it with `make up`"
        return
    try:
        lake.s3().head_bucket(Bucket=settings.get("MINIO_BUCKET_BRONZE"))
    except (BotoCoreError, ClientError) as error:
        yield program.sentence(error)
    try:
        tasks.luigid().worker_list()
    except RPCError:
        yield "luigid does not answer"


def full_disks() -> Iterator[str]:
    """A line for each disk that holds the stack or the landing files and is nearly full."""
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
    """A line for each date that failed, is stopped, incomplete, unbalanced or due; none for one that is running."""
    found = connection.execute(
        "select partition_date, case when why like '%does not balance%' then 'does not balance' "
        "when why like '%is stopped before gold by%' then 'is stopped before gold' "
        "when not is_complete then 'is incomplete' else 'is due again' end, why "
        "from ops.dates where not (is_complete and is_balanced and is_current) "
        "union all select partition_date, 'never ran', coalesce(error, outcome) from ops.never_ran "
        "where layer <> 'forget' or outcome <> 'done' order by 1"
    ).fetchall()
    for day, state, why in found:
        if not is_running(connection, day):
            yield f"{day} {state}: {why or 'the marts are older than gold'}"


def is_running(connection: warehouse.Connection, day: date) -> bool:
    """Whether a `make run` has this date in hand, whose lock goes with its process."""
    name = f"the date {day}"
    free = warehouse.value(connection, "select pg_try_advisory_lock_shared(hashtext(%s))", [name])
    if free:
        connection.execute("select pg_advisory_unlock_shared(hashtext(%s))", [name])
    return not free


def late_files(connection: warehouse.Connection) -> Iterator[str]:
    """A line for each dataset whose next file should be here by now."""
    found = connection.execute("select dataset, next_date::text from ops.freshness where overdue order by next_date")
    for dataset, day in found.fetchall():
        yield f"{dataset} is late: the file of {day} should have come and been run by now"


def changes_by_hand(connection: warehouse.Connection) -> Iterator[str]:
    """A line for each gold table that was changed outside a load."""
    for dataset, rows, _ in connection.execute("select * from ops.unaccounted").fetchall():
        yield f"gold {dataset} has {rows:+,} rows outside any load; run its dates again with FORCE=1"
