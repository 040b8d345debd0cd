"""Writes the ledger's figures about runs in Prometheus's text format: `make metrics`, and after each pipeline.

One file is for node exporter's textfile collector; a copy beside the dashboards' pages is for Prometheus itself. The
metrics give the time at which the next file is due, not whether it is late: an outdated text stays correct.
"""

import argparse
import logging
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timezone
from pathlib import Path
from typing import Any

import luigi
import psycopg
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from psycopg.rows import dict_row

from dashboards import pages
from jobs import borders, program, settings, warehouse

PREFIX = "healthcare"
FILE = "healthcare.prom"  # the textfile collector reads only names that end in .prom
PATIENCE = "10s"  # time limit of a query, since a task waits for it
PAGE = "metrics.txt"  # the dashboards' server sends this suffix as text/plain

LAST_RUNS = """\
select distinct on (layer, dataset)
    layer,
    dataset,
    extract(epoch from ended_at)::float8 as ended,
    extract(epoch from ended_at - started_at)::float8 as seconds,
    case when layer = 'gold' then coalesce(inserted, 0) + coalesce(updated, 0) else bronze_rows end as rows,
    rejected
from ops.ledger
where outcome = any(%(outcomes)s) and ended_at is not null
order by layer, dataset, turn desc"""

REASONS = """\
select standing.dataset, reasons.reason, sum(reasons.hits)::bigint as hits
from ops.standing inner join ops.reasons using (run_id, dataset, partition_date)
group by standing.dataset, reasons.reason"""

FRESHNESS = "select dataset, newest, coalesce(missing_dates, 0) as missing, next_due from ops.freshness"
DATES = "select state, count(*) as dates from ops.dates group by state"
STATES = ("running", "failed", "stopped", "unbalanced", "incomplete", "due", "done")


class Metrics:
    """Collects gauges by name, each declared once with its labels."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.gauges: dict[str, Gauge] = {}

    def set(self, name: str, doc: str, value: float | None, **labels: str) -> None:
        """Sets the gauge with these labels; leaves it out if `value` is None."""
        if name not in self.gauges:
            self.gauges[name] = Gauge(f"{PREFIX}_{name}", doc, [*labels], registry=self.registry)
        if value is not None:
            (self.gauges[name].labels(**labels) if labels else self.gauges[name]).set(value)


def text() -> bytes:
    """Returns all metrics, computed from the ledger now, in Prometheus's text format."""
    metrics = Metrics()
    with warehouse.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute("select set_config('statement_timeout', %s, false)", [PATIENCE])

        def found(query: str, **arguments: Any) -> list[dict[str, Any]]:
            return cursor.execute(query, arguments).fetchall()

        of_runs(metrics, found(LAST_RUNS, outcomes=["done"]))
        for run in found(LAST_RUNS, outcomes=["failed", "stopped", "unaccounted"]):
            about = {"layer": run["layer"], "dataset": run["dataset"]}
            metrics.set(
                "run_last_failure_timestamp_seconds", "When a run last failed or was stopped.", run["ended"], **about
            )
        for row in found(REASONS):
            about = {"dataset": row["dataset"], "reason": row["reason"]}
            metrics.set("rejected_rows", "Rejected rows of all dates as they stand, by reason.", row["hits"], **about)
        of_files(metrics, found(FRESHNESS))
        states = {row["state"]: row["dates"] for row in found(DATES)}
        for state in STATES:
            metrics.set(
                "dates", "Dates by their state, as `make ledger` shows them.", states.get(state, 0), state=state
            )
    now = datetime.now(timezone.utc).timestamp()
    metrics.set("metrics_written_timestamp_seconds", "When this text was written.", now)
    return generate_latest(metrics.registry)


def of_runs(metrics: Metrics, runs: Iterable[Mapping[str, Any]]) -> None:
    """Sets the metrics of the last successful run of each layer and dataset."""
    for run in runs:
        about = {"layer": run["layer"], "dataset": run["dataset"]}
        for name, doc, value in (
            ("run_last_success_timestamp_seconds", "When a run last succeeded.", run["ended"]),
            ("run_duration_seconds", "Seconds that the last successful run took.", run["seconds"]),
            ("run_rows", "Rows of the last successful run: read, or of gold inserted and updated.", run["rows"]),
            ("run_rejected_rows", "Rows that the last successful run rejected.", run["rejected"]),
        ):
            if value is not None:
                metrics.set(name, doc, value, **about)


def of_files(metrics: Metrics, files: Iterable[Mapping[str, Any]]) -> None:
    """Sets the metrics of each dataset's files: newest date, next due time, missing dates."""
    for file in files:
        about = {"dataset": file["dataset"]}
        for name, doc, value in (
            ("newest_date_timestamp_seconds", "Start of the newest date in gold (UTC).", seconds(file["newest"])),
            ("next_file_due_timestamp_seconds", "When the next file is due; late after it.", seconds(file["next_due"])),
            ("missing_dates", "Dates before the newest of which no file came.", file["missing"]),
        ):
            if value is not None:
                metrics.set(name, doc, value, **about)


def seconds(moment: date | datetime | None) -> float | None:
    """Returns a time, or the start of a date, in seconds since 1970 (UTC); None for None."""
    if moment is None:
        return None
    whole = moment if isinstance(moment, datetime) else datetime.combine(moment, time())
    return whole.replace(tzinfo=timezone.utc).timestamp()


def places() -> list[Path]:
    """Returns the files to keep up to date: in METRICS_DIR or the stack's directory, and beside the pages."""
    own = settings.path("METRICS_DIR") if settings.given("METRICS_DIR") else settings.path("STACK_DIR") / "metrics"
    return [own / FILE, pages.home() / PAGE]


def write(to: Iterable[Path]) -> None:
    """Writes all metrics to each file atomically: readers see the former text or the new one."""
    whole = text()
    for file in to:
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.new")  # a name that no collector reads
        new.write_bytes(whole)
        new.chmod(0o644)  # node exporter may run as another user; the file has only counts and dataset names
        new.replace(file)


def renew(task: luigi.Task, *_: Any) -> None:
    """Writes the metrics after a task; logs a warning and lets the run go on if that fails."""
    try:
        write(places())
    except Exception as error:  # log only its type: its text may quote a value
        logging.getLogger("luigi-interface").warning(
            "The metrics are not renewed after %s (%s); its run goes on.", task.task_family, type(error).__name__
        )


def observe(ends: type[luigi.Task], tasks: type[luigi.Task]) -> None:
    """Makes Luigi write the metrics when a task of the class `ends` is done, and when a task of `tasks` fails."""
    ends.event_handler(luigi.Event.SUCCESS)(renew)
    for event in (luigi.Event.FAILURE, luigi.Event.PROCESS_FAILURE, luigi.Event.TIMEOUT):
        tasks.event_handler(event)(renew)


def main() -> None:
    """Writes the metrics to the usual files, or to the one named on the command line."""
    words = argparse.ArgumentParser(prog="make metrics", description=__doc__)
    words.add_argument("--to", type=Path, help="another file")
    given = words.parse_args()
    to = [given.to] if given.to else places()
    try:
        write(to)
    except (OSError, psycopg.Error) as error:
        program.leave(1, program.sentence(error))
    borders.say("\n".join(f"{file} is written." for file in to))


if __name__ == "__main__":
    main()
