"""Plays the history of a hospital whose days run in any order, by hand or by Luigi, and are killed at any boundary.

The jobs run in this process on one Spark session, against the real stores; `death` names the boundary at which one
dies.
"""

import functools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import luigi
import pytest
from luigi.task import flatten
from pyspark.sql import functions as F

from jobs import (
    beds,
    bronze_files,
    bronze_to_silver,
    concerned,
    delta_tables,
    forget,
    gold,
    gold_to_marts,
    landing_to_bronze,
    ledger,
    marts,
    object_store,
    program,
    raw,
    revalidation,
    settings,
    silver_to_gold,
    source_to_bronze,
    warehouse,
)
from jobs.catalog import CATALOG
from jobs.concerned import MANY_ROWS, MOST
from pipelines import task_log, tasks
from stack import store
from tests.support import measures, model, twin

# Four consecutive days, and one within reach of the orphans of all but the first.
FIRST = date(2030, 1, 1)
DAYS = [FIRST + timedelta(days=number) for number in (0, 1, 2, 3, model.ORPHAN_DAYS + 1)]
NOT_CONTENT = {"_run_id", "_loaded_at"}
MARTS = ("mart_daily_kpis", "mart_department_stats", "mart_patient_stats", *measures.NAMES)

JOBS: dict[str, Callable[..., str]] = {
    "landing_to_bronze.py": landing_to_bronze.landing_to_bronze,
    "bronze_to_silver.py": bronze_to_silver.bronze_to_silver,
    "silver_to_gold.py": silver_to_gold.silver_to_gold,
    "gold_to_marts.py": gold_to_marts.gold_to_marts,
    "forget.py": forget.forget,
    "source_to_bronze.py": source_to_bronze.source_to_bronze,
}
TOGETHER = ("bronze_to_silver.py", "silver_to_gold.py")  # jobs that take all their dates at once
# The boundaries at which a job may die: before and after each call of these.
BOUNDARIES = [
    *((bronze_files, name) for name in ("upload", "remove_bronze")),
    (raw, "upload"),
    (source_to_bronze, "derive"),
    *((delta_tables, name) for name in ("replace", "insert")),
    *((ledger, name) for name in ("write", "withdraw", "mark_stale", "settle_silver", "settle", "delete_markers")),
    *((gold, name) for name in ("create_staging", "append", "find_lost", "load", "replace_withheld")),
    *((gold, name) for name in ("drop_staging", "account_for")),
    (revalidation, "stale_dates"),
    *((marts, name) for name in ("refresh", "rebuild", "check")),
]
DEATHS = {
    "landing_to_bronze.py": ("after write 1", "before upload", "after upload", "after write 2", "after settle"),
    "source_to_bronze.py": (
        "after write 1",
        "before upload 1",
        "after upload 3",  # of the source's files
        "before derive",
        "after derive",
        "before upload 6",
        "after upload 8",  # of the files derived from them
        "before settle 1",
        "after settle 5",  # but not committed
        "after settle 6",  # but not committed
    ),
    "bronze_to_silver.py": (
        "after write 1",
        "before withdraw",
        "before replace",
        "before replace accepted",
        "before replace rejected",
        "before insert",
        "after insert",
        "before stale_dates",
        "before mark_stale 1",
        "after mark_stale 1",
        "before settle_silver",
        "after write 4",
        "after settle",  # but not committed
        "after settle_silver",
    ),
    "silver_to_gold.py": (
        "after create_staging",
        "after append 1",
        "after append 2",
        "after find_lost",
        "after load 1",
        "after load 3",
        "after replace_withheld",
        "after settle",  # but not committed
        "before drop_staging 2",
    ),
    "gold_to_marts.py": ("after refresh", "after rebuild", "after check", "after settle"),
    "forget.py": (
        "after write 2",
        "before withdraw 1",
        "before replace accepted 1",
        "after replace accepted 3",
        "before replace rejected 2",
        "after replace rejected 5",
        "before stale_dates 4",
        "before mark_stale 1",
        "after settle 4",  # but not committed
        "before settle 5",
        "after load 1",
        "after load 4",
        "after drop_staging 3",
        "before remove_bronze 1",
        "after remove_bronze 2",
        "before delete_markers 1",
        "after delete_markers 1",
        "after check",
        "before delete_markers 2",
        "after delete_markers 2",  # but not committed
    ),
}
# The messages of a job that runs too early.
TOO_EARLY = ("BronzeIngestion", "has not been validated to the end", "back meanwhile")


class Killed(BaseException):
    """Signals that the job's process has died."""


class Life:
    """Represents one job in this process; `death` ends it like kill -9.

    Closes its connections, which releases locks and open transactions, and lets it write nothing more.
    """

    def __init__(self, death: str | None) -> None:
        self.death, self.connections, self.reached = death, [], Counter[str]()
        self.is_over = False

    def cross(self, side: str, name: str) -> None:
        """Counts a crossed boundary; `death` may omit the end of its name: the number of the call, or its object."""
        self.reached[f"{side} {name}"] += 1
        if self.death and f"{side} {name} {self.reached[f'{side} {name}']} ".startswith(f"{self.death} "):
            self.is_over = True
            for connection in self.connections:
                connection.close()
            raise Killed(self.death)


LIVES: list[Life] = []  # the running job, if any


def connect(real: Callable[[], warehouse.Connection]) -> Callable[[], warehouse.Connection]:
    @functools.wraps(real)
    def call() -> warehouse.Connection:
        connection = real()
        if LIVES:
            LIVES[-1].connections.append(connection)
        return connection

    return call


def boundary(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        name = function.__name__
        if name in ("replace", "change"):
            name += f" {arguments[2 if name == 'replace' else 3]}"
        for life in LIVES[-1:]:
            life.cross("before", name)
        result = function(*arguments, **named)
        for life in LIVES[-1:]:
            life.cross("after", name)
        return result

    return call


@contextmanager
def ground(spark: Any) -> Iterator[None]:
    """Makes jobs and tasks run in this process, where they can be killed; leaves the warehouse empty."""
    # Compiling a small query takes longer than running it.
    quick = {
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.databricks.delta.writeChecksumFile.enabled": "false",
    }
    before = {name: spark.conf.get(name, None) for name in quick}
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as declarations:
        (Path(declarations) / f"{twin.NAME}.yml").write_text(twin.DECLARATION)
        patch.setenv("SOURCES_DIR", declarations)
        patch.setenv("SPARK_REMOTE", f"sc://127.0.0.1:{os.environ['SPARK_CONNECT_PORT']}")
        for name in ("MINIO_BUCKET_BRONZE", "MINIO_BUCKET_SILVER", "LANDING_DIR"):
            patch.setenv(name, os.environ[name])
        for name in ("session", "SEEN", "stale_since"):
            patch.setattr(tasks, name, getattr(tasks, name))
        for name in ("MANY_ROWS", "MOST"):
            patch.setattr(concerned, name, getattr(concerned, name))
        patch.setattr(tasks.MarkedTask, "job", job)
        patch.setattr(warehouse, "connect", connect(warehouse.connect))
        for module, name in BOUNDARIES:
            patch.setattr(module, name, boundary(getattr(module, name)))
        try:
            for name, setting in quick.items():
                spark.conf.set(name, setting)
            yield
        finally:
            for name, setting in before.items():
                spark.conf.unset(name) if setting is None else spark.conf.set(name, setting)
            empty_warehouse()


def create_bucket(name: str) -> None:
    """Creates a bucket for the current settings of bronze or silver, with all users' privileges."""
    store.root().create_bucket(Bucket=name)
    for user, (verb, buckets) in store.rights().items():
        if name in buckets:
            store.admin().policy_add(f"{name}-{verb}", policy=store.policy(name, buckets[name]))
            store.admin().attach_policy([f"{name}-{verb}"], user=settings.get(f"{user}_ACCESS_KEY"))


def remove_bucket(name: str) -> None:
    """Removes a bucket with its content."""
    for page in store.root().get_paginator("list_objects_v2").paginate(Bucket=name):
        if keys := [{"Key": thing["Key"]} for thing in page.get("Contents", [])]:
            store.root().delete_objects(Bucket=name, Delete={"Objects": keys})
    store.root().delete_bucket(Bucket=name)
    for user, (verb, buckets) in store.rights().items():
        if name in buckets:
            store.admin().detach_policy([f"{name}-{verb}"], user=settings.get(f"{user}_ACCESS_KEY"))
            store.admin().policy_remove(f"{name}-{verb}")


def empty_warehouse() -> None:
    with warehouse.connect() as connection:
        tables = connection.execute(
            "select format('%I.%I', schemaname, tablename) from pg_tables "
            # written from the catalog
            "where schemaname in ('public', 'ops') and tablename not in ('datasets', 'rules')"
        ).fetchall()
        connection.execute(f"truncate {', '.join(table for (table,) in tables)}")
        gold.drop_staging(connection)


def run(script: str, *words: str, death: str | None = None) -> bool:
    """Runs a job as its script does, once for all dates or once per date; returns False if it was killed."""
    dataset = [CATALOG[words[0]]] if words[0] in CATALOG else []
    days = [date.fromisoformat(day) for day in words[len(dataset) :]]
    for each in [days] if script in TOGETHER else [[day] for day in days]:
        LIVES.append(Life(death))
        try:
            JOBS[script](*dataset, *each)
        except Killed:
            return False
        except Exception:
            if not LIVES[-1].is_over:
                raise
            return False  # another thread of the job met its closed connection first
        finally:
            LIVES.pop()
    return True


def job(task: luigi.Task, script: str, *words: str) -> None:
    """Replaces the method of tasks that runs a job."""
    if not run(script.removeprefix("jobs/"), *words, death=Luigi.death):
        Luigi.death = None
        raise task_log.Failed("killed")


class Luigi:
    """Imitates a luigi process: plans at the start, then runs one task after the other."""

    death: str | None = None  # where the next of its jobs that crosses it dies
    look_up = staticmethod(tasks.stale_since.__wrapped__)

    def __init__(self, *wanted: luigi.Task) -> None:
        self.turn, self.seen = ledger.turn(), set[str]()
        self.stale_since = functools.cache(self.look_up)
        self.wake()
        planned: set[str] = set()
        self.todo = [task for each in wanted for task in self.due(each, planned)]
        self.seen = tasks.SEEN

    def wake(self) -> None:
        """Resets the completeness that a task has cached: Luigi forks for each task, so the next one lacks it."""
        tasks.session, tasks.SEEN, tasks.stale_since = lambda: self.turn, set(self.seen), self.stale_since

    def due(self, task: luigi.Task, planned: set[str]) -> Iterator[luigi.Task]:
        """Plans as Luigi does: does not look behind complete tasks."""
        if task.task_id in planned:
            return
        planned.add(task.task_id)
        if not task.complete():
            for needed in flatten(task.requires()):
                yield from self.due(needed, planned)
            yield task

    def advance(self, count: int = 1, death: str | None = None) -> None:
        """Runs the next tasks; raises Failed if one fails, which ends the process."""
        Luigi.death = death
        for _ in range(min(count, len(self.todo))):
            task = self.todo.pop(0)
            self.wake()
            with task_log.sentences():
                if not all(needed.complete() for needed in flatten(task.requires())):
                    raise task_log.Failed(f"unfulfilled dependencies of {task}")
                task.run()
                if not task.complete():
                    raise task_log.Failed(f"{task} left nothing behind")


class History:
    """Holds a hospital from its first file on; each step adds a line to `lines`."""

    def __init__(self) -> None:
        self.files: dict[model.Place, list[str]] = {}
        self.earlier: dict[model.Place, list[list[str]]] = {}
        self.by_source: set[date] = set()  # dates whose files are a source's
        self.half_forgotten: set[date] = set()  # dates whose `forget` died; they must be forgotten or land again
        self.processes: list[tuple[str, Luigi]] = []
        self.lines: list[str] = []
        self.folder = Path(tempfile.mkdtemp(prefix="healthcare-history-"))
        # Each history has its own tables, since the files of a Delta table must not be deleted under the Spark Connect
        # server, which caches them.
        names = {kind: f"{self.folder.name.replace('_', '-')}-{kind}".lower() for kind in ("bronze", "silver")}
        os.environ |= {f"MINIO_BUCKET_{kind.upper()}": name for kind, name in names.items()}
        os.environ["LANDING_DIR"] = str(self.folder)
        self.buckets = list(names.values())
        for name in self.buckets:
            create_bucket(name)
        empty_warehouse()

    def close(self) -> None:
        shutil.rmtree(self.folder)
        for name in self.buckets:
            remove_bucket(name)

    def choose_way(self, by_key: bool) -> None:
        """Has partitions validated by key when parents came or went, or whole, as small ones are otherwise."""
        concerned.MANY_ROWS, concerned.MOST = (0, 1.0) if by_key else (MANY_ROWS, MOST)
        self.lines.append(f"from now on, partitions are validated again {'by key' if by_key else 'whole'}")

    # ---- files -------------------------------------------------------------------------------------------------------

    @property
    def days(self) -> list[date]:
        return sorted({day for _, day in self.files})

    def day(self, number: int) -> date:
        """Returns one of the days that have landed."""
        return self.days[number % len(self.days)]

    def place(self, number: int) -> model.Place:
        """Returns one of the files that have landed."""
        places = sorted(self.files)
        return places[number % len(places)]

    def ready(self, script: str, number: int, others: Collection[date] = ()) -> tuple[str, ...]:
        """Returns the arguments of a job for a partition that it can process, and for its dataset on other dates.

        Falls back to the job before it if there is no such partition.
        """
        needed = {"bronze_to_silver.py": "bronze", "silver_to_gold.py": "silver"}
        if script in ("gold_to_marts.py", "forget.py"):
            return script, str(self.day(number))
        if script == "source_to_bronze.py" and self.by_source:
            return script, str(sorted(self.by_source)[number % len(self.by_source)])
        if script not in needed:
            return self.to_bronze(*self.place(number))
        with warehouse.connect() as connection:
            query = "select dataset, partition_date from ops.receipts where layer = %s order by 1, 2"
            places = connection.execute(query, [needed[script]]).fetchall()
        if not places:
            names = list(JOBS)
            return self.ready(names[names.index(script) - 1], number, others)
        dataset, day = places[number % len(places)]
        more = [other for name, other in places if name == dataset and other in others and other != day]
        return script, dataset, str(day), *map(str, more)

    def to_bronze(self, dataset: str, day: date) -> tuple[str, ...]:
        """Returns the arguments of the job that brings a file to bronze: with all files of its date, or by itself."""
        if day in self.by_source:
            return "source_to_bronze.py", str(day)
        return "landing_to_bronze.py", dataset, str(day)

    def land(self, dataset: str, day: date, rows: Sequence[str]) -> None:
        """Writes a file, replacing an earlier version: a landing file, or the source's if the date has one."""
        if (dataset, day) in self.files:
            self.earlier.setdefault((dataset, day), []).append(self.files[dataset, day])
        self.files[dataset, day] = list(rows)
        self.half_forgotten.discard(day)
        by = " by the source" if day in self.by_source else ""
        self.lines.append(f"{dataset} of {day} lands{by}: {' | '.join(rows) or 'no rows'}")
        name = f"{twin.NAME}/{twin.file_name(dataset)}" if by else f"{dataset}.csv"
        path = self.folder / f"{day:%Y/%m/%d}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{line}\n" for line in (",".join(model.COLUMNS[dataset]), *rows))
        path.write_bytes(twin.as_sent(text) if by else text.encode())

    def land_all(self, day: date, files: dict[str, list[str]], by_source: bool = False) -> None:
        """Writes all files of a date, ours or the source's, in place of those that it had."""
        shutil.rmtree(self.folder / f"{day:%Y/%m/%d}", ignore_errors=True)
        self.by_source = self.by_source | {day} if by_source else self.by_source - {day}
        for dataset, rows in files.items():
            self.land(dataset, day, rows)

    def put_back(self, dataset: str, day: date) -> None:
        """Lands the file's first version again."""
        if versions := self.earlier.get((dataset, day)):
            self.land(dataset, day, versions[0])

    # ---- single jobs by hand -----------------------------------------------------------------------------------------

    def run(self, script: str, *words: str, death: str | None = None) -> None:
        self.lines.append(f"{script} {' '.join(words)}" + (f", killed {death}" if death else ""))
        try:
            alive = run(script, *words, death=death)
        except program.Refused as error:
            if not any(text in str(error) for text in TOO_EARLY):
                raise
            self.lines[-1] += ": refused"
            return
        if death:
            self.lines[-1] += ": ended before" if alive else ": dead"
        if script == "gold_to_marts.py" and alive:
            with warehouse.connect() as connection:
                marts.check(connection)
        if script == "silver_to_gold.py" and alive:
            with warehouse.connect() as connection:
                left = connection.execute("select tablename from pg_tables where schemaname = 'staging'").fetchall()
            assert not left, f"staging is left behind by a load: {left}"

    def all_the_way(self, dataset: str, day: date) -> None:
        """Loads a file to gold, and no other file."""
        self.run(*self.to_bronze(dataset, day))
        for script in ("bronze_to_silver.py", "silver_to_gold.py"):
            self.run(script, dataset, str(day))

    def revalidate(self, number: int) -> None:
        """Revalidates one of the partitions marked as due, if any."""
        if due := ledger.stale():
            dataset, day, _ = sorted(due)[number % len(due)]
            self.run("bronze_to_silver.py", dataset, str(day))

    def forget(self, day: date, death: str | None = None) -> None:
        """Forgets a date after removing its files; keeps the last date."""
        if len(self.days) < 2 and day in self.days:
            return
        self.files = {place: rows for place, rows in self.files.items() if place[1] != day}
        self.earlier = {place: rows for place, rows in self.earlier.items() if place[1] != day}
        self.by_source.discard(day)
        shutil.rmtree(self.folder / f"{day:%Y/%m/%d}", ignore_errors=True)
        self.half_forgotten.add(day)
        self.run("forget.py", str(day), death=death)
        if not self.lines[-1].endswith((": dead", ": refused")):
            self.half_forgotten.discard(day)

    # ---- Luigi -------------------------------------------------------------------------------------------------------

    def start(self, pipeline: str, day: date, forced: bool) -> None:
        """Starts a process; if there are more than two, ends the oldest between two tasks."""
        since = ledger.turn() if forced else 0
        process = Luigi(getattr(tasks, pipeline)(date=day, since=since))
        self.processes = [*self.processes, (f"{pipeline} {day}", process)][-2:]
        self.lines.append(f"{pipeline} of {day} starts{', forced' * forced}: {len(process.todo)} tasks are due")

    def advance(self, number: int, count: int, death: str | None = None) -> None:
        """Continues one of the processes; removes it if it failed or has finished."""
        if not self.processes:
            return
        entry = self.processes[number % len(self.processes)]
        name, process = entry
        names = [task_name(task) for task in process.todo[:count]]
        self.lines.append(
            f"{name} goes on: {', '.join(names) or 'nothing to do'}" + (f", killed {death}" * bool(death))
        )
        try:
            process.advance(count, death)
        except task_log.Failed as error:
            self.lines[-1] += f": failed, {error}"
            process.todo = []
        if not process.todo:
            self.processes.remove(entry)

    # ---- rest --------------------------------------------------------------------------------------------------------

    def come_to_rest(self, order: Sequence[int], backfill: bool) -> int:
        """Runs what Luigi finds due until nothing is, date by date or as a backfill; returns the number of rounds."""
        self.processes = []
        for day in sorted(self.half_forgotten):
            self.forget(day)
        days = [DAYS[number] for number in order if DAYS[number] in self.days]
        for rounds in range(6):
            wanted = [tasks.Day(date=day) for day in days]
            done = 0
            for group in [wanted] if backfill else [[task] for task in wanted]:
                process = Luigi(*group)
                done += len(process.todo)
                self.lines.append(
                    f"run {', '.join(str(task.date) for task in group)}: "
                    + (", ".join(map(task_name, process.todo)) or "nothing is due")
                )
                process.advance(len(process.todo))
            if not done:
                return rounds
        raise AssertionError("it never comes to rest")

    def check(self, spark: Any) -> None:
        """Compares silver, gold, marts and ledger with the model; raises AssertionError with the differences."""
        files = {place: [row.split(",") for row in rows] for place, rows in self.files.items()}
        verdicts = model.silver(files)
        in_gold = model.gold(verdicts)
        expect("silver", found_silver(spark), [*accepted(verdicts), *rejected(verdicts)])
        declared = [measures.Beds(*each) for each in beds.read(beds.FILE)]
        for layer, tables in (("gold", in_gold), ("mart", model.marts(in_gold) | measures.marts(in_gold, declared))):
            for name, rows in tables.items():
                expect(f"{layer} {name}", map(comparable, found_rows(name)), map(comparable, rows))
        expect(
            "withheld", found("select dataset, _partition_date, row_key, reasons from ops.withheld"), rejected(verdicts)
        )
        expect("the silver ledger", found(SILVER_LEDGER), silver_ledger(files, verdicts))
        expect("reasons", found(REASONS), reasons(verdicts))
        expect("keys in versions that differ", found(DIFFERING), differing(verdicts))
        expect("the gold ledger", found(GOLD_LEDGER), gold_ledger(in_gold))
        expect("partitions to be revalidated", ledger.stale(), [])
        expect("markers", found(MARKERS), [(layer, *place) for layer in LAYERS for place in files])
        expect("dates", found("select partition_date, is_complete, is_balanced from ops.dates"), dates(files))
        expect("the newest date", found("select day from ops.newest"), [(max(self.days),)])
        derived = [f"{name}/{day:%Y/%m/%d}/{name}.csv" for name, day in files]
        sent = [raw.key(twin.NAME, day, twin.file_name(name)) for name, day in files if day in self.by_source]
        # A source's files stay in bronze if the date's next files are ours.
        left = {raw.key(twin.NAME, day) for _, day in files if day not in self.by_source}
        kept = [key for key in lake_objects() if f"{key.rpartition('/')[0]}/" not in left]
        expect("bronze", kept, [*derived, *sent])
        with warehouse.connect() as connection:
            marts.check(connection)
            known = {place: gold.sums(connection, CATALOG[place[0]], place[1]) for place in files}
            expect(
                "checksums of gold",
                [(*place, str(numbers)) for place, numbers in known.items() if numbers],
                [
                    (name, day, str(gold.checksums(connection, CATALOG[name], day)))
                    for (name, day), numbers in known.items()
                    if numbers
                ],
            )


def task_name(task: luigi.Task) -> str:
    words = (task.__class__.__name__, getattr(task, "dataset", ""), str(task.date))
    return " ".join(filter(None, words))


def expect(what: str, found: Any, expected: Any) -> None:
    surplus, missing = Counter(found), Counter(expected)
    if surplus != missing:
        lines = [f"  surplus: {row}" for row in (surplus - missing).elements()]
        lines += [f"  missing: {row}" for row in (missing - surplus).elements()]
        raise AssertionError("\n".join([f"{what} is not what the files say:", *lines]))


def comparable(row: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    stay = "length_of_stay_days"
    days = {stay: model.four_decimals(Fraction(row[stay]))} if row.get(stay) is not None else {}
    return tuple(sorted((row | days).items(), key=lambda pair: pair[0]))


def found_silver(spark: Any) -> Iterator[tuple[str, date, str | None, str]]:
    """Returns (dataset, partition, key, reasons) of every row; reasons are None for an accepted row."""
    parts = []
    for dataset in CATALOG.values():
        for kind, reason in (("accepted", F.lit("")), ("rejected", F.col("_reject_reason"))):
            if delta_tables.has_silver(dataset, kind):
                names = F.lit(dataset.name), F.col("_partition_date"), F.col(dataset.key), reason
                parts.append(
                    delta_tables.silver(spark, dataset, kind).select(*names).toDF("dataset", "day", "key", "reason")
                )
    return map(tuple, functools.reduce(lambda one, other: one.unionAll(other), parts).collect() if parts else [])


def accepted(verdicts: dict[model.Place, model.Verdict]) -> Iterator[tuple[str, date, str, str]]:
    return ((*place, key, "") for place, verdict in verdicts.items() for key in verdict.accepted)


def rejected(verdicts: dict[model.Place, model.Verdict]) -> Iterator[tuple[str, date, str | None, str]]:
    return ((*place, *row) for place, verdict in verdicts.items() for row in verdict.rejected.elements())


def found(query: str) -> list[tuple[Any, ...]]:
    with warehouse.connect() as connection:
        return connection.execute(query).fetchall()


def found_rows(table: str) -> list[dict[str, Any]]:
    with warehouse.connect() as connection:
        cursor = connection.execute(f"select * from {table}")
        names = [column.name for column in cursor.description or ()]
        return [{n: v for n, v in zip(names, row, strict=True) if n not in NOT_CONTENT} for row in cursor]


WITHHELD = "select dataset, _partition_date, row_key, reasons from ops.withheld"
# The counts of the current runs, and the changes of gold by all loads together.
SILVER_LEDGER = """
    select dataset, partition_date, bronze_rows, accepted, rejected, amount_in, amount_accepted, amount_rejected
    from ops.ledger natural join (select run_id, layer, dataset, partition_date from ops.receipts) as standing
    where layer = 'silver'
"""
REASONS = """
    select dataset, partition_date, reason, hits
    from ops.reasons natural join
        (select run_id, dataset, partition_date from ops.receipts where layer = 'silver') as standing
    where hits > 0
"""
DIFFERING = """
    select dataset, partition_date, substring(warnings from '([0-9,]+) keys? comes? in versions that differ')
    from ops.standing where warnings like '%in versions that differ%'
"""
GOLD_LEDGER = """
    select dataset, sum(inserted - removed), sum(amount_change), count(*) filter (where outcome = 'unaccounted')
    from ops.ledger where layer = 'gold' and outcome in ('done', 'unaccounted') group by dataset
"""


LAYERS = ("bronze", "silver", "gold")
MARKERS = "select layer, dataset, partition_date from ops.receipts where layer in ('bronze', 'silver', 'gold')"


def dates(files: model.Files) -> list[tuple[date, bool, bool]]:
    return [(day, True, True) for day in sorted({day for _, day in files})]


def lake_objects() -> list[str]:
    """Returns the keys of all files in bronze."""
    pages = object_store.s3().get_paginator("list_objects_v2").paginate(Bucket=settings.get("MINIO_BUCKET_BRONZE"))
    return [thing["Key"] for page in pages for thing in page.get("Contents", [])]


def silver_ledger(files: model.Files, verdicts: dict[model.Place, model.Verdict]) -> Iterator[tuple[Any, ...]]:
    for (dataset, day), verdict in verdicts.items():
        counts = len(files[dataset, day]), len(verdict.accepted), sum(verdict.rejected.values())
        assert counts[0] == counts[1] + counts[2]
        amounts: tuple[Any, ...] = (None, None, None)
        if name := model.AMOUNTS.get(dataset):
            place = model.COLUMNS[dataset].index(name)
            of_file = model.total(model.money(row[place].strip()) for row in files[dataset, day])
            of_accepted = model.total(row[place] for row in verdict.accepted.values())
            amounts = of_file, of_accepted, of_file - of_accepted
        yield dataset, day, *counts, *amounts


def reasons(verdicts: dict[model.Place, model.Verdict]) -> Iterator[tuple[Any, ...]]:
    for place, verdict in verdicts.items():
        hits = Counter(code for _, codes in verdict.rejected.elements() for code in codes.split(";"))
        yield from ((*place, code, count) for code, count in hits.items())


def differing(verdicts: dict[model.Place, model.Verdict]) -> Iterator[tuple[str, date, str]]:
    """Returns (dataset, date, number) of keys with differing versions, as the runs' warnings have it."""
    return ((*place, f"{verdict.differing:,}") for place, verdict in verdicts.items() if verdict.differing)


def gold_ledger(gold: model.Gold) -> Iterator[tuple[Any, ...]]:
    for dataset, rows in gold.items():
        amount = model.AMOUNTS.get(dataset)
        yield dataset, len(rows), model.total(row[amount] for row in rows) if amount else None, 0
