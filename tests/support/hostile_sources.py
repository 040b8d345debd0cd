"""Provides a source's hostile raw files, in many dialects: those of tests/support/hostile.py, written otherwise.

A file is drawn with commas and double quotes; then these characters and the dialect's own change places. So it has the
structure of our own hostile files, and the values of the source's notation.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime
from itertools import count
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.support import hostile, model
from tests.support.examples import VALID
from tests.support.hostile import MARK, NUMBERED, rarely
from tests.support.source_oracle import Cell, Form

# ---- dialects --------------------------------------------------------------------------------------------------------

SEPARATORS = (";", "|", "\t", ",")
QUOTES = ('"', "'", '"', "")
ENCODINGS = ("windows-1252", "utf-8", "iso-8859-15", "utf-16", "utf-8-sig")
ZONES = ("Europe/Berlin", "UTC", "America/New_York", "Australia/Lord_Howe")
DATES = ("dd.MM.yyyy", "MM/dd/yyyy", "yyyyMMdd", "yyyy-MM-dd", "dd-MM-yyyy")
TIMESTAMPS = (
    "dd.MM.yyyy HH:mm[:ss]",
    "yyyy-MM-dd[T][ ]HH:mm[:ss]",
    "MM/dd/yyyy[ HH:mm[:ss[.SSS]]]",
    "yyyyMMddHHmm[ss]",
    "yyyy-MM-dd'T'HH:mm:ss[.SSS]",
    "dd-MM-yyyy HH:mm:ss",
    "yyyy-MM-dd HH:mm",
)
NULLS = ((), ("NULL", "-"), ("N/A", "9", "01.01.1900"))
CODES = {
    "gender": (("1", "M"), ("2", "F"), ("3", "Other"), ("9", "Unknown"), ("", "Unknown")),
    "visit_type": (("A", "Outpatient"), ("N", "Emergency"), ("02", "Inpatient")),
    "payment_status": (("B", "Paid"), ("O", "Pending"), ("T", "Partial"), ("-", "Pending")),
}
THEIRS = {
    "patients": {
        "patient_id": "NR",
        "gender": "SEX",
        "birth_date": "BORN",
        "city": "TOWN",
        "registration_date": "MADE",
    },
    "visits": {
        "visit_id": "NR",
        "patient_id": "PAT",
        "visit_type": "KIND",
        "department": "UNIT",
        "doctor_id": "DOC",
        "visit_start_ts": "BEGIN",
        "visit_end_ts": "UNTIL",
    },
    "billing": {
        "bill_id": "NR",
        "visit_id": "CASE",
        "total_amount": "TOTAL",
        "insurance_amount": "FUND",
        "patient_amount": "OWN",
        "payment_status": "STATE",
        "payment_ts": "PAID",
    },
}


def forms(count: int) -> list[Form]:
    """Returns dialects in which each separator, quote, encoding, zone and pattern meets others."""
    return [form(number) for number in range(count)]


def form(number: int) -> Form:
    dataset = tuple(THEIRS)[(number + number // 3) % 3]
    separator, quote = SEPARATORS[number % 4], QUOTES[(number + number // 4) % 4]
    timestamps = TIMESTAMPS[number % len(TIMESTAMPS)]
    cells = {
        ours: Cell((theirs,), CODES.get(ours, ()), as_timestamp=ours == "registration_date")
        for ours, theirs in THEIRS[dataset].items()
    }
    if dataset == "visits":
        cells["status"] = Cell(value="Completed")
        if " " in timestamps:
            cells["visit_start_ts"] = Cell(("DAY", "TIME"))
    return Form(
        name=f"dialect{number}",
        dataset=dataset,
        separator=separator,
        quote=quote,
        encoding=ENCODINGS[number % 5],
        zone=ZONES[(number + number // 5) % 4],
        decimal_mark="." if (separator, quote) == (",", "") else ",."[number // 2 % 2],
        dates=DATES[(number + number // 5) % 5],
        timestamps=timestamps,
        nulls=NULLS[number % 3],
        cells=cells,
    )


def swap(text: str, form: Form) -> str:
    """Returns a text in which the comma and the separator, and both quotes, have changed places."""
    pairs = [(",", form.separator)] + [('"', form.quote)] * bool(form.quote)
    return text.translate(str.maketrans({a: b for pair in pairs for a, b in (pair, pair[::-1])}))


# ---- values ----------------------------------------------------------------------------------------------------------

# Local times: ordinary ones, some that a clock skipped or showed twice, and those at the edges.
TIMES = [
    datetime(2026, 1, 5, 10, 30), datetime(2026, 7, 5, 23, 59, 59), datetime(2024, 2, 29), datetime(2026, 3, 29, 1, 59),
    datetime(2026, 3, 29, 2, 0), datetime(2026, 3, 29, 2, 59, 59), datetime(2026, 3, 29, 3, 0),
    datetime(2026, 10, 25, 1, 59), datetime(2026, 10, 25, 2, 0), datetime(2026, 10, 25, 2, 59, 59),
    datetime(2026, 10, 25, 3, 0), datetime(2026, 3, 8, 2, 30), datetime(2026, 11, 1, 1, 30),
    datetime(2026, 10, 4, 2, 15), datetime(2026, 4, 5, 1, 45), datetime(2026, 4, 5, 1, 15), datetime(1, 1, 1),
    datetime(1, 1, 2), datetime(9999, 12, 31, 23, 59, 59), datetime(1582, 10, 10, 12, 0), datetime(1900, 1, 1),
    datetime(1945, 5, 24, 2, 30), datetime(2026, 1, 31, 23, 30, 15, 125_000), datetime(2050, 7, 1, 12, 0),
]  # fmt: skip
OFFSETS = ("+01:00", " Z", "Z", "-05:30", "+18:01", "+0100", " +02:00", " UTC")


def write(pattern: str, shown: datetime, is_brief: bool = False) -> str:
    """Returns a date and time as a pattern writes it, with or without its optional parts."""
    while is_brief and "[" in pattern:
        pattern = re.sub(r"\[[^\[\]]*\]", "", pattern)
    parts = {
        "yyyy": f"{shown.year:04}",
        "MM": f"{shown.month:02}",
        "dd": f"{shown.day:02}",
        "HH": f"{shown.hour:02}",
        "mm": f"{shown.minute:02}",
        "ss": f"{shown.second:02}",
        "SSS": f"{shown.microsecond // 1000:03}",
    }
    return re.sub("yyyy|MM|dd|HH|mm|SSS|ss|[\\['\\]]", lambda token: parts.get(token[0], ""), pattern)


def values(form: Form, field: model.Field) -> list[str]:
    """Returns texts of all kinds for a column of ours, in the source's notation and others."""
    cell = form.cells[field.name]
    if field.read is model.day:
        pattern = form.timestamps if cell.as_timestamp else form.dates
        return [write(pattern, shown, brief) for shown in TIMES for brief in (False, True)] + hostile.DAYS
    if field.read is model.moment:
        written = [write(form.timestamps, shown, brief) for shown in TIMES for brief in (False, True)]
        return written + [text + offset for text in written[:12] for offset in OFFSETS] + hostile.MOMENTS
    if field.read is model.money:
        marked = [text.replace(".", ",") for text in hostile.AMOUNTS]
        return [*marked, *hostile.AMOUNTS, "1.200", "1.200,50", "1,200.50", "-12,00", "12,50-", "12,50 \u20ac"]
    if cell.codes:
        return [*(code for code, _ in cell.codes), *(f" {code}\u00a0" for code, _ in cell.codes), *hostile.LISTED]
    texts = [*form.nulls, *(f" {text}\t" for text in form.nulls), *hostile.TEXTS, "\u00c9t\u00e9", "\u20ac"]
    return ["", " ", *texts] if field is model.FIELDS[form.dataset][0] else [*hostile.BARE, *texts]


def theirs(form: Form, changes: dict[str, str]) -> dict[str, str]:
    """Returns the fields of a source's record by column: a valid row with `changes`, which are in its notation."""
    row = dict[str, str]()
    for field in model.FIELDS[form.dataset]:
        cell = form.cells[field.name]
        if cell.value is not None:
            continue
        text = changes.get(field.name)
        if text is None:
            text = in_notation(form, field, cell, VALID[form.dataset][field.name])
        first, *others = cell.names
        row |= {first: text.partition(" ")[0], others[0]: text.partition(" ")[2]} if others else {first: text}
    return row


def in_notation(form: Form, field: model.Field, cell: Cell, text: str) -> str:
    """Returns one of our sound values in the source's notation."""
    if field.read is model.day:
        shown = datetime.combine(date.fromisoformat(text), datetime.min.time())
        return write(form.timestamps if cell.as_timestamp else form.dates, shown)
    if field.read is model.moment:
        return write(form.timestamps, datetime.fromisoformat(text)) if text else ""
    if field.read is model.money:
        return text.replace(".", form.decimal_mark)
    return next((code for code, value in cell.codes if value == text), text)


# ---- files -----------------------------------------------------------------------------------------------------------


class File(NamedTuple):
    """Holds a raw file in a dialect."""

    form: Form
    content: bytes


def way(form: Form) -> Callable[[str], str]:
    """Returns how a field is written that is to be read as it is."""
    return hostile.WAYS[0] if form.quote else hostile.WAYS[2]


def line(form: Form, fields: list[str], ways: list[Callable[[str], str]] | None = None) -> str:
    """Returns fields as a line of the dialect."""
    ways = ways or [way(form)] * len(fields)
    return swap(",".join(way(swap(field, form)) for way, field in zip(ways, fields, strict=True)), form)


def heads(form: Form) -> list[list[str]]:
    """Returns headers to accept."""
    names = list(theirs(form, {}))
    odd = [name for name in hostile.ODD if form.quote or not set(name) & {form.separator, "\n", ","}]
    return [names, [*names, ""], ["NOTE", *reversed(names), "M\u00fcnze"], [*names[:2], *odd, *names[2:], " "]]


def bad_heads(form: Form) -> list[list[str]]:
    """Returns headers, most of which must be refused."""
    first, *rest = names = list(theirs(form, {}))
    return [
        rest, [first, *names], [first.lower(), *rest], [f" {first}\u2003", *rest], [*names, "NOTE\0"],
        [*names, "NOTE\rx"], [*names, *(f"c{n}" for n in range(1200))], [NUMBERED] * 5, ["sep=;"], ["", ""],
        [";".join(names)], ["|".join(names)], ["\t".join(names)], ["<!DOCTYPE html>"], [f"'{name}'" for name in names],
        [*names, "NOTE", "NOTE"], ["\ufeff" + first, *rest],
    ]  # fmt: skip


@st.composite
def records(draw: Any, form: Form, header: list[str]) -> str:
    """Draws a record, or a line in its place."""
    if draw(rarely):
        return swap(draw(st.sampled_from(hostile.LINES)), form)
    fields = [field for field in model.FIELDS[form.dataset] if form.cells[field.name].value is None]
    changes = {fields[0].name: f"{NUMBERED}{draw(st.integers(0, 4))}"}
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
        field = draw(st.sampled_from(fields))
        changes[field.name] = draw(st.sampled_from(values(form, field)))
    row = theirs(form, changes)
    ways = [way(form)] * len(header)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        ways[draw(st.integers(0, len(header) - 1))] = draw(st.sampled_from(hostile.WAYS))
    texts = [row.get(name.strip(), NUMBERED) for name in header]
    change = draw(st.sampled_from([""] * 14 + ["separator", "drop", "blank", "NUL", "BOM", "header"]))
    if change == "drop":
        place = draw(st.integers(0, len(texts) - 1))
        texts.pop(place), ways.pop(place)
    record = line(form, header if change == "header" else texts, None if change == "header" else ways)
    changed = {"separator": record + form.separator, "blank": " " + record, "NUL": record + "\0"}
    return (changed | {"BOM": "\ufeff" + record}).get(change, record)


@st.composite
def files(draw: Any, forms: list[Form]) -> File:
    """Draws a raw file, whose header, fields, records, line ends and bytes may be defective."""
    form = draw(st.sampled_from(forms))
    header = draw(st.sampled_from(heads(form)))
    if draw(rarely):
        header = draw(st.sampled_from(bad_heads(form)))
    lines = [] if draw(rarely) and draw(rarely) else [line(form, header)]
    for _ in range(draw(st.sampled_from([0, 2, 3, 4, 5, 6]))):
        lines.append(draw(records(form, header)))
    ends = [draw(st.sampled_from(["\n", "\n", "\r\n", "\r\n", "\r\n", "\r"]))] * len(lines)
    if draw(rarely):
        ends[1:] = [draw(st.sampled_from(hostile.ENDS)) for _ in lines[1:]]
    if ends and draw(st.booleans()):
        ends[-1] = ""
    mark = draw(st.sampled_from(hostile.MARKS)) if draw(rarely) else ""
    text = mark + "".join(line + end for line, end in zip(lines, ends, strict=True))
    codec = draw(st.sampled_from(hostile.CODECS)) if draw(rarely) and draw(rarely) else form.encoding
    content = text.encode(codec, "replace")
    for _ in range(draw(st.sampled_from([1, 1, 2])) if draw(rarely) else 0):
        place, length = draw(st.integers(0, len(content))), draw(st.sampled_from([0, 0, 1, 3]))
        content = content[:place] + draw(st.sampled_from(hostile.BYTES)) + content[place + length :]
    return File(form, content)


def generate(count: int, number: int, forms: list[Form]) -> list[File]:
    """Generates `count` files; the same number generates the same files."""
    return [
        File(form, numbered(content, place))
        for place, (form, content) in enumerate(hostile.drawn(files(forms), count, number))
    ]


def numbered(content: bytes, place: int) -> bytes:
    """Returns a file's content with its keys numbered by its place among the files."""
    for codec in ("utf-8", "utf-16-le"):
        content = content.replace(NUMBERED.encode(codec), f"{MARK}{place}x".encode(codec))
    return content


def all_values(form: Form, names: list[str]) -> Iterator[str]:
    """Yields a record for each text of each column, which is otherwise valid."""
    key, *others = model.FIELDS[form.dataset]
    numbers = count()
    for field in others:
        for text in values(form, field) if form.cells[field.name].value is None else ():
            own = {key.name: f"{MARK}7{form.name}v{next(numbers)}"}
            row = theirs(form, own | {field.name: text.replace(NUMBERED, f"{MARK}7x")})
            yield line(form, [row[name] for name in names])


def corpus(form: Form) -> dict[str, File]:
    """Returns files of one dialect by what is odd about them."""
    names = heads(form)[0]
    header, quote = line(form, names), form.quote or '"'
    rows = [theirs(form, {}) | {names[0]: f"{MARK}7{form.name}x{n}"} for n in range(3)]
    person, second, third = (line(form, [row[name] for name in names]) for row in rows)
    broken = line(form, [rows[0][name] + "\nb" * (name == names[-1]) for name in names])
    note, apart = line(form, [*names, "NOTE"]), form.separator
    rows_of_all = list(all_values(form, names))
    texts = {
        "nothing": "",
        "a mark alone": "\ufeff",
        "blank lines alone": "\n \r\n\t\n",
        "a NUL alone": "\0",
        "a header alone": f"{header}\n",
        "a header alone, without a line end": header,
        "a header over two lines": f"{note}{apart}{quote}a\nb{quote}\n{person}{apart}{apart}\n",
        "a header that is wider than each record, over lines": f"{note}\n{quote}a\nb{quote}\n",
        "a header with an open quote": f"{note}{apart}{quote}x\n{person}{apart}{apart}\n",
        "a header twice": f"{header}\n{person}\n{header}\n{second}\n",
        "a column twice": f"{header}{apart}{names[1]}\n{person}{apart}x\n",
        "no header": f"{person}\n{second}\n",
        "returns for line ends": f"{header}\r{person}\r{second}\r",
        "returns for line ends, behind a column that nothing is made of": f"{note}\r{person}{apart}x\r",
        "line feeds and returns in turn": f"{header}\r\n{person}\n{second}\r\r\n{third}",
        "an empty line first": f"\n\n{header}\n{person}\n",
        "an empty line first, with a return": f"\r\n{header}\r\n{person}\r\n{broken}\r\n",
        "blanks first": f" \n{header}\n{person}\n",
        "odd white space first": f"\u00a0\n{header}\n{person}\n",
        "a mark in the middle": f"{header}\n{person}\n\ufeff{second}\n\ufeff\n",
        "the end mark of DOS": f"{header}\r\n{person}\r\n\x1a",
        "lines of control characters": f"{header}\n\x1c\n{person}\n\x03\x04\n \x1f\n",
        "NULs": f"{header}\n\0{person}\n{second}\0\n\0\n{third}\n",
        "trailing separators": f"{header}{apart}\n{person}{apart}\n{second}\n{third}{apart}{apart}\n",
        "separators alone": f"{header}\n{apart * (len(names) - 1)}\n{apart * len(names)}\n",
        "ragged records": f"{header}\n{person}\n{names[0]}\n{second}{apart}x\n{broken}\n{third}\n",
        "an open quote at the end": f"{header}\n{person}\n{second[:-1]}{apart}{quote}x\n{third}\n",
        "a long field": f"{header}\n{person.replace(rows[0][names[-2]], 'x' * 66_000)}\n{second}\n",
        "a long open quote": f"{header}\n{person}\n{quote}{'x' * 70_000}\n",
        "a long record": f"{header}\n{person}\n{'x' * (1 << 20)}\n",
        "another separator": header.replace(apart, "|" if apart != "|" else ";") + "\n",
        "a spreadsheet's first line": f"sep={apart}\r\n{header}\r\n{person}\r\n",
        "values of all kinds": "\n".join([header, *rows_of_all]),
        "values of all kinds that stay on their line": "\n".join([header, *filter(str.isprintable, rows_of_all)]),
        "an HTML page": "<!DOCTYPE html>\n<html></html>\n",
    }
    found = {name: File(form, text.encode(form.encoding, "replace")) for name, text in texts.items()}
    accented = f"{header}\n{person}\n" + line(form, [*"x" * (len(names) - 1), "Z\u00fcrich"]) + "\n"
    found |= {
        f"{codec}, and declared otherwise": File(form, accented.encode(codec))
        for codec in ("utf-8", "utf-16", "utf-16-be", "utf-32", "cp1252", "cp850")
        if codec != form.encoding
    }
    found["a byte of no letter"] = File(form, found["a header twice"].content + b"\x81\xff\n")
    found["a character cut off at the end"] = File(form, f"{header}\n{person}\u20ac".encode()[:-1])
    found["a ZIP archive"] = File(form, b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(range(256)))
    return found
