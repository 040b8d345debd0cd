"""Writes the dashboards as static pages: python -m dashboards.pages [--to DIR].

A page holds the sums that its cards are computed from, by day and by each column that they are filtered by or broken
down by, and a script that computes the cards' figures from these sums as the cards' SQL would. An open page loads no
other resources.
"""

import argparse
import json
import os
import re
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection

from dashboards import cards
from dashboards.cards import Card, Dashboard
from jobs import borders, program, settings, warehouse

PARTS = settings.ROOT / "dashboards" / "page"
COLUMN = {"period": "day"}  # the column that a filter reads, where it has another name

STATE = """\
select
    newest.day as newest,
    now() as built,
    (select max(turn) from ops.receipts where layer = 'marts') as marts,
    (select md5(string_agg(unfinished::text, ' ' order by unfinished::text)) from reports.unfinished) as unfinished,
    (select json_agg(json_build_array(dataset, next_due) order by dataset) from ops.freshness) as due,
    (
        select json_build_array(sum(rejected), sum(received))
        from reports.files
        where files.day = newest.day
    ) as rejected,
    completeness.*
from ops.newest
cross join lateral (
    select
        100 * sum(revenue) / nullif(sum(revenue_sent), 0) as complete,
        coalesce(sum(unreliable_bills), 0) as unreliable,
        json_build_array(
            sum(patients_sent - patients), sum(visits_sent - visits), sum(admissions_sent - admissions),
            sum(bills_sent - bills)
        ) as withheld
    from reports.completeness
    where completeness.day between newest.day - %(before)s and newest.day
) as completeness"""


def home() -> Path:
    """Returns the directory from which the stack serves the pages."""
    return settings.path("STACK_DIR") / "dashboards"


def connect() -> Connection:
    """Returns a read-only connection of the dashboards' role, in one snapshot of the warehouse (repeatable read)."""
    connection = warehouse.connect("POSTGRES_DASHBOARDS")
    connection.autocommit = False
    connection.read_only = True
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    return connection


def text_of(value: Any) -> Any:
    """Converts a value for JSON; dates and decimals become texts, so that nothing is lost."""
    return str(value) if isinstance(value, (date, datetime, Decimal)) else value


class Reading(NamedTuple):
    """Holds a report's sums, one row per combination of breakdown values.

    The sums are whole numbers, scaled by the decimal `places` of each column.
    """

    breakdown: tuple[str, ...]
    columns: tuple[str, ...]
    places: dict[str, int]
    rows: list[tuple[tuple[Any, ...], tuple[int, ...]]]
    begins: date | None  # the first day of which the report has data


def breakdown_of(card: Card) -> list[str]:
    """Returns the columns that a card's figures are filtered by or broken down by."""
    names = [COLUMN.get(name, name) for name in card.filters]
    names += [card.only] if card.only else []
    return list(dict.fromkeys([*names, *("day" if name in cards.GRAINS else name for name in card.by)]))


def read(connection: Connection, boards: Sequence[Dashboard]) -> dict[str, Reading]:
    """Reads each report that figures are computed from, once, with the columns that cards of all dashboards need."""
    readings = {}
    drawn = [card for board in boards for card in board.cards if card.figures]
    for report in dict.fromkeys(card.report for card in drawn):
        those = [card for card in drawn if card.report == report]
        breakdown = tuple(dict.fromkeys(name for card in those for name in breakdown_of(card)))
        columns = tuple(dict.fromkeys(name for card in those for name in card.summed))
        sums = [f"coalesce(sum({name}), 0)" for name in columns]
        grouped = f"group by {', '.join(breakdown)}" if breakdown else "having count(*) > 0"
        query = f"select {', '.join([*breakdown, *sums])} from reports.{report} {grouped}"
        found, size = connection.execute(query).fetchall(), len(breakdown)
        numbers = list(zip(*(row[size:] for row in found), strict=True)) or [()] * len(columns)
        digits = [max([0, *(-int(Decimal(value).as_tuple().exponent) for value in {*of})]) for of in numbers]
        scaled = ([int(value * 10**to) for value in of] for to, of in zip(digits, numbers, strict=True))
        places = dict(zip(columns, digits, strict=True))
        groups = list(zip((row[:size] for row in found), zip(*scaled, strict=True), strict=True))
        readings[report] = Reading(breakdown, columns, places, groups, first_day(connection, those[0]))
    return readings


def first_day(connection: Connection, card: Card) -> date | None:
    """Returns the first day with data in a card's report; None if the report does not declare the column to tell."""
    if not card.begins:
        return None
    query = f"select min(day) from reports.{card.report} where {card.begins} > 0"
    return warehouse.value(connection, query)


def table(
    reading: Reading,
    breakdown: Sequence[str],
    columns: Sequence[str],
    since: Callable[[date], date | None] = lambda day: day,
    most: int | None = None,
) -> dict[str, Any]:
    """Returns a reading's sums by fewer columns, as pages hold them: each column's values once, and codes per row.

    `since` maps a day to the day that it counts under, or to None to leave it out. If `most` is given, keeps only that
    many rows, those with the greatest first sums; `left` has the number and the sums of the others.
    """
    places = [reading.breakdown.index(name) for name in breakdown]
    summed = [reading.columns.index(name) for name in columns]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for key, sums in reading.rows:
        own = tuple(since(key[at]) if name == "day" else key[at] for name, at in zip(breakdown, places, strict=True))
        if "day" in breakdown and own[breakdown.index("day")] is None:
            continue
        group = groups.setdefault(own, [0] * len(summed))
        for place, at in enumerate(summed):
            group[place] += sums[at]
    left: dict[str, Any] = {"groups": 0, "sums": [0] * len(summed)}
    if most:
        greatest = sorted(groups.items(), key=lambda one: (-one[1][0], [(value is None, value) for value in one[0]]))
        groups = dict(greatest[:most])
        rest = [group for _, group in greatest[most:]]
        left = {"groups": len(rest), "sums": [sum(group[place] for group in rest) for place in range(len(summed))]}
    by = {}
    for place, name in enumerate(breakdown):
        found = {key[place] for key in groups}
        values = [*sorted(found - {None}), *([None] if None in found else [])]
        codes = {value: code for code, value in enumerate(values)}
        by[name] = {"values": [text_of(value) for value in values], "codes": [codes[key[place]] for key in groups]}
    of = {name: [group[place] for group in groups.values()] for place, name in enumerate(columns)}
    left["sums"] = dict(zip(columns, left["sums"], strict=True))
    digits = {name: reading.places[name] for name in columns}
    return {"rows": len(groups), "by": by, "sums": of, "places": digits, "left": left}


def listed(connection: Connection, card: Card) -> dict[str, Any]:
    """Returns the rows of a card that lists a report's rows: as many as it may need under any choice of filters."""
    columns, filters = ", ".join(card.columns), [COLUMN.get(name, name) for name in card.filters]
    order = " ".join(card.ending[:1])
    query = f"select {columns} from reports.{card.report} {order}"
    if card.limit and "period" not in card.filters:
        among = f"partition by {', '.join(filters)} {order}" if filters else order
        placed = f"select *, row_number() over ({among}) as place from reports.{card.report}"
        query = f"select {columns} from ({placed}) as placed where place <= {card.limit} {order}"
    return {"columns": card.columns, "rows": [[*map(text_of, row)] for row in connection.execute(query)]}


def told(card: Card, readings: Mapping[str, Reading]) -> dict[str, Any]:
    """Returns the declaration of a card in the form that a page's script reads."""
    figures = [asdict(figure) | {"name": figure.name} for figure in card.figures]
    grain = {"grain": card.grain, "coarser": card.coarser, "steps": cards.STEPS.get(card.chart)}
    begins = text_of(readings[card.report].begins) if card.figures else None
    more = {"figures": figures, "compared": card.is_compared, "result": card.result, "begins": begins}
    return asdict(card) | more | grain


def contents(connection: Connection, board: Dashboard, readings: Mapping[str, Reading]) -> dict[str, Any]:
    """Returns a dashboard's cards and the tables that they are computed from.

    Cards with filters share one table per report. Cards without filters have their own table, which is broken down only
    as far as the card shows: a page must not contain values of few patients that it does not show.
    """
    sharing: dict[str, list[Card]] = {}
    told_of, tables = [], {}
    for number, card in enumerate(board.cards):
        name = card.report if card.filters and not card.columns else f"{card.report} {number}"
        told_of.append(told(card, readings) | {"table": name})
        if card.columns:
            tables[name] = listed(connection, card)
        else:
            sharing.setdefault(name, []).append(card)
    for name, those in sharing.items():
        breakdown = dict.fromkeys(column for card in those for column in breakdown_of(card))
        columns = dict.fromkeys(column for card in those for column in card.summed)
        [first, *more] = those
        is_ranked = not (more or first.filters or first.order or first.fold or first.figures[0].per)
        most = first.limit if is_ranked else None
        reading = readings[first.report]
        if not first.filters and first.only:
            at = reading.breakdown.index(first.only)
            reading = reading._replace(rows=[row for row in reading.rows if row[0][at] is not None])
        tables[name] = table(reading, list(breakdown), list(columns), most=most)
    return {"cards": told_of, "tables": tables}


def headlines(board: Dashboard, readings: Mapping[str, Reading], newest: date | None) -> dict[str, Any]:
    """Returns the first three headlines of a dashboard, with sums over the default period and the period before."""

    def since(day: date) -> date | None:
        ago = (newest - day).days // cards.DAYS if newest and day else -1
        return newest - timedelta(days=(ago + 1) * cards.DAYS - 1) if newest and ago in (0, 1) else None

    first = [card for card in board.cards if card.chart == "headline"][:3]
    tables = {
        card.title: table(readings[card.report], ["day"] if "period" in card.filters else [], card.summed, since)
        for card in first
    }
    return {
        "about": board.about,
        "cards": [told(card, readings) | {"table": card.title} for card in first],
        "tables": tables,
    }


def made_of() -> str:
    """Returns a hash of everything outside the warehouse that pages depend on: declaration, code, settings."""
    files = [cards.FILE, Path(__file__), Path(str(cards.__file__)), *sorted(PARTS.iterdir())]
    settled = f"{settings.currency()} {settings.small_cells()}".encode()
    return sha256(b"\0".join([settled, *(file.read_bytes() for file in files)])).hexdigest()[:16]


def describe_origin(state: Mapping[str, Any]) -> str:
    """Returns a text that identifies the input of pages: marts (sequence number), `made_of`, and unfinished dates."""
    return f"{state['marts'] or '-'} {made_of()} {state['unfinished'] or '-'}"


def built_of() -> int | None:
    """Returns the sequence number of the marts that the pages show; None without pages or if `made_of` has changed."""
    found = re.match(rf"([0-9]+) {made_of()} ", read_origin())
    return int(found[1]) if found else None


def are_current(connection: Connection) -> bool:
    """Tells whether the pages show the current marts and the current unfinished dates."""
    cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
    return read_origin() == describe_origin(cursor.execute(STATE, {"before": cards.DAYS - 1}).fetchone() or {})


def read_origin() -> str:
    """Returns the text of `describe_origin` that the existing pages were built from; "" if there are none."""
    with suppress(OSError):
        found = re.search(r'<meta name="made-of" content="(.*?)">', (home() / "index.html").read_text())
        return found[1] if found else ""
    return ""


def script(text: str) -> str:
    """Escapes a script so that no string in it can end the script element of a page."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def page(title: str, data: dict[str, Any], scripts: Sequence[str], origin: str) -> str:
    """Returns the HTML of a page; its content policy allows only these scripts and loads nothing."""
    hashes = [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts]
    policy = f"default-src 'none'; script-src {' '.join(hashes)}; style-src 'unsafe-inline'; img-src data:"
    parts = {
        "title": borders.as_html(title),
        "policy": f"{policy}; base-uri 'none'; form-action 'none'",
        "made": origin,
        "style": (PARTS / "page.css").read_text(),
        "data": json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c"),
        "scripts": "\n".join(f"<script>{text}</script>" for text in scripts),
    }
    return re.sub(r"{{(\w+)}}", lambda name: parts[name[1]], (PARTS / "page.html").read_text())


@cache  # it takes seconds to put together
def program_of_pages() -> str:
    """Returns the script that computes figures from sums and draws them, in a scope of its own."""
    text = "\n".join((PARTS / f"{name}.js").read_text() for name in ("figures", "charts", "page"))
    return f'"use strict";\n(() => {{\n{text}}})();\n'


def charts() -> str:
    """Returns the charting library as one script; keeps it in a file, because making it takes longer than the pages."""
    kept = home() / f".charts-{version('vl-convert-python')}.js"
    with suppress(OSError):
        return kept.read_text(encoding="utf-8")
    import vl_convert

    made = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    with suppress(OSError):  # without the file, the next call makes it again
        new = kept.with_suffix(f".{os.getpid()}")
        new.write_text(made, encoding="utf-8")
        new.replace(kept)
    return made


def build(to: Path) -> dict[str, int]:
    """Writes all pages, or none if one cannot be built; returns the size of each in bytes by file name."""
    boards, engine, library = cards.load(), script(program_of_pages()), script(charts())
    with connect() as connection, connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        state = cursor.execute(STATE, {"before": cards.DAYS - 1}).fetchone() or {}
        common = {
            "state": {name: text_of(value) for name, value in state.items()} | {"built": state["built"].isoformat()},
            "days": cards.DAYS,
            "currency": settings.currency(),
            "smallest": settings.small_cells(),
            "filters": cards.FILTERS,
            "grains": cards.GRAINS,
            "rows": cards.ROWS,
            "dashboards": [{"name": board.name, "slug": board.slug} for board in boards],
        }
        readings = read(connection, boards)
        pages = {}
        for board in boards:
            own = {"name": board.name, "slug": board.slug, "about": board.about, "choices": board.filters}
            data = common | own | contents(connection, board, readings)
            pages[f"{board.slug}.html"] = page(board.name, data, [library, engine], describe_origin(state))
        index = [headlines(board, readings, state["newest"]) for board in boards]
    # The index comes last: what it names is there.
    pages["index.html"] = page("Dashboards", common | {"index": index}, [engine], describe_origin(state))
    to.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (to / f".{name}.new").write_text(text, encoding="utf-8")
    for name in pages:
        (to / f".{name}.new").replace(to / name)
    if to == home():
        for old in {file.name for file in to.glob("*.html")} - set(pages):
            if not old.startswith(("lineage", "profile-")):  # which lineage.py and profile.py draw
                (to / old).unlink()
    return {name: (to / name).stat().st_size for name in pages}


def build_or_leave(to: Path) -> dict[str, int]:
    """Writes all pages, as `build`; ends the program with a sentence on failure."""
    try:
        return build(to)
    except cards.Misdeclared as error:
        program.leave(1, f"conf/dashboards.yml: {error}")
    except psycopg.errors.UndefinedTable:
        program.leave(1, "The warehouse has no reports yet: run `make up`, then `make dashboards`.")
    except psycopg.Error as error:
        program.leave(1, program.sentence(error).replace("POSTGRES_", "POSTGRES_DASHBOARDS_"))
    except OSError as error:
        program.leave(
            1, f"The pages could not be written to {error.filename}: {error.strerror}; see to that directory."
        )


def main() -> None:
    """Writes the pages, to the stack's directory or to --to; exits with a sentence on failure."""
    words = argparse.ArgumentParser(prog="python -m dashboards.pages", description="Writes the dashboards as pages.")
    words.add_argument("--to", type=Path, metavar="DIR", help="another directory than the one that the stack serves")
    to, began = words.parse_args().to, time.monotonic()
    sizes = build_or_leave(to.resolve() if to else home())
    for name, size in sizes.items():
        print(f"{(to or home()) / name}: {size / 1e6:.1f} MB")
    print(f"dashboards: {len(sizes)} pages ({time.monotonic() - began:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
