"""Who may do what in the warehouse: the loader keeps its schemas, readers only read, nobody else has anything."""

import subprocess
import time

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, ReadOnlySqlTransaction

from jobs import settings
from jobs.catalog import CATALOG
from jobs.marts import SQL
from stack import prepare, services, supervision
from stack.own import free_ports

OURS = ["public", "ops", "reports", "staging"]
MARTS = {file.stem for file in (SQL / "marts").glob("*.sql")}
# What a reader sees of ops. Of every other table there, present and future, it sees nothing.
TOLD = {"ledger", "reasons", "receipts", "rules", "datasets", "mart_trust"}
TOLD |= {"standing", "tripped", "dates", "never_ran", "orphans", "freshness", "newest", "run_times", "unaccounted"}


@pytest.fixture
def reader(stack):
    with services.connect("POSTGRES_READ") as connection:
        yield connection


def values(connection, query, *arguments):
    """The one column of a query, as a set."""
    return {value for (value,) in connection.execute(query, arguments)}


def test_the_loader_may_do_nothing_outside_its_schemas(postgres):
    mighty = "select rolsuper or rolcreatedb or rolcreaterole or rolreplication or rolbypassrls from pg_roles "
    assert values(postgres, mighty + "where rolname = current_user") == {False}
    member = "select roleid::regrole::text from pg_auth_members where member = current_user::regrole"
    assert values(postgres, member) == set()
    for attempt in ("create database more", "create role more", "create schema more", "select 1 from pg_authid"):
        with pytest.raises(InsufficientPrivilege):
            postgres.execute(attempt)


def test_the_loader_owns_its_schemas_and_what_is_in_them_and_nothing_else(postgres):
    mine = "= current_user::regrole"
    assert values(postgres, f"select nspname from pg_namespace where nspowner {mine}") == set(OURS)
    assert values(postgres, f"select datname from pg_database where datdba {mine}") == set()
    place = "relnamespace::regnamespace::text"
    assert values(postgres, f"select {place} from pg_class where relowner {mine}") <= set(OURS) | {"pg_toast"}
    assert values(postgres, f"select relowner {mine} from pg_class where {place} = any(%s)", OURS) == {True}


def test_no_program_can_connect_as_a_superuser(postgres):
    assert values(postgres, "select rolname from pg_roles where rolsuper") == {"postgres"}
    for password in ("postgres", settings.get("POSTGRES_PASSWORD"), settings.get("POSTGRES_READ_PASSWORD")):
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(postgres.info.dsn, user="postgres", password=password)


def test_a_reader_reads_gold_the_marts_the_reports_and_what_the_ledger_tells(postgres, reader):
    readable = {
        (schema, table)
        for schema, table in reader.execute(
            "select relnamespace::regnamespace::text, relname from pg_class "
            "where relkind in ('r', 'v', 'm', 'p', 'f') and has_schema_privilege(relnamespace, 'usage') "
            "and has_table_privilege(oid, 'select') and relnamespace::regnamespace::text = any(%s)",
            [OURS],
        )
    }
    shown = {("public", name) for name in (*CATALOG, *MARTS) if not name.startswith("ops.")}
    reports = {("reports", file.stem) for file in (SQL / "reports").glob("*.sql")}
    assert readable == shown | reports | {("ops", name) for name in TOLD}
    for schema, table in readable:
        reader.execute(f"select * from {schema}.{table} limit 1")


def test_a_reader_sees_no_row_of_a_withheld_patient(postgres, reader):
    assert values(postgres, "select to_regclass('ops.withheld') is not null") == {True}
    postgres.execute("create unlogged table staging.some as select 1 as one")
    try:
        for table in ("ops.withheld", "staging.some", "pg_authid", "pg_hba_file_rules"):
            with pytest.raises(InsufficientPrivilege):
                reader.execute(f"select * from {table}")
    finally:
        postgres.execute("drop table staging.some")


@pytest.mark.parametrize(
    "attempt",
    [
        "insert into mart_daily_kpis select * from mart_daily_kpis",
        "update patients set city = null",
        "delete from ops.ledger",
        "truncate billing",
        "create table public.mine (one int)",
        "create temporary table mine (one int)",
        "create schema mine",
        "select pg_read_file('postgresql.conf')",
    ],
)
def test_a_reader_writes_and_creates_nothing_however_it_tries(reader, attempt):
    with pytest.raises((ReadOnlySqlTransaction, InsufficientPrivilege)):
        reader.execute(attempt)
    reader.execute("set default_transaction_read_only = off")
    with pytest.raises(InsufficientPrivilege):
        reader.execute(attempt)


def test_a_new_table_of_gold_is_readable_after_the_next_up(postgres, reader):
    postgres.execute("create table surgeries (surgery_id text primary key)")
    try:
        supervision.create_schema()
        assert reader.execute("select * from surgeries").fetchall() == []
    finally:
        postgres.execute("drop table surgeries")


def test_everybody_else_may_do_nothing(postgres):
    # Where nothing is granted the defaults hold, and they give PUBLIC something of a database.
    given = "exists (select from aclexplode(coalesce({acl}, {default})) where grantee = 0)"
    databases = given.format(acl="datacl", default="acldefault('d', datdba)")
    assert values(postgres, f"select datname from pg_database where {databases} and datallowconn") == set()
    schemas = given.format(acl="nspacl", default="acldefault('n', nspowner)")
    assert values(postgres, f"select nspname from pg_namespace where {schemas} and nspname = any(%s)", OURS) == set()
    tables = given.format(acl="relacl", default="acldefault('r', relowner)")
    place = "relnamespace::regnamespace::text"
    assert values(postgres, f"select relname from pg_class where {tables} and {place} = any(%s)", OURS) == set()


def test_roles_and_database_may_have_any_names_and_passwords(tmp_path, monkeypatch):
    names = {"USER": 'the "loader"', "PASSWORD": "it's \\ 100 %", "READ_USER": "ecom", "READ_PASSWORD": ":ecomdb'"}
    port = str(free_ports(1)[0])
    for name, value in (names | {"DB": "a house", "PORT": port}).items():
        monkeypatch.setenv(f"POSTGRES_{name}", value)
    monkeypatch.setenv("STACK_DIR", str(tmp_path / "stack"))
    prepare.state_directory()
    prepare.database()
    with subprocess.Popen(services.postgres().command, stderr=subprocess.DEVNULL) as server:
        try:
            while services.lacks_login():
                assert server.poll() is None
                time.sleep(0.1)
            supervision.create_schema()
            with services.connect("POSTGRES_READ") as connection:
                assert values(connection, "select current_user") == {"ecom"}
                assert connection.execute("select * from patients").fetchall() == []
        finally:
            server.terminate()
