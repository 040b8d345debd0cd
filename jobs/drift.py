"""Compares the profiles of an export's files with those of the last date: columns, listed codes, types.

Sentences hold no patient's value: they name a code only if it is short and many rows have it.
"""

from collections.abc import Collection, Iterator

from jobs import headers
from jobs.borders import quoted
from jobs.profiling import NEARLY, ColumnProfile, Profile, TableProfile

LONGEST_CODE = 20
ALIKE = 0.7  # similarity of a renamed column


def compare(last: Profile, now: Profile, listed: Collection[str], smallest: int) -> Iterator[str]:
    """Yields a sentence on each change of the files since the last date.

    `listed` are the columns whose values are codes; a new one is named if at least `smallest` rows have it.
    """
    before, after = ({table.pattern: table for table in each.tables} for each in (last, now))
    for pattern in sorted(before.keys() - after.keys()):
        yield f"{quoted(pattern)} is missing"
    for pattern in sorted(after.keys() - before.keys()):
        yield f"{quoted(pattern)} is new"
    for pattern in sorted(before.keys() & after.keys()):
        yield from (f"{pattern}: {told}" for told in compare_tables(before[pattern], after[pattern], listed, smallest))


def compare_tables(was: TableProfile, has: TableProfile, listed: Collection[str], smallest: int) -> Iterator[str]:
    """Yields a sentence on each difference between files that are read as one."""

    def alike(name: str, other: str) -> float:
        return likeness(was.by_name[name], has.by_name[other])

    yield from headers.changes(was.by_name, has.by_name, alike, ALIKE)
    if was.dialect != has.dialect:
        yield f"the separator was {quoted(was.dialect.separator)} and is {quoted(has.dialect.separator)}"
    if "utf-8" in (was.encoding.name, has.encoding.name) and was.encoding.name != has.encoding.name:
        yield f"the encoding was {was.encoding.name} and seems to be {has.encoding.name}"
    for column in has.columns:
        if column.name in was.by_name:
            yield from compare_columns(was.by_name[column.name], column, column.name in listed, smallest)


def likeness(one: ColumnProfile, other: ColumnProfile) -> float:
    """Returns the similarity of two columns, from 0 to 1, by their names, their places and their types."""
    return (
        0.5 * headers.likeness(one.name, other.name)
        + 0.25 * (one.place == other.place)
        + 0.25 * (one.kind == other.kind)
    )


def compare_columns(was: ColumnProfile, has: ColumnProfile, is_listed: bool, smallest: int) -> Iterator[str]:
    """Yields a sentence on each change of a column: its type, the pattern of its dates, its codes."""
    if was.there and not has.there and has.rows:
        yield f"column {quoted(has.name)} is blank in all rows"
    if is_listed:
        new = {code: rows for code, rows in has.values.items() if code not in was.values}
        shown = [f"{quoted(c)} {n:,}" for c, n in new.items() if n >= max(1, smallest) and len(c) <= LONGEST_CODE]
        if new:
            named = f" ({', '.join(shown)})" if shown else ""
            yield f"column {quoted(has.name)} has new codes in {sum(new.values()):,} rows{named}"
        return
    if was.marks["."] >= NEARLY > was.integers and has.integers >= NEARLY:
        yield f"column {quoted(has.name)} seems to have lost the zeros in front of its numbers"
        return
    typed = ("timestamp", "date", "time", "decimal", "integer")
    if was.kind in typed and was.kind != has.kind and has.there and (was.kind, has.kind) != ("decimal", "integer"):
        yield f"column {quoted(has.name)} held a {was.kind} and holds {'a ' if has.kind in typed else ''}{has.kind}"
    for what in ("days", "moments"):
        before, after = getattr(was, what), getattr(has, what)
        best = max(before, key=lambda pattern: before[pattern], default="")
        if best and before[best] >= NEARLY and was.kind == has.kind and after.get(best, 0.0) < NEARLY:
            share = after.get(best, 0.0)
            yield f"column {quoted(has.name)} was written as {best}, which {share:.0%} of its values fit now"
    if was.kind == has.kind == "decimal":
        marks = [max(each.fractions, key=lambda mark: each.fractions[mark]) for each in (was, has)]
        if marks[0] != marks[1]:
            yield f"column {quoted(has.name)} had the decimal mark {marks[0]} and has {marks[1]}"
