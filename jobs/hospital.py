"""The hospital behind the landing files: its people, its departments and its days.

Whatever is drawn is drawn by the number of the patient or visit: see drawing.py.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from jobs.defects import is_rejected, strike
from jobs.drawing import START, Hospital

# --- the hospital -------------------------------------------------------------------------------------------

REACH = 130  # days after its start for which a visit can make news: the longest stay, then the slowest payment
CHUNK = 100_000  # visits worked on at once
NEVER = 2**40  # a minute that does not come

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
    defect = np.where(late, -1, strike(hospital, "patients", number, number))
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
    defect = np.where(strikes, strike(hospital, "visits", number, number), -1)
    orphan = is_rejected("patients", who.defect)
    rejected = orphan | is_rejected("visits", defect)
    return Visits(
        number, patient, day, type_, department, start, end, status, kept, room, nights, admit, discharge,
        first, last, defect, orphan, rejected, patient_waits, visit_waits,
    )  # fmt: skip
