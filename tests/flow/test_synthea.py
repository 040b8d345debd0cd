"""Synthea's export by its shipped declaration: what is in gold and in the marts is what its own files say."""

import csv
import shutil
from collections import Counter
from datetime import date, datetime
from decimal import Decimal

import pytest

from jobs import exports, synthea_export
from tests.flow.test_flow import call

DAY = date(2033, 4, 2)
OVERNIGHT = ("inpatient", "snf", "hospice")
# Of a mart what it has of the sample's patients: other tests' dates are in the same warehouse.
OURS = "patient_id in (select patient_id from patients where _partition_date = %(day)s)"


@pytest.fixture(scope="module")
def sample(stack):
    """Yields the rows of each of the sample's files after their date has run; forgets the date afterwards."""
    synthea_export.main([str(DAY)])
    folder = exports.folder(DAY, "synthea")
    done = call("-m", "pipelines", "run", str(DAY))
    assert done.returncode == 0, done.stdout[-4000:]
    yield {path.stem: list(csv.DictReader(path.open(newline=""))) for path in folder.iterdir()}
    assert call("-m", "pipelines", "forget", str(DAY)).returncode == 0
    shutil.rmtree(folder.parent)


def row(postgres, query):
    """Returns the only row of a query."""
    return postgres.execute(query, {"day": DAY}).fetchone()


def of_day(postgres, columns, table, more=""):
    return row(postgres, f"select {columns} from {table} where _partition_date = %(day)s {more}")


def utc(text):
    """Returns one of Synthea's times as gold stores it."""
    return datetime.fromisoformat(text.replace("Z", ""))


def test_every_record_of_the_sample_is_in_gold(sample, postgres):
    encounters = {"Outpatient": 0, "Emergency": 0, "Inpatient": 0}
    for encounter in sample["encounters"]:
        kind = encounter["ENCOUNTERCLASS"]
        encounters["Inpatient" if kind in OVERNIGHT else "Emergency" if kind == "emergency" else "Outpatient"] += 1
    for kind, count in encounters.items():
        assert of_day(postgres, "count(*)", "visits", f"and visit_type = '{kind}'") == (count,), kind
    expected = {
        "patients": len(sample["patients"]),
        "visits": len(sample["encounters"]),
        "admissions": encounters["Inpatient"],
        "treatments": len(sample["procedures"]),
        "billing": len(sample["claims"]),
    }
    assert all(expected.values())
    assert {name: of_day(postgres, "count(*)", name)[0] for name in expected} == expected
    ledger = "select sum(rejected) from ops.standing where partition_date = %(day)s"
    assert row(postgres, ledger) == (0,), "nothing is rejected"


def test_patients_and_stays_are_those_of_the_encounters(sample, postgres):
    started = {}
    for encounter in sample["encounters"]:
        started.setdefault(encounter["PATIENT"], []).append(encounter["START"])
    first = min(map(min, started.values()))
    gold = postgres.execute(
        "select patient_id, gender, birth_date::text, city, registration_date::text from patients "
        "where _partition_date = %s",
        [DAY],
    ).fetchall()
    assert {*gold} == {
        (each["Id"], each["GENDER"], each["BIRTHDATE"], each["CITY"], min(started.get(each["Id"], [first]))[:10])
        for each in sample["patients"]
    }
    stays = [each for each in sample["encounters"] if each["ENCOUNTERCLASS"] in OVERNIGHT]
    seconds = sum((utc(each["STOP"]) - utc(each["START"])).total_seconds() for each in stays)
    length = "count(distinct visit_id), sum(extract(epoch from discharge_ts - admit_ts))"
    assert of_day(postgres, length, "admissions") == (len(stays), Decimal(seconds))
    classes = Counter(each["ENCOUNTERCLASS"] for each in sample["encounters"])
    assert of_day(postgres, "count(*)", "visits", "and department = 'Wellness'") == (classes["wellness"],)
    assert of_day(postgres, "count(distinct doctor_id)", "visits") == (
        len({each["PROVIDER"] for each in sample["encounters"]}),
    )


def test_sums_are_those_of_procedures_and_of_the_payments_of_claims(sample, postgres):
    """Compares with the payments: insurers alone pay by ECHECK. The declaration goes by what is owed."""
    costs = [Decimal(each["BASE_COST"]) for each in sample["procedures"]]
    assert of_day(postgres, "sum(treatment_cost)", "treatments") == (sum(costs),)
    paid = Counter()
    for each in sample["claims_transactions"]:
        if each["TYPE"] == "CHARGE":
            paid["charged"] += Decimal(each["AMOUNT"])
        elif each["TYPE"] == "PAYMENT":
            paid["insurers" if each["METHOD"] == "ECHECK" else "patients"] += Decimal(each["PAYMENTS"])
    assert paid["charged"] == paid["insurers"] + paid["patients"] > 0
    sums = "sum(total_amount), sum(insurance_amount), sum(patient_amount)"
    assert of_day(postgres, sums, "billing") == (paid["charged"], paid["insurers"], paid["patients"])
    closed = [c for c in sample["claims"] if {c["STATUS1"], c["STATUS2"], c["STATUSP"]} <= {"CLOSED", ""}]
    states = "count(*) filter (where payment_status = 'Paid'), count(payment_ts)"
    assert of_day(postgres, states, "billing") == (len(closed), len(closed))
    before = "select count(*) from billing join visits using (visit_id) where payment_ts < visit_start_ts"
    assert row(postgres, f"{before} and billing._partition_date = %(day)s") == (0,), "none is paid before it is due"


def test_the_marts_add_up_to_the_sample(sample, postgres):
    """Relies on the run, which fails if a check of the marts fails."""
    charged = sum(Decimal(each["AMOUNT"]) for each in sample["claims_transactions"] if each["TYPE"] == "CHARGE")
    sums = "count(*), sum(total_visits), sum(total_billed)"
    totals = row(postgres, f"select {sums} from mart_patient_stats where {OURS}")
    assert totals == (len(sample["patients"]), len(sample["encounters"]), charged)
    stays = [each for each in sample["encounters"] if each["ENCOUNTERCLASS"] in OVERNIGHT]
    assert row(postgres, f"select count(*) from mart_episode_stays where {OURS}") == (len(stays),)


def test_the_story_of_a_row_leads_to_synthea_s_line(sample):
    treatment = sample["procedures"][4]
    told = call("-m", "jobs.rejects", "why", KEY=f"{treatment['ENCOUNTER']} {treatment['CODE']} {treatment['START']}")
    assert f"from s3a://healthcare-bronze/_sources/synthea/{DAY:%Y/%m/%d}/procedures.csv, line 6\n" in told.stdout
    told = call("-m", "jobs.rejects", "why", KEY=sample["claims"][2]["Id"])
    assert f"/synthea/{DAY:%Y/%m/%d}/claims.csv, line 4\n" in told.stdout
