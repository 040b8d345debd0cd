"""Writes the rows of the five datasets for a date, as the hospital's people and visits make them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.catalog import CATALOG
from jobs.defects import strike
from jobs.drawing import START, dates, ids, keys, money, times
from jobs.further import Base, Columns
from jobs.hospital import (
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
    ROOMS,
    STATUSES,
    TREATMENTS_BY_TYPE,
    TYPES,
    Patients,
    Visits,
    list_stays,
)
from jobs.landing_writer import LandingFile


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
    neither = np.zeros(len(number), bool)  # a patient has no parent: none is an orphan, and none waits
    file.add(columns, number, neither, neither, people.defect)


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
