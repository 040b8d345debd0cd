"""Describes quality in contracts: the rules of a dataset, the checks of a mart, and what follows from each."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import sqlglot
from sqlglot import exp

from jobs import columns, marts
from jobs.catalog import CATALOG
from jobs.dataset import Column, Dataset, Level, Limit, Rule, is_retryable

DIMENSIONS = {
    "missing": "completeness",
    "unreadable": "conformity",
    "unknown": "conformity",
    "orphan": "consistency",
    "duplicate": "uniqueness",
}


def column_checks(dataset: Dataset, column: Column) -> Iterator[dict[str, Any]]:
    """Yields a check for each code that a column alone can earn, and for the key a check of duplicates."""
    for code, _ in column.reasons():
        yield check(dataset, code, **how_to_check(dataset, column, code.removesuffix(f"_{column.name}")))
    if column.name == dataset.key:
        yield check(dataset, f"duplicate_{dataset.key}", metric="duplicateValues", mustBe=0)


def how_to_check(dataset: Dataset, column: Column, kind: str) -> dict[str, Any]:
    """Returns how a tool can find rows of gold that would have earned a code."""
    if kind == "missing":
        return {"metric": "nullValues", "mustBe": 0}
    if kind == "unknown":
        return {"metric": "invalidValues", "arguments": {"validValues": [*column.one_of]}, "mustBe": 0}
    if kind == "orphan" and column.references:
        parent = CATALOG[column.references]
        query = (
            f"select count(*) from public.{dataset.name} as child left join public.{parent.name} as parent "
            f"on child.{column.name} = parent.{parent.key} "
            f"where child.{column.name} is not null and parent.{parent.key} is null"
        )
        return {"type": "sql", "query": query, "mustBe": 0}
    return {"type": "text"}  # a typed column of gold holds no unreadable text


def rule_check(dataset: Dataset, rule: Rule) -> dict[str, Any]:
    """Returns the check of a dataset's rule; translates its SQL from Spark's dialect to PostgreSQL's."""
    holds = sqlglot.transpile(rule.holds, read="spark", write="postgres")[0]
    query = f"select count(*) from public.{dataset.name} where not ({holds})"
    return check(dataset, rule.reason, type="sql", query=query, mustBe=0)


def file_checks(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yields the checks of a file as a whole, which gold does not show."""
    yield check(dataset, "malformed_row", type="text")
    yield {
        "id": "rejected",
        "name": "rejected",
        "description": "Rejected rows, those that only wait for a parent left out, stay below the stop level.",
        "dimension": "accuracy",
        "type": "text",
        "severity": severity(dataset.limit),
        "customProperties": custom(action="stop", **thresholds(dataset.limit)),
    }


def check(dataset: Dataset, code: str, **how: Any) -> dict[str, Any]:
    """Returns one quality check: the code of a row that breaks it, its sentence, and the consequence."""
    limit = dataset.limits[code]
    return {
        "id": code,
        "name": code,
        "description": dataset.reasons[code],
        "dimension": DIMENSIONS.get(code.partition("_")[0], "accuracy"),
        "type": "library",
        **how,
        "severity": severity(limit),
        "customProperties": custom(action="wait" if is_retryable(code) else "reject", **thresholds(limit)),
    }


def severity(limit: Limit) -> str:
    """Returns `error` if enough rejected rows stop their date, else `warning`."""
    return "error" if limit.stop else "warning"


def thresholds(limit: Limit) -> dict[str, Any]:
    """Returns the levels of rejected rows that warn and those that stop; both share and number must be reached."""
    return {"warnAt": levels(limit.warn), "stopAt": levels(limit.stop)}


def levels(declared: Sequence[Level]) -> list[dict[str, float]]:
    """Returns levels as plain mappings."""
    return [{"share": round(level.share, 6), "rows": level.rows} for level in declared]


def mart_checks(mart: str) -> Iterator[dict[str, Any]]:
    """Yields the files of sql/checks that read a mart, each as a query that must return no row."""
    for file in sorted((marts.SQL / "checks").glob("*.sql")):
        text = file.read_text()
        query = qualified(text)
        if mart not in map(columns.table_name, query.find_all(exp.Table)):
            continue
        rows = exp.select("count(*)").from_(query.subquery("violations"))
        yield {
            "id": file.stem,
            "name": file.stem,
            "description": text.splitlines()[0].removeprefix("--").strip(),
            "dimension": "consistency",
            "type": "sql",
            "query": rows.sql(dialect=columns.DIALECT, pretty=True, comments=False),
            "mustBe": 0,
            "severity": "error",
            "customProperties": custom(action="stop"),
        }


def qualified(text: str) -> exp.Query:
    """Returns a query whose tables name their schema, so that it means the same on any search path."""
    query = cast(exp.Query, sqlglot.parse_one(text, dialect=columns.DIALECT))
    named = {cte.alias for cte in query.find_all(exp.CTE)}
    for table in query.find_all(exp.Table):
        if not table.db and table.name not in named:
            table.set("db", exp.to_identifier("public"))
    return query


def custom(**values: Any) -> list[dict[str, Any]]:
    """Returns custom properties, without those that have no value."""
    return [{"property": name, "value": value} for name, value in values.items() if value not in (None, "", [])]
