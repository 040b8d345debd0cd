"""Draws numbers from a seed, counts a hospital's days, and writes both as the texts of landing files.

Every value is a pure function of the seed, the name of what is drawn and the number of the row, in integer arithmetic
throughout. So any date can be drawn without the others, with the same result everywhere.
"""

import datetime
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from faker import Faker

from jobs.dataset import Dataset

DEFAULT_START = datetime.date(2026, 1, 1)
PATIENTS = 5_000  # in the history, at scale 1
COURSES = 13_960  # of care, in the history, at scale 1; they lead to 15,000 visits in all: see hospital.py
HISTORY = 730  # days up to and including START; day 0 is the first of them
START = HISTORY - 1
CHUNK = 100_000  # courses worked on at once

WEEKDAYS = np.array((118, 115, 110, 108, 104, 75, 70))  # load, Monday first; the mean is 100
MONTHS = np.array((112, 110, 104, 98, 96, 93, 90, 90, 96, 101, 103, 107))
CLOCK = pa.array([f"T{minute // 60:02}:{minute % 60:02}:00" for minute in range(1440)])
CENTS = pa.array([f".{cents:02}" for cents in range(100)])


@dataclass(frozen=True)
class Hospital:
    """Describes one hospital by its seed, scale and start, up to the day `today` (START or later)."""

    seed: int
    scale: float
    start: datetime.date
    today: int

    def draw(self, what: str, numbers: np.ndarray) -> np.ndarray:
        """Returns 64 pseudo-random bits for each number (splitmix64); `what` names what is drawn."""
        stream = hashlib.blake2b(f"{self.seed}/{what}".encode(), digest_size=8).digest()
        bits = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(int.from_bytes(stream, "little"))
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return bits ^ (bits >> np.uint64(31))

    def below(self, what: str, numbers: np.ndarray, limit: int | np.ndarray) -> np.ndarray:
        """Returns for each number a whole number from 0 up to, but not including, the limit."""
        high = self.draw(what, numbers) >> np.uint64(32)
        return ((high * np.asarray(limit, np.uint64)) >> np.uint64(32)).astype(np.int64)

    def pick(
        self, what: str, numbers: np.ndarray, weights: Sequence | np.ndarray, of: np.ndarray | int = 0
    ) -> np.ndarray:
        """Returns for each number an index into the weights, drawn with that probability.

        If there are several rows of weights, `of` is the index of the row for each number.
        """
        steps = np.atleast_2d(np.cumsum(weights, axis=-1))[of]
        drawn = self.below(what, numbers, steps[..., -1])
        return (drawn[:, None] >= steps).sum(axis=1)

    def date(self, day: int) -> datetime.date:
        """Returns the date of a day."""
        return self.start + datetime.timedelta(days=day - START)

    def weekday(self, day: np.ndarray) -> np.ndarray:
        """Returns the weekday of each day, Monday as 0."""
        return (day + self.date(0).weekday()) % 7

    @cached_property
    def month(self) -> np.ndarray:
        """Returns the month of each day from day 0 to today, January as 0."""
        return np.array([self.date(day).month - 1 for day in range(self.today + 1)])

    @cached_property
    def load(self) -> np.ndarray:
        """Returns how busy each day from day 0 to today is; 10,000 is usual."""
        return WEEKDAYS[self.weekday(np.arange(self.today + 1))] * MONTHS[self.month]

    def first_numbers(self, history: int) -> np.ndarray:
        """Returns the number of the first newcomer of each day up to tomorrow.

        In the history there are `history` newcomers.
        """
        load = np.cumsum(self.load)  # later days are as dense as those of the history
        return 1 + np.concatenate(([0], load * history // load[START]))

    @cached_property
    def first_patient(self) -> np.ndarray:
        """Returns the number of each day's first new patient.

        Two in five of the patients of the history registered before day 0.
        """
        patients = max(2, round(PATIENTS * self.scale))
        old = max(1, patients * 2 // 5)
        return old + self.first_numbers(patients - old)

    @cached_property
    def first_course(self) -> np.ndarray:
        """Returns the number of the first course of care that begins on each day."""
        return self.first_numbers(max(1, round(COURSES * self.scale)))

    @cached_property
    def cities(self) -> pa.Array:
        """Returns the cities from which patients come; one in ten is written with a comma."""
        faker = Faker("en_US")
        faker.seed_instance(self.seed)
        names = list(dict.fromkeys(faker.city() for _ in range(150)))
        return pa.array([f"{name}, {faker.state_abbr()}" if i % 10 == 9 else name for i, name in enumerate(names)])


def chunks(first: int, end: int) -> Iterator[np.ndarray]:
    """Yields the numbers from `first` up to, but not including, `end`, in chunks that fit into memory."""
    for low in range(first, end, CHUNK):
        yield np.arange(low, min(low + CHUNK, end))


def text(*parts: pa.Array | str) -> pa.Array:
    """Returns the parts of each row, joined."""
    return pc.binary_join_element_wise(*parts, "")


def ids(letters: str, numbers: np.ndarray, digits: int = 8) -> pa.Array:
    """Returns keys in the hospital's form: letters, and at least `digits` digits."""
    return text(letters, pc.utf8_lpad(pa.array(numbers).cast(pa.string()), digits, "0"))


def letters(dataset: Dataset) -> str:
    """Returns the letters with which a dataset's keys begin: those of its key's example, or two of its name."""
    found = re.match("[A-Za-z]+", dataset.columns[0].example)
    return found[0] if found else dataset.name[:2].upper()


def keys(dataset: Dataset, numbers: np.ndarray) -> pa.Array:
    """Returns the keys of a dataset's rows by their numbers."""
    return ids(letters(dataset), numbers)


def dates(hospital: Hospital, days: np.ndarray) -> pa.Array:
    """Returns days, counted from the hospital's day 0, as dates."""
    epoch = (hospital.date(0) - datetime.date(1970, 1, 1)).days
    return pa.array(days + epoch, pa.int32()).cast(pa.date32()).cast(pa.string())


def times(hospital: Hospital, minutes: np.ndarray) -> pa.Array:
    """Returns minutes as timestamps, blank for those after the end of today."""
    happened = minutes // 1440 <= hospital.today
    known = np.where(happened, minutes, 0)
    return pc.if_else(pa.array(happened), text(dates(hospital, known // 1440), CLOCK.take(known % 1440)), "")


def money(cents: np.ndarray) -> pa.Array:
    """Returns cents as amounts with two places; the cents must not be negative."""
    return text(pa.array(cents // 100).cast(pa.string()), CENTS.take(cents % 100))
