"""Describes a dataset: its columns, its key, its parents and the rules that its rows must obey.

Plain Python, no Spark: the jobs, the Luigi tasks, the warehouse's tables, the generator and the tests all read it.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from functools import cached_property

PARSER = 3  # raise it when validation.py reads the same text differently: every partition is then validated again

# The types of columns, each with Spark's name for it.
TYPES = {"text": "string", "date": "date", "timestamp": "timestamp", "decimal": "decimal(12,2)"}
NAME = re.compile(r"[a-z][a-z0-9_]{0,50}")  # of a dataset or a column, which is also its name in PostgreSQL

# Every character with Unicode's property White_Space; str.strip() would also take U+001C to U+001F.
WHITE_SPACE = (
    "\t\n\v\f\r \u0085\u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)


@dataclass(frozen=True)
class Level:
    """Sets how many rejected rows are too many: at least `rows` of them, and at least `share` of the file's rows."""

    share: float
    rows: int

    def is_reached(self, hits: int, rows: int) -> bool:
        """Tells whether `hits` of a file's `rows` reach the level, in decimals, as PostgreSQL does for ops.tripped."""
        return hits >= self.rows and hits >= Decimal(str(self.share)) * rows


@dataclass(frozen=True)
class Limit:
    """Sets the levels at which rejected rows cause a warning, or stop their date before gold; any one is enough."""

    warn: tuple[Level, ...] = (Level(share=0.05, rows=20),)
    # A file that is nearly all faulty stops whatever its size.
    stop: tuple[Level, ...] = (Level(share=1 / 3, rows=50), Level(share=0.9, rows=5))


# Orphans point to a fault in the parent's file, which has limits of its own, and most are accepted later.
WAITING = Limit(stop=())


@dataclass(frozen=True)
class Rule:
    """States what must hold for a row, as SQL over the typed `columns`; a null passes unless `holds` is false for it.

    `reason` is the code of a row that breaks the rule, `message` the sentence for the clerk who gets the row back. The
    rule is not evaluated if one of `columns` is unreadable. `violations` are texts by column that break the rule, for
    the generator; a text may name columns of a sound row in braces, and a blank stands for every kind of blank. Without
    violations the generator itself looks for texts that break this rule and earn no other code.
    """

    reason: str
    holds: str
    columns: tuple[str, ...]
    limit: Limit = Limit()
    message: str = ""
    violations: tuple[Mapping[str, tuple[str, ...]], ...] = field(default=(), hash=False)

    @property
    def column(self) -> str | None:
        """Returns the column to blame, or None if the rule uses several."""
        return self.columns[0] if len(self.columns) == 1 else None

    @property
    def sentence(self) -> str:
        """Returns the message, or the code in words if no message is declared."""
        return self.message or f"{self.reason.replace('_', ' ').capitalize()}."


@dataclass(frozen=True)
class Column:
    """Describes one column of a file: a text in the file, and a value of `type` once its row is accepted.

    `rank` and `not_known` help to decide which of several versions of a row is accepted. `doc` and `unit` are for
    people, who see them in the comments of gold's tables; `example` is also for the generator and the tests.
    """

    name: str
    type: str = "text"
    required: bool = False
    one_of: tuple[str, ...] = ()
    rank: tuple[str, ...] = ()  # listed values, the furthest along first; those it leaves out rank behind, all alike
    not_known: str | None = None  # the listed value that says no more than a blank; ranks last
    references: str | None = None
    limit: Limit | None = None  # for each of the column's codes
    groups: bool = False  # marts group rows by it, so that it is part of their keys
    identifies: bool = False  # a patient, alone or with other data; keys on the path to patients do so undeclared
    doc: str = ""
    unit: str = ""
    example: str = ""  # as a file has it

    def __post_init__(self) -> None:
        """Raises ValueError if the type is unknown, or if a ranked value is not listed in `one_of`."""
        if self.type not in TYPES:
            raise ValueError(f"{self.name} is declared as {self.type!r}; the types are {', '.join(TYPES)}.")
        unlisted = [value for value in (*self.rank, self.not_known) if value and value not in self.one_of]
        if unlisted:
            raise ValueError(f"{self.name} ranks {', '.join(unlisted)}; add them to its `one_of`, or correct them.")

    @property
    def is_time(self) -> bool:
        """Tells whether the values are dates or timestamps."""
        return self.type in ("date", "timestamp")

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Returns each listed value with its rank, 0 the highest; empty if the column declares no ranks."""
        if not self.rank and self.not_known is None:
            return {}
        places = dict.fromkeys(self.one_of, len(self.rank))
        if self.not_known:
            places[self.not_known] += 1
        return places | {value: place for place, value in enumerate(self.rank)}

    def reasons(self) -> Iterator[tuple[str, str]]:
        """Yields the codes that this column alone can earn, each with its sentence, in the order of a row's codes."""
        if self.required:
            yield f"missing_{self.name}", f"{self.name} must not be blank"
        if self.type != "text":
            yield f"unreadable_{self.name}", f"{self.name} must be a {self.type}"
        if self.one_of:
            yield f"unknown_{self.name}", f"{self.name} must be one of {', '.join(self.one_of)}"
        if self.references:
            yield f"orphan_{self.name}", f"{self.name} must be the key of an accepted row of {self.references}"

    @property
    def comment(self) -> str:
        """Returns description, unit and example for people; empty if none is declared."""
        about = [f"Unit: {self.unit}." if self.unit else "", f"Example: {self.example}" if self.example else ""]
        return " ".join(filter(None, (self.doc, *about)))


@dataclass(frozen=True)
class Dataset:
    """Describes a file that the hospital sends each day, with one row per key; the first column is the key."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()
    computed: tuple[tuple[str, str, str], ...] = ()  # gold only: (name, PostgreSQL type, expression)
    orphan_days: int = 365  # a parent is too late if its partition is more than this many days after the child's
    since: date = date.min  # files of dates before this one are neither needed nor read
    amount: str | None = None  # the column whose sums the ledger records
    day: str | None = None  # the column by whose day the marts count a row
    limit: Limit = Limit()  # of all rejected rows together, except those that only wait for a parent
    usual: tuple[float, float] = (0.5, 2.0)  # the expected range, as multiples of the weekday's median number of rows
    due_hours: int = 6  # hours after the end of its day (UTC) by which the file should be there

    def __post_init__(self) -> None:
        """Raises ValueError if a name is malformed, repeated or undeclared, or if two reasons have the same code."""
        if not NAME.fullmatch(self.name) or not all(NAME.fullmatch(name) for name in self.names):
            raise ValueError(f"{self.name}: names are lower case letters, digits and _, and begin with a letter.")
        used = [name for rule in self.rules for name in rule.columns] + [self.amount or self.key, self.day or self.key]
        if unknown := sorted({*used} - {*self.names}):
            raise ValueError(f"{self.name} uses {', '.join(unknown)}; declare them among its columns, or correct them.")
        codes = [code for column in self.columns for code, _ in column.reasons()] + [rule.reason for rule in self.rules]
        for words in (self.names, codes):
            if twice := sorted({word for word in words if words.count(word) > 1}):
                raise ValueError(f"{self.name} declares {', '.join(twice)} twice; give each a name of its own.")

    @property
    def key(self) -> str:
        """Returns the name of the key column."""
        return self.columns[0].name

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Returns the names of the source columns, in declared order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def indexed(self) -> set[str]:
        """Returns the columns in keys and indexes of gold or of the marts: their values are limited in length."""
        return {self.key, *self.parents, *(column.name for column in self.columns if column.groups)}

    @cached_property
    def parents(self) -> dict[str, str]:
        """Returns each foreign key column with the dataset that it references."""
        return {column.name: column.references for column in self.columns if column.references}

    @cached_property
    def reasons(self) -> dict[str, str]:
        """Returns every code that a row can get, with its sentence, in the order in which a row lists its codes."""
        codes = dict(pair for column in self.columns for pair in column.reasons())
        codes |= {rule.reason: rule.sentence for rule in self.rules}
        codes[f"duplicate_{self.key}"] = f"another row with this {self.key} stands in this file"
        codes["malformed_row"] = "the record has too few or too many fields, an open quote or a NUL character"
        return codes

    @cached_property
    def blamed(self) -> dict[str, str | None]:
        """Returns each reason code with the column that it blames, or None if there is no single one."""
        codes: dict[str, str | None] = {code: column.name for column in self.columns for code, _ in column.reasons()}
        codes |= {rule.reason: rule.column for rule in self.rules}
        return codes | {f"duplicate_{self.key}": self.key, "malformed_row": None}

    @cached_property
    def limits(self) -> dict[str, Limit]:
        """Returns each reason code with the limit of the rejected rows that have it."""
        codes = dict.fromkeys(self.reasons, Limit())
        for column in self.columns:
            for code, _ in column.reasons():
                codes[code] = column.limit or (WAITING if is_retryable(code) else Limit())
        return codes | {rule.reason: rule.limit for rule in self.rules}

    def waits_until(self, day: date) -> date:
        """Returns the last partition whose rows can be parents to this dataset's rows of `day`."""
        return date.fromordinal(min(day.toordinal() + self.orphan_days, date.max.toordinal()))

    def without(self, names: Collection[str]) -> "Dataset":
        """Returns the dataset as it was before these columns, and the rules that need them, were declared."""
        return replace(
            self,
            columns=tuple(column for column in self.columns if column.name not in names),
            rules=tuple(rule for rule in self.rules if not {*rule.columns} & {*names}),
            amount=None if self.amount in names else self.amount,
            day=None if self.day in names else self.day,
        )

    @cached_property
    def rule_set(self) -> str:
        """Returns the fingerprint: a hash of everything in the declaration that verdicts depend on.

        Descriptions, messages, limits, `since`, and what only gold or the generator reads are left out, so that
        changing them makes no date due.
        """
        columns = [(c.name, c.type, c.required, c.one_of, c.rank, c.not_known, c.references) for c in self.columns]
        rules = [(rule.reason, rule.holds, rule.columns) for rule in self.rules]
        verdicts = json.dumps([PARSER, self.name, columns, rules, self.orphan_days])
        return hashlib.sha256(verdicts.encode()).hexdigest()[:16]


def is_retryable(reason: str) -> bool:
    """Tells whether a row rejected for this reason may be accepted without a corrected file, once its parent comes."""
    return reason.startswith("orphan_")
