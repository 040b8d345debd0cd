"""Profiles the files of a new export: python -m dashboards.profile FOLDER [--name NAME].

Drafts its declaration under sources/ and draws a page of its columns and values in the style of the dashboards.
"""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dashboards import pages
from jobs import borders, draft_text, drafting, program, settings, sources, terms
from jobs.borders import as_html, quoted
from jobs.catalog import CATALOG
from jobs.column_matching import Draft
from jobs.profiling import ColumnProfile, Profile, Reading, TableProfile
from jobs.program import Refused

MOST_VALUES = 8  # values of a column on the page
# Adds to page.css: each card is as wide as the page.
STYLE = """
.card { grid-column: 1 / -1 } .shown .scroll { max-height: none } thead th { padding: 6px 12px }
td.long { min-width: 24ch }"""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<header class="top"><a class="brand" href="index.html">Hospital dashboards</a></header>
<main>
<div class="head"><h1>{title}</h1><p class="about">{about}</p></div>
<ul class="state">
{state}
</ul>
<div class="cards">
{cards}
</div>
</main>
<footer><p>{footer}</p></footer>
</body>
</html>
"""


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m dashboards.profile", description=__doc__)
    words.add_argument("folder", help="the folder of the files of one date")
    words.add_argument("--name", default="", help="of the source; by default that of the folder")
    given = words.parse_args()
    if not given.folder:
        program.leave(2, "FROM is missing: name the folder of the export's files, as in make profile FROM=export.")
    folder = Path(given.folder).expanduser()
    try:
        for line in make(folder, given.name or default_name(folder)):
            borders.say(line)
    except Exception as error:
        program.leave(1, program.sentence(error))


def default_name(folder: Path) -> str:
    """Returns a name for a source, derived from the name of its folder."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", folder.resolve().name).strip("_-")
    return name if sources.SOURCE_NAME.fullmatch(name) and not name.isdigit() else "hospital"


def make(folder: Path, name: str) -> Iterator[str]:
    """Writes the draft and the page and yields a summary; raises Refused rather than overwrite a declaration."""
    path = sources.folder() / f"{name}.yml"
    if not sources.SOURCE_NAME.fullmatch(name):
        raise Refused(f"{quoted(name)} is not a name for a source; give one of letters, digits, _ and - as NAME.")
    own = sources.folder() / name
    if path.exists() or (own.is_dir() and any(own.iterdir())):
        raise Refused(f"sources/{name}.yml or sources/{name}/ already exists; give another NAME, or move it away.")
    reading = Reading(folder)
    drafts = drafting.draft(reading)
    text, files = draft_text.render(name, reading, drafts)
    page = pages.home() / f"profile-{name}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(draw(name, reading.profile, drafts), encoding="utf-8")
    for file, sql in files.items():
        own.mkdir(exist_ok=True)
        (own / file).write_text(sql, encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    for table in reading.profile.tables:
        yield f"{table.pattern}: {table.rows:,} records, {len(table.columns)} columns"
    yield from (f"not read: {sentence}" for sentence in reading.profile.unread)
    for dataset in CATALOG:
        made = drafts.get(dataset)
        of = " and ".join(table.pattern for table in (made.table, made.other) if table) if made else "no file"
        yield f"{dataset}: of {of}" + (f", by sources/{name}/{dataset}.sql" if made and made.is_sql else "")
    todo = draft_text.count_todo(text, *files.values())
    if drafts:
        sources.load(name)
        yield f"sources/{name}.yml: a valid draft, TODO {todo}; then `make preview FROM={folder} SOURCE={name}`"
    else:
        yield f"sources/{name}.yml names no dataset: no file looks like one of ours; write them by docs/sources.md"
    yield f"{page}: what the files hold"


# ---- the page ------------------------------------------------------------------------------------------------------


def draw(name: str, profile: Profile, drafts: Mapping[str, Draft]) -> str:
    """Returns the page of a profile; leaves out values of identifying columns and values that few rows have."""
    first, smallest = profile.tables[0], settings.small_cells()
    records, mark = sum(table.rows for table in profile.tables), profile.decimal_mark
    facts = [
        f"<li><b>{len(profile.tables)}</b> tables, <b>{records:,}</b> records</li>",
        f"<li>Encoding <b>{as_html(first.encoding.name)}</b></li>",
        f"<li>Separator <b>{as_html(quoted(first.dialect.separator))}</b></li>",
        f"<li>Decimal mark <b>{as_html(quoted(mark))}</b></li>",
        *(f"<li>Dates <b>{as_html(day)}</b></li>" for day in [profile.best("days", "")] if day),
        *(f'<li class="warn">{as_html(sentence)}</li>' for sentence in profile.unread),
    ]
    footer = (
        f"The page shows values that at least {max(1, smallest)} rows share, of columns that identify nobody. It shows "
        "no names, birth dates or identifiers."
    )
    return PAGE.format(
        title=as_html(f"Profile of {name}"),
        about="What the files of one date hold, as they came, before anything is declared.",
        style=(pages.PARTS / "page.css").read_text() + STYLE,
        state="\n".join(facts),
        cards="\n".join([links_card(profile), *(card(table, profile, drafts, smallest) for table in profile.tables)]),
        footer=as_html(footer),
    )


def links_card(profile: Profile) -> str:
    """Returns the card of columns whose values are keys of another file."""
    rows = [
        [f"{each.table}: {each.column}", f"{each.to_table}: {each.to_column}", f"{each.share:.0%}"]
        for each in sorted(profile.links, key=lambda each: (-each.share, each))
    ]
    heads = ["Values of", "are keys of", "Share"]
    body = table_of(heads, rows, {2}) if rows else '<p class="empty">No file\'s values are keys of another.</p>'
    return section("Files that share keys", "Of up to 500 values of each column", body)


def card(table: TableProfile, profile: Profile, drafts: Mapping[str, Draft], smallest: int) -> str:
    """Returns the card of a table, with one row per column."""
    keys = ", ".join(column.name for column in table.keys) or "none"
    made = [
        f"{d} ({', '.join(g.column for g in each.guesses if g.table == table.pattern)})"
        for d, each in drafts.items()
        if table in (each.table, each.other)
    ]
    about = f"{table.rows:,} records in {', '.join(table.files[:5])}; candidate keys: {keys}"
    about += f"; {table.malformed:,} records have too few or too many fields" if table.malformed else ""
    about += f"; becomes {'; '.join(made)}" if made else "; becomes no dataset"
    rows = []
    for column in table.columns:
        hidden = is_identifying(table, column, profile, drafts)
        rows.append(
            [
                column.name,
                f"{column.there / column.rows:.1%}" if column.rows else "-",
                f"{sum(column.nulls.values()):,}",
                f"{column.distinct:,}",
                kind(column),
                "" if hidden else span(column),
                "identifying: not shown" if hidden else frequent(column, smallest),
            ]
        )
    heads = ["Column", "Filled", "Spelt-out nulls", "Values", "Looks like", "Range", "Most frequent"]
    return section(table.pattern, about, table_of(heads, rows, {1, 2, 3}))


def is_identifying(table: TableProfile, column: ColumnProfile, profile: Profile, drafts: Mapping[str, Draft]) -> bool:
    """Tells whether a column may identify a patient, by its target column, its name, or because it is a key."""
    here = (table.pattern, column.name)
    if (column.is_key and column.kind in ("text", "integer")) or any(
        here in (each[:2], each[2:4]) for each in profile.links
    ):
        return True
    become = [
        ours
        for each in drafts.values()
        for guess in each.guesses
        if guess.table == table.pattern and column.name in guess.names
        for ours in CATALOG[each.dataset].columns
        if ours.name == guess.column
    ]
    if any(ours.identifies or ours.references or ours.name.endswith("_id") for ours in become):
        return True
    return not become and terms.IDENTIFYING.search(" ".join(terms.words_of(column.name))) is not None


def kind(column: ColumnProfile) -> str:
    """Returns what a column's values look like, with the share that fits."""
    shares = column.moments or column.days or column.times
    shown = column.kind in ("timestamp", "date", "time")
    # Of patterns that fit the same values the shortest is enough.
    ranked = sorted(shares.items(), key=lambda each: (-each[1], len(each[0]))) if shown else []
    fitting = {share: pattern for pattern, share in reversed(ranked)}
    best = [f"{pattern} {share:.1%}" for share, pattern in sorted(fitting.items(), reverse=True)[:3] if share >= 0.05]
    if column.kind == "decimal":
        best = [f"mark {mark} {share:.1%}" for mark, share in column.fractions.items() if share >= 0.05]
    return f"{column.kind}: {', '.join(best)}" if best else column.kind


def span(column: ColumnProfile) -> str:
    """Returns the range of dates and numbers, or the greatest length of texts."""
    if column.kind in ("timestamp", "date", "decimal", "integer") and column.least:
        return f"{column.least} to {column.greatest}"
    return f"up to {column.longest} characters" if column.kind == "text" else ""


def frequent(column: ColumnProfile, smallest: int) -> str:
    """Returns the most frequent values with their counts, or "" if most values occur once."""
    if not column.is_listed:
        return ""
    shown = [(value, rows) for value, rows in column.values.items() if rows >= max(1, smallest)][:MOST_VALUES]
    others = column.there - sum(rows for _, rows in shown)
    told = [f"{borders.printable(value)} {rows:,}" for value, rows in shown]
    return ", ".join([*told, *([f"others {others:,}"] if others else [])])


def section(title: str, about: str, body: str) -> str:
    """Returns a card."""
    return (
        f'<section class="card shown"><h2>{as_html(title)}</h2><p class="answers">{as_html(about)}</p>{body}</section>'
    )


def table_of(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int]) -> str:
    """Returns a table as HTML; `numbers` are the indexes of numeric columns."""

    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = (
            'class="number"' if at in numbers else 'class="long"' if at in (4, 6) else "" for at in range(len(row))
        )
        return "".join(f"<{tag} {k}>{as_html(text)}</{tag}>" for k, text in zip(kinds, row, strict=True))

    head = f"<thead><tr>{cells('th', heads)}</tr></thead>"
    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


if __name__ == "__main__":
    main()
