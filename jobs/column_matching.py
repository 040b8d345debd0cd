"""Matches columns of an unknown table with those of the datasets, by name and content, and scores each match."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jobs import terms
from jobs.catalog import CATALOG
from jobs.dataset import Column, Dataset
from jobs.profiling import NEARLY, ColumnProfile, Link, Profile, TableProfile

SURE = 0.65  # a guess of less is marked TODO
LEAST = 0.4  # a guess of less is none
FEW_CODES = 25
# Codes that say nothing and have a smaller share, or that are only alike and have fewer rows, are left to be rejected:
# exports have faults.
RARE, FEW_ROWS = 0.01, 5


class Candidate(NamedTuple):
    """Holds columns of a table that could make a column of a dataset: one, or a date and a time."""

    names: tuple[str, ...]
    columns: tuple[ColumnProfile, ...]

    @property
    def is_pair(self) -> bool:
        """Tells whether the columns are a date and its time."""
        return len(self.names) > 1


class Guess(NamedTuple):
    """Describes from what one column of a dataset seems to be made; `why` is set if a person must check it."""

    column: str
    names: tuple[str, ...] = ()
    value: str | None = None
    values: tuple[tuple[str, str], ...] = ()
    as_timestamp: bool = False
    confidence: float = 0.0
    why: str = ""
    counts: tuple[tuple[str, int], ...] = ()  # of the codes
    table: str = ""  # by its pattern


class Draft(NamedTuple):
    """Describes from what a dataset seems to be made: one table, or several joined by SQL."""

    dataset: str
    table: TableProfile
    guesses: tuple[Guess, ...]
    score: float
    join: Link | None = None  # another table, by a key that both have
    where: tuple[str, tuple[str, ...]] | None = None  # only rows whose column has one of these values
    other: TableProfile | None = None

    @property
    def is_sql(self) -> bool:
        """Tells whether the draft needs SQL, because columns alone cannot express it."""
        return bool(self.join or self.where)


def guess(
    dataset: Dataset, table: TableProfile, wanted: Sequence[Column], profile: Profile, drafts: Mapping[str, Draft]
) -> tuple[Guess, ...]:
    """Returns the best columns of a table for the columns of a dataset; takes the surest match first."""
    ranked = []
    for column in wanted:
        for candidate in candidates(table):
            score = match(dataset, column, candidate, table, profile, drafts)
            if score >= LEAST:
                ranked.append((score, column, candidate))
    ranked.sort(key=lambda each: -each[0])
    taken: set[str] = set()
    found: dict[str, Guess] = {}
    for score, column, candidate in ranked:
        is_key = column.references or column.name == dataset.key
        if column.name not in found and (is_key or not taken & {*candidate.names}):
            found[column.name] = made_of(column, candidate, score, table)
            taken |= {*candidate.names} if not is_key else set()
    return tuple(found[column.name] for column in wanted if column.name in found)


def candidates(table: TableProfile) -> Iterator[Candidate]:
    """Yields each column, and each date together with a time in the next column."""
    for column in table.columns:
        yield Candidate((column.name,), (column,))
    for day, time in zip(table.columns, table.columns[1:], strict=False):
        if day.kind == "date" and time.kind == "time":
            yield Candidate((day.name, time.name), (day, time))


def match(
    dataset: Dataset,
    column: Column,
    candidate: Candidate,
    table: TableProfile,
    profile: Profile,
    drafts: Mapping[str, Draft],
) -> float:
    """Scores from 0 to 1, by name and by content, how well columns of a source match a column of a dataset.

    Its parameters are the two sides of the comparison, each with what it belongs to.
    """
    theirs = candidate.columns[0]
    name = max(terms.of_column(each, column) for each in candidate.names[:1])
    if column.name == dataset.key and terms.words_of(theirs.name) in (["id"], ["key"], ["nr"], ["no"]):
        name = max(name, 0.6)
    if column.references:
        content = refers(theirs, table, drafts.get(column.references), profile)
        return 0.0 if candidate.is_pair or not content else 0.3 * name + 0.7 * content
    content = holds(column, candidate)
    if column.name == dataset.key:
        content = 1.0 if theirs.is_key and theirs.kind in ("text", "integer") else 0.3 * (name >= 0.9)
    elif column.type == "text" and not column.one_of and not name:
        return 0.0
    if not (name or column.required):
        return 0.0
    if column.required:
        content *= theirs.there / theirs.rows if theirs.rows else 0.0
    return 0.5 * name + 0.5 * content if content else 0.0


def refers(theirs: ColumnProfile, table: TableProfile, parent: Draft | None, profile: Profile) -> float:
    """Returns the share of a column's values that are keys of the table from which a parent is made."""
    if parent is None:
        return 0.0
    [key] = [each for each in parent.guesses if each.column == CATALOG[parent.dataset].key][:1] or [Guess("")]
    if table.pattern == parent.table.pattern:
        return 0.95 if key.names == (theirs.name,) else 0.0  # the row itself is the parent
    places = (table.pattern, theirs.name, parent.table.pattern)
    return max(
        [each.share for each in profile.links if each[:3] == places and (each.to_column,) == key.names], default=0
    )


def holds(column: Column, candidate: Candidate) -> float:
    """Returns the share of the source's values that a column of a dataset could hold."""
    theirs = candidate.columns[0]
    if not theirs.there:
        return 0.0
    if column.one_of:
        if theirs.distinct > FEW_CODES or theirs.kind not in ("text", "integer"):
            return 0.0
        decoded = terms.decode(column, list(theirs.values))
        return max(0.1, sum(theirs.values[code] for code in decoded) / theirs.there)
    if column.type == "timestamp":
        if candidate.is_pair:
            return max(theirs.days.values())
        return max(theirs.moments.values(), default=0.6 * max(theirs.days.values(), default=0.0))
    if candidate.is_pair:
        return 0.0
    if column.type == "date":
        return max([*theirs.days.values(), *theirs.moments.values()], default=0.0)
    if column.type == "decimal":
        return max(theirs.marks.values()) * (1.0 if theirs.kind == "decimal" else 0.5) if not theirs.days else 0.0
    return {"text": 0.7, "integer": 0.6, "blank": 0.0}.get(theirs.kind, 0.0) * (0.5 if theirs.is_key else 1.0)


def made_of(column: Column, candidate: Candidate, score: float, table: TableProfile) -> Guess:
    """Returns the guess that a column is made of a candidate, with its codes."""
    theirs, why = candidate.columns[0], ""
    if score < SURE:
        why = "is this the column?"
    values, counts = tuple[tuple[str, str], ...](), tuple[tuple[str, int], ...]()
    if column.one_of:
        values, why = codes_of(column, theirs, why)
        # A text that few rows have may be anything: a draft is not the place for it.
        known = dict(values)
        counts = tuple((code, rows) for code, rows in theirs.values.items() if code in known or rows >= FEW_ROWS)
    if theirs.odd_sums > NEARLY and column.type == "decimal":
        why = "a sign behind, a currency or marks between thousands are not read; have it exported without"
    if column.type in ("date", "timestamp") and not candidate.is_pair:
        why = ambiguity(theirs) or why
    is_moment = column.type == "date" and theirs.kind == "timestamp"
    return Guess(column.name, candidate.names, None, values, is_moment, score, why, counts, table.pattern)


def codes_of(column: Column, theirs: ColumnProfile, why: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """Returns what each code seems to mean, nothing if all codes are listed values; and what a person must check."""
    spelt = {value.lower() for value in column.one_of}
    often = [code for code, rows in theirs.values.items() if rows >= RARE * theirs.there]
    some = [code for code, rows in theirs.values.items() if rows >= FEW_ROWS]
    decoded = terms.decode(column, list(theirs.values), least=1.0) | terms.decode(column, some)
    codes = [code for code in theirs.values if code.isprintable() and (code in often or code in decoded)]
    unknown = [code for code in codes if code not in decoded]
    if unknown:
        # The most frequent code stands for the first value that none stands for: declarations list the usual first.
        left = [value for value in column.one_of if value not in decoded.values()] or [column.one_of[-1]]
        decoded |= {code: left[min(at, len(left) - 1)] for at, code in enumerate(unknown)}
        why = f"what do {', '.join(map(quote, unknown))} stand for?"
    if all(code.lower() in spelt for code in codes):
        return (), why
    return tuple((code, decoded[code]) for code in codes), why


def ambiguity(theirs: ColumnProfile) -> str:
    """Tells where days and months of a column cannot be told apart."""
    shares = theirs.moments or theirs.days
    fitting = [pattern.split(" ")[0].split("T")[0] for pattern, share in shares.items() if share >= NEARLY]
    orders = {pattern for pattern in fitting if "yyyyMM" not in pattern and not pattern.startswith("yyyy")}
    return f"day and month cannot be told apart: {' or '.join(sorted(orders))}?" if len(orders) > 1 else ""


def quote(text: str) -> str:
    """Returns a text as YAML, quoted if YAML would read it as something else."""
    is_plain = re.fullmatch(r"[A-Za-z_][\w ./-]*", text) and text[-1:] != " "
    words = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
    return text if is_plain and text.lower() not in words else json.dumps(text, ensure_ascii=False)
