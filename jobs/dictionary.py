"""Writes docs/data-dictionary.md from the catalog and from the comments of the marts: `make dictionary`."""

import re
from collections.abc import Iterator

from jobs import schema, settings
from jobs.catalog import CATALOG
from jobs.dataset import Column, Dataset

PAGE = settings.ROOT / "docs" / "data-dictionary.md"
OPENING = """\
# Data dictionary

Every table that analysts read, with its columns. `make dictionary` draws it from the declarations in `jobs/catalog` and
from the comments in `sql/tables`, which PostgreSQL shows too (`\\d+ visits` in psql). Days and times are UTC. Money is
in the one currency of the installation. [analysts.md](analysts.md) says how the tables are meant to be used.

Each gold table also has `_partition_date` (the date whose file brought the row), `_run_id` (the run that validated it)
and `_loaded_at` (when it last changed in gold).
"""


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page())
    print(f"{PAGE.relative_to(settings.ROOT)} is drawn.")


def page() -> str:
    """Returns the whole page as Markdown."""
    marts = [line for name, comment, columns in mart_tables() for line in mart_section(name, comment, columns)]
    gold = [line for dataset in CATALOG.values() for line in dataset_section(dataset)]
    return "\n".join([OPENING, *gold, *marts]).rstrip() + "\n"


def dataset_section(dataset: Dataset) -> Iterator[str]:
    """Yields the section of a dataset: what a row is, its columns, and why a row is rejected."""
    yield from (f"## {dataset.name}", "", dataset.doc, "")
    yield from table("column", "type", "required", "values", "what it says", "example")
    for column in dataset.columns:
        key = " (key)" if column.name == dataset.key else ""
        about = " ".join(filter(None, [column.doc, f"Unit: {column.unit}." if column.unit else ""]))
        required = "yes" if column.required else ""
        yield row(f"`{column.name}`{key}", column.type, required, values(column), about, column.example)
    for name, kind, expression in dataset.computed:
        yield row(f"`{name}`", kind, "", "", f"Computed in gold: `{' '.join(expression.split())}`", "")
    yield ""
    yield from table("a row is rejected with", "because")
    yield from (row(f"`{code}`", sentence) for code, sentence in dataset.reasons.items())
    yield ""


def values(column: Column) -> str:
    """Returns what a column may hold: the listed values, or the table that it references."""
    if column.references:
        return f"a key of [{column.references}](#{column.references})"
    return ", ".join(column.one_of)


def mart_tables() -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    """Yields (name, comment, columns as (name, type, comment)) of every mart and of every table in reference."""
    ddl = schema.ddl()
    comments = {
        what: " ".join(text.replace("''", "'").split())
        for what, text in re.findall(r"^comment on (?:table|column) ([\w.]+) is\s+'((?:[^']|'')*)';", ddl, re.M)
    }
    for name, body in re.findall(
        r"^create table if not exists ((?:ops\.)?mart_\w+|reference\.\w+) \((.*?)^\);", ddl, re.M | re.S
    ):
        found = re.findall(r"^    (\w+) ([a-z]+(?:\([\d, ]+\))?)", body, re.M)
        columns = [(column, kind) for column, kind in found if (column, kind) != ("primary", "key")]
        yield name, comments[name], [(column, kind, comments[f"{name}.{column}"]) for column, kind in columns]


def mart_section(name: str, comment: str, columns: list[tuple[str, str, str]]) -> Iterator[str]:
    """Yields the section of a mart: what a row is, and its columns."""
    yield from (f"## {name}", "", comment, "")
    yield from table("column", "type", "what it says")
    yield from (row(f"`{column}`", kind, text) for column, kind, text in columns)
    yield ""


def table(*heads: str) -> list[str]:
    """Returns the heading of a Markdown table: its first two lines."""
    return [row(*heads), "|" + " --- |" * len(heads)]


def row(*cells: str) -> str:
    """Returns a line of a Markdown table; bars and stars in cells are escaped."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("*", "\\*") for cell in cells) + " |"


if __name__ == "__main__":
    main()
