"""Reads the patterns in which a source writes dates and times, such as dd/MM/yyyy HH:mm[:ss]."""

import re
from typing import NamedTuple

# The symbols of the parts of a date and a time, each with its number of digits.
DIGITS = {"yyyy": 4, "MM": 2, "dd": 2, "HH": 2, "mm": 2, "ss": 2, "SSS": 3}
DAY = ("yyyy", "MM", "dd")
TOKEN = re.compile(r"'([^']*)'|([A-Za-z])\2*|(.)", re.DOTALL)
LITERALS = "T"  # a letter that stands for itself: 2026-01-31T10:00
OFFSET = r" ?(Z|[+-][0-9]{2}:[0-9]{2})$"  # of a time that says itself when it was


class Pattern(NamedTuple):
    """Holds a pattern as a regular expression, and the template of its result: yyyy-MM-dd or yyyy-MM-ddTHH:mm:ss.

    `template` refers to the groups of `regex`. The groups of optional parts may be empty.
    """

    regex: str
    template: str


def read_pattern(text: str, with_time: bool) -> Pattern:
    """Returns a pattern of dates, or `with_time` of timestamps, as a regular expression with its template.

    Raises ValueError with what is wrong with the pattern.
    """
    parts, groups, depth = [], dict[str, int](), 0
    for found in TOKEN.finditer(text):
        token = found[0]
        if token == "[":
            depth += 1
            parts.append("(?:")
        elif token == "]":
            if not depth:
                raise ValueError("closes a bracket that it has not opened")
            depth -= 1
            parts.append(")?")
        elif token in groups:
            raise ValueError(f"has {token} twice")
        elif token in DIGITS:
            groups[token] = len(groups) + 1
            parts.append(f"([0-9]{{{DIGITS[token]}}})")
        elif found[2] and token not in LITERALS:
            raise ValueError(f"has {token!r}, which is none of {', '.join(DIGITS)}")
        else:
            parts.append(re.escape(token if found[1] is None else found[1]))
    if depth:
        raise ValueError("opens a bracket that it does not close")
    if lacking := [token for token in DAY if token not in groups]:
        raise ValueError(f"lacks {', '.join(lacking)}")
    if not with_time and (times := [token for token in groups if token not in DAY]):
        raise ValueError(f"has {', '.join(times)}, which belongs to a time, not to a date")
    year, month, day, hour, minute, second, fraction = (f"${groups[t]}" if t in groups else "" for t in DIGITS)
    template = f"{year}-{month}-{day}"
    if with_time:
        template += f"T{hour}:{minute}:{second}" + (f".{fraction}" if fraction else "")
    return Pattern(f"^{''.join(parts)}$", template)
