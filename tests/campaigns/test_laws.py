"""Checks the invariants over random histories: whatever ran in whatever order, gold and marts follow from the files.

`make test` runs a few histories; `make test-laws STEPS=2000` continues until that many steps have been executed, and
shows that planted bugs are found.
"""

import hashlib
import inspect
import os
import sys
import time
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, Phase, assume, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from jobs import concerned, gold, lake_paths, reconcile, validation, warehouse
from jobs.catalog import CATALOG
from jobs.gold_load import apply
from jobs.program import Refused
from jobs.revalidation import stale_dates
from jobs.silver_partitions import validate
from pipelines.task_log import Failed
from tests.support import model
from tests.support.examples import EXAMPLES, PARENTS, VALID, VERSIONS, WRITTEN_OTHERWISE, versions
from tests.support.history import (
    DAYS,
    DEATHS,
    GOLD_LEDGER,
    JOBS,
    MARTS,
    REASONS,
    SILVER_LEDGER,
    History,
    boundary,
    found,
    found_rows,
    ground,
)

# Few keys and few values, so that files conflict.
VALUES = {
    "patients": {
        "patient_id": ["P1", "P2", "P3"],
        "gender": ["F", "m", " oTHER", "Unknown", " unKNOWN"],
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
        "performed_ts": ["2030-01-01T09:30:00", "2030-01-01 10:15"],
    },
    "billing": {
        "bill_id": ["B1", "B2", "B3"],
        "visit_id": ["V1", "V2", "V3", "V4"],
        "total_amount": ["100.00", "80.5"],
        "insurance_amount": ["70.00", ""],
        "patient_amount": ["30.00", ""],
        "payment_status": ["Paid", "Pending", "partial"],
        "payment_ts": ["2030-01-20T08:00:00", "2030-01-20T10:30:00+01:00", ""],
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
    """Draws a file's rows, one in eight of them defective."""
    found = []
    for _ in range(draw(st.integers(0, 4))):
        row = {name: draw(st.sampled_from(values)) for name, values in VALUES[dataset].items()}
        if draw(st.integers(0, 7)) == 7:
            row |= [draw(st.sampled_from(BROKEN[dataset]))]
        found.append(",".join(row.values()))
    return found


takes_minutes = pytest.mark.skipif("STEPS" not in os.environ, reason="takes minutes: make test-laws")

numbers = st.integers(0, len(DAYS) - 1)
places = st.integers(0, len(DAYS) * len(CATALOG) - 1)
dates = st.sets(st.sampled_from(DAYS))  # groups of dates for jobs
whole_days = st.fixed_dictionaries({dataset: rows(dataset) for dataset in CATALOG})
scripts = st.sampled_from([script for script in JOBS if script != "forget.py"])
pipelines = st.sampled_from(["Day", "GoldPipeline", "SilverPipeline", "BronzeIngestion"])


class Tally:
    """Counts what has been executed, and describes it in a sentence."""

    def __init__(self, spark, say):
        self.spark, self.say, self.started = spark, say, time.monotonic()
        self.steps = self.histories = self.rounds = 0

    def __str__(self):
        seconds = time.monotonic() - self.started
        return f"{self.steps:,} steps in {self.histories:,} histories, {seconds:,.0f} s"


class Broken(BaseException):
    """Signals a violation; not an Exception, so that hypothesis does not replay the history, which takes minutes."""


class Laws(RuleBasedStateMachine):
    """Plays any history of a small hospital; once nothing is due, everything must equal the model."""

    tally: Tally

    def __init__(self):
        super().__init__()
        self.history, self.sound = None, False

    @contextmanager
    def readable(self):
        """Adds the history to a failure, in words."""
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
        by_source=st.booleans(),
        order=st.permutations(range(len(DAYS))),
        backfill=st.booleans(),
        by_key=st.booleans(),
    )
    def begin(self, first, second, number, by_source, order, backfill, by_key):
        assume(any(first.values()))  # otherwise hypothesis tries the simplest history first, in which nothing happens
        self.order, self.backfill = order, backfill
        self.history = History()
        with self.readable() as history:
            history.choose_way(by_key)
            for day, files in ((0, first), (number, second)):
                history.land_all(DAYS[day], files, by_source and day > 0)

    @rule(number=numbers, files=whole_days, by_source=st.booleans())
    def a_day_lands(self, number, files, by_source):
        with self.step() as history:
            history.land_all(DAYS[number], files, by_source)

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

    @rule(script=scripts, which=places, others=dates)
    def a_job_runs(self, script, which, others):
        with self.step() as history:
            history.run(*history.ready(script, which, others))

    @rule(which=places)
    def a_file_goes_all_the_way(self, which):
        with self.step() as history:
            history.all_the_way(*history.place(which))

    @rule(by_key=st.booleans())
    def the_way_of_validating_again_changes(self, by_key):
        with self.step() as history:
            history.choose_way(by_key)

    @rule(which=places)
    def a_partition_is_revalidated(self, which):
        with self.step() as history:
            history.revalidate(which)

    @rule(script=scripts, which=places, others=dates, data=st.data())
    def a_job_dies(self, script, which, others, data):
        with self.step() as history:
            script, *words = history.ready(script, which, others)
            history.run(script, *words, death=data.draw(st.sampled_from(DEATHS[script])))

    @rule(number=numbers)
    def a_date_is_forgotten(self, number):
        with self.step() as history:
            history.forget(history.day(number))

    @rule(number=numbers, death=st.sampled_from(DEATHS["forget.py"]))
    def a_date_is_half_forgotten(self, number, death):
        with self.step() as history:
            history.forget(history.day(number), death)

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
    """Yields the session, with the ground on which histories run."""
    with ground(spark):
        yield spark


def run_histories(tally, steps, length, first):
    """Runs histories of `length` steps, each with its own seed, until `steps` have run or an invariant is violated."""
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


@pytest.mark.parametrize("dataset", CATALOG)
def test_the_model_lets_the_versions_stand_that_the_examples_name(dataset):
    known = {parent: {key} for parent, key in PARENTS.items()}
    for cases, differ in ((VERSIONS, True), (WRITTEN_OTHERWISE, False)):
        for stands, rows in versions(dataset, cases):
            texts = [[row[name] for name in CATALOG[dataset].names] for row in (stands, *rows)]
            values, _ = model.read(texts[0], dataset, known)
            verdict = model.validate(texts[1:], dataset, known)
            assert verdict.accepted == {values[0]: values}
            assert (verdict.rejected.total(), verdict.differing) == (len(rows) - 1, int(differ))


def test_any_history_ends_in_what_the_files_say(hospital, say):
    tally = Tally(hospital, say)
    run_histories(tally, int(os.environ.get("STEPS") or 25), 30, 1)
    say(str(tally))


def file(dataset, *changes):
    """Returns the rows of a landing file: valid ones with changes."""
    return [",".join((VALID[dataset] | change).values()) for change in changes]


# Three dates: the second brings the parents of some of the first's rows, the third brings newer versions.
AS_FIRST_SENT = {
    0: {
        "patients": file("patients", {"patient_id": "P1"}, {"patient_id": "P3", "gender": "?"}),
        "visits": file("visits", *({"visit_id": f"V{n}", "patient_id": f"P{n}"} for n in (1, 2, 3))),
        "admissions": file("admissions", {"visit_id": "V1"}, {"admission_id": "A2", "visit_id": "V2"}),
        "treatments": file("treatments", {"visit_id": "V2"}),
        "billing": file("billing", {"visit_id": "V1", "total_amount": "900"}, {"bill_id": "B2", "visit_id": "V2"}),
    },
    1: {
        "patients": file("patients", {"patient_id": "P2"}, {"patient_id": "P3"}, {"patient_id": "P4"}),
        "visits": file("visits", {"visit_id": "V4", "patient_id": "P4"}),
        "admissions": [],
        "treatments": file("treatments", {"treatment_id": "T4", "visit_id": "V4"}),
        "billing": file("billing", {"bill_id": "B4", "visit_id": "V4"}),
    },
    2: {
        "patients": file("patients", {"patient_id": "P1", "city": "Kyoto"}),
        "visits": file("visits", {"visit_id": "V1", "patient_id": "P1", "department": "Surgery"}),
        "admissions": [],
        "treatments": [],
        "billing": file("billing", {"visit_id": "V1", "total_amount": "950"}),
    },
}
CORRECTED = (
    0,
    "billing",
    file("billing", {"visit_id": "V1", "total_amount": "800"}, {"bill_id": "B2", "visit_id": "V2"}),
)
# with the last patient, a visit, a treatment and a bill are removed
DELETED = 1, "patients", AS_FIRST_SENT[1]["patients"][:2]
ORDERS = {
    "as they happened": [0, 1, 2, CORRECTED, DELETED],
    "the newest first": [2, 1, DELETED, 0, CORRECTED],
    "corrected before the parents come": [0, CORRECTED, 2, 1, DELETED],
}


def hashes():
    """Returns a hash per layer over all rows without the marks of their run, and over the ledger's sums."""
    rows = {
        "gold": [(name, sorted(map(repr, found_rows(name)))) for name in CATALOG],
        "marts": [(name, sorted(map(repr, found_rows(name)))) for name in (*MARTS, "ops.mart_trust")],
        "ledger": [sorted(map(repr, found(query))) for query in (SILVER_LEDGER, REASONS, GOLD_LEDGER)],
    }
    assert all(part for _, part in rows["gold"])
    return {layer: hashlib.sha256(repr(content).encode()).hexdigest()[:16] for layer, content in rows.items()}


def test_dates_that_come_by_a_source_end_in_what_its_files_say(hospital):
    """Kills the conversion at every boundary; then each date comes the other way."""
    history = History()
    try:
        history.land_all(DAYS[0], AS_FIRST_SENT[0])
        history.land_all(DAYS[1], AS_FIRST_SENT[1], by_source=True)
        for death in DEATHS["source_to_bronze.py"]:
            history.run("source_to_bronze.py", str(DAYS[1]), death=death)
            assert history.lines[-1].endswith(": dead"), "the boundary is reached"
        history.come_to_rest([0, 1], backfill=True)
        history.check(hospital)
        for number in (0, 1):
            history.land_all(DAYS[number], AS_FIRST_SENT[number], by_source=number == 0)
        history.come_to_rest([0, 1], backfill=False)
        history.check(hospital)
    finally:
        history.close()


# Rows whose verdicts change with their parents, or with those of rows that share their key. Of the four versions of V1,
# the fullest waits for its patient; one row has no key, and one is rejected whatever comes.
VERSIONS_OF_V1 = ({"patient_id": "P2"}, {"doctor_id": ""}, {"doctor_id": "", "status": ""}, {"patient_id": "P8"})
SHARED = {
    "patients": file("patients", {"patient_id": "P1"}),
    "visits": file(
        "visits",
        *({"visit_id": "V1", "patient_id": "P1"} | version for version in VERSIONS_OF_V1),
        {"visit_id": "", "patient_id": "P2"},
        {"visit_id": "V2", "patient_id": "P2", "status": "?"},
        {"visit_id": "V3", "patient_id": "P2"},
        {"visit_id": "V4", "patient_id": "P1"},
        {"visit_id": "V5", "patient_id": "P1", "status": "?"},
    ),
    "admissions": file("admissions", {"visit_id": "V1"}, {"admission_id": "A2", "visit_id": "V3"}),
    "treatments": file("treatments", {"visit_id": "V2"}, {"treatment_id": "T2", "visit_id": "V4"}),
    "billing": file("billing", {"visit_id": "V1"}, {"bill_id": "B2", "visit_id": "V3"}),
}
BY_KEY = "select dataset, count(*) from ops.ledger where since_run is not null group by 1 order by 1"


@contextmanager
def followed_by_key(spark, death=None):
    """Yields a history in which visits followed a patient by key who came and went; their jobs may have died."""
    history = History()
    nothing = {name: [] for name in CATALOG}
    patient = {"patients": file("patients", {"patient_id": "P2"})}
    try:
        history.choose_way(by_key=True)
        history.land_all(DAYS[0], SHARED)
        history.land_all(DAYS[4], nothing | patient)  # too late for the visits, but there when P2 goes
        history.come_to_rest([0, 4], backfill=True)
        for number, files in enumerate((patient, {}), 1):
            history.land_all(DAYS[1], nothing | files)
            if death:
                history.all_the_way("patients", DAYS[1])
                history.run("bronze_to_silver.py", "visits", str(DAYS[0]), death=death)
                assert history.lines[-1].endswith(": dead"), "the boundary is reached"
            history.come_to_rest([0, 1, 4], backfill=True)
            history.check(spark)
            if death is None:
                assert ("visits", number) in found(BY_KEY), found(BY_KEY)
        yield history
    finally:
        history.close()


COMMITS = [name for name in DEATHS["bronze_to_silver.py"] if "replace" in name]


@pytest.mark.parametrize("death", [None, *(pytest.param(name, marks=takes_minutes) for name in COMMITS)])
def test_parents_that_come_and_go_are_followed_by_key(hospital, death):
    """Then changes silver and gold by hand, which `reconcile` finds and corrects."""
    visits, day = CATALOG["visits"], DAYS[0]
    with followed_by_key(hospital, death) as history:
        reconcile.reconcile(visits, day)
        if death is None:
            path = lake_paths.silver_path(visits, "accepted")
            hospital.sql(f"delete from delta.`{path}` where visit_id = 'V4'").collect()
            with pytest.raises(Refused, match=f"^silver of visits {day} did not have the rows that the file gives"):
                reconcile.reconcile(visits, day)
            with warehouse.connect() as connection:
                connection.execute("update visits set department = 'Surgery' where visit_id = 'V4'")
            with pytest.raises(Refused, match=f"^gold of visits {day} did not have"):
                reconcile.reconcile(visits, day)
            reconcile.reconcile(visits, day)
            history.come_to_rest([0, 1, 4], backfill=True)
            history.check(hospital)


# Of V1 the version that stood has left, and one that was rejected; V3, which has a child, and a row without a key have
# left too; V4 has another value, V5 is sound now; V6 and another row without a key are new.
CORRECTED_VISITS = [
    *file("visits", *({"visit_id": "V1", "patient_id": "P1"} | version for version in VERSIONS_OF_V1[1:3])),
    *file("visits", {"visit_id": "", "patient_id": "P1"}, {"visit_id": "V2", "patient_id": "P2", "status": "?"}),
    *file("visits", {"visit_id": "V4", "patient_id": "P1", "department": "Surgery"}),
    *file("visits", {"visit_id": "V5", "patient_id": "P1"}, {"visit_id": "V6", "patient_id": "P2"}),
]


@contextmanager
def corrected_by_key(spark, death=None):
    """Yields a history in which a file was corrected, and with STEPS corrected back; its jobs may have died."""
    history = History()
    try:
        history.choose_way(by_key=True)
        history.land_all(DAYS[0], SHARED | {"patients": file("patients", {"patient_id": "P1"}, {"patient_id": "P2"})})
        history.come_to_rest([0], backfill=True)
        history.check(spark)
        for number, rows in enumerate((CORRECTED_VISITS, SHARED["visits"])[: 2 if "STEPS" in os.environ else 1], 1):
            history.land("visits", DAYS[0], rows)
            if death:
                history.run("landing_to_bronze.py", "visits", str(DAYS[0]))
                history.run("bronze_to_silver.py", "visits", str(DAYS[0]), death=death)
                assert history.lines[-1].endswith(": dead"), "the boundary is reached"
            history.come_to_rest([0], backfill=True)
            history.check(spark)
            if death is None:
                assert ("visits", number) in found(BY_KEY), found(BY_KEY)
        assert found("select * from ops.gone_keys") == []
        yield history
    finally:
        history.close()


@pytest.mark.parametrize("death", [None, *(pytest.param(name, marks=takes_minutes) for name in COMMITS)])
def test_a_corrected_file_is_followed_by_key(hospital, death):
    with corrected_by_key(hospital, death):
        # Raises Refused if silver or gold differs from what the whole file gives.
        reconcile.reconcile(CATALOG["visits"], DAYS[0])


# As in PLANTS, for the validation and the load by key, each with the history that shows it.
PLANTS_BY_KEY = {
    "a shared key is forgotten": (
        concerned.rows_of,
        'accepted=accepted.join(keys, on=key, how="left_semi")',
        "accepted=accepted.limit(0)",
        followed_by_key,
    ),
    "a row without a key is forgotten": (
        concerned.rows_of,
        "isNull()).join(texts",
        "isNull()).limit(0).join(texts",
        followed_by_key,
    ),
    "rows that were counted are counted again": (
        concerned.brought_forward,
        "hits[code] - before.hits[code] + now.hits[code]",
        "hits[code] + now.hits[code]",
        followed_by_key,
    ),
    "a key that is no longer accepted stays in gold": (
        gold.find_lost,
        "g.{dataset.key} in (select row_key",
        "false and g.{dataset.key} in (select row_key",
        followed_by_key,
    ),
    "withheld rows that were not staged go": (
        gold.replace_withheld,
        "and (_partition_date <> all(%(places)s) ",
        "and (true ",
        followed_by_key,
    ),
    "a hash that ignores the end of a record": (
        validation.record_hash,
        '"_raw")',
        'F.substring("_raw", 1, 20))',
        corrected_by_key,
    ),
    "a record that left the file stays in gold": (gold.find_lost, "union all {GONE_SINCE}", "", corrected_by_key),
    "a version that shares its key is forgotten": (
        concerned.records,
        "with_hashes(bronze, accepted)",
        "with_hashes(bronze, accepted).limit(0)",
        corrected_by_key,
    ),
}


@pytest.mark.parametrize("wrong", PLANTS_BY_KEY)
def test_a_bug_of_the_way_by_key_can_still_be_planted(wrong, monkeypatch):
    plant(monkeypatch, *PLANTS_BY_KEY[wrong][:3])


@takes_minutes
@pytest.mark.parametrize("wrong", PLANTS_BY_KEY)
def test_a_bug_planted_in_the_way_by_key_is_found(hospital, say, wrong, monkeypatch):
    *bug, shown_by = PLANTS_BY_KEY[wrong]
    plant(monkeypatch, *bug)
    # A check of the marts may find it before the model does.
    with pytest.raises((AssertionError, Failed)) as found, shown_by(hospital):
        pass
    say(f"{wrong}: {str(found.value).splitlines()[0]}")


@takes_minutes
def test_late_parents_a_corrected_file_and_a_deleted_row_end_alike_in_any_order(hospital, say):
    ends = {}
    for name, events in ORDERS.items():
        history = History()
        try:
            for event in events:
                if isinstance(event, int):
                    history.land_all(DAYS[event], AS_FIRST_SENT[event])
                else:
                    number, dataset, rows = event
                    history.land(dataset, DAYS[number], rows)
                history.come_to_rest(range(3), backfill=False)
            history.check(hospital)
            ends[name] = hashes()
            say(f"{name}: {', '.join(f'{layer} {digest}' for layer, digest in ends[name].items())}")
        finally:
            history.close()
    assert len({str(end) for end in ends.values()}) == 1


# (what is done wrong, the function, its line, the wrong line)
PLANTS = {
    "what a corrected file no longer has stays in gold": (
        gold.find_lost,
        "where g._partition_date = any(%(places)s)",
        "where false and g._partition_date = any(%(places)s)",
    ),
    "late parents have nobody revalidated": (stale_dates, "if found:", "if False:"),
    "an old day wins": (gold.load, "s._partition_date >= g._partition_date", "true"),
    "the marker before the commit": (
        validate,
        "ledger.withdraw(connection, run)",
        'ledger.settle(connection, run, facts[run["partition_date"]].sha256)',
    ),
    "no older version to fall back on": (apply, "for loser in losing:", "for loser in []:"),
    "orphans never final": (
        validation.compare,
        'F.col("day") <= F.date_add("_partition_date", dataset.orphan_days)',
        "F.lit(True)",
    ),
    "a dead validation's cached rows": (validate, '.filter(F.lit(run_id) != "")', ""),
    "of versions the last by alphabet stands": (
        validation.precedence,
        "F.asc_nulls_last(rank(column)) for column in columns if column.ranks",
        "F.desc_nulls_last(column.name) for column in columns if column.ranks",
    ),
    "Unknown is known": (validation.is_known, "if column.not_known else", "if False else"),
    "alike versions are said to differ": (validation.compare, "(~F.min(content)", "(F.lit(True) | F.min(content)"),
    "a marker for a date whose rows were not in the commit": (
        validate,
        "silver_commit.publish(connection, dataset, changed, verdict, counts, is_new=not ran)",
        "silver_commit.publish(connection, dataset, changed[:1], verdict, counts, is_new=not ran)",
    ),
    "of dates loaded at once the oldest version stands": (
        gold.load,
        "order by {key}, _partition_date desc",
        "order by {key}, _partition_date",
    ),
    "a dead validation's keys": (stale_dates, "or ledger.died_before(connection, run)", ""),
}


@pytest.mark.parametrize("wrong", PLANTS)
def test_a_bug_can_still_be_planted(wrong, monkeypatch):
    plant(monkeypatch, *PLANTS[wrong])


@takes_minutes
@pytest.mark.parametrize("wrong", PLANTS)
def test_a_planted_bug_is_found(hospital, say, wrong, monkeypatch):
    plant(monkeypatch, *PLANTS[wrong])
    tally = Tally(hospital, lambda _: None)
    with pytest.raises(AssertionError) as found:
        run_histories(tally, 600, 40, 1)
    say(f"{wrong}: found after {tally}: {str(found.value).splitlines()[0]}")


def plant(monkeypatch, function, line, wrong):
    """Replaces a function with a copy that has a wrong line."""
    source = inspect.getsource(function)
    assert source.count(line) == 1, f"{function.__name__} no longer says {line}"
    module, name, made = sys.modules[function.__module__], function.__name__, {}
    exec(source.replace(line, wrong), vars(module), made)
    planted = boundary(made[name]) if hasattr(getattr(module, name), "__wrapped__") else made[name]
    monkeypatch.setattr(module, name, planted)
    for script, job in JOBS.items():
        if job is function:
            monkeypatch.setitem(JOBS, script, planted)
