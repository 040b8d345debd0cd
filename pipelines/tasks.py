"""Declares the Luigi tasks of a date: landing -> bronze -> silver -> gold -> marts.

Tasks decide the order; the jobs that they run do the work.
"""

import io
import logging
import signal
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

import luigi
from luigi.rpc import RPCError
from luigi.task import flatten

from dashboards import pages
from jobs import (
    borders,
    bronze_files,
    exports,
    landing,
    ledger,
    marts,
    program,
    schema,
    settings,
    thresholds,
    warehouse,
)
from jobs.catalog import CATALOG, expected
from jobs.program import Refused
from pipelines import forked, progress, runs, scheduler
from pipelines.parameters import AnyDayParameter, DatasetParameter, DayParameter, DaysParameter
from pipelines.task_log import Failed, OnlySentences, sentences

settings.load()
# Luigi warns that nothing reads the names that it documents for [core]: it reads them under other names.
warnings.filterwarnings("ignore", category=luigi.parameter.UnconsumedParameterWarning)
# Luigi warns about the default of a parameter of its own RangeDaily.
warnings.filterwarnings("ignore", message='Parameter "param_name" with value "None"')
luigi.configuration.add_config_path(str(settings.ROOT / "conf" / "luigi.cfg"))
logging.getLogger("luigi-interface").addFilter(OnlySentences())

SEEN: set[str] = set()


@cache
def session() -> int:
    """Returns the sequence number at which this process began; tasks done since then stay done until it ends.

    The first call also brings the schema up to date and records failures that the ledger lacks.
    """
    with warehouse.connect() as connection:
        schema.bring_up_to_date(connection)
        runs.record_pending(connection)
    return ledger.turn()


def priority(day: date, rank: int) -> int:
    """Returns the priority of a task: older dates first, and within a group of MANY_DATES dates by layer.

    Within a group, Luigi can run the tasks of one layer as a batch. The priority is above 0, the priority of other
    wrapper tasks: luigid raises a task to the priority of the tasks that require it.
    """
    return (date.max.toordinal() - day.toordinal()) // program.MANY_DATES * 10 + rank


class DatedTask(luigi.Task):
    """Belongs to a date; Luigi can run the tasks of several dates as one batch.

    The tasks between two layers are batched too: one by one, their dates would reach the next layer one by one, each
    with a job of its own.
    """

    date = DaysParameter()  # the first parameter, which is the one that RangeDaily sets
    since = luigi.IntParameter(default=0, description="markers from before this turn do not count")
    rank = 0  # within the same dates, tasks of higher rank run first
    max_batch_size = program.MANY_DATES

    @property
    def days(self) -> tuple[Any, ...]:
        """Returns the dates of the task: several if Luigi runs a batch of tasks as one."""
        return self.date if isinstance(self.date, tuple) else (self.date,)

    @property
    def ones(self) -> list[Any]:
        """Returns the task of each single date that this task stands for."""
        return [self.clone(date=day) for day in self.days]

    @property
    def priority(self) -> int:  # type: ignore[override]
        return priority(self.days[0], self.rank)

    def required(self, day: Any) -> Iterable[luigi.Task]:
        """Returns the tasks that must be complete before this one runs for a date."""
        return ()

    def requires(self) -> list[luigi.Task]:
        return [task for day in self.days for task in self.required(day)]

    def complete(self) -> bool:
        return all(task.complete() for task in self.ones) if self.days[1:] else super().complete()

    def deps(self) -> list[luigi.Task]:
        """Returns the required tasks; Luigi calls this when it schedules an incomplete task.

        Also enables a task that luigid disabled after it failed in an earlier run. Within a run the task stays
        disabled: with a `disable_persist` shorter than the run, the worker would retry it endlessly (luigi issue 2337).
        """
        forked.preload()  # there is work to do, and Luigi has not forked yet
        observe()
        scheduler.SCHEDULED[self.task_id] = self
        if self.task_id in scheduler.disabled():
            scheduler.disabled().discard(self.task_id)
            scheduler.luigid().re_enable_task(self.task_id)
        return list(super().deps())

    def on_failure(self, exception: BaseException) -> str:
        """Returns the text that Luigi's page shows for a failure; the dates of a batch that are complete stay so."""
        if self.days[1:]:
            with suppress(RPCError):  # if luigid is down, all tasks of the batch fail and are tried again
                scheduler.tell_done(self.task_id, [task for task in self.ones if task.complete()])
        return super().on_failure(exception)


class MarkedTask(DatedTask):
    """Runs jobs for one date; complete if its requirements are and its marker names the current input.

    `since` (a sequence number) makes the task ignore older markers, which forces a date or revalidates it when parents
    came or went. A task that was once seen complete stays complete until the process ends: changes made by another date
    meanwhile are handled by that date's own run, and must not break tasks that already rely on this one.
    """

    ledger = "", "all"  # the layer and the dataset of its runs in the ledger

    @property
    def log(self) -> str:
        """Returns the log file of this run of the date, as the ledger stores it."""
        return runs.log(self.days[0])

    def made_in(self) -> int | None:
        """Returns the sequence number of the marker that names the current input, or None if none does."""
        raise NotImplementedError

    def complete(self) -> bool:
        """Tells whether the requirements are complete and a marker since `since` names the current input."""
        if self.days[1:]:
            return super().complete()
        if self.task_id not in SEEN:
            with sentences():
                session()  # before Luigi forks, so that the task processes inherit its number
            # Luigi asks once, before anything runs: a task is due if one of its requirements is due.
            if not all(task.complete() for task in flatten(self.requires())):
                return False
            with sentences():
                made_in = self.made_in()
            if made_in is None or made_in < self.since:
                return False
            SEEN.add(self.task_id)
        return True

    def on_failure(self, exception: BaseException) -> str:
        """Records any failure in the ledger; returns the text that Luigi's page shows for it."""
        sentence = str(exception) if isinstance(exception, Failed) else program.sentence(exception)
        self.record_failure(sentence, is_printed=isinstance(exception, Failed) and exception.is_printed)
        trace = super().on_failure(exception)
        return sentence if isinstance(exception, Failed) else trace

    def record_failure(self, sentence: str, is_printed: bool = False) -> None:
        """Records the failure of this task in the ledger, and in the run's log unless its job printed it there."""
        for task in self.ones:
            if len(self.days) == 1 or not task.complete():
                if not is_printed:
                    runs.add(task.date, self.task_family, sentence)
                runs.record_failure(*self.ledger, task.date, sentence)

    def job(self, script: str, *words: str) -> None:
        """Runs a program as a separate process on the Spark Connect server; raises Failed with its last line.

        Each line of the program goes to the terminal and to the run's log at once. Luigi's page shows the last line and
        the link to Spark's history.
        """
        name = " ".join([Path(script).stem, *words[:2]]) + (f" and {len(words) - 2:,} more" if words[2:] else "")
        environment = {
            runs.LOG: self.log,
            "SPARK_REMOTE": program.spark_connect(),
        }
        line = ""
        with forked.started(str(settings.ROOT / script), words, environment) as process:
            # Accept any bytes; only a line feed ends a line.
            for text in io.TextIOWrapper(process.output, "utf-8", errors="backslashreplace", newline="\n"):
                line = borders.printable(text.strip())
                if line.startswith(f"{program.TRACKING}{program.history()}"):
                    self.set_tracking_url(line.removeprefix(program.TRACKING))  # type: ignore[misc]
                elif line:
                    runs.add(self.days[0], name, line)
                    # Luigi's page reads it as HTML, and column names come from the file.
                    self.set_status_message(borders.as_html(line))  # type: ignore[misc]
                    # One write, so that lines of tasks that end together do not mix.
                    print(f"{progress.erase(sys.stdout)}{line}\n", end="", flush=True)
        if process.returncode < 0:
            raise Failed(f"{name} was killed ({signal.Signals(-process.returncode).name}); run the date again.")
        if process.returncode:
            silent = f"{name} ended with code {process.returncode}; run the date again."
            raise Failed(line or silent, is_printed=bool(line))


@MarkedTask.event_handler(luigi.Event.TIMEOUT)
@MarkedTask.event_handler(luigi.Event.PROCESS_FAILURE)
def record_death(task: MarkedTask, message: str) -> None:
    """Records that a task's process died or was ended at its time limit; Luigi calls no on_failure for these."""
    late = "took longer than [worker] timeout in conf/luigi.cfg allows and was ended"
    kind = late if "timed out" in message else "died"
    task.record_failure(f"{task.task_family} of {program.listed(task.days)} {kind}; run the date again.")


@cache
def observe() -> None:
    """Registers the handlers of lineage and metrics, only once there is work to do, since their imports are slow."""
    from pipelines import lineage, metrics

    lineage.observe(MarkedTask, BronzeIngestion, Pipeline)
    metrics.observe(Pipeline, MarkedTask)


class DatasetTask(MarkedTask):
    """Runs a job for one dataset and date."""

    dataset = DatasetParameter(choices=list(CATALOG))
    layer = ""

    @property
    def ledger(self) -> tuple[str, str]:  # type: ignore[override]
        return self.layer, self.dataset

    def of_parents(self, day: date) -> list[luigi.Task]:
        """Returns the tasks of the same layer for the datasets that this dataset references."""
        parents = CATALOG[self.dataset].parents.values()
        return [self.clone(dataset=parent, date=day) for parent in parents if parent in expected(day)]


class Bronze(DatasetTask):
    """Copies a landing file to bronze, byte for byte; it stays there if the file later leaves the landing directory."""

    layer = "bronze"
    rank = 9
    retry_count = 1  # it fails because of the file, so a retry would fail too

    def made_in(self) -> int | None:
        dataset = CATALOG[self.dataset]
        head, path = bronze_files.bronze_head(dataset, self.date), landing.landing_path(dataset, self.date)
        if head is None:
            return None
        marker = ledger.marker("bronze", self.dataset, self.date)
        if landing.has_landed(dataset, self.date):
            there = {head["Metadata"].get("sha256"), marker and marker["made_from"]}
            return marker["turn"] if marker and there == {landing.checksum(path)} else None
        return marker["turn"] if marker else 0  # another program stored the file in bronze

    def run(self) -> None:
        self.job("jobs/landing_to_bronze.py", self.dataset, *map(str, self.days))


class Conversion(MarkedTask):
    """Converts the files of a source into all landing files of a date, in bronze."""

    date = DayParameter()
    rank = 9
    retry_count = 1  # it fails because of a file or the declaration, so a retry would fail too

    @property
    def ledger(self) -> tuple[str, str]:  # type: ignore[override]
        return "source", (exports.folders(self.date) or ["all"])[0]

    def made_in(self) -> int | None:
        try:
            source = exports.source_of(self.date)
        except Refused:  # the job reports it
            return None
        files = {name: landing.checksum(path) for name, path in exports.paths(self.date, source).items()}
        marker = ledger.marker("source", source.name, self.date)
        if marker is None or (marker["made_from"], marker["rule_set"]) != (
            exports.fingerprint(files),
            source.fingerprint,
        ):
            return None
        for name, dataset in expected(self.date).items():
            head, derived = bronze_files.bronze_head(dataset, self.date), ledger.marker("bronze", name, self.date)
            known = head["Metadata"] if head else {}
            if not derived or (known.get("source"), known.get("sha256")) != (source.name, derived["made_from"]):
                return None
        return marker["turn"]

    def run(self) -> None:
        self.job("jobs/source_to_bronze.py", str(self.date))


class BronzeIngestion(DatedTask, luigi.WrapperTask):
    """Requires all files of a date in bronze."""

    rank = 8

    def required(self, day: Any) -> Iterable[luigi.Task]:
        if exports.folders(day):
            return [Conversion(date=day, since=self.since)]
        return [Bronze(dataset=name, date=day, since=self.since) for name in expected(day)]


class Silver(DatasetTask):
    """Validates a bronze partition; waits for all files of the date, so that a bad file stops the whole date."""

    layer = "silver"
    rank = 7

    def required(self, day: Any) -> Iterable[luigi.Task]:
        return [BronzeIngestion(date=day, since=self.since), *self.of_parents(day)]

    def made_in(self) -> int | None:
        dataset = CATALOG[self.dataset]
        marker = ledger.marker("silver", self.dataset, self.date, session())
        head = bronze_files.bronze_head(dataset, self.date)
        if marker is None or head is None:
            return None
        current = marker["made_from"] == head["Metadata"].get("sha256") and marker["rule_set"] == dataset.rule_set
        return marker["turn"] if current or marker["turn"] >= session() else None

    def run(self) -> None:
        self.job("jobs/bronze_to_silver.py", self.dataset, *map(str, self.days))


class Revalidation(MarkedTask):
    """Revalidates every partition whose parents came or went, whatever its date, parents before children."""

    ledger = "revalidated", "all"
    rank = 6
    resources = {"revalidating": 1}  # noqa: RUF012  # the dates of a backfill would revalidate the same partitions

    def required(self, day: Any) -> Iterable[luigi.Task]:
        return [Silver(dataset=name, date=day, since=self.since) for name in expected(day)]

    def made_in(self) -> int | None:
        marker = ledger.marker("revalidated", "all", self.date)
        if marker and marker["turn"] >= session():
            return marker["turn"]
        return None if ledger.stale() else ledger.turn()

    def run(self) -> None:
        with (
            warehouse.connect() as connection,
            ledger.runs(connection, "revalidated", "all", self.days, "", self.log) as rows,
        ):
            for dataset in CATALOG.values():
                if days := [str(day) for _, day, _ in ledger.stale(dataset)]:
                    self.job("jobs/bronze_to_silver.py", dataset.name, *days)
            for row in rows.values():
                ledger.settle(connection, row, "")


class QualityGate(MarkedTask):
    """Stops a date before gold if its rejects breach a threshold with the action stop, unless `override` is set."""

    rank = 5
    override = luigi.BoolParameter(significant=False, description="let the date pass; the ledger keeps that you did")
    ledger = "gold", "all"
    retry_count = 1  # a retry would find the same rejects

    def required(self, day: Any) -> Iterable[luigi.Task]:
        return [SilverPipeline(date=day, since=self.since)]

    def made_in(self) -> int | None:
        return None if thresholds.stops(warehouse.process_connection(), self.date) else ledger.turn()

    def run(self) -> None:
        refused: list[Refused] = []
        with sentences(), warehouse.connect() as connection:
            for day in self.days:
                stopped = thresholds.stops(connection, day)
                if stopped and self.override:
                    thresholds.override(connection, stopped)
                elif stopped:
                    refused.append(thresholds.stopped(stopped))
                    # The run records the refusal in the ledger.
                    with suppress(Refused), ledger.run(connection, "gold", "all", day, "", self.log):
                        raise refused[-1]
            if refused:
                program.refuse(refused, [])


class Gold(DatasetTask):
    """Loads a silver partition into PostgreSQL by key, once the whole date is validated and has passed the gate."""

    layer = "gold"
    rank = 4

    def required(self, day: Any) -> Iterable[luigi.Task]:
        return [QualityGate(date=day, since=self.since), *self.of_parents(day)]

    def made_in(self) -> int | None:
        silver = ledger.marker("silver", self.dataset, self.date, session())
        gold = ledger.marker("gold", self.dataset, self.date)
        if silver is None or gold is None:
            return None
        return gold["turn"] if gold["made_from"] == silver["run_id"] or gold["turn"] >= session() else None

    def run(self) -> None:
        self.job("jobs/silver_to_gold.py", self.dataset, *map(str, self.days))


class Marts(MarkedTask):
    """Builds the marts from gold after this date's load, and checks the invariants.

    If several dates have been loaded, the task of the newest date builds the marts for all of them.
    """

    date = DayParameter(batch_method=max)
    ledger = "marts", "marts"
    rank = 3

    def required(self, day: Any) -> Iterable[luigi.Task]:
        return [Gold(dataset=name, date=day, since=self.since) for name in expected(day)]

    def made_in(self) -> int | None:
        marker = ledger.marts_marker(marts.rule_set(), session())
        return marker["turn"] if marker else None

    def run(self) -> None:
        self.job("jobs/gold_to_marts.py", self.date.isoformat())


class Pages(MarkedTask):
    """Builds the static pages of the dashboards from the marts after this date's load."""

    date = DayParameter()
    ledger = "pages", "all"

    def required(self, day: Any) -> Iterable[luigi.Task]:
        return [GoldPipeline(date=day, since=self.since)]

    def made_in(self) -> int | None:
        marker = ledger.marts_marker(marts.rule_set(), session())
        built = pages.built_of()
        return built if marker and built and built >= marker["turn"] else None

    def run(self) -> None:
        self.job("dashboards/pages.py")


class Dashboards(MarkedTask):
    """Provisions the dashboards of conf/dashboards.yml in Metabase, once this date is in the marts."""

    date = DayParameter()
    ledger = "metabase", "dashboards"

    def required(self, day: Any) -> Iterable[luigi.Task]:
        return [GoldPipeline(date=day, since=self.since)]

    def made_in(self) -> int | None:
        # Only Metabase itself can tell what it holds, so each process asks it once; unchanged items are left alone.
        marker = ledger.marker("metabase", "dashboards", self.date)
        return marker["turn"] if marker and marker["turn"] >= session() else None

    def run(self) -> None:
        self.job("dashboards/metabase.py", "provision")
        with (
            sentences(),
            warehouse.connect() as connection,
            ledger.run(connection, "metabase", "dashboards", self.date, "", self.log) as row,
        ):
            ledger.settle(connection, row, "")


class Forget(MarkedTask):
    """Forgets a date as if it had never run; complete when it has no marker and no unfinished run."""

    date = AnyDayParameter()
    ledger = "forget", "all"
    resources = {"revalidating": 1}  # noqa: RUF012  # the job revalidates partitions too

    def made_in(self) -> int | None:
        with warehouse.connect() as connection:
            return None if ledger.knows(connection, self.date) else ledger.turn()

    def run(self) -> None:
        self.job("jobs/forget.py", self.date.isoformat())


class Reconciliation(DatasetTask):
    """Compares a partition of silver and gold with its whole file, and corrects what differs."""

    date = DayParameter()
    layer = "reconciliation"
    resources = {"revalidating": 1}  # noqa: RUF012  # one at a time, because it reads whole files
    retry_count = 1  # it corrects what it finds, so a retry would find nothing

    def made_in(self) -> int | None:
        run = ledger.current_run(warehouse.process_connection(), "silver", CATALOG[self.dataset], self.date)
        marker = ledger.marker("reconciliation", self.dataset, self.date)
        return marker["turn"] if marker and marker["made_from"] == run else None

    def run(self) -> None:
        self.job("jobs/reconcile.py", self.dataset, str(self.date))


class ReconciledDate(DatedTask, luigi.WrapperTask):
    """Requires that all partitions of a date are compared with their files."""

    date = DayParameter()

    def required(self, day: Any) -> Iterable[luigi.Task]:
        return [Reconciliation(dataset=name, date=day, since=self.since) for name in expected(day)]


@cache
def to_reconcile() -> tuple[str, date] | None:
    """Returns the dataset and date that Maintenance compares with its file; the process asks once."""
    with sentences():
        return ledger.to_reconcile(warehouse.process_connection())


class Compact(DatasetTask):
    """Compacts the silver tables of a dataset and deletes files that no recent version needs; its date is today."""

    date = DayParameter()
    layer = "maintenance"

    def made_in(self) -> int | None:
        marker = ledger.marker("maintenance", self.dataset, self.date)
        return marker["turn"] if marker else None

    def run(self) -> None:
        self.job("jobs/maintain.py", self.dataset, self.date.isoformat())


class Maintenance(MarkedTask):
    """Trims what grows with each run: silver's files, Luigi's history, logs and lineage events.

    Also compares one partition that was validated by key with its file: the one that has waited longest.
    """

    date = DayParameter(default=datetime.now(timezone.utc).date())
    ledger = "maintenance", "history"
    history_days = luigi.IntParameter(
        significant=False, description="for so many days Luigi's history and the runs' files are kept"
    )

    def required(self, day: Any) -> Iterable[luigi.Task]:
        found = to_reconcile()
        return [
            *(Compact(dataset=name, date=day, since=self.since) for name in CATALOG),
            *([Reconciliation(dataset=found[0], date=found[1])] if found else []),
        ]

    def made_in(self) -> int | None:
        marker = ledger.marker("maintenance", "history", self.date)
        return marker["turn"] if marker else None

    def run(self) -> None:
        if self.history_days < 1:
            raise Failed(f"history_days is {self.history_days}; give [Maintenance] in conf/luigi.cfg a number of days.")
        with (
            sentences(),
            warehouse.connect() as connection,
            ledger.run(connection, "maintenance", "history", self.date, "", self.log) as row,
        ):
            from pipelines import history, lineage  # slow imports (SQLAlchemy, OpenLineage) that no other task needs

            before = datetime.now() - timedelta(self.history_days)
            forgotten, removed = history.forget(before), runs.remove(before) + lineage.rotate(before)
            ledger.settle(connection, row, "")
        print(f"luigi: {forgotten:,} tasks of more than {self.history_days} days ago forgotten", flush=True)
        print(f"logs: {removed:,} files of runs of more than {self.history_days} days ago removed", flush=True)


@cache
def stale_since(day: date) -> int:
    """Returns the sequence number at which partitions of a date last became due for revalidation; 0 if none is due.

    The process asks once and keeps the answer.
    """
    with sentences():
        return max((turn for _, _, turn in ledger.stale(day=day)), default=0)


class Pipeline(DatedTask, luigi.WrapperTask):
    """Requires the tasks of one date; also revalidates its partitions whose parents came or went."""

    rank = 2

    def settled(self, day: Any) -> dict[str, Any]:
        """Returns the parameters of the tasks of a date: they ignore markers from before its parents came or went."""
        return {"date": day, "since": max(self.since, stale_since(day))}


class SilverPipeline(Pipeline):
    """Requires a date to be validated: every record of its files is accepted or rejected."""

    def required(self, day: Any) -> Iterable[luigi.Task]:
        return [Revalidation(**self.settled(day))]


class GoldPipeline(Pipeline):
    """Requires a date in gold, and marts built from it."""

    def required(self, day: Any) -> Iterable[luigi.Task]:
        settled = self.settled(day)
        loads = (Gold(dataset=name, **settled) for name in expected(day))
        return [QualityGate(**settled), *loads, Marts(**settled)]


class Day(Pipeline):
    """Requires everything that is to do for a date, from bronze to the marts."""

    def required(self, day: Any) -> Iterable[luigi.Task]:
        settled = self.settled(day)
        return [BronzeIngestion(**settled), GoldPipeline(**settled)]

    @classmethod
    def bulk_complete(cls, parameter_tuples: Any) -> list[Any]:
        """Returns those dates of a backfill that are current."""
        return [given for given in parameter_tuples if cls(date=given).complete()]
