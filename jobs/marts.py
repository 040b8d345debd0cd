"""Brings the marts in line with gold in one transaction, and checks the invariants of sql/checks."""

import hashlib
import re
from datetime import date
from functools import cache
from graphlib import TopologicalSorter
from typing import NamedTuple

from psycopg import Connection

from jobs import beds, warehouse
from jobs.catalog import CATALOG
from jobs.settings import ROOT

SQL = ROOT / "sql"


class InvariantViolated(RuntimeError):
    """Reports that the marts do not agree with gold; names the checks that failed, and never a patient's value."""


class Made(NamedTuple):
    """Holds how many rows of a mart were built: all, or those of so many touched days or patients."""

    rows: int
    touched: int | None = None


class Part(NamedTuple):
    """Describes how a mart is built in part: which rows, and from which tables.

    The rows are those whose `key` is in the column `touched` of ops.touched. They are built by the mart's own select,
    with these `tables` in place of gold's.
    """

    key: str
    touched: str
    tables: dict[str, str]


TOUCHED = {"day": "mart_daily_kpis", "patient_id": "mart_patient_stats"}  # with the mart that has a row for each
ENOUGH = 0.3  # the share of touched days or patients above which building all of them is faster
DAYS, PATIENTS = (f"in (select {column} from ops.touched)" for column in TOUCHED)
PARTS = {
    "mart_daily_kpis": Part(
        "kpi_date",
        "day",
        {
            "visits": f"select * from public.visits where visit_start_ts::date {DAYS}",
            "admissions": f"select * from public.admissions where admit_ts::date {DAYS}",
            "patients": f"select * from public.patients where registration_date {DAYS}",
        },
    ),
    "mart_department_stats": Part(
        "stat_date",
        "day",
        {"visits": f"select * from public.visits where visit_start_ts::date {DAYS}"},
    ),
    "mart_patient_stats": Part(
        "patient_id",
        "patient_id",
        {
            "patients": f"select * from public.patients where patient_id {PATIENTS}",
            "visits": f"select * from public.visits where patient_id {PATIENTS}",
        },
    ),
    "mart_appointments": Part(
        "visit_date",
        "day",
        {"visits": f"select * from public.visits where visit_start_ts::date {DAYS}"},
    ),
    "mart_doctor_days": Part(
        "visit_date",
        "day",
        {"visits": f"select * from public.visits where visit_start_ts::date {DAYS}"},
    ),
    "mart_bill_days": Part(
        "visit_date",
        "day",
        {"visits": f"select * from public.visits where visit_start_ts::date {DAYS}"},
    ),
    "mart_episode_stays": Part(
        "patient_id",
        "patient_id",
        {"visits": f"select * from public.visits where patient_id {PATIENTS}"},
    ),
    "mart_episodes": Part(
        "patient_id",
        "patient_id",
        {"mart_episode_stays": f"select * from public.mart_episode_stays where patient_id {PATIENTS}"},
    ),
}
# All other marts are built whole. Running sums (census, receivables) and figures as of the newest date (readmissions,
# ageing, collections) differ on days that no change has touched; these marts are small, and made from those above. An
# emergency is admitted by an episode that may begin on another day. ops.mart_trust depends on rows outside of gold.


def rule_set() -> str:
    """Returns a hash of the marts' SQL and of the declared beds: what the marts were built by."""
    return hashlib.sha256("".join(selects().values()).encode() + beds.content()).hexdigest()[:16]


def rebuild(connection: Connection) -> dict[str, Made]:
    """Builds all rows of all marts from current gold; readers see the old marts until the caller commits."""
    _hold(connection)
    return _build(connection, {})


def refresh(connection: Connection) -> dict[str, Made]:
    """Builds the marts like `rebuild`, but only rows that changes of gold have touched since, if that is less work."""
    _hold(connection)
    return _build(connection, _few_touched(connection))


def forget(connection: Connection) -> None:
    """Makes the next build a whole one, whatever changes are noted; waits for a build that is under way."""
    connection.execute("truncate ops.built")


def check(connection: Connection) -> None:
    """Raises InvariantViolated if a query of sql/checks returns a row."""
    broken = []
    for file in sorted((SQL / "checks").glob("*.sql")):
        rows = connection.execute(file.read_text()).rowcount
        if rows:
            broken.append(f"{file.stem} ({rows} {'row' if rows == 1 else 'rows'})")
    if broken:
        raise InvariantViolated(f"The marts do not agree with gold: sql/checks finds {', '.join(broken)}.")


@cache
def selects() -> dict[str, str]:
    """Returns the SQL of each mart by its name, each mart after those that it reads."""
    found = {file.stem: file.read_text() for file in sorted((SQL / "marts").glob("*.sql"))}
    reads = {
        mart: [other for other in found if other != mart and re.search(rf"\b{other}\b", sql)]
        for mart, sql in found.items()
    }
    return {mart: found[mart] for mart in TopologicalSorter(reads).static_order()}


def _hold(connection: Connection) -> None:
    """Locks gold against changes, and the marts against a second build, until the caller commits.

    The marts and their checks then read the same rows. Neither lock blocks readers. Every writer of gold takes its lock
    before a trigger notes the change: once gold is locked, all notes are committed and visible, and none is added until
    the caller commits.
    """
    connection.execute(f"lock table {', '.join(CATALOG)} in share mode")
    connection.execute(f"lock table {', '.join(selects())} in share row exclusive mode")


def _newest(connection: Connection) -> date | None:
    """Returns the newest partition over all of gold; ages are computed as of that date."""
    return warehouse.value(connection, "select day from ops.as_of")


def _few_touched(connection: Connection) -> dict[str, int]:
    """Returns the numbers of touched days and patients that are small enough for a build in part, by column.

    It is empty if all rows may differ.
    """
    built = connection.execute("select as_of from ops.built where rule_set = %s", [rule_set()]).fetchone()
    before, newest = built and built[0], _newest(connection)
    if not (before and newest):
        return {}
    if before != newest:
        age = "extract(year from age(%s::timestamp, birth_date::timestamp))"
        connection.execute(
            f"insert into ops.touched (patient_id) select patient_id from patients where {age} <> {age}",
            [before, newest],
        )
        # Visits on the days between are now in the past, or no longer are (mart_appointments).
        connection.execute(
            "insert into ops.touched (day) select day::date from "
            "generate_series(%s::timestamp + interval '1 day', %s::timestamp, '1 day') as days (day)",
            sorted([before, newest]),
        )
    connection.execute("analyze ops.touched")
    if connection.execute("select from ops.touched where day is null and patient_id is null limit 1").rowcount:
        return {}
    few = {}
    for column, mart in TOUCHED.items():
        touched, there = (
            warehouse.value(connection, f"select count({what}) from {table}")
            for what, table in ((f"distinct {column}", "ops.touched"), ("*", mart))
        )
        if touched <= ENOUGH * there:
            few[column] = touched
    return few


def _build(connection: Connection, few: dict[str, int]) -> dict[str, Made]:
    """Builds each mart, in part if `few` has the column that narrows it, else whole; then clears ops.touched."""
    connection.execute("delete from ops.built")
    connection.execute("insert into ops.built values (%s, %s)", [rule_set(), _newest(connection)])
    beds.load(connection)
    # Parallel plans cost less than PostgreSQL assumes: the processes exist already, and few rows come out of the scans.
    connection.execute("set local parallel_setup_cost = 10")
    connection.execute("set local parallel_tuple_cost = 0.001")
    # Sorting each of many small groups is faster than sorting all rows. PostgreSQL 15, which lacks this setting, sorts
    # each group anyway.
    connection.execute(
        "select set_config(name, 'off', true) from pg_settings where name = 'enable_presorted_aggregate'"
    )
    made = {}
    for mart, select in selects().items():
        part = PARTS.get(mart)
        if part and part.touched in few:
            tables = ", ".join(f"{table} as not materialized ({rows})" for table, rows in part.tables.items())
            within = f"{part.key} in (select {part.touched} from ops.touched)"
            rows = _replace(connection, mart, f"with {tables} select * from (\n{select}\n) as part", within)
            made[mart] = Made(rows, few[part.touched])
        else:
            made[mart] = Made(_replace(connection, mart, select))
    connection.execute("truncate ops.touched")
    return made


def _replace(connection: Connection, mart: str, select: str, within: str = "true") -> int:
    """Makes a mart's rows `within` a condition exactly those of a select; returns the number of selected rows.

    Equal rows are not touched.
    """
    key, columns = columns_of(connection, mart)
    names = ", ".join(columns)  # the select's columns are taken by name, so that their order cannot matter
    same_key = " and ".join(f"mart.{column} = fresh.{column}" for column in key)

    # Created by the select itself, because PostgreSQL fills an existing table with a single process only.
    filled = connection.execute(
        f"create temporary table fresh on commit drop as select {names} from (\n{select}\n) as mart"
    )
    if connection.execute(f"select from {mart} limit 1").rowcount:
        connection.execute("analyze fresh")
        connection.execute(
            f"delete from {mart} as mart where {within} and not exists (select from fresh where {same_key})"
        )
        connection.execute(
            f"""
            merge into {mart} as mart using fresh on {same_key}
            when matched and row(mart.*) is distinct from row(fresh.*) then
                update set ({names}) = row(fresh.*)
            when not matched then
                insert values (fresh.*)
            """
        )
    else:
        connection.execute(f"insert into {mart} ({names}) select {names} from fresh order by {', '.join(key)}")
    connection.execute("drop table fresh")
    return filled.rowcount


def columns_of(connection: Connection, table: str) -> tuple[list[str], list[str]]:
    """Returns the names of a table's primary key columns, and the names of all its columns."""
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
