"""Derives from a dataset's declaration which defects its rows can have, and decides which rows have one."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from jobs.catalog import CATALOG
from jobs.dataset import Column, Dataset, Rule
from jobs.drawing import Hospital
from jobs.further import sample
from jobs.verdicts import verdicts

USUAL = 50  # rows in 100,000 that have a given defect
SHARES = {  # rows in 100,000 that have a defect that is more frequent in this hospital
    "missing_gender": 200, "duplicate_patient_id": 80, "birth_after_registration": 100,
    "unknown_status": 100, "missing_department": 100, "visit_end_not_after_start": 100,
    "discharge_not_after_admit": 100, "orphan_visit_id": 100,
    "negative_treatment_cost": 100, "missing_treatment_code": 100,
    "negative_total_amount": 100, "insurance_exceeds_total": 100, "paid_without_payment_ts": 100,
}  # fmt: skip
FORCED, SPACING = 3, 7  # on START every defect occurs FORCED times whatever the seed, SPACING rows apart

BLANK = ("", "", "  ", "\u00a0")
UNKNOWN = ("N/A", "???", "Compleeted", "XX", "to be confirmed")
UNREADABLE = {
    "date": ("31/12/2024", "2024-02-30", "2024-1-5", "20240105", "unknown", "2024-13-01", "Jan 5, 2024"),
    "timestamp": ("05.01.2025 10:30", "2025-01-05", "2025-01-05T25:10", "2025-02-30 08:00", "2025-01-05T9:30", "soon"),
    "decimal": ("1,250.00", "12O.50", "1e3", "NaN", "Infinity", "$80", "12345678901.00", "-", "1.2.3"),
}
EXTREMES = {  # the values that are tried to break a rule; a text column also has some from its example
    "date": ("1900-01-01", "2199-12-31"),
    "timestamp": ("1900-01-01T00:00:00", "2199-12-31T23:59:00"),
    "decimal": ("-1", "0", "0.01", "1", "100", "9999999999"),
    "text": ("0", "?", "x" * 300),
}
# Two defects in one row; in a dataset that is not named here, the first two that concern different columns.
TOGETHER = {
    "patients": ("missing_gender", "unreadable_birth_date"),
    "visits": ("missing_department", "unknown_status"),
    "admissions": ("unreadable_admit_ts", "missing_room_type"),
}
CHANGED = {"city": "Moved away", "doctor_id": "D9999", "treatment_name": "Repeat"}  # in a second copy


class Defect(NamedTuple):
    """Holds the codes that a row usually earns, and the texts by column that make it earn them.

    One text of each tuple is written. A text may name columns of the sound row in braces. A duplicate's texts are those
    of its second copy.
    """

    reasons: str
    texts: Mapping[str, tuple[str, ...]]

    def spoil(self, row: Mapping[str, str], bits: int) -> dict[str, str]:
        """Returns a sound row with the defect; the bits choose among the texts."""
        return {**row, **{name: texts[bits % len(texts)].format_map(row) for name, texts in self.texts.items()}}


@cache
def defects(name: str) -> tuple[Defect, ...]:
    """Returns all defects that a row of a dataset can have."""
    dataset = CATALOG[name]
    single = [defect for column in dataset.columns for defect in break_column(column)]
    kinds = single + [defect for rule in dataset.rules for defect in break_rule(dataset, rule)]
    return (
        *kinds,
        *combine(dataset, kinds),
        Defect(f"duplicate_{dataset.key}", {}),
        Defect(f"duplicate_{dataset.key}", second_copy(dataset)),
        Defect("malformed_row", {}),
    )


def break_column(column: Column) -> Iterator[Defect]:
    """Yields the defects of a column alone."""
    name = column.name
    if column.required:
        yield Defect(f"missing_{name}", {name: BLANK})
    if column.type in UNREADABLE:
        yield Defect(f"unreadable_{name}", {name: UNREADABLE[column.type]})
    if column.one_of:
        yield Defect(f"unknown_{name}", {name: UNKNOWN})
    if column.references:  # no key has nine digits with leading zeros
        yield Defect(f"orphan_{name}", {name: (f"{{{name}}}9",)})


def break_rule(dataset: Dataset, rule: Rule) -> Iterator[Defect]:
    """Yields the defects that break a rule: its `violations`, or else texts found to break this rule and no other.

    A violation's blank stands for every kind of blank. Without violations, a rule has no defect if SQLite cannot
    evaluate it, or if no texts are found that break it in each of the sampled rows. Raises ValueError for a violation
    that does not break the rule.
    """
    rows = sample(dataset.name)
    if not rule.violations:
        found = (
            texts
            for texts in candidates(dataset, rule)
            if all(codes(dataset, row, texts) == rule.reason for row in rows)
        )
        yield from (Defect(rule.reason, texts) for texts in [next(found, None)] if texts)
    for violation in rule.violations:
        texts = {name: BLANK if words == ("",) else words for name, words in violation.items()}
        if rule in verdicts(dataset.name).unknown:
            yield Defect(rule.reason, texts)
            continue
        earned = Counter(codes(dataset, row, texts, bits) for bits, row in enumerate(rows))
        usual = [reasons for reasons, _ in earned.most_common() if rule.reason in reasons.split(";")]
        if not usual:
            raise ValueError(f"A violation of {rule.reason} in {dataset.name} does not break {rule.holds}; correct it.")
        yield Defect(usual[0], texts)


def codes(dataset: Dataset, row: Mapping[str, str], texts: Mapping[str, tuple[str, ...]], bits: int = 0) -> str:
    """Returns the codes that a sound row earns with these texts, joined by `;`."""
    return ";".join(verdicts(dataset.name).codes(Defect("", texts).spoil(row, bits)))


def candidates(dataset: Dataset, rule: Rule) -> Iterator[Mapping[str, tuple[str, ...]]]:
    """Yields texts that may break a rule: first in one of its columns, then in two."""
    columns = [column for column in dataset.columns if column.name in rule.columns and not column.references]
    ideas = {column.name: list(dict.fromkeys(guess(column, columns))) for column in columns}
    for size in (1, 2):
        for names in combinations(ideas, size):
            for texts in product(*(ideas[name] for name in names)):
                yield {name: (words,) for name, words in zip(names, texts, strict=True)}


def guess(column: Column, others: Sequence[Column]) -> Iterator[str]:
    """Yields texts of a column that rules may forbid: values of other columns, extremes, variants, a blank."""
    yield from (f"{{{other.name}}}" for other in others if other.type == column.type and other is not column)
    if column.one_of:
        yield from map(escape, column.one_of)
    else:
        yield from EXTREMES[column.type]
    if column.example and column.type == "text" and not column.one_of:
        yield from map(escape, (column.example, f"{column.example}x", column.example[:-1], column.example.swapcase()))
    if not column.required:
        yield ""


def escape(words: str) -> str:
    """Returns a text in which braces do not name a column."""
    return words.replace("{", "{{").replace("}", "}}")


def combine(dataset: Dataset, kinds: Sequence[Defect]) -> Iterator[Defect]:
    """Yields a defect that earns two codes, unless one of `kinds` does so already."""
    if any(";" in kind.reasons for kind in kinds):
        return
    names = {dataset.key, *dataset.parents}
    wanted = TOGETHER.get(dataset.name) or tuple(kind.reasons for kind in kinds if not names & {*kind.texts})
    pairs = combinations((kind for kind in kinds if kind.reasons in wanted), 2)
    for first, second in pairs:
        if not {*first.texts} & {*second.texts}:
            yield Defect(f"{first.reasons};{second.reasons}", {**first.texts, **second.texts})
            return


def second_copy(dataset: Dataset) -> Mapping[str, tuple[str, ...]]:
    """Returns texts by which a duplicate differs from the first row: of an optional column, or else of a listed one."""
    free = [column for column in dataset.columns[1:] if not column.references]
    optional = [column for column in free if not column.required]
    if texts := [column for column in optional if column.type == "text" and not column.one_of]:
        name = texts[0].name
        return {name: ("", CHANGED.get(name, escape(f"{texts[0].example or name} once more")))}
    if amounts := [column for column in optional if column.type == "decimal"]:
        return {amounts[-1].name: ("0.00", "")}
    listed = [column for column in free if column.one_of]
    return {listed[0].name: listed[0].one_of[:3:2]} if listed else {}


@cache
def duplicates(name: str) -> np.ndarray:
    """Returns for each of a dataset's defects whether it is a duplicate."""
    return np.array([defect.reasons.startswith("duplicate_") for defect in defects(name)])


def strike(hospital: Hospital, name: str, numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Returns for each row an index into the dataset's defects, or -1; the first places get one whatever is drawn."""
    kinds = defects(name)
    steps = np.cumsum([SHARES.get(kind.reasons, USUAL) for kind in kinds])
    kind = np.searchsorted(steps, hospital.below(f"{name} defect", numbers, 100_000), side="right")
    kind[kind == len(kinds)] = -1
    struck = (places >= 0) & (places % SPACING == 0) & (places < len(kinds) * FORCED * SPACING)
    return np.where(struck, places // SPACING % len(kinds), kind)


def is_rejected(name: str, defect: np.ndarray) -> np.ndarray:
    """Returns for each row whether its defect leaves no accepted row of the key."""
    return (defect >= 0) & ~duplicates(name)[defect]
