"""Checks that no pattern takes more than linear time, even on text built to cause backtracking."""

import time

import pytest

from jobs import dialect, landing, reject_export

LONG = 100_000  # characters; a pattern that tries every way to split them would take hours

EXPORTED = {
    "tabs": "\t" * LONG,
    "tabs before a formula": "\t" * LONG + "=1+1",
    "blanks behind a number": "-1" + " " * LONG + "x",
    "digits": "-" + "1" * LONG + "x",
    "semicolons": ";-" * (LONG // 2),
    "quotes": '"' * LONG + "=1",
    "numbers among tabs": ("\t" * 100 + "-1" + " " * 100) * (LONG // 200),
}
SENT = {
    "comments": "<!---->" * (LONG // 7) + "x",
    "comments that do not end": "<!-- " * (LONG // 5),
    "ends of a comment": "<!--" + "-->" * (LONG // 3),
    "declarations": "<?xml " * (LONG // 6),
    "ended declarations": "<?xml>" * (LONG // 6),
    "blanks": " " * LONG + "x",
    "objects": "{ " * (LONG // 2),
    "letters of Windows-1252": "a\xe9" * (LONG // 2),
}


def seconds(work, text):
    began = time.process_time()
    work(text)
    return time.process_time() - began


@pytest.mark.parametrize("case", EXPORTED)
def test_a_rejected_field_is_made_text_in_one_reading(case):
    assert seconds(reject_export.as_text, EXPORTED[case]) < 2


@pytest.mark.parametrize("case", SENT)
def test_the_start_of_a_file_is_looked_at_in_one_reading(case):
    assert seconds(lambda text: dialect.look(text.encode("cp1252")), SENT[case]) < 2


def test_an_amount_is_read_in_one_reading():
    for text in ("1" * LONG + "x", "." * LONG, "1." * (LONG // 2), "+" * LONG):
        assert seconds(landing.cents, text) < 2


def test_a_page_behind_comments_is_known_as_one():
    assert dialect.look(b"<?xml version='1.0'?>\n<!-- a --> <!-- b -->\n<HTML>").kind == "an HTML page"
    assert dialect.look(b"<!-- <html> -->\n<export>").kind == "an XML document"
    assert dialect.look(b"<!-- never ends <html>").kind == "an XML document"
