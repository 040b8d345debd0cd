"""Computes in plain Python what the marts of patient flow and receivables must be for given gold.

Written from the definitions, row by row; shares nothing with sql/. A census counts who is present at a midnight, and a
balance adds up what is open at it, where the marts keep running sums.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

from tests.support.model import Gold, four_decimals, total

Rows = list[dict[str, Any]]
DAY = timedelta(days=1)
NEVER = date(9999, 12, 31)
CALENDAR = timedelta(days=36525)  # census and balance tell no day that is further back; what it brought counts later
BUCKETS = (
    ("not yet due", None, -1),
    ("0\u201330", 0, 30),
    ("31\u201360", 31, 60),
    ("61\u201390", 61, 90),
    ("91\u2013120", 91, 120),
    ("over 120", 121, None),
)


class Beds(NamedTuple):
    room_type: str
    beds: int
    out_of_service: int
    valid_from: date
    valid_to: date | None


def marts(tables: Gold, beds: Sequence[Beds] = ()) -> dict[str, Rows]:
    """Returns the rows of each of these marts; a day is a day in UTC."""
    as_of = max((row["_partition_date"] for rows in tables.values() for row in rows), default=None)
    if as_of is None:
        return {name: [] for name in NAMES}
    episodes = find_episodes(tables)
    bills = join_bills(tables)
    return {
        "mart_episode_stays": [stay_row(stay, episode) for episode in episodes for stay in episode],
        "mart_episodes": [episode_row(episode) for episode in episodes],
        "mart_daily_census": census(episodes, as_of, beds),
        "mart_stays": stays(episodes),
        "mart_readmissions": readmissions(episodes, as_of),
        "mart_emergency_flow": emergency_flow(tables, episodes),
        "mart_emergency_minutes": emergency_minutes(tables),
        "mart_appointments": appointments(tables, as_of),
        "mart_doctor_days": doctor_days(tables),
        "mart_bill_days": bill_days(bills),
        "mart_receivables": receivables(bills, as_of),
        "mart_receivables_ageing": ageing(bills, as_of),
        "mart_collections": collections(tables, bills, as_of),
        "mart_payment_days": payment_days(bills, as_of),
    }


NAMES = (
    "mart_episode_stays",
    "mart_episodes",
    "mart_daily_census",
    "mart_stays",
    "mart_readmissions",
    "mart_emergency_flow",
    "mart_emergency_minutes",
    "mart_appointments",
    "mart_doctor_days",
    "mart_bill_days",
    "mart_receivables",
    "mart_receivables_ageing",
    "mart_collections",
    "mart_payment_days",
)


def midnight(day: date) -> datetime:
    """Returns the midnight that ends a day."""
    return datetime.combine(day, datetime.min.time()) + DAY


def days_between(first: date, last: date) -> Iterator[date]:
    for number in range((last - first).days + 1):
        yield first + number * DAY


def month(day: date) -> date:
    return day.replace(day=1)


def grouped(rows: Iterable[Any], key: Any) -> dict[Any, list[Any]]:
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


# ---- episodes of care ------------------------------------------------------------------------------------------------


def find_episodes(tables: Gold) -> list[Rows]:
    """Returns the stays of each episode, the first stay first."""
    visits = {visit["visit_id"]: visit for visit in tables["visits"]}
    of_patient = grouped(
        [
            stay | {name: visits[stay["visit_id"]][name] for name in ("patient_id", "department")}
            for stay in tables["admissions"]
        ],
        lambda stay: stay["patient_id"],
    )
    episodes = []
    for own in of_patient.values():
        own.sort(key=lambda stay: (stay["admit_ts"], stay["admission_id"]))
        for stay in own:
            later = [other["admit_ts"] for other in own if other["admit_ts"] > stay["admit_ts"]]
            stay["lost"] = bool(
                stay["discharge_ts"] is None and later and min(later) - stay["admit_ts"] > timedelta(days=180)
            )
            stay["end"] = min(later) if stay["lost"] else stay["discharge_ts"]
        for stay in own:
            before = episodes[-1] if episodes and episodes[-1][0]["patient_id"] == stay["patient_id"] else []
            if any(takes_in(other, stay) for other in before):
                before.append(stay)
            else:
                episodes.append([stay])
    return episodes


def takes_in(earlier: dict[str, Any], stay: dict[str, Any]) -> bool:
    if earlier["lost"]:
        return earlier["admit_ts"] == stay["admit_ts"]
    return earlier["end"] is None or stay["admit_ts"] <= earlier["end"] + timedelta(hours=7)


def last_of(episode: Rows) -> dict[str, Any]:
    """Returns the stay with which an episode ends."""
    return max(
        episode,
        key=lambda stay: (stay["end"] is None, stay["end"] or datetime.min, stay["admit_ts"], stay["admission_id"]),
    )


def stay_row(stay: dict[str, Any], episode: Rows) -> dict[str, Any]:
    names = ("admission_id", "patient_id", "visit_id", "department", "room_type", "admit_ts")
    return {name: stay[name] for name in names} | {
        "ended": stay["end"],
        "end_is_assumed": stay["lost"],
        "episode_started": episode[0]["admit_ts"],
        "is_first": stay is episode[0],
        "is_last": stay is last_of(episode),
    }


def los_days(episode: Rows) -> int | None:
    """Returns the days from date to date, at least one; None if the end is not known."""
    last = last_of(episode)
    if last["end"] is None or last["lost"]:
        return None
    return max(1, (last["end"].date() - episode[0]["admit_ts"].date()).days)


def is_same_day(episode: Rows) -> bool:
    return last_of(episode)["end"].date() == episode[0]["admit_ts"].date()


def episode_row(episode: Rows) -> dict[str, Any]:
    first, last, length = episode[0], last_of(episode), los_days(episode)
    seconds = (
        None if length is None else Fraction((last["end"] - first["admit_ts"]) // timedelta(microseconds=1), 10**6)
    )
    row = {"patient_id": first["patient_id"], "started": first["admit_ts"], "ended": last["end"]}
    for name in ("admission_id", "visit_id", "department", "room_type"):
        row |= {f"first_{name}": first[name], f"last_{name}": last[name]}
    return row | {
        "rooms": len({stay["room_type"] for stay in episode}),
        "stays": len(episode),
        "hours": None if seconds is None else four_decimals(seconds / 3600),
        "los_days": length,
        "same_day": None if length is None else is_same_day(episode),
        "end_is_assumed": last["lost"],
        "icu_contact": any(stay["room_type"] == "ICU" for stay in episode),
    }


# ---- beds ------------------------------------------------------------------------------------------------------------


def is_present(start: datetime, end: datetime | None, at: datetime) -> bool:
    return start < at and (end is None or end >= at)


def census(episodes: list[Rows], as_of: date, beds: Sequence[Beds]) -> Rows:
    stays = [(stay, episode) for episode in episodes for stay in episode]
    if not stays:
        return []
    room_types = {stay["room_type"] for stay, _ in stays} | {each.room_type for each in beds}
    rows = []
    oldest = max(min(stay["admit_ts"] for stay, _ in stays).date(), as_of - CALENDAR)
    for day in days_between(oldest, as_of):
        of_day = {room_type: room_row(room_type, day, oldest, stays) for room_type in sorted(room_types)}
        for room_type, row in of_day.items():
            valid = [
                each
                for each in beds
                if each.room_type == room_type and each.valid_from <= day <= (each.valid_to or date.max)
            ]
            row["beds"] = valid[0].beds if valid else None
            row["available_beds"] = valid[0].beds - valid[0].out_of_service if valid else None
        whole = hospital_row(day, oldest, episodes)
        known = [row for row in of_day.values() if row["beds"] is not None]
        lacking = any(row["beds"] is None and row["patient_days"] for row in of_day.values())
        for name in ("beds", "available_beds"):
            whole[name] = None if lacking or not known else sum(row[name] for row in known)
        rows += [*of_day.values(), whole]
    for row in rows:
        share = Fraction(100 * row["patient_days"], row["available_beds"]) if row["available_beds"] else None
        row["occupancy_pct"] = four_decimals(share)
    return rows


def counts_on(time: datetime | None, day: date, oldest: date) -> bool:
    """Tells whether a time is on this day; times before the oldest day count as on the oldest day."""
    return time is not None and max(time.date(), oldest) == day


def count_same_day(spans: Iterable[tuple[datetime, datetime | None]], day: date, oldest: date) -> int:
    return sum(counts_on(start, day, oldest) and end is not None and end.date() == start.date() for start, end in spans)


def room_row(room_type: str, day: date, oldest: date, stays: list[tuple[dict[str, Any], Rows]]) -> dict[str, Any]:
    own = [(stay, episode) for stay, episode in stays if stay["room_type"] == room_type]
    came = [stay is episode[0] for stay, episode in own if counts_on(stay["admit_ts"], day, oldest)]
    left = [stay is last_of(episode) for stay, episode in own if counts_on(stay["end"], day, oldest)]
    present = sum(is_present(stay["admit_ts"], stay["end"], midnight(day)) for stay, _ in own)
    same_day = count_same_day([(stay["admit_ts"], stay["end"]) for stay, _ in own], day, oldest)
    return {
        "census_date": day,
        "room_type": room_type,
        "admissions": came.count(True),
        "discharges": left.count(True),
        "transfers_in": came.count(False),
        "transfers_out": left.count(False),
        "midnight_census": present,
        "same_day": same_day,
        "patient_days": present + same_day,
    }


def hospital_row(day: date, oldest: date, episodes: list[Rows]) -> dict[str, Any]:
    spans = [(episode[0]["admit_ts"], last_of(episode)["end"]) for episode in episodes]
    present = sum(is_present(start, end, midnight(day)) for start, end in spans)
    same_day = count_same_day(spans, day, oldest)
    return {
        "census_date": day,
        "room_type": "*",
        "admissions": sum(counts_on(start, day, oldest) for start, _ in spans),
        "discharges": sum(counts_on(end, day, oldest) for _, end in spans),
        "transfers_in": 0,
        "transfers_out": 0,
        "midnight_census": present,
        "same_day": same_day,
        "patient_days": present + same_day,
    }


# ---- lengths of stay, readmissions -----------------------------------------------------------------------------------


def discharged(episodes: list[Rows]) -> dict[tuple[date, str], list[Rows]]:
    """Returns the episodes with a known end, by month and department of their discharge."""
    known = [episode for episode in episodes if los_days(episode) is not None]
    return grouped(known, lambda episode: (month(last_of(episode)["end"].date()), last_of(episode)["department"]))


def stays(episodes: list[Rows]) -> Rows:
    return [
        {
            "discharge_month": when,
            "department": department,
            "los_days": length,
            "discharges": len(same),
            "same_day_discharges": sum(map(is_same_day, same)),
        }
        for (when, department), own in discharged(episodes).items()
        for length, same in grouped(own, los_days).items()
    ]


def readmissions(episodes: list[Rows], as_of: date) -> Rows:
    starts = grouped(
        [episode for episode in episodes if not last_of(episode)["lost"]], lambda episode: episode[0]["patient_id"]
    )

    def is_followed(episode: Rows, days: int) -> bool:
        end = last_of(episode)["end"]
        later = [other[0]["admit_ts"] for other in starts[episode[0]["patient_id"]] if other[0]["admit_ts"] > end]
        return any(0 <= (start.date() - end.date()).days <= days for start in later)

    rows = []
    for (when, department), own in discharged(episodes).items():
        old = [episode for episode in own if (as_of - last_of(episode)["end"].date()).days >= 30]
        rows.append(
            {
                "discharge_month": when,
                "department": department,
                "index_episodes": len(own),
                "followed_up": len(old),
                "readmitted_7d": sum(is_followed(episode, 7) for episode in old),
                "readmitted_30d": sum(is_followed(episode, 30) for episode in old),
            }
        )
    return rows


# ---- visits ----------------------------------------------------------------------------------------------------------


def minutes_of(visit: dict[str, Any]) -> Fraction | None:
    if visit["visit_end_ts"] is None:
        return None
    return Fraction((visit["visit_end_ts"] - visit["visit_start_ts"]) // timedelta(microseconds=1), 60 * 10**6)


def emergencies(tables: Gold) -> Rows:
    return [visit for visit in tables["visits"] if visit["visit_type"] == "Emergency"]


def emergency_flow(tables: Gold, episodes: list[Rows]) -> Rows:
    starts = [(episode[0]["patient_id"], episode[0]["admit_ts"]) for episode in episodes]

    def is_admitted(visit: dict[str, Any]) -> bool:
        start, end = visit["visit_start_ts"], visit["visit_end_ts"]
        return end is not None and any(
            patient == visit["patient_id"] and start <= when <= end + timedelta(hours=1) for patient, when in starts
        )

    rows = []
    for day, arrived in grouped(emergencies(tables), lambda visit: visit["visit_start_ts"].date()).items():
        completed = [visit for visit in arrived if visit["status"] == "Completed"]
        times = [minutes for minutes in map(minutes_of, completed) if minutes is not None]
        rows.append(
            {
                "arrival_date": day,
                "arrivals": len(arrived),
                "completed": len(completed),
                "left_early": sum(visit["status"] in ("Cancelled", "No-show") for visit in arrived),
                "unknown_end": len(completed) - len(times),
                "within_4h": sum(minutes <= 240 for minutes in times),
                "over_12h": sum(minutes > 720 for minutes in times),
                "admitted": sum(map(is_admitted, arrived)),
            }
        )
    return rows


def emergency_minutes(tables: Gold) -> Rows:
    found = Counter(
        (month(visit["visit_start_ts"].date()), int(minutes // 10) * 10)
        for visit in emergencies(tables)
        if visit["status"] == "Completed" and (minutes := minutes_of(visit)) is not None
    )
    return [{"arrival_month": when, "minutes": step, "visits": visits} for (when, step), visits in found.items()]


def appointments(tables: Gold, as_of: date) -> Rows:
    booked = [
        visit
        for visit in tables["visits"]
        if visit["visit_type"] == "Outpatient" and visit["visit_start_ts"] < midnight(as_of)
    ]
    rows = []
    for (day, department), own in grouped(booked, lambda v: (v["visit_start_ts"].date(), v["department"])).items():
        status = Counter(visit["status"] for visit in own)
        rows.append(
            {
                "visit_date": day,
                "department": department,
                "booked": len(own),
                "kept": status["Completed"],
                "missed": status["No-show"],
                "cancelled": status["Cancelled"],
            }
        )
    return rows


def doctor_days(tables: Gold) -> Rows:
    rows = []
    by_doctor = grouped(
        tables["visits"], lambda v: (v["visit_start_ts"].date(), v["doctor_id"] or "(none)", v["department"])
    )
    for (day, doctor, department), own in by_doctor.items():
        status = Counter(visit["status"] for visit in own)
        spans = [(visit["visit_start_ts"], visit["visit_end_ts"]) for visit in own if visit["visit_end_ts"]]
        times = sorted({time for span in spans for time in span})
        covered = [
            later - earlier
            for earlier, later in pairwise(times)
            if any(start <= earlier and later <= end for start, end in spans)
        ]
        seconds = Fraction(sum(covered, timedelta()) // timedelta(microseconds=1), 10**6)
        rows.append(
            {
                "visit_date": day,
                "doctor_id": doctor,
                "department": department,
                "visits": len(own),
                "kept": status["Completed"],
                "missed": status["No-show"],
                "patients": len({visit["patient_id"] for visit in own}),
                "minutes": four_decimals(seconds / 60),
            }
        )
    return rows


# ---- bills -----------------------------------------------------------------------------------------------------------


def cents(amount: Fraction) -> Decimal:
    return Decimal(int(amount * 100 + Fraction(1, 2))).scaleb(-2)


def join_bills(tables: Gold) -> Rows:
    """Bills with the days that they are counted by."""
    visits = {visit["visit_id"]: visit for visit in tables["visits"]}
    bills = []
    for bill in tables["billing"]:
        visit = visits[bill["visit_id"]]
        start, end = visit["visit_start_ts"], visit["visit_end_ts"] or visit["visit_start_ts"]
        insurance, own = max(bill["insurance_amount"] or 0, 0), bill["patient_amount"] or 0
        is_paid = bill["payment_status"] == "Paid" and bill["payment_ts"] is not None
        paid_on = max(bill["payment_ts"].date(), start.date()) if is_paid else NEVER
        insurer = None
        if insurance + own and not (is_paid and paid_on <= bill["_partition_date"]):
            insurer = cents(Fraction(bill["total_amount"]) * Fraction(insurance) / Fraction(insurance + own))
        bills.append(
            bill
            | {
                "start": start,
                "day": start.date(),
                "end_date": end.date(),
                "paid_on": paid_on,
                "insurer": insurer or Decimal(),
                "patient": Decimal() if insurer is None else bill["total_amount"] - insurer,
            }
        )
    return bills


def is_open(bill: dict[str, Any], at: datetime) -> bool:
    if bill["start"] >= at:
        return False
    return bill["payment_status"] != "Paid" or bill["payment_ts"] is None or bill["payment_ts"] >= at


def amount(bills: Iterable[dict[str, Any]]) -> Decimal:
    return total(bill["total_amount"] for bill in bills)


def bill_days(bills: Rows) -> Rows:
    return [
        {
            "visit_date": day,
            "end_date": end,
            "payment_status": status,
            "paid_on": paid_on,
            "bills": len(own),
            "billed": amount(own),
            "insurer_part": total(bill["insurer"] for bill in own),
            "patient_part": total(bill["patient"] for bill in own),
        }
        for (day, end, status, paid_on), own in grouped(
            bills, lambda bill: (bill["day"], bill["end_date"], bill["payment_status"], bill["paid_on"])
        ).items()
    ]


def receivables(bills: Rows, as_of: date) -> Rows:
    if not bills:
        return []
    oldest = max(min(bill["day"] for bill in bills), as_of - CALENDAR)
    return [
        {
            "day": day,
            "billed": amount(bill for bill in bills if max(bill["day"], oldest) == day),
            "paid": amount(bill for bill in bills if max(bill["paid_on"], oldest) == day),
            "balance": amount(bill for bill in bills if is_open(bill, midnight(day))),
        }
        for day in days_between(oldest, as_of)
    ]


def ageing(bills: Rows, as_of: date) -> Rows:
    owed = [bill for bill in bills if is_open(bill, midnight(as_of))]
    rows = []
    for place, (bucket, low, high) in enumerate(BUCKETS, start=1):
        own = [
            bill
            for bill in owed
            if (low is None or (as_of - bill["end_date"]).days >= low)
            and (high is None or (as_of - bill["end_date"]).days <= high)
        ]
        rows.append(
            {
                "bucket": bucket,
                "bucket_order": place,
                "days_from": low,
                "days_to": high,
                "bills": len(own),
                "balance": amount(own),
                "partial_balance": amount(bill for bill in own if bill["payment_status"] == "Partial"),
                "insurer_balance": total(bill["insurer"] for bill in own),
                "patient_balance": total(bill["patient"] for bill in own),
            }
        )
    return rows


def collections(tables: Gold, bills: Rows, as_of: date) -> Rows:
    days = grouped({visit["visit_start_ts"].date() for visit in tables["visits"]}, month)
    rows = []
    for when, of_month in days.items():
        past = [day for day in of_month if day <= as_of]
        if not past:
            continue
        own = [bill for bill in bills if bill["day"] in past]
        row = {"visit_month": when, "billed": amount(own)}
        for limit in (30, 60, 90):
            is_old = all((as_of - day).days >= limit for day in past)
            paid = amount(bill for bill in own if (bill["paid_on"] - bill["day"]).days <= limit)
            row[f"paid_{limit}d"] = paid if is_old else None
        rows.append(row)
    return rows


def payment_days(bills: Rows, as_of: date) -> Rows:
    paid = [bill for bill in bills if bill["paid_on"] <= as_of]
    return [
        {"visit_month": when, "days": days, "bills": len(own), "amount": amount(own)}
        for (when, days), own in grouped(
            paid, lambda bill: (month(bill["day"]), (bill["paid_on"] - bill["day"]).days)
        ).items()
    ]
