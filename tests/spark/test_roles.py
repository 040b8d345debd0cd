"""Checks privileges in the warehouse: the loader owns its schemas, readers only read, other users have none."""

import os
import re
import secrets
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, QueryCanceled, ReadOnlySqlTransaction

from jobs import settings
from jobs.catalog import CATALOG
from jobs.marts import SQL
from jobs.program import Refused
from stack import prepare, services, supervision
from stack.own import free_ports

OURS = ["public", "ops", "reports", "reference", "staging"]
MARTS = {file.stem for file in (SQL / "marts").glob("*.sql")}
# The part of ops that a reader sees; it sees no other table there, present or future.
TOLD = {"ledger", "reasons", "receipts", "rules", "datasets", "mart_trust"}
TOLD |= {"standing", "tripped", "dates", "never_ran", "orphans", "freshness", "newest", "run_times", "unaccounted"}
TOLD |= {"as_of"}


@pytest.fixture
def reader(stack):
    with services.connect("POSTGRES_READ") as connection:
        yield connection


@pytest.fixture
def dashboards(stack):
    with services.connect("POSTGRES_DASHBOARDS") as connection:
        yield connection


def values(connection, query, *arguments):
    """Returns the values of a query's single column as a set."""
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
    kinds = ("", "READ_", "DASHBOARDS_")
    for password in ("postgres", *(settings.get(f"POSTGRES_{kind}PASSWORD") for kind in kinds)):
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(postgres.info.dsn, user="postgres", password=password)


def readable(connection):
    """Returns the platform's tables and views in which a role may read at least one column."""
    return {
        (schema, table)
        for schema, table in connection.execute(
            "select relnamespace::regnamespace::text, relname from pg_class "
            "where relkind in ('r', 'v', 'm', 'p', 'f') and has_schema_privilege(relnamespace, 'usage') "
            "and has_any_column_privilege(oid, 'select') and relnamespace::regnamespace::text = any(%s)",
            [OURS],
        )
    }


REPORTS = {("reports", file.stem) for file in (SQL / "reports").glob("*.sql")}


def test_a_reader_reads_gold_the_marts_the_reports_and_what_the_ledger_tells(postgres, reader):
    shown = {("public", name) for name in (*CATALOG, *MARTS) if not name.startswith("ops.")}
    named = {("ops", "stale_stays"), ("reference", "beds")}
    assert readable(reader) == shown | REPORTS | named | {("ops", name) for name in TOLD}
    for schema, table in readable(reader):
        reader.execute(f"select * from {schema}.{table} limit 1")


def test_a_reader_may_run_the_checks_of_marts_against_gold(stack, reader):
    checks = {file.stem: file.read_text() for file in (SQL / "checks").glob("*.sql")}
    named = {name for name, query in checks.items() if "ops.withheld" in query}  # by the keys of rows
    assert named == {"withheld_rows_add_up"}
    for name in checks.keys() - named:
        reader.execute(checks[name])


def test_dashboards_read_the_reports_and_what_the_ledger_tells_and_nothing_else(postgres, dashboards):
    assert readable(dashboards) == REPORTS | {("ops", name) for name in TOLD}
    for schema, table in readable(dashboards):
        dashboards.execute(f"select * from {schema}.{table} limit 1")
    gold = [f"public.{name}" for name in (*CATALOG, *MARTS - {"ops.mart_trust"})]
    for table in (
        *gold,
        "ops.withheld",
        "ops.gone_keys",
        "ops.touched",
        "ops.stale_stays",
        "reference.beds",
        "pg_authid",
    ):
        with pytest.raises(InsufficientPrivilege):
            dashboards.execute(f"select * from {table}")


def test_no_key_of_a_row_is_readable_by_dashboards(postgres, dashboards):
    keys = {dataset.key for dataset in CATALOG.values()} | {"row_key"}
    columns = (
        "select column_name::text from information_schema.columns where table_schema = any(%s) "
        "and has_schema_privilege(table_schema, 'usage') "
        "and has_column_privilege(format('%%I.%%I', table_schema, table_name)::regclass, column_name, 'select')"
    )
    assert {"day", "department", "visits"} <= values(dashboards, columns, OURS)
    assert not keys & values(dashboards, columns, OURS)
    assert keys - {"row_key"} <= values(postgres, columns, OURS), "the search would find them"


@pytest.mark.parametrize("role", ["POSTGRES_READ", "POSTGRES_DASHBOARDS"])
def test_readers_have_limits_and_may_not_lift_that_of_the_disk(stack, role):
    with services.connect(role) as connection:
        [timeout, disk, connections] = connection.execute(
            "select current_setting('statement_timeout'), current_setting('temp_file_limit'), rolconnlimit "
            "from pg_roles where rolname = current_user"
        ).fetchone()
        assert timeout != "0" and disk.endswith("GB") and 0 < connections < 50
        with pytest.raises(InsufficientPrivilege):
            connection.execute("set temp_file_limit = -1")
        connection.execute("set statement_timeout = '100ms'")
        with pytest.raises(QueryCanceled):
            connection.execute("select count(*) from generate_series(1, 1000000000)")


PLANTED = "Zq7Kplanted"
READS = [
    "select * from patients where city is distinct from '{}'",
    "select * from patients where birth_date = '{}'",  # fails, and PostgreSQL's message quotes the value
    "select patient_id from patients where city like '%{}%' union select visit_id from visits",
    "prepare mine as select * from patients where city <> $1; execute mine('{}')",
    "declare mine cursor with hold for select * from patients where city <> '{}'",
    "select * from patients where /* {} */ nothing = '{}'",
    "select ops.log_read(E'patients\\n{}')",  # called by hand, it must not log the caller's text
    "copy (select * from patients where city <> '{}') to stdout",
    "copy billing to stdout",
]
GOLD = """
insert into patients (patient_id, gender, birth_date, city, registration_date, _partition_date, _run_id)
values ('p', 'F', '1990-01-01', 'Newtown', '2026-01-01', '2026-01-01', 'r');
insert into visits (visit_id, patient_id, visit_type, department, visit_start_ts, status, _partition_date, _run_id)
values ('v', 'p', 'Outpatient', 'Cardiology', '2026-01-01', 'Completed', '2026-01-01', 'r');
insert into billing (bill_id, visit_id, total_amount, payment_status, _partition_date, _run_id)
values ('b', 'v', 1, 'Pending', '2026-01-01', 'r');
"""


def test_the_log_says_who_connects_and_who_reads_which_table_of_gold_and_no_value(tmp_path, monkeypatch):
    monkeypatch.setenv("POSTGRES_PORT", str(free_ports(1)[0]))
    monkeypatch.setenv("STACK_DIR", str(tmp_path / "stack"))
    prepare.state_directory()
    prepare.database()
    with running(tmp_path / "log"), services.connect("POSTGRES_READ") as reader, services.connect() as loader:
        supervision.create_schema()
        loader.execute(GOLD)
        assert loader.execute("select count(*) from patients").fetchone() == (1,)
        with services.connect("POSTGRES_DASHBOARDS") as dashboards:
            assert dashboards.execute("select sum(visits) from reports.activity").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(reader.info.dsn, password=secrets.token_hex(8))
        assert "audit:" not in (tmp_path / "log").read_text(), "neither the jobs nor dashboards are noted"
        for query in READS:
            with suppress(psycopg.Error):
                if query.startswith("copy"):
                    with reader.cursor().copy(query.format(PLANTED)) as copied:
                        assert list(copied)
                else:
                    reader.execute(query.format(PLANTED, PLANTED))
        assert reader.execute("select * from billing where payment_status <> %s", [PLANTED]).fetchall()
        for attempt in ("set log_min_messages = panic", "set row_security = off; select * from patients"):
            with pytest.raises(InsufficientPrivilege):
                reader.execute(attempt)
    told, who = (tmp_path / "log").read_text(), settings.get("POSTGRES_READ_USER")
    audited = re.findall(rf"{re.escape(who)}@\S+ LOG:  audit: {re.escape(who)} reads (\S+)", told)
    assert audited == ["patients"] * 2 + ["visits"] + ["patients"] * 3 + ["billing"] * 2
    assert PLANTED not in told
    for role in ("POSTGRES_USER", "POSTGRES_READ_USER", "POSTGRES_DASHBOARDS_USER"):
        assert f"LOG:  connection authorized: user={settings.get(role)} database=" in told
    assert f'FATAL:  password authentication failed for user "{who}"' in told
    assert "LOG:  disconnection: session time: " in told


def test_a_role_that_was_granted_a_table_by_somebody_else_sees_its_rows(postgres):
    using = "select polroles = '{0}' and polpermissive and polcmd = '*' from pg_policy where polname = 'is_logged'"
    assert values(postgres, using) == {True}
    tables = "relnamespace = 'public'::regnamespace and relkind = 'r'"
    assert values(postgres, f"select relrowsecurity and not relforcerowsecurity from pg_class where {tables}") == {True}


def test_a_reader_sees_no_row_of_a_withheld_patient(postgres, reader):
    assert values(postgres, "select to_regclass('ops.withheld') is not null") == {True}
    postgres.execute("create unlogged table staging.some as select 1 as one")
    try:
        for table in ("ops.withheld", "ops.gone_keys", "staging.some", "pg_authid", "pg_hba_file_rules"):
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
    # Without grants the defaults apply, and they give PUBLIC privileges on a database.
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
    names |= {"DASHBOARDS_USER": "ecom_read", "DASHBOARDS_PASSWORD": "$roles$"}
    port = str(free_ports(1)[0])
    for name, value in (names | {"DB": "a house", "PORT": port}).items():
        monkeypatch.setenv(f"POSTGRES_{name}", value)
    monkeypatch.setenv("STACK_DIR", str(tmp_path / "stack"))
    prepare.state_directory()
    prepare.database()
    assert prepare.has_roles()
    with running():
        supervision.create_schema()
        with services.connect("POSTGRES_READ") as connection:
            assert values(connection, "select current_user") == {"ecom"}
            assert connection.execute("select * from patients").fetchall() == []
        with services.connect("POSTGRES_DASHBOARDS") as connection:
            assert values(connection, "select current_user") == {"ecom_read"}
            assert connection.execute("select * from reports.activity").fetchall() == []


@contextmanager
def running(log=Path(os.devnull)):
    """Runs the server of STACK_DIR until its logins work; writes its log to a file."""
    with log.open("w") as file, subprocess.Popen(services.postgres().command, stderr=file) as server:
        try:
            while services.lacks_login():
                assert server.poll() is None
                time.sleep(0.1)
            yield server
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()


# Creates data as the version before did, without sql/roles.sql.
ROLES_BEFORE = """\
create role ecom login;
create role healthcare_read;
create role ecom_read login in role healthcare_read;
create database ecomdb;
revoke all on database ecomdb from public;
grant connect, temporary on database ecomdb to ecom;
grant connect on database ecomdb to healthcare_read;
alter role ecom password '{POSTGRES_PASSWORD}';
alter role ecom_read password '{POSTGRES_READ_PASSWORD}';
"""
SCHEMAS_BEFORE = """\
alter schema public owner to ecom;
create schema ops authorization ecom;
create schema staging authorization ecom;
create schema reports authorization ecom;
"""


def test_data_made_before_gets_the_roles_and_keeps_what_it_has(tmp_path, monkeypatch):
    for name, value in {"USER": "ecom", "READ_USER": "ecom_read", "DB": "ecomdb", "PORT": free_ports(1)[0]}.items():
        monkeypatch.setenv(f"POSTGRES_{name}", str(value))
    monkeypatch.setenv("STACK_DIR", str(tmp_path / "stack"))
    prepare.state_directory()
    before = {"postgres": ROLES_BEFORE.format_map(os.environ), "ecomdb": SCHEMAS_BEFORE}
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "first_statements", lambda: before)
        prepare.database()
    (tmp_path / "stack" / "postgres" / prepare.ROLES).unlink()
    assert not prepare.has_roles()
    command = services.postgres().command
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            with retried() as connection:
                connection.execute("create table kept as select 1 as one")
                with pytest.raises(Refused, match=r"lacks the roles of sql/roles\.sql: `make down`, then `make up`"):
                    supervision.create_schema()
            with pytest.raises(SystemExit, match=r"lacks the roles of sql/roles\.sql: `make down`, then `make up`"):
                services.lacks_login()
        finally:
            server.send_signal(signal.SIGINT)
    for _ in range(2):
        prepare.roles()
        assert prepare.has_roles()
    with running():
        supervision.create_schema()
        with services.connect() as connection:
            assert values(connection, "select one from kept") == {1}
        with services.connect("POSTGRES_DASHBOARDS") as connection:
            assert connection.execute("select * from reports.activity").fetchall() == []
            assert values(connection, "select current_setting('temp_file_limit')") == {"5GB"}


def retried():
    for _ in range(100):
        try:
            return services.connect()
        except psycopg.OperationalError:
            time.sleep(0.1)
    return services.connect()
