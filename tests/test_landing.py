"""What one reading of a landing file tells, and what it refuses."""

import pytest

from jobs.catalog import CATALOG
from jobs.landing import LONGEST_FIELD, describe, ends_open
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
        (HEADER.replace(b"city", b"City"), "lacks the column 'city'"),
        (HEADER.replace(b"city", b"gender"), "lacks the column 'city' and names column 'gender' twice"),
        (HEADER.replace(b"\n", b",gender\n"), "the header names column 'gender' twice;"),
        (HEADER.replace(b"\n", b",note,x,note\n"), "the header names columns 6 and 8 alike;"),
        (HEADER + ROW.replace(b"Spring", b"\xfc"), "column 'city' holds bytes that are not UTF-8"),
        (HEADER + b"a,b,c,d,e,\xff\n", "column 'field 6' holds bytes that are not UTF-8"),
        (HEADER + ROW.replace(b"Spring", b"x" * LONGEST_FIELD), "column 'city' holds a field of 65,541 characters"),
        (HEADER + ROW.replace(b"P1", b"P" * 600), "column 'patient_id' holds a field of 600 characters"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name_and_column(read, content, sentence):
    with pytest.raises(Refused, match=sentence) as refused:
        read(content)
    assert "2026/01/01/patients.csv" in str(refused.value)


def test_a_row_where_the_header_should_be_is_not_quoted(read):
    with pytest.raises(Refused, match="the header lacks the column 'patient_id';") as refused:
        read(ROW.replace(b"2000-01-01", b"2020-01-01"))
    assert "2020-01-01" not in str(refused.value)


def test_an_open_quote_is_followed_over_lines():
    assert ends_open('a,"b\n') and not ends_open('a,"b"\n') and not ends_open('a,"b""c"\n')
    assert ends_open("still inside, with a comma\n", is_open=True)
    assert not ends_open('closed",x\n', is_open=True)
    assert ends_open('closed","open again\n', is_open=True)
