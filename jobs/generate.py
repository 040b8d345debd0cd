"""Writes one hospital's landing files for a date, and beside them a manifest of every defect put into them.

    python -m jobs.generate 2026-01-31 --scale 1 --seed 42 --start 2026-01-01

START's files hold two years of history. Each later date has the news of one more such day, about a 730th of it: new
rows, and earlier rows sent again, whole, when a patient is discharged or a bill is paid. The same seed gives the same
bytes, whichever dates were written.

Five datasets have writers here that model how a hospital works. All others are written from their declarations: a row
for some of the visits that end that day, or for some rows of another parent; with patients as the only parent, or none,
a number of rows each day.
"""

import argparse
import contextlib
import csv
import datetime
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from jobs import settings
from jobs.catalog import CATALOG, children, expected
from jobs.dataset import WHITE_SPACE, Dataset
from jobs.defects import defects, duplicates, is_rejected, strike
from jobs.drawing import DEFAULT_START, START, Hospital, dates, ids, keys, money, text, times
from jobs.further import Base, Columns, draw_sound
from jobs.hospital import (
    CHUNK,
    CODES,
    COSTS,
    DEPARTMENTS,
    FEES,
    GENDERS,
    INPATIENT,
    INSURED,
    INSURED_SHARE,
    NAMES,
    NEVER,
    OPTIONS,
    PAID_IN_WEEKS,
    PAYMENT_STATUSES,
    PAYMENTS,
    RATES,
    REACH,
    ROOMS,
    STATUSES,
    TREATMENTS_BY_TYPE,
    TYPES,
    Patients,
    Visits,
    list_stays,
    patients,
    visits,
)
from jobs.verdicts import verdicts

WRITTEN = ("patients", "visits", "admissions", "treatments", "billing")  # those with a writer of their own
EVENTS = 3_000  # rows on START, at scale 1, of a dataset without foreign keys, or with one to patients alone
BRANCHES = 60  # of a hundred parents, those that have a row in a dataset without a writer

# --- writing ------------------------------------------------------------------------------------------------

NOTES = pa.array(("", "", "seen", "to follow up", "moved, new address"))
FREE_TEXT = ("city", "treatment_name", "note")

# The forms that rows may have and still be sound.
TIMESTAMPS = (  # a form, and its minutes ahead of UTC
    ("%Y-%m-%d %H:%M:%S", 0), ("%Y-%m-%dT%H:%M", 0), ("%Y-%m-%d %H:%M", 0), ("%Y-%m-%dT%H:%M:%S.500", 0),
    ("%Y-%m-%dT%H:%M:%SZ", 0), ("%Y-%m-%d %H:%M+00:00", 0), ("%Y-%m-%dT%H:%M:%S.000001+02:00", 120),
    ("%Y-%m-%d %H:%M:%S-05:30", -330),
)  # fmt: skip
DECIMALS = ("+{}", "{}4", "00{}", "{}0")
PADS = ("{}", "{}", " {}", "{}\u00a0", "\t{}  ", "\u2003{}")
BREAKS = ("\n{}", "{}\n")


@dataclass
class LandingFile:
    """Writes a landing file; holds how it is written, how many rows it has and which of them must be rejected."""

    hospital: Hospital
    dataset: Dataset
    file: BinaryIO
    rows: int = 0
    rejects: list[tuple[str, str, str, str]] = field(default_factory=list)
    sound: list[Base] = field(default_factory=list)  # what today's rows of datasets without a writer may refer to

    def __post_init__(self) -> None:
        """Decides how the file is written, and writes its header.

        Later dates have the oddities of other systems; START has none, so that its files can be split by line.
        """
        self.end_of_line = "\r\n" if self.happens("crlf", 20) else "\n"
        self.varied = self.hospital.today > START
        self.is_parent = any(child.name not in WRITTEN for child in children(self.dataset))
        own = [c.name for c in self.dataset.columns if c.type == "text"]
        self.has_commas = {*(FREE_TEXT if self.dataset.name in WRITTEN else own), "note"}
        self.has_breaks = self.happens("breaks", 40)
        self.has_blank_lines = self.happens("blank lines", 30)
        names = [*self.dataset.names, *(["note"] if self.happens("note", 20) else [])]
        turn = len(names) // 2 if self.happens("turn", 25) else 0
        self.names = names[turn:] + names[:turn]
        mark = "\ufeff" if self.happens("mark", 25) else ""
        self.file.write((mark + self.line(self.names)).encode())

    def happens(self, what: str, percent: int) -> bool:
        """Tells whether something happens to today's file, with a probability in per cent; on START nothing does."""
        drawn = self.hospital.below(f"{self.dataset.name} {what}", np.array([self.hospital.today]), 100)
        return self.hospital.today > START and bool(drawn[0] < percent)

    def line(self, fields: Sequence[str], quoted: bool = False) -> str:
        """Returns a record in CSV."""
        return ",".join(quote(f) if quoted or set(f) & set(',"\n\r') else f for f in fields) + self.end_of_line

    def spoilt(self, fields: list[str], bits: int) -> str:
        """Returns a record with a field too few, a comma too many or a NUL."""
        broken = (fields[:-1], [*fields[:2], " ", *fields[2:]], [*fields[:-1], fields[-1] + "\0"])
        return self.line(broken[bits % 3])

    def add(
        self, columns: Columns, number: np.ndarray, orphan: np.ndarray, waits: np.ndarray, defect: np.ndarray
    ) -> None:
        """Adds rows with their defects; the parent of an orphan that only `waits` is in tomorrow's file."""
        hospital, dataset = self.hospital, self.dataset
        bits = hospital.draw(f"{dataset.name} bits {hospital.today}", number)
        if "note" in self.names:
            columns["note"] = NOTES.take(bits % len(NOTES))
        # Rows that wait must be accepted one day; two copies of an orphan are two orphans and no duplicate.
        defect = np.where(waits | (orphan & (defect >= 0) & duplicates(dataset.name)[defect]), -1, defect)
        orphan = orphan | waits
        varied = (bits >> np.uint64(8)) % np.uint64(12) == 0 if self.varied else np.zeros(len(number), bool)
        parts: list[pa.Array | str] = []
        for name in self.names:
            column = columns[name]
            if name in self.has_commas:  # and perhaps quotes, but no line breaks
                quoted = text('"', pc.replace_substring(column, '"', '""'), '"')
                column = pc.if_else(pc.match_substring_regex(column, '[,"]'), quoted, column)
            parts += [column, ","]
        lines = text(*parts[:-1], self.end_of_line)

        # The few rows that have a defect, lack a parent or vary in form, one by one.
        special = np.flatnonzero((defect >= 0) | orphan | varied)
        firsts, seconds = [], []
        for i, row in zip(special.tolist(), pa.table(columns).take(special).to_pylist(), strict=True):
            is_varied, is_orphan, kind = bool(varied[i]), bool(orphan[i]), int(defect[i])
            line, copy, key, reasons = self.treat(row, kind, is_orphan, is_varied, int(bits[i]) >> 12)
            firsts.append(line)
            seconds += [copy] if copy else []
            if reasons:
                place = "" if copy else str(self.rows + i + 1)
                self.rejects.append((key, place, reasons, str(hospital.date(hospital.today + 1)) if waits[i] else ""))
        mask = np.zeros(len(number), bool)
        mask[special] = True
        lines = pc.replace_with_mask(lines, mask, pa.array(firsts, pa.string()))
        self.file.write(pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "")[0].as_buffer())
        self.file.write("".join(seconds).encode())
        self.rows += len(number) + len(seconds)

    def treat(self, row: dict[str, str], kind: int, orphan: bool, varied: bool, bits: int) -> tuple[str, str, str, str]:
        """Returns a row as it is sent: its line, the line of its second copy if any, its key and the codes it earns."""
        dataset, fields = self.dataset, [row[name] for name in self.names]
        if kind < 0:
            line = self.vary(row, bits) if varied else self.line(fields)
            return line, "", row[dataset.key], ";".join(f"orphan_{name}" for name in dataset.parents if orphan)
        defect, earn = defects(dataset.name)[kind], verdicts(dataset.name)
        wrong = defect.spoil(row, bits)
        changed = self.line([wrong[name] for name in self.names])
        if defect.reasons == "malformed_row":
            return self.spoilt(fields, bits), "", "", "malformed_row"
        if duplicates(dataset.name)[kind]:  # the second copy must be sound too
            return (
                self.line(fields),
                self.line(fields) if earn.codes(wrong) else changed,
                row[dataset.key],
                defect.reasons,
            )
        # Codes that only silver can give: orphans, and rules that SQLite cannot evaluate.
        orphans = {name: f"orphan_{name}" for name in dataset.parents}
        beyond = {*orphans.values(), *(rule.reason for rule in earn.unknown)} & {*defect.reasons.split(";")}
        lost = {code for name, code in orphans.items() if orphan and name not in defect.texts}
        codes = {*earn.codes(wrong)} | beyond | lost
        return changed, "", wrong[dataset.key].strip(WHITE_SPACE), ";".join(c for c in dataset.reasons if c in codes)

    def offer(self, base: Base, mask: np.ndarray) -> None:
        """Notes which of the rows are accepted today, for rows that refer to them."""
        if self.is_parent:
            end = np.minimum(base.end, self.hospital.today * 1440 + 1439)
            self.sound.append(base._replace(end=end).take(mask))

    def vary(self, row: dict[str, str], bits: int) -> str:
        """Returns the line of a row as other systems may write it; a plain one if the variant would earn a code."""
        plain, row = row, dict(row)
        pads = PADS + BREAKS if self.has_breaks else PADS
        for column in self.dataset.columns:
            value = row[column.name]
            bits, way = divmod(bits, 8)
            if column.type == "timestamp" and value:
                form, ahead = TIMESTAMPS[way % len(TIMESTAMPS)]
                value = (datetime.datetime.fromisoformat(value) + datetime.timedelta(minutes=ahead)).strftime(form)
            elif column.type == "decimal" and value:
                value = DECIMALS[way % len(DECIMALS)].format(value)
            elif column.one_of:
                value = (str.lower, str.upper, str.swapcase)[way % 3](value)
            elif column.name in FREE_TEXT and value and way == 0:
                value += '\n"annex", east' if self.has_breaks else ' "annex", east'
            bits, pad = divmod(bits, 8)
            row[column.name] = pads[pad % len(pads)].format(value)
        row = plain if verdicts(self.dataset.name).codes(row) else row
        line = self.line([row[name] for name in self.names], quoted=bits % 2 == 0)
        return line + self.end_of_line if self.has_blank_lines and bits % 8 < 3 else line

    def finish(self) -> None:
        """Ends the file; on some later dates with a record that is cut off behind an open quote."""
        if self.happens("cut off", 8):
            self.file.write(self.line(["X00000000", *[""] * (len(self.names) - 2)]).rstrip().encode() + b',"transfer')
            self.rows += 1
            self.rejects.append(("", str(self.rows), "malformed_row", ""))


def quote(value: str) -> str:
    """Returns a field in quotes."""
    return '"' + value.replace('"', '""') + '"'


def write_patients(file: LandingFile, people: Patients) -> None:
    """Writes the patients whose row comes today."""
    hospital = file.hospital
    people = Patients(*(a[np.maximum(people.day + people.late, START) == hospital.today] for a in people))
    number = people.number
    city = np.minimum(*(hospital.below(f"city {i}", number, len(hospital.cities)) for i in range(2)))
    columns = {
        "patient_id": keys(CATALOG["patients"], number),
        "gender": GENDERS.take(people.gender),
        "birth_date": dates(hospital, people.birth),
        "city": pc.if_else(pa.array(hospital.below("city unknown", number, 100) == 0), "", hospital.cities.take(city)),
        "registration_date": dates(hospital, people.day),
    }
    nobody = np.zeros(len(number), bool)
    file.add(columns, number, nobody, nobody, people.defect)


def write_visits(file: LandingFile, v: Visits) -> None:
    """Writes the visits that start or end today."""
    hospital = file.hospital
    v = Visits(*(a[(v.first == hospital.today) | (v.last == hospital.today)] for a in v))
    doctor = v.department * 15 + hospital.below("doctor", v.number, 15) + 1
    unknown = pa.array(hospital.below("doctor unknown", v.number, 100) == 0)
    columns = {
        "visit_id": keys(file.dataset, v.number),
        "patient_id": keys(CATALOG["patients"], v.patient),
        "visit_type": TYPES.take(v.type),
        "department": pa.array(list(DEPARTMENTS)).take(v.department),
        "doctor_id": pc.if_else(unknown, "", ids("D", doctor, 4)),
        "visit_start_ts": times(hospital, v.start),
        "visit_end_ts": times(hospital, v.end),
        "status": STATUSES.take(v.status),
    }
    file.add(columns, v.number, v.orphan, v.patient_waits & (v.day == hospital.today), v.defect)
    over = v.kept & (np.maximum(v.end // 1440, START) == hospital.today)
    file.offer(Base(v.number, v.patient, v.start, v.end), over & ~v.rejected & ~v.patient_waits & ~v.visit_waits)


def add_children(file: LandingFile, columns: Columns, number: np.ndarray, v: Visits, at: np.ndarray) -> None:
    """Adds rows that refer to the visits `at`.

    None of the five datasets refers to these rows, so that each version of a row may have its own defect.
    """
    today = file.hospital.today
    orphan = v.rejected[at]
    waits = (v.patient_waits | v.visit_waits)[at] & (v.day[at] == today) & ~orphan
    places = file.rows + np.arange(len(number)) if today == START else np.full(len(number), -1)
    defect = strike(file.hospital, file.dataset.name, number * (today + 1), places)
    file.add(columns | {"visit_id": keys(CATALOG["visits"], v.number[at])}, number, orphan, waits, defect)
    file.offer(Base(number, v.patient[at], v.start[at], v.end[at]), (defect < 0) & ~orphan & ~waits)


def write_admissions(file: LandingFile, v: Visits) -> np.ndarray:
    """Writes the stays that begin or end today; returns the cost of each visit's rooms, in cents."""
    hospital = file.hospital
    inside = np.flatnonzero(v.type == INPATIENT)
    stay = list_stays(hospital, v.number[inside], v.department[inside], v.start[inside])
    nights = np.maximum(1, stay.discharge // 1440 - stay.admit // 1440)
    spent = np.bincount(inside[stay.at], weights=100 * RATES[stay.room] * nights, minlength=len(v.number))

    first = np.maximum(stay.admit // 1440, START)
    last = np.maximum(stay.discharge // 1440, first)
    today = np.flatnonzero((first == hospital.today) | (last == hospital.today))
    number, at, room, admit, discharge = (a[today[np.argsort(stay.number[today])]] for a in stay)
    columns = {
        "admission_id": keys(file.dataset, number),
        "admit_ts": times(hospital, admit),
        "discharge_ts": times(hospital, discharge),
        "room_type": ROOMS.take(room),
    }
    add_children(file, columns, number, v, inside[at])
    return spent.astype(np.int64)


def write_treatments(file: LandingFile, v: Visits) -> np.ndarray:
    """Writes the treatments given today; returns the cost of each visit's treatments, in cents."""
    hospital = file.hospital
    count = np.where(v.kept, hospital.pick("treatments", v.number, TREATMENTS_BY_TYPE, v.type), 0)
    at = np.repeat(np.arange(len(count)), count)
    number = v.number[at] * 4 + np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)
    item = v.department[at] * len(OPTIONS) + hospital.pick("treatment", number, OPTIONS)
    cost = COSTS[item] * (70 + hospital.below("cost", number, 61)) + hospital.below("cents", number, 100)
    performed = v.start[at] + 1 + hospital.below("performed", number, v.end[at] - v.start[at] - 1)
    spent = np.bincount(at, weights=cost, minlength=len(count)).astype(np.int64)

    today = np.maximum(performed // 1440, START) == hospital.today
    number, item, cost, performed, at = (a[today] for a in (number, item, cost, performed, at))
    columns = {
        "treatment_id": keys(file.dataset, number),
        "treatment_code": CODES.take(item),
        "treatment_name": NAMES.take(item),
        "treatment_cost": money(cost),
        "performed_ts": times(hospital, performed),
    }
    add_children(file, columns, number, v, at)
    return spent


def write_bills(file: LandingFile, v: Visits, spent: np.ndarray) -> None:
    """Writes the bills issued or paid today: a fee, and what was spent on treatments and rooms."""
    hospital, number = file.hospital, v.number
    day = v.end // 1440
    way = hospital.pick("payment", number, PAYMENTS)
    at_once = v.end + 2 + hospital.below("pays", number, 30)
    days = 1 + 7 * hospital.pick("pays in week", number, PAID_IN_WEEKS) + hospital.below("pays after", number, 7)
    later = (day + days) * 1440 + 480 + hospital.below("pays at", number, 600)
    paid = np.choose(way, (at_once, later, np.full(len(number), NEVER)))
    first = np.maximum(day, START)
    last = np.maximum(paid // 1440, first)
    billed = v.kept & (hospital.below("billed", number, 100) < 97)
    at = np.flatnonzero(billed & ((first == hospital.today) | (last == hospital.today)))

    total = FEES[v.type[at]] * 100 + spent[at]
    percent = INSURED[hospital.pick("insurance", v.patient[at], INSURED_SHARE)]
    insurance = total * percent // 100
    open_status = np.where(hospital.below("partial", number[at], 100) < 30, 2, 1)
    columns = {
        "bill_id": keys(file.dataset, number[at]),
        "total_amount": money(total),
        "insurance_amount": pc.if_else(pa.array(percent > 0), money(insurance), ""),
        "patient_amount": money(total - insurance),
        "payment_status": PAYMENT_STATUSES.take(np.where(paid[at] // 1440 <= hospital.today, 0, open_status)),
        "payment_ts": times(hospital, paid[at]),
    }
    add_children(file, columns, number[at], v, at)


def write_further(file: LandingFile, files: dict[str, LandingFile]) -> None:
    """Writes the rows of a dataset without a writer; they refer to patients, or to sound rows of its parents today."""
    hospital, dataset = file.hospital, file.dataset
    used = np.array([], np.int64)  # parents that have a row already, if the key is a foreign key
    for base in list_bases(hospital, dataset, files):
        numbers = {name: list_parents(file, name, base, files) for name in dataset.parents}
        if dataset.key in numbers:
            _, firsts = np.unique(numbers[dataset.key], return_index=True)
            firsts = np.sort(firsts[~np.isin(numbers[dataset.key][firsts], used)])
            base, numbers = base.take(firsts), {name: number[firsts] for name, number in numbers.items()}
            used = np.concatenate([used, numbers[dataset.key]])
        references = {name: keys(CATALOG[dataset.parents[name]], number) for name, number in numbers.items()}
        columns, sound = draw_sound(hospital, dataset, base, references)
        base, nobody = base.take(sound), np.zeros(sound.sum(), bool)
        places = file.rows + np.arange(len(nobody)) if hospital.today == START else np.full(len(nobody), -1)
        defect = strike(hospital, dataset.name, base.number * (hospital.today + 1), places)
        file.add({name: column.filter(sound) for name, column in columns.items()}, base.number, nobody, nobody, defect)
        number = numbers[dataset.key][sound] if dataset.key in numbers else base.number
        file.offer(base._replace(number=number), defect < 0)


def find_parent(dataset: Dataset) -> str | None:
    """Returns the dataset on whose rows those of a dataset without a writer are based.

    It is visits, or else the first parent other than patients, or else None.
    """
    parents = [parent for parent in dataset.parents.values() if parent != "patients"]
    return "visits" if "visits" in parents else parents[0] if parents else None


def list_parents(file: LandingFile, name: str, base: Base, files: dict[str, LandingFile]) -> np.ndarray:
    """Returns the number of the parent to which each row refers in a column."""
    parent = file.dataset.parents[name]
    if parent == "patients":
        return base.patient
    if parent == find_parent(file.dataset):
        return base.number
    offered = np.concatenate([each.number for each in files[parent].sound])
    return offered[file.hospital.below(f"{file.dataset.name} {name}", base.number, len(offered))]


def list_bases(hospital: Hospital, dataset: Dataset, files: dict[str, LandingFile]) -> Iterator[Base]:
    """Yields what today's rows of a dataset without a writer are based on, a chunk at a time."""
    others = {*dataset.parents.values()} - {"patients"}
    if not all(sum(len(base.number) for base in files[parent].sound) for parent in others):
        return
    if parent := find_parent(dataset):
        whole = Base(*map(np.concatenate, zip(*files[parent].sound, strict=True)))
        whole = whole.take(hospital.below(f"{dataset.name} of {parent}", whole.number, 100) < BRANCHES)
        for places in chunks(0, len(whole.number)):
            yield whole.take(places)
        return
    events = max(1, round(EVENTS * hospital.scale))
    first = hospital.first_numbers(events)
    for number in chunks(1 if hospital.today == START else int(first[hospital.today]), int(first[hospital.today + 1])):
        day = np.searchsorted(first, number, side="right") - 1
        patient = 1 + hospital.below(f"{dataset.name} patient", number, hospital.first_patient[day] - 1)
        base = Base(number, patient, (day - 7) * 1440 + 480, day * 1440 + 1200)  # it took up to a week
        yield base.take(~is_rejected("patients", patients(hospital, patient).defect))


# --- the command --------------------------------------------------------------------------------------------


def generate(
    date: datetime.date, landing: Path, scale: float = 1, seed: int = 42, start: datetime.date = DEFAULT_START
) -> dict[str, int]:
    """Writes the landing files that a date needs and their manifest; returns the number of rows of each dataset.

    The manifest has one row for each row that must be rejected: its number in the file (none for a duplicate, of which
    either copy may be rejected), its codes, and the date whose file brings its missing parent, if one does.

    Long because the files of a date and their manifest are written in one pass.
    """
    today = START + (date - start).days
    hospital = Hospital(seed, scale, start, today)
    folder = landing / f"{date:%Y/%m/%d}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: folder / f".{name}.csv.part" for name in (*CATALOG, "manifest")}
    history = today == START
    first_patient = 1 if history else int(hospital.first_patient[today - 1])
    first_course = 1 if history else int(hospital.first_course[max(0, today - REACH)])
    patient_chunks = list(chunks(first_patient, int(hospital.first_patient[today + 1])))
    course_chunks = list(chunks(first_course, int(hospital.first_course[today + 1])))

    with contextlib.ExitStack() as stack:
        for part in parts.values():
            stack.callback(part.unlink, missing_ok=True)
        files = {
            name: LandingFile(hospital, dataset, stack.enter_context(parts[name].open("wb")))
            for name, dataset in CATALOG.items()
        }
        total = sum(len(numbers) for numbers in patient_chunks + course_chunks)
        bar = stack.enter_context(tqdm(total=total, desc=f"{date}", unit=" numbers"))
        for numbers in patient_chunks:
            write_patients(files["patients"], patients(hospital, numbers))
            bar.update(len(numbers))
        for numbers in course_chunks:
            v = visits(hospital, numbers)
            write_visits(files["visits"], v)
            lodging = write_admissions(files["admissions"], v)
            spent = lodging + write_treatments(files["treatments"], v)
            write_bills(files["billing"], v, spent)
            bar.update(len(numbers))
        wanted = expected(date)
        for name, file in files.items():
            if name not in wanted:
                file.sound.clear()
            elif name not in WRITTEN:
                write_further(file, files)
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


def chunks(first: int, end: int) -> Iterator[np.ndarray]:
    """Yields the numbers from `first` up to, but not including, `end`, in chunks that fit into memory."""
    for low in range(first, end, CHUNK):
        yield np.arange(low, min(low + CHUNK, end))


def a_date(name: str, value: str) -> datetime.date:
    """Returns the date of an argument; exits with a sentence if it is none."""
    try:
        date = datetime.datetime.strptime(value, "%Y-%m-%d").date()
    except ValueError:
        date = None
    if date is None or date.isoformat() != value or not 1950 <= date.year < 2200:
        raise SystemExit(f"{name} {value[:40]!r} is not a date: give one as YYYY-MM-DD, from 1950 to 2199.")
    return date


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the files that the command line asks for; exits with a sentence if it cannot."""
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
    landing = settings.path("LANDING_DIR")
    os.umask(0o077)  # only the user who writes patients' values may read them
    try:
        written = generate(date, landing, scale, given.seed, start)
    except OSError as error:
        raise SystemExit(f"The files of {date} cannot be written: {error}. See LANDING_DIR.") from None
    for name, rows in written.items():
        print(f"{landing / f'{date:%Y/%m/%d}' / name}.csv: {rows} rows")


if __name__ == "__main__":
    main()
