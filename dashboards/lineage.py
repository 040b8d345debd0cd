"""Draws where data come from and go to, as a page beside the dashboards: `make lineage`.

`DATE=2026-01-31` draws the files, objects and tables of a date; `COLUMN=mart_daily_kpis.total_revenue` draws the
columns that a mart's column is made of, back to the columns of the files. Both use the ledger and the declarations, as
the lineage events do. Without either, draws the newest date in gold.
"""

import argparse
from collections.abc import Iterable, Iterator
from datetime import date
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import psycopg

from dashboards import graph, pages
from dashboards.graph import Node
from jobs import borders, marts, program, warehouse
from jobs.catalog import CATALOG, expected
from jobs.program import Refused
from pipelines import lineage, mart_columns
from pipelines.lineage import Flow

STYLE = """
:root { color-scheme: light dark; --back: #fff; --ink: #1c2733; --line: #8796a5; --box: #f4f6f8; }
@media (prefers-color-scheme: dark) { :root { --back: #14191f; --ink: #e3e8ee; --line: #6b7a89; --box: #1f2730; } }
body { margin: 2rem; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; } p { margin: 0 0 1rem; max-width: 60rem; }
main { overflow-x: auto; } svg { max-width: 100%; min-width: 70rem; height: auto; } a { color: inherit; }
svg path { fill: none; stroke: var(--line); stroke-width: 1.2; }
svg rect { fill: var(--box); stroke: var(--line); stroke-width: 1.2; }
svg text { fill: var(--ink); font: 600 12px system-ui, sans-serif; } svg .about { font-weight: 400; opacity: .75; }
.file rect { stroke: #7a6a00; } .bronze rect { stroke: #a45d1a; } .silver rect { stroke: #5f7389; }
.gold rect { stroke: #b8860b; } .mart rect { stroke: #2c7a51; stroke-width: 2; } .ops rect { stroke-dasharray: 4 3; }
"""
LAYERS = {"file": 0, "bronze": 1, "silver": 2, "gold": 3, "ops": 3, "mart": 4}  # the drawing's column of each layer


def flows(day: date) -> Iterator[Flow]:
    """Yields what the current runs of a date read and wrote, layer by layer, then the build of the marts."""
    for layer in ("bronze", "silver", "gold"):
        for name in expected(day):
            if row := lineage.current_run(layer, name, day):
                yield lineage.flow(layer, name, day, row)
    yield lineage.flow("marts", "marts", day, {"layer": "marts"})


def of_date(day: date) -> tuple[dict[str, Node], list[tuple[str, str]]]:
    """Returns the nodes and the edges of a date: files, objects and tables."""
    nodes: dict[str, Node] = {}
    edges: dict[tuple[str, str], None] = {}
    reads = {
        key(lineage.table(mart)): [key(lineage.table(name)) for name in known["reads"]]
        for mart, known in mart_columns.all_marts().items()
    }
    for flow in flows(day):
        for dataset in [*flow.inputs, *flow.outputs]:
            name, about = key(dataset), described(dataset)
            if name not in nodes or about:
                nodes[name] = node(dataset.namespace, dataset.name, *shown(dataset.namespace, dataset.name, about))
        for target in flow.outputs:  # each mart reads only some of the build's inputs
            sources = reads.get(key(target)) or [key(source) for source in flow.inputs]
            edges |= {(source, key(target)): None for source in sources}
    return nodes, [*edges]


def of_column(mart: str, column: str, day: date) -> tuple[dict[str, Node], list[tuple[str, str]]]:
    """Returns the nodes and the edges of a mart's column: the column and every column that it is made of."""
    made: dict[tuple[str, str, str], list[Any]] = {}
    for flow in flows(day):
        for output in flow.outputs:
            facet = (output.facets or {}).get("columnLineage")
            for name, sources in getattr(facet, "fields", {}).items():
                made[output.namespace, output.name, name] = sources.inputFields
    place = lineage.table(mart)
    ahead, nodes, edges = [(place.namespace, place.name, column)], {}, []
    while ahead:
        namespace, name, field = at = ahead.pop()
        if "\t".join(at) in nodes:
            continue
        text, about = shown(namespace, name, "")
        nodes["\t".join(at)] = node(namespace, name, field, f"{text}, {about}" if about else text)
        for source in made.get(at, []):
            ahead.append((source.namespace, source.name, source.field))
            edges.append(("\t".join(ahead[-1]), "\t".join(at)))
    return nodes, edges


def key(dataset: Any) -> str:
    """Returns a unique key of a dataset: namespace and name."""
    return f"{dataset.namespace}\t{dataset.name}"


def node(namespace: str, name: str, text: str, about: str) -> Node:
    """Returns the node of a dataset, or of one of its columns, placed in the drawing's column of its layer."""
    group, table = group_of(namespace, name), table_of(name)
    behind = mart_ranks().get(table, 0) if group == "mart" else 0
    return Node(label(namespace, name), text, about, group, LAYERS[group] + behind)


@cache
def mart_ranks() -> dict[str, int]:
    """Returns the rank of each mart: 0 if it reads no other mart, else one above the highest rank that it reads."""
    known = mart_columns.all_marts()
    return graph.ranks(known, [(read, mart) for mart, of in known.items() for read in of["reads"]])


def label(namespace: str, name: str) -> str:
    """Returns a dataset's full name for people."""
    if namespace == "file":
        return "/".join(Path(name).parts[-4:])
    return f"{namespace}/{name}" if namespace.startswith("s3:") else table_of(name)


def table_of(name: str) -> str:
    """Returns a table's name without the database, and without the schema if that is public."""
    return name.partition(".")[2].removeprefix("public.")


def shown(namespace: str, name: str, about: str) -> tuple[str, str]:
    """Returns the two lines of a dataset's node: file, folder or table; and its location followed by `about`."""
    if namespace.startswith("postgres:"):
        return table_of(name), about
    folder, _, file = name.rpartition("/")
    place = "/".join(Path(folder).parts[-3:]) if namespace == "file" else group_of(namespace, name)
    return (file if name.endswith(".csv") else name), ", ".join(filter(None, (place, about)))


def described(dataset: Any) -> str:
    """Returns in words the rows of a dataset that a run read or wrote, and its Delta version, as far as known."""
    told = []
    for facets in (getattr(dataset, "inputFacets", None), getattr(dataset, "outputFacets", None)):
        for name in ("inputStatistics", "outputStatistics"):
            if facets and name in facets and facets[name].rowCount is not None:
                told.append(f"{facets[name].rowCount:,} rows")
    if "version" in (dataset.facets or {}):
        told.append(f"version {dataset.facets['version'].datasetVersion}")
    return ", ".join(told)


def group_of(namespace: str, name: str) -> str:
    """Returns the layer of a dataset: file, bronze, silver, gold, mart or ops."""
    if not namespace.startswith("postgres:"):
        return "file" if namespace == "file" else "silver" if "silver" in namespace else "bronze"
    table = table_of(name)
    return "gold" if table in CATALOG else "mart" if table in marts.selects() else "ops"


def page(title: str, about: str, drawing: str) -> str:
    """Returns an HTML page that loads no resources and runs no scripts."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f'<h1>{escape(title)}</h1><p>{escape(about)} <a href="index.html">Dashboards</a></p>'
        f"<main>{drawing}</main></body></html>\n"
    )


def drawn(day: date | None, column: str) -> tuple[str, str]:
    """Returns the file name and the HTML of a page; raises Refused if there is nothing to draw."""
    with warehouse.connect() as connection:
        day = day or warehouse.value(connection, "select day from ops.newest")
    if day is None:
        raise Refused("No date is in gold yet; run one first: `make run DATE=2026-01-31`.")
    if not column:
        nodes, edges = of_date(day)
        if not any(node.group == "file" for node in nodes.values()):
            raise Refused(f"{day} has not run; run it first: `make run DATE={day}`.")
        title, about = f"Lineage of {day}", "From the landing files to the marts, by the current runs of the ledger."
        return "lineage.html", page(title, about, graph.svg(nodes, edges, title))
    mart, _, name = column.rpartition(".")
    known = mart_columns.all_marts()
    if mart not in known or name not in known[mart]["made_of"]:
        raise Refused(
            f"{borders.quoted(column)} is not a column of a mart; the marts are {', '.join(known)}: name one as in "
            f"COLUMN={listed(known)}."
        )
    nodes, edges = of_column(mart, name, day)
    title, about = f"Lineage of {column}", f"The columns that it is made of, down to those of the files of {day}."
    return f"lineage-{column}.html", page(title, about, graph.svg(nodes, edges, title))


def listed(known: dict[str, Any]) -> str:
    """Returns a mart's column as an example for a message."""
    mart: Iterable[str] = known
    first = next(iter(mart))
    return f"{first}.{next(iter(known[first]['made_of']), '')}"


def main() -> None:
    """Writes the page that the command line asks for, and prints its path."""
    words = argparse.ArgumentParser(prog="make lineage", description=__doc__)
    words.add_argument("--date", type=program.given_day, help="a date; else the newest in gold")
    words.add_argument("--column", default="", help="a mart's column, as mart_daily_kpis.total_revenue")
    given = words.parse_args()
    try:
        name, text = drawn(given.date, given.column)
        pages.home().mkdir(parents=True, exist_ok=True)
        (pages.home() / name).write_text(text, encoding="utf-8")
    except Refused as error:
        program.leave(2, str(error))
    except (OSError, psycopg.Error) as error:
        program.leave(1, program.sentence(error))
    borders.say(f"{pages.home() / name} is drawn; the stack serves it beside the dashboards.")


if __name__ == "__main__":
    main()
