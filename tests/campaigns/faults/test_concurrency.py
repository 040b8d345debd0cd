"""Runs many at once: runs of one date and of neighbours, a job by hand beside Luigi, and readers who watch."""

import os
import subprocess
import threading
import time

import pytest

from jobs import settings
from stack import services
from tests.campaigns.faults import conftest, days, ground
from tests.campaigns.faults.days import FIRST, SECOND, THIRD

pytestmark = pytest.mark.skipif(not conftest.WHOLE, reason="takes long: make test-faults")

# The marts agree with each other, even if gold has changed since they were built.
SAME_SUMS = """
select daily.revenue, departments.revenue, patients.revenue, daily.visits, departments.visits, patients.visits
from
    (select sum(total_revenue) as revenue, sum(total_visits) as visits from mart_daily_kpis) as daily,
    (select sum(total_revenue) as revenue, sum(total_visits) as visits from mart_department_stats) as departments,
    (select sum(total_billed) as revenue, sum(total_visits) as visits from mart_patient_stats) as patients
where (daily.revenue, daily.visits) is distinct from (departments.revenue, departments.visits)
or (daily.revenue, daily.visits) is distinct from (patients.revenue, patients.visits)
or coalesce(daily.visits, 0) = 0
"""
# Gold alone: no child without its parent, whatever is being loaded.
ORPHANS = """
select 1 from visits left join patients using (patient_id) where patients.patient_id is null
union all select 1 from billing left join visits using (visit_id) where visits.visit_id is null
union all select 1 from admissions left join visits using (visit_id) where visits.visit_id is null
union all select 1 from treatments left join visits using (visit_id) where visits.visit_id is null
"""
CURRENT = """
select exists(
    select from ops.receipts where layer = 'marts' and made_from = (
        select md5(string_agg(run_id, ',' order by dataset, partition_date)) from ops.receipts where layer = 'gold'
    )
)
"""


class Reader(threading.Thread):
    """Reads like a dashboard in the read-only role throughout, and checks everything it sees against the invariants."""

    def __init__(self):
        super().__init__(daemon=True)
        self.end, self.looks, self.current, self.wrong = threading.Event(), 0, 0, []

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.join()

    def run(self):
        checks = {name: query for name, query in ground.CHECKS.items() if "ops.withheld" not in query}
        assert len(checks) >= 6
        with services.connect("POSTGRES_READ") as connection:
            connection.execute("set default_transaction_isolation to 'repeatable read'")
            while not self.end.is_set():
                with connection.transaction():
                    [is_current] = connection.execute(CURRENT).fetchone()
                    queries = {"the marts agree": SAME_SUMS, "no orphans in gold": ORPHANS} | (
                        checks if is_current else {}
                    )
                    self.wrong += [name for name, query in queries.items() if connection.execute(query).rowcount]
                self.looks += 1
                self.current += is_current
                time.sleep(0.02)


@pytest.fixture(scope="module")
def dates(stage):
    """Loads the dates of a small hospital, and returns their undisturbed results."""
    return days.Days(stage)


def all_at_once(stage, commands):
    """Starts all commands at once with a reader throughout; returns the output of each."""
    outs = [stage.place / f"run-{number}.log" for number in range(len(commands))]
    with Reader() as reader:
        processes = [command(out) for command, out in zip(commands, outs, strict=True)]
        codes = [process.wait(900) for process in processes]
    said = [out.read_text() for out in outs]
    assert codes == [0] * len(codes), "\n".join(said)[-6000:]
    assert reader.wrong == [] and reader.looks > 20 and reader.current
    assert not stage.left_behind()
    return said, reader


def pipeline(stage, day, *options):
    return lambda out: days.start(stage, day, *options, out=out)


def by_hand(*words):
    """Returns a function that starts a job as a separate application on the cluster."""

    def begin(out):
        with out.open("w") as log:
            return subprocess.Popen(
                ["spark-submit", *words],
                cwd=settings.ROOT,
                env={k: v for k, v in os.environ.items() if k != "SPARK_REMOTE"} | {"PYTHONPATH": str(settings.ROOT)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    return begin


def end_state(dates):
    return ground.state(dates.stage.connection)


def test_two_runs_of_one_date_at_once(stage, dates, say):
    dates.land(1)
    said, reader = all_at_once(stage, [pipeline(stage, FIRST), pipeline(stage, FIRST)])
    assert any(f"waiting: another run is writing the date {FIRST}" in text for text in said)
    assert any("is current" in text for text in said)
    assert end_state(dates) == dates.expected[1]
    say(f"two runs of one date: {reader.looks} looks of a reader, {reader.current} at marts that are current")


def test_two_forced_runs_of_one_date_at_once(stage, dates, say):
    dates.land(0)
    _, reader = all_at_once(stage, [pipeline(stage, FIRST, "--force"), pipeline(stage, FIRST, "--force")])
    assert end_state(dates) == dates.expected[0]
    say(f"two forced runs of one date: {reader.looks} looks, {reader.current} at marts that are current")


def test_neighbouring_dates_at_once(stage, dates, say):
    dates.land(1)
    forced = [pipeline(stage, day, "--force") for day in (SECOND, THIRD)]
    _, reader = all_at_once(stage, [pipeline(stage, FIRST), *forced])
    assert days.run(stage, FIRST) == days.run(stage, SECOND) == days.run(stage, THIRD) == ""
    assert end_state(dates) == dates.expected[1]
    say(f"neighbouring dates: {reader.looks} looks, {reader.current} at marts that are current")


def test_a_job_by_hand_against_luigi(stage, dates, say):
    dates.land(0)
    script = str(settings.ROOT / "jobs" / "bronze_to_silver.py")
    said, reader = all_at_once(stage, [pipeline(stage, FIRST, "--force"), by_hand(script, "visits", str(FIRST))])
    stage.put_right()  # spark-submit has rewritten the stack's password file without the proxies
    assert days.run(stage, FIRST) == ""
    assert end_state(dates) == dates.expected[0]
    waits = sum("waiting: another run is writing" in text for text in said)
    say(f"a job by hand against Luigi: {waits} waited and said so, {reader.looks} looks of a reader")
