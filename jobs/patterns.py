"""Reads the patterns in which a source writes dates and times, such as dd/MM/yyyy HH:mm[:ss]."""

import re
from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

# The symbols of the parts of a date and a time, each with its number of digits.
DIGITS = {"yyyy": 4, "MM": 2, "dd": 2, "HH": 2, "mm": 2, "ss": 2, "SSS": 3}
DAY = ("yyyy", "MM", "dd")
MOST_FORMS = 64  # of one pattern: a plan has an expression for each
TOKEN = re.compile(r"'([^']*)'|([A-Za-z])\2*|(.)", re.DOTALL)
LITERALS = "T"  # a letter that stands for itself: 2026-01-31T10:00
OFFSET = r" ?(Z|[+-][0-9]{2}:[0-9]{2})$"  # of a time that says itself when it was


class Form(NamedTuple):
    """Describes the texts of a pattern that have the same optional parts, and therefore the same length."""

    regex: str
    bytes: int  # in UTF-8
    places: Mapping[str, int]  # where each part begins, in characters from 1


class Pattern(NamedTuple):
    """Holds a pattern as a regular expression, and the template of its result: yyyy-MM-dd or yyyy-MM-ddTHH:mm:ss.

    `template` refers to the groups of `regex`. The groups of optional parts may be empty. A text that fits the pattern
    has one of `forms`; if it has several, the first counts, which is the one that `regex` finds.
    """

    regex: str
    template: str
    forms: tuple[Form, ...]


def read_pattern(text: str, with_time: bool) -> Pattern:
    """Returns a pattern of dates, or `with_time` of timestamps, as a regular expression with its template.

    Raises ValueError with what is wrong with the pattern.
    """
    parts, groups = [], dict[str, int]()
    # The forms so far: those of the whole pattern, and behind them those within each open bracket.
    forms: list[list[tuple[str, ...]]] = [[()]]
    for found in TOKEN.finditer(text):
        token = found[0]
        if token == "[":
            parts.append("(?:")
            forms.append([()])
        elif token == "]":
            if len(forms) == 1:
                raise ValueError("closes a bracket that it has not opened")
            parts.append(")?")
            optional = forms.pop()
            forms[-1] = [before + more for before in forms[-1] for more in (*optional, ())]
            if len(forms[-1]) > MOST_FORMS:
                raise ValueError(f"has so many optional parts that it stands for more than {MOST_FORMS} patterns")
        elif token in groups:
            raise ValueError(f"has {token} twice")
        elif token in DIGITS:
            groups[token] = len(groups) + 1
            parts.append(f"([0-9]{{{DIGITS[token]}}})")
            forms[-1] = [(*form, token) for form in forms[-1]]
        elif found[2] and token not in LITERALS:
            raise ValueError(f"has {token!r}, which is none of {', '.join(DIGITS)}")
        else:
            literal = token if found[1] is None else found[1]
            parts.append(re.escape(literal))
            forms[-1] = [(*form, f"'{literal}") for form in forms[-1]]
    if len(forms) > 1:
        raise ValueError("opens a bracket that it does not close")
    if lacking := [token for token in DAY if token not in groups]:
        raise ValueError(f"lacks {', '.join(lacking)}")
    if not with_time and (times := [token for token in groups if token not in DAY]):
        raise ValueError(f"has {', '.join(times)}, which belongs to a time, not to a date")
    year, month, day, hour, minute, second, fraction = (f"${groups[t]}" if t in groups else "" for t in DIGITS)
    template = f"{year}-{month}-{day}"
    if with_time:
        template += f"T{hour}:{minute}:{second}" + (f".{fraction}" if fraction else "")
    return Pattern(f"^{''.join(parts)}$", template, tuple(map(form_of, dict.fromkeys(forms[0]))))


def form_of(parts: tuple[str, ...]) -> Form:
    """Returns a form from its parts: symbols of DIGITS, and literals behind an apostrophe."""
    texts = ["0" * DIGITS[part] if part in DIGITS else part[1:] for part in parts]
    starts = accumulate(map(len, texts), initial=1)
    regex = "".join(f"[0-9]{{{DIGITS[part]}}}" if part in DIGITS else re.escape(part[1:]) for part in parts)
    places = {part: start for part, start in zip(parts, starts, strict=False) if part in DIGITS}
    return Form(f"^{regex}$", len("".join(texts).encode()), places)
