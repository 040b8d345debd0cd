"""Strikes at every boundary of the jobs: the same command run again must end as if nothing had happened.

`make test` runs a few faults; `make test-faults` runs all and prints their number.
"""

import importlib
import inspect
import os
import time

import pytest

from tests.campaigns.faults import campaign, conftest, days
from tests.campaigns.faults.proxy import Trap

whole = pytest.mark.skipif(not conftest.WHOLE, reason="takes long: make test-faults")


def test_a_few_faults_are_survived(stage, say):
    campaign.run(stage, campaign.few(), campaign.STRUCK[:1], lambda _: None)
    assert stage.violations == []


def test_two_loads_at_once_take_turns(stage):
    assert two_at_once(stage) == []


def two_at_once(stage):
    """Runs a load that stages its rows slowly and a second one at the same time; returns the violations."""
    stage.flip("billing")
    for job in ("landing_to_bronze", "bronze_to_silver"):
        assert not stage.run(job, "billing")
    rows = next(b for b in campaign.BOUNDARIES["silver_to_gold"] if b.name == "rows by JDBC")
    trap = Trap(rows.pattern.replace("@", "billing"), "before", lambda: time.sleep(4) or True)
    stage.proxies["postgres"].trap = trap
    jobs = [stage.start("silver_to_gold", "billing", number) for number in (0, 1)]
    codes = [job.end() for job in jobs]
    stage.proxies["postgres"].trap = None
    said = [job.said() for job in jobs]
    wrong = [text for code, text in zip(codes, said, strict=True) if code]
    wrong += [] if trap.struck.is_set() else ["nobody was slow"]
    wrong += [] if any("waiting: another run is writing gold" in text for text in said) else ["nobody waited"]
    return wrong + (
        [] if stage.found("silver_to_gold", "billing") == stage.expected("silver_to_gold", "billing") else ["rows"]
    )


# (the function, its line, the wrong line), and the fault that detects it.
PLANTS = {
    "the marker before the commit": (
        "jobs.silver_partitions",
        "validate",
        "ledger.withdraw(connection, run)",
        "sha256 = facts[run['partition_date']].sha256; "
        "ledger.settle(connection, run | {'bronze_sha256': sha256}, sha256)",
    ),
    "staging reused": ("jobs.gold", "staging", "_{run_id.rpartition('-')[2]}", "_shared"),
    "no lock": ("jobs.warehouse", "wait_for", "while not value(connection", "while False and not value(connection"),
}


@pytest.mark.parametrize("wrong", PLANTS)
def test_a_bug_can_still_be_planted(wrong):
    module, function, line, _ = PLANTS[wrong]
    assert inspect.getsource(getattr(importlib.import_module(module), function)).count(line) == 1


@whole
@pytest.mark.parametrize("wrong", PLANTS)
def test_a_planted_bug_is_found(stage, monkeypatch, wrong):
    monkeypatch.setattr(stage, "plant", PLANTS[wrong])
    monkeypatch.setattr(stage, "violations", [])
    job, name, side, strike = {
        "the marker before the commit": (
            "bronze_to_silver",
            "the commit of the marker",
            "after",
            "kill -9 of the driver",
        ),
        "staging reused": (
            "silver_to_gold",
            "rows by JDBC",
            "before",
            "kill -9 of the driver, and its rows in the next load",
        ),
        "no lock": ("", "", "", ""),
    }[wrong]
    if wrong == "no lock":
        assert any("nobody waited" not in each for each in two_at_once(stage))
    else:
        stage.flip("billing")
        for before in ("landing_to_bronze", "bronze_to_silver")[
            : ("bronze_to_silver", "silver_to_gold").index(job) + 1
        ]:
            assert not stage.run(before, "billing")
        boundary = next(each for each in campaign.BOUNDARIES[job] if each.name == name)
        stage.strike(campaign.Fault(job, boundary, side, strike), "billing")
        assert any("a marker says" in each or "the same command failed" in each for each in stage.violations)
    monkeypatch.undo()
    for after in ("bronze_to_silver", "silver_to_gold"):
        assert not stage.run(after, "billing")


@whole
def test_every_fault_is_survived(stage, say):
    faults = campaign.plan()
    if os.environ["FAULTS"].isdigit():  # a number of faults from the whole campaign
        faults = faults[:: max(1, len(faults) // int(os.environ["FAULTS"]))]
    say(f"\n{len(faults)} faults at {sum(map(len, campaign.BOUNDARIES.values()))} boundaries of five jobs")
    campaign.run(stage, faults, campaign.STRUCK, say)
    for strike, count in stage.struck.most_common():
        say(f"{count:6} {strike}")
    say(f"{stage.struck.total():6} faults, {len(stage.violations)} violations")
    assert stage.violations == []


@whole
def test_whole_days_survive(stage, say):
    known = len(stage.violations)
    days.campaign(days.Days(stage), say)
    say(f"{stage.struck.total():6} faults so far, {len(stage.violations)} violations")
    assert stage.violations[known:] == []
