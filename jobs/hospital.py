"""Models the hospital behind the landing files: its people, its departments and its courses of care.

A course of care is a visit and what follows from it: an emergency's admission, a stay's readmission. All of it is drawn
by the number of the patient or the course (see drawing.py), so that any date can be written without the others. Figures
without a source are round ones that a general hospital of this size would recognise.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from jobs.defects import is_rejected, strike
from jobs.drawing import START, Hospital

# --- the hospital -------------------------------------------------------------------------------------------

NEVER = 2**40  # a minute that never comes

DECADES = (11, 10, 13, 14, 13, 13, 12, 9, 4, 1)  # patients by decade of age
GENDERS = pa.array(("M", "F", "Other", "Unknown"))
LATE_EVERY = 3  # days; the first patient's row then comes a day late, so that even a small hospital has such rows

OUTPATIENT, EMERGENCY, INPATIENT = range(3)
TYPES = pa.array(("Outpatient", "Emergency", "Inpatient"))
# What opens a course, on a weekday and at the weekend: emergencies come evenly over the week, planned stays do not.
TYPES_BY_DAY = ((62, 25, 13), (55, 39, 6))
HOURS_BY_TYPE = (  # of arrival, from midnight; emergencies are fewest at 4 and most from late morning to evening
    (0, 0, 0, 0, 0, 0, 0, 2, 10, 14, 15, 12, 7, 9, 12, 11, 6, 2, 0, 0, 0, 0, 0, 0),
    (4, 3, 3, 2, 2, 2, 2, 3, 4, 5, 6, 6, 6, 6, 6, 5, 5, 6, 6, 6, 6, 6, 6, 5),
    (1, 1, 1, 1, 1, 1, 3, 9, 12, 11, 10, 8, 6, 6, 6, 5, 4, 4, 3, 2, 2, 1, 1, 1),
)
TREATMENTS_BY_TYPE = ((8, 46, 30, 11, 5), (5, 38, 34, 16, 7), (2, 14, 30, 32, 22))  # visits with none, one, ... four
FEES = np.array((60, 180, 250))
INSURED = np.array((0, 50, 70, 80, 90, 100))  # what a patient's plan pays, in per cent
INSURED_SHARE = (12, 8, 25, 35, 15, 5)

STATUSES = pa.array(("Completed", "Cancelled", "No-show"))
LEFT_EARLY = 3  # of a hundred emergencies; they count as cancelled
# An outpatient is booked on the day itself, as a new patient always is, or less than a week, a month or longer ahead.
# The longer ahead, the more are missed or cancelled; some 7 % are missed in all (NHS England), most around weekends.
LEADS = (10, 30, 35, 25)
CANCELLED_BY_LEAD = np.array((1, 7, 11, 14))  # per cent
MISSED_BY_LEAD = np.array((2, 6, 10, 14))  # per cent
MISSED_BY_WEEKDAY = np.array((130, 90, 80, 85, 120, 125, 125))  # 100 is usual; Monday first

# Hours in the emergency department of those who go home and of those who are admitted, who wait for a bed: about three
# quarters stay less than four hours (NHS England), one in a hundred more than twelve.
HOURS_IN_EMERGENCY = (
    (14, 28, 24, 15, 8, 5, 3, 1, 1, 0, 0, 0, 1),
    (2, 8, 17, 20, 16, 12, 8, 6, 4, 3, 2, 1, 1),
)
ADMITTED = np.array((25, 25, 19, 19, 19, 19, 19, 19, 19, 19, 19, 25))  # of a hundred, by month: more are ill in winter
READMITTED = 10  # of a hundred stays; with patients who come back by chance, 10 to 15 % are within 30 days (CMS)
READMITTED_IN_WEEKS = (38, 27, 20, 15)  # after the discharge: sooner rather than later

ROOMS = pa.array(("General Ward", "Semi-Private", "Private", "ICU", "CCU"))
RATES = np.array((250, 400, 650, 1800, 1600))  # a night
STRETCH = np.array((2, 2, 2, 4, 3))  # halves of the department's usual stay
MOVED = np.array((8, 7, 6, 80, 70))  # of a hundred stays in a room, those that go on in another
NEXT_ROOMS = (  # a patient who gets worse goes to intensive care, one who leaves it to a ward
    (0, 30, 10, 45, 15), (30, 0, 10, 45, 15), (30, 10, 0, 45, 15), (60, 26, 14, 0, 0), (60, 26, 14, 0, 0),
)  # fmt: skip
DAY_CASES = 15  # of a hundred planned stays that begin before 10 o'clock: home the same day
LEAVING_HOURS = (0, 0, 0, 0, 0, 0, 0, 0, 2, 5, 10, 15, 14, 14, 13, 11, 8, 5, 3)  # late morning to afternoon

PAYMENT_STATUSES = pa.array(("Paid", "Pending", "Partial"))
PAYMENTS = (30, 69, 1)  # on leaving, later, never
PAID_IN_WEEKS = (3, 6, 11, 13, 12, 10, 8, 7, 6, 5, 4, 3, 3, 2, 2, 1, 1, 1, 1, 1)  # insurers take one to three months


class Department(NamedTuple):
    """Describes a department: its share of the visits, its usual stay, its rooms and its treatments."""

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

LONGEST = 2 * int(NIGHTS.max()) * 6  # nights of a visit: in intensive care, then on a ward
# Days after its start on which a course of care may still write rows: two longest visits, then the slowest payment.
REACH = 2 * (LONGEST + 2) + 7 * (len(READMITTED_IN_WEEKS) + len(PAID_IN_WEEKS)) + 2


class Patients(NamedTuple):
    """Holds patients as they are registered; `day` is before 0 for those registered before the history."""

    number: np.ndarray
    day: np.ndarray
    birth: np.ndarray
    gender: np.ndarray
    late: np.ndarray  # the row arrives a day after the first visit
    defect: np.ndarray


def patients(hospital: Hospital, number: np.ndarray) -> Patients:
    """Returns the patients of these numbers."""
    day = np.searchsorted(hospital.first_patient, number, side="right") - 1
    first = (number == hospital.first_patient[day]) & ((day - START) % LATE_EVERY == 0)
    late = (first | (hospital.below("late patient", number, 1000) < 15)) & (day >= START)
    day = np.where(day < 0, -1 - hospital.below("registered", number, 3650), day)
    decade = hospital.pick("decade", number, DECADES)
    birth = day - 1 - 3652 * decade - hospital.below("birth", number, 3652)
    gender = hospital.pick("gender", number, (48, 50, 1, 1))
    defect = np.where(late, -1, strike(hospital, "patients", number, number))
    return Patients(number, day, birth, gender, late, defect)


# --- what happens -------------------------------------------------------------------------------------------

OPENING, ADMISSION, READMISSION = range(3)  # a visit's place in its course: its number is 3 * course + place


class Events(NamedTuple):
    """Holds visits as they happen; times are minutes since day 0.

    `at` is the index of the visit's course among the courses asked for.
    """

    number: np.ndarray
    at: np.ndarray
    type: np.ndarray
    department: np.ndarray
    start: np.ndarray
    end: np.ndarray
    status: np.ndarray


class Stays(NamedTuple):
    """Holds stays in a room; `at` is the index of the visit among the visits asked for."""

    number: np.ndarray
    at: np.ndarray
    room: np.ndarray
    admit: np.ndarray
    discharge: np.ndarray


def choose_patients(hospital: Hospital, course: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the patient of each course, a day's new patients first, and whether the patient is new."""
    known = hospital.first_patient[day] - 1
    place = course - hospital.first_course[day]
    is_first = place < hospital.first_patient[day + 1] - hospital.first_patient[day]
    regular = np.clip(10 * hospital.below("regular", course, known // 10 + 1), 1, known)  # every tenth comes often
    anyone = 1 + hospital.below("anyone", course, known)
    returning = np.where(hospital.below("is regular", course, 100) < 35, regular, anyone)
    return np.where(is_first, known + 1 + place, returning), is_first


def choose_departments(hospital: Hospital, number: np.ndarray, day: np.ndarray, who: Patients) -> np.ndarray:
    """Returns a department that suits each patient's age and sex."""
    department = hospital.pick("department", number, SHARE)
    years = (day - who.birth) // 365
    mothers = (who.gender == 1) & (years >= 16) & (years < 48)
    department = np.where((department == MATERNITY) & ~mothers, GENERAL_MEDICINE, department)
    return np.where(years < 16, PEDIATRICS, department)


def open_courses(
    hospital: Hospital, course: np.ndarray, day: np.ndarray, who: Patients, is_first: np.ndarray
) -> Events:
    """Returns the visits with which the courses begin."""
    number = 3 * course + OPENING
    weekday = hospital.weekday(day)
    type_ = hospital.pick("type", number, TYPES_BY_DAY, (weekday >= 5).astype(int))
    department = choose_departments(hospital, number, day, who)
    comes_in = (type_ == EMERGENCY) & (hospital.below("comes in", number, 100) < 75)
    department = np.where(comes_in, EMERGENCY_ROOM, department)
    hour = hospital.pick("hour", number, HOURS_BY_TYPE, type_)
    start = day * 1440 + hour * 60 + hospital.below("minute", number, 60)

    lead = np.where(is_first, 0, hospital.pick("lead", number, LEADS))
    missed, cancelled = MISSED_BY_LEAD[lead] * MISSED_BY_WEEKDAY[weekday], CANCELLED_BY_LEAD[lead] * 100
    drawn = hospital.below("status", number, 10_000)
    booked = np.where(drawn < missed, 2, np.where(drawn < missed + cancelled, 1, 0))
    left = (drawn < LEFT_EARLY * 100).astype(int)
    status = np.choose(type_, (booked, left, np.zeros(len(number), int)))

    hours = hospital.pick("hours", number, HOURS_IN_EMERGENCY, is_admitted(hospital, number, day).astype(int))
    emergency = np.maximum(10, 60 * hours + hospital.below("stay", number, 60))
    end = start + np.where(type_ == EMERGENCY, emergency, 12 + hospital.below("stay", number, 72))
    inside = type_ == INPATIENT
    end[inside] = end_stays(hospital, number[inside], department[inside], start[inside])
    end[status > 0] = NEVER
    return Events(number, np.arange(len(number)), type_, department, start, end, status)


def admit_emergencies(hospital: Hospital, opening: Events, who: Patients) -> Events:
    """Returns the admissions that follow from some of the emergencies."""
    completed = (opening.type == EMERGENCY) & (opening.status == 0)
    at = np.flatnonzero(completed & is_admitted(hospital, opening.number, opening.start // 1440))
    number = opening.number[at] + ADMISSION
    start = opening.end[at] + hospital.below("handed over", number, 20)
    department = choose_departments(hospital, number, start // 1440, Patients(*(a[at] for a in who)))
    return happen_inside(hospital, number, at, department, start)


def readmit(hospital: Hospital, earlier: Events) -> Events:
    """Returns the readmissions, to the same department, after some of the stays."""
    readmitted = hospital.below("readmitted", earlier.number, 100) < READMITTED
    at = np.flatnonzero((earlier.type == INPATIENT) & readmitted)
    number = earlier.number[at] // 3 * 3 + READMISSION
    days = 1 + 7 * hospital.pick("week back", number, READMITTED_IN_WEEKS) + hospital.below("day back", number, 7)
    hour = hospital.pick("hour", number, HOURS_BY_TYPE[INPATIENT])
    start = (earlier.end[at] // 1440 + days) * 1440 + hour * 60 + hospital.below("minute", number, 60)
    return happen_inside(hospital, number, earlier.at[at], earlier.department[at], start)


def happen_inside(
    hospital: Hospital, number: np.ndarray, at: np.ndarray, department: np.ndarray, start: np.ndarray
) -> Events:
    """Returns visits of inpatients."""
    end = end_stays(hospital, number, department, start)
    zeros = np.zeros(len(number), int)
    return Events(number, at, zeros + INPATIENT, department, start, end, zeros)


def is_admitted(hospital: Hospital, number: np.ndarray, day: np.ndarray) -> np.ndarray:
    """Returns for each emergency whether an admission follows, provided that the patient does not leave before."""
    return hospital.below("admitted", number, 100) < ADMITTED[hospital.month[day]]


def end_stays(hospital: Hospital, number: np.ndarray, department: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Returns the minutes at which inpatients' visits end: soon after the discharge from the last room."""
    stay, end = list_stays(hospital, number, department, start), start.copy()
    np.maximum.at(end, stay.at, stay.discharge)
    return end + hospital.below("leaves", number, 45)


def list_stays(hospital: Hospital, number: np.ndarray, department: np.ndarray, start: np.ndarray) -> Stays:
    """Returns the stays of inpatients' visits: the first of each visit, then the second of patients who are moved."""
    place = number % 3
    wait = np.where(place == ADMISSION, 5, 30) + hospital.below("admit", number, np.where(place == ADMISSION, 30, 210))
    room = hospital.pick("room", number, ROOMS_BY_DEPARTMENT, department)
    first = stay_in(hospital, 2 * number, department, room, start + wait)
    mornings = (place == OPENING) & (start % 1440 < 600)
    day_case = mornings & (hospital.below("day case", number, 100) < DAY_CASES)
    short = first.admit + 180 + hospital.below("day case ends", number, 300)
    first = first._replace(discharge=np.where(day_case, short, first.discharge))

    at = np.flatnonzero(~day_case & (hospital.below("moved", number, 100) < MOVED[room]))
    next_room = hospital.pick("next room", number[at], NEXT_ROOMS, room[at])
    arrive = first.discharge[at] + 10 + hospital.below("on the way", number[at], 170)
    second = stay_in(hospital, 2 * number[at] + 1, department[at], next_room, arrive)
    return Stays(*map(np.concatenate, zip(first, second._replace(at=at), strict=True)))


def stay_in(
    hospital: Hospital, number: np.ndarray, department: np.ndarray, room: np.ndarray, admit: np.ndarray
) -> Stays:
    """Returns stays of a night or more in these rooms."""
    longest = hospital.below("longest", number, NIGHTS[department] * STRETCH[room] * 2)
    nights = 1 + hospital.below("nights", number, 1 + longest)
    minute = 60 * hospital.pick("leaving hour", number, LEAVING_HOURS) + hospital.below("leaving minute", number, 60)
    return Stays(number, np.arange(len(number)), room, admit, (admit // 1440 + nights) * 1440 + minute)


# --- how rows are sent --------------------------------------------------------------------------------------


class Visits(NamedTuple):
    """Holds visits, and what decides about their rows and those that refer to them; times are minutes since day 0."""

    number: np.ndarray
    patient: np.ndarray
    day: np.ndarray  # of the start
    type: np.ndarray
    department: np.ndarray
    start: np.ndarray
    end: np.ndarray
    status: np.ndarray
    kept: np.ndarray
    first: np.ndarray  # the day whose file brings the row
    last: np.ndarray  # the day whose file brings it for the last time
    defect: np.ndarray
    orphan: np.ndarray  # the patient's row is rejected
    rejected: np.ndarray  # the visit's row is never accepted
    patient_waits: np.ndarray  # the patient's row comes on the day after `day`
    visit_waits: np.ndarray


def visits(hospital: Hospital, course: np.ndarray) -> Visits:
    """Returns the visits of these courses, in the order of their numbers."""
    day = np.searchsorted(hospital.first_course, course, side="right") - 1
    patient, is_first = choose_patients(hospital, course, day)
    who = patients(hospital, patient)
    opening = open_courses(hospital, course, day, who, is_first)
    admission = admit_emergencies(hospital, opening, who)
    inside = Events(*map(np.concatenate, zip(opening, admission, strict=True)))
    happened = Events(*map(np.concatenate, zip(inside, readmit(hospital, inside), strict=True)))
    order = np.argsort(happened.number)
    happened = Events(*(a[order] for a in happened))
    return send(hospital, happened, Patients(*(a[happened.at] for a in who)))


def send(hospital: Hospital, happened: Events, who: Patients) -> Visits:
    """Returns the visits with the days whose files bring them, and with their defects."""
    number, _, type_, department, start, end, status = happened
    day, kept = start // 1440, status == 0
    patient_waits = who.late & (day == who.day)
    visit_waits = (hospital.below("late visit", number, 1000) < 20) & (end // 1440 == day) & (day >= START)
    visit_waits &= ~patient_waits
    first = np.maximum(day + visit_waits, START)
    last = np.where(kept, np.maximum(end // 1440, first), first)
    # A visit that is sent again would be accepted then: only one that is sent once can be rejected for good.
    strikes = (first == last) & ~visit_waits & ~patient_waits
    places = np.where(number % 3 == OPENING, number // 3, -1)
    defect = np.where(strikes, strike(hospital, "visits", number, places), -1)
    orphan = is_rejected("patients", who.defect)
    rejected = orphan | is_rejected("visits", defect)
    return Visits(
        number, who.number, day, type_, department, start, end, status, kept,
        first, last, defect, orphan, rejected, patient_waits, visit_waits,
    )  # fmt: skip
