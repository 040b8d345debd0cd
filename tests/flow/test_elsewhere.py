"""Runs a clone in another directory, with known passwords, more datasets and the environment of other programs.

The tests share its stack and run in this order: each date builds on the earlier ones.
"""

import csv
import re
import subprocess
import sys
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dotenv import dotenv_values

from jobs import settings
from jobs.catalog import CATALOG
from stack import own, services
from tests.flow.test_datasets import FILES, LAB_RESULTS
from tests.flow.test_environment import clone, hostile
from tests.support.examples import VALID
from tests.unit.test_passwords import EMBEDDED, EXAMPLE, POSTGRES

FIRST, SECOND, THIRD = (date(2026, 3, day) for day in (1, 2, 3))
# The visit began late in the evening (UTC), which is the next day in the time zone of the environment.
BEGAN = {"visit_start_ts": "2026-02-27T23:30", "visit_end_ts": ""}
VISIT = VALID["visits"] | {"visit_id": "V1", "patient_id": "P1", "department": "Südflügel"} | BEGAN
RESULT = {
    "result_id": "R1",
    "visit_id": "V1",
    "analyte": "Na",
    "result_value": "140",
    "resulted_ts": "2026-03-02T09:00",
}
NONE = {"allergies": [dict.fromkeys(("allergy_id", "patient_id", "substance"))]}
NONE |= {"bed_closures": [dict.fromkeys(("closure_id", "ward", "closed_on", "reopened_on"))]}


class Clone:
    """Copies the tree to a directory with a blank in its name, and runs commands there in a hostile environment.

    Secrets and users come from `.env` alone. The ports are free ones, and no Metabase runs.
    """

    def __init__(self, home: Path) -> None:
        self.root = clone(home / "my clöne")
        (self.root / ".env").write_text((settings.ROOT / ".env.example").read_text())
        self.python = str(self.root / ".venv" / "bin" / "python")
        *ports, minio, metabase = own.free_ports(len(own.PORTS) + 2)
        mine = {*settings.SECRETS, *EXAMPLE, "MINIO_READ_ACCESS_KEY"} - {"STACK_CACHE"}
        mine |= {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}  # of `make test`: below it, `make` names each directory it enters
        self.environment = {name: value for name, value in hostile(home).items() if name not in mine}
        self.environment |= dict(zip(own.PORTS, map(str, ports), strict=True))
        self.environment["MINIO_ENDPOINT"] = f"http://127.0.0.1:{minio}"
        self.environment["METABASE_URL"] = f"http://127.0.0.1:{metabase}"

    def ask(self, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a command with a umask that lets only its user read new files."""
        return subprocess.run(
            [*map(str, words)], cwd=cwd or self.root, env=self.environment, text=True, capture_output=True, umask=0o077
        )

    def run(self, *words: object, cwd: Path | None = None) -> str:
        """Returns the output of a command that must succeed."""
        done = self.ask(*words, cwd=cwd)
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "Traceback" not in said, f"{words}\n{said[-6000:]}"
        return said

    def make(self, *words: str) -> str:
        return self.run("make", *words)

    def declare(self, name: str, text: str) -> None:
        (self.root / "jobs" / "catalog" / f"{name}.py").write_text(text)

    def land(self, day: date, **rows: list[dict[str, Any]]) -> None:
        """Lands the files of a date: the given datasets with rows, other standard ones with a header alone."""
        folder = self.root / "data" / "raw" / f"{day:%Y/%m/%d}"
        folder.mkdir(parents=True)
        headers = {name: dataset.names for name, dataset in CATALOG.items()}
        headers |= {name: [*of[0]] for name, of in rows.items()}
        for name, header in headers.items():
            with (folder / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, header)
                writer.writeheader()
                writer.writerows(row for row in rows.get(name, []) if any(row.values()))

    def sql(self, query: str, role: str = "POSTGRES") -> list[tuple[Any, ...]]:
        """Returns the rows of a query."""
        ask = (
            f"from jobs import warehouse\nwith warehouse.connect({role!r}) as c: print(c.execute({query!r}).fetchall())"
        )
        found = self.run(self.python, "-c", ask)
        return eval(found, {"datetime": __import__("datetime"), "Decimal": __import__("decimal").Decimal})

    def states(self) -> list[tuple[Any, ...]]:
        return self.sql(
            "select partition_date::text, is_complete, is_balanced, is_current, why from ops.dates order by 1"
        )


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    clone = Clone(tmp_path_factory.mktemp("elsewhere"))
    for name, text in FILES.items():
        clone.declare(name, text)
    try:
        clone.said = clone.make("up")
        yield clone
    finally:
        clone.ask("make", "down")


def test_a_stack_under_known_passwords_gets_random_ones(elsewhere):
    first = "Known passwords of .env.example are in use (12, POSTGRES_PASSWORD among"
    assert elsewhere.said.splitlines()[-1].startswith(first)
    healthy = elsewhere.run(elsewhere.python, "-m", "pipelines", "health").splitlines()
    assert healthy[0] == elsewhere.said.splitlines()[-1] and healthy[-1].startswith("Healthy: ") and len(healthy) == 2
    connect = "from jobs import object_store, warehouse\nwith warehouse.connect() as c: "
    precious = f"Bucket={EXAMPLE['MINIO_BUCKET_SILVER']!r}, Key='precious'"
    insert = f"{connect}c.execute('create table ops.precious ()')\nobject_store.s3().put_object({precious}, Body=b'42')"
    elsewhere.run(elsewhere.python, "-c", insert)
    said = elsewhere.make("secrets")
    new = dotenv_values(elsewhere.root / ".env")
    assert said.startswith(f"12 secrets are random now, in .env and nowhere else to read: {', '.join(EMBEDDED)}.\n")
    assert not [name for name in EMBEDDED if new[name] in said or new[name] in settings.KNOWN]
    assert "nown passwords" not in said
    assert elsewhere.make("status").count(" up ") == len(services.SERVICES)
    look = f"{connect}c.execute('drop table ops.precious')\nobject_store.s3().head_object({precious})"
    elsewhere.run(elsewhere.python, "-c", f"{look}\nobject_store.s3().delete_object({precious})")
    assert elsewhere.run(elsewhere.python, "-m", "pipelines", "health").startswith("Healthy: ")
    for role in POSTGRES:
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            user, password = EXAMPLE[f"{role}_USER"], EXAMPLE[f"{role}_PASSWORD"]
            at = {"host": "127.0.0.1", "port": elsewhere.environment["POSTGRES_PORT"], "dbname": EXAMPLE["POSTGRES_DB"]}
            psycopg.connect(**at, user=user, password=password)


PAGES = "from dashboards import pages\nwith pages.connect() as c: print(*c.execute('show timezone').fetchone())"


def test_a_whole_date_under_a_hostile_environment(elsewhere, tmp_path):
    began = datetime.now(timezone.utc).replace(microsecond=0)
    elsewhere.land(
        FIRST,
        patients=[VALID["patients"] | {"patient_id": "P1"}],
        visits=[VISIT],
        allergies=[
            {"allergy_id": "AL1", "patient_id": "P1", "substance": "Latex"},
            {"allergy_id": "AL2", "patient_id": "P404", "substance": "Nuts"},
        ],
        bed_closures=[
            {"closure_id": "C1", "ward": "North", "closed_on": "2026-02-27", "reopened_on": ""},
            {"closure_id": "C2", "ward": "North", "closed_on": "2026-02-27", "reopened_on": "2026-02-26"},
        ],
    )
    elsewhere.make("run", f"DATE={FIRST}")
    ledger = elsewhere.make("ledger")
    assert re.search(rf"{FIRST} .* complete, balanced, current", ledger), ledger
    assert elsewhere.run(elsewhere.python, "-c", PAGES) == "UTC\n"
    query = "select visit_start_ts::text, stat_date::text, v.department, current_setting('timezone') "
    query += "from visits v join mart_department_stats using (department)"
    for role in ("POSTGRES", "POSTGRES_READ"):
        assert elsewhere.sql(query, role) == [("2026-02-27 23:30:00", "2026-02-27", "Südflügel", "UTC")]

    story = elsewhere.make("why", "KEY=V1")
    times = re.findall(r"(?:came|loaded) (\S+ \S+) UTC", story)
    ended = datetime.now(timezone.utc)
    assert times and all(began <= datetime.fromisoformat(f"{at}+00:00") <= ended for at in times), story

    page = (elsewhere.root / ".stack" / "dashboards" / "executive-overview.html").read_text()
    [built] = re.findall(r'"built":\s*"([^"]+)"', page)
    assert began <= datetime.fromisoformat(built) and built.endswith("+00:00")

    # A job and a task by hand, from another directory.
    job = elsewhere.root / "jobs" / "bronze_to_silver.py"
    submitted = elsewhere.run("bash", elsewhere.root / "conf" / "spark-submit", job, "patients", FIRST, cwd=tmp_path)
    assert "1 rows = 1 accepted + 0 rejected" in submitted
    luigi = (elsewhere.python, Path(sys.executable).parent / "luigi", "--module", "pipelines")
    elsewhere.run(*luigi, "Silver", "--dataset", "patients", "--date", FIRST, cwd=tmp_path)


def test_further_datasets_go_from_their_files_to_gold_and_its_accounts(elsewhere):
    elsewhere.land(
        SECOND,
        **NONE,
        lab_results=[
            RESULT,
            RESULT | {"result_id": "R2", "result_value": "-1"},
            RESULT | {"result_id": "R3", "visit_id": "V2"},
        ],
    )
    elsewhere.make("run", f"DATE={SECOND}")
    assert elsewhere.states() == [(str(day), True, True, True, "") for day in (FIRST, SECOND)]
    assert elsewhere.sql("select allergy_id, patient_id, substance from allergies") == [("AL1", "P1", "Latex")]
    assert elsewhere.sql("select closure_id, ward from bed_closures") == [("C1", "North")]
    assert elsewhere.sql("select result_id, result_value::text from lab_results") == [("R1", "140.00")]
    assert elsewhere.sql("select * from ops.unaccounted") == []
    reasons = elsewhere.sql("select dataset, reason from ops.reasons where hits > 0 order by 1, 2")
    assert reasons == [
        ("allergies", "orphan_patient_id"),
        ("bed_closures", "reopened_before_closed"),
        ("lab_results", "negative_result_value"),
        ("lab_results", "orphan_visit_id"),
    ]
    # Excluded rows count per department if a row belongs to a visit, else for the whole hospital.
    lacking = "select department, withheld_by_reason from ops.mart_trust where stat_date = '{}'"
    second = dict(elsewhere.sql(lacking.format(SECOND)))
    assert second.keys() == {"*", "(unknown)"}
    assert second["*"]["lab_results"].keys() == {"negative_result_value", "orphan_visit_id"}
    first = dict(elsewhere.sql(lacking.format(FIRST)))
    assert first["*"] == {"allergies": {"orphan_patient_id": {"rows": 1}}}
    assert not any("allergies" in reasons for department, reasons in first.items() if department != "*")
    comments = elsewhere.sql(
        "select col_description('lab_results'::regclass, 1), obj_description('lab_results'::regclass)"
    )
    assert comments == [
        ("Identifier given by the laboratory system.", "One row per laboratory result reported for a visit.")
    ]
    shown = elsewhere.make("rejects", f"DATE={SECOND}", "DATASET=lab_results")
    assert "A result is not negative." in shown


def test_a_column_added_later_is_taken_up_and_makes_no_date_due(elsewhere):
    elsewhere.declare(
        "lab_results",
        LAB_RESULTS.replace(
            '        Column("resulted_ts"',
            '        Column("result_unit", required=True),\n        Column("resulted_ts"',
        ),
    )
    # Brings the visit that a result of the day before, whose file has no such column, is waiting for.
    elsewhere.land(
        THIRD,
        visits=[VISIT | {"visit_id": "V2"}],
        **NONE,
        lab_results=[
            RESULT | {"result_id": "R4", "result_unit": "mmol/L", "resulted_ts": "2026-03-03T09:00"},
            RESULT | {"result_id": "R5", "result_unit": "", "resulted_ts": "2026-03-03T09:00"},
        ],
    )
    elsewhere.make("run", f"DATE={THIRD}")
    assert elsewhere.states() == [(str(day), True, True, True, "") for day in (FIRST, SECOND, THIRD)]
    held = elsewhere.sql("select result_id, result_unit, _partition_date::text from lab_results order by 1")
    assert held == [("R1", None, str(SECOND)), ("R3", None, str(SECOND)), ("R4", "mmol/L", str(THIRD))]
    reasons = elsewhere.sql(
        "select partition_date::text, reason from ops.reasons natural join ops.receipts "
        "where layer = 'silver' and dataset = 'lab_results' and hits > 0 order by 1, 2"
    )
    assert reasons == [(str(SECOND), "negative_result_value"), (str(THIRD), "missing_result_unit")]
    assert f"{FIRST} is current" in elsewhere.make("run", f"DATE={FIRST}")
    # The first job of a forced run: the file has no such column.
    elsewhere.run(elsewhere.python, "jobs/landing_to_bronze.py", "lab_results", SECOND)


def test_what_bears_on_no_verdict_counts_at_the_next_command_and_makes_no_date_due(elsewhere):
    text = (elsewhere.root / "jobs" / "catalog" / "lab_results.py").read_text()
    text = text.replace("LOINC short name.", "Name of the analyte.").replace("is not negative", "is zero or more")
    text = text.replace("import Column, Dataset, Rule", "import Column, Dataset, Level, Limit, Rule")
    text = text.replace('("result_value",), message', '("result_value",), Limit(warn=(Level(0, 7),)), message')
    elsewhere.declare("lab_results", text)
    elsewhere.make("ledger")
    assert elsewhere.states() == [(str(day), True, True, True, "") for day in (FIRST, SECOND, THIRD)]
    rule = "select message, warn_rows from ops.rules where reason = 'negative_result_value'"
    assert elsewhere.sql(rule) == [("A result is zero or more.", [7])]
    assert f"{THIRD} is current" in elsewhere.make("run", f"DATE={THIRD}")


def test_a_column_that_is_no_longer_declared_or_has_another_type_is_refused_with_what_to_do(elsewhere):
    file = elsewhere.root / "jobs" / "catalog" / "lab_results.py"
    text = file.read_text()
    try:
        file.write_text(text.replace('        Column("result_unit", required=True),\n', ""))
        refused = elsewhere.ask(elsewhere.python, "-m", "pipelines", "run", str(THIRD))
        assert (
            refused.returncode and "no longer declares result_unit, which gold has" in refused.stdout + refused.stderr
        )
        as_text = text.replace('"result_value", "decimal"', '"result_value"').replace("value >= 0", "value <> '-'")
        file.write_text(as_text)
        refused = elsewhere.ask(elsewhere.python, "-m", "pipelines", "ledger")
        assert refused.returncode == 2 and "declares result_value with another type" in refused.stderr
    finally:
        file.write_text(text)
    assert elsewhere.states()[-1][1:4] == (True, True, True)
