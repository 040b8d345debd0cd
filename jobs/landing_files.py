"""Writes one hospital's landing files for a date, and beside them a manifest of every defect put into them.

Five datasets have writers that model how a hospital works (hospital_rows.py). All others are written from their
declarations (further_rows.py): a row for some of the visits that end that day, or for some rows of another parent; with
patients as the only parent, or none, a number of rows each day.
"""

import argparse
import contextlib
import csv
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from jobs import further_rows, hospital_rows
from jobs.catalog import CATALOG, expected
from jobs.drawing import DEFAULT_START, START, Hospital, chunks
from jobs.hospital import REACH, patients, visits
from jobs.landing_writer import WRITTEN, LandingFile


class Request(NamedTuple):
    """Holds what a command line asks for: a date, and the hospital by its scale, its seed and its start."""

    date: datetime.date
    scale: float
    seed: int
    start: datetime.date


def generate(
    date: datetime.date, landing: Path, scale: float = 1, seed: int = 42, start: datetime.date = DEFAULT_START
) -> dict[str, int]:
    """Writes the landing files that a date needs and their manifest; returns the number of rows of each dataset.

    The manifest has one row for each row that must be rejected: its number in the file (none for a duplicate, of which
    either copy may be rejected), its codes, and the date whose file brings its missing parent, if one does.
    """
    today = START + (date - start).days
    hospital = Hospital(seed, scale, start, today)
    folder = landing / f"{date:%Y/%m/%d}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: folder / f".{name}.csv.part" for name in (*CATALOG, "manifest")}
    wanted = expected(date)
    with contextlib.ExitStack() as stack:
        for part in parts.values():
            stack.callback(part.unlink, missing_ok=True)
        files = {
            name: LandingFile(hospital, dataset, stack.enter_context(parts[name].open("wb")))
            for name, dataset in CATALOG.items()
        }
        write_hospital(hospital, files, str(date))
        for name, file in files.items():
            if name not in wanted:
                file.sound.clear()
            elif name not in WRITTEN:
                further_rows.write_further(file, files)
        with parts["manifest"].open("w", encoding="utf-8", newline="") as manifest:
            writer = csv.writer(manifest, lineterminator="\n")
            writer.writerow(("dataset", "key", "row", "reasons", "resolved_on"))
            for name, file in files.items():
                file.finish()
                file.file.close()
                if name not in wanted:
                    continue
                writer.writerows((name, *reject) for reject in file.rejects)
        for name in (*wanted, "manifest"):
            parts[name].replace(folder / f"{name}.csv")
    return {name: files[name].rows for name in wanted}


def write_hospital(hospital: Hospital, files: Mapping[str, LandingFile], title: str) -> None:
    """Writes the rows of the five datasets that model how a hospital works; shows its progress under a title."""
    today = hospital.today
    history = today == START
    first_patient = 1 if history else int(hospital.first_patient[today - 1])
    first_course = 1 if history else int(hospital.first_course[max(0, today - REACH)])
    patient_chunks = list(chunks(first_patient, int(hospital.first_patient[today + 1])))
    course_chunks = list(chunks(first_course, int(hospital.first_course[today + 1])))
    total = sum(len(numbers) for numbers in patient_chunks + course_chunks)
    with tqdm(total=total, desc=title, unit=" numbers") as bar:
        for numbers in patient_chunks:
            hospital_rows.write_patients(files["patients"], patients(hospital, numbers))
            bar.update(len(numbers))
        for numbers in course_chunks:
            v = visits(hospital, numbers)
            hospital_rows.write_visits(files["visits"], v)
            lodging = hospital_rows.write_admissions(files["admissions"], v)
            spent = lodging + hospital_rows.write_treatments(files["treatments"], v)
            hospital_rows.write_bills(files["billing"], v, spent)
            bar.update(len(numbers))


def a_date(name: str, value: str) -> datetime.date:
    """Returns the date of an argument; exits with a sentence if it is none."""
    try:
        date = datetime.datetime.strptime(value, "%Y-%m-%d").date()
    except ValueError:
        date = None
    if date is None or date.isoformat() != value or not 1950 <= date.year < 2200:
        raise SystemExit(f"{name} {value[:40]!r} is not a date: give one as YYYY-MM-DD, from 1950 to 2199.")
    return date


def read_request(arguments: Sequence[str] | None) -> Request:
    """Returns what the command line asks for; exits with a sentence if it cannot be."""
    parser = argparse.ArgumentParser(description="Writes the landing files of one date.")
    parser.add_argument("date", help="YYYY-MM-DD, START or later")
    parser.add_argument("--scale", default="1", help="1 is 5,000 patients and 15,000 visits on START (default: 1)")
    parser.add_argument("--seed", type=int, default=42, help="another seed is another hospital (default: 42)")
    parser.add_argument("--start", default=str(DEFAULT_START), help="the date of the history (default: %(default)s)")
    given = parser.parse_args(arguments)
    date, start = a_date("The date", given.date), a_date("The start", given.start)
    try:
        scale = float(given.scale)
    except ValueError:
        scale = 0
    if not 0 < scale <= 1000:
        raise SystemExit(f"The scale {given.scale!r} is not a number above 0 and up to 1000.")
    if date < start:
        raise SystemExit(
            f"The hospital starts on {start}: {date} is before that. Choose a later date or an earlier start."
        )
    return Request(date, scale, given.seed, start)
