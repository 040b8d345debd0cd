"""Writes the warehouse's DDL from the catalog and from sql/, and applies it if the code is newer than the tables.

`python -m jobs.schema` prints it.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha256
from itertools import dropwhile, pairwise
from typing import Any

from jobs import settings, warehouse
from jobs.catalog import CATALOG
from jobs.dataset import Dataset, Level, is_retryable
from jobs.gold import AUDIT
from jobs.program import Refused
from jobs.warehouse import Connection, literal

SQL = settings.ROOT / "sql"
REPORTS = SQL / "reports"
POSTGRES_TYPES = {"text": "text", "date": "date", "timestamp": "timestamp", "decimal": "numeric(12, 2)"}
# Fingerprints of the five datasets before rules were named one by one, and those of the same declarations since.
# A marker with the former has the verdicts of the latter.
RENAMED = {
    "patients": ("2c3e6ff87f761739", "a37a342a6bbac480"),
    "visits": ("207dbfcb40c3b897", "dfb1d044ef61a51d"),
    "admissions": ("dfec5b9d5d3c9c51", "e21d883fad191ea3"),
    "treatments": ("23c9e0ce1c5e9d8d", "b5f9720cc68f8c24"),
    "billing": ("1ed4c5ccef0c0f0e", "784e1d3ab17b53e8"),
}


# ---- gold ----------------------------------------------------------------------------------------------------------


def create_table(dataset: Dataset) -> str:
    """Returns the DDL of a gold table with its keys; foreign keys can be deferred to the end of a restating load."""
    required = {c.name for c in dataset.columns if c.required and c.name != dataset.key}
    columns = [
        f"{name} {kind}{' not null' if name in required else ''}" for name, kind in column_types(dataset).items()
    ]
    audit = [
        "_partition_date date not null",
        "_run_id text not null",
        "_loaded_at timestamptz not null default clock_timestamp()",
    ]
    body = ",\n    ".join([*columns, *audit])
    indexes = "".join(
        f"create index if not exists {dataset.name}_by_{name} on {dataset.name} ({name});\n"
        for name in (*dataset.parents, "_partition_date")
    )
    comments = f"comment on table {dataset.name} is\n{literal(dataset.doc)};\n" + "".join(
        f"comment on column {dataset.name}.{column.name} is\n{literal(column.comment)};\n"
        for column in dataset.columns
        if column.comment
    )
    return f"create table if not exists {dataset.name} (\n    {body}\n);\n\n{indexes}\n{comments}"


def column_types(dataset: Dataset) -> dict[str, str]:
    """Returns the columns of a gold table that the catalog declares with their types, keys and expressions."""
    types = {}
    for column in dataset.columns:
        parent = CATALOG[column.references] if column.references else None
        types[column.name] = (
            POSTGRES_TYPES[column.type]
            + (" primary key" if column.name == dataset.key else "")
            + (f" references {parent.name} ({parent.key}) deferrable" if parent else "")
        )
    return types | {name: f"{kind} generated always as ({value}) stored" for name, kind, value in dataset.computed}


def path_to(dataset: Dataset, goal: str) -> list[tuple[str, str]] | None:
    """Returns the shortest path from a dataset to another along references, as (foreign key, dataset) pairs, or None.

    The path from a dataset to itself is empty.
    """
    ways: list[tuple[str, list[tuple[str, str]]]] = [(dataset.name, [])]
    for name, way in ways:  # grows while it is walked: breadth first
        if name == goal:
            return way
        ways += [(parent, [*way, (column, parent)]) for column, parent in CATALOG[name].parents.items()]
    return None


def create_notes(dataset: Dataset) -> str:
    """Returns the triggers that note in ops.touched what any change of a gold table touches, also one by hand.

    A row touches its own day, and the day and the patient of its visit, or its patient if it belongs to no visit. An
    updated row touches those of both versions, in two triggers.
    """
    function = f"ops.note_touched_{dataset.name}"
    body = "".join(f"        {statement};\n" for statement in touched_by(dataset))
    if body:
        body = (
            "    if tg_op = 'TRUNCATE' then\n"
            "        insert into ops.touched values (null, null);\n"
            "    elsif (select count(*) from (select from changed limit 100001) as many) > 100000 then\n"
            "        insert into ops.touched values (null, null);\n"
            f"    else\n{body}    end if;\n"
        )
    changes = {"insert": ("new",), "update": ("old", "new"), "delete": ("old",)}
    triggers = [("truncate", "truncate", "")]
    triggers += [
        (f"{version}_of_{change}", change, f"referencing {version} table as changed ")
        for change, versions in changes.items()
        for version in versions
    ]
    return (
        f"create or replace function {function}() returns trigger language plpgsql as $$\nbegin\n{body}"
        "    return null;\nend\n$$;\n"
    ) + "".join(
        f"create or replace trigger note_{name} after {change} on {dataset.name} {rows}"
        f"for each statement execute function {function}();\n"
        for name, change, rows in triggers
    )


def touched_by(dataset: Dataset) -> Iterator[str]:
    """Yields the statements that record in ops.touched the days and patients of the rows `changed` of a dataset."""
    to_visit, to_patient = path_to(dataset, "visits"), path_to(dataset, "patients")
    own_day = f"changed.{dataset.day}::date" if dataset.day else "null::date"
    if dataset.name == "visits" or (to_patient is not None and to_visit is None):
        joins, patient = joined(dataset, to_patient or [])
        yield (
            f"insert into ops.touched select distinct {own_day}, {patient} from changed{joins} "
            f"where ({own_day}, {patient}) is distinct from (null, null)"
        )
        return
    if dataset.day:
        yield f"insert into ops.touched (day) select distinct {own_day} from changed where {own_day} is not null"
    if to_visit:
        joins, visit = joined(dataset, to_visit)
        visits = CATALOG["visits"]
        yield (
            f"insert into ops.touched select distinct visits.{visits.day}::date, visits.patient_id "
            f"from changed{joins} inner join public.visits on {visit} = visits.{visits.key}"
        )


def joined(dataset: Dataset, way: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Returns the joins along a path up to its last dataset, which is left out, and the column that has its key."""
    at, joins = "changed", ""
    for (column, parent), _ in pairwise(way):
        joins += f" inner join public.{parent} on {at}.{column} = {parent}.{CATALOG[parent].key}"
        at = parent
    return joins, f"{at}.{way[-1][0] if way else dataset.key}"


# ---- the catalog in ops --------------------------------------------------------------------------------------------


def declarations() -> str:
    """Returns the statements that write the catalog into ops.datasets and ops.rules, where the views read it."""
    datasets = [
        (
            d.name,
            d.key,
            d.amount,
            d.orphan_days,
            d.due_hours,
            str(d.since),
            path_to(d, "visits") is not None,
        )
        for d in CATALOG.values()
    ]
    rules: list[tuple[str | bool | None, ...]] = []
    for dataset in CATALOG.values():
        limits = {"rejected": dataset.limit} | dataset.limits
        for code, message in {"rejected": "all that no late parent can mend", **dataset.reasons}.items():
            levels = (*arrays(limits[code].warn), *arrays(limits[code].stop))
            rules.append((dataset.name, code, message, is_retryable(code), *levels))
    tables: dict[str, Sequence[tuple[Any, ...]]] = {"ops.datasets": datasets, "ops.rules": rules}
    return "\n".join(
        f"delete from {table};\ninsert into {table} values\n"
        + ",\n".join(f"    ({', '.join(map(literal, row))})" for row in rows)
        + ";\n"
        for table, rows in tables.items()
    )


def arrays(levels: Sequence[Level]) -> tuple[str | None, str | None]:
    """Returns the shares and the rows of levels, each as PostgreSQL writes an array; None if there is no level."""
    if not levels:
        return None, None
    shares, rows = (",".join(str(getattr(level, name)) for level in levels) for name in ("share", "rows"))
    return f"{{{shares}}}", f"{{{rows}}}"


def gold_queries() -> dict[str, tuple[str, str]]:
    """Returns the views over all gold tables by name: the query of each, and its comment."""
    keys = (f"select '{d.name}' as dataset, {d.key} as row_key from {d.name}" for d in CATALOG.values())
    totals = (
        f"select '{d.name}' as dataset, count(*) as gold_rows, "
        + (f"coalesce(sum({d.amount}), 0) as amount from {d.name}" if d.amount else f"null::numeric from {d.name}")
        for d in CATALOG.values()
    )
    newest = ", ".join(f"(select max(_partition_date) from {name})" for name in CATALOG)
    return {
        "gold_keys": ("\nunion all\n".join(keys), "One row per row of gold: its dataset and its key."),
        "gold_totals": (
            "select dataset, gold_rows, amount from (\n"
            + "\nunion all\n".join(totals)
            + "\n) as totals (dataset, gold_rows, amount)",
            "One row per gold table: its rows, and the sum of its money where it has any.",
        ),
        "as_of": (
            f"select greatest({newest}) as day",
            "One row: the newest partition over all of gold, as of which ages are; null where gold is empty.",
        ),
    }


def gold_views() -> str:
    """Returns the DDL of the views over all gold tables."""
    return "".join(
        f"create view ops.{name} as\n{query};\ncomment on view ops.{name} is\n{literal(doc)};\n\n"
        for name, (query, doc) in gold_queries().items()
    )


# ---- the whole of it -----------------------------------------------------------------------------------------------


def ddl() -> str:
    """Returns the whole DDL, which may be applied any number of times."""
    touched, marts, ops, views, grants = (
        "\n".join((SQL / "tables" / f"{name}.sql").read_text() for name in names)
        for names in (
            ["touched"],
            ["reference", "marts", "patient_flow", "receivables"],
            ["ops"],
            ["views"],
            ["grants"],
        )
    )
    views = gold_views() + views
    # Gold is locked before the marts, as in a build of the marts, which prevents a deadlock.
    gold = [part for dataset in CATALOG.values() for part in (create_table(dataset), create_notes(dataset))]
    former = "drop function if exists ops.note_touched();\n"  # one for all tables, of an earlier version
    tables = [touched, *gold, former, marts, ops, renamed(), declarations()]
    return "\n".join([drop_views(views), *tables, small_cells(), views, *reports(), grants])


def drop_views(views: str) -> str:
    """Returns the statement that drops reports and `views`: they depend on all else, and their columns may change."""
    names = [f"reports.{file.stem}" for file in sorted(REPORTS.glob("*.sql"))]
    names += re.findall(r"^create view (\S+) as$", views, re.MULTILINE)
    return f"drop view if exists {', '.join(names)};\n"


def renamed() -> str:
    """Returns the updates that give runs and markers of an earlier version today's names and fingerprints.

    The layer revalidated was named rejudged; without its markers, each date that ran would be due.
    """
    values = ", ".join(f"({', '.join(map(literal, (name, *pair)))})" for name, pair in RENAMED.items())
    return (
        "update ops.ledger set layer = 'revalidated' where layer = 'rejudged';\n"
        "update ops.receipts as former set layer = 'revalidated' where layer = 'rejudged' and not exists (select "
        "from ops.receipts as known where known.layer = 'revalidated' "
        "and known.partition_date = former.partition_date);\n"
        f"update ops.receipts set rule_set = renamed.today from (values {values}) as renamed (dataset, former, today) "
        "where receipts.dataset = renamed.dataset and receipts.rule_set = renamed.former;\n"
    )


def small_cells() -> str:
    """Returns the function that tells reports which numbers of patients are too small to be shown, by SMALL_CELLS."""
    return (
        "create or replace function ops.is_small(patients numeric) returns boolean\n"
        "language sql immutable parallel safe\n"
        f"as 'select patients > 0 and patients < {settings.small_cells()}';\n"
        "comment on function ops.is_small is\n"
        "'Tells whether a number of patients is above 0 and below SMALL_CELLS, so that reports suppress it.';\n"
    )


def reports() -> Iterator[str]:
    """Yields the views that dashboards read, one per file of sql/reports, whose first lines are its comment."""
    for file in sorted(REPORTS.glob("*.sql")):
        lines = file.read_text().splitlines()
        query = list(dropwhile(lambda line: line.startswith("--"), lines))
        doc = " ".join(line.removeprefix("--").strip() for line in lines[: -len(query)])
        body = "\n".join(query)
        yield f"create view reports.{file.stem} as\n{body};\ncomment on view reports.{file.stem} is\n{literal(doc)};\n"


def bring_up_to_date(connection: Connection) -> None:
    """Applies the DDL if it is not the one that was applied last, so that an edited catalog counts at once."""
    if applied_last(connection) == digest():
        return
    with connection.transaction():
        hold(connection)
        if applied_last(connection) != digest():  # another process may have applied it meanwhile
            apply(connection)


def hold(connection: Connection) -> None:
    """Prevents other processes from applying the DDL until the transaction ends."""
    connection.execute("select pg_advisory_xact_lock(hashtext('schema'))")


def apply(connection: Connection) -> None:
    """Applies the DDL in one transaction; raises Refused if gold cannot be brought in line with the catalog.

    It also raises Refused if the data of an earlier version lack a schema, which it cannot create.

    A column declared since a table was made is added to it. It is null in older rows, whatever `required` says.
    Partitions validated before stay current: their files do not have the column.
    """
    if not warehouse.value(connection, "select to_regnamespace('reference') is not null"):
        raise Refused(
            "PostgreSQL lacks the schema reference: `make down`, then `make up`; on a server that is not the stack's "
            "own a superuser runs `psql -d ecomdb -f sql/schemas.sql` (docs/access.md)."
        )
    with connection.transaction():
        hold(connection)
        for dataset in CATALOG.values():
            types = column_types(dataset)
            if added := added_columns(connection, dataset):
                for name in added:  # only these: `alter table` waits for all readers and keeps new ones out meanwhile
                    connection.execute(f"alter table {dataset.name} add column {name} {types[name]}")
                connection.execute(
                    "update ops.receipts set rule_set = %s where dataset = %s and rule_set = %s",
                    [dataset.rule_set, dataset.name, dataset.without(added).rule_set],
                )
        connection.execute(ddl())
        connection.execute("delete from ops.applied")
        connection.execute("insert into ops.applied values (%s)", [digest()])


@cache
def digest() -> str:
    """Returns the SHA-256 of the DDL."""
    return sha256(ddl().encode()).hexdigest()


def applied_last(connection: Connection) -> str | None:
    """Returns the SHA-256 of the DDL that was applied last, or None."""
    if not warehouse.value(connection, "select to_regclass('ops.applied') is not null"):
        return None
    found = connection.execute("select ddl_sha256 from ops.applied").fetchone()
    return found[0] if found else None


def added_columns(connection: Connection, dataset: Dataset) -> list[str]:
    """Returns the declared columns that an existing gold table lacks.

    Raises Refused if the table has a column that is not declared, or that is declared with another type.
    """
    found = connection.execute(
        "select attname, format_type(atttypid, null) from pg_attribute where attrelid = to_regclass(%s) "
        "and attnum > 0 and not attisdropped",
        [f"public.{dataset.name}"],
    ).fetchall()
    if not found:
        return []
    there = dict(found)
    declared = {column.name: column.type for column in dataset.columns}
    if gone := [name for name in there if name not in (*column_types(dataset), *AUDIT, "_loaded_at")]:
        raise Refused(
            f"jobs/catalog/{dataset.name}.py no longer declares {', '.join(gone)}, which gold has: declare it again, "
            f"or remove it with `alter table {dataset.name} drop column ...` and run the dates again; a column under a "
            "new name is a new column, which dates before it do not have."
        )
    types = {"text": "text", "date": "date", "timestamp": "timestamp without time zone", "decimal": "numeric"}
    if other := [name for name, kind in declared.items() if name in there and there[name] != types[kind]]:
        raise Refused(
            f"jobs/catalog/{dataset.name}.py declares {', '.join(other)} with another type than gold has: a column "
            "keeps its type, so declare a column under a new name."
        )
    return [name for name in column_types(dataset) if name not in there]


if __name__ == "__main__":
    print(ddl(), end="")
