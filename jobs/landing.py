"""Finds the files that the hospital sends, and profiles each in one reading before Spark reads it."""

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

LONGEST_FIELD = 65_536  # characters; a longer field means a broken file
LONGEST_KEY = 512  # characters; PostgreSQL's index pages hold no key of more than 2,704 bytes
LONGEST_RECORD = 1 << 20  # characters; validation.py relies on it
LONGEST_OPEN = 1 << 24  # characters of a record that contains the rest of its file because a quote was left open
MOST_COLUMNS = 1_000
WIDEST = 16_384  # columns, including those without a name: a spreadsheet pads its lines, and has at most so many
CHUNK = 1 << 20
BEHIND_QUOTE = "".join(map(chr, range(0x21)))  # white space to Spark's CSV parser, which finds the ends of records


class Facts(NamedTuple):
    """Holds the profile of a CSV file: what one reading of it shows before Spark reads it."""

    sha256: str
    bytes: int
    header: tuple[str, ...]
    header_bytes: int  # from the start of the file to the end of its header
    header_lines: int  # physical lines up to the end of the header
    header_records: int  # records in those lines, empty ones left out
    records: int  # data records; blank lines do not count
    spans: bool  # a record spans lines or leaves a quote open, so that the file cannot be split at line ends
    widest: int  # most fields in a record
    amount: str  # the column whose amounts were added up; empty if the dataset has none
    amounts: int  # records whose amount can be read
    cents: int  # the sum of these amounts

    def metadata(self) -> dict[str, str]:
        """Returns the profile as S3 object metadata; the header stays in the file, at its start."""
        numbers = {k.replace("_", "-"): str(int(v)) for k, v in self._asdict().items() if isinstance(v, int)}
        return numbers | {"sha256": self.sha256, "amount": self.amount or "none"}


def landing_path(dataset: Dataset, day: date) -> Path:
    """Returns the path of the landing file of a dataset and a date."""
    return settings.path("LANDING_DIR") / folder(day) / f"{dataset.name}.csv"


def landed_days(dataset: Dataset) -> Iterator[date]:
    """Yields the dates that have a landing file of the dataset."""
    for file in settings.path("LANDING_DIR").glob(f"[0-9]*/[0-9]*/[0-9]*/{dataset.name}.csv"):
        with suppress(ValueError):
            yield date.fromisoformat("-".join(file.parts[-4:-1]))


def has_landed(dataset: Dataset, day: date) -> bool:
    """Tells whether the landing file is there; raises Refused if something other than a file is in its place."""
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
        wrong = "is a directory" if stat.S_ISDIR(mode) else "is not a regular file"
    raise Refused(f"{folder(day)}/{dataset.name}.csv {wrong}; put the file in its place and run the date again.")


def folder(day: date) -> str:
    """Returns a date's folder as YYYY/MM/DD; strftime would write the years before 1000 with fewer digits."""
    return day.isoformat().replace("-", "/")


def checksum(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal; reads the file again only if its size or time of change differs."""
    status = path.stat()
    return checksum_of(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def checksum_of(path: Path, size: int, changed: int) -> str:
    """Returns the SHA-256 of a file in hexadecimal; `size` and `changed` make the cache tell its versions apart."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class Reader(io.RawIOBase):
    """Reads a file and records checksum, size and first bytes, so that the whole profile is of the same bytes."""

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
    """Hands a file's bytes to a store; raises Refused before the last of them if their checksum is not `sha256`."""

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
    """Profiles a CSV file in one reading, which holds one record at a time.

    A file that `came_before` had all columns that were declared then. Columns that it lacks were declared since, and
    are not required.

    Raises Refused, which names the file (`name`) and columns, if the header lacks declared columns or names one twice,
    if bytes are not UTF-8, if the file is empty, or if something is longer than LONGEST_FIELD, LONGEST_KEY,
    LONGEST_RECORD or LONGEST_OPEN.

    Long because the file is read once, and each figure is counted in that reading.
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
                break  # the lines that follow are not records
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
    """Returns the dataset as declared when a file with this header arrived: without the columns added since."""
    return dataset.without([name for name in dataset.names if name not in header])


def read_records(lines: Iterator[str], dialect: Dialect = RFC_4180) -> Iterator[tuple[str, int, bool]]:
    """Yields (text with line end, number of lines, whether it ends in an open quote) of each record, blank or not.

    A record that an open quote makes longer than LONGEST_OPEN ends there: such a file is refused, and its rest is not
    held in memory.
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


def read_batches(text: io.TextIOWrapper, dialect: Dialect = RFC_4180) -> Iterator[tuple[str, list[str], int, bool]]:
    """Yields the records of read_records in batches: many of one line each, or one over lines or with an open quote.

    A batch is its text, its records, the number of lines of each record, and whether it ends in an open quote. To count
    something in all records of a batch takes a fraction of the time that it takes record by record.
    """
    while chunk := text.read(CHUNK) + text.readline():
        lines = io.StringIO(chunk, newline="\n").readlines()
        if not dialect.quote or dialect.quote not in chunk:
            yield chunk, lines, 1, False
            continue
        taken, of_one_line = 0, list[str]()
        for record, span, is_open in read_records(itertools.chain(lines, text), dialect):
            if span == 1 and not is_open:
                of_one_line.append(record)
            else:
                if of_one_line:
                    yield "".join(of_one_line), of_one_line, 1, False
                    of_one_line = []
                yield record, [record], span, is_open
            taken += span
            if taken >= len(lines):
                break
        if of_one_line:
            yield "".join(of_one_line), of_one_line, 1, False


def ends_open(line: str, is_open: bool = False, dialect: Dialect = RFC_4180) -> bool:
    """Tells whether a quote is open at the end of a line, which began at a field's start or in a quote (`is_open`)."""
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
    """Returns the cents of a column of a record; None for a malformed record, or a text that is not a decimal(12,2)."""
    fields = plain_fields(record.rstrip("\n").removesuffix("\r"))
    if len(fields) != len(header) or "\0" in record:
        return None
    return cents(fields[header.index(column)].strip(WHITE_SPACE))


def plain_fields(record: str, dialect: Dialect = RFC_4180) -> list[str]:
    """Returns the fields of a record, which has no line end; removes quotes, but no white space."""
    is_quoted = dialect.quote and dialect.quote in record
    return list(quoted_fields(record, dialect)) if is_quoted else record.split(dialect.separator)


def quoted_fields(record: str, dialect: Dialect = RFC_4180) -> Iterator[str]:
    """Yields the fields of a record that has quotes, without them.

    A field that goes on behind its closing quote is taken unchanged; a field with an open quote goes on to the record's
    end. White space (BEHIND_QUOTE) behind a closing quote is dropped. validation.py tells Spark the same rules.
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
    """Returns a decimal's hundredths, rounded half up by its third place; None if the text is not a decimal(12,2)."""
    digits = text[:-3] + text[-2:]
    if 3 < len(text) <= 13 and text[-3] == "." and digits.isdigit() and digits.isascii():
        return int(digits)  # the fast way: nearly all of millions of amounts have this form
    found = re.fullmatch(r"([+-]?)(?=\.?[0-9])([0-9]*)(?:\.([0-9]+))?", text)
    if not found:
        return None
    sign, whole, places = found[1], found[2].lstrip("0"), (found[3] or "").ljust(3, "0")
    if len(whole) > 10:
        return None
    value = int(whole or "0") * 100 + int(places[:2]) + (places[2] >= "5")
    return None if value >= 10**12 else -value if sign == "-" else value


def named_fields(record: str, header: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields each field of a record with its column's name, or with its number if the name is not fit to be shown."""
    for number, value in enumerate(plain_fields(record.rstrip("\r\n"))):
        known = number < len(header) and is_legible(header[number])
        yield header[number] if known else f"field {number + 1}", value


def is_legible(name: str) -> bool:
    """Tells whether the name of an undeclared column, which is part of the file, is fit to be shown in a sentence."""
    return 0 < len(name) <= 64 and name.isprintable()


def is_utf8(text: str) -> bool:
    """Tells whether a text has no bytes that surrogateescape had to escape, because they are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_header(record: str, dataset: Dataset, name: str, start: bytes = b"") -> tuple[str, ...]:
    """Returns the names of a header; raises Refused with all its faults and with what the file seems to be.

    `start` holds the file's first bytes. The error names only declared columns, because the header may be a patient's
    row.
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
    """Returns the faults of a header, each as part of a sentence.

    Rows must not pass for names of columns, because the job prints the names of undeclared columns.
    """
    columns, faults = names_in(text, separator), rows_in_header(text)
    times = Counter(columns)
    named = len(columns) - times[""]
    if "\r" in text.replace("\r\n", ""):
        # Such a header contains rows too, so that only the presence of names can be checked.
        times = Counter(set(names_in(text.replace("\r", separator), separator)))
    elif named > MOST_COLUMNS:
        faults.append(f"names {named:,} columns, more than the {MOST_COLUMNS:,} allowed,")
    elif len(columns) > WIDEST:
        faults.append(f"has {len(columns):,} columns, more than the {WIDEST:,} allowed,")
    if not text.isascii() and not is_utf8(text):
        fields = [str(place) for place, column in enumerate(columns, start=1) if not is_utf8(column)]
        faults.append(
            f"holds bytes that are not UTF-8 in {'field' if len(fields) == 1 else 'fields'} {listed(fields, 10)}"
        )
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


def rows_in_header(text: str, dialect: Dialect = RFC_4180) -> list[str]:
    """Returns the faults by which a header may contain rows, each as part of a sentence."""
    faults = ["holds NUL characters"] if "\0" in text else []
    if "\r" in text.replace("\r\n", ""):
        faults.append("holds a carriage return that ends no line (lines end in LF or CRLF)")
    if dialect.quote and ends_open(text, dialect=dialect):
        faults.append("leaves a quote open")
    return faults


def names_in(header: str, separator: str) -> list[str]:
    """Returns the names of a header's columns; "" for a column without a name."""
    if separator == ",":
        return [field.strip(WHITE_SPACE) for field in plain_fields(header)]
    return [field.strip(WHITE_SPACE + '"') for field in header.split(separator)]  # exact enough for an error message


def listed(words: Iterable[str], most: int = 20) -> str:
    """Returns words joined as in a sentence; of more than `most`, the first and how many more there are."""
    *others, last = words
    if len(others) >= most:
        others, last = others[: most - 1], f"{len(others) - most + 2:,} more"
    return f"{', '.join(others)} and {last}" if others else last


def check_record(length: int, line: int, is_open: bool, name: str) -> None:
    """Raises Refused if a record of `length` characters is too long; one with an open quote may be longer."""
    what = "leaves a quote open, which makes one" if is_open else "is one"
    limit = LONGEST_OPEN if is_open else LONGEST_RECORD
    if length > limit:
        raise Refused(
            f"{name}: the record that begins in line {line:,} {what} of more than {limit:,} characters; "
            "correct the file and run the date again."
        )


def check_fields(record: str, header: Sequence[str], dataset: Dataset, name: str) -> None:
    """Raises Refused if a field of a record is too long for its column."""
    for column, value in named_fields(record, header):
        limit = LONGEST_KEY if column in dataset.indexed else LONGEST_FIELD
        if len(value) > limit:
            raise Refused(
                f"{name}: column {column!r} holds a field of {len(value):,} characters, more than the {limit:,} "
                "allowed; correct the file and run the date again."
            )
