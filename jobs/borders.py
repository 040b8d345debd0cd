"""Makes text from outside safe for readers that would find more than text in it.

Names of columns and values come with a file, words with a command line, errors from a store or the operating system. A
text that becomes part of a sentence is made `printable` (or `quoted`). Each kind of reader of sentences has a function
of its own. docs/access.md lists the borders.
"""

import html
import sys
from typing import TextIO

LONGEST = 4_000  # characters; the platform's own sentences are shorter


def printable(text: str) -> str:
    """Returns text on one line without characters that a terminal or a log would obey: those become escapes.

    They are control characters, line ends, marks that turn the direction of writing, NUL, and bytes that are no text.
    """
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return short if short.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in short)


def quoted(text: str) -> str:
    """Returns a text for use in a sentence: in quotes, on one line, and cut after 40 characters."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def plain(text: str) -> str:
    """Returns printable text of several lines, such as a report or the sentences of several tasks."""
    return "\n".join(map(printable, text.split("\n")))


def say(text: str, to: TextIO | None = None) -> None:
    """Prints text to a terminal or a log: to standard output unless another file is given."""
    print(plain(text), file=to or sys.stdout, flush=True)


def as_html(text: str) -> str:
    """Returns text escaped for use between the tags of a page."""
    return html.escape(text, quote=False)
