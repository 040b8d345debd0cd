"""Finds the files of a source's export for a date, and profiles each in one reading before Spark reads it."""

import codecs
import fnmatch
import hashlib
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from jobs import dialect, landing, settings, sources
from jobs.borders import quoted
from jobs.catalog import CATALOG
from jobs.dataset import WHITE_SPACE
from jobs.program import Refused
from jobs.sources import DatasetMapping, Source, Table

# Spark takes a name with these characters for a pattern, and ignores a file whose name begins with _ or a dot.
UNREADABLE_NAME = re.compile(r"[\\{}\[\]*?:%\x00-\x1f]|(^|/)[_.]")


class RawFile(NamedTuple):
    """Holds the profile of a source's file, by which Spark reads the file and its records are counted."""

    name: str  # in the source's folder
    sha256: str
    bytes: int
    heading: str  # the text of the header, without line end and without UTF-8's mark
    header: tuple[str, ...]
    records: int  # blank lines are none
    spans: bool  # not to be read by lines: a record spans lines, has a return within, or is the header's text again
    widest: int  # most fields in a record
    quotes: bool  # a record has a quote
    even: bool  # all records have as many separators as the header, and none has NUL

    @property
    def is_sound(self) -> bool:
        """Tells whether certainly no record is malformed."""
        return self.even and not self.quotes


def folder(day: date, name: str) -> Path:
    """Returns the folder of a source's files for a date."""
    return settings.path("LANDING_DIR") / landing.folder(day) / name


def folders(day: date) -> list[str]:
    """Returns the sources that have a folder for a date: declared ones, or any folder if no file of ours has landed."""
    place = settings.path("LANDING_DIR") / landing.folder(day)
    try:
        names = sorted(each.name for each in place.glob("*") if each.is_dir() and not each.name.startswith("."))
    except PermissionError:  # an attempt to read a file there reports it
        return []
    if not names:
        return []
    known = [name for name in names if name in sources.declared()]
    return known or ([] if own_files(day) else names)


def own_files(day: date) -> list[str]:
    """Returns the datasets whose own file for a date has landed."""
    return [name for name, dataset in CATALOG.items() if landing.landing_path(dataset, day).exists()]


def landed_days() -> Iterator[date]:
    """Yields the dates that have a folder of a declared source."""
    for name in sources.declared():
        for place in settings.path("LANDING_DIR").glob(f"[0-9]*/[0-9]*/[0-9]*/{name}/"):
            with suppress(ValueError):
                yield date.fromisoformat("-".join(place.parts[-4:-1]))


def source_of(day: date) -> Source:
    """Reads the declaration of the source from which a date comes; raises Refused unless there is exactly one."""
    names, place = folders(day), landing.folder(day)
    if not names:
        raise Refused(
            f"{place} has no folder of a source; put its files into {place}/<source>/ and run the date again."
        )
    if len(names) > 1:
        raise Refused(f"{place} has folders of {landing.listed(names)}; a date has one source: remove the others.")
    if own := own_files(day):
        raise Refused(
            f"{place} has the folder {names[0]} and the files {landing.listed(f'{name}.csv' for name in own)}; the "
            "files of a date come from a source or are the platform's own: remove one or the other, then run the date."
        )
    return sources.load(names[0])


def paths(day: date, source: Source) -> dict[str, Path]:
    """Returns the files in a source's folder by their names relative to it; hidden files are left out."""
    place = folder(day, source.name)
    files = {path.relative_to(place).as_posix(): path for path in sorted(place.rglob("*")) if path.is_file()}
    return {name: path for name, path in files.items() if not any(part.startswith(".") for part in name.split("/"))}


def fingerprint(files: Mapping[str, str]) -> str:
    """Returns a hash of the names and checksums of files: what a date's conversion is made from."""
    return hashlib.sha256("\n".join(f"{files[name]} {name}" for name in sorted(files)).encode()).hexdigest()


def matching(table: Table, names: Sequence[str], source: Source, day: date) -> list[str]:
    """Returns the names of a table's files; raises Refused if there is none, or if Spark cannot read such a name."""
    names = [name for name in names if "/" not in name]
    found = [name for name in names if fnmatch.fnmatchcase(name, table.files)]
    if not found:
        alike = [name for name in names if fnmatch.fnmatchcase(name.lower(), table.files.lower())]
        hint = f" ({quoted(alike[0])} differs in upper and lower case)" if alike else ""
        raise Refused(
            f"{source.file} line {table.line}: {quoted(table.files)} finds no file in "
            f"{landing.folder(day)}/{source.name}{hint}; put the file there, or correct the pattern."
        )
    for name in found:
        if UNREADABLE_NAME.search(name):
            raise Refused(
                f"{landing.folder(day)}/{source.name}: the file {quoted(name)} has a name that Spark cannot "
                "read; rename it without any of \\ { } [ ] * ? : % and without _ at its start."
            )
    return found


class Reader(landing.Reader):
    """Reads a file, counts its bytes, and notes whether they could be UTF-8."""

    def __init__(self, file: io.FileIO) -> None:
        super().__init__(file)
        self.is_ascii = self.is_utf8 = True
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def readinto(self, buffer: Any) -> int:
        length = super().readinto(buffer)
        read = memoryview(buffer)[:length].tobytes()
        self.is_ascii = self.is_ascii and read.isascii()
        if self.is_utf8 and not self.is_ascii:
            try:
                self.decoder.decode(read, final=not length)
            except UnicodeDecodeError:
                self.is_utf8 = False
        return length


def read(path: Path, name: str, source: Source, used: Mapping[str, int]) -> RawFile:
    """Profiles a file in one reading, which holds one record at a time; errors call the file `name`.

    `used` are the columns that the header must have, with the lines of the declaration that name them. Raises Refused
    if the header is not as declared, if bytes are not of the declared encoding, if the file is empty, or if a record is
    too long.
    """
    heading, header = "", tuple[str, ...]()
    count = widest = line = 0
    spans, quotes, even = source.charset.startswith("UTF-16"), False, True
    ahead: set[str] = set()  # characters of white space in lines before the header
    with path.open("rb", buffering=0) as opened:
        file = Reader(opened)
        text = io.TextIOWrapper(io.BufferedReader(file, landing.CHUNK), encoding=source.encoding, newline="\n")
        try:
            for record, span, is_open in landing.read_records(text, source.dialect):
                line += span
                if record.strip(WHITE_SPACE):
                    header, heading = read_header(record, name, source, used, file.start), heading_of(record, source)
                    spans, widest = spans or span > 1 or is_open, record.count(source.separator) + 1
                    quotes = source.quote != "" and source.quote in record
                    break
                ahead |= set() if record == "\n" else {*record}
            for batch, records, span, is_open in landing.read_batches(text, source.dialect) if header else ():
                if max(map(len, records)) > landing.LONGEST_FIELD:
                    check_records(records, span, line, is_open, name)
                line += span * len(records)
                widths = {*map(str.count, records, itertools.repeat(source.separator))}
                count += len(records)
                if 0 in widths or source.separator in WHITE_SPACE:
                    count -= sum(not record.strip(WHITE_SPACE) for record in records)
                widest = max(widest, max(widths) + 1)
                quotes = quotes or (source.quote != "" and source.quote in batch)
                even = even and widths == {len(header) - 1} and "\0" not in batch
                spans = spans or span > 1 or is_open or not is_of_lines(batch, heading)
        except UnicodeDecodeError:
            raise wrong_encoding(path, name, source, file) from None
        except UnicodeError:  # UTF-16 without its mark
            raise Refused(f"{name} is not in {source.charset}; correct `encoding` in {source.file}.") from None
    if not file.is_ascii and file.is_utf8 and not source.encoding.startswith("utf"):
        raise Refused(f"{name} seems to be UTF-8, and {source.file} says {source.charset}; correct its `encoding`.")
    if not header:
        raise Refused(f"{name} is empty, without even a header; have the file sent again.")
    if ahead and spans:  # Spark would take such a line for the header
        raise Refused(f"{name} begins with a line of white space; remove that line and run the date again.")
    return RawFile(name, file.digest.hexdigest(), file.bytes, heading, header, count, spans, widest, quotes, even)


def heading_of(record: str, source: Source) -> str:
    """Returns the text of a header as Spark's reader of lines has it: without line end and without UTF-8's mark."""
    text = record.rstrip("\r\n").encode(source.encoding)
    return text.removeprefix(codecs.BOM_UTF8).decode(source.encoding, errors="replace")


def is_of_lines(batch: str, heading: str) -> bool:
    """Tells whether Spark may find these records by reading lines and leaving out those with the header's text.

    False if one has the header's text, or a carriage return that is not before a line end.
    """
    alike = batch.startswith(heading) or f"\n{heading}" in batch  # rarely: first what is cheap
    if alike and heading in map(str.rstrip, batch.split("\n"), itertools.repeat("\r")):
        return False
    return batch.count("\r") == batch.count("\r\n")


def check_records(records: Sequence[str], span: int, line: int, is_open: bool, name: str) -> None:
    """Raises Refused if a record is too long to be one; the first of them begins behind `line`."""
    limit = landing.LONGEST_FIELD if is_open else landing.LONGEST_RECORD
    for number, record in enumerate(records):
        if len(record) > limit and record.strip(WHITE_SPACE):
            what = "leaves a quote open, which makes one" if is_open else "is one"
            raise Refused(
                f"{name}: the record that begins in line {line + number * span + 1:,} {what} of more than {limit:,} "
                "characters; correct the file, or `quote` in its declaration, and run the date again."
            )


def wrong_encoding(path: Path, name: str, source: Source, file: Reader) -> Refused:
    """Returns the error that a file's bytes are not in the declared encoding, with the first line that shows it."""
    place = ""
    if not source.charset.startswith("UTF-16"):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    line.decode(source.encoding)
                except UnicodeDecodeError:
                    place = f"line {number:,} of "
                    break
    found = dialect.look(file.start).encoding
    encoding = found or ("UTF-8" if file.is_utf8 and not source.encoding.startswith("utf-8") else "")
    seems = f", it seems to be {encoding}" if encoding else ""
    return Refused(
        f"{place}{name} holds bytes that are not {source.charset}{seems}; correct `encoding` in "
        f"{source.file}, or have the file sent again."
    )


def read_header(record: str, name: str, source: Source, used: Mapping[str, int], start: bytes) -> tuple[str, ...]:
    """Returns the names of a header; raises Refused if it is not as declared, with what the file seems to be.

    The error names only declared columns, because the header may be a patient's row.
    """
    columns = names_of(record, source.dialect)
    times = Counter(columns)
    lacking = [column for column in used if not times[column]]
    twice = [column for column in used if times[column] > 1]
    faults = landing.rows_in_header(record.rstrip("\r\n"), source.dialect)
    if not lacking and not twice and not faults and len(columns) <= landing.MOST_COLUMNS:
        return columns
    found = dialect.look(start)
    if found.kind:
        raise Refused(f"{name} is {found.kind}, and not text in columns; have the file sent again.")
    if found.encoding in dialect.UNICODE and not source.charset.startswith(found.encoding):
        raise Refused(f"{name} seems to be {found.encoding}; correct `encoding` in {source.file}.")
    if dialect.SEPARATOR_LINE.fullmatch(record.strip(WHITE_SPACE)):
        raise Refused(f"{name} begins with a spreadsheet's line `sep=`; remove that line and run the date again.")
    if faults:
        raise Refused(f"{name}: the header {landing.listed(faults)}; correct the file and run the date again.")
    separator = dialect.separator_of(record.rstrip("\r\n"), list(used))
    if lacking and separator != source.separator and used.keys() & {*names_of(record, dialect.Dialect(separator))}:
        by = dialect.SEPARATORS.get(separator, "commas")
        raise Refused(f"{name} seems to be separated by {by}; correct `separator` in {source.file}.")
    if len(columns) > landing.MOST_COLUMNS:
        most = landing.MOST_COLUMNS
        raise Refused(f"{name} has {len(columns):,} columns, more than the {most:,} allowed; correct the file.")
    if twice:
        raise Refused(f"{name}: the header names {landing.listed(map(quoted, twice))} twice; correct the file.")
    spelt = {column.lower(): column for column in columns}
    alike = [f"{spelt[column.lower()]!r}" for column in lacking if column.lower() in spelt]
    hint = f" (it has {landing.listed(alike)})" if alike else ""
    what = "column" if len(lacking) == 1 else "columns"
    raise Refused(
        f"{source.file} line {used[lacking[0]]}: {name} has no {what} {landing.listed(map(quoted, lacking))}{hint}; "
        "correct the name, or have the file sent again."
    )


def names_of(record: str, form: dialect.Dialect) -> tuple[str, ...]:
    """Returns the names in a header; "" for a column without a name."""
    fields = landing.plain_fields(record.rstrip("\r\n").lstrip("\ufeff"), form)
    return tuple(field.strip(WHITE_SPACE) for field in fields)


def check_alike(table: Table, files: Sequence[RawFile], source: Source) -> None:
    """Raises Refused if a file of a table for SQL names a column twice, or has other columns than the first file."""
    for file in files:
        named = [column for column in file.header if column]
        if len({*named}) < len(named):
            raise Refused(
                f"{source.file} line {table.line}: the header of {quoted(file.name)} names a column twice, and SQL "
                "could not tell which is meant; correct the file."
            )
        if {*file.header} != {*files[0].header}:
            raise Refused(
                f"{source.file} line {table.line}: {quoted(file.name)} has other columns than {quoted(files[0].name)}, "
                "and both are read as one; give them tables of their own."
            )


def find(lines: Iterator[str], key: str, source: Source, mapping: DatasetMapping, column: str) -> Iterator[int]:
    """Yields the lines of a file in which a record begins that gives a row with this key.

    `column` is our key column. If SQL makes the rows, a record counts if any of its fields is the key.
    """
    cell = dict(mapping.columns).get(column)
    codes = [code for code, value in cell.values if value == key] if cell else []
    start_of_key = re.split(f"[ {re.escape(source.quote)}]", key, maxsplit=1)[0]  # a quote is doubled in a record
    header: tuple[str, ...] = ()
    number = 1
    for record, span, _ in landing.read_records(lines, source.dialect):
        start, number = number, number + span
        if not record.strip(WHITE_SPACE):
            continue
        if not header:
            header = names_of(record, source.dialect)
            continue
        if not any(word in record for word in (start_of_key, *codes)):
            continue
        fields = [field.strip(WHITE_SPACE) for field in landing.plain_fields(record.rstrip("\r\n"), source.dialect)]
        if cell is None:
            is_found = key in fields
        else:
            row = dict(itertools.zip_longest(header, fields[: len(header)], fillvalue=""))
            text = " ".join(part for name in cell.names if (part := row.get(name, "")) and part not in source.nulls)
            is_found = dict(cell.values).get(text, text) == key
        if is_found:
            yield start
