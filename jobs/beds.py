"""Reads conf/reference/beds.csv, the beds that a hospital declares, into reference.beds."""

import csv
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple, NoReturn

from psycopg import Connection

from jobs import settings
from jobs.borders import quoted
from jobs.catalog import CATALOG
from jobs.program import Refused, parse_day

FILE = settings.ROOT / "conf" / "reference" / "beds.csv"


class Beds(NamedTuple):
    """Holds the beds of a room type in a period; `valid_to` is None while the period lasts."""

    room_type: str
    beds: int
    out_of_service: int
    valid_from: date
    valid_to: date | None


def load(connection: Connection) -> None:
    """Replaces reference.beds by the rows of the file, in the caller's transaction; raises Refused for a mistake."""
    declared = read(FILE)
    connection.execute("delete from reference.beds")
    names, places = ", ".join(Beds._fields), ", ".join(["%s"] * len(Beds._fields))
    with connection.cursor() as cursor:
        cursor.executemany(f"insert into reference.beds ({names}) values ({places})", declared)


def content() -> bytes:
    """Returns the bytes of the file, so that marts built with other beds are recognised; empty if there is no file."""
    return FILE.read_bytes() if FILE.is_file() else b""


def read(path: Path) -> list[Beds]:
    """Returns the rows of a file of beds; raises Refused with the line and the column of the first mistake."""
    name = str(path.relative_to(settings.ROOT)) if path.is_relative_to(settings.ROOT) else str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise Refused(f"{name} is missing; restore it, with its header alone where no beds are declared.") from None
    except UnicodeDecodeError:
        raise Refused(f"{name} is not UTF-8; save it as CSV in UTF-8.") from None
    lines = csv.reader(text.splitlines(), strict=True)
    try:
        rows = [(lines.line_num, [field.strip() for field in row]) for row in lines]
    except csv.Error:
        raise Refused(f"{name}, line {lines.line_num}: a quote is not closed; correct the line.") from None
    rows = [(line, row) for line, row in rows if any(row)]
    if not rows or sorted(rows[0][1]) != sorted(Beds._fields):
        raise Refused(f"{name}, line 1: the columns are {', '.join(Beds._fields)}; correct the header.")
    (_, header), *records = rows
    found = {line: parse(f"{name}, line {line}", header, row) for line, row in records}
    refuse_overlaps(name, found)
    return list(found.values())


def parse(place: str, header: list[str], row: list[str]) -> Beds:
    """Returns one row of the file; raises Refused if a value does not fit its column."""
    if len(row) != len(header):
        raise Refused(f"{place}: it has {len(row)} fields, and the header {len(header)}; correct the line.")
    fields = dict(zip(header, row, strict=True))
    kinds = {kind.lower(): kind for kind in room_types()}
    if fields["room_type"].lower() not in kinds:
        refuse(place, "room_type", fields, f"is not one of {', '.join(kinds.values())}; correct it")
    beds = number(place, "beds", fields)
    out_of_service = number(place, "out_of_service", fields) if fields["out_of_service"] else 0
    if out_of_service > beds:
        refuse(place, "out_of_service", fields, f"is more than the {beds} beds; correct either")
    first = day(place, "valid_from", fields)
    last = day(place, "valid_to", fields) if fields["valid_to"] else None
    if last is not None and last < first:
        refuse(place, "valid_to", fields, "is before valid_from; correct either")
    return Beds(kinds[fields["room_type"].lower()], beds, out_of_service, first, last)


def room_types() -> Iterable[str]:
    """Returns the room types that an admission may have."""
    return next(column.one_of for column in CATALOG["admissions"].columns if column.name == "room_type")


def number(place: str, column: str, fields: Mapping[str, str]) -> int:
    """Returns a whole number of beds, from 0 to 999999; raises Refused for any other text."""
    text = fields[column]
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        refuse(place, column, fields, "is not a whole number from 0 to 999999; correct it")
    return int(text)


def day(place: str, column: str, fields: Mapping[str, str]) -> date:
    """Returns a date; raises Refused for a text that is none."""
    try:
        return parse_day(fields[column])
    except Refused:
        refuse(place, column, fields, "is not a date; write it as YYYY-MM-DD")


def refuse(place: str, column: str, fields: Mapping[str, str], wrong: str) -> NoReturn:
    """Raises Refused for a value, with its place in the file, its column and what is wrong with it."""
    raise Refused(f"{place}, column {column}: {quoted(fields[column])} {wrong}.")


def refuse_overlaps(name: str, found: Mapping[int, Beds]) -> None:
    """Raises Refused if two lines count for the same room type on the same day."""
    for line, one in found.items():
        for other_line, other in found.items():
            alike = other_line < line and other.room_type == one.room_type
            if alike and max(one.valid_from, other.valid_from) <= min(
                one.valid_to or date.max, other.valid_to or date.max
            ):
                raise Refused(
                    f"{name}, line {line}, column valid_from: {one.room_type} has beds from line {other_line} on some "
                    "of these days; end that period with valid_to before this one begins."
                )
