"""Sources on the real stack: a hospital's own export ends in the same gold as the five files, or in one sentence."""

import csv
import os
import re
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from jobs import (
    bronze_files,
    delta_tables,
    derived_files,
    example_export,
    exports,
    object_store,
    program,
    raw,
    settings,
)
from jobs import source_to_bronze as source_to_bronze_job
from jobs.catalog import CATALOG
from jobs.generate import generate
from jobs.landing import folder
from jobs.source_to_bronze import source_to_bronze
from pipelines.tasks import Conversion
from tests.flow.test_flow import NOT_CONTENT, call

DAY = date(2031, 3, 30)  # in the night to it clocks were put forward
MARCH = """
doc: Export of a test
time_zone: Europe/Paris
encoding: windows-1252
separator: ";"
quote: '"'
decimal_mark: ","
dates: dd/MM/yyyy
timestamps: dd/MM/yyyy HH:mm[:ss]
nulls: ["", "NULL", "-"]
datasets:
  patients:
    files: PAT_*.csv
    columns:
      patient_id: N_DOSSIER
      gender: {from: SEXE, values: {"1": M, "2": F, "9": Unknown}}
      birth_date: DATE_NAISS
      city: VILLE
      registration_date: {from: DATE_CREA, as: timestamp}
  visits:
    files: SEJ_*.csv
    columns:
      visit_id: N_SEJOUR
      patient_id: N_DOSSIER
      visit_type: {from: TYPE, values: {C: Outpatient, U: Emergency, H: Inpatient}}
      department: UNITE
      doctor_id: MEDECIN
      visit_start_ts: {from: [JOUR, HEURE]}
      visit_end_ts: FIN
      status: {value: Completed}
  billing:
    sql: billing.sql
    tables: {claims: CLAIMS_*.csv, payments: PAY_*.csv}
"""
SQL = """
select c.NO as bill_id, c.SEJ as visit_id, c.TOTAL as total_amount, c.CAISSE as insurance_amount,
    c.RESTE as patient_amount, if(p.LE is null, 'Pending', 'Paid') as payment_status, p.LE as payment_ts
from claims c left join payments p on p.NO = c.NO
where c.ETAT <> 'ANNULE'
"""
FILES = {
    "PAT_1.csv": "N_DOSSIER;SEXE;DATE_NAISS;VILLE;DATE_CREA;X\r\n"
    'QP1;1;05/11/1980;"Orléans; ""nord""\r\nsud";29/03/2031 23:45;\r\n'
    "QP2;7;05/11/1980;-;29/03/2031 10:00:30;\r\n"
    "QP3;2;31/02/1980;Nîmes;29/03/2031 10:00;\r\n"
    "QP4;2;05/11/1980;Nîmes;2031-03-29;\r\n"
    "QP5;2;05/11/1980\r\n",
    "PAT_2.csv": "SEXE;N_DOSSIER;VILLE;DATE_CREA;DATE_NAISS\n"
    "NULL;QP6;Œuilly;01/01/2031 00:10;01/01/2000\n9;QP7;;01/01/2031 00:10;01/01/2000\n",
    "SEJ_1.csv": "N_SEJOUR;N_DOSSIER;TYPE;UNITE;MEDECIN;JOUR;HEURE;FIN\n"
    "QV1;QP1;U;Urgences;D1;30/03/2031;01:30;30/03/2031 04:00\n"
    "QV2;QP1;C;Urgences;D1;30/03/2031;02:30;30/03/2031 04:00\n"  # a local time that the clock skipped
    "QV3;QP7;H;Urgences;;27/10/2030;02:30;27/10/2030 03:30:15\n"  # a local time that occurred twice
    "QV4;QP7;H;Urgences;;2031-03-01;10:00;\n"
    "QV5;QP6;C;Urgences;;01/03/2031;10:00;01/03/2031 10:30+00:00\n",
    "CLAIMS_1.csv": "NO;SEJ;TOTAL;CAISSE;RESTE;ETAT\nQB1;QV1;1200,50;1000;200,50;OK\nQB2;QV1;1.200,50;;;OK\n"
    "QB3;QV3;1.200;;;OK\nQB4;QV3;12;;;ANNULE\nQB5;QV3;-12,00;;;OK\nQB6;QV3;12,00\n",
    "PAY_1.csv": "NO;LE\nQB1;30/03/2031 12:00\n",
    "LISEZMOI.txt": "bonjour",
}


@pytest.fixture
def declarations(tmp_path, monkeypatch):
    """Points SOURCES_DIR at a copy of the shipped declarations, with one more source."""
    place = tmp_path / "sources"
    shutil.copytree(settings.ROOT / "sources", place)
    (place / "clinique").mkdir()
    (place / "clinique.yml").write_text(MARCH)
    (place / "clinique" / "billing.sql").write_text(SQL)
    monkeypatch.setenv("SOURCES_DIR", str(place))
    return place


def land(files, day=DAY, source="clinique"):
    """Writes a source's files of a date."""
    place = exports.folder(day, source)
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / name).write_bytes(text if isinstance(text, bytes) else text.encode("windows-1252"))
    return place


@pytest.fixture
def clinique(stack, declarations, postgres):
    """Lands the export of one date; forgets the date afterwards."""
    yield land(FILES)
    assert call("-m", "pipelines", "forget", str(DAY)).returncode == 0
    shutil.rmtree(exports.folder(DAY, "clinique").parent)


ACCEPTED = {
    "patients": [
        ("QP1", "M", "1980-11-05", 'Orléans; "nord"\r\nsud', "2031-03-29"),
        ("QP4", "F", "1980-11-05", "Nîmes", "2031-03-29"),
        ("QP7", "Unknown", "2000-01-01", None, "2031-01-01"),
    ],
    "visits": [
        ("QV1", "QP1", "Emergency", "Urgences", "D1", "2031-03-30 00:30:00", "2031-03-30 02:00:00", "Completed"),
        ("QV3", "QP7", "Inpatient", "Urgences", None, "2030-10-27 00:30:00", "2030-10-27 02:30:15", "Completed"),
    ],
    "billing": [("QB1", "QV1", "1200.50", "1000.00", "200.50", "Paid", "2031-03-30 10:00:00")],
    "admissions": [],
    "treatments": [],
}
REJECTED = {
    "patients": ["malformed_row", "missing_gender", "unknown_gender", "unreadable_birth_date"],
    "visits": ["orphan_patient_id", "unreadable_visit_start_ts", "unreadable_visit_start_ts"],
    "billing": ["malformed_row", "negative_total_amount", "unreadable_total_amount", "unreadable_total_amount"],
}


def rejects(spark, dataset):
    """Returns the rejected rows of the date, with their codes and texts."""
    rows = delta_tables.silver(spark, CATALOG[dataset], "rejected")
    return rows.filter(rows["_partition_date"] == DAY).collect()


def test_an_export_by_its_declaration_becomes_gold_and_leads_back(clinique, postgres, spark, tmp_path, capsys):
    done = call("-m", "pipelines", "run", str(DAY))
    assert done.returncode == 0, done.stdout[-4000:]
    for name, expected in ACCEPTED.items():
        columns = ", ".join(f"{column}::text" for column in CATALOG[name].names)
        query = f"select {columns} from {name} where _partition_date = %s order by 1"
        assert postgres.execute(query, [DAY]).fetchall() == expected, name
    for name, codes in REJECTED.items():
        assert sorted(row["_reject_reason"] for row in rejects(spark, name)) == codes, name
    assert [row["visit_start_ts"] for row in rejects(spark, "visits") if row["visit_id"] == "QV2"] == [
        "30/03/2031 02:30"
    ]
    assert {row["gender"] for row in rejects(spark, "patients")} >= {"7"}, "an unknown code stays as it came"
    assert "QP5;2;05/11/1980" in [row["_raw"] for row in rejects(spark, "patients")]

    # Each raw file is in bronze as it came, and accounted for; nothing else is left in the lake.
    for path in clinique.iterdir():
        place = {"Bucket": settings.get("MINIO_BUCKET_BRONZE"), "Key": raw.key("clinique", DAY, path.name)}
        assert object_store.s3().get_object(**place)["Body"].read() == path.read_bytes()
    assert not [*raw.keys("MINIO_BUCKET_SILVER", raw.CONVERTING)]
    files = postgres.execute(
        "select file_name, bytes, records, datasets from ops.source_files where partition_date = %s order by 1", [DAY]
    )
    assert files.fetchall() == [
        (name, (clinique / name).stat().st_size, *known)
        for name, known in {
            "CLAIMS_1.csv": (6, "billing"),
            "LISEZMOI.txt": (None, ""),
            "PAT_1.csv": (5, "patients"),
            "PAT_2.csv": (2, "patients"),
            "PAY_1.csv": (1, "billing"),
            "SEJ_1.csv": (5, "visits"),
        }.items()
    ]
    rows = "select dataset, records, rows_made, left_out, doubled_times from ops.source_rows where partition_date = %s"
    assert {*postgres.execute(rows, [DAY]).fetchall()} == {
        ("patients", 7, 7, 0, 0),
        ("visits", 5, 5, 0, 1),
        ("billing", 7, 5, 1, 0),
        ("admissions", 0, 0, 0, 0),
        ("treatments", 0, 0, 0, 0),
    }
    assert "'LISEZMOI.txt'" in done.stdout and "1 left out by sources/clinique/billing.sql" in done.stdout
    assert not re.search("Orl|QP|QV|QB|1980", done.stdout), "no value of a row"

    # Looking back: the file and line, and the records in their own dialect.
    for key, place in {"QP2": "PAT_1.csv, line 4", "QP7": "PAT_2.csv, line 3", "QB3": "CLAIMS_1.csv, line 4"}.items():
        told = call("-m", "jobs.rejects", "why", KEY=key).stdout
        assert f"from s3a://healthcare-bronze/_sources/clinique/2031/03/30/{place}\n" in told, told
    told = call("-m", "jobs.rejects", "export", str(DAY), "--to", str(tmp_path / "out"))
    assert told.returncode == 0, told.stdout
    exported = (tmp_path / "out" / folder(DAY) / "clinique" / "patients" / "PAT_1.csv").read_bytes().decode("cp1252")
    header, *records = csv.reader(exported.splitlines(), delimiter=";")
    assert header == [*FILES["PAT_1.csv"].splitlines()[0].split(";"), "_reject_reason", "_reject_messages", "_record"]
    assert ["QP2", "7", "05/11/1980", "'-", "29/03/2031 10:00:30", ""] in [record[:6] for record in records]
    assert {record[6] for record in records} == {"unknown_gender", "unreadable_birth_date", "malformed_row"}
    assert "QP5;2;05/11/1980" in [record[8] for record in records]

    # Nothing is due; a corrected file restates the date, and so does another mapping.
    done = call("-m", "pipelines", "run", str(DAY))
    assert done.returncode == 0 and "rows of" not in done.stdout, done.stdout[-2000:]
    land({"PAT_1.csv": FILES["PAT_1.csv"].replace("QP2;7", "QP2;2")})
    done = call("-m", "pipelines", "run", str(DAY))
    assert done.returncode == 0, done.stdout[-4000:]
    assert postgres.execute("select gender, city from patients where patient_id = 'QP2'").fetchall() == [("F", None)]
    declaration = exports.sources.folder() / "clinique.yml"
    declaration.write_text(MARCH.replace('"9": Unknown', '"9": Other'))
    assert call("-m", "pipelines", "run", str(DAY)).returncode == 0
    assert postgres.execute("select gender from patients where patient_id = 'QP7'").fetchall() == [("Other",)]


def test_a_hospitals_own_export_ends_in_the_gold_of_the_five_files(stack, declarations, postgres, tmp_path):
    days = [date(2031, 10, 25), date(2031, 10, 26)]
    own = settings.path("LANDING_DIR")
    for day in days:
        generate(day, own, 0.02, 7, days[0])
    assert call("-m", "pipelines", "backfill", str(days[0]), str(days[-1])).returncode == 0
    by_files, rejected = own_state(postgres, days), reasons(postgres, days)
    assert len(rejected) > 20
    for day in reversed(days):
        assert call("-m", "pipelines", "forget", str(day)).returncode == 0
        shutil.move(own / folder(day), tmp_path / str(day))
        example_export.write_export(day, tmp_path / str(day), exports.folder(day, "example"))
    done = call("-m", "pipelines", "backfill", str(days[0]), str(days[-1]))
    assert done.returncode == 0, done.stdout[-4000:]
    by_source = own_state(postgres, days)
    assert {table for table in by_files if by_source[table] != by_files[table]} == set()
    assert reasons(postgres, days) == rejected
    for day in days:
        assert call("-m", "pipelines", "forget", str(day)).returncode == 0
        assert not [key for key in raw.keys("MINIO_BUCKET_BRONZE", raw.PREFIX) if folder(day) in key]
        shutil.rmtree(own / folder(day))


def own_state(postgres, days):
    """Returns the rows that dates have in gold, and those of the marts that are made of them alone, by table.

    Other tests' dates are in the same warehouse, and go on meanwhile.
    """
    since = days[0] - timedelta(800)  # a first date brings two years
    of_dates = f"_partition_date between '{days[0]}' and '{days[-1]}'"
    where = dict.fromkeys(CATALOG, of_dates) | {
        "mart_daily_kpis": f"kpi_date between '{since}' and '{days[-1]}'",
        "mart_department_stats": f"stat_date between '{since}' and '{days[-1]}'",
        "mart_patient_stats": f"patient_id in (select patient_id from patients where {of_dates})",
    }
    found = {}
    for table, condition in where.items():
        columns = postgres.execute(f"select * from {table} limit 0").description
        names = ", ".join(column.name for column in columns if column.name not in NOT_CONTENT)
        found[table] = sorted(map(repr, postgres.execute(f"select {names} from {table} where {condition}")))
    return found


def reasons(postgres, days):
    """Returns (dataset, date, reason, number of rejected rows)."""
    query = (
        "select dataset, partition_date, reason, hits from ops.standing join ops.reasons using (run_id, dataset, "
        "partition_date) where hits > 0 and partition_date = any(%s)"
    )
    return {*postgres.execute(query, [days]).fetchall()}


WRONG_SQL = {
    "SQL that is none": ("selec 1", "sources/clinique/billing.sql line 1: it is not Spark SQL"),
    "a column that is not there": (
        "select\n  NIX from claims",
        "sources/clinique/billing.sql line 2: it names a column",
    ),
    "a table that is not there": ("select * from nix", "sources/clinique/billing.sql line 1: it names a table"),
    "other columns": (
        SQL.replace("as bill_id", "as bill_no"),
        "returns 'bill_no', which billing does not have and lacks",
    ),
    "a value that fails": (
        SQL.replace("c.TOTAL as", "cast(c.TOTAL as int) as"),
        "sources/clinique/billing.sql: it fails",
    ),
}


@pytest.fixture
def in_process(clinique, spark, monkeypatch):
    monkeypatch.setenv("SPARK_REMOTE", f"sc://127.0.0.1:{settings.get('SPARK_CONNECT_PORT')}")
    return clinique


def converts():
    """Returns the sentence with which the conversion of the date fails."""
    with pytest.raises(Exception) as error:
        source_to_bronze(DAY)
    return program.sentence(error.value)


def test_what_is_wrong_is_one_sentence_and_nothing_half_published(in_process, postgres, monkeypatch):
    query = exports.sources.folder() / "clinique" / "billing.sql"
    for name, (text, sentence) in WRONG_SQL.items():
        query.write_text(text)
        told = converts()
        assert sentence in told and "1.200" not in told and "QB" not in told, (name, told)
    query.write_text(SQL)
    for file in in_process.iterdir():  # other bytes than those that lie in bronze by now
        with file.open("ab") as opened:
            opened.write(b"\n")
    real = raw.upload

    def upload_and_change(path, *others):
        with path.open("ab") as file:
            file.write(b"QP9;1\n")
        real(path, *others)

    monkeypatch.setattr(raw, "upload", upload_and_change)
    assert re.match("2031/03/30/clinique/.* changed while it was read;", converts())
    monkeypatch.setattr(raw, "upload", real)
    land(FILES)

    def dies(*_):
        raise RuntimeError("as a process that is killed")

    for module, boundary in ((source_to_bronze_job, "derive"), (derived_files, "publish")):
        with monkeypatch.context() as patch:
            patch.setattr(module, boundary, dies)
            converts()
        assert not any(bronze_files.bronze_head(dataset, DAY) for dataset in CATALOG.values()), "nothing half published"
        assert not Conversion(date=DAY).complete()
    assert not [*raw.keys("MINIO_BUCKET_SILVER", raw.CONVERTING)]
    failed = "select distinct layer, outcome from ops.ledger where partition_date = %s and error is not null"
    assert postgres.execute(failed, [DAY]).fetchall() == [("source", "failed")]
    with monkeypatch.context() as patch:
        patch.setattr(bronze_files, "upload", dies_after(2, bronze_files.upload))
        converts()
    assert sum(bronze_files.bronze_head(dataset, DAY) is not None for dataset in CATALOG.values()) == 2
    assert not Conversion(date=DAY).complete(), "what came to lie there counts for nothing"
    assert source_to_bronze(DAY).count("bronze ") == len(CATALOG)
    assert Conversion(date=DAY).made_in()


def dies_after(count, function):
    """Returns the function, which raises an error from the call after the first `count` calls on."""
    calls = []

    def call_or_die(*arguments):
        calls.append(arguments)
        if len(calls) > count:
            raise RuntimeError("as a process that is killed")
        return function(*arguments)

    return call_or_die


def test_a_job_by_hand_converts_a_date(clinique):
    command = [Path(sys.executable).parent / "spark-submit", "jobs/source_to_bronze.py", "clinique", str(DAY)]
    done = subprocess.run(command, cwd=settings.ROOT, env=os.environ, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert f"bronze patients {DAY}: 7 rows of 7 records in 'PAT_1.csv' and 'PAT_2.csv'" in done.stdout
