"""Tells how the headers of a source's files differ from those of its last date."""

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from difflib import SequenceMatcher

from jobs import landing, warehouse
from jobs.borders import quoted
from jobs.derivation import Export

ALIKE = 0.75


def warnings(connection: warehouse.Connection, export: Export) -> list[str]:
    """Returns a warning if columns have come, gone or been renamed since the last date of a source."""
    day, before = read_last(connection, export)
    has = {pattern: united(file.header for file in files) for pattern, files in export.tables.items()}
    told = list(compare(before, has))
    return [f"since {day} {landing.listed(told, 10)}"] if told else []


def read_last(connection: warehouse.Connection, export: Export) -> tuple[date | None, dict[str, Sequence[str]]]:
    """Returns the last date of a source before this one, and the columns of its files by their pattern."""
    found = connection.execute(
        "select partition_date, file_name, header from ops.source_files join ops.receipts "
        "using (run_id, partition_date) where layer = 'source' and source_name = %s and header is not null "
        "and partition_date < %s order by partition_date desc, file_name limit 1000",
        [export.source.name, export.day],
    ).fetchall()
    day = found[0][0] if found else None
    of_day = [(name, header) for each, name, header in found if each == day]
    headers = {p: united(header for name, header in of_day if fnmatch.fnmatchcase(name, p)) for p in export.tables}
    return day, {pattern: names for pattern, names in headers.items() if names}


def united(headers: Iterable[Sequence[str]]) -> Sequence[str]:
    """Returns the columns that any of several headers has, each once."""
    return tuple(dict.fromkeys(name for header in headers for name in header))


def compare(was: Mapping[str, Sequence[str]], has: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yields the columns that are missing, renamed or new, by the pattern of their files."""
    for pattern in was:
        gone = [name for name in was[pattern] if name and name not in has.get(pattern, was[pattern])]
        come = [name for name in has.get(pattern, ()) if name and name not in was[pattern]]
        for name in gone:
            heir = max(come, key=lambda each: likeness(name, each), default="")
            if heir and likeness(name, heir) >= ALIKE:
                come.remove(heir)
                yield f"{pattern}: column {quoted(name)} seems to be {quoted(heir)} now"
            else:
                yield f"{pattern}: column {quoted(name)} is missing"
        yield from (f"{pattern}: column {quoted(name)} is new" for name in come)


def likeness(one: str, other: str) -> float:
    """Tells how alike two names are, in upper or lower case."""
    return SequenceMatcher(None, one.lower(), other.lower()).ratio()
