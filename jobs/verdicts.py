"""Tells which codes a row of texts earns by itself, without Spark: orphans and duplicates are left out.

The generator uses it before it writes a row. SQLite evaluates the rules: dates and timestamps are ISO texts there, and
decimals floating-point numbers. A rule whose SQL only Spark understands is not evaluated: see `Verdicts.unknown`.
"""

import datetime
import re
import sqlite3
from collections.abc import Mapping
from decimal import Decimal
from functools import cache

import numpy as np
import pyarrow as pa

from jobs.catalog import CATALOG
from jobs.dataset import WHITE_SPACE, Column, Rule
from jobs.landing import cents

DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
TIMESTAMP = re.compile(
    DATE.pattern + r"[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?", re.ASCII
)  # without an offset it is UTC


def read(column: Column, text: str) -> str | None:
    """Returns the value of a text that is not blank, as SQLite compares it; None if it cannot be read."""
    if column.one_of:
        return {value.lower(): value for value in column.one_of}.get(text.lower())
    try:
        if column.type == "date":
            return datetime.date.fromisoformat(text).isoformat() if DATE.fullmatch(text) else None
        if column.type == "timestamp":
            if not TIMESTAMP.fullmatch(text):
                return None
            moment = datetime.datetime.fromisoformat(text)
            return (moment.replace(tzinfo=None) - (moment.utcoffset() or datetime.timedelta())).isoformat()
    except (ValueError, OverflowError):
        return None
    if column.type == "decimal":
        amount = cents(text)
        return None if amount is None else str(Decimal(amount) / 100)
    return text


class Verdicts:
    """Evaluates the rows of one dataset."""

    def __init__(self, name: str) -> None:
        self.dataset = CATALOG[name]
        self.database = sqlite3.connect(":memory:", check_same_thread=False)
        self.database.execute("pragma case_sensitive_like = on")
        # A cast for the decimals: SQLite would compare them as texts.
        values = (f'{"cast(? as real)" if c.type == "decimal" else "?"} as "{c.name}"' for c in self.dataset.columns)
        self.source = f"(select {', '.join(values)})"
        self.rules = [rule for rule in self.dataset.rules if self.can_evaluate(rule)]
        self.query = self.select(*self.rules)

    @property
    def unknown(self) -> list[Rule]:
        """Returns the rules that SQLite cannot evaluate."""
        return [rule for rule in self.dataset.rules if rule not in self.rules]

    def select(self, *rules: Rule) -> str:
        """Returns a query that tells for each of the rules whether a row breaks it; a null breaks none."""
        flags = (f"coalesce(not ({rule.holds}), 0)" for rule in rules)
        return f"select {', '.join(flags) or 0} from {self.source}"

    def can_evaluate(self, rule: Rule) -> bool:
        """Tells whether SQLite understands a rule."""
        try:
            self.database.execute(self.select(rule), [None] * len(self.dataset.columns)).fetchone()
        except sqlite3.Error:
            return False
        return True

    def codes(self, row: Mapping[str, str]) -> list[str]:
        """Returns the codes that a row earns, in declared order; rules that SQLite cannot evaluate are left out."""
        found, values, unread = set(), [], set()
        for column in self.dataset.columns:
            text = row[column.name].strip(WHITE_SPACE)
            values.append(read(column, text) if text else None)
            if not text and column.required:
                found.add(f"missing_{column.name}")
            elif text and values[-1] is None:
                unread.add(column.name)
                found |= {f"unreadable_{column.name}", f"unknown_{column.name}"}
        flags = self.database.execute(self.query, values).fetchone()
        broken = zip(self.rules, flags, strict=False)
        found |= {rule.reason for rule, flag in broken if flag and not unread.intersection(rule.columns)}
        return [code for code in self.dataset.reasons if code in found]

    def break_rules(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Returns an array of booleans, a row per drawn row and a column per rule: whether the row breaks the rule."""
        rows = zip(*(columns[name].to_pylist() for name in self.dataset.names), strict=True)
        ask = self.database.execute
        flags = [ask(self.query, [value or None for value in row]).fetchone() for row in rows]
        return np.array(flags, bool).reshape(len(flags), max(1, len(self.rules)))


@cache
def verdicts(name: str) -> Verdicts:
    """Returns the evaluator of a dataset's rows, which is made once."""
    return Verdicts(name)
