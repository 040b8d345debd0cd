"""Draws rows of datasets that have no writer of their own, from their declarations alone.

A row is based on something that happens in the hospital: on a row of a parent, or on a time of its own. Its values
are drawn by type, in several ways one after the other until the row obeys the dataset's rules. Columns of a rule that
only Spark can evaluate keep their `example`, so that such a rule holds if it holds for the examples.
"""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.catalog import CATALOG
from jobs.dataset import Column, Dataset
from jobs.drawing import DEFAULT_START, START, Hospital, dates, keys, money, text, times
from jobs.verdicts import verdicts

Columns = dict[str, pa.Array]
SAMPLE = 60  # rows


class Base(NamedTuple):
    """Holds what rows are based on: their numbers, their patients, and the first and last minutes of their times."""

    number: np.ndarray
    patient: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def take(self, at: np.ndarray) -> "Base":
        """Returns the elements at these places, or those for which a mask is true."""
        return Base(*(array[at] for array in self))


@dataclass(frozen=True)
class Way:
    """Describes a way to draw a row; the last resort is to write every `example` as it is."""

    turn: int = 0  # each draws other values
    plain_texts: bool = False  # texts without a number
    blanks: int = 1  # optional columns; 0: none is blank, 1: some are, 2: all are
    amounts: int = 0  # 1: the earlier declared, the greater; -1: the smaller; 0: in any order
    backwards: bool = False  # times: the earlier declared, the later
    as_examples: bool = False


WAYS = [
    Way(turn, plain, blanks, amounts, backwards)
    for plain, turn, blanks, backwards, amounts in product(
        (False, True), range(3), (1, 0, 2), (False, True), (0, 1, -1)
    )
] + [Way(as_examples=True)]


def draw(hospital: Hospital, dataset: Dataset, base: Base, references: Columns, way: Way) -> Columns:
    """Returns columns of rows drawn in one way; the rows are sound, but may break the dataset's rules."""
    fixed = {name for rule in verdicts(dataset.name).unknown for name in rule.columns}
    free = [column for column in dataset.columns[1:] if column.name not in references]
    drawn = [c for c in free if not (c.example and (way.as_examples or c.name in fixed))]
    columns = {dataset.key: keys(dataset, base.number), **references}
    columns |= {c.name: repeat(c.example, base) for c in free if c not in drawn}

    def below(what: str, limit: int | np.ndarray) -> np.ndarray:
        return hospital.below(f"{dataset.name} {what} {way.turn}", base.number, limit)

    moments = [column for column in drawn if column.is_time][:: -1 if way.backwards else 1]
    for slot, column in enumerate(moments):  # each in a slot of its own, a minute apart from the next
        span = np.maximum((base.end - base.start) // len(moments), 1)
        minute = base.start + span * slot + below(column.name, np.maximum(span - 1, 1))
        columns[column.name] = (
            times(hospital, minute) if column.type == "timestamp" else dates(hospital, minute // 1440)
        )
    amounts = [column for column in drawn if column.type == "decimal"]
    if amounts:
        cents = np.stack([half(column) + below(column.name, 2 * half(column)) for column in amounts])
        cents = np.sort(cents, axis=0)[:: -way.amounts] if way.amounts else cents
        columns |= {column.name: money(row) for column, row in zip(amounts, cents, strict=True)}
    for column in drawn:
        if column.one_of:
            columns[column.name] = pa.array(column.one_of).take(below(column.name, len(column.one_of)))
        elif column.name not in columns:
            words = " ".join(column.example.split()) or column.name.replace("_", " ")
            several = text(f"{words} ", pa.array(1 + below(column.name, 20)).cast(pa.string()))
            columns[column.name] = repeat(words, base) if way.plain_texts else several
        if not column.required:
            blank = below(f"{column.name} blank", 8) < (0, 1, 8)[way.blanks]
            columns[column.name] = pc.if_else(pa.array(blank), "", columns[column.name])
    return {name: columns[name] for name in dataset.names}


def repeat(value: str, base: Base) -> pa.Array:
    """Returns one text for all rows."""
    return pa.array([value] * len(base.number), pa.string())


def half(column: Column) -> int:
    """Returns half of a decimal column's example, in cents; half of 100 if it has no example.

    Raises ValueError for an example that is not a decimal.
    """
    try:
        return max(100, int(abs(Decimal(column.example or 100)) * 50))
    except InvalidOperation:
        raise ValueError(f"The example of {column.name}, {column.example!r}, is not a decimal; correct it.") from None


def draw_sound(hospital: Hospital, dataset: Dataset, base: Base, references: Columns) -> tuple[Columns, np.ndarray]:
    """Returns columns of rows, and for each row whether it obeys the dataset's rules in one of the ways."""
    columns = draw(hospital, dataset, base, references, WAYS[0])
    left = np.asarray(verdicts(dataset.name).break_rules(columns).any(axis=1))
    for way in WAYS[1:]:
        at = np.flatnonzero(left)
        if not len(at):
            break
        again = draw(hospital, dataset, base.take(at), {n: c.take(at) for n, c in references.items()}, way)
        good = ~verdicts(dataset.name).break_rules(again).any(axis=1)
        mask = np.zeros(len(left), bool)
        mask[at[good]] = True
        columns = {name: pc.replace_with_mask(columns[name], mask, again[name].filter(good)) for name in columns}
        left = left & ~mask
    return columns, ~left


@cache
def sample(name: str) -> tuple[dict[str, str], ...]:
    """Returns a few sound rows of a dataset, the same for every hospital, on which defects are tried.

    Raises ValueError if no row drawn obeys the rules, or an `example` cannot be read.
    """
    dataset = CATALOG[name]
    hospital, number = Hospital(0, 1, DEFAULT_START, START), np.arange(1, SAMPLE + 1)
    start = (START - 9) * 1440 + number * 7
    base = Base(number, number, start, start + 8 * 1440)
    references = {column: keys(CATALOG[parent], number) for column, parent in dataset.parents.items()}
    columns, sound = draw_sound(hospital, dataset, base, references)
    if not sound.any():
        columns = draw(hospital, dataset, base, references, WAYS[-1])
        broken = verdicts(name).break_rules(columns).sum(axis=0)
        rule = verdicts(name).rules[int(broken.argmax())]
        raise ValueError(
            f"No row drawn for {name} obeys its rule {rule.reason} ({rule.holds}): "
            f"give {', '.join(rule.columns)} each an `example` with which it holds."
        )
    rows = pa.table(columns).filter(pa.array(sound)).to_pylist()
    if codes := verdicts(name).codes(rows[0]):
        raise ValueError(f"An `example` in {name} cannot be read ({', '.join(codes)}); correct it.")
    return tuple(rows)
