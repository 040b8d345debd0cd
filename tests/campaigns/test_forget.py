"""Forgets a date: afterwards everything is as if it had never run, wherever the command died before."""

import os
import subprocess
import sys
from contextlib import contextmanager
from datetime import date, timedelta

import pytest

from jobs import forget, gold, ledger, program, removal, settings
from jobs.catalog import CATALOG
from tests.campaigns.test_laws import AS_FIRST_SENT, file, hashes, hospital, plant, takes_minutes  # noqa: F401  # a fixture
from tests.support.history import DAYS, DEATHS, History, found

# The second date has a rejected row, so its partition of rejected rows must go as well.
FAULTY = file("patients", {"patient_id": "P5", "gender": "?"})
FILES = AS_FIRST_SENT | {1: AS_FIRST_SENT[1] | {"patients": AS_FIRST_SENT[1]["patients"] + FAULTY}}


@pytest.fixture(scope="module")
def history(hospital):  # noqa: F811
    """Yields three dates in gold: the second brought parents of the first's rows, the third newer versions."""
    yield from three_dates()


def three_dates():
    history = History()
    try:
        for number, files in FILES.items():
            history.land_all(DAYS[number], files)
        history.come_to_rest(range(3), backfill=False)
        yield history
    finally:
        history.close()


def forgotten(history, number, spark):
    """Forgets a date, again if that was interrupted, and compares everything with the model of the other dates."""
    history.forget(DAYS[number])
    assert history.come_to_rest(range(3), backfill=False) == 0, "nothing is left to do"
    history.check(spark)


def landed_again(history, number):
    history.land_all(DAYS[number], FILES[number])
    history.come_to_rest(range(3), backfill=False)


def test_what_a_forgotten_date_covered_stands_again_and_one_row_says_who_asked(history, hospital):  # noqa: F811
    before = hashes()
    forgotten(history, 2, hospital)
    history.run("forget.py", str(DAYS[2]))
    asked = found("select asked_by, outcome, partition_date from ops.ledger where layer = 'forget'")
    assert asked == [(program.user(), "done", DAYS[2])], "the second time there was nothing to forget"
    assert found("select partition_date, asked_by from ops.never_ran") == [(DAYS[2], program.user())]
    assert found("select day from ops.newest") == [(DAYS[1],)]
    assert {newest for (newest,) in found("select newest from ops.freshness")} == {DAYS[1]}
    landed_again(history, 2)
    assert hashes() == before and found("select partition_date from ops.never_ran") == []


def test_a_date_that_is_half_forgotten_can_be_run_instead_or_forgotten_to_the_end(history, hospital):  # noqa: F811
    before = hashes()
    history.forget(DAYS[1], "after remove_bronze 2")
    assert history.lines[-1].endswith(": dead")
    landed_again(history, 1)
    history.check(hospital)
    assert hashes() == before
    history.forget(DAYS[1], "after load 1")
    forgotten(history, 1, hospital)
    landed_again(history, 1)
    assert hashes() == before, "the rows that depend on the date are back"


@takes_minutes
@pytest.mark.parametrize("death", DEATHS["forget.py"])
def test_a_date_is_forgotten_wherever_the_command_died_before(history, hospital, death):  # noqa: F811
    history.forget(DAYS[1], death)
    assert history.lines[-1].endswith(": dead"), "it came to this boundary"
    forgotten(history, 1, hospital)
    landed_again(history, 1)


def test_a_date_that_was_only_refused_is_told_apart(history):
    day = DAYS[3]
    history.land_all(day, AS_FIRST_SENT[2])
    path = history.folder / f"{day:%Y/%m/%d}" / "visits.csv"
    path.write_text("visit_id;patient_id\n")
    for dataset in CATALOG:
        try:
            history.run("landing_to_bronze.py", dataset, str(day))
        except program.Refused:
            assert dataset == "visits"
    assert day not in [shown for (shown,) in found("select partition_date from ops.dates")]
    [(shown, layer, outcome, error)] = found("select partition_date, layer, outcome, error from ops.never_ran")
    assert (shown, layer, outcome) == (day, "bronze", "failed") and "visits.csv" in error
    path.write_text(",".join(CATALOG["visits"].names) + "\n")
    history.run("landing_to_bronze.py", "visits", str(day))
    assert found("select partition_date from ops.never_ran") == []
    assert [why for shown, why in found("select partition_date, why from ops.dates") if shown == day]


PLANTS = {
    "a marker left behind": (
        ledger.delete_markers,
        "where partition_date = %s",
        "where partition_date = %s and dataset <> 'visits'",
    ),
    "a partition of accepted rows left behind": (removal.empty, "for kind in KINDS if", "for kind in KINDS[1:] if"),
    "a partition of rejected rows left behind": (removal.empty, "for kind in KINDS if", "for kind in KINDS[:1] if"),
    "bronze left behind": (removal.remove_source, "bronze_files.remove_bronze(dataset, day)", "pass"),
    "children that lose their parent not revalidated": (
        removal.empty,
        "revalidation.mark_stale(spark, connection, dataset, [row])",
        "pass",
    ),
    "a child left in gold": (
        gold.find_lost,
        "if CATALOG[parent] in losing:",
        "if CATALOG[parent] in losing and loser.name != 'visits':",
    ),
    "no older version to fall back on": (
        forget.forget,
        "print(gold_load.silver_to_gold(dataset, day), flush=True)",
        "ledger.settle(connection, row | {'layer': 'gold', 'dataset': dataset.name}, "
        "ledger.standing(connection, dataset, day)['run_id'])",
    ),
}


@pytest.mark.parametrize("wrong", PLANTS)
def test_a_bug_of_forgetting_can_still_be_planted(wrong, monkeypatch):
    plant(monkeypatch, *PLANTS[wrong])


@takes_minutes
@pytest.mark.parametrize("wrong", PLANTS)
def test_a_planted_bug_of_forgetting_is_found(hospital, wrong, monkeypatch):  # noqa: F811
    plant(monkeypatch, *PLANTS[wrong])
    with contextmanager(three_dates)() as history, pytest.raises(Exception) as error:
        forgotten(history, 1, hospital)
        landed_again(history, 1)
        forgotten(history, 2, hospital)
    assert not isinstance(error.value, (NameError, TypeError, SyntaxError)), error.value


def run(*words, **environment):
    command = [sys.executable, *words]
    own = {name: text for name, text in os.environ.items() if name != "FUTURE"}
    done = subprocess.run(
        command, env=own | {"PYTHONPATH": str(settings.ROOT)} | environment, cwd=settings.ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "pipelines", "run"),
        ("-m", "luigi", "--module", "pipelines", "Day", "--date"),
        ("-m", "luigi", "--module", "pipelines", "BronzeIngestion", "--date"),
        ("jobs/landing_to_bronze.py", "patients"),
    ],
)
def test_a_date_that_has_not_begun_is_refused_unless_it_is_meant(stack, words):
    tomorrow = date.today() + timedelta(days=2)
    code, said = run(*words, str(tomorrow))
    assert code in (1, 2) and f"{tomorrow} has not begun yet (UTC)" in said and "Traceback" not in said
    code, said = run(*words, str(tomorrow), FUTURE="1")
    assert code and "has not landed" in said
