"""The files the hospital sends, and what one reading of a file tells before Spark reads it."""

import hashlib
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from jobs import settings
from jobs.dataset import WHITE_SPACE, Dataset
from jobs.program import Refused

LONGEST_FIELD = 65_536  # characters; a longer one is a broken file, not a value
LONGEST_KEY = 512  # characters; PostgreSQL's index pages hold no key of more than 2,704 bytes
LONGEST_RECORD = 1 << 20  # characters; validation.py relies on it
LONGEST_OPEN = 1 << 24  # characters of a record that a quote left open makes of the rest of its file
MOST_COLUMNS = 1_000
CHUNK = 1 << 20
BEHIND_QUOTE = "".join(map(chr, range(0x21)))  # white space, to Spark's CSV parser, which finds the ends of records


class Facts(NamedTuple):
    """What one reading of a CSV file tells before Spark reads it."""

    sha256: str
    bytes: int
    header: tuple[str, ...]
    header_bytes: int  # from the start of the file to the end of its header
    header_lines: int  # physical lines up to the end of the header
    header_records: int  # of those, the ones that are not empty, a record's lines counted once
    records: int  # data records; blank lines are none
    spans: bool  # some record spans lines or leaves a quote open: the file cannot be cut at line ends
    widest: int  # most fields in a record
    amount: str  # the column whose amounts were added up; empty where the dataset has none
    amounts: int  # records of which that amount can be read
    cents: int  # and what they add up to

    def metadata(self) -> dict[str, str]:
        """As S3 object metadata; the header itself stays in the file, at its start."""
        numbers = {k.replace("_", "-"): str(int(v)) for k, v in self._asdict().items() if isinstance(v, int)}
        return numbers | {"sha256": self.sha256, "amount": self.amount or "none"}


def landing_path(dataset: Dataset, day: date) -> Path:
    return settings.path("LANDING_DIR") / folder(day) / f"{dataset.name}.csv"


def folder(day: date) -> str:
    """YYYY/MM/DD; strftime writes the years before 1000 with fewer digits."""
    return day.isoformat().replace("-", "/")


def checksum(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; read again only when size or time of change differ."""
    status = path.stat()
    return checksum_of(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def checksum_of(path: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def describe(path: Path, dataset: Dataset, name: str) -> Facts:
    """Reads a CSV file once, holding a record at a time.

    Raises Refused, naming file (`name`) and column, for a header that lacks a declared column or says one twice, for
    bytes that are not UTF-8, and for what is longer than LONGEST_FIELD, LONGEST_KEY, LONGEST_RECORD or LONGEST_OPEN.
    """
    header: tuple[str, ...] = ()
    lines = heads = head_lines = count = widest = amounts = total = 0
    spans = False
    with path.open("rb") as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
        for record, span, is_open in read_records(text):
            lines += span
            blank = not record.strip(WHITE_SPACE)
            if not header:
                heads += record != "\n"
                head_lines = lines
            if blank:
                continue
            spans = spans or span > 1 or is_open
            widest = max(widest, record.count(",") + 1)
            if not record.isascii() and not is_utf8(record):
                column = next(c for c, value in named_fields(record, header) if not is_utf8(value))
                raise Refused(
                    f"{name}: column {column!r} holds bytes that are not UTF-8; have the file sent again in UTF-8."
                )
            if not header:
                header = read_header(record, dataset, name)
                continue
            count += 1
            if dataset.amount and not is_open:
                cents = read_amount(record, header, dataset.amount)
                if cents is not None:
                    amounts, total = amounts + 1, total + cents
            if len(record) > LONGEST_KEY:
                check_record(len(record), lines - span + 1, is_open, name)
                if not is_open:
                    check_fields(record, header, dataset, name)
    if not header:
        raise Refused(f"{name} is empty, without even a header; have the file sent again.")
    with path.open("rb") as file:
        end = sum(len(line) for line in itertools.islice(file, head_lines))
    size, amount = path.stat().st_size, dataset.amount or ""
    return Facts(checksum(path), size, header, end, head_lines, heads, count, spans, widest, amount, amounts, total)


def read_records(lines: Iterator[str]) -> Iterator[tuple[str, int, bool]]:
    """(a record's text with its line end, the lines it spans, whether it ends in an open quote), blank ones too.

    One that an open quote makes longer than LONGEST_OPEN ends there: it is refused, not held.
    """
    for line in lines:
        if '"' not in line:
            yield line, 1, False
            continue
        record, is_open, length = [line], ends_open(line), len(line)
        while is_open and length <= LONGEST_OPEN and (more := next(lines, None)) is not None:
            record.append(more)
            is_open, length = ends_open(more, is_open=True), length + len(more)
        yield "".join(record), len(record), is_open


def ends_open(line: str, is_open: bool = False) -> bool:
    """Whether a quote is open at the end of a line that began inside one (`is_open`) or at a field's start."""
    place = 0
    while True:
        if not is_open and line.startswith('"', place):
            is_open, place = True, place + 1
        while is_open:
            quote = line.find('"', place)
            if quote < 0:
                return True
            is_open = line.startswith('""', quote)
            place = quote + 1 + is_open
        comma = line.find(",", place)
        if comma < 0:
            return False
        place = comma + 1


def read_amount(record: str, header: Sequence[str], column: str) -> int | None:
    """The cents of one column of a record; None where it is malformed, or the text is no decimal(12,2)."""
    fields = plain_fields(record.rstrip("\n").removesuffix("\r"))
    if len(fields) != len(header) or "\0" in record:
        return None
    return cents(fields[header.index(column)].strip(WHITE_SPACE))


def plain_fields(record: str) -> list[str]:
    """The fields of a record without its line end, as they came."""
    return list(quoted_fields(record)) if '"' in record else record.split(",")


def quoted_fields(record: str) -> Iterator[str]:
    """The fields of a record; one whose quotes end before it does is text as it stands, an open one goes to the end.

    White space (BEHIND_QUOTE) behind a closing quote is dropped. validation.py says the same to Spark.
    """
    place = 0
    while True:
        start, closed = place, None
        if record.startswith('"', place):
            place += 1
            while (place := record.find('"', place)) >= 0 and record.startswith('""', place):
                place += 2
            if place < 0:
                yield record[start + 1 :].replace('""', '"')
                return
            closed, place = record[start + 1 : place].replace('""', '"'), place + 1
        comma = record.find(",", place)
        end = len(record) if comma < 0 else comma
        yield record[start:end] if closed is None or record[place:end].strip(BEHIND_QUOTE) else closed
        if comma < 0:
            return
        place = comma + 1


def cents(text: str) -> int | None:
    """A decimal's hundredths, rounded half up by its third place; None for what is no decimal of at most 12 digits."""
    digits = text[:-3] + text[-2:]
    if 3 < len(text) <= 13 and text[-3] == "." and digits.isdigit() and digits.isascii():
        return int(digits)  # nearly all are written so, and there are millions of them
    found = re.fullmatch(r"([+-]?)([0-9]+)(?:\.([0-9]+))?", text)
    if not found:
        return None
    sign, whole, places = found[1], found[2].lstrip("0"), (found[3] or "").ljust(3, "0")
    if len(whole) > 10:
        return None
    value = int(whole or "0") * 100 + int(places[:2]) + (places[2] >= "5")
    return None if value >= 10**12 else -value if sign == "-" else value


def named_fields(record: str, header: Sequence[str]) -> Iterator[tuple[str, str]]:
    """A record's fields with the names of their columns, or their numbers where a name is none to be shown."""
    for number, value in enumerate(plain_fields(record.rstrip("\r\n"))):
        known = number < len(header) and is_legible(header[number])
        yield header[number] if known else f"field {number + 1}", value


def is_legible(name: str) -> bool:
    """Whether the name of a column nobody declared may stand in a sentence: it came with the file."""
    return len(name) <= 64 and name.isprintable()


def is_utf8(text: str) -> bool:
    """False where surrogateescape has put a byte that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_header(record: str, dataset: Dataset, name: str) -> tuple[str, ...]:
    """The names of a header; says only declared ones, for a patient's row may stand where the header should."""
    text = record.rstrip("\r\n")
    header = tuple(field.strip(WHITE_SPACE) for field in plain_fields(text))
    first: dict[str, int] = {}
    alike = [(first[column], at) for at, column in enumerate(header, start=1) if first.setdefault(column, at) < at]
    faults = [f"lacks the column {column!r}" for column in dataset.names if column not in first][:1]
    faults += [f"names column {column!r} twice" for column in dataset.names if header.count(column) > 1][:1]
    if alike and not faults:
        faults = ["names columns {} and {} alike".format(*alike[0])]
    # Rows must not pass for names of columns, which the job says.
    if ends_open(text):
        faults.insert(0, "leaves a quote open")
    if "\0" in text:
        faults.insert(0, "holds NUL characters (is it UTF-16?)")
    if "\r" in text.replace("\r\n", ""):
        faults.insert(0, "holds a carriage return that ends no line (lines end in LF or CRLF)")
    if len(header) > MOST_COLUMNS:
        faults.insert(0, f"names {len(header):,} columns, more than the {MOST_COLUMNS:,} allowed,")
    if faults:
        raise Refused(f"{name}: the header {' and '.join(faults)}; correct the file and run the date again.")
    return header


def check_record(length: int, line: int, is_open: bool, name: str) -> None:
    what = "leaves a quote open, which makes one" if is_open else "is one"
    limit = LONGEST_OPEN if is_open else LONGEST_RECORD
    if length > limit:
        raise Refused(
            f"{name}: the record that begins in line {line:,} {what} of more than {limit:,} characters; "
            "correct the file and run the date again."
        )


def check_fields(record: str, header: Sequence[str], dataset: Dataset, name: str) -> None:
    for column, value in named_fields(record, header):
        limit = LONGEST_KEY if column in dataset.indexed else LONGEST_FIELD
        if len(value) > limit:
            raise Refused(
                f"{name}: column {column!r} holds a field of {len(value):,} characters, more than the {limit:,} "
                "allowed; correct the file and run the date again."
            )
