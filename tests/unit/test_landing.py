"""Checks the profile of a landing file from one reading, and the files that it refuses."""

import errno
import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import zipfile
from datetime import date

import pytest

from jobs import landing, program
from jobs.catalog import CATALOG
from jobs.landing import LONGEST_FIELD, Upload, checksum, describe, ends_open, has_landed, landing_path
from jobs.program import Refused

PATIENTS = CATALOG["patients"]
HEADER = b"patient_id,gender,birth_date,city,registration_date\n"
ROW = b"P1,M,2000-01-01,Springfield,2020-01-01\n"


@pytest.fixture
def read(tmp_path):
    def describe_bytes(content):
        path = tmp_path / "patients.csv"
        path.write_bytes(content)
        return describe(path, PATIENTS, "2026/01/01/patients.csv")

    return describe_bytes


@pytest.mark.parametrize(
    ("content", "rows", "spans"),
    {
        "a header alone is a day with no rows": (HEADER, 0, False),
        "no line end at the end": (HEADER + ROW.rstrip(), 1, False),
        "CRLF and a BOM": (b"\xef\xbb\xbf" + (HEADER + ROW).replace(b"\n", b"\r\n"), 1, False),
        "blank lines are no rows": (b"\n" + HEADER + b"\n  \r\n" + ROW + "\u2003\n".encode() + b"\n", 1, False),
        "quotes within a line": (HEADER + b'P1,M,2000-01-01,"a, ""b""",2020-01-01\n' + ROW, 2, False),
        "a line break inside quotes": (HEADER + b'P1,M,2000-01-01,"a\n\nb",2020-01-01\n' + ROW, 2, True),
        "a quote in the middle of a field opens nothing": (
            HEADER + b'P1,M,2000-01-01,a"b,2020-01-01\n' + ROW,
            2,
            False,
        ),
        "a quote left open takes the rest of the file": (HEADER + ROW + b'P2,"open\n' + ROW * 3, 2, True),
        "a quote left open on the last line": (HEADER + b'P2,"open', 1, True),
        "returns and NULs are characters like others": (HEADER + b"a\rb,\0\n" + ROW, 2, False),
        "columns in another order, one too many": (
            b"x,city,gender,patient_id,registration_date,birth_date\n",
            0,
            False,
        ),
        "columns without a name": (
            b",," + HEADER.replace(b",city", b',"",city').rstrip() + ",, ,\u2003\r\n".encode() + b"a," * 10 + b"\r\n",
            1,
            False,
        ),
    }.values(),
)
def test_rows_are_counted_as_rfc_4180_has_them(read, content, rows, spans):
    facts = read(content)
    assert (facts.records, facts.spans, facts.bytes) == (rows, spans, len(content))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (HEADER.replace(b",registration_date", b""), "lacks the column 'registration_date'"),
        (b"gender,x,city\n", "the header lacks the columns 'patient_id', 'birth_date' and 'registration_date';"),
        (HEADER.replace(b"\n", b",city,gender\n"), "the header names columns 'gender' and 'city' twice;"),
        (
            HEADER.replace(b"\n", b",note,x,,note,x,,note\n"),
            "names columns 6, 9 and 12 alike and columns 7 and 10 alike;",
        ),
        (HEADER.replace(b"city", b"City"), "lacks the column 'city'"),
        (HEADER.replace(b"city", b"gender"), "lacks the column 'city' and names column 'gender' twice"),
        (HEADER.replace(b"\n", b",gender\n"), "the header names column 'gender' twice;"),
        (HEADER.replace(b"\n", b",note,x,note\n"), "the header names columns 6 and 8 alike;"),
        (HEADER + ROW.replace(b"Spring", b"\xfc"), "column 'city' holds bytes that are not UTF-8"),
        (HEADER + b"a,b,c,d,e,\xff\n", "column 'field 6' holds bytes that are not UTF-8"),
        (HEADER.replace(b"\n", b",\n") + b"a,b,c,d,e,\xff\n", "column 'field 6' holds bytes that are not UTF-8"),
        (
            HEADER + ROW.replace(b"M", b"\xff") + ROW + ROW.replace(b"P1", b"\x80").replace(b"Spring", b"\xfc"),
            "columns 'gender', 'patient_id' and 'city' hold bytes that are not UTF-8",
        ),
        (HEADER + ROW.replace(b"Spring", b"x" * LONGEST_FIELD), "column 'city' holds a field of 65,541 characters"),
        (HEADER + ROW.replace(b"P1", b"P" * 600), "column 'patient_id' holds a field of 600 characters"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name_and_column(read, content, sentence):
    with pytest.raises(Refused, match=sentence) as refused:
        read(content)
    assert "2026/01/01/patients.csv" in str(refused.value)


def test_a_row_where_the_header_should_be_is_not_quoted(read):
    with pytest.raises(
        Refused, match="the header lacks the columns 'patient_id', 'gender', 'birth_date', 'city' and"
    ) as refused:
        read(ROW.replace(b"2000-01-01", b"2020-01-01"))
    assert "2020-01-01" not in str(refused.value)
    with pytest.raises(
        Refused, match="it seems to be separated by semicolons, and the header lacks the columns"
    ) as refused:
        read(ROW.replace(b",", b";"))
    assert "2000-01-01" not in str(refused.value) and "Springfield" not in str(refused.value)


NAMES = HEADER.decode().strip().split(",")
LETTERS = "P1,M,2000-01-01,Besan\u00e7on,2020-01-01"


def separated(by, end="\r\n", names=NAMES, quote=""):
    return by.join(f"{quote}{name}{quote}" for name in names) + end + LETTERS.replace(",", by) + end


def zipped():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return content.getvalue()


SEEMING = {
    "semicolons": (separated(";").encode(), "it seems to be separated by semicolons;"),
    "semicolons, LF, quoted names": (separated(";", "\n", quote='"').encode(), "separated by semicolons;"),
    "semicolons, another order": (separated(";", names=[*NAMES[::-1], "note"]).encode(), "separated by semicolons;"),
    "semicolons and a BOM": (separated(";").encode("utf-8-sig"), "separated by semicolons;"),
    "semicolons and columns without a name": (separated(";", names=[*NAMES, "", ""]).encode(), "by semicolons;"),
    "semicolons, a column too few": (
        separated(";", names=[name for name in NAMES if name != "city"]).encode(),
        "it seems to be separated by semicolons, and the header lacks the column 'city';",
    ),
    "semicolons, Windows-1252": (
        separated(";").encode("cp1252"),
        "it seems to be Windows-1252 and seems to be separated by semicolons;",
    ),
    "tabs": (separated("\t").encode(), "it seems to be separated by tabs;"),
    "pipes": (separated("|", "\n").encode(), "it seems to be separated by pipes;"),
    "a spreadsheet's first line": (
        b"sep=;\r\n" + separated(";").encode(),
        "it begins with a spreadsheet's line `sep=` and seems to be separated by semicolons;",
    ),
    "a spreadsheet's first line, a column too few": (
        "\ufeffSEP=\t\n".encode() + separated("\t", names=NAMES[1:]).encode(),
        "line `sep=` and seems to be separated by tabs, and the header lacks the column 'patient_id';",
    ),
    "a spreadsheet's first line, commas": (
        b'"sep=,"\n' + HEADER + ROW,
        "it begins with a spreadsheet's line `sep=`; save it as CSV",
    ),
    "UTF-16": (separated(",").encode("utf-16"), "it seems to be UTF-16; save it as CSV in UTF-8 with commas"),
    "UTF-16, the great end first": ("\ufeff".encode("utf-16-be") + separated(",").encode("utf-16-be"), "be UTF-16;"),
    "UTF-16 without a BOM": (separated(",").encode("utf-16-le"), "it seems to be UTF-16;"),
    "UTF-16 without a BOM, the great end first": (separated(",").encode("utf-16-be"), "it seems to be UTF-16;"),
    "UTF-16 behind blank lines": (f"\r\n\n{separated(',')}".encode("utf-16-le"), "it seems to be UTF-16;"),
    "UTF-16, tabs, a column too few": (
        separated("\t", names=NAMES[:4]).encode("utf-16"),
        "UTF-16 and seems to be separated by tabs, and the header lacks the column 'registration_date';",
    ),
    "UTF-32": (separated(",").encode("utf-32"), "it seems to be UTF-32;"),
    "Windows-1252": (
        separated(",").encode("cp1252"),
        "column 'city' holds bytes that are not UTF-8, it seems to be Windows-1252; have the file sent again in UTF-8.",
    ),
    "Windows-1252 in the header": (
        separated(",", names=[*NAMES, "pr\u00e9nom"]).encode("cp1252"),
        "it seems to be Windows-1252, and the header holds bytes that are not UTF-8 in field 6;",
    ),
    "an HTML page": (
        b"<!DOCTYPE html>\n<html><title>504</title></html>\n",
        "it is an HTML page, not CSV with the columns 'patient_id', 'gender', 'birth_date', 'city' and 'registration_",
    ),
    "an HTML page behind white space": (b"\xef\xbb\xbf \r\n<HTML lang='en'>", "it is an HTML page,"),
    "an XML document": (b"<?xml version='1.0'?><Workbook/>", "it is an XML document,"),
    "a JSON document": (b'[\n  {"patient_id": "P1"}\n]', "it is a JSON document,"),
    "an Excel workbook": (zipped(), r"it is a ZIP archive \(an Excel workbook\?\),"),
    "an old Excel workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 512, "it is a document of an old Office"),
    "gzip": (gzip.compress(HEADER + ROW), "it is a gzip archive,"),
    "a PDF": (b"%PDF-1.7\n%\xe2\xe3\n", "it is a PDF document,"),
    "NULs": (b"\0" * 4096, "it is filled with NUL characters,"),
    "returns for line ends": (separated(",", "\r").encode() * 300, "the header holds a carriage return that ends no"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "sentence"), SEEMING.values(), ids=SEEMING)
def test_a_file_of_another_kind_is_refused_by_what_it_seems_to_be(read, content, sentence):
    with pytest.raises(Refused, match=sentence) as refused:
        read(content)
    said = str(refused.value)
    assert said.startswith("2026/01/01/patients.csv: ") and said.isprintable() and len(said) < 300
    assert "Besan" not in said and "2000-01-01" not in said
    assert "lacks" not in said or "lacks" in sentence, "what is there under another separator is not called missing"


def test_bytes_that_are_broken_utf_8_are_not_called_windows_1252(read):
    for content in (b"Springfi\xc3\xa9\xe2\x82ld", b"\xff", b"\x80\x99"):
        with pytest.raises(Refused, match="column 'city' holds bytes that are not UTF-8;"):
            read(HEADER + ROW.replace(b"Springfield", content))


def test_columns_without_a_name_are_said_to_stay_behind():
    from jobs.landing_to_bronze import listed

    assert listed(["note", "", "x" * 65, "", "\x1b"]) == "'note', 2 more, 2 columns without a name"
    assert listed([""]) == "1 column without a name"


def test_a_header_as_wide_as_a_spreadsheet_is_read_and_a_wider_one_is_not(read):
    wide = HEADER.replace(b"\n", b"," * (16_384 - 5) + b"\n")
    assert len(read(wide).header) == 16_384
    with pytest.raises(Refused, match="the header has 16,385 columns, more than the 16,384 allowed"):
        read(wide.replace(b"\n", b",\n"))


# ---- file system errors --------------------------------------------------------------------------------------------

DAY = date(2026, 1, 1)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Returns the path of the landing file."""
    monkeypatch.setenv("LANDING_DIR", str(tmp_path))
    path = landing_path(PATIENTS, DAY)
    path.parent.mkdir(parents=True)
    return path


def test_what_is_no_file_in_the_place_of_one_is_refused(place):
    assert not has_landed(PATIENTS, DAY)
    place.symlink_to("nowhere.csv")
    with pytest.raises(Refused, match=r"^2026/01/01/patients.csv is a symbolic link to a file that is not there;"):
        has_landed(PATIENTS, DAY)
    place.unlink()
    place.mkdir()
    with pytest.raises(Refused, match=r"^2026/01/01/patients.csv is a directory;"):
        has_landed(PATIENTS, DAY)
    place.rmdir()
    os.mkfifo(place)
    with pytest.raises(Refused, match=r"^2026/01/01/patients.csv is not a regular file;"):
        has_landed(PATIENTS, DAY)
    place.unlink()
    place.write_bytes(HEADER)
    assert has_landed(PATIENTS, DAY)


@pytest.mark.parametrize(
    ("reach", "sentence"),
    {
        "a file that vanishes": (lambda path: path.unlink(), r"cannot be read \(no such file or directory\);"),
        "a link to itself": (lambda path: (path.unlink(), path.symlink_to(path)), r"cannot be read \(too many levels"),
        "a folder that is a file": (
            lambda path: (path.unlink(), path.parent.rmdir(), path.parent.touch()),
            r"cannot be read \(not a directory\);",
        ),
    }.values(),
)
def test_what_the_file_system_says_is_told_with_the_path(place, reach, sentence):
    place.write_bytes(HEADER)
    reach(place)
    with pytest.raises(OSError) as error:
        describe(place, PATIENTS, "name")
    assert re.match(rf"2026/01/01/patients.csv {sentence}", program.sentence(error.value))
    with pytest.raises(OSError) as error:
        checksum(place)
    assert re.match(rf"2026/01/01/patients.csv {sentence}", program.sentence(error.value))


def test_a_file_elsewhere_is_told_by_its_whole_path_on_one_line(place):
    said = program.sentence(PermissionError(errno.EACCES, "Permission denied", "/srv/out"))
    assert said.startswith("/srv/out may not be read or written by this user (permission denied); give this user")
    said = program.sentence(OSError(errno.ENOSPC, "No space left on device", b"/srv/a\nb"))
    assert said.startswith("/srv/a\\nb cannot be read or written (no space left on device);")
    assert "failed with TimeoutError" in program.sentence(TimeoutError("timed out"))


# Root can read any file unless it gives up these capabilities.
AS_OTHERS = ["setpriv", *(f"--{kind}=-dac_override,-dac_read_search" for kind in ("bounding-set", "inh-caps"))]
READ = """
from datetime import date
from jobs import landing, program
from jobs.catalog import CATALOG
try:
    if landing.has_landed(CATALOG["patients"], date(2026, 1, 1)):
        landing.checksum(landing.landing_path(CATALOG["patients"], date(2026, 1, 1)))
except Exception as error:
    program.leave(1, program.sentence(error))
"""


@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_file_that_may_not_be_read_is_told_by_name_and_cause(place, closed):
    place.write_bytes(HEADER)
    path = place if closed == "file" else place.parent
    path.chmod(0)
    try:
        done = subprocess.run(
            [*(AS_OTHERS if os.geteuid() == 0 else []), sys.executable, "-c", READ],
            capture_output=True,
            text=True,
        )
    finally:
        path.chmod(0o700)
    sentence = "2026/01/01/patients.csv may not be read by this user (permission denied); give this user the rights"
    assert done.returncode == 1 and done.stderr.startswith(sentence) and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("size", [0, 1, 5, 8 << 20, (8 << 20) + 1])
def test_bytes_that_changed_are_not_handed_out_to_their_end(tmp_path, size):
    """Reads in chunks of a fixed size and then the rest, as boto3 does."""
    path, content = tmp_path / "file.csv", b"x" * size
    path.write_bytes(content)
    for sha256, is_whole in (
        (hashlib.sha256(content).hexdigest(), True),
        (hashlib.sha256(b"other").hexdigest(), False),
    ):
        with path.open("rb", buffering=0) as file:
            upload, read = Upload(file, sha256, "2026/01/01/patients.csv"), []
            if is_whole:
                while chunk := upload.read(8 << 20):
                    read.append(chunk)
                assert b"".join(read) + upload.read() == content
            else:
                with pytest.raises(Refused, match=r"2026/01/01/patients.csv changed while it was read;"):
                    while upload.read(8 << 20):
                        pass


def test_all_facts_of_a_file_are_of_one_reading(read, tmp_path, monkeypatch):
    """Replaces the file while it is read, as an upload over the old one would."""
    whole = HEADER + ROW * 2
    real = landing.read_header

    def replaced(*words):
        (tmp_path / "patients.csv").unlink()
        (tmp_path / "patients.csv").write_bytes(HEADER + ROW)
        return real(*words)

    monkeypatch.setattr(landing, "read_header", replaced)
    facts = read(whole)
    assert (facts.sha256, facts.bytes, facts.records) == (hashlib.sha256(whole).hexdigest(), len(whole), 2)


def test_an_open_quote_is_followed_over_lines():
    assert ends_open('a,"b\n') and not ends_open('a,"b"\n') and not ends_open('a,"b""c"\n')
    assert ends_open("still inside, with a comma\n", is_open=True)
    assert not ends_open('closed",x\n', is_open=True)
    assert ends_open('closed","open again\n', is_open=True)
