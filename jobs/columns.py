"""Reads from SQL which columns the DDL declares for each table, and from which columns those of a mart are derived.

A parser reads both, so that a new mart needs no declaration of its lineage.
"""

import re
from functools import cache
from typing import Any, NamedTuple, cast

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope

from jobs import marts, schema

DIALECT = "postgres"
# The names of types in PostgreSQL's catalog, if sqlglot has others.
POSTGRES_NAMES = {
    "char": "character",
    "decimal": "numeric",
    "int": "integer",
    "time": "time without time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "varchar": "character varying",
}
# The clauses by which a column influences which rows a mart has, with OpenLineage's names.
CLAUSES = ((exp.Join, "JOIN"), (exp.Group, "GROUP_BY"), (exp.Where, "FILTER"), (exp.Having, "FILTER"))
STRENGTH = ("IDENTITY", "TRANSFORMATION", "AGGREGATION")


class TableColumn(NamedTuple):
    """Holds one column as the DDL declares it."""

    name: str
    type: str
    required: bool


class Table(NamedTuple):
    """Holds one table as the DDL declares it; `key` names the columns of its primary key."""

    columns: tuple[TableColumn, ...]
    key: tuple[str, ...]


class Source(NamedTuple):
    """Identifies a column of a table from which another column is derived."""

    table: str
    column: str


@cache
def tables() -> dict[str, Table]:
    """Returns every table of the DDL by its name, which includes its schema unless that is public."""
    created = re.findall(r"^create table (?:if not exists )?([\w.]+) \((.*?)^\);", schema.ddl(), re.M | re.S)
    return {name.removeprefix("public."): parse_table(name, body) for name, body in created}


def parse_table(name: str, body: str) -> Table:
    """Returns the table that a `create table` statement makes."""
    statement = sqlglot.parse_one(f"create table {name} ({body})", dialect=DIALECT)
    key = [part.name for found in statement.find_all(exp.PrimaryKey) for part in found.expressions]
    columns = []
    for column in statement.this.find_all(exp.ColumnDef):
        in_key = column.find(exp.PrimaryKeyColumnConstraint) is not None
        key += [column.name] if in_key else []
        required = in_key or column.name in key or column.find(exp.NotNullColumnConstraint) is not None
        columns.append(TableColumn(column.name, type_name(column.args["kind"]), required))
    columns = [column._replace(required=column.required or column.name in key) for column in columns]
    return Table(tuple(columns), tuple(key))


def type_name(kind: exp.Expression) -> str:
    """Returns a type as PostgreSQL's catalog spells it."""
    text = kind.sql(dialect=DIALECT).lower().replace(", ", ",")
    name, bracket, sizes = text.partition("(")
    return f"{POSTGRES_NAMES.get(name, name)}{bracket}{sizes}"


def described() -> dict[str, Any]:
    """Returns the types of all columns by schema, table and column, in the form that sqlglot needs."""
    known: dict[str, Any] = {}
    for name, table in tables().items():
        space, _, short = name.rpartition(".")
        known.setdefault(space or "public", {})[short] = {column.name: column.type for column in table.columns}
    return known


def views() -> dict[str, str]:
    """Returns the queries of the views over all of gold, through which the lineage leads to the tables."""
    return {f"ops.{name}": query for name, (query, _) in schema.gold_queries().items()}


@cache
def parsed(mart: str) -> Scope | None:
    """Returns a mart's SQL with qualified columns, as the scope of its outermost select; None if it is not parsable."""
    try:
        query = exp.expand(
            cast(exp.Query, sqlglot.parse_one(marts.selects()[mart], dialect=DIALECT)),
            {name: cast(exp.Query, sqlglot.parse_one(text, dialect=DIALECT)) for name, text in views().items()},
            dialect=DIALECT,
        )
        name_counted(query)
        query = qualify(
            query, dialect=DIALECT, schema=described(), db="public", validate_qualify_columns=False, identify=False
        )
    except SqlglotError:
        return None
    return build_scope(query)


def name_counted(query: exp.Expr) -> None:
    """Makes each `count(*)` count a column: the key of its table, or the first column of its common table."""
    common = {cte.alias: cte.this for cte in query.find_all(exp.CTE)}
    for count in [*query.find_all(exp.Count)]:
        select = count.find_ancestor(exp.Select)
        source = select.args["from_"].this if select and select.args.get("from_") else None
        if not isinstance(count.this, exp.Star) or source is None:
            continue
        names = source.this.named_selects if isinstance(source, exp.Subquery) else []
        if isinstance(source, exp.Table):
            inner = common.get(source.name) if not source.db else None
            known = tables().get(table_name(source))
            names = inner.named_selects if inner else list(known.key) if known else []
        names = [name for name in names if name not in ("", "*")]
        if names:
            count.set("this", exp.column(names[0], table=source.alias_or_name))


@cache
def made_of(mart: str) -> dict[str, dict[Source, str]]:
    """Returns for each column of a mart the columns from which it is derived, each with OpenLineage's DIRECT subtype.

    The result is empty for a mart whose SQL cannot be parsed; `read_by` finds its tables all the same.
    """
    scope = parsed(mart)
    if scope is None:
        return {}
    nodes = lineage(None, scope.expression, schema=described(), scope=scope, dialect=DIALECT)
    return {column: dict(sorted(sources_of(node, {}).items())) for column, node in nodes.items()}


def sources_of(node: Node, known: dict[int, dict[Source, str]]) -> dict[Source, str]:
    """Returns the table columns at the ends of a column's lineage, each with the strongest change on the way."""
    if id(node) in known:
        return known[id(node)]
    found: dict[Source, str] = {}
    if isinstance(node.expression, exp.Table):
        found[Source(table_name(node.expression), node.name.rpartition(".")[2])] = "IDENTITY"
    own = change(node.expression)
    for below in node.downstream:
        for source, how in sources_of(below, known).items():
            found[source] = max(found.get(source, how), how, own, key=STRENGTH.index)
    known[id(node)] = found
    return found


def change(expression: exp.Expr) -> str:
    """Returns what an expression does to its columns: IDENTITY, TRANSFORMATION or AGGREGATION."""
    inner = expression.unalias()
    if isinstance(inner, exp.Column | exp.Table | exp.Query):
        return "IDENTITY"
    return "AGGREGATION" if inner.find(exp.AggFunc) else "TRANSFORMATION"


def table_name(table: exp.Table) -> str:
    """Returns a table's name in the form of `tables`."""
    return f"{table.db}.{table.name}".removeprefix("public.").removeprefix(".")


def scopes(mart: str) -> tuple[Scope, ...]:
    """Returns the parts of a mart's SQL, each with the tables of its columns; none if the SQL cannot be parsed."""
    scope = parsed(mart)
    return tuple(scope.traverse()) if scope else ()


def influences(mart: str) -> dict[Source, str]:
    """Returns the columns that decide which rows a mart has and what they aggregate, each with its clause."""
    found: dict[Source, str] = {}
    for scope in scopes(mart):
        for column in scope.columns:
            table = scope.sources.get(column.table)
            clause = next((word for kind, word in CLAUSES if column.find_ancestor(kind)), None)
            if clause and isinstance(table, exp.Table):
                found[Source(table_name(table), column.name)] = clause
    return dict(sorted(found.items()))


def read_by(mart: str) -> tuple[str, ...]:
    """Returns the names of the tables that a mart reads, sorted."""
    sources = [source for scope in scopes(mart) for source in scope.sources.values()]
    named = {table_name(source) for source in sources if isinstance(source, exp.Table)}
    if not scopes(mart):  # by searching the text, if it cannot be parsed
        text = re.sub(r"--.*", "", marts.selects()[mart])
        named = {name for name in tables() if re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", text)}
    return tuple(sorted((named & {*tables()}) - {mart}))
