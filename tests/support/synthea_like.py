"""Writes files with the columns of Synthea's CSV export, and values in its notation, for a few made-up patients."""

import csv
import uuid
from datetime import datetime, timedelta
from random import Random

HEADERS = {
    "patients": "Id,BIRTHDATE,DEATHDATE,SSN,DRIVERS,PASSPORT,PREFIX,FIRST,MIDDLE,LAST,SUFFIX,MAIDEN,MARITAL,RACE,"
    "ETHNICITY,GENDER,BIRTHPLACE,ADDRESS,CITY,STATE,COUNTY,FIPS,ZIP,LAT,LON,HEALTHCARE_EXPENSES,HEALTHCARE_COVERAGE,"
    "INCOME",
    "encounters": "Id,START,STOP,PATIENT,ORGANIZATION,PROVIDER,PAYER,ENCOUNTERCLASS,CODE,DESCRIPTION,"
    "BASE_ENCOUNTER_COST,TOTAL_CLAIM_COST,PAYER_COVERAGE,REASONCODE,REASONDESCRIPTION",
    "procedures": "START,STOP,PATIENT,ENCOUNTER,SYSTEM,CODE,DESCRIPTION,BASE_COST,REASONCODE,REASONDESCRIPTION",
    "claims": "Id,PATIENTID,PROVIDERID,PRIMARYPATIENTINSURANCEID,SECONDARYPATIENTINSURANCEID,DEPARTMENTID,"
    "PATIENTDEPARTMENTID,DIAGNOSIS1,DIAGNOSIS2,APPOINTMENTID,CURRENTILLNESSDATE,SERVICEDATE,SUPERVISINGPROVIDERID,"
    "STATUS1,STATUS2,STATUSP,OUTSTANDING1,OUTSTANDING2,OUTSTANDINGP",
    "claims_transactions": "ID,CLAIMID,CHARGEID,PATIENTID,TYPE,AMOUNT,METHOD,FROMDATE,TODATE,PLACEOFSERVICE,"
    "PROCEDURECODE,UNITS,DEPARTMENTID,NOTES,UNITAMOUNT,PAYMENTS,TRANSFERS,OUTSTANDING,APPOINTMENTID,PROVIDERID",
    "careplans": "Id,START,STOP,PATIENT,ENCOUNTER,CODE,DESCRIPTION,REASONCODE,REASONDESCRIPTION",
}
CLASSES = ("ambulatory", "wellness", "outpatient", "urgentcare", "emergency", "inpatient")
PROCEDURES = {430193006: "Medication Reconciliation (procedure)", 710824005: "Assessment of health (procedure)"}


def write_export(folder, patients=40, seed=7):
    """Writes the files into a folder."""
    random = Random(seed)
    rows = {name: [] for name in HEADERS}

    def ident():
        return str(uuid.UUID(int=random.getrandbits(128)))

    providers = [ident() for _ in range(8)]
    payers = [ident() for _ in range(4)]
    for number in range(patients):
        patient, born = ident(), datetime(1930 + number, 1 + number % 12, 1 + number % 28)
        names = {"FIRST": f"Given{number}", "LAST": f"Family{number}", "SSN": f"999-00-{number:04}"}
        rows["patients"].append(
            {"Id": patient, "BIRTHDATE": f"{born:%Y-%m-%d}", "GENDER": "FM"[number % 2], "CITY": f"Town{number % 9}"}
            | {"MARITAL": "MS"[number % 2], "ZIP": f"{1000 + number:05}", "LAT": f"{42 + number / 100:.6f}", **names}
        )
        for turn in range(12):
            encounter, provider = ident(), random.choice(providers)
            start = datetime(2024, 1, 1) + timedelta(minutes=random.randrange(700_000))
            stop, cost = start + timedelta(hours=1 + turn % 5), random.randrange(8_000, 90_000) / 100
            rows["encounters"].append(
                {"Id": encounter, "START": moment(start), "STOP": moment(stop), "PATIENT": patient, "CODE": 185349003}
                | {"PROVIDER": provider, "PAYER": random.choice(payers), "ENCOUNTERCLASS": CLASSES[turn % len(CLASSES)]}
                | {"BASE_ENCOUNTER_COST": "85.55", "TOTAL_CLAIM_COST": f"{cost:.2f}"}
                | {"PAYER_COVERAGE": f"{cost * 0.8:.2f}", "DESCRIPTION": "Encounter for check up (procedure)"}
            )
            for at, (code, text) in enumerate(PROCEDURES.items()):
                begun = start + timedelta(minutes=5 * at)
                rows["procedures"].append(
                    {"START": moment(begun), "STOP": moment(stop), "PATIENT": patient, "ENCOUNTER": encounter}
                    | {"SYSTEM": "SNOMED-CT", "CODE": code, "DESCRIPTION": text}
                    | {"BASE_COST": f"{random.randrange(1_000, 99_900) / 100:.2f}"}
                )
            for _ in range(1 + turn % 2):
                claim = ident()
                rows["claims"].append(
                    {"Id": claim, "PATIENTID": patient, "PROVIDERID": provider, "APPOINTMENTID": encounter}
                    | {"DEPARTMENTID": 1 + turn, "SERVICEDATE": moment(start), "STATUS1": "CLOSED", "STATUSP": "CLOSED"}
                    | {"OUTSTANDING1": 0, "OUTSTANDINGP": 0, "DIAGNOSIS1": 314529007}
                )
                for kind in ("CHARGE", "PAYMENT", "TRANSFERIN", "TRANSFEROUT"):
                    rows["claims_transactions"].append(
                        {"ID": ident(), "CLAIMID": claim, "PATIENTID": patient, "TYPE": kind, "AMOUNT": f"{cost:.2f}"}
                        | {"FROMDATE": moment(start), "TODATE": moment(stop), "APPOINTMENTID": encounter}
                        | {"UNITAMOUNT": f"{cost:.2f}", "OUTSTANDING": "0.00", "PROVIDERID": provider}
                    )
        rows["careplans"].append(
            {"Id": ident(), "START": f"{start:%Y-%m-%d}", "PATIENT": patient, "ENCOUNTER": encounter, "CODE": 47387005}
        )
    for name, header in HEADERS.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, header.split(","), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[name])


def moment(time):
    """Returns a time as Synthea writes it."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
