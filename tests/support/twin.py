"""Declares a source whose files hold our rows in another dialect and under other names: the same hospital's twin."""

import csv
import io

from tests.support import model

NAME = "twin"


def file_name(dataset: str) -> str:
    """Returns the name of the source's file of a dataset."""
    return f"{dataset.upper()}.TXT"


# What it converts keeps its value: dates, times and amounts are spelt as ours are.
DECLARATION = "\n".join(
    [
        "doc: The export of the tests' hospital",
        "time_zone: UTC",
        "encoding: windows-1252",
        'separator: ";"',
        "dates: yyyy-MM-dd",
        "timestamps: yyyy-MM-dd HH:mm[:ss]",
        "datasets:",
        *(
            line
            for dataset, columns in model.COLUMNS.items()
            for line in (
                f"  {dataset}:",
                f"    files: {file_name(dataset)}",
                "    columns:",
                *(f"      {column}: {column.upper()}" for column in columns),
            )
        ),
    ]
)


def as_sent(text: str) -> bytes:
    """Returns one of our files as the source sends it."""
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    sent = io.StringIO(newline="")
    csv.writer(sent, delimiter=";", lineterminator="\r\n").writerows([[name.upper() for name in header], *rows])
    return sent.getvalue().encode("windows-1252")
