"""Measures a generated hospital as its director would, in plain Python over sound rows: nothing of the jobs is used.

    python -m tests.support.hospital_figures data/raw 2026-01-01

prints the measures of a date's history, among them the beds in use at midnight by room type in winter and in summer.
"""

import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from pathlib import Path
from statistics import mean, quantiles
from typing import NamedTuple

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WINTER, SUMMER = (12, 1, 2), (6, 7, 8)
Row = dict[str, str]
Rows = dict[str, list[Row]]


class Stay(NamedTuple):
    """Represents a stay in a room; `end` is None while the patient is in it."""

    patient: str
    visit: str
    start: datetime
    end: datetime | None
    room: str


def sound_rows(landing: Path, day: date) -> Rows:
    """Returns a plain date's rows by dataset, without those that its manifest names; of two copies the first stays."""
    folder = landing / f"{day:%Y/%m/%d}"
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        bad = {(row["dataset"], row["row"]) for row in csv.DictReader(file) if not row["resolved_on"]}
    rows: Rows = {}
    for name in ("patients", "visits", "admissions", "treatments", "billing"):
        with (folder / f"{name}.csv").open(encoding="utf-8-sig", newline="") as file:
            records = enumerate(csv.DictReader(file), 1)
            sound = [row for number, row in records if (name, str(number)) not in bad]
        key = f"{ {'patients': 'patient', 'billing': 'bill'}.get(name, name[:-1]) }_id"
        rows[name] = list({row[key]: row for row in reversed(sound)}.values())[::-1]
    return rows


def moment(text: str) -> datetime | None:
    """Returns a timestamp's moment; None where it is blank."""
    return datetime.fromisoformat(text) if text else None


def start_of(visit: Row) -> datetime:
    """Returns when a visit starts."""
    return datetime.fromisoformat(visit["visit_start_ts"])


def list_stays(rows: Rows) -> list[Stay]:
    """Returns all stays in the order in which they begin."""
    patients = {visit["visit_id"]: visit["patient_id"] for visit in rows["visits"]}
    stays = [
        Stay(patients[row["visit_id"]], row["visit_id"], start, moment(row["discharge_ts"]), row["room_type"])
        for row in rows["admissions"]
        if row["visit_id"] in patients and (start := moment(row["admit_ts"]))
    ]
    return sorted(stays, key=lambda stay: stay.start)


def list_episodes(stays: Iterable[Stay]) -> list[list[Stay]]:
    """Returns stays of one patient that follow each other within seven hours, in the order in which they begin."""
    episodes: list[list[Stay]] = []
    newest: dict[str, tuple[list[Stay], datetime]] = {}
    for stay in stays:
        episode, end = newest.get(stay.patient, ([], datetime.min))
        if stay.start - 7 * HOUR > end:
            episode, end = [], datetime.min
        if not episode:
            episodes.append(episode)
        episode.append(stay)
        newest[stay.patient] = episode, max(end, stay.end or datetime.max)
    return episodes


def end_of(episode: list[Stay]) -> datetime | None:
    """Returns when an episode ends; None while it is open."""
    ends = [stay.end for stay in episode]
    return None if None in ends else max(end for end in ends if end)


def share_admitted(rows: Rows) -> float:
    """Returns the share of emergencies with an episode of the patient from their start to an hour after their end."""
    starts = defaultdict(list)
    for episode in list_episodes(list_stays(rows)):
        starts[episode[0].patient].append(episode[0].start)
    return mean(
        any(start_of(visit) <= start <= (moment(visit["visit_end_ts"]) or datetime.min) + HOUR for start in found)
        for visit in rows["visits"]
        if visit["visit_type"] == "Emergency"
        for found in [starts[visit["patient_id"]]]
    )


def emergency_minutes(rows: Rows) -> list[float]:
    """Returns how many minutes each completed emergency took."""
    return [
        (end - start_of(visit)) / HOUR * 60
        for visit in rows["visits"]
        if visit["visit_type"] == "Emergency" and (end := moment(visit["visit_end_ts"]))
    ]


def share_moved(rows: Rows) -> float:
    """Returns the share of stays that begin within seven hours of the patient's discharge from another room."""
    stays, moved = list_stays(rows), 0
    earlier: dict[str, Stay] = {}
    for stay in stays:
        last = earlier.get(stay.patient)
        moved += bool(last and last.end and last.room != stay.room and last.end <= stay.start <= last.end + 7 * HOUR)
        earlier[stay.patient] = stay
    return moved / len(stays)


def share_readmitted(rows: Rows, days: int, up_to: date) -> float:
    """Returns the share of episodes ended by a date whose patient began another within so many days."""
    by_patient = defaultdict(list)
    for episode in list_episodes(list_stays(rows)):
        by_patient[episode[0].patient].append(episode)
    found = []
    for episodes in by_patient.values():
        for number, episode in enumerate(episodes):
            end = end_of(episode)
            if end and end.date() <= up_to:
                gaps = [(later[0].start.date() - end.date()).days for later in episodes[number + 1 :]]
                found.append(any(0 <= gap <= days for gap in gaps))
    return mean(found)


def share_missed(visits: Iterable[Row]) -> float:
    """Returns the did-not-attend rate: missed outpatient appointments among those missed or kept."""
    statuses = Counter(visit["status"] for visit in visits if visit["visit_type"] == "Outpatient")
    return statuses["No-show"] / (statuses["No-show"] + statuses["Completed"])


def census(rows: Rows, days: Iterable[date]) -> dict[date, Counter[str]]:
    """Returns how many are in each room type at the midnight that ends each day, `*` for all."""
    present = {day: Counter[str]() for day in days}
    for stay in list_stays(rows):
        day, last = stay.start.date(), (stay.end.date() if stay.end else max(present) + DAY)
        while day < last:
            if day in present:
                present[day].update((stay.room, "*"))
            day += DAY
    return present


def receivable(rows: Rows, day: date) -> list[tuple[int, float]]:
    """Returns the age in days, since the visit's end, and the amount of each bill that is open after a day."""
    ends = {visit["visit_id"]: moment(visit["visit_end_ts"]) or start_of(visit) for visit in rows["visits"]}
    return [
        ((day - ends[bill["visit_id"]].date()).days, float(bill["total_amount"]))
        for bill in rows["billing"]
        if bill["visit_id"] in ends and bill["payment_status"] != "Paid"
    ]


def describe(landing: Path, start: date) -> Iterable[str]:
    """Yields a line for each measure of a history of two years."""
    rows = sound_rows(landing, start)
    minutes, stays = emergency_minutes(rows), list_stays(rows)
    episodes = [(episode[0].start, end) for episode in list_episodes(stays) if (end := end_of(episode))]
    open_bills, days = receivable(rows, start), [start - number * DAY for number in range(700)]
    yield f"rows: { ({name: len(each) for name, each in rows.items()}) }"
    yield f"emergencies admitted within the hour: {share_admitted(rows):.1%}"
    yield f"emergencies within four hours: {mean(each <= 240 for each in minutes):.1%}"
    yield f"emergencies over twelve hours: {mean(each > 720 for each in minutes):.1%}"
    yield f"stays that are transfers: {share_moved(rows):.1%}"
    yield f"length of episodes: {mean((end.date() - begun.date()).days for begun, end in episodes):.2f} days"
    yield f"readmitted within 7 days: {share_readmitted(rows, 7, start - 30 * DAY):.1%}"
    yield f"readmitted within 30 days: {share_readmitted(rows, 30, start - 30 * DAY):.1%}"
    yield f"discharged from 10 to 17: {mean(10 <= stay.end.hour < 17 for stay in stays if stay.end):.1%}"
    for weekday, name in enumerate(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]):
        yield f"missed on {name}: {share_missed(v for v in rows['visits'] if start_of(v).weekday() == weekday):.1%}"
    owing = sum(amount for _, amount in open_bills)
    yield f"owing for more than 90 days: {sum(amount for age, amount in open_bills if age > 90) / owing:.1%}"
    yield f"open bills: {len(open_bills) / len(rows['billing']):.1%}"
    for name, months in {"winter": WINTER, "summer": SUMMER}.items():
        counts = census(rows, [day for day in days if day.month in months]).values()
        for room in ("*", "General Ward", "Semi-Private", "Private", "ICU", "CCU"):
            found = [count[room] for count in counts]
            middle, p95 = quantiles(found, n=100, method="inclusive")[49:95:45]
            yield f"census in {name}, {room}: mean {mean(found):.1f}, median {middle:g}, p95 {p95:g}, max {max(found)}"


if __name__ == "__main__":
    for line in describe(Path(sys.argv[1]), date.fromisoformat(sys.argv[2])):
        print(line)
