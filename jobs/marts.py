"""The marts: brought in line with gold in one transaction, and held to the laws of sql/checks."""

import hashlib

from psycopg import Connection

from jobs.catalog import CATALOG
from jobs.settings import ROOT

SQL = ROOT / "sql"


class LawBroken(RuntimeError):
    """The marts do not agree with gold; the sentence names the checks and never a patient's value."""


def rule_set() -> str:
    """A hash of the marts' SQL: what they were built by."""
    files = sorted((SQL / "marts").glob("*.sql"))
    return hashlib.sha256("".join(file.read_text() for file in files).encode()).hexdigest()[:16]


def rebuild(connection: Connection) -> dict[str, int]:
    """Rows per mart, all as gold has them now; readers see the old marts whole until the caller commits."""
    selects = {file.stem: file.read_text() for file in sorted((SQL / "marts").glob("*.sql"))}
    # Until the caller commits, gold stands still, so that the marts and their checks speak of the same rows,
    # and a second rebuild waits for its turn. Neither lock keeps a reader waiting.
    connection.execute(f"lock table {', '.join(CATALOG)} in share mode")
    connection.execute(f"lock table {', '.join(selects)} in share row exclusive mode")
    return {mart: _replace(connection, mart, select) for mart, select in selects.items()}


def check(connection: Connection) -> None:
    """Raises LawBroken where a file of sql/checks returns a row."""
    broken = []
    for file in sorted((SQL / "checks").glob("*.sql")):
        rows = connection.execute(file.read_text()).rowcount
        if rows:
            broken.append(f"{file.stem} ({rows} {'row' if rows == 1 else 'rows'})")
    if broken:
        raise LawBroken(f"The marts do not agree with gold: sql/checks finds {', '.join(broken)}.")


def _replace(connection: Connection, mart: str, select: str) -> int:
    """The mart's rows, now exactly those of the select; a row that stays as it was is not touched."""
    key, columns = columns_of(connection, mart)
    names = ", ".join(columns)  # the select's columns are taken by name, so that their order cannot matter
    same_key = " and ".join(f"mart.{column} = fresh.{column}" for column in key)

    connection.execute(f"create temporary table fresh (like {mart}) on commit drop")
    filled = connection.execute(f"insert into fresh ({names}) select {names} from (\n{select}\n) as mart")
    connection.execute("analyze fresh")
    connection.execute(f"delete from {mart} as mart where not exists (select 1 from fresh where {same_key})")
    connection.execute(
        f"""
        merge into {mart} as mart using fresh on {same_key}
        when matched and row(mart.*) is distinct from row(fresh.*) then
            update set ({names}) = row(fresh.*)
        when not matched then
            insert values (fresh.*)
        """
    )
    connection.execute("drop table fresh")
    return filled.rowcount


def columns_of(connection: Connection, table: str) -> tuple[list[str], list[str]]:
    """The names of a table's primary key, and those of all its columns."""
    columns = connection.execute(
        """
        select attribute.attname, attribute.attnum = any(primary_key.conkey)
        from pg_attribute as attribute
        join pg_constraint as primary_key on primary_key.conrelid = attribute.attrelid
        where attribute.attrelid = %s::regclass and attribute.attnum > 0
            and not attribute.attisdropped and primary_key.contype = 'p'
        order by attribute.attnum
        """,
        (table,),
    ).fetchall()
    return [name for name, in_key in columns if in_key], [name for name, _ in columns]
