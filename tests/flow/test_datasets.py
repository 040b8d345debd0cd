"""Checks what a dataset's declaration decides, and that mistakes in one are refused in a sentence.

tests/flow/test_elsewhere.py follows three further datasets, each a file of jobs/catalog, from their files to gold.
"""

import shutil
import subprocess
import sys
from datetime import date

import pytest

from jobs import settings
from jobs.catalog import CATALOG
from jobs.dataset import Column, Dataset, Level, Limit, Rule

LAB_RESULTS = """from datetime import date
from jobs.dataset import Column, Dataset, Rule

lab_results = Dataset(
    name="lab_results",
    doc="One row per laboratory result reported for a visit.",
    since=date(2026, 3, 2),  # dates before this one need no such file
    columns=(
        Column("result_id", required=True, doc="Identifier given by the laboratory system."),
        Column("visit_id", required=True, references="visits"),
        Column("analyte", required=True, doc="LOINC short name."),
        Column("result_value", "decimal"),
        Column("resulted_ts", "timestamp", required=True),
    ),
    day="resulted_ts",
    rules=(Rule("negative_result_value", "result_value >= 0", ("result_value",), message="A result is not negative."),),
)
"""
ALLERGIES = """from jobs.dataset import Column, Dataset

allergies = Dataset(
    name="allergies",
    doc="One row per allergy of a patient.",
    columns=(
        Column("allergy_id", required=True),
        Column("patient_id", required=True, references="patients"),
        Column("substance", required=True),
    ),
)
"""
BED_CLOSURES = """from jobs.dataset import Column, Dataset, Rule

bed_closures = Dataset(
    name="bed_closures",
    doc="One row per closure of beds in a ward.",
    columns=(
        Column("closure_id", required=True),
        Column("ward", required=True),
        Column("closed_on", "date", required=True),
        Column("reopened_on", "date"),
    ),
    day="closed_on",
    rules=(Rule("reopened_before_closed", "reopened_on >= closed_on", ("closed_on", "reopened_on")),),
)
"""
FILES = {"lab_results": LAB_RESULTS, "allergies": ALLERGIES, "bed_closures": BED_CLOSURES}

SOME = Dataset(
    name="some",
    doc="Some rows.",
    columns=(Column("some_id", required=True), Column("size", "decimal"), Column("kind", one_of=("A", "B"))),
    rules=(Rule("negative_size", "size >= 0", ("size",)),),
)


def changed(column=None, rule=None, **changes):
    """Returns SOME with changes to itself, its second column or its rule."""
    from dataclasses import replace

    columns = (SOME.columns[0], replace(SOME.columns[1], **(column or {})), SOME.columns[2])
    return replace(SOME, columns=columns, rules=(replace(SOME.rules[0], **(rule or {})),), **changes)


@pytest.mark.parametrize(
    "same",
    [
        changed(doc="Other words."),
        changed(column={"doc": "Width.", "unit": "cm", "example": "3.5", "limit": Limit(), "groups": True}),
        changed(rule={"message": "A size is not negative.", "limit": Limit(stop=(Level(0.1, 1),))}),
        changed(rule={"violations": ({"size": ("-1",)},)}),
        changed(since=date(2026, 1, 1), limit=Limit(stop=()), usual=(0, 9), due_hours=9, amount="size", day="size"),
        changed(computed=(("twice", "numeric", "size * 2"),)),
    ],
)
def test_what_bears_on_no_verdict_leaves_the_fingerprint_as_it_is(same):
    assert same != SOME and same.rule_set == SOME.rule_set


@pytest.mark.parametrize(
    "other",
    [
        changed(column={"type": "text"}),
        changed(column={"required": True}),
        changed(column={"name": "length"}, rule={"columns": ("length",), "holds": "length >= 0"}),
        changed(column={"references": "visits"}),
        changed(column={"type": "text", "one_of": ("1", "2")}),
        changed(rule={"holds": "size > 0"}),
        changed(rule={"reason": "size_below_zero"}),
        changed(rule={"columns": ("size", "kind")}),
        changed(orphan_days=30),
        SOME.without(["kind"]),
        SOME.without(["size"]),
    ],
)
def test_what_bears_on_verdicts_changes_the_fingerprint(other):
    assert other.rule_set != SOME.rule_set


def test_the_fingerprint_of_the_five_is_that_which_markers_of_an_earlier_version_are_given():
    from jobs.schema import RENAMED

    assert {name: today for name, (_, today) in RENAMED.items()} == {name: d.rule_set for name, d in CATALOG.items()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ALLERGIES.replace('name="allergies"', 'name="allergy"'), "declares no Dataset `allergies` of that name"),
        (ALLERGIES.replace('references="patients"', 'references="people"'), "allergies refers to people"),
        (ALLERGIES.replace('references="patients"', 'references="allergies"'), "in a circle"),
        (ALLERGIES.replace('Column("substance"', 'Column("Substance, as told"'), "lower case letters"),
        (ALLERGIES.replace('Column("substance"', 'Column("patient_id"'), "declares patient_id"),
        (ALLERGIES.replace('"One row per allergy of a patient."', '"x", day="noticed_on"'), "noticed_on"),
        (ALLERGIES.replace('"substance", ', '"substance", "number", '), "the types are text"),
    ],
)
def test_a_mistake_in_a_declaration_is_told_in_a_sentence(tmp_path, text, said):
    shutil.copytree(settings.ROOT / "jobs", tmp_path / "jobs")
    (tmp_path / "jobs" / "catalog" / "allergies.py").write_text(text)
    command = [sys.executable, "-c", "import jobs.catalog"]
    asked = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
    assert asked.returncode and said in asked.stderr.splitlines()[-1]
