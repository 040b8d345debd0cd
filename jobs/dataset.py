"""What a dataset is: its columns, its key, its parents and the rules its rows must obey.

Plain Python, no Spark: the jobs, the Luigi tasks, the warehouse's tables, the generator and the tests all read it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cached_property

PARSER = 3  # raise it when validation.py reads the same text differently: every partition is then judged again

# Every character with Unicode's property White_Space; str.strip() would also take U+001C to U+001F.
WHITE_SPACE = (
    "\t\n\v\f\r \u0085\u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)


@dataclass(frozen=True)
class Level:
    """How many rejected rows are too many: at least `rows` of them, and at least `share` of the file's rows."""

    share: float
    rows: int

    def is_reached(self, hits: int, rows: int) -> bool:
        """Whether so many of a file's rows reach it; counted in decimals, as PostgreSQL does for ops.tripped."""
        return hits >= self.rows and hits >= Decimal(str(self.share)) * rows


@dataclass(frozen=True)
class Limit:
    """The levels at which rejects are worth a warning, and those that stop their date before gold; any is enough."""

    warn: tuple[Level, ...] = (Level(share=0.05, rows=20),)
    # A file that is nearly all faulty stops whatever its size.
    stop: tuple[Level, ...] = (Level(share=1 / 3, rows=50), Level(share=0.9, rows=5))


# An orphan says something of its parent's file, which has limits of its own, and most of them mend themselves.
WAITING = Limit(stop=())


@dataclass(frozen=True)
class Rule:
    """What must hold for a row, as SQL over the typed `columns`; a null among them passes unless `holds` says no.

    `reason` is the code of a row that breaks it. The rule is not judged where one of `columns` is unreadable.
    """

    reason: str
    holds: str
    columns: tuple[str, ...]
    limit: Limit = field(default=Limit(), repr=False)

    @property
    def column(self) -> str | None:
        """The column to blame, or None where the rule joins several."""
        return self.columns[0] if len(self.columns) == 1 else None


@dataclass(frozen=True)
class Column:
    """One source column: always text in the file, of `type` once it is accepted.

    `rank` and `not_known` help to decide which of several versions of a row stands.
    """

    name: str
    type: str = "text"
    required: bool = False
    one_of: tuple[str, ...] = ()
    rank: tuple[str, ...] = ()  # listed values, the furthest along first; those it leaves out rank behind, all alike
    not_known: str | None = None  # the listed value that says no more than a blank; ranks last
    references: str | None = None
    limit: Limit | None = field(default=None, repr=False)  # for each of the column's codes
    groups: bool = field(default=False, repr=False)  # marts are kept by it: it stands in their keys

    def __post_init__(self) -> None:
        unlisted = [value for value in (*self.rank, self.not_known) if value and value not in self.one_of]
        if unlisted:
            raise ValueError(f"{self.name} ranks {', '.join(unlisted)}; add them to its `one_of`, or correct them.")

    @property
    def is_time(self) -> bool:
        return self.type in ("date", "timestamp")

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Listed value -> its rank, 0 the highest; empty where all are alike."""
        if not self.rank and self.not_known is None:
            return {}
        places = dict.fromkeys(self.one_of, len(self.rank))
        if self.not_known:
            places[self.not_known] += 1
        return places | {value: place for place, value in enumerate(self.rank)}

    def reasons(self) -> Iterator[tuple[str, str]]:
        """The codes this column alone can earn, each with its sentence, in the order they are reported."""
        if self.required:
            yield f"missing_{self.name}", f"{self.name} must not be blank"
        if self.type != "text":
            yield f"unreadable_{self.name}", f"{self.name} must be a {self.type}"
        if self.one_of:
            yield f"unknown_{self.name}", f"{self.name} must be one of {', '.join(self.one_of)}"
        if self.references:
            yield f"orphan_{self.name}", f"{self.name} must be the key of an accepted row of {self.references}"


@dataclass(frozen=True)
class Dataset:
    """A file the hospital sends each day; its first column is its key. Grain: one row per key and date.

    What is not part of the repr has no bearing on verdicts, and changing it makes no date due.
    """

    name: str
    doc: str
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()
    computed: tuple[tuple[str, str, str], ...] = ()  # gold only: (name, PostgreSQL type, expression)
    orphan_days: int = 365  # a parent that comes in a later partition than this many days after the child's is too late
    amount: str | None = field(default=None, repr=False)  # the column whose sums are kept account of
    day: str | None = field(default=None, repr=False)  # the column whose day the figures count a row on
    limit: Limit = field(default=Limit(), repr=False)  # of all rejected rows together, those that only wait left out
    usual: tuple[float, float] = field(default=(0.5, 2.0), repr=False)  # times the median rows of that weekday
    due_hours: int = field(default=6, repr=False)  # after the end of its day (UTC) the file should be there

    @property
    def key(self) -> str:
        return self.columns[0].name

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @cached_property
    def indexed(self) -> set[str]:
        """The columns that stand in keys and indexes of gold or of the marts, which hold no value of any length."""
        return {self.key, *self.parents, *(column.name for column in self.columns if column.groups)}

    @cached_property
    def parents(self) -> dict[str, str]:
        """Foreign key column -> the dataset it refers to."""
        return {column.name: column.references for column in self.columns if column.references}

    @cached_property
    def reasons(self) -> dict[str, str]:
        """Every code a row of this dataset can earn -> its sentence, in the order of a row's codes."""
        codes = dict(pair for column in self.columns for pair in column.reasons())
        codes |= {rule.reason: f"broken rule: {rule.holds}" for rule in self.rules}
        codes[f"duplicate_{self.key}"] = f"another row with this {self.key} stands in this file"
        codes["malformed_row"] = "the record has too few or too many fields, an open quote or a NUL character"
        return codes

    @cached_property
    def blamed(self) -> dict[str, str | None]:
        """Reason code -> the column it blames, or None where that is no single one."""
        codes: dict[str, str | None] = {code: column.name for column in self.columns for code, _ in column.reasons()}
        codes |= {rule.reason: rule.column for rule in self.rules}
        return codes | {f"duplicate_{self.key}": self.key, "malformed_row": None}

    @cached_property
    def limits(self) -> dict[str, Limit]:
        """Reason code -> the limit of the rejected rows that carry it."""
        codes = dict.fromkeys(self.reasons, Limit())
        for column in self.columns:
            for code, _ in column.reasons():
                codes[code] = column.limit or (WAITING if is_retryable(code) else Limit())
        return codes | {rule.reason: rule.limit for rule in self.rules}

    def waits_until(self, day: date) -> date:
        """The last partition whose rows can be parents to this dataset's rows of `day`."""
        return date.fromordinal(min(day.toordinal() + self.orphan_days, date.max.toordinal()))

    @cached_property
    def rule_set(self) -> str:
        """A hash of the declaration and the parser: what silver was judged by."""
        return hashlib.sha256(f"{PARSER}{self!r}".encode()).hexdigest()[:16]


def is_retryable(reason: str) -> bool:
    """Whether a row rejected for this reason can become sound without a corrected file: its parent may come."""
    return reason.startswith("orphan_")
