"""Provides hostile files, generated ones and a corpus, and the result that tests/support/model.py expects for them.

Every text in place of a patient's value contains MARK and the number of its file, so that it can be found.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.support import model
from tests.support.examples import PARENTS, VALID

MARK = "QJXW"
NUMBERED = f"{MARK}0x"  # in a generated file, replaced by the file's number afterwards

# ---- values ---------------------------------------------------------------------------------------------------------

DAYS = [
    "0000-01-01", "0001-01-01", "0001-12-31", "9999-12-31", "10000-01-01", "1500-02-28", "1500-02-29", "1582-10-04",
    "1582-10-05", "1582-10-10", "1582-10-14", "1582-10-15", "1000-02-29", "1900-02-29", "2000-02-29", "2024-02-29",
    "2023-02-29", "2026-02-30", "2026-00-10", "2026-01-00", "2026-13-01", "2026-1-1", "26-01-01", "2026/01/01",
    "2026-01-01T00:00", " 2026-01-01 ", "\u00a02026-01-01\u3000", "2026-01-01\x1c", "\u200b2026-01-01",
    "\uff12\uff10\uff12\uff16-01-01", "\u0662\u0660\u0662\u0666-01-01", "2026\u201101\u201101", "+2026-01-01",
    "-0001-01-01", "2026-01-01Z", "2026-01-01 BC", "epoch", "now", "today", "infinity", "-infinity", "1970-01-01",
]  # fmt: skip
MOMENTS = [
    "0000-12-31T23:59", "0001-01-01T00:00:00", "0001-01-01T00:00+00:01", "0001-01-01T00:00-00:01",
    "9999-12-31T23:59:59.999999", "9999-12-31T23:59:59.999999-00:01", "9999-12-31T23:59:59.999999+00:01",
    "10000-01-01T00:00", "2016-12-31T23:59:60Z", "2016-12-31T23:59:60", "2026-03-29T02:30:00", "2026-10-25T02:30+02:00",
    "2026-10-25T02:30+01:00", "1582-10-04T23:59:59.999999", "1582-10-10T12:00", "1582-10-15T00:00",
    "1883-11-18T12:03:58", "1900-01-01T00:00:00", "2026-02-29T00:00", "2024-02-29T23:59:59", "2026-01-05T24:00",
    "2026-01-05T23:60", "2026-01-05T10:00:00.", "2026-01-05T10:00:00.1", "2026-01-05T10:00:00.123456",
    "2026-01-05T10:00:00.1234567", "2026-01-05T10:00:00,5", "2026-01-05t10:00", "2026-01-05  10:00",
    "2026-01-05\u00a010:00", "2026-01-05T10:00+18:00", "2026-01-05T10:00-18:00", "2026-01-05T10:00+18:01",
    "2026-01-05T10:00-18:01", "2026-01-05T10:00+23:59", "2026-01-05T10:00-23:59", "2026-01-05T10:00+14:00",
    "2026-01-05T10:00-12:00", "2026-01-05T10:00+17:59", "2026-01-05T10:00+05:60", "2026-01-05T10:00+5:30",
    "2026-01-05T10:00+0530", "2026-01-05T10:00+05:30:15", "2026-01-05T10:00-00:00", "2026-01-05T10:00z",
    "2026-01-05T10:00 Z", "2026-01-05T10:00 UTC", "2026-01-05T10:00[Europe/Paris]", "2026-01-05T10:00\u221205:00",
    "T10:00", "10:00", "2026-01-05T10", "2026-01-05", "1767607200", "2026-01-05T\uff11\uff10:00",
]  # fmt: skip
AMOUNTS = [
    "0", "-0", "+0", "-0.00", "0.004", "0.005", "-0.004", "-0.005", "0.0049999999999999999999", "1.005", "2.675",
    "1e308", "1E3", "1e-2", "NaN", "nan", "Infinity", "-Infinity", "inf", ".5", "5.", "+.5", "-", "+", "++1", "+-1",
    "-.5", ".005", "-.005", ".0049", ".", "-.", "+.", ".5.5", ". 5", ".5e1", "." + "9" * 400,
    "1.2.3",
    "00012.50", "0" * 50 + "1", "0." + "9" * 60, "9999999999.99", "9999999999.994", "9999999999.995", "-9999999999.99",
    "-9999999999.995", "10000000000", "9" * 38, "9" * 39, "123456789012345678901234567890.12345678",
    "\uff11\uff12.50", "\u0661\u0662", "12.\u0665", "1,200.00", "1 200", "1\u00a0200", "1_000", "0x1F", "1d", "1f",
    "12.50\t",
    "\u200312.50", "12.50\x1c", "12.50\x00", "$5", "5%", "(5)", "5-", "\u22125", "\u00bd", "-0" + "0" * 400 + ".01",
    "=1+1",
]  # fmt: skip
LISTED = [
    "m", "oTHER", "\uff2d", "Un\u212anown", "UNKNOWN", "emergency", "EMERGENCY\u2003", "\u017femi-private",
    "Paid\u200b",
    "pa\u0131d", "PA\u0130D", "No\u2011show", "no-SHOW", "pending", "Partial;Paid", "M|F", "", "\x1b[31mM",
]  # fmt: skip
# Injections for formulas, SQL, shells, templates, logs, pages and paths, and characters that break programs.
TEXTS = [
    f"{NUMBERED}{text}" if text[:1].isalnum() else f"{text}{NUMBERED}"
    for text in (
        "=cmd|' /C calc'!A0", "@SUM(1+1)*cmd|' /C calc'!A0", "+1+1", "-2+3", '=HYPERLINK("http://127.0.0.1/","x")',
        "\uff1d1\uff0b1", "\uff0b1", "\uff0d1", "\uff20a", "\t=1+1", "\r=1+1", "\n=1+1", " =1+1", "a;=1+1", 'a;"=1+1"',
        "a\t=1+1", "a\n=1+1", "a\r\n@SUM(1)", "'; drop table patients; --", '"; drop table patients; --', "' or '1'='1",
        "$(touch /tmp/hostile)", "`touch /tmp/hostile`", "| touch /tmp/hostile", "&& touch /tmp/hostile", "${HOME}",
        "${jndi:ldap://127.0.0.1:9/a}", "${env:POSTGRES_PASSWORD}", "%s%s%n%x", "{0}", "{{7*7}}", "#{7*7}", "%0aINFO",
        "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "<!--", "../../../../etc/passwd",
        "C:\\Windows\\system32", "\\\\host\\share", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x07", "\x08\x08\x08",
        "\x7f",
        "\nINFO all is well", "\r\nERROR forged", "a\u2028b", "a\u2029b", "\x85", "\x0b", "\x0c", "\x1c\x1d\x1e\x1f",
        "\u202egnp.exe",
        "\ufeff", "\uffff", "\ufffe", "\U0010ffff", "\u200b", "e\u0301", "NULL", "\\N", "__HIVE_DEFAULT_PARTITION__",
        "# comment",
        "'", '"', '""', '"""', "\\", '\\"', ",", ",,,,,,,,", ";", "\r", "a\rb", "x" * 300, "\U0001f3e5" * 60,
        "\u00e9" * 120,
    )
]  # fmt: skip
BARE = [
    "",
    " ",
    "\t",
    "\u2003\u00a0",
    "*",
    "**",
    "(unknown)",
    "null",
    "None",
    "NaN",
    "true",
    "0",
    "\\N",
    "%",
    "'",
    "\x0b\x0c",
    "\x1c",
]

# Ways to write the value `{}` as a field; the first two follow RFC 4180.
WAYS: list[Callable[[str], str]] = [
    lambda text: quote(text) if set(text) & set('",\r\n') else text,
    lambda text: quote(text),
    lambda text: text,
    lambda text: f'"{text}"',
    lambda text: f' "{text}"',
    lambda text: f'"{text}" ',
    lambda text: f'"{text}"\t ',
    lambda text: f'"{text}"\x01\x1f',
    lambda text: f'"{text}"\u00a0',
    lambda text: f'"{text}"x',
    lambda text: f'"{text}" x',
    lambda text: f'"{text}" "x"',
    lambda text: f'""{text}""',
    lambda text: f'"""{text}"""',
    lambda text: f'"{text}""',
    lambda text: f'"{text}',
    lambda text: f'{text}"',
    lambda text: '"',
    lambda text: '""',
    lambda text: '"""',
    lambda text: "'" + text + "'",
]
# Lines that may take the place of a record.
LINES = [
    "", " ", "\t\u2003", "\r", ",", ",,,,", ",,,,,,,,,,,,", '""', '" "', '"\n"', '"\u2003"', '"', '"",', "#,,,,",
    "\x0c", "\ufeff",
    "\uffff,,,,", "\x00,,,,", "\x00", "\x1a", "--", "true", "false",
    f'"{NUMBERED},F,1980-02-29,Springfield,2024-03-01"',
    f'"{NUMBERED},V1,500.00,400.00,100.00,Paid,2026-01-20T12:00:00"', f"{NUMBERED};F;1980-02-29;Springfield;2024-03-01",
    f"{NUMBERED}," * 101, f'"{NUMBERED}",' * 101, f'{NUMBERED}"a,b"', f'"{NUMBERED}" "a,b"', f'"{NUMBERED}"a"b,c"',
]  # fmt: skip
ENDS = ["\n", "\n", "\r\n", "\r\n", "\r\r\n", "\r", "\n\r", "\n\n", "\u2028", "\x0b", "\x0c", "\x85"]
MARKS = ["\ufeff", "\ufeff", "\ufeff\ufeff", "\n", " \r\n\n", "\ufeff\n \r\n"]
CODECS = ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"]
rarely = st.sampled_from([False] * 7 + [True])
BYTES = [
    b"\x00", b"\xff", b"\xfe\xff", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe9",
    b"\x85", b"\xef\xbb",
    b"\xef\xbb\xbf", b"\xef\xbf\xbf", b"\xe2\x80\xa8", b'"', b'""', b",", b"\n", b"\r", b"\r\n", b"\x1b[2J", b"\x1a",
    b"\\",
]  # fmt: skip


def quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


# ---- files ----------------------------------------------------------------------------------------------------------

ODD = ["=cmd|' /C calc'!A0", "\x1b[31mred", "'; drop table visits; --", "a\nb", '"q"', "x" * 70]


def heads(dataset: str) -> list[list[str]]:
    """Returns headers to accept."""
    names = list(model.COLUMNS[dataset])
    return [
        names, ["note", *reversed(names)], [*names[:2], *ODD, *names[2:]],
        ["", " ", *names[:1], "", *names[1:], "\u2003", ""],
    ]  # fmt: skip


def bad_heads(dataset: str) -> list[list[str]]:
    """Returns headers, most of which must be refused."""
    first, *rest = names = list(model.COLUMNS[dataset])
    return [
        rest, [first, *names], [*names, "note", "note"], [first.upper(), *rest], [*names, ""], [*names, "", ""],
        names[:-1], [f" {first}\u2003", *rest], [f"\u200b{first}", *rest], ["\x00" + first, *rest],
        [*names, f"note\r{NUMBERED}"],
        [first, *rest[:-1], f"{rest[-1]}\r{NUMBERED}"], [NUMBERED] * 5, [*names, *(f"c{n}" for n in range(1200))],
        ["=1+1", "\x1b[31m", "$(id)"], [";".join(names)], ["\t".join(names)], [f"'{name}'" for name in names],
        ["|".join(names)], [";".join(rest)], ["|".join([*names, first])], ["sep=;\n" + ";".join(names)], ["sep=,"],
        ["", ""], ["", *rest, ""], ["<!DOCTYPE html>"], [NUMBERED, *names, NUMBERED],
    ]  # fmt: skip


@st.composite
def files(draw: Any, datasets: tuple[str, ...]) -> tuple[str, bytes]:
    """Draws a dataset's file, whose header, fields, records, line ends and bytes may be defective."""
    dataset = draw(st.sampled_from(datasets))
    header = draw(st.sampled_from(heads(dataset)))
    if draw(rarely):
        header = draw(st.sampled_from(bad_heads(dataset)))
    way = draw(st.sampled_from(WAYS)) if draw(rarely) else WAYS[0]
    lines = [",".join(map(way, header))]
    for _ in range(draw(st.integers(0, 6))):
        lines.append(draw(records(dataset, header)))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    ends = [end] * len(lines)
    if draw(rarely):
        ends = [draw(st.sampled_from(ENDS)) for _ in lines]
    elif draw(rarely):
        ends[1:] = [draw(st.sampled_from(ENDS)) for _ in lines[1:]]
    if draw(st.booleans()):
        ends[-1] = ""
    mark = draw(st.sampled_from(MARKS)) if draw(rarely) else ""
    text = mark + "".join(line + end for line, end in zip(lines, ends, strict=True))
    codec = draw(st.sampled_from(CODECS)) if draw(rarely) and draw(rarely) else "utf-8"
    content = text.encode(codec, "replace")
    for _ in range(draw(st.sampled_from([1, 1, 2, 4])) if draw(rarely) else 0):
        place, length = draw(st.integers(0, len(content))), draw(st.sampled_from([0, 0, 1, 3]))
        content = content[:place] + draw(st.sampled_from(BYTES)) + content[place + length :]
    return dataset, content


@st.composite
def records(draw: Any, dataset: str, header: list[str]) -> str:
    """Draws a record, or a line in its place."""
    if draw(rarely):
        return draw(st.sampled_from(LINES))
    key, *_ = model.COLUMNS[dataset]
    row = VALID[dataset] | {key: f"{NUMBERED}{draw(st.integers(0, 4))}"}
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
        field = draw(st.sampled_from(model.FIELDS[dataset]))
        row[field.name] = draw(st.sampled_from(values(field, is_key=field.name == key)))
    ways = [WAYS[0]] * len(header)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        ways[draw(st.integers(0, len(header) - 1))] = draw(st.sampled_from(WAYS))
    fields = [way(row.get(name.strip(), NUMBERED)) for way, name in zip(ways, header, strict=True)]
    change = draw(st.sampled_from([""] * 14 + ["comma", "drop", "blank", "NUL", "first NUL", "BOM", "hash"]))
    if change == "drop":
        fields.pop(draw(st.integers(0, len(fields) - 1)))
    record = ",".join(fields)
    changed = {"comma": record + ",", "blank": " " + record, "NUL": record + "\0", "first NUL": "\0" + record}
    return (changed | {"BOM": "\ufeff" + record, "hash": "#" + record}).get(change, record)


def values(field: model.Field, is_key: bool) -> list[str]:
    if field.read is model.day:
        return DAYS
    if field.read is model.moment:
        return MOMENTS
    if field.read is model.money:
        return AMOUNTS
    if field.read is not model.text:
        return LISTED
    return ["", " ", *TEXTS] if is_key else [*BARE, *TEXTS]


def drawn(strategy: st.SearchStrategy[Any], count: int, number: int) -> list[Any]:
    """Draws `count` examples of a strategy; the same number draws the same examples."""
    found: list[Any] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


def generate(count: int, number: int, datasets: tuple[str, ...] = tuple(model.COLUMNS)) -> list[tuple[str, bytes]]:
    """Generates `count` files; the same number generates the same files."""
    return [
        (dataset, content.replace(NUMBERED.encode(), f"{MARK}{place}x".encode()))
        for place, (dataset, content) in enumerate(drawn(files(datasets), count, number))
    ]


# ---- expected verdicts -----------------------------------------------------------------------------------------------

Row = tuple[str | None, ...]


def verdicts(
    readings: Iterable[model.Reading], dataset: str
) -> tuple[Counter[Row], Counter[tuple[str, str, Row | None]], list[Any], int]:
    """Returns the expected verdicts for one partition with these rows.

    These are accepted values as texts; (text, codes, fields) of rejected records, where a malformed record has no
    fields; amounts; and the number of keys with differing versions.
    """
    known = {field.parent: {PARENTS[field.parent]} for field in model.FIELDS[dataset] if field.parent}
    key, amount = model.COLUMNS[dataset][0], model.AMOUNTS.get(dataset)
    sound, rejected, amounts = defaultdict(list), Counter(), []
    for reading in readings:
        places = [reading.header.index(name) for name in model.COLUMNS[dataset]]
        for record in reading.records:
            if record.fields is None:
                rejected[text_of(record.raw), "malformed_row", None] += 1
                continue
            row = [record.fields[place] for place in places]
            found, reasons = model.read(row, dataset, known)
            source = tuple(field or None for field in row)
            if amount and (value := found[model.COLUMNS[dataset].index(amount)]) is not None:
                amounts.append(value)
            if reasons:
                rejected[text_of(record.raw), ";".join(reasons), source] += 1
            else:
                sound[found[0]].append((found, record.raw, source))
    accepted: Counter[Row] = Counter()
    for versions in sound.values():
        content = [(model.weight(dataset, found), raw.encode()) for found, raw, _ in versions]
        best = content.index(max(content))
        for place, (found, raw, source) in enumerate(versions):
            if place == best:
                accepted[tuple(map(as_text, found))] += 1
            else:
                rejected[text_of(raw), f"duplicate_{key}", source] += 1
    differing = sum(len({found for found, *_ in versions}) > 1 for versions in sound.values())
    return accepted, rejected, amounts, differing


def text_of(raw: str) -> str:
    """Returns a record's text without characters that a reader may take for its line end."""
    return raw.rstrip("\r\n\f")


def as_text(value: Any) -> str | None:
    """Returns a value as Spark writes it."""
    if isinstance(value, datetime):
        text = value.isoformat(" ", "microseconds")
        return text.rstrip("0").rstrip(".")
    if isinstance(value, Decimal):
        return str(value + 0)  # turns -0 into 0
    return value.isoformat() if isinstance(value, date) else value


# ---- the corpus ------------------------------------------------------------------------------------------------------

HEADER = {name: ",".join(columns) for name, columns in model.COLUMNS.items()}


def row(dataset: str, number: int, **changes: str) -> str:
    """Returns a valid record of a file with changes."""
    values = VALID[dataset] | {model.COLUMNS[dataset][0]: f"{MARK}7x{number}"} | changes
    return ",".join(WAYS[0](values[name]) for name in model.COLUMNS[dataset])


def file(dataset: str, *lines: str, end: str = "\n") -> bytes:
    return "".join(line + end for line in (HEADER[dataset], *lines)).encode()


def corpus() -> dict[str, tuple[str, bytes]]:
    """Returns the corpus of files by name; files of many megabytes are in `large`."""
    person, bill, visit = row("patients", 1), row("billing", 1), row("visits", 1)
    whole = '"' + person + '"'
    found: dict[str, tuple[str, bytes]] = {
        "nothing": ("patients", b""),
        "a BOM alone": ("patients", b"\xef\xbb\xbf"),
        "blank lines alone": ("patients", b"\n \r\n\t\n"),
        "a NUL alone": ("patients", b"\0"),
        "a header alone": ("patients", file("patients")),
        "a header alone, without a line end": ("patients", HEADER["patients"].encode()),
        "two BOMs": ("patients", b"\xef\xbb\xbf" * 2 + file("patients", person)),
        "a BOM before each line": ("patients", file("patients", "\ufeff" + person, "\ufeff")),
        "UTF-16 with a BOM": ("patients", file("patients", person).decode().encode("utf-16")),
        "UTF-16 without a BOM": ("patients", file("patients", person).decode().encode("utf-16-le")),
        "UTF-32": ("patients", file("patients", person).decode().encode("utf-32")),
        "latin-1": ("patients", file("patients", row("patients", 1, city="Z\u00fcrich")).decode().encode("latin-1")),
        "overlong UTF-8": ("patients", file("patients", person).replace(b"Springfield", b"Spring\xc0\xaffield")),
        "a surrogate": ("patients", file("patients", person).replace(b"Springfield", b"Spring\xed\xa0\x80field")),
        "a character cut off at the end": ("patients", file("patients", person)[:-1] + b"\xe2\x80"),
        "returns for line ends": ("patients", file("patients", person, person, end="\r")),
        "returns behind an undeclared column": (
            "patients",
            f"{HEADER['patients']},note\r{person},{MARK}7xnote\r".encode(),
        ),
        "a quote open in the header": (
            "patients",
            f'{HEADER["patients"]},"note\n{person},{MARK}7xnote\n'.encode(),
        ),
        "U+2028 for line ends": ("patients", file("patients", person, end="\u2028")),
        "NEL, VT and FF for line ends": ("patients", file("patients", f"{person}\x85{person}\x0b{person}\x0c")),
        "a record in quotes as a whole": ("patients", file("patients", whole, 'P,"a\nb"')),
        "a bill in quotes as a whole": ("billing", file("billing", f'"{bill}"', row("billing", 2), 'B,"a\nb"')),
        "one field of quotes": ("patients", file("patients", '""', '" "', '"\n"', '"\u2003"', person)),
        "a quote left open behind the last comma": (
            "billing",
            file("billing", bill, bill.rpartition(",")[0] + ',"').rstrip(b"\n"),
        ),
        "a quote left open in two fields": ("patients", file("patients", person, 'P2,"open', person)),
        "a quote left open in a field too much": ("patients", file("patients", person + ',"open', person)),
        "a quote left open in one field": ("patients", file("patients", person, '"open', person)),
        "a quote in the middle": ("patients", file("patients", row("patients", 1, city='5" nail'), person[:-1] + '"')),
        "white space behind quotes": (
            "billing",
            file(
                "billing",
                *(bill.replace("500.00", f'"500.00"{blank}') for blank in (" ", "\t", "\x01", "\x1f", "\u00a0")),
            ),
        ),
        "fields that go on behind their quotes": (
            "patients",
            file(
                "patients",
                f'{MARK}7x1,F,1980-02-29,""""; a""",2024-03-01',
                f'{MARK}7x2,"F" "x",1980-02-29,\uffffa,2024-03-01',
                f' {MARK}7x3,F,1980-02-29,"\na",2024-03-01',
                f'{MARK}7x4,"F"","a"\u00a0,1980-02-29,Springfield,',
                f'\uffff{MARK}7x5,F,"1980-02-29",Springfield,2024-03-01',
            ),
        ),
        "an amount behind U+FFFF": ("billing", file("billing", "\uffff" + bill.replace("500.00", '"500.00"'))),
        "a record that begins with U+FFFF": ("patients", file("patients", "\uffff" + person, 'P,"a\nb"')),
        "records that begin with NUL and #": ("patients", file("patients", "\0" + person, "#" + person, 'P,"a\nb"')),
        "a trailing comma in each line": ("billing", file("billing", bill + ",", bill)),
        "a record of 25,000 fields": ("patients", file("patients", f'"{MARK}7x"' + ",x" * 25_000, person)),
        "a record of 101 fields": ("patients", file("patients", "x," * 100 + "x", "x" + ',"a\nb"' * 100, "x," * 300)),
        "a header of 1,000 columns": (
            "patients",
            (HEADER["patients"] + "".join(f",c{n}" for n in range(995)) + f"\n{person}{',' * 995}\n").encode(),
        ),
        "columns without a name": (
            "patients",
            f',,{HEADER["patients"]},, \t,\u2003,""\n{MARK},,{person},,,,\n,,{person}\n,,{person},,,,=1+1,\n'.encode(),
        ),
        "columns without a name, records over lines": (
            "patients",
            f'{HEADER["patients"]},,\n{person},"a\n{MARK}",\n{person},,,,"a\nb"\n{person},,\n'.encode(),
        ),
        "a header of 16,384 columns": (
            "patients",
            f"{HEADER['patients']}{',' * 16_379}\n{person}{',' * 16_379}\n{person}\n".encode(),
        ),
        "a header of 16,384 columns, records over lines": (
            "patients",
            f'{HEADER["patients"]}{"," * 16_379}\n{person}{"," * 16_379}\n{person}{"," * 995},x\nP,"a\nb"\n'.encode(),
        ),
        "a header of 1,001 columns, records over lines": (
            "patients",
            f'{HEADER["patients"]}{"," * 996}\n{person},"a\nb"{"," * 995}\nP,"a\nb"\n"P"{"," * 1000}\n'.encode(),
        ),
        "a header of 16,385 columns": ("patients", f"{HEADER['patients']}{',' * 16_380}\n".encode()),
        "semicolons": ("patients", file("patients", person).replace(b",", b";")),
        "semicolons and a column too few": (
            "patients",
            file("patients", person).replace(b",", b";")[len("patient_id;") :],
        ),
        "tabs, quoted, CRLF": (
            "visits",
            ("\t".join(f'"{name}"' for name in model.COLUMNS["visits"]) + f"\r\n{visit}\r\n").encode(),
        ),
        "a spreadsheet's first line": ("patients", b"sep=;\r\n" + file("patients", person).replace(b",", b";")),
        "UTF-16, the great end first, without a BOM": (
            "patients",
            file("patients", person).decode().encode("utf-16-be"),
        ),
        "an HTML page": ("patients", b"<!DOCTYPE html>\n<html><head><title>504</title></head></html>\n"),
        "a ZIP archive": ("patients", b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(range(256))),
        "gzip": ("patients", b"\x1f\x8b\x08\0" + bytes(range(256))),
        "a file of NULs": ("patients", b"\0" * 5000),
        "Windows-1252 in several columns": (
            "visits",
            file("visits", visit, visit.replace("Cardiology", "P\u00e9diatrie").replace("D0001", "Andr\u00e9"))
            .decode()
            .encode("cp1252"),
        ),
        "a key of 512 characters": ("patients", file("patients", row("patients", 1, patient_id="k" * 512), end="\r\n")),
        "a key of 513 characters": ("patients", file("patients", row("patients", 1, patient_id="k" * 513))),
        "a department of 513 characters": ("visits", file("visits", row("visits", 1, department="d" * 513))),
        "a field of 65,537 characters": ("patients", file("patients", row("patients", 1, city=MARK + "7x" * 33_000))),
        "an odd undeclared column with a long field": (
            "patients",
            f"{HEADER['patients']},\x1b[31m\n{person},{'x' * 70_000}\n".encode(),
        ),
        "records across buffers": (
            "patients",
            file("patients", *(row("patients", n, city="a\n" + "b" * (n % 997)) for n in range(2500))),
        ),
        "days at the edges": (
            "patients",
            file(
                "patients",
                *(row("patients", n, birth_date=d, registration_date="9999-12-31") for n, d in enumerate(DAYS)),
            ),
        ),
        "moments at the edges": (
            "visits",
            file("visits", *(row("visits", n, visit_start_ts=m, visit_end_ts="") for n, m in enumerate(MOMENTS))),
        ),
        "amounts at the edges": (
            "billing",
            file("billing", *(row("billing", n, total_amount=a, insurance_amount="") for n, a in enumerate(AMOUNTS))),
        ),
        "texts of all kinds": (
            "visits",
            file(
                "visits",
                *(row("visits", n, department=t.replace(NUMBERED, f"{MARK}7x")) for n, t in enumerate([*TEXTS, *BARE])),
            ),
        ),
        "texts for keys": (
            "visits",
            file(
                "visits",
                *(row("visits", 0, visit_id=t.replace(NUMBERED, f"{MARK}7x{n}x")) for n, t in enumerate(TEXTS)),
            ),
        ),
        "no key of a parent": ("visits", file("visits", visit, row("visits", 2, patient_id="' or '1'='1"))),
    }
    return found


def large() -> Mapping[str, tuple[str, Callable[[], bytes]]]:
    """Returns functions that make files of many megabytes."""
    person = row("patients", 1)
    return {
        "a million column names": (
            "patients",
            lambda: (HEADER["patients"] + "".join(f",c{n}" for n in range(1_000_000)) + "\n").encode(),
        ),
        "a header of 12 MB": ("patients", lambda: (HEADER["patients"] + "," + "n" * 12_000_000 + "\n").encode()),
        "a field of 12 MB": ("patients", lambda: file("patients", row("patients", 1, city=MARK + "7x" * 6_000_000))),
        "a quoted field of 12 MB": ("patients", lambda: file("patients", f'P,F,"{"a," * 6_000_000}",x,y')),
        "a record of a million fields": ("patients", lambda: file("patients", person, "," * 1_000_000, person)),
        "a record of 6 million fields": ("patients", lambda: file("patients", person, "," * 6_000_000, person)),
        "a quote open over 12 MB": ("patients", lambda: file("patients", person, 'P2,"open', *[person] * 200_000)),
        "a quote open over 20 MB": ("patients", lambda: file("patients", person, 'P2,"open', *[person] * 340_000)),
        "2 million NULs": ("patients", lambda: file("patients", person, "\0" * 900_000, person)),
        "a million blank lines": ("patients", lambda: file("patients", *[""] * 1_000_000, person, ",,,,")),
        "a million quotes": ("patients", lambda: file("patients", person, '"' * 1_000_001)),
    }
