"""A dataset is one file of jobs/catalog: three that nobody else knows, dropped into a clone, from file to marts."""

import csv
import os
import shutil
import subprocess
import sys
from datetime import date

import pytest

from jobs import settings
from jobs.catalog import CATALOG
from jobs.dataset import Column, Dataset, Level, Limit, Rule
from stack import own
from tests.support.examples import VALID

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
FIRST, SECOND, THIRD = (date(2026, 3, day) for day in (1, 2, 3))
VISIT = VALID["visits"] | {"visit_id": "V1", "patient_id": "P1", "department": "Cardiology"}
AT = {"visit_start_ts": "2026-03-01T10:00", "visit_end_ts": "2026-03-01T11:00"}
RESULT = {
    "result_id": "R1",
    "visit_id": "V1",
    "analyte": "Na",
    "result_value": "140",
    "resulted_ts": "2026-03-02T09:00",
}


class Clone:
    """A copy of the tree with a stack of its own, whose commands run as a person would call them."""

    def __init__(self, home):
        self.root = home / "clone with a blank"
        shutil.copytree(settings.ROOT, self.root, ignore=shutil.ignore_patterns(".*", "data", "__pycache__"))
        shutil.copy(settings.ROOT / ".env.example", self.root)
        (self.root / ".venv").symlink_to(settings.ROOT / ".venv")
        self.python = str(self.root / ".venv" / "bin" / "python")
        self.landing = home / "landing"
        self.environment = os.environ | own.addresses(home)

    def run(self, *words):
        command = [self.python, "-m", *words]
        return subprocess.run(command, cwd=self.root, env=self.environment, text=True, capture_output=True)

    def bronze(self, dataset, day):
        """Takes a landing file to bronze by the job itself."""
        command = [self.python, "jobs/landing_to_bronze.py", dataset, str(day)]
        return subprocess.run(command, cwd=self.root, env=self.environment, text=True, capture_output=True)

    def declare(self, name, text):
        (self.root / "jobs" / "catalog" / f"{name}.py").write_text(text)

    def land(self, day, **rows):
        """Lands the files of a date: the datasets given with their rows, the five others with a header alone."""
        folder = self.landing / f"{day:%Y/%m/%d}"
        folder.mkdir(parents=True)
        headers = {name: dataset.names for name, dataset in CATALOG.items()} | {
            name: list(of[0]) for name, of in rows.items()
        }
        for name, header in headers.items():
            with (folder / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, header)
                writer.writeheader()
                writer.writerows(row for row in rows.get(name, []) if any(row.values()))

    def sql(self, query):
        """The rows of a query, asked as the loader."""
        ask = f"from jobs import warehouse\nwith warehouse.connect() as c: print(c.execute({query!r}).fetchall())"
        found = subprocess.run(
            [self.python, "-c", ask], cwd=self.root, env=self.environment, text=True, capture_output=True
        )
        assert not found.returncode, found.stderr
        return eval(found.stdout, {"datetime": __import__("datetime"), "Decimal": __import__("decimal").Decimal})

    def states(self):
        return self.sql(
            "select partition_date::text, is_complete, is_balanced, is_current, why from ops.dates order by 1"
        )


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    clone = Clone(tmp_path_factory.mktemp("datasets"))
    for name, text in FILES.items():
        clone.declare(name, text)
    try:
        started = clone.run("stack", "up")
        assert not started.returncode, started.stdout + started.stderr
        yield clone
    finally:
        clone.run("stack", "clean")


def test_further_datasets_go_from_their_files_to_gold_and_its_accounts(clone):
    none = {"allergies": [dict.fromkeys(("allergy_id", "patient_id", "substance"))]}
    none |= {"bed_closures": [dict.fromkeys(("closure_id", "ward", "closed_on", "reopened_on"))]}
    clone.land(
        FIRST,
        patients=[VALID["patients"] | {"patient_id": "P1"}],
        visits=[VISIT | AT],
        allergies=[
            {"allergy_id": "AL1", "patient_id": "P1", "substance": "Latex"},
            {"allergy_id": "AL2", "patient_id": "P404", "substance": "Nuts"},
        ],
        bed_closures=[
            {"closure_id": "C1", "ward": "North", "closed_on": "2026-02-27", "reopened_on": ""},
            {"closure_id": "C2", "ward": "North", "closed_on": "2026-02-27", "reopened_on": "2026-02-26"},
        ],
    )
    first = clone.run("pipelines", "run", str(FIRST))
    assert not first.returncode, first.stdout + first.stderr
    clone.land(
        SECOND,
        **none,
        lab_results=[
            RESULT,
            RESULT | {"result_id": "R2", "result_value": "-1"},
            RESULT | {"result_id": "R3", "visit_id": "V2"},
        ],
    )
    second = clone.run("pipelines", "run", str(SECOND))
    assert not second.returncode, second.stdout + second.stderr
    assert clone.states() == [(str(day), True, True, True, "") for day in (FIRST, SECOND)]
    assert clone.sql("select allergy_id, patient_id, substance from allergies") == [("AL1", "P1", "Latex")]
    assert clone.sql("select closure_id, ward from bed_closures") == [("C1", "North")]
    assert clone.sql("select result_id, result_value::text from lab_results") == [("R1", "140.00")]
    assert clone.sql("select * from ops.unaccounted") == []
    reasons = clone.sql("select dataset, reason from ops.reasons where hits > 0 order by 1, 2")
    assert reasons == [
        ("allergies", "orphan_patient_id"),
        ("bed_closures", "reopened_before_closed"),
        ("lab_results", "negative_result_value"),
        ("lab_results", "orphan_visit_id"),
    ]
    # What the figures lack: by department where a row belongs to a visit, else for the hospital alone.
    lacking = "select department, withheld_by_reason from ops.mart_trust where stat_date = '{}'"
    second = dict(clone.sql(lacking.format(SECOND)))
    assert second.keys() == {"*", "(unknown)"}
    assert second["*"]["lab_results"].keys() == {"negative_result_value", "orphan_visit_id"}
    first = dict(clone.sql(lacking.format(FIRST)))
    assert first["*"] == {"allergies": {"orphan_patient_id": {"rows": 1}}}
    assert not any("allergies" in reasons for department, reasons in first.items() if department != "*")
    comments = clone.sql("select col_description('lab_results'::regclass, 1), obj_description('lab_results'::regclass)")
    assert comments == [
        ("Identifier given by the laboratory system.", "One row per laboratory result reported for a visit.")
    ]
    shown = clone.run("jobs.rejects", "show", str(SECOND), "--dataset", "lab_results")
    assert "A result is not negative." in shown.stdout, shown.stdout + shown.stderr


def test_a_column_added_later_is_taken_up_and_makes_no_date_due(clone):
    clone.declare(
        "lab_results",
        LAB_RESULTS.replace(
            '        Column("resulted_ts"',
            '        Column("result_unit", required=True),\n        Column("resulted_ts"',
        ),
    )
    # The visit that a result of the day before waits for, whose file has no such column.
    clone.land(
        THIRD,
        visits=[VISIT | AT | {"visit_id": "V2"}],
        allergies=[dict.fromkeys(("allergy_id", "patient_id", "substance"))],
        bed_closures=[dict.fromkeys(("closure_id", "ward", "closed_on", "reopened_on"))],
        lab_results=[
            RESULT | {"result_id": "R4", "result_unit": "mmol/L", "resulted_ts": "2026-03-03T09:00"},
            RESULT | {"result_id": "R5", "result_unit": "", "resulted_ts": "2026-03-03T09:00"},
        ],
    )
    third = clone.run("pipelines", "run", str(THIRD))
    assert not third.returncode, third.stdout + third.stderr
    assert clone.states() == [(str(day), True, True, True, "") for day in (FIRST, SECOND, THIRD)]
    held = clone.sql("select result_id, result_unit, _partition_date::text from lab_results order by 1")
    assert held == [("R1", None, str(SECOND)), ("R3", None, str(SECOND)), ("R4", "mmol/L", str(THIRD))]
    reasons = clone.sql(
        "select partition_date::text, reason from ops.reasons natural join ops.receipts "
        "where layer = 'silver' and dataset = 'lab_results' and hits > 0 order by 1, 2"
    )
    assert reasons == [(str(SECOND), "negative_result_value"), (str(THIRD), "missing_result_unit")]
    again = clone.run("pipelines", "run", str(FIRST))
    assert f"{FIRST} is current" in again.stdout, again.stdout + again.stderr
    forced = clone.bronze("lab_results", SECOND)  # the first job of a forced run: the file has no such column
    assert not forced.returncode, forced.stdout + forced.stderr


def test_what_bears_on_no_verdict_counts_at_the_next_command_and_makes_no_date_due(clone):
    text = (clone.root / "jobs" / "catalog" / "lab_results.py").read_text()
    text = text.replace("LOINC short name.", "Name of the analyte.").replace("is not negative", "is zero or more")
    text = text.replace("import Column, Dataset, Rule", "import Column, Dataset, Level, Limit, Rule")
    text = text.replace('("result_value",), message', '("result_value",), Limit(warn=(Level(0, 7),)), message')
    clone.declare("lab_results", text)
    assert not clone.run("pipelines", "ledger").returncode
    assert clone.states() == [(str(day), True, True, True, "") for day in (FIRST, SECOND, THIRD)]
    rule = "select message, warn_rows from ops.rules where reason = 'negative_result_value'"
    assert clone.sql(rule) == [("A result is zero or more.", [7])]
    again = clone.run("pipelines", "run", str(THIRD))
    assert f"{THIRD} is current" in again.stdout, again.stdout + again.stderr


def test_a_column_that_is_no_longer_declared_or_has_another_type_is_refused_with_what_to_do(clone):
    file = clone.root / "jobs" / "catalog" / "lab_results.py"
    text = file.read_text()
    try:
        file.write_text(text.replace('        Column("result_unit", required=True),\n', ""))
        refused = clone.run("pipelines", "run", str(THIRD))
        assert (
            refused.returncode and "no longer declares result_unit, which gold has" in refused.stdout + refused.stderr
        )
        as_text = text.replace('"result_value", "decimal"', '"result_value"').replace("value >= 0", "value <> '-'")
        file.write_text(as_text)
        refused = clone.run("pipelines", "ledger")
        assert refused.returncode == 2 and "declares result_value with another type" in refused.stderr
    finally:
        file.write_text(text)
    assert clone.states()[-1][1:4] == (True, True, True)


# ---- the declaration -----------------------------------------------------------------------------------------------

SOME = Dataset(
    name="some",
    doc="Some rows.",
    columns=(Column("some_id", required=True), Column("size", "decimal"), Column("kind", one_of=("A", "B"))),
    rules=(Rule("negative_size", "size >= 0", ("size",)),),
)


def changed(column=None, rule=None, **changes):
    """SOME with changes, among them those of its second column and of its rule."""
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
