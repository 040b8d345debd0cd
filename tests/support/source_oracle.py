"""Reads a source's raw files as docs/sources.md says, and tells what each record becomes: plain Python.

Shares nothing with jobs/: no reader, no pattern, no conversion.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tests.support import model
from tests.support.model import BLANKS

LONGEST_RECORD, LONGEST_OPEN, MOST_COLUMNS = 1 << 20, 65_536, 1_000
NOT_CONVERTED = " (not in the source's notation)"


class Cell(NamedTuple):
    """Describes from what one of our columns is made: columns of the source, joined by a blank, or one `value`."""

    names: tuple[str, ...] = ()
    codes: tuple[tuple[str, str], ...] = ()
    value: str | None = None
    as_timestamp: bool = False


class Form(NamedTuple):
    """Describes how a source writes the files of one dataset, and from what each column of ours is made."""

    name: str
    dataset: str
    separator: str
    quote: str
    encoding: str
    zone: str
    decimal_mark: str
    dates: str
    timestamps: str
    nulls: tuple[str, ...]
    cells: Mapping[str, Cell]

    @property
    def used(self) -> list[str]:
        """Returns the source's columns that the declaration names."""
        return list(dict.fromkeys(name for cell in self.cells.values() for name in cell.names))

    @property
    def charset(self) -> str:
        """Returns the name of the encoding in sentences."""
        return {"iso-8859-15": "ISO-8859-15", "windows-1252": "windows-1252"}.get(
            self.encoding, self.encoding[:6].upper().rstrip("-")
        )


def text_of_yaml(text: str) -> str:
    """Returns a text in YAML's single quotes or, with a tab, in its double quotes."""
    return '"\\t"' if text == "\t" else "'" + text.replace("'", "''") + "'"


def declaration(form: Form) -> str:
    """Returns the declaration of a form as YAML."""
    quoted = text_of_yaml
    lines = [f"time_zone: {form.zone}", f"encoding: {form.encoding}"]
    lines += [
        f"{key}: {quoted(getattr(form, key))}" for key in ("separator", "quote", "decimal_mark", "dates", "timestamps")
    ]
    lines += [f"nulls: [{', '.join(map(quoted, form.nulls))}]", "datasets:", f"  {form.dataset}:"]
    lines += ["    files: '*.txt'", "    columns:"]
    for name, cell in form.cells.items():
        if cell.value is not None:
            lines.append(f"      {name}: {{value: {quoted(cell.value)}}}")
            continue
        parts = [f"from: [{', '.join(map(quoted, cell.names))}]"]
        parts += [f"values: {{{', '.join(f'{quoted(c)}: {quoted(v)}' for c, v in cell.codes)}}}"] * bool(cell.codes)
        lines.append(f"      {name}: {{{', '.join([*parts, *['as: timestamp'] * cell.as_timestamp])}}}")
    return "\n".join(lines) + "\n"


# ---- records ---------------------------------------------------------------------------------------------------------


class Record(NamedTuple):
    """Holds a record that is not blank: its first line, its text, and our row, or None if it is malformed."""

    line: int
    raw: str
    row: tuple[str, ...] | None
    twice: int = 0  # times in it that the clock showed twice


class Reading(NamedTuple):
    """Holds what a file becomes; one with white space `ahead` of its header may be refused for that, too."""

    header: tuple[str, ...]
    records: list[Record]
    ahead: bool


class Refusal(Exception):
    """Signals that the file must be refused, in a sentence with all words of one of these causes."""


class Cut(NamedTuple):
    line: int
    text: str
    fields: list[str]
    is_open: bool


@lru_cache
def fields_of(separator: str, quote: str) -> tuple[re.Pattern[str], ...]:
    """Returns the patterns of a field without quotes, one in quotes, and one that goes on behind its closing quote."""
    apart, mark = re.escape(separator), re.escape(quote)
    blanks = re.escape("".join(c for c in map(chr, range(0x21)) if c not in ("\n", separator)))
    return (
        re.compile(rf"[^{apart}\n]*"),
        re.compile(rf"{mark}([^{mark}]*(?:{mark}{mark}[^{mark}]*)*){mark}[{blanks}]*(?=[{apart}\n]|\Z)"),
        re.compile(rf"{mark}[^{mark}]*(?:{mark}{mark}[^{mark}]*)*{mark}(?!{mark})[^{apart}\n]*"),
    )


def cut(text: str, form: Form) -> Iterator[Cut]:
    """Yields each record of a text, also blank lines."""
    quote, place, line = form.quote, 0, 1
    plain, *in_quotes = (
        fields_of(form.separator, quote) if quote else [re.compile(rf"[^{re.escape(form.separator)}\n]*")]
    )
    while place < len(text):
        start, fields, is_open = place, list[str](), False
        while True:
            is_closed = False
            if not quote or not text.startswith(quote, place):
                found = plain.match(text, place)
                fields.append(found[0])
            elif found := in_quotes[0].match(text, place):
                fields.append(found[1].replace(quote * 2, quote))
                is_closed = True
            elif found := in_quotes[1].match(text, place):
                fields.append(found[0])
            else:
                fields.append(text[place + 1 :].replace(quote * 2, quote))
                is_open = True
            place = len(text) if is_open else found.end()
            if is_open or text[place : place + 1] != form.separator:
                break
            place += 1
        if not is_closed and not is_open:
            fields[-1] = fields[-1].rstrip("\r")
        place += 1
        whole = text[start:place]
        yield Cut(line, whole, fields, is_open)
        line += whole.count("\n")


def read(content: bytes, form: Form, name: str) -> Reading:
    """Reads a raw file of any bytes; raises Refusal with the possible causes if it must be refused."""
    try:
        text = decode(content, form, name)
    except Refusal as refusal:
        # Something else may be found before such bytes are reached.
        others = causes_of(content.decode(form.encoding, "replace"), content, form, name)
        raise Refusal(*refusal.args, *others) from None
    return read_text(text, content, form, name)


def causes_of(text: str, content: bytes, form: Form, name: str) -> Sequence[tuple[str, ...]]:
    """Returns the causes for which a text is refused; none if it is not."""
    try:
        read_text(text, content, form, name)
    except Refusal as refusal:
        return refusal.args
    return ()


def read_text(text: str, content: bytes, form: Form, name: str) -> Reading:
    header: tuple[str, ...] = ()
    records, ahead = list[Record](), False
    for record in cut(text, form):
        raw = record.text.removesuffix("\n").rstrip("\r")
        if not raw.strip(BLANKS):
            ahead = ahead or (not header and record.text != "\n")
            continue
        if not header:
            header = read_header(content, text, record, form, name)
            continue
        limit = LONGEST_OPEN if record.is_open else LONGEST_RECORD
        if len(record.text) > limit:
            raise Refusal((f"the record that begins in line {record.line:,} ", f"of more than {limit:,} characters"))
        is_broken = record.is_open or "\0" in raw or len(record.fields) != len(header)
        row, twice = (None, 0) if is_broken else convert(dict(zip(header, record.fields, strict=True)), form)
        records.append(Record(record.line, raw, row, twice))
    if not form.encoding.startswith("utf") and not content.isascii() and is_text(content, "utf-8"):
        raise Refusal(("seems to be UTF-8", f"says {form.charset}"))
    if not header:
        raise Refusal(("is empty, without even a header",))
    return Reading(header, records, ahead)


def is_text(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeError:
        return False
    return True


def decode(content: bytes, form: Form, name: str) -> str:
    """Returns a file's text without its mark; raises Refusal with the line of bytes that are not of the encoding."""
    if form.encoding == "utf-16":
        marked = content.startswith((b"\xff\xfe", b"\xfe\xff")) or not content
        if not marked or not is_text(content, "utf-16"):
            raise Refusal(("is not in UTF-16",), ("bytes that are not UTF-16",))
        return content.decode("utf-16")
    encoding = "utf-8" if form.encoding.startswith("utf-8") else form.encoding
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not is_text(line, encoding):
            raise Refusal((f"line {number:,} of {name} holds bytes that are not {form.charset}",))
    text = content.decode(encoding)
    return text.removeprefix("\ufeff") if encoding == "utf-8" else text


def read_header(content: bytes, text: str, record: Cut, form: Form, name: str) -> tuple[str, ...]:
    """Returns the names in a header; raises Refusal with all that may be said of one that is not as declared."""
    again = next(cut(record.text.lstrip("\ufeff"), form), None)
    names = tuple(field.strip(BLANKS) for field in again.fields) if again else ("",)
    raw = record.text.rstrip("\r\n")
    faults = ["holds NUL characters"] * ("\0" in raw) + ["leaves a quote open"] * record.is_open
    faults += ["holds a carriage return that ends no line"] * ("\r" in raw.replace("\r\n", ""))
    lacking = [column for column in form.used if column not in names]
    twice = [column for column in form.used if names.count(column) > 1]
    causes = [("the header ", *faults)] * bool(faults)
    causes += [("columns, more than the 1,000 allowed",)] * (len(names) > MOST_COLUMNS)
    causes += [("the header names ", "twice", *map(repr, twice))] * bool(twice)
    for column in lacking:
        lines = declaration(form).splitlines()
        line = next(number for number, line in enumerate(lines, 1) if text_of_yaml(column) in line)
        causes.append((f"sources/{form.name}.yml line {line}: ", f"{name} has no column", *map(repr, lacking)))
    if causes:
        raise Refusal(*causes, *looks(content, text, raw, form))
    return names


def looks(content: bytes, text: str, header: str, form: Form) -> Iterator[tuple[str, ...]]:
    """Yields what may be said to be the cause, by the looks of a file, where its header is not as declared."""
    for pattern, sentence in model.OTHER_THINGS.items():
        if re.match(pattern, content) or re.match(pattern, text.encode()):
            yield (sentence.removeprefix("it "),)
    if re.match(r"\s*[<{\[]", text):
        yield ("and not text in columns",)
    if "\0" in text[:64] or (form.encoding != "utf-16" and content.startswith((b"\xff\xfe", b"\xfe\xff"))):
        yield ("seems to be UTF-",)
    if re.fullmatch(r'"?sep=.?"?', header.strip(BLANKS), re.IGNORECASE):
        yield ("begins with a spreadsheet's line `sep=`",)
    for separator, by in {";": "semicolons", "\t": "tabs", "|": "pipes", ",": "commas"}.items():
        apart = {word.strip(BLANKS + "\"'\ufeff") for word in header.split(separator)}
        if separator != form.separator and apart.intersection(form.used):
            yield (f"seems to be separated by {by}",)


# ---- values ----------------------------------------------------------------------------------------------------------

PARTS = {
    "yyyy": "(?P<year>[0-9]{4})",
    "MM": "(?P<month>[0-9]{2})",
    "dd": "(?P<day>[0-9]{2})",
    "HH": "(?P<hour>[0-9]{2})",
    "mm": "(?P<minute>[0-9]{2})",
    "ss": "(?P<second>[0-9]{2})",
    "SSS": "(?P<fraction>[0-9]{3})",
    "[": "(?:",
    "]": ")?",
}
OUR_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?"


@lru_cache
def pattern_of(text: str) -> re.Pattern[str]:
    """Returns a pattern of dates or times as a regular expression."""
    return re.compile(
        re.sub(
            r"'[^']*'|yyyy|MM|dd|HH|mm|SSS|ss|.",
            lambda token: PARTS.get(token[0]) or re.escape(token[0].strip("'") or token[0]),
            text,
        )
    )


def fit(pattern: str, text: str) -> tuple[datetime, str] | None:
    """Returns the date and time that a text shows, and its fraction as written; None if it does not fit."""
    found = pattern_of(pattern).fullmatch(text)
    if not found:
        return None
    parts = {name: value or "" for name, value in found.groupdict().items()}
    fraction = parts.pop("fraction", "")
    try:
        shown = datetime(
            **{name: int(value or 0) for name, value in parts.items()}, microsecond=int(fraction or 0) * 1000
        )
    except ValueError:
        return None
    return shown, fraction


def convert(texts: Mapping[str, str], form: Form) -> tuple[tuple[str, ...], int]:
    """Returns our row of a record by its fields, and how many of its times the clock showed twice."""
    row, doubled = list[str](), 0
    for field in model.FIELDS[form.dataset]:
        cell = form.cells.get(field.name, Cell(value=""))
        if cell.value is not None:
            row.append(cell.value)
            continue
        parts = [texts[name].strip(BLANKS) for name in cell.names]
        came = " ".join(part for part in parts if part and part not in form.nulls)
        came = texts[cell.names[0]] if len(cell.names) == 1 else came
        text, value = came.strip(BLANKS), ""
        if text and text not in form.nulls:
            value, twice = convert_text(text, came, field, cell, form)
            doubled += twice
        row.append(dict(cell.codes).get(text, value))
    return tuple(row), doubled


def convert_text(text: str, came: str, field: model.Field, cell: Cell, form: Form) -> tuple[str, bool]:
    """Returns a text in our notation, or as it came; and whether it is a time that the clock showed twice."""
    if field.read is model.moment:
        return convert_time(text, came, form)
    if field.read is model.day:
        shown = fit(form.timestamps if cell.as_timestamp else form.dates, text)
        return (shown[0].date().isoformat() if shown else came), False
    if field.read is model.money and form.decimal_mark == ",":
        if re.fullmatch(r"[+-]?([0-9]+(,[0-9]+)?|,[0-9]+)", text):
            return text.replace(",", "."), False
        return came + NOT_CONVERTED * bool(re.fullmatch(r"[+-]?[0-9]*\.[0-9]+", text)), False
    return came, False


def convert_time(text: str, came: str, form: Form) -> tuple[str, bool]:
    """Returns a local time in UTC, one with an offset with that offset, and any other text as it came."""
    zone = ZoneInfo(form.zone)
    if shown := fit(form.timestamps, text):
        local = shown[0].replace(tzinfo=zone)
        try:
            utc = local.astimezone(timezone.utc)
            is_real = utc.astimezone(zone).replace(tzinfo=None) == shown[0]
        except OverflowError:
            is_real = False
        if is_real:
            spelled = utc.replace(tzinfo=None).isoformat(" ", "microseconds")
            return spelled.rstrip("0").rstrip("."), local.utcoffset() != local.replace(fold=1).utcoffset()
    if offset := re.search(r" ?(Z|[+-][0-9]{2}:[0-9]{2})\Z", text):
        shown = fit(form.timestamps, text[: offset.start()])
        if not shown:
            return came, False
        fraction = f".{shown[1]}" if shown[1] else ""
        return f"{shown[0].isoformat(timespec='seconds')}{fraction}{offset[1]}", False
    return came + NOT_CONVERTED * bool(form.zone != "UTC" and re.fullmatch(OUR_TIME, text)), False


# ---- our file --------------------------------------------------------------------------------------------------------


def line_of(fields: Sequence[str]) -> str:
    """Returns fields as a record of our files."""
    return ",".join('"' + field.replace('"', '""') + '"' if set(field) & set(',"\n') else field for field in fields)


def our_file(reading: Reading, dataset: str) -> bytes:
    """Returns the file of ours that a raw file becomes; a malformed record is a record of one field in it."""
    records = [record.row or (record.raw,) for record in reading.records]
    return "".join(f"{line_of(fields)}\n" for fields in (model.COLUMNS[dataset], *records)).encode()
