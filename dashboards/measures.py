"""Writes the measures' paragraphs in docs/analysts.md: python -m dashboards.measures, which `make dictionary` runs.

conf/dashboards.yml declares the measures. The definition of a measure quotes the comments of its columns, so that
cards, Metabase, PostgreSQL, the data dictionary and docs/analysts.md all say the same.
"""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jobs import dictionary, settings

PAGE = settings.ROOT / "docs" / "analysts.md"
BETWEEN = re.compile(r"(<!-- measures: .*? -->\n).*?(<!-- end of measures -->)", re.S)


@dataclass(frozen=True)
class Measure:
    """Describes a measure: the question it answers, its formula, its columns, and its limits."""

    title: str
    answers: str
    columns: tuple[str, ...]
    formula: str
    limits: str

    @property
    def definition(self) -> str:
        """Returns the formula, the comments of the columns, and the limits, in one paragraph."""
        said = [f"{in_words(column)}: {comments()[column]}" for column in self.columns]
        return " ".join([self.formula, *said, self.limits])


def in_words(column: str) -> str:
    """Returns the name of a mart's column as people read it."""
    return column.rpartition(".")[2].replace("_", " ").capitalize()


@cache
def comments() -> dict[str, str]:
    """Returns the comment of each column of the marts, by `mart.column`."""
    return {
        f"{table}.{column}": comment for table, _, columns in dictionary.mart_tables() for column, _, comment in columns
    }


def load(declared: Mapping[str, Mapping[str, Any]]) -> dict[str, Measure]:
    """Returns the measures by name; raises KeyError with the name of a column if no mart has it."""
    made = {name: Measure(**{**given, "columns": tuple(given["columns"])}) for name, given in declared.items()}
    for measure in made.values():
        for column in measure.columns:
            comments()[column]
    return made


def paragraph(measure: Measure) -> str:
    """Returns a measure as a paragraph of Markdown."""
    source = ", ".join(f"`{column}`" for column in measure.columns)
    said = " ".join(f"`{column.rpartition('.')[2]}`: {comments()[column]}" for column in measure.columns)
    text = f"**{measure.title}.** {measure.answers} {measure.formula} {said} Source: {source}. {measure.limits}"
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def page(text: str, measures: Mapping[str, Measure]) -> str:
    """Replaces the measures in the text of docs/analysts.md; returns the new text."""
    body = "\n\n".join(map(paragraph, measures.values())).replace("\\", "\\\\")
    return BETWEEN.sub(rf"\1\n{body}\n\n\2", text)


def main() -> None:
    """Writes the measures of conf/dashboards.yml into docs/analysts.md."""
    from dashboards import cards

    PAGE.write_text(page(PAGE.read_text(), load(cards.declared()["measures"])))
    print(f"{PAGE.relative_to(settings.ROOT)} is drawn.")


if __name__ == "__main__":
    main()
