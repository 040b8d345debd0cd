"""Tests that a preview publishes nothing and predicts the run: verdicts, lines, thresholds, figures, schema."""

import re
import shutil
from datetime import date, timedelta

import pytest

from jobs import bronze_files, example_export, exports, raw, settings, thresholds, warehouse
from jobs.catalog import CATALOG
from jobs.generate import generate
from jobs.landing import folder
from jobs.program import Refused
from tests.flow.test_flow import call
from tests.flow.test_source_to_bronze import FILES, declarations, land  # noqa: F401
from tests.spark.test_backtest import figures_in, marts
from tests.support import synthea_like

DAY = date(2031, 5, 13)  # of no other test: the ledger keeps what a forgotten date had
TABLES = ("ops.ledger", "ops.receipts", "ops.reasons", "ops.source_files", "ops.withheld", *CATALOG)


def state(postgres):
    """Returns what is published: rows of the ledger and of gold, objects of bronze and of silver."""
    counts = {table: postgres.execute(f"select count(*) from {table}").fetchone()[0] for table in TABLES}
    buckets = ("MINIO_BUCKET_BRONZE", "MINIO_BUCKET_SILVER")
    return counts, {bucket: sorted(raw.keys(bucket, "")) for bucket in buckets}


def preview(*words, **named):
    """Returns the lines of a preview, which pytest shows if a test fails."""
    from jobs import preview as previews

    lines = []
    for line in previews.preview(*words, **named):
        print(line)
        lines.append(line)
    return lines


def reasons_in(lines):
    """Returns by (dataset, code) the rows and the places that a preview tells, and by dataset its verdicts."""
    found, verdicts, name = {}, {}, ""
    for line in lines:
        if match := re.fullmatch(r"(\w+): ([\d,]+) rows = ([\d,]+) accepted \+ ([\d,]+) rejected", line):
            name = match[1]
            verdicts[name] = tuple(int(number.replace(",", "")) for number in match.groups()[1:])
        elif (match := re.fullmatch(r"  (\w+) +([\d,]+)(?:  (.*))?", line)) and name:
            found[name, match[1]] = (int(match[2].replace(",", "")), match[3] or "")
    return found, verdicts


def test_a_preview_of_our_files_predicts_what_the_run_then_does(hospital, spark, postgres, tmp_path):
    from jobs.gold_to_marts import gold_to_marts

    # An orphan of the day before finds its patient among the files to come.
    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    hospital.validate(
        "visits", 1, hospital.row("visits", "V1"), hospital.row("visits", "V2", patient_id=hospital.key("P2"))
    )
    for name in ("patients", "visits"):
        hospital.load(name, 1)
    gold_to_marts(hospital.day(1))
    rows = {
        "patients": [hospital.row("patients", "P1", city="Moved"), hospital.row("patients", "P2")],
        "visits": [hospital.row("visits", "V3"), hospital.row("visits", "V4", status="?")],
        "admissions": [hospital.row("admissions", "A1")],
        "treatments": [hospital.row("treatments", "T1", visit_id=hospital.key("V3"), treatment_cost="-1")],
        "billing": [
            *(hospital.row("billing", f"B{n}", visit_id=hospital.key("V3"), payment_status="Owed") for n in range(10)),
            hospital.row("billing", "B10", visit_id=hospital.key("V3")),
        ],
    }
    for name in CATALOG:
        hospital.land(name, 2, *rows[name])
    landed = settings.path("LANDING_DIR") / folder(hospital.day(2))
    shutil.move(landed, tmp_path / "new")
    before, (_, figures) = state(postgres), marts(postgres)

    lines = preview(tmp_path / "new", day=hospital.day(2))

    assert state(postgres) == before, "nothing is published, and nothing is left in the lake"
    assert settings.path("LANDING_DIR") == landed.parents[2], "the landing directory is the user's own again"
    found, verdicts = reasons_in(lines)
    assert verdicts["visits"] == (2, 1, 1) and verdicts["billing"] == (11, 1, 10)
    assert found["visits", "unknown_status"] == (1, "line 3")
    assert found["billing", "unknown_payment_status"] == (10, "line 2, line 3 and line 4")
    stopping = "10 of 11 rows rejected with unknown_payment_status (90.9 %), the stop level is 90 % and 5 rows"
    assert f"  billing {hospital.day(2)}: {stopping}" in lines
    assert f"-{hospital.year}" not in "".join(lines), "no key is shown"
    assert any(re.match(r"  visits +rejected -> accepted +1", line) for line in lines)
    assert "gold patients: 1 rows change, 1 come, 0 go" in lines

    shutil.move(tmp_path / "new", landed)
    for name in CATALOG:
        hospital.bronze(name, 2)
    from jobs.bronze_to_silver import bronze_to_silver

    for name in CATALOG:
        bronze_to_silver(CATALOG[name], hospital.day(2))
    while hospital.revalidate():
        pass
    with warehouse.connect() as connection:
        thresholds.override(connection, thresholds.stops(connection, hospital.day(2)))
    for name in CATALOG:
        hospital.load(name, 1) if name in ("patients", "visits") else None
        hospital.load(name, 2)
    gold_to_marts(hospital.day(2))
    standing = postgres.execute(
        "select dataset, bronze_rows, accepted, rejected from ops.standing where partition_date = %s", [hospital.day(2)]
    ).fetchall()
    assert verdicts == {name: tuple(numbers) for name, *numbers in standing}
    then = {place: float(figure or 0) for place, figure in marts(postgres)[1].items()}
    now = {place: float(figure or 0) for place, figure in figures.items()}
    # Where a mart has no row, its sum is null: told as a dash.
    told, _ = figures_in([re.sub(r"  -  ", "  0  ", line) for line in lines])
    predicted = {place: pair for place, pair in told.items() if "." not in place[0] and pair[0] != pair[1]}
    both = now.keys() & then.keys()  # columns of an empty mart look like figures, whatever their types
    assert {place: (now[place], then[place]) for place in both if now[place] != then[place]} == predicted


def test_a_preview_of_a_source_names_its_lines_and_its_change_of_schema(hospital, declarations, tmp_path):  # noqa: F811
    from jobs.source_to_bronze import source_to_bronze

    later = DAY + timedelta(days=1)
    for name, text in FILES.items():
        (tmp_path / name).write_bytes(text.encode("windows-1252"))
    try:
        lines = preview(tmp_path, "clinique", DAY)
        found, verdicts = reasons_in(lines)
        assert "Change of schema: there is no date before to compare with" in lines
        assert verdicts["patients"] == (7, 3, 4) and verdicts["billing"][0] == 5
        assert found["patients", "unknown_gender"] == (1, "PAT_1.csv line 4")
        assert found["patients", "malformed_row"] == (1, "PAT_1.csv line 7")
        assert found["patients", "missing_gender"] == (1, "PAT_2.csv line 2")
        assert bronze_files.bronze_head(CATALOG["patients"], DAY) is None

        land(FILES, DAY)
        source_to_bronze(DAY)
        patients = FILES["PAT_1.csv"].replace(";X\r\n", ";X;NEUF\r\n", 1).replace(";\r\n", ";;\r\n")
        patients = patients.replace("QP2;7", "QP2;8")
        (tmp_path / "PAT_1.csv").write_bytes(patients.encode("windows-1252"))
        visits = FILES["SEJ_1.csv"].replace("MEDECIN", "MEDECINS", 1)
        (tmp_path / "SEJ_1.csv").write_bytes(visits.encode("windows-1252"))
        lines = []
        from jobs import preview as previews

        with pytest.raises(Refused, match=r"SEJ_1\.csv has no column 'MEDECIN'"):
            lines.extend(iter_into(lines, previews.preview(tmp_path, "clinique", later)))
        assert f"Change of schema since {DAY}:" in lines
        assert "  SEJ_*.csv: column 'MEDECIN' seems to be 'MEDECINS' now" in lines
        assert any("column 'NEUF' is new" in line for line in lines)
        assert any("column 'SEXE' has new codes in 1 rows" in line for line in lines)

        land(FILES | {"PAT_1.csv": patients}, later)
        told = f"since {DAY} PAT_*.csv: column 'NEUF' is new"
        assert f"warn: clinique {later}: {told}" in source_to_bronze(later).splitlines()
        [(sentence,)] = hospital.postgres.execute(
            "select sentence from reports.runs where partition_date = %s and sentence like 'files that no%%'", [later]
        ).fetchall()
        assert sentence == f"files that no dataset is made of stay behind: 'LISEZMOI.txt'; {told}"
    finally:
        for day in (DAY, later):
            assert call("-m", "pipelines", "forget", str(day)).returncode == 0
            shutil.rmtree(exports.folder(day, "clinique").parent, ignore_errors=True)


def iter_into(lines, told):
    """Keeps what is told before a refusal."""
    for line in told:
        print(line)
        lines.append(line)
    return []


def test_a_preview_says_which_source_it_needs(stack, declarations, tmp_path):  # noqa: F811
    from jobs import preview as previews

    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    done = call("-m", "jobs.preview", str(tmp_path), "--date", "2031-03-30")
    assert done.returncode == 1 and "name one as SOURCE, or draft it with `make profile`" in done.stdout
    with pytest.raises(Refused, match="is not a folder"):
        previews.source_of(tmp_path / "none", "")
    with pytest.raises(Refused, match="make profile FROM"):
        previews.source_of(tmp_path, "nobody")


@pytest.mark.parametrize("export", ["example", "synthea"])
def test_a_drafted_declaration_runs(export, hospital, declarations, tmp_path, monkeypatch):  # noqa: F811
    """Previews by a draft as it stands: nearly every record is accepted that our own five files would have accepted."""
    from dashboards import profile as command

    monkeypatch.setattr(command.pages, "home", lambda: tmp_path / "pages")
    files = tmp_path / "files"
    files.mkdir()
    if export == "synthea":
        synthea_like.write_export(files, patients=10)
        expected = {}
    else:
        own = tmp_path / "landing"
        generate(DAY, own, scale=0.01, start=DAY)
        example_export.write_export(DAY, own / folder(DAY), files)
        _, expected = reasons_in(preview(own / folder(DAY), day=DAY))
    list(command.make(files, "drafted"))
    _, verdicts = reasons_in(preview(files, "drafted", DAY))
    assert set(verdicts) == set(CATALOG)
    for name, (rows, accepted, _) in verdicts.items():
        at_least = 0.8 * rows if export == "synthea" else 0.95 * expected[name][1]
        assert rows > 0 and accepted >= at_least > 0, name
