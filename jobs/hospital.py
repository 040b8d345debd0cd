"""The hospital behind the landing files: its people, its days, and what goes wrong in its records.

Every value is a pure function of the seed, the name of what is drawn and the number of the patient or visit, in
integer arithmetic throughout: any date can be drawn without the others, and comes out the same everywhere.
"""

import datetime
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from faker import Faker

from jobs.catalog import CATALOG
from jobs.dataset import Dataset

# --- the hospital -------------------------------------------------------------------------------------------

DEFAULT_START = datetime.date(2026, 1, 1)
PATIENTS, VISITS = 5_000, 15_000  # on START, at scale 1; each later date brings a hundredth
HISTORY = 730  # days up to and including START; day 0 is the first of them
START = HISTORY - 1
REACH = 130  # days after its start for which a visit can make news: the longest stay, then the slowest payment
CHUNK = 100_000  # visits worked on at once
NEVER = 2**40  # a minute that does not come

WEEKDAYS = np.array((118, 115, 110, 108, 104, 75, 70))  # load, Monday first; the mean is 100
MONTHS = np.array((112, 110, 104, 98, 96, 93, 90, 90, 96, 101, 103, 107))
DECADES = (11, 10, 13, 14, 13, 13, 12, 9, 4, 1)  # patients by decade of age
GENDERS = pa.array(("M", "F", "Other", "Unknown"))

OUTPATIENT, EMERGENCY, INPATIENT = range(3)
TYPES = pa.array(("Outpatient", "Emergency", "Inpatient"))
TYPES_BY_DAY = ((60, 21, 19), (28, 47, 25))  # on a weekday, at the weekend
STATUSES = pa.array(("Completed", "Cancelled", "No-show"))
STATUSES_BY_TYPE = ((82, 9, 9), (97, 3, 0), (100, 0, 0))
HOURS_BY_TYPE = (  # from midnight
    (0, 0, 0, 0, 0, 0, 0, 2, 10, 14, 15, 12, 7, 9, 12, 11, 6, 2, 0, 0, 0, 0, 0, 0),
    (5, 4, 3, 3, 2, 2, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5, 5, 6, 7, 7, 7, 6, 6),
    (1, 1, 1, 1, 1, 1, 3, 9, 12, 11, 10, 8, 6, 6, 6, 5, 4, 4, 3, 2, 2, 1, 1, 1),
)
TREATMENTS_BY_TYPE = ((8, 46, 30, 11, 5), (5, 38, 34, 16, 7), (2, 14, 30, 32, 22))  # visits with none, one, ... four
STAYS = np.array((12, 50, 1))  # minutes at the least, of those who do not stay the night; at most seven times that
FEES = np.array((60, 180, 250))
INSURED = np.array((0, 50, 70, 80, 90, 100))  # what a patient's plan pays, in per cent
INSURED_SHARE = (12, 8, 25, 35, 15, 5)
PAYMENT_STATUSES = pa.array(("Paid", "Pending", "Partial"))
PAYMENTS = (58, 35, 7)  # on leaving, later, never

ROOMS = pa.array(("General Ward", "Semi-Private", "Private", "ICU", "CCU"))
RATES = np.array((250, 400, 650, 1800, 1600))  # a night
STRETCH = np.array((2, 2, 2, 4, 3))  # halves of the department's usual stay


class Department(NamedTuple):
    """What sets a department apart: its share of the visits, its usual stay, its rooms and its treatments."""

    share: int
    nights: int
    rooms: tuple[int, ...]
    treatments: str  # code, name and usual cost of each, the commonest first


DEPARTMENTS = {
    "Emergency": Department(0, 2, (60, 15, 5, 15, 5),
        "EM01 Triage 90/EM02 Wound closure 260/EM03 Resuscitation, advanced 1900"),
    "General Medicine": Department(24, 4, (62, 22, 10, 5, 1),
        "GM01 Consultation 80/GM02 Infusion 190/GM03 Vaccination 45"),
    "Cardiology": Department(14, 5, (35, 20, 14, 6, 25),
        "CA01 Electrocardiogram 110/CA02 Echocardiogram 420/CA03 Angioplasty 9800"),
    "Orthopedics": Department(13, 5, (50, 30, 16, 4, 0),
        "OR01 Cast 230/OR02 Physiotherapy 95/OR03 Hip replacement 11500"),
    "Pediatrics": Department(4, 3, (50, 30, 14, 6, 0),
        "PE01 Check-up, child 70/PE02 Immunisation 50/PE03 Nebuliser 85"),
    "Maternity": Department(14, 3, (40, 36, 22, 2, 0),
        "MA01 Ultrasound 180/MA02 Delivery 3900/MA03 Caesarean section 6400"),
    "Neurology": Department(8, 6, (48, 22, 12, 18, 0),
        "NE01 Electroencephalogram 380/NE02 Nerve study 310/NE03 Lumbar puncture 540"),
    "Oncology": Department(9, 7, (44, 28, 20, 8, 0),
        "ON01 Radiotherapy 1700/ON02 Chemotherapy 2400/ON03 Biopsy 650"),
    "General Surgery": Department(14, 5, (46, 24, 14, 16, 0),
        "SU01 Dressing 60/SU02 Hernia repair 4300/SU03 Appendectomy 5200"),
}  # fmt: skip
COMMON = "LA01 Blood panel 65/IM01 X-ray, chest 140/IM02 CT scan 620"
OPTIONS = (30, 24, 8, 18, 12, 8)  # how often each of the department's three treatments and of the common three is given
EMERGENCY_ROOM, GENERAL_MEDICINE, PEDIATRICS, MATERNITY = map(
    list(DEPARTMENTS).index, ("Emergency", "General Medicine", "Pediatrics", "Maternity")
)
SHARE, NIGHTS, ROOMS_BY_DEPARTMENT, _ = (np.array(column) for column in zip(*DEPARTMENTS.values(), strict=True))
MENU = [item for department in DEPARTMENTS.values() for item in f"{department.treatments}/{COMMON}".split("/")]
CODES = pa.array([item.split(" ", 1)[0] for item in MENU])
NAMES = pa.array([item.split(" ", 1)[1].rsplit(" ", 1)[0] for item in MENU])
COSTS = np.array([int(item.rsplit(" ", 1)[1]) for item in MENU])

# --- what goes wrong ----------------------------------------------------------------------------------------

USUAL = 50  # rows in 100,000 that have a given defect
SHARES = {  # the defects that the hospital is known for
    "missing_gender": 200, "duplicate_patient_id": 80, "birth_after_registration": 100,
    "unknown_status": 100, "missing_department": 100, "visit_end_not_after_start": 100,
    "discharge_not_after_admit": 100, "orphan_visit_id": 100,
    "negative_treatment_cost": 100, "missing_treatment_code": 100,
    "negative_total_amount": 100, "insurance_exceeds_total": 100, "paid_without_payment_ts": 100,
}  # fmt: skip
FORCED, SPACING = 3, 7  # on START every defect of a dataset strikes so often whatever the seed, so many rows apart

BLANK = ("", "", "  ", "\u00a0")
UNKNOWN = ("N/A", "???", "Compleeted", "XX", "to be confirmed")
UNREADABLE = {
    "date": ("31/12/2024", "2024-02-30", "2024-1-5", "20240105", "unknown", "2024-13-01", "Jan 5, 2024"),
    "timestamp": ("05.01.2025 10:30", "2025-01-05", "2025-01-05T25:10", "2025-02-30 08:00", "2025-01-05T9:30", "soon"),
    "decimal": ("1,250.00", "12O.50", "1e3", "NaN", "Infinity", "$80", "12345678901.00", "-", "1.2.3"),
}


class Defect(NamedTuple):
    """The codes that a row must earn, and the texts, one of each tuple, that make it earn them.

    A text may name columns of the sound row in braces. A duplicate's texts are those of its second copy.
    """

    reasons: str
    texts: Mapping[str, tuple[str, ...]]


NEGATIVE_TOTAL = {"total_amount": ("-{total_amount}",)}
LONG_AGO = "1900-01-01T00:00:00"
BROKEN_RULES = {
    "patients": (
        Defect(
            "birth_after_registration", {"birth_date": ("{registration_date}",), "registration_date": ("{birth_date}",)}
        ),
        Defect("missing_gender;unreadable_birth_date", {"gender": BLANK, "birth_date": UNREADABLE["date"]}),
    ),
    "visits": (
        Defect("visit_end_not_after_start", {"visit_end_ts": ("{visit_start_ts}", LONG_AGO)}),
        Defect("missing_department;unknown_status", {"department": BLANK, "status": UNKNOWN}),
    ),
    "admissions": (
        Defect("discharge_not_after_admit", {"discharge_ts": ("{admit_ts}", LONG_AGO)}),
        Defect("unreadable_admit_ts;missing_room_type", {"admit_ts": UNREADABLE["timestamp"], "room_type": BLANK}),
    ),
    "treatments": (
        Defect("negative_treatment_cost", {"treatment_cost": ("-{treatment_cost}", "-0.01")}),
        Defect(
            "missing_treatment_code;negative_treatment_cost", {"treatment_code": BLANK, "treatment_cost": ("-0.01",)}
        ),
    ),
    "billing": (
        Defect("negative_total_amount", NEGATIVE_TOTAL | {"insurance_amount": BLANK}),
        Defect(
            "negative_total_amount;insurance_exceeds_total", NEGATIVE_TOTAL | {"insurance_amount": ("0.00", "25.00")}
        ),
        Defect("negative_patient_amount", {"patient_amount": ("-1{patient_amount}",)}),
        Defect("insurance_exceeds_total", {"insurance_amount": ("9{total_amount}",)}),
        Defect("paid_without_payment_ts", {"payment_status": ("Paid", "paid"), "payment_ts": BLANK}),
    ),
}
SECOND_COPY = {  # a duplicate that is no mere repetition
    "patients": {"city": ("", "Moved away")},
    "visits": {"doctor_id": ("", "D9999")},
    "admissions": {"room_type": ("General Ward", "Private")},
    "treatments": {"treatment_name": ("", "Repeat")},
    "billing": {"patient_amount": ("0.00", "")},
}


def defects_of(dataset: Dataset) -> Iterator[Defect]:
    """Everything that can go wrong with a row: what its declaration implies, then what breaks its rules."""
    for column in dataset.columns:
        name = column.name
        if column.required:
            yield Defect(f"missing_{name}", {name: BLANK})
        if column.type in UNREADABLE:
            yield Defect(f"unreadable_{name}", {name: UNREADABLE[column.type]})
        if column.one_of:
            yield Defect(f"unknown_{name}", {name: UNKNOWN})
        if column.references:  # a nine-digit number with leading zeros is nobody's
            yield Defect(f"orphan_{name}", {name: (f"{{{name}}}9",)})
    yield from BROKEN_RULES[dataset.name]
    yield Defect(f"duplicate_{dataset.key}", {})
    yield Defect(f"duplicate_{dataset.key}", SECOND_COPY[dataset.name])
    yield Defect("malformed_row", {})


DEFECTS = {name: tuple(defects_of(dataset)) for name, dataset in CATALOG.items()}
DUPLICATES = {name: np.array([d.reasons.startswith("duplicate_") for d in kinds]) for name, kinds in DEFECTS.items()}

# --- drawing ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hospital:
    """One hospital, known by its seed, scale and start, as far as the day `today` (START or later)."""

    seed: int
    scale: float
    start: datetime.date
    today: int

    def draw(self, what: str, numbers: np.ndarray) -> np.ndarray:
        """64 bits for each number (splitmix64)."""
        stream = hashlib.blake2b(f"{self.seed}/{what}".encode(), digest_size=8).digest()
        bits = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(int.from_bytes(stream, "little"))
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return bits ^ (bits >> np.uint64(31))

    def below(self, what: str, numbers: np.ndarray, limit: int | np.ndarray) -> np.ndarray:
        """A whole number from 0 up to, not including, the limit."""
        high = self.draw(what, numbers) >> np.uint64(32)
        return ((high * np.asarray(limit, np.uint64)) >> np.uint64(32)).astype(np.int64)

    def pick(
        self, what: str, numbers: np.ndarray, weights: Sequence | np.ndarray, of: np.ndarray | int = 0
    ) -> np.ndarray:
        """An index into the weights; where they are rows of weights, into the row that `of` names."""
        steps = np.atleast_2d(np.cumsum(weights, axis=-1))[of]
        drawn = self.below(what, numbers, steps[..., -1])
        return (drawn[:, None] >= steps).sum(axis=1)

    def date(self, day: int) -> datetime.date:
        """The date of a day."""
        return self.start + datetime.timedelta(days=day - START)

    @cached_property
    def load(self) -> np.ndarray:
        """How busy each day is, from day 0 to today; 10,000 is usual."""
        days = [self.date(day) for day in range(self.today + 1)]
        return WEEKDAYS[[day.weekday() for day in days]] * MONTHS[[day.month - 1 for day in days]]

    def first_numbers(self, history: int, usual: int) -> np.ndarray:
        """The number of each day's first newcomer, and of tomorrow's: so many in the history, so many a day after."""
        past, later = self.load[:HISTORY], self.load[HISTORY:]
        ends = np.cumsum(past) * history // past.sum()
        return 1 + np.concatenate(([0], ends, history + np.cumsum(np.maximum(1, later * usual // 10_000))))

    @cached_property
    def first_patient(self) -> np.ndarray:
        """By day of registration; two in five of the first patients registered before day 0."""
        patients = max(2, round(PATIENTS * self.scale))
        old = max(1, patients * 2 // 5)
        return old + self.first_numbers(patients - old, patients // 100)

    @cached_property
    def first_visit(self) -> np.ndarray:
        """By day of the visit's start."""
        visits = max(1, round(VISITS * self.scale))
        return self.first_numbers(visits, visits // 100)

    @cached_property
    def cities(self) -> pa.Array:
        """Where patients come from; one in ten is written with a comma."""
        faker = Faker("en_US")
        faker.seed_instance(self.seed)
        names = list(dict.fromkeys(faker.city() for _ in range(150)))
        return pa.array([f"{name}, {faker.state_abbr()}" if i % 10 == 9 else name for i, name in enumerate(names)])

    def defects(self, dataset: str, numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
        """An index into the dataset's DEFECTS, or -1; the first places are struck whatever is drawn."""
        kinds = DEFECTS[dataset]
        steps = np.cumsum([SHARES.get(kind.reasons, USUAL) for kind in kinds])
        kind = np.searchsorted(steps, self.below(f"{dataset} defect", numbers, 100_000), side="right")
        kind[kind == len(kinds)] = -1
        struck = (places >= 0) & (places % SPACING == 0) & (places < len(kinds) * FORCED * SPACING)
        return np.where(struck, places // SPACING % len(kinds), kind)


class Patients(NamedTuple):
    """Patients as they are registered; `day` is before 0 for those older than the history."""

    number: np.ndarray
    day: np.ndarray
    birth: np.ndarray
    gender: np.ndarray
    late: np.ndarray  # the row arrives a day after the first visit
    defect: np.ndarray


def patients(hospital: Hospital, number: np.ndarray) -> Patients:
    """The patients of these numbers."""
    day = np.searchsorted(hospital.first_patient, number, side="right") - 1
    late = (number == hospital.first_patient[day]) | (hospital.below("late patient", number, 1000) < 15)
    late &= day >= START
    day = np.where(day < 0, -1 - hospital.below("registered", number, 3650), day)
    decade = hospital.pick("decade", number, DECADES)
    birth = day - 1 - 3652 * decade - hospital.below("birth", number, 3652)
    gender = hospital.pick("gender", number, (48, 50, 1, 1))
    defect = np.where(late, -1, hospital.defects("patients", number, number))
    return Patients(number, day, birth, gender, late, defect)


class Visits(NamedTuple):
    """Visits, their stays and what decides over the rows that refer to them; times in minutes since day 0."""

    number: np.ndarray
    patient: np.ndarray
    day: np.ndarray
    type: np.ndarray
    department: np.ndarray
    start: np.ndarray
    end: np.ndarray
    status: np.ndarray
    kept: np.ndarray
    room: np.ndarray
    nights: np.ndarray
    admit: np.ndarray
    discharge: np.ndarray
    first: np.ndarray  # the day whose file brings the row
    last: np.ndarray  # the day whose file brings it for the last time
    defect: np.ndarray
    orphan: np.ndarray  # the patient's row is rejected
    rejected: np.ndarray  # for good
    patient_waits: np.ndarray  # until the day after `day`
    visit_waits: np.ndarray


def visits(hospital: Hospital, number: np.ndarray) -> Visits:
    """The visits of these numbers: each day's new patients first, then patients who return."""
    day = np.searchsorted(hospital.first_visit, number, side="right") - 1
    known = hospital.first_patient[day] - 1
    place = number - hospital.first_visit[day]
    is_first = place < hospital.first_patient[day + 1] - hospital.first_patient[day]
    regular = np.clip(10 * hospital.below("regular", number, known // 10 + 1), 1, known)  # every tenth comes often
    anyone = 1 + hospital.below("anyone", number, known)
    returning = np.where(hospital.below("is regular", number, 100) < 35, regular, anyone)
    patient = np.where(is_first, known + 1 + place, returning)
    who = patients(hospital, patient)

    weekend = (day + hospital.date(0).weekday()) % 7 >= 5
    type_ = hospital.pick("type", number, TYPES_BY_DAY, weekend.astype(int))
    department = hospital.pick("department", number, SHARE)
    years = (day - who.birth) // 365
    mothers = (who.gender == 1) & (years >= 16) & (years < 48)
    department = np.where((department == MATERNITY) & ~mothers, GENERAL_MEDICINE, department)
    department = np.where(years < 16, PEDIATRICS, department)
    comes_in = (type_ == EMERGENCY) & (hospital.below("comes in", number, 100) < 75)
    department = np.where(comes_in, EMERGENCY_ROOM, department)
    hour = hospital.pick("hour", number, HOURS_BY_TYPE, type_)
    start = day * 1440 + hour * 60 + hospital.below("minute", number, 60)
    status = hospital.pick("status", number, STATUSES_BY_TYPE, type_)
    kept = status == 0

    room = hospital.pick("room", number, ROOMS_BY_DEPARTMENT, department)
    longest = hospital.below("longest", number, 2 * NIGHTS[department] * STRETCH[room])
    nights = 1 + hospital.below("nights", number, 1 + longest)
    nights = np.where(type_ == INPATIENT, nights, 0)
    admit = start + 30 + hospital.below("admit", number, 210)
    discharge = (admit // 1440 + nights) * 1440 + 540 + hospital.below("discharge", number, 480)
    stay = STAYS[type_] + hospital.below("stay", number, 6 * STAYS[type_])
    end = np.where(type_ == INPATIENT, discharge + hospital.below("leaves", number, 45), start + stay)
    end = np.where(kept, end, NEVER)

    patient_waits = is_first & who.late
    visit_waits = (hospital.below("late visit", number, 1000) < 20) & (end // 1440 == day) & (day >= START) & ~is_first
    first = np.maximum(day + visit_waits, START)
    last = np.where(kept, np.maximum(end // 1440, first), first)
    # A visit that is sent again would be accepted then: only one that is sent once can be rejected for good.
    strikes = (first == last) & ~visit_waits & ~patient_waits
    defect = np.where(strikes, hospital.defects("visits", number, number), -1)
    orphan = is_rejected("patients", who.defect)
    rejected = orphan | is_rejected("visits", defect)
    return Visits(
        number, patient, day, type_, department, start, end, status, kept, room, nights, admit, discharge,
        first, last, defect, orphan, rejected, patient_waits, visit_waits,
    )  # fmt: skip


def is_rejected(dataset: str, defect: np.ndarray) -> np.ndarray:
    """Whether such a defect leaves no accepted row of the key."""
    return (defect >= 0) & ~DUPLICATES[dataset][defect]
