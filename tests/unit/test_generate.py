"""Checks the generator: above all, that its manifest names exactly the rows that the contract rejects, and why.

The contract is implemented here a second time, row by row in plain Python, without code of the generator or the jobs.
"""

import csv
import datetime
import io
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import pytest

from jobs import settings
from jobs.catalog import CATALOG
from jobs.generate import generate, main
from tests.flow import test_datasets

START = datetime.date(2026, 1, 1)
VOLUMES = {"patients": 5000, "visits": 15000, "admissions": 3000, "treatments": 25000, "billing": 13000}


def days(count: int) -> list[datetime.date]:
    return [START + datetime.timedelta(days=i) for i in range(count)]


# --- the contract, implemented a second time --------------------------------------------------------------------

UTC = datetime.timezone.utc
TIMESTAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?(?:Z|([+-])(\d\d):(\d\d))?")
# column -> (type or listed values, is it required); the first column is the key
Contract = dict[str, dict[str, tuple[object, bool]]]
COLUMNS: Contract = {
    "patients": {
        "patient_id": ("text", True),
        "gender": (("M", "F", "Other", "Unknown"), True),
        "birth_date": ("date", True),
        "city": ("text", False),
        "registration_date": ("date", True),
    },
    "visits": {
        "visit_id": ("text", True),
        "patient_id": ("patients", True),
        "visit_type": (("Outpatient", "Emergency", "Inpatient"), True),
        "department": ("text", True),
        "doctor_id": ("text", False),
        "visit_start_ts": ("timestamp", True),
        "visit_end_ts": ("timestamp", False),
        "status": (("Completed", "Cancelled", "No-show"), True),
    },
    "admissions": {
        "admission_id": ("text", True),
        "visit_id": ("visits", True),
        "admit_ts": ("timestamp", True),
        "discharge_ts": ("timestamp", False),
        "room_type": (("General Ward", "Semi-Private", "Private", "ICU", "CCU"), True),
    },
    "treatments": {
        "treatment_id": ("text", True),
        "visit_id": ("visits", True),
        "treatment_code": ("text", True),
        "treatment_name": ("text", False),
        "treatment_cost": ("decimal", True),
        "performed_ts": ("timestamp", True),
    },
    "billing": {
        "bill_id": ("text", True),
        "visit_id": ("visits", True),
        "total_amount": ("decimal", True),
        "insurance_amount": ("decimal", False),
        "patient_amount": ("decimal", False),
        "payment_status": (("Paid", "Pending", "Partial"), True),
        "payment_ts": ("timestamp", False),
    },
}
# Datasets that only these tests know.
FURTHER: Contract = {
    "lab_results": {
        "result_id": ("text", True),
        "visit_id": ("visits", True),
        "analyte": ("text", True),
        "result_value": ("decimal", False),
        "resulted_ts": ("timestamp", True),
    },
    "allergies": {
        "allergy_id": ("text", True),
        "patient_id": ("patients", True),
        "substance": ("text", True),
    },
    "bed_closures": {
        "closure_id": ("text", True),
        "ward": ("text", True),
        "closed_on": ("date", True),
        "reopened_on": ("date", False),
    },
    "specimens": {
        "specimen_id": ("text", True),
        "result_id": ("lab_results", True),
        "patient_id": ("patients", False),
        "kind": (("Blood, venous", "Urine"), True),
        "volume_ml": ("decimal", True),
        "used_ml": ("decimal", False),
        "taken_ts": ("timestamp", True),
        "received_ts": ("timestamp", False),
        "label": ("text", False),
        "barcode": ("text", True),
    },
    "triage": {  # its key is the visit's
        "visit_id": ("visits", True),
        "stay_id": ("admissions", False),
        "level": (("Red", "Green"), True),
    },
    "consents": {  # its key is the patient's
        "patient_id": ("patients", True),
        "given_on": ("date", True),
        "withdrawn_on": ("date", False),
    },
}
# reason -> (columns, does the row break the rule, given their values); applies only if all columns were readable
Rules = dict[str, dict[str, tuple[tuple[str, ...], Callable[..., object]]]]
RULES: Rules = {
    "patients": {
        "birth_after_registration": (("birth_date", "registration_date"), lambda b, r: b and r and b > r),
    },
    "visits": {
        "visit_end_not_after_start": (("visit_start_ts", "visit_end_ts"), lambda s, e: s and e and e <= s),
    },
    "admissions": {"discharge_not_after_admit": (("admit_ts", "discharge_ts"), lambda a, d: a and d and d <= a)},
    "treatments": {"negative_treatment_cost": (("treatment_cost",), lambda c: c is not None and c < 0)},
    "billing": {
        "negative_total_amount": (("total_amount",), lambda t: t is not None and t < 0),
        "negative_patient_amount": (("patient_amount",), lambda p: p is not None and p < 0),
        "insurance_exceeds_total": (
            ("insurance_amount", "total_amount"),
            lambda i, t: i is not None and t is not None and i > t,
        ),
        "paid_without_payment_ts": (("payment_status", "payment_ts"), lambda s, t: s == "Paid" and t is None),
    },
}
FURTHER_RULES: Rules = {
    "lab_results": {"negative_result_value": (("result_value",), lambda v: v is not None and v < 0)},
    "bed_closures": {"reopened_before_closed": (("closed_on", "reopened_on"), lambda c, r: c and r and r < c)},
    "specimens": {
        "used_exceeds_volume": (("used_ml", "volume_ml"), lambda u, v: u is not None and v is not None and u > v),
        "received_before_taken": (("taken_ts", "received_ts"), lambda t, r: t and r and r <= t),
        "blood_without_label": (("kind", "label"), lambda k, label: k == "Blood, venous" and label is None),
        "barcode_of_another_kind": (("barcode",), lambda b: b and not re.fullmatch("BC-[0-9]+", b)),
    },
    "consents": {"withdrawn_before_given": (("given_on", "withdrawn_on"), lambda g, w: g and w and w < g)},
}


def read(kind: object, value: str) -> object:
    """Returns a typed value; raises ValueError if it is not of its type, LookupError if it is not listed."""
    if isinstance(kind, tuple):
        return {listed.lower(): listed for listed in kind}[value.lower()]
    if kind == "date":
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            raise ValueError
        return datetime.date.fromisoformat(value)
    if kind == "timestamp":
        match = TIMESTAMP.fullmatch(value)
        if not match:
            raise ValueError
        *parts, fraction, sign, hours, minutes = match.groups()
        ahead = datetime.timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
        year, month, day, hour, minute, second = (int(part or 0) for part in parts)
        micros = int((fraction or "0").ljust(6, "0"))
        return datetime.datetime(year, month, day, hour, minute, second, micros, UTC) - ahead
    if kind == "decimal":
        if not re.fullmatch(r"[+-]?\d+(\.\d+)?", value):
            raise ValueError
        amount = Decimal(value).quantize(Decimal("0.01"), ROUND_HALF_UP)
        if abs(amount) >= 10**10:
            raise ValueError
        return amount
    return value


class Row(NamedTuple):
    """Holds a data record: its line number, and its values by name, or None if it is malformed."""

    number: int
    values: dict[str, str] | None


def rows_of(path: Path) -> Iterator[Row]:
    text = path.read_bytes().decode("utf-8-sig").replace("\0", "\ue000")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = next(reader)
    number = 0
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:  # a quote left open up to the end of the file
            fields = ["\ue000"]
        if not fields:
            continue
        number += 1
        sound = len(fields) == len(header) and "\ue000" not in "".join(fields)
        yield Row(number, dict(zip(header, (f.strip() for f in fields), strict=True)) if sound else None)


def validate(name: str, row: Row, parents: dict[str, set[str]], contract: Contract, rules: Rules) -> list[str]:
    """Returns the reason codes of a row, except duplicates."""
    if row.values is None:
        return ["malformed_row"]
    codes, values = [], {}
    for column, (kind, required) in contract[name].items():
        text = row.values[column]
        try:
            values[column] = read(kind, text) if text else None
        except LookupError:
            codes.append(f"unknown_{column}")
            values[column] = text
        except ValueError:
            codes.append(f"unreadable_{column}")
        if required and not text:
            codes.append(f"missing_{column}")
        if kind in contract and text and text not in parents[str(kind)]:
            codes.append(f"orphan_{column}")
    for reason, (columns, breaks) in rules.get(name, {}).items():
        if values.keys() >= set(columns) and breaks(*(values[column] for column in columns)):
            codes.append(reason)
    return codes


Found = Counter[tuple[datetime.date, str, str, str, str]]  # date, dataset, key, row, reasons


def rejects(landing: Path, dates: Sequence[datetime.date], contract: Contract = COLUMNS, rules: Rules = RULES) -> Found:
    """Returns all rejected rows of these dates, validated against the parents accepted in all of them."""
    found: Found = Counter()
    accepted: dict[str, set[str]] = {}
    for name in contract:
        key = next(iter(contract[name]))
        accepted[name] = set()
        for date in dates:
            if name in FURTHER and not (folder(landing, date) / f"{name}.csv").exists():  # before its `since`
                continue
            copies: Counter[str] = Counter()
            for row in rows_of(folder(landing, date) / f"{name}.csv"):
                key_text = row.values[key] if row.values else ""
                codes = validate(name, row, accepted, contract, rules)
                if codes:
                    found[date, name, key_text, str(row.number), ";".join(codes)] += 1
                else:
                    copies[key_text] += 1
            for key_text in copies - Counter(copies.keys()):
                found[date, name, key_text, "", f"duplicate_{key}"] += copies[key_text] - 1
            accepted[name] |= copies.keys()
    return found


def manifest(landing: Path, date: datetime.date) -> list[dict[str, str]]:
    with (folder(landing, date) / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def expected(landing: Path, dates: Sequence[datetime.date]) -> Found:
    """Returns the rows that the manifests expect to be rejected once these dates have landed."""
    return Counter(
        (date, row["dataset"], row["key"], row["row"], row["reasons"])
        for date in dates
        for row in manifest(landing, date)
        if not row["resolved_on"] or row["resolved_on"] > str(dates[-1])
    )


def folder(landing: Path, date: datetime.date) -> Path:
    return landing / f"{date:%Y/%m/%d}"


def contents(landing: Path, date: datetime.date) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder(landing, date).iterdir()}


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generates seven dates of the default hospital."""
    directory = tmp_path_factory.mktemp("landing")
    for date in days(7):
        generate(date, directory)
    return directory


@pytest.fixture(scope="module")
def history(landing: Path) -> dict[str, list[dict[str, str]]]:
    """Returns the accepted rows of START by dataset."""
    bad = {(row["dataset"], row["row"]) for row in manifest(landing, START)}
    return {
        name: [
            row.values
            for row in rows_of(folder(landing, START) / f"{name}.csv")
            if row.values and (name, str(row.number)) not in bad
        ]
        for name in COLUMNS
    }


# --- the manifest -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", (1, 2, 7))
def test_the_manifest_names_exactly_the_rows_that_the_contract_rejects(landing: Path, count: int) -> None:
    assert rejects(landing, days(count)) == expected(landing, days(count))


@pytest.mark.parametrize("seed", (1, 2))
def test_so_it_does_for_another_hospital_over_two_months(tmp_path: Path, seed: int) -> None:
    for date in days(60):
        generate(date, tmp_path, scale=0.1, seed=seed)
    assert rejects(tmp_path, days(60)) == expected(tmp_path, days(60))


@pytest.mark.parametrize("seed", (0, 1, 42, -7, 2**70))
def test_every_reason_of_every_dataset_occurs_on_start(tmp_path: Path, seed: int) -> None:
    generate(START, tmp_path, seed=seed)
    found = Counter((row["dataset"], code) for row in manifest(tmp_path, START) for code in row["reasons"].split(";"))
    assert {
        (name, code): found[name, code] for name in CATALOG for code in CATALOG[name].reasons if found[name, code] < 3
    } == {}


def test_a_few_rows_in_a_hundred_are_rejected(landing: Path) -> None:
    for dates in (days(1), days(7)[1:]):
        rows = sum(1 for date in dates for name in COLUMNS for _ in rows_of(folder(landing, date) / f"{name}.csv"))
        assert 0.015 < sum(len(manifest(landing, date)) for date in dates) / rows < 0.06


def test_children_arrive_before_their_parents_and_are_resolved_the_next_day(landing: Path) -> None:
    late = [(date, row) for date in days(7) for row in manifest(landing, date) if row["resolved_on"]]
    assert {row["reasons"] for _, row in late} == {"orphan_patient_id", "orphan_visit_id"}
    assert all(row["resolved_on"] == str(date + datetime.timedelta(days=1)) for date, row in late)
    assert {date for date, _ in late} >= {days(7)[0], days(7)[3], days(7)[6]}, "every third date has some"


# --- the files ----------------------------------------------------------------------------------------------


def test_the_same_seed_writes_the_same_bytes_in_any_order_of_dates(landing: Path, tmp_path: Path) -> None:
    for date in (days(7)[5], START, days(7)[1]):
        generate(date, tmp_path)
        assert contents(tmp_path, date) == contents(landing, date)


def test_another_seed_is_another_hospital(landing: Path, tmp_path: Path) -> None:
    generate(START, tmp_path, seed=43)
    ours, theirs = contents(landing, START), contents(tmp_path, START)
    assert all(ours[name] != theirs[name] for name in ours)


def test_start_holds_the_volumes_and_each_later_date_about_a_730th(landing: Path) -> None:
    """Allows for datasets whose rows are sent twice, when they begin and when they end: half as much again, or more."""
    for name, volume in VOLUMES.items():
        counts = [sum(1 for _ in rows_of(folder(landing, date) / f"{name}.csv")) for date in days(7)]
        assert 0.96 < counts[0] / volume < 1.04, name
        assert 0.5 < mean(counts[1:]) / volume * 730 < 3.5, name
        assert all(0.2 < count / volume * 730 < 7 for count in counts[1:]), name


def test_nothing_but_the_five_files_and_the_manifest_is_left(landing: Path) -> None:
    assert all(
        contents(landing, date).keys() == {*(f"{name}.csv" for name in CATALOG), "manifest.csv"} for date in days(7)
    )


def test_the_header_has_the_declared_columns(tmp_path: Path, landing: Path) -> None:
    for date in days(40):
        if date != START:
            generate(date, tmp_path)
    paths = [*folder(landing, START).glob("*.csv"), *tmp_path.rglob("*.csv")]
    files = [(CATALOG[p.stem].names, p.read_bytes()) for p in paths if p.stem in CATALOG]
    headers = [(names, data.decode("utf-8-sig").splitlines()[0].split(",")) for names, data in files]
    assert all(set(header) - {"note"} == set(names) and len(set(header)) == len(header) for names, header in headers)
    # Variations of later files that must be readable nevertheless.
    assert any("note" in header for _, header in headers)
    assert any(header[0] != names[0] for names, header in headers)
    assert any(data.startswith(b"\xef\xbb\xbf") for _, data in files)
    assert any(b"\r\n" in data.splitlines(keepends=True)[0] for _, data in files)
    assert any(b"\n\n" in data for _, data in files)
    assert any(data.count(b'"') % 2 for _, data in files)
    assert any(b'""annex"", east' in data for _, data in files)


def test_start_is_plain_enough_to_be_split_by_line(landing: Path) -> None:
    for name in COLUMNS:
        data = (folder(landing, START) / f"{name}.csv").read_bytes()
        rows = sum(1 for _ in rows_of(folder(landing, START) / f"{name}.csv"))
        assert data.count(b"\n") == len(data.decode().split("\n")) - 1 == rows + 1
        assert data.decode().splitlines()[0] == ",".join(CATALOG[name].names)


# --- the hospital -------------------------------------------------------------------------------------------


def start_of(visit: dict[str, str]) -> datetime.datetime:
    return datetime.datetime.fromisoformat(visit["visit_start_ts"])


def test_weekdays_are_busy_and_weekends_quiet(history: dict[str, list[dict[str, str]]]) -> None:
    weekdays = Counter(start_of(visit).weekday() for visit in history["visits"])
    assert min(weekdays[day] for day in range(5)) > 1.2 * max(weekdays[5], weekdays[6])


def test_winter_is_busier_than_summer(history: dict[str, list[dict[str, str]]]) -> None:
    months = Counter(start_of(visit).month for visit in history["visits"])
    assert months[1] + months[2] + months[12] > 1.1 * (months[6] + months[7] + months[8])


def test_emergencies_come_at_night_and_outpatients_by_day(history: dict[str, list[dict[str, str]]]) -> None:
    at_night = defaultdict(list)
    for visit in history["visits"]:
        at_night[visit["visit_type"]].append(not 6 <= start_of(visit).hour < 22)
    assert mean(at_night["Outpatient"]) < 0.01 < 0.2 < mean(at_night["Emergency"])


def test_the_stay_is_longer_in_intensive_care(history: dict[str, list[dict[str, str]]]) -> None:
    nights = defaultdict(list)
    for stay in history["admissions"]:
        if stay["discharge_ts"]:
            admit, discharge = (datetime.datetime.fromisoformat(stay[c]) for c in ("admit_ts", "discharge_ts"))
            nights[stay["room_type"]].append((discharge - admit).days)
    assert mean(nights["ICU"]) > 1.3 * mean(nights["General Ward"])
    assert 2 < mean(nights["General Ward"]) < 8


def test_patients_return_and_none_comes_before_registering(history: dict[str, list[dict[str, str]]]) -> None:
    visits_of = Counter(visit["patient_id"] for visit in history["visits"])
    assert 0.5 < sum(count > 1 for count in visits_of.values()) / len(visits_of) < 0.9
    registered = {patient["patient_id"]: patient["registration_date"] for patient in history["patients"]}
    assert all(registered[visit["patient_id"]] <= visit["visit_start_ts"][:10] for visit in history["visits"])


def test_what_is_billed_adds_up(history: dict[str, list[dict[str, str]]]) -> None:
    spent: dict[str, Decimal] = defaultdict(Decimal)
    for treatment in {treatment["treatment_id"]: treatment for treatment in history["treatments"]}.values():
        spent[treatment["visit_id"]] += Decimal(treatment["treatment_cost"])
    for bill in history["billing"]:
        total = Decimal(bill["total_amount"])
        assert total >= spent[bill["visit_id"]]
        if bill["patient_amount"] not in ("", "0.00"):  # a changed duplicate may have these values
            assert total == Decimal(bill["insurance_amount"] or 0) + Decimal(bill["patient_amount"])


def test_later_dates_send_earlier_rows_again_as_the_patient_leaves_or_pays(landing: Path) -> None:
    sent: dict[str, dict[str, str]] = {}
    again: Counter[str] = Counter()
    for date in days(7):
        bad = {row["key"] for row in manifest(landing, date)}
        for name, key, end in (
            ("visits", "visit_id", "visit_end_ts"),
            ("admissions", "admission_id", "discharge_ts"),
            ("billing", "bill_id", "payment_ts"),
        ):
            for row in rows_of(folder(landing, date) / f"{name}.csv"):
                if not row.values or row.values[key] in bad or not row.values[key]:
                    continue
                earlier = sent.get(row.values[key])
                if earlier and date != START:
                    again[name] += 1
                    assert (earlier[end], bool(row.values[end])) == ("", True)
                sent[row.values[key]] = row.values
    assert all(again[name] > 10 for name in ("visits", "admissions", "billing"))


def test_a_row_speaks_of_nothing_later_than_its_file(landing: Path) -> None:
    for date in days(7):
        orphans = ("orphan_patient_id", "orphan_visit_id")  # the only defect of such a row
        bad = {(row["dataset"], row["row"]) for row in manifest(landing, date) if row["reasons"] not in orphans}
        for name in COLUMNS:
            for row in rows_of(folder(landing, date) / f"{name}.csv"):
                if row.values and (name, str(row.number)) not in bad:
                    kinds = ((column, kind) for column, (kind, _) in COLUMNS[name].items() if row.values[column])
                    moments = [read(kind, row.values[c]) for c, kind in kinds if kind in ("date", "timestamp")]
                    assert all(str(moment)[:10] <= str(date) for moment in moments)


# --- further datasets ---------------------------------------------------------------------------------------

SPECIMENS = """from jobs.dataset import Column, Dataset, Rule

specimens = Dataset(
    name="specimens",
    doc="One row per specimen that a result was obtained from.",
    columns=(
        Column("specimen_id", required=True, example="SP00000001"),
        Column("result_id", required=True, references="lab_results"),
        Column("patient_id", references="patients"),
        Column("kind", required=True, one_of=("Blood, venous", "Urine")),
        Column("volume_ml", "decimal", required=True, unit="ml", example="4.5"),
        Column("used_ml", "decimal"),
        Column("taken_ts", "timestamp", required=True),
        Column("received_ts", "timestamp"),
        Column("label", example='tube, "red"'),
        Column("barcode", required=True, example="BC-0001"),
    ),
    rules=(
        Rule("used_exceeds_volume", "used_ml <= volume_ml", ("used_ml", "volume_ml")),
        Rule("received_before_taken", "received_ts > taken_ts", ("taken_ts", "received_ts")),
        Rule("blood_without_label", "kind <> 'Blood, venous' or label is not null", ("kind", "label")),
        Rule("barcode_of_another_kind", "barcode rlike '^BC-[0-9]+$'", ("barcode",)),  # only Spark understands it
    ),
)
"""
TRIAGE = """from jobs.dataset import Column, Dataset

triage = Dataset(
    name="triage",
    doc="One row per visit that was triaged.",
    columns=(
        Column("visit_id", required=True, references="visits"),
        Column("stay_id", references="admissions"),
        Column("level", required=True, one_of=("Red", "Green")),
    ),
)
"""
CONSENTS = """from jobs.dataset import Column, Dataset, Rule

consents = Dataset(
    name="consents",
    doc="One row per patient who has given consent.",
    columns=(
        Column("patient_id", required=True, references="patients"),
        Column("given_on", "date", required=True),
        Column("withdrawn_on", "date"),
    ),
    rules=(Rule("withdrawn_before_given", "withdrawn_on >= given_on", ("given_on", "withdrawn_on")),),
)
"""
DECLARED = test_datasets.FILES | {"specimens": SPECIMENS, "triage": TRIAGE, "consents": CONSENTS}
SINCE = datetime.date(2026, 3, 2)  # of lab_results


def write_further(
    home: Path,
    dates: Sequence[datetime.date],
    start: datetime.date,
    scale: float = 1,
    declared: dict[str, str] = DECLARED,
) -> subprocess.CompletedProcess[str]:
    """Generates dates into `home` with a copy of the jobs that declares further datasets, in a separate process."""
    shutil.copytree(settings.ROOT / "jobs", home / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in declared.items():
        (home / "jobs" / "catalog" / f"{name}.py").write_text(text)
    script = (
        "import datetime, pathlib, sys\nfrom jobs.generate import generate\n"
        "start, scale, *dates = sys.argv[1:]\nday = datetime.date.fromisoformat\n"
        "for date in dates: print(generate(day(date), pathlib.Path('landing'), float(scale), start=day(start)))"
    )
    return subprocess.run(
        [sys.executable, "-c", script, str(start), str(scale), *map(str, dates)],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(home)},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generates eight dates of a hospital with further datasets; START is when the last of them begins."""
    home = tmp_path_factory.mktemp("further")
    written = write_further(home, [SINCE + datetime.timedelta(days=i) for i in range(8)], SINCE)
    assert not written.returncode, written.stderr
    return home / "landing"


def test_the_manifest_names_exactly_the_rejected_rows_of_further_datasets_too(further: Path) -> None:
    dates = [SINCE + datetime.timedelta(days=i) for i in range(8)]
    for count in (1, 8):
        found = rejects(further, dates[:count], COLUMNS | FURTHER, RULES | FURTHER_RULES)
        assert found == expected(further, dates[:count])
    rows = {name: [*rows_of(folder(further, SINCE) / f"{name}.csv")] for name in FURTHER}
    assert {name: len(each) for name, each in rows.items() if len(each) < 500} == {}
    assert all([*rows_of(folder(further, dates[-1]) / f"{name}.csv")] for name in FURTHER)


def test_every_code_of_a_further_dataset_occurs_on_start_but_one_that_only_spark_can_tell(further: Path) -> None:
    found = {(row["dataset"], code) for row in manifest(further, SINCE) for code in row["reasons"].split(";")}
    codes = {(name, reason) for name, rules in FURTHER_RULES.items() for reason in rules}
    for name, columns in FURTHER.items():
        codes |= {(name, f"duplicate_{next(iter(columns))}"), (name, "malformed_row")}
        for column, (kind, required) in columns.items():
            codes |= {(name, f"missing_{column}")} if required else set()
            codes |= {(name, f"unknown_{column}")} if isinstance(kind, tuple) else set()
            codes |= {(name, f"unreadable_{column}")} if kind in ("date", "timestamp", "decimal") else set()
            codes |= {(name, f"orphan_{column}")} if kind in (*COLUMNS, *FURTHER) else set()
    assert {pair for pair in found if pair[0] in FURTHER} == codes - {("specimens", "barcode_of_another_kind")}
    assert any(";" in row["reasons"] for row in manifest(further, SINCE) if row["dataset"] == "bed_closures")


def test_further_datasets_leave_the_five_files_as_they_are_and_come_out_the_same_in_any_order(
    further: Path, tmp_path: Path
) -> None:
    later = SINCE + datetime.timedelta(days=5)
    assert not write_further(tmp_path, [later, SINCE], SINCE).returncode
    for date in (later, SINCE):
        assert contents(tmp_path / "landing", date) == contents(further, date)
        generate(date, tmp_path / "five", start=SINCE)
        five = contents(tmp_path / "five", date)
        assert {name: contents(further, date)[name] for name in five if name != "manifest.csv"} == {
            name: data for name, data in five.items() if name != "manifest.csv"
        }


def test_no_file_is_written_before_a_dataset_begins(tmp_path: Path) -> None:
    before = SINCE - datetime.timedelta(days=1)
    written = write_further(tmp_path, [before, SINCE], before, scale=0.2)
    assert not written.returncode, written.stderr
    names = {*COLUMNS, *FURTHER}
    first, second = ({*eval(line)} for line in written.stdout.splitlines())
    assert (first, second) == (names - {"lab_results"}, names)
    files = {f"{name}.csv" for name in names} | {"manifest.csv"}
    assert contents(tmp_path / "landing", before).keys() == files - {"lab_results.csv"}
    assert contents(tmp_path / "landing", SINCE).keys() == files
    assert "lab_results" not in {row["dataset"] for row in manifest(tmp_path / "landing", before)}
    assert not [*rows_of(folder(tmp_path / "landing", before) / "specimens.csv")], "there is nothing to refer to"
    dates = [before, SINCE]
    found = rejects(tmp_path / "landing", dates, COLUMNS | FURTHER, RULES | FURTHER_RULES)
    assert found == expected(tmp_path / "landing", dates)


@pytest.mark.parametrize(
    ("holds", "example", "said"),
    (
        ("ward in ('North', 'South')", "", "No row drawn for bed_closures obeys its rule another"),
        ("ward in ('North', 'South')", "North", ""),
        ("ward rlike '^[A-Z]+$'", "NORTH", ""),
        ("reopened_on > closed_on and length(ward) > 2", "", ""),
    ),
)
def test_a_rule_that_no_row_obeys_asks_for_examples(tmp_path: Path, holds: str, example: str, said: str) -> None:
    text = test_datasets.BED_CLOSURES.replace(
        "rules=(", f'rules=(Rule("another", "{holds}", ("ward", "closed_on", "reopened_on")), '
    ).replace('Column("ward", required=True)', f'Column("ward", required=True, example="{example}")')
    written = write_further(tmp_path, [START], START, 0.05, {"bed_closures": text})
    assert bool(written.returncode) == bool(said) and said in (written.stderr.splitlines() or [""])[-1]
    if not said:
        wards = {
            row.values["ward"]
            for row in rows_of(folder(tmp_path / "landing", START) / "bed_closures.csv")
            if row.values
        }
        assert len(wards) > 15 if not example else example in wards and len(wards) < 10


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_writes_the_files_and_says_how_many_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LANDING_DIR", str(tmp_path))
    main(["2026-03-02", "--scale", "0.1", "--seed", "7", "--start", "2026-03-01"])
    output = capsys.readouterr()
    assert [line.split("/")[-1].split(":")[0] for line in output.out.splitlines()] == [
        f"{name}.csv" for name in CATALOG
    ]
    assert "2026-03-02" in output.err
    assert (folder(tmp_path, datetime.date(2026, 3, 2)) / "manifest.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    (
        (["2025-12-31"], "starts on 2026-01-01"),
        (["2026-02-30"], "not a date"),
        (["20260201"], "not a date"),
        (["2026-01-01", "--scale", "0"], "not a number above 0"),
        (["2026-01-01", "--scale", "-1"], "not a number above 0"),
        (["2026-01-01", "--scale", "nan"], "not a number above 0"),
        (["2026-01-01", "--start", "soon"], "not a date"),
    ),
)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.setenv("LANDING_DIR", str(tmp_path))
    with pytest.raises(SystemExit, match=sentence):
        main(arguments)
    assert not list(tmp_path.iterdir())
