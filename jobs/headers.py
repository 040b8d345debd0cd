"""Compares the headers of a source's files with those of its last date."""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from difflib import SequenceMatcher

from jobs import landing, warehouse
from jobs.borders import quoted
from jobs.derivation import Export

ALIKE = 0.75  # similarity of the names of a renamed column


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
    """Yields a sentence on each column that is missing, renamed or new, by the pattern of its files."""
    for pattern in sorted(was.keys() & has.keys()):
        for told in changes(was[pattern], has[pattern], likeness, ALIKE):
            yield f"{pattern}: {told}"


def changes(
    was: Iterable[str], has: Iterable[str], likeness: Callable[[str, str], float], alike: float
) -> Iterator[str]:
    """Yields a sentence on each column that is missing, renamed or new.

    A missing column counts as renamed if a new one is `alike` by `likeness`, from 0 to 1.
    """
    was, has = ([name for name in names if name] for names in (was, has))
    new = [name for name in has if name not in was]
    for name in was:
        if name in has:
            continue
        successor = max(new, key=lambda each: likeness(name, each), default="")
        if successor and likeness(name, successor) >= alike:
            new.remove(successor)
            yield f"column {quoted(name)} seems to be {quoted(successor)} now"
        else:
            yield f"column {quoted(name)} is missing"
    yield from (f"column {quoted(name)} is new" for name in new)


def likeness(one: str, other: str) -> float:
    """Returns the similarity of two names, from 0 to 1, without regard to case."""
    return SequenceMatcher(None, one.lower(), other.lower()).ratio()
