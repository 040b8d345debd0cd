"""The files the hospital sends, and what one reading of a file tells before Spark reads it."""

import codecs
import hashlib
import io
import itertools
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from jobs import dialect, settings
from jobs.dataset import WHITE_SPACE, Dataset
from jobs.dialect import RFC_4180, Dialect
from jobs.program import Refused

LONGEST_FIELD = 65_536  # characters; a longer one is a broken file, not a value
LONGEST_KEY = 512  # characters; PostgreSQL's index pages hold no key of more than 2,704 bytes
LONGEST_RECORD = 1 << 20  # characters; validation.py relies on it
LONGEST_OPEN = 1 << 24  # characters of a record that a quote left open makes of the rest of its file
MOST_COLUMNS = 1_000
WIDEST = 16_384  # columns, with those without a name: as wide as a spreadsheet goes, which pads what it writes
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


def landed_days(dataset: Dataset) -> Iterator[date]:
    """Yields the dates that have a landing file of the dataset."""
    for file in settings.path("LANDING_DIR").glob(f"[0-9]*/[0-9]*/[0-9]*/{dataset.name}.csv"):
        with suppress(ValueError):
            yield date.fromisoformat("-".join(file.parts[-4:-1]))


def has_landed(dataset: Dataset, day: date) -> bool:
    """Whether the landing file is there; raises Refused where something else stands in its place."""
    path = landing_path(dataset, day)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.is_symlink():
            return False
        wrong = "is a symbolic link to a file that is not there"
    else:
        if stat.S_ISREG(mode):
            return True
        wrong = "is a directory" if stat.S_ISDIR(mode) else "is no regular file"
    raise Refused(f"{folder(day)}/{dataset.name}.csv {wrong}; put the file in its place and run the date again.")


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


class Reader(io.RawIOBase):
    """A file that keeps account of what is read of it, so that all its facts are of the same bytes."""

    def __init__(self, file: io.FileIO) -> None:
        self.file, self.digest, self.bytes, self.start = file, hashlib.sha256(), 0, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        length = self.file.readinto(buffer) or 0
        read = memoryview(buffer)[:length]
        self.digest.update(read)
        self.start, self.bytes = self.start or bytes(read), self.bytes + length
        return length


class Upload:
    """A file's bytes for a store; Refused before their end is handed out, where they are not those of `sha256`."""

    def __init__(self, file: io.FileIO, sha256: str, name: str) -> None:
        self.file, self.sha256, self.name, self.digest = file, sha256, name, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self.file.read(size) or b""
        while 0 < len(chunk) < size and (more := self.file.read(size - len(chunk))):
            chunk += more
        self.digest.update(chunk)
        if not 0 <= size <= len(chunk) and self.digest.hexdigest() != self.sha256:
            raise Refused(f"{self.name} changed while it was read; run the date again once the file is whole.")
        return chunk


def describe(path: Path, dataset: Dataset, name: str, came_before: bool = False) -> Facts:
    """Reads a CSV file once, holding a record at a time.

    A file that `came_before` had every column that was declared then: those that it lacks were declared since, and are
    not asked for.

    Raises Refused, naming file (`name`) and columns, for a header that lacks declared columns or says one twice, for
    bytes that are not UTF-8, and for what is longer than LONGEST_FIELD, LONGEST_KEY, LONGEST_RECORD or LONGEST_OPEN.
    """
    header: tuple[str, ...] = ()
    lines = heads = head_lines = head_bytes = count = widest = amounts = total = 0
    spans = is_windows = False
    foreign: dict[str, None] = {}  # columns with bytes that are not UTF-8
    with path.open("rb", buffering=0) as opened:
        file = Reader(opened)
        buffer = io.BufferedReader(file, CHUNK)
        text = io.TextIOWrapper(buffer, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
        for record, span, is_open in read_records(text):
            lines += span
            blank = not record.strip(WHITE_SPACE)
            if not header:
                heads += record != "\n"
                head_lines = lines
                head_bytes += len(record.encode(errors=text.errors or ""))
            if blank:
                continue
            if not header:
                if came_before:
                    dataset = as_of(dataset, names_in(record.rstrip("\r\n"), ","))
                header = read_header(record, dataset, name, file.start)
            elif not record.isascii() and not is_utf8(record):
                is_windows = dialect.is_windows_1252(record) if not foreign else is_windows
                foreign |= dict.fromkeys(c for c, value in named_fields(record, header) if not is_utf8(value))
            elif not foreign:
                count += 1
                if dataset.amount and not is_open:
                    cents = read_amount(record, header, dataset.amount)
                    if cents is not None:
                        amounts, total = amounts + 1, total + cents
                if len(record) > LONGEST_KEY:
                    check_record(len(record), lines - span + 1, is_open, name)
                    if not is_open:
                        check_fields(record, header, dataset, name)
            spans = spans or span > 1 or is_open
            widest = max(widest, record.count(",") + 1)
            if foreign and is_open:
                break  # what follows is no record
    if foreign:
        columns = listed(map(repr, foreign))
        columns = f"column {columns} holds" if len(foreign) == 1 else f"columns {columns} hold"
        seems = ", it seems to be Windows-1252" if is_windows else ""
        raise Refused(f"{name}: {columns} bytes that are not UTF-8{seems}; have the file sent again in UTF-8.")
    if not header:
        raise Refused(f"{name} is empty, without even a header; have the file sent again.")
    mark = len(codecs.BOM_UTF8) if file.start.startswith(codecs.BOM_UTF8) else 0
    ends, amount = head_bytes + mark, dataset.amount or ""
    sha256, sums = file.digest.hexdigest(), (amount, amounts, total)
    return Facts(sha256, file.bytes, header, ends, head_lines, heads, count, spans, widest, *sums)


def as_of(dataset: Dataset, header: Sequence[str]) -> Dataset:
    """Returns the dataset as it was declared when a file with this header came in: without the columns added since."""
    return dataset.without([name for name in dataset.names if name not in header])


def read_records(lines: Iterator[str], dialect: Dialect = RFC_4180) -> Iterator[tuple[str, int, bool]]:
    """(a record's text with its line end, the lines it spans, whether it ends in an open quote), blank ones too.

    One that an open quote makes longer than LONGEST_OPEN ends there: it is refused, not held.
    """
    quote = dialect.quote
    for line in lines:
        if not quote or quote not in line:
            yield line, 1, False
            continue
        record, is_open, length = [line], ends_open(line, dialect=dialect), len(line)
        while is_open and length <= LONGEST_OPEN and (more := next(lines, None)) is not None:
            record.append(more)
            is_open, length = ends_open(more, is_open=True, dialect=dialect), length + len(more)
        yield "".join(record), len(record), is_open


def ends_open(line: str, is_open: bool = False, dialect: Dialect = RFC_4180) -> bool:
    """Whether a quote is open at the end of a line that began inside one (`is_open`) or at a field's start."""
    separator, mark = dialect
    place = 0
    while True:
        if not is_open and line.startswith(mark, place):
            is_open, place = True, place + 1
        while is_open:
            quote = line.find(mark, place)
            if quote < 0:
                return True
            is_open = line.startswith(mark * 2, quote)
            place = quote + 1 + is_open
        end = line.find(separator, place)
        if end < 0:
            return False
        place = end + 1


def read_amount(record: str, header: Sequence[str], column: str) -> int | None:
    """The cents of one column of a record; None where it is malformed, or the text is no decimal(12,2)."""
    fields = plain_fields(record.rstrip("\n").removesuffix("\r"))
    if len(fields) != len(header) or "\0" in record:
        return None
    return cents(fields[header.index(column)].strip(WHITE_SPACE))


def plain_fields(record: str, dialect: Dialect = RFC_4180) -> list[str]:
    """The fields of a record without its line end, as they came."""
    is_quoted = dialect.quote and dialect.quote in record
    return list(quoted_fields(record, dialect)) if is_quoted else record.split(dialect.separator)


def quoted_fields(record: str, dialect: Dialect = RFC_4180) -> Iterator[str]:
    """The fields of a record; one whose quotes end before it does is text as it stands, an open one goes to the end.

    White space (BEHIND_QUOTE) behind a closing quote is dropped. validation.py says the same to Spark.
    """
    separator, quote = dialect
    place = 0
    while True:
        start, closed = place, None
        if record.startswith(quote, place):
            place += 1
            while (place := record.find(quote, place)) >= 0 and record.startswith(quote * 2, place):
                place += 2
            if place < 0:
                yield record[start + 1 :].replace(quote * 2, quote)
                return
            closed, place = record[start + 1 : place].replace(quote * 2, quote), place + 1
        found = record.find(separator, place)
        end = len(record) if found < 0 else found
        yield record[start:end] if closed is None or record[place:end].strip(BEHIND_QUOTE) else closed
        if found < 0:
            return
        place = found + 1


def cents(text: str) -> int | None:
    """A decimal's hundredths, rounded half up by its third place; None for what is no decimal of at most 12 digits."""
    digits = text[:-3] + text[-2:]
    if 3 < len(text) <= 13 and text[-3] == "." and digits.isdigit() and digits.isascii():
        return int(digits)  # nearly all are written so, and there are millions of them
    found = re.fullmatch(r"([+-]?)(?=\.?[0-9])([0-9]*)(?:\.([0-9]+))?", text)
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
    return 0 < len(name) <= 64 and name.isprintable()


def is_utf8(text: str) -> bool:
    """False where surrogateescape has put a byte that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_header(record: str, dataset: Dataset, name: str, start: bytes = b"") -> tuple[str, ...]:
    """The names of a header; raises Refused with all that is wrong with it, and with what its file seems to be.

    `start` are the file's first bytes. Names only declared columns: a patient's row may stand where the header should.
    """
    text = record.rstrip("\r\n")
    if not faults_of(text, ",", dataset):
        return tuple(names_in(text, ","))
    found = dialect.look(start or record.encode(errors="surrogateescape"))
    if found.kind:
        columns = listed(map(repr, dataset.names))
        raise Refused(f"{name}: it is {found.kind}, not CSV with the columns {columns}; have the file sent again.")
    records = (line for line, _, _ in read_records(io.StringIO(found.text, newline="\n")) if line.strip(WHITE_SPACE))
    lines = [line.rstrip("\r\n") for line in itertools.islice(records, 2)]
    signs = [f"seems to be {found.encoding}"] if found.encoding else []
    if lines and found.encoding in dialect.UNICODE:
        text = lines[0]
    if dialect.SEPARATOR_LINE.fullmatch(text.strip(WHITE_SPACE)):
        signs.append("begins with a spreadsheet's line `sep=`")
        text = "".join(lines[1:])
    separator = dialect.separator_of(text, dataset.names)
    if separator in dialect.SEPARATORS:
        signs.append(f"seems to be separated by {dialect.SEPARATORS[separator]}")
    faults = faults_of(text, separator, dataset)
    causes = [f"it {' and '.join(signs)}"] * bool(signs) + [f"the header {' and '.join(faults)}"] * bool(faults)
    remedy = "save it as CSV in UTF-8 with commas" if signs else "correct the file"
    raise Refused(f"{name}: {', and '.join(causes)}; {remedy} and run the date again.")


def faults_of(text: str, separator: str, dataset: Dataset) -> list[str]:
    """What is wrong with a header. Rows must not pass for names of columns, which the job says."""
    columns, faults = names_in(text, separator), []
    times = Counter(columns)
    named = len(columns) - times[""]
    if "\r" in text.replace("\r\n", ""):
        faults.append("holds a carriage return that ends no line (lines end in LF or CRLF)")
        # Rows stand in it as well, then; which names are there is all that can be told.
        times = Counter(set(names_in(text.replace("\r", separator), separator)))
    elif named > MOST_COLUMNS:
        faults.append(f"names {named:,} columns, more than the {MOST_COLUMNS:,} allowed,")
    elif len(columns) > WIDEST:
        faults.append(f"has {len(columns):,} columns, more than the {WIDEST:,} allowed,")
    if "\0" in text:
        faults.append("holds NUL characters")
    if not text.isascii() and not is_utf8(text):
        fields = [str(place) for place, column in enumerate(columns, start=1) if not is_utf8(column)]
        faults.append(
            f"holds bytes that are not UTF-8 in {'field' if len(fields) == 1 else 'fields'} {listed(fields, 10)}"
        )
    if ends_open(text):
        faults.append("leaves a quote open")
    lacking = [repr(column) for column in dataset.names if not times[column]]
    twice = [repr(column) for column in dataset.names if times[column] > 1]
    if lacking:
        faults.append(f"lacks the {'column' if len(lacking) == 1 else 'columns'} {listed(lacking)}")
    if twice:
        faults.append(f"names {'column' if len(twice) == 1 else 'columns'} {listed(twice)} twice")
    alike = [name for name, count in times.items() if name and name not in dataset.names and count > 1]
    if alike and len(lacking) < len(dataset.names) and named <= MOST_COLUMNS:
        places = ([str(at) for at, column in enumerate(columns, start=1) if column == name] for name in alike)
        faults.append(f"names {listed((f'columns {listed(same, 5)} alike' for same in places), 5)}")
    return faults


def names_in(header: str, separator: str) -> list[str]:
    """The names of a header's columns; "" is the name of one that has none."""
    if separator == ",":
        return [field.strip(WHITE_SPACE) for field in plain_fields(header)]
    return [field.strip(WHITE_SPACE + '"') for field in header.split(separator)]  # near enough for a refusal


def listed(words: Iterable[str], most: int = 20) -> str:
    """Words as a sentence says them, and not all of very many."""
    *others, last = words
    if len(others) >= most:
        others, last = others[: most - 1], f"{len(others) - most + 2:,} more"
    return f"{', '.join(others)} and {last}" if others else last


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
