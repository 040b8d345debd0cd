"""The laws over histories nobody thought of: whatever was run in whatever order, gold and marts are those of the files.

`make test` runs a few histories; `make test-laws STEPS=2000` goes on until that many steps have been executed, and
shows that broken jobs are found.
"""

import inspect
import os
import sys
import time
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, Phase, assume, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from jobs import warehouse
from jobs.bronze_to_silver import bronze_to_silver, stale_dates
from jobs.catalog import CATALOG
from jobs.silver_to_gold import load
from tests import model
from tests.examples import EXAMPLES, PARENTS, VALID
from tests.history import DAYS, DEATHS, JOBS, History, boundary, ground

# Few keys and few values, so that files disagree about them.
VALUES = {
    "patients": {
        "patient_id": ["P1", "P2", "P3"],
        "gender": ["F", "m", " oTHER"],
        "birth_date": ["1980-02-29", "2001-01-02"],
        "city": ["Lyon", "Kyoto", ""],
        "registration_date": ["2029-12-30", "2030-01-02"],
    },
    "visits": {
        "visit_id": ["V1", "V2", "V3", "V4"],
        "patient_id": ["P1", "P2", "P3"],
        "visit_type": ["Inpatient", "outpatient", "EMERGENCY"],
        "department": ["Cardiology", "Surgery"],
        "doctor_id": ["D1", ""],
        "visit_start_ts": ["2030-01-01T09:00:00", "2030-01-02T01:30:00+02:00", "2030-01-03 10:00"],
        "visit_end_ts": ["", "2030-01-03T17:10:00Z"],
        "status": ["Completed", "cancelled", "No-show"],
    },
    "admissions": {
        "admission_id": ["A1", "A2", "A3"],
        "visit_id": ["V1", "V2", "V3", "V4"],
        "admit_ts": ["2030-01-01T12:00:00", "2030-01-03T06:00:00Z"],
        "discharge_ts": ["", "2030-01-03T18:00:00", "2030-01-09T00:00:00"],
        "room_type": ["ICU", "general ward"],
    },
    "treatments": {
        "treatment_id": ["T1", "T2"],
        "visit_id": ["V1", "V2", "V3", "V4"],
        "treatment_code": ["CA01"],
        "treatment_name": ["Electrocardiogram", ""],
        "treatment_cost": ["120.00", "0.005"],
        "performed_ts": ["2030-01-01T09:30:00"],
    },
    "billing": {
        "bill_id": ["B1", "B2", "B3"],
        "visit_id": ["V1", "V2", "V3", "V4"],
        "total_amount": ["100.00", "80.5"],
        "insurance_amount": ["70.00", ""],
        "patient_amount": ["30.00", ""],
        "payment_status": ["Paid", "Pending", "partial"],
        "payment_ts": ["2030-01-20T08:00:00"],
    },
}
BROKEN = {
    "patients": [
        ("patient_id", ""),
        ("gender", "X"),
        ("birth_date", "29/02/1980"),
        ("registration_date", "1979-01-01"),
    ],
    "visits": [("patient_id", "P404"), ("department", "  "), ("visit_end_ts", "2029-01-01T00:00:00"), ("status", "?")],
    "admissions": [("visit_id", "V404"), ("admit_ts", "noon"), ("discharge_ts", "2029-01-01T00:00:00")],
    "treatments": [("treatment_cost", "-0.01"), ("treatment_cost", "1e3"), ("treatment_code", "")],
    "billing": [("total_amount", "-1"), ("insurance_amount", "100.01"), ("payment_ts", ""), ("patient_amount", "?")],
}


@st.composite
def rows(draw, dataset):
    """A file's rows, one in eight of them broken."""
    found = []
    for _ in range(draw(st.integers(0, 4))):
        row = {name: draw(st.sampled_from(values)) for name, values in VALUES[dataset].items()}
        if draw(st.integers(0, 7)) == 7:
            row |= [draw(st.sampled_from(BROKEN[dataset]))]
        found.append(",".join(row.values()))
    return found


numbers = st.integers(0, len(DAYS) - 1)
places = st.integers(0, len(DAYS) * len(CATALOG) - 1)
whole_days = st.fixed_dictionaries({dataset: rows(dataset) for dataset in CATALOG})
scripts = st.sampled_from(list(JOBS))
pipelines = st.sampled_from(["Day", "GoldPipeline", "SilverPipeline", "BronzeIngestion"])


class Tally:
    """What has been executed so far, and the sentence that says so."""

    def __init__(self, spark, say):
        self.spark, self.say, self.started = spark, say, time.monotonic()
        self.steps = self.histories = self.rounds = 0

    def __str__(self):
        seconds = time.monotonic() - self.started
        return f"{self.steps:,} steps in {self.histories:,} histories, {seconds:,.0f} s"


class Broken(BaseException):
    """A law is broken. No Exception, so that hypothesis does not play the history again, which takes minutes."""


class Laws(RuleBasedStateMachine):
    """Any history of a small hospital; once it has come to rest, everything is what the model says."""

    tally: Tally

    def __init__(self):
        super().__init__()
        self.history, self.sound = None, False

    @contextmanager
    def readable(self):
        """A failure says what led to it, in words."""
        self.sound = False
        try:
            yield self.history
        except Exception as error:
            story = "\n".join(f"  {number}. {line}" for number, line in enumerate(self.history.lines, 1))
            raise Broken(f"{type(error).__name__}: {error}\n{story}") from error
        self.sound = True

    @contextmanager
    def step(self):
        self.tally.steps += 1
        with self.readable() as history:
            yield history

    @initialize(
        first=whole_days,
        second=whole_days,
        number=numbers,
        order=st.permutations(range(len(DAYS))),
        backfill=st.booleans(),
    )
    def begin(self, first, second, number, order, backfill):
        assume(any(first.values()))  # else hypothesis tries the simplest history first, in which nothing happens
        self.order, self.backfill = order, backfill
        self.history = History()
        with self.readable() as history:
            for day, files in ((0, first), (number, second)):
                history.land_all(DAYS[day], files)

    @rule(number=numbers, files=whole_days)
    def a_day_lands(self, number, files):
        with self.step() as history:
            history.land_all(DAYS[number], files)

    @rule(which=places, data=st.data())
    def a_file_is_corrected(self, which, data):
        with self.step() as history:
            dataset, day = history.place(which)
            history.land(dataset, day, data.draw(rows(dataset)))

    @rule(which=places, row=st.integers(0, 4))
    def a_row_is_deleted_or_the_first_file_put_back(self, which, row):
        with self.step() as history:
            dataset, day = history.place(which)
            lines = history.files[dataset, day]
            if row == 4:
                history.put_back(dataset, day)
            else:
                history.land(dataset, day, [line for n, line in enumerate(lines) if n != row % len(lines)])

    @rule(script=scripts, which=places)
    def a_job_runs(self, script, which):
        with self.step() as history:
            history.run(*history.ready(script, which))

    @rule(which=places)
    def a_file_goes_all_the_way(self, which):
        with self.step() as history:
            history.all_the_way(*history.place(which))

    @rule(which=places)
    def a_partition_is_judged_again(self, which):
        with self.step() as history:
            history.judge_again(which)

    @rule(script=scripts, which=places, data=st.data())
    def a_job_dies(self, script, which, data):
        with self.step() as history:
            script, *words = history.ready(script, which)
            history.run(script, *words, death=data.draw(st.sampled_from(DEATHS[script])))

    @rule(pipeline=pipelines, number=numbers, forced=st.booleans())
    def a_pipeline_starts(self, pipeline, number, forced):
        with self.step() as history:
            history.start(pipeline, history.day(number), forced)

    @rule(number=numbers, count=st.sampled_from([1, 2, 3, 5, 8, 100]))
    def a_pipeline_goes_on(self, number, count):
        with self.step() as history:
            history.advance(number, count)

    @rule(number=numbers, death=st.sampled_from(sorted({death for names in DEATHS.values() for death in names})))
    def a_job_of_a_pipeline_dies(self, number, death):
        with self.step() as history:
            history.advance(number, 8, death)

    def teardown(self):
        if self.history is None:
            return
        try:
            if self.sound:
                with self.readable() as history:
                    rounds = history.come_to_rest(self.order, self.backfill)
                    history.check(self.tally.spark)
                self.tally.rounds = max(self.tally.rounds, rounds)
                self.tally.histories += 1
                self.tally.say(str(self.tally))
        finally:
            self.history.close()


@pytest.fixture(scope="module")
def hospital(stack, spark):
    """The ground on which histories happen; the session."""
    with ground(spark):
        yield spark


@pytest.fixture
def say(capsys):
    """Prints past pytest's capture."""

    def line(text):
        with capsys.disabled():
            print(text, flush=True)

    return line


def run_histories(tally, steps, length, first):
    """Histories of `length` steps, each from a seed of its own, until `steps` have been executed or a law is broken."""
    for number in range(first, 1_000_000):
        machine = seed(number)(type("Laws", (Laws,), {"tally": tally}))
        one = settings(
            database=None,
            deadline=None,
            max_examples=1,
            phases=[Phase.generate],
            stateful_step_count=length,
            suppress_health_check=list(HealthCheck),
        )
        try:
            run_state_machine_as_test(machine, settings=one)
        except Broken as broken:
            raise AssertionError(f"{broken}\nThis is the history of seed {number} and length {length}.") from broken
        if tally.steps >= steps:
            break


def test_the_model_reads_rows_as_the_examples_say():
    for dataset, change, reasons in EXAMPLES:
        row = VALID[dataset] | change
        known = {parent: {key} for parent, key in PARENTS.items()}
        found = model.read([row[name] for name in CATALOG[dataset].names], dataset, known)[1]
        assert found == list(reasons), (dataset, change)


def test_any_history_ends_in_what_the_files_say(hospital, say):
    tally = Tally(hospital, say)
    run_histories(tally, int(os.environ.get("STEPS") or 60), 30, 1)
    say(str(tally))


# (what is done wrong, the function in which, its line, the wrong line)
PLANTS = {
    "what a corrected file no longer has stays in gold": (
        warehouse.find_lost,
        "where g._partition_date = %s",
        "where false and g._partition_date = %s",
    ),
    "late parents have nobody judged again": (stale_dates, "if found:", "if False:"),
    "an old day wins": (warehouse.load, "s._partition_date >= g._partition_date", "true"),
    "the receipt before the commit": (
        bronze_to_silver,
        "warehouse.withdraw(connection, row)",
        "warehouse.settle(connection, row, facts.sha256)",
    ),
    "no older version to fall back on": (load, "for loser in losing:", "for loser in []:"),
    "orphans never final": (
        bronze_to_silver,
        'F.col("_partition_date") <= dataset.waits_until(day)',
        "F.lit(True)",
    ),
    "a dead judge's cached rows": (bronze_to_silver, '.filter(F.lit(row["run_id"]) != "")', ""),
    "a dead judge's keys": (stale_dates, "or warehouse.died_before(connection, row)", ""),
}


@pytest.mark.skipif("STEPS" not in os.environ, reason="takes minutes each: make test-laws")
@pytest.mark.parametrize("wrong", PLANTS)
def test_a_planted_bug_is_found(hospital, say, wrong, monkeypatch):
    plant(monkeypatch, *PLANTS[wrong])
    tally = Tally(hospital, lambda _: None)
    with pytest.raises(AssertionError) as found:
        run_histories(tally, 600, 40, 1)
    say(f"{wrong}: found after {tally}: {str(found.value).splitlines()[0]}")


def plant(monkeypatch, function, line, wrong):
    """Puts a function with a wrong line in the place of the true one."""
    source = inspect.getsource(function)
    assert source.count(line) == 1, f"{function.__name__} no longer says {line}"
    module, name, made = sys.modules[function.__module__], function.__name__, {}
    exec(source.replace(line, wrong), vars(module), made)
    planted = boundary(made[name]) if hasattr(getattr(module, name), "__wrapped__") else made[name]
    monkeypatch.setattr(module, name, planted)
    for script, job in JOBS.items():
        if job is function:
            monkeypatch.setitem(JOBS, script, planted)
