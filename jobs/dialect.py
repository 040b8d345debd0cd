"""Describes how files write records, and recognises by its first bytes a file that is not CSV in UTF-8 with commas."""

import codecs
import re
from collections.abc import Sequence
from typing import NamedTuple

from jobs.dataset import WHITE_SPACE


class Dialect(NamedTuple):
    """Describes how a file writes its records: what separates fields and what quotes them; `quote` may be empty."""

    separator: str = ","
    quote: str = '"'


RFC_4180 = Dialect()
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "pipes"}
SEPARATOR_LINE = re.compile(r'"?sep=.?"?', re.IGNORECASE)  # a spreadsheet's own first line
BINARY = (
    (b"PK\x03\x04", "a ZIP archive (an Excel workbook?)"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh91AY&SY", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of an old Office (an Excel workbook?)"),
    (b"%PDF-", "a PDF document"),
    (b"PAR1", "a Parquet file"),
)
HTML = re.compile(r"<(!doctype\s+html|html|head|body|title|table|div)\b", re.IGNORECASE)
OTHER_TEXT = (
    (re.compile(r"\s*<[?!a-z]", re.IGNORECASE), "an XML document"),
    (re.compile(r'\s*(\{\s*"|\[\s*[\[{])'), "a JSON document"),
)
VISIBLE = re.compile(r"\S")
PROLOG = {"<!--": "-->", "<?xm": ">"}  # how a comment and an XML declaration begin and end
UNICODE = ("UTF-16", "UTF-32")
MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
# In text decoded with surrogateescape: a byte that is a letter in Windows-1252, beside an ASCII letter. If a byte
# follows as in UTF-8, it is a broken UTF-8 character instead.
LETTER = "[\udc8a\udc8c\udc8e\udc9a\udc9c\udc9e\udc9f\udcc0-\udcd6\udcd8-\udcf6\udcf8-\udcff]"
WINDOWS = re.compile(rf"([A-Za-z]{LETTER}|{LETTER}[A-Za-z])(?![\udc80-\udcbf])")


class Look(NamedTuple):
    """Describes what the first bytes of a file show."""

    kind: str | None  # what the file is, if it is not text in columns
    encoding: str | None  # the encoding that it seems to have, if that is not UTF-8
    text: str  # bytes that are not of the encoding are escaped as surrogates


def look(start: bytes) -> Look:
    """Returns what a file seems to be, by its first bytes."""
    for magic, archive in BINARY:
        if start.startswith(magic):
            return Look(archive, None, "")
    if start and not start.strip(b"\0"):
        return Look("filled with NUL characters", None, "")
    codec = unicode_codec(start)
    encoding = codec[:6].upper() if codec else None
    # A character that is cut off at the end of these bytes is left out.
    text = codecs.getincrementaldecoder(codec or "utf-8-sig")("replace" if codec else "surrogateescape").decode(start)
    if codec is None and is_windows_1252(text):
        encoding = "Windows-1252"
    is_html = HTML.match(text, prolog_end(text))
    kind = "an HTML page" if is_html else next((kind for pattern, kind in OTHER_TEXT if pattern.match(text)), None)
    return Look(kind, encoding, text)


def prolog_end(text: str) -> int:
    """Returns the position behind the blanks, comments and XML declarations with which a page may begin.

    Reads each character once: a single pattern would take twice as long for every further comment.
    """
    end = first_visible(text, 0)
    while closing := PROLOG.get(text[end : end + 4].lower()):
        close = text.find(closing, end + 4)
        if close < 0:
            break
        end = first_visible(text, close + len(closing))
    return end


def first_visible(text: str, start: int) -> int:
    """Returns the position of the first character from `start` on that is not blank, or the end of the text."""
    found = VISIBLE.search(text, start)
    return found.start() if found else len(text)


def unicode_codec(start: bytes) -> str | None:
    """Returns the codec of text in UTF-16 or UTF-32, by its mark or by the NULs among ASCII characters; or None."""
    for mark, codec in MARKS:
        if start.startswith(mark):
            return codec
    units = start[:64]
    nuls = "".join("01"[units[place::4].count(0) * 2 > len(units[place::4])] for place in range(4))
    return {"0111": "utf-32-le", "1110": "utf-32-be", "0101": "utf-16-le", "1010": "utf-16-be"}.get(nuls)


def is_windows_1252(text: str) -> bool:
    """Tells whether a text has bytes that are not UTF-8, escaped as surrogates, where Windows-1252 has letters."""
    return WINDOWS.search(text) is not None


def separator_of(header: str, names: Sequence[str]) -> str:
    """Returns the separator of a header: the one that finds most of `names`, then most columns; a comma if tied."""

    def found(separator: str) -> tuple[int, int]:
        columns = [column.strip(WHITE_SPACE + '"') for column in header.split(separator)]
        return len(set(names).intersection(columns)), len(columns)

    return max((",", *SEPARATORS), key=found)  # the first of equals
