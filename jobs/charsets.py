"""Tells in which encoding a file is written, by charset-normalizer."""

import codecs
import re
from pathlib import Path
from typing import NamedTuple

from charset_normalizer import from_bytes

from jobs import dialect, landing

# Asked in this order: of encodings in which a text reads equally well, the first is taken.
LIKELY = ("cp1252", "iso8859_15", "cp1250", "iso8859_2", "cp1251", "cp850", "cp437", "mac_roman", "shift_jis")
NO_LETTERS = re.compile(rb"[^A-Za-z\x80-\xff]+")  # digits and separators would pass for disorder
SAMPLE = 1 << 18  # bytes of lines that are not ASCII; the others tell nothing


class Charset(NamedTuple):
    """Names an encoding as declarations do, and other encodings in which the file is about as plausible."""

    name: str
    others: tuple[str, ...] = ()


def detect(path: Path) -> Charset:
    """Reads a file once and returns its encoding: UTF-8 if it is valid as that, else what its letters look like."""
    decoder, is_utf8, odd, size = codecs.getincrementaldecoder("utf-8")(), True, list[bytes](), 0
    with path.open("rb") as file:
        start = file.read(1 << 12)
        if codec := dialect.unicode_codec(start):
            return Charset(codec[:6] if codec.startswith("utf-16") else codec)
        file.seek(0)
        while chunk := file.readline(landing.CHUNK):
            if chunk.isascii() and is_utf8 and not decoder.getstate()[0]:
                continue
            if is_utf8:
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError:
                    is_utf8 = False
            if not chunk.isascii() and size < SAMPLE:
                odd.append(chunk)
                size += len(chunk)
            elif not is_utf8 and size >= SAMPLE:
                break
    if is_utf8:
        return Charset("utf-8")
    text = NO_LETTERS.sub(b" ", b"".join(odd))
    found = from_bytes(text, steps=10, chunk_size=1024, cp_isolation=list(LIKELY), threshold=0.5)
    # One match stands for all encodings that decode the lines to the same text.
    named = {codecs.lookup(name).name: match for match in found for name in match.could_be_from_charset}
    known = [name for each in LIKELY if (name := codecs.lookup(each).name) in named]
    if not known:
        return Charset("windows-1252")
    least = min(named[name].chaos for name in known)
    alike = [spelt(name) for name in known if named[name].chaos <= least + 0.02]
    return Charset(alike[0], tuple(alike[1:]))


def spelt(name: str) -> str:
    """Returns the name by which people know one of Python's codecs."""
    return name.replace("cp125", "windows-125").replace("iso8859-", "iso-8859-")


def as_utf8(path: Path, encoding: str, copy: Path) -> Path:
    """Returns the file itself if it is UTF-8, else a copy of it that is."""
    if encoding == "utf-8":
        return path
    decoded = path.open(encoding=encoding, errors="replace", newline="")
    with decoded as text, copy.open("w", encoding="utf-8", newline="") as out:
        while chunk := text.read(landing.CHUNK):
            out.write(chunk)
    return copy
