"""Counts and checksums the content of the stores, without patient values, to verify a restored backup."""

import hashlib
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from jobs import delta_log, delta_tables, marts, object_store, settings, warehouse
from jobs.catalog import CATALOG
from stack import archive
from stack.store import BUCKETS

KINDS = ("accepted", "rejected")
SCHEMAS = ["public", "ops", "reports", "reference", "staging"]
OURS = "{}::regnamespace::text = any(%(schemas)s)"
# Describes the definitions and privileges in PostgreSQL, one line each. Staging tables are not backed up.
DEFINITIONS = {
    "roles": "select concat_ws(' ', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, "
    "rolreplication, rolbypassrls, rolconnlimit, rolvaliduntil) from pg_roles where rolname !~ '^pg_'",
    "memberships": "select distinct concat_ws(' ', member::regrole, 'in', roleid::regrole, admin_option) "
    "from pg_auth_members where member::regrole::text !~ '^pg_'",
    "settings of roles and databases": "select concat_ws(' ', nullif(setrole, 0)::regrole, datname, setting) "
    "from pg_db_role_setting left join pg_database as d on d.oid = setdatabase, unnest(setconfig) as setting "
    "where setdatabase = 0 or datname = current_database()",
    "rights": "select concat_ws(' ', thing, 'of', owner::regrole, grantee::regrole, privilege_type, is_grantable) "
    "from ("
    "select 'database ' || datname, datdba, coalesce(datacl, acldefault('d', datdba)) from pg_database "
    "where datname = current_database() union all "
    "select 'schema ' || nspname, nspowner, coalesce(nspacl, acldefault('n', nspowner)) from pg_namespace "
    "where nspname = any(%(schemas)s) union all "
    "select concat(relkind, ' ', oid::regclass), relowner, coalesce(relacl, "
    "acldefault(case relkind when 'S' then 's'::\"char\" else 'r' end, relowner)) from pg_class "
    f"where relkind in ('r', 'v', 'm', 'p', 'S') and {OURS.format('relnamespace')} "
    "and relnamespace <> 'staging'::regnamespace union all "
    "select 'function ' || oid::regprocedure, proowner, coalesce(proacl, acldefault('f', proowner)) from pg_proc "
    f"where {OURS.format('pronamespace')}"
    ") as things (thing, owner, acl), aclexplode(acl)",
    "columns": "select concat_ws(' ', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, "
    "attgenerated, attidentity, pg_get_expr(adbin, adrelid)) from pg_attribute join pg_class as c on c.oid = attrelid "
    "left join pg_attrdef on adrelid = attrelid and adnum = attnum where attnum > 0 and not attisdropped "
    f"and relkind in ('r', 'p') and {OURS.format('relnamespace')} and relnamespace <> 'staging'::regnamespace",
    "keys and constraints": "select concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)) "
    f"from pg_constraint where {OURS.format('connamespace')} and connamespace <> 'staging'::regnamespace",
    "indexes": "select pg_get_indexdef(indexrelid) from pg_index join pg_class as c on c.oid = indexrelid "
    f"where {OURS.format('relnamespace')} and relnamespace <> 'staging'::regnamespace",
    "triggers": "select concat_ws(' ', tgenabled, pg_get_triggerdef(oid)) from pg_trigger where not tgisinternal",
    "policies": "select concat_ws(' ', schemaname, tablename, policyname, permissive, roles, cmd, qual, with_check) "
    "from pg_policies union all select concat_ws(' ', oid::regclass, relrowsecurity, relforcerowsecurity) "
    f"from pg_class where relkind in ('r', 'p') and {OURS.format('relnamespace')} "
    "and relnamespace <> 'staging'::regnamespace",
    "views": "select concat_ws(' ', oid::regclass, md5(pg_get_viewdef(oid))) from pg_class "
    f"where relkind in ('v', 'm') and {OURS.format('relnamespace')}",
    "functions": "select concat_ws(' ', oid::regprocedure, md5(pg_get_functiondef(oid))) from pg_proc "
    f"where prokind in ('f', 'p') and {OURS.format('pronamespace')}",
}
GROUPS = {"gold": set(CATALOG), "marts": set(marts.selects())}


def of_postgres(connection: warehouse.Connection) -> dict[str, Any]:
    """Returns row count and checksum of each table, sequence values, and one line per definition and privilege."""
    for setting in ("datestyle to 'ISO, YMD'", "intervalstyle to 'postgres'", "extra_float_digits to 1"):
        connection.execute(f"set {setting}")
    schemas = {"schemas": SCHEMAS}
    names = connection.execute(
        "select oid::regclass::text from pg_class where relkind = 'r' and relnamespace <> 'staging'::regnamespace "
        f"and {OURS.format('relnamespace')} order by 1",
        schemas,
    ).fetchall()
    # A sum of row hashes does not depend on row order or server version.
    hashed = "('x' || left(md5(t::text), 16))::bit(64)::bigint::numeric"
    tables = {
        name: connection.execute(f"select count(*), coalesce(sum({hashed}), 0)::text from only {name} as t").fetchone()
        for (name,) in names
    }
    sequences = connection.execute(
        "select format('%%I.%%I', schemaname, sequencename), coalesce(last_value, 0) from pg_sequences "
        "where schemaname = any(%(schemas)s) and schemaname <> 'staging' order by 1",
        schemas,
    ).fetchall()
    return {
        "tables": {name: list(facts or ()) for name, facts in tables.items()},
        "sequences": dict(sequences),
        "definitions": {
            kind: sorted(line for (line,) in connection.execute(query, schemas)) for kind, query in DEFINITIONS.items()
        },
        "checks": checks(connection),
    }


def checks(connection: warehouse.Connection) -> dict[str, Any]:
    """Runs the platform's own checks: dates by ledger state, manual changes to gold, sql/checks."""
    dates = connection.execute(
        "select count(*), count(*) filter (where is_complete), count(*) filter (where is_balanced), "
        "count(*) filter (where is_current) from ops.dates"
    ).fetchone()
    unaccounted = connection.execute("select dataset from ops.unaccounted order by 1").fetchall()
    try:
        marts.check(connection)
        violations = ""
    except marts.InvariantViolated as error:
        violations = str(error)
    return {
        "dates": dict(zip(("known", "complete", "balanced", "current"), dates or (), strict=True)),
        "gold changed by hand": [name for (name,) in unaccounted],
        "sql/checks": violations,
    }


def of_lake(objects: archive.Objects | None = None) -> dict[str, Any]:
    """Lists the objects of both buckets (unless given), and version, files and rows of each Delta table."""
    tables = {}
    for dataset in CATALOG.values():
        for kind in KINDS:
            if delta_tables.has_silver(dataset, kind):
                live = delta_log.live_files(dataset, kind)
                version = delta_log.last_commit(dataset, kind).version
                tables[f"{dataset.name}, {kind}"] = [version, len(live), sum(live.values())]
    return {"objects": objects if objects is not None else read_objects(), "delta": tables}


def read_objects() -> archive.Objects:
    found: archive.Objects = {}
    for bucket in map(settings.get, BUCKETS):
        found[bucket] = {}
        for key in sorted(archive.keys_of(object_store.s3(), bucket)):
            body = archive.Hashed(object_store.s3().get_object(Bucket=bucket, Key=key)["Body"])
            while body.read(1 << 20):
                pass
            found[bucket][key] = body.facts()
    return found


def history_file() -> Path:
    """Returns the path of Luigi's task history; the file exists only if luigid belongs to this stack."""
    return settings.path("STACK_DIR") / "luigi" / "history.db"


def of_history(text: str) -> dict[str, Any]:
    """Returns the row count of each history table in a SQL dump, and the checksum of the dump."""
    with closing(sqlite3.connect(":memory:")) as memory:
        memory.executescript(text)
        names = memory.execute("select name from sqlite_master where type = 'table' order by 1").fetchall()
        rows = {name: memory.execute(f'select count(*) from "{name}"').fetchone()[0] for (name,) in names}
    return {"rows": rows, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def history() -> str:
    """Dumps Luigi's history as SQL in one transaction; returns an empty text if there is none."""
    if not history_file().is_file():
        return ""
    with closing(sqlite3.connect(f"{history_file().as_uri()}?mode=ro", uri=True, isolation_level=None)) as connection:
        connection.execute("begin")
        return "\n".join(connection.iterdump())


def compare(expected: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, list[str]]:
    """Compares a backup's inventory with that of the stores; returns the differences of each group as sentences."""
    differs: dict[str, list[str]] = {}
    tables = expected["postgres"]["tables"]
    for name in sorted({*tables, *found["postgres"]["tables"]}):
        group = next((group for group, names in GROUPS.items() if name in names), "ops")
        was, is_now = tables.get(name), found["postgres"]["tables"].get(name)
        differs.setdefault(group, []).extend(rows_differ(name, was, is_now))
    was, is_now = expected["postgres"]["sequences"], found["postgres"]["sequences"]
    # A run that waited for the backup to end may have advanced a sequence, so only lower values differ.
    differs["sequences"] = [name for name in was if is_now.get(name, -1) < was[name]]
    for kind, lines in expected["postgres"]["definitions"].items():
        answers = found["postgres"]["definitions"].get(kind, [])
        differs[kind] = [f"lacks {line}" for line in lines if line not in answers]
        differs[kind] += [f"has besides {line}" for line in answers if line not in lines]
    for bucket, objects in expected["lake"]["objects"].items():
        answers = found["lake"]["objects"].get(bucket, {})
        names = sorted({*objects, *answers})
        differs[bucket] = [name for name in names if list(objects.get(name, ())) != list(answers.get(name, ()))]
    was, is_now = expected["lake"]["delta"], found["lake"]["delta"]
    differs["silver"] = [
        f"{name} (version, files, rows: {is_now.get(name)}, in the backup {was.get(name)})"
        for name in sorted({*was, *is_now})
        if was.get(name) != is_now.get(name)
    ]
    differs["Luigi's history"] = [] if expected["history"] == found["history"] else ["its rows"]
    was, is_now = expected["postgres"]["checks"], found["postgres"]["checks"]
    differs["checks"] = [
        f"{name}: {is_now[name]}, in the backup {was[name]}" for name in was if was[name] != is_now[name]
    ]
    return differs


def rows_differ(name: str, was: list[Any] | None, is_now: list[Any] | None) -> list[str]:
    """Compares row count and checksum of a table; returns the differences as sentences."""
    if was is None or is_now is None:
        return [f"{name} ({'is missing' if is_now is None else 'is not in the backup'})"]
    if was[0] != is_now[0]:
        return [f"{name} ({is_now[0]:,} rows, in the backup {was[0]:,})"]
    return [] if was == is_now else [f"{name} (as many rows, with other values)"]


def amounts(of: Mapping[str, Any]) -> dict[str, str]:
    """Describes the size of each group in words."""
    words = {}
    for group in (*GROUPS, "ops"):
        others = set().union(*GROUPS.values())
        tables = {
            name: facts
            for name, facts in of["postgres"]["tables"].items()
            if (name in GROUPS[group] if group in GROUPS else name not in others)
        }
        words[group] = f"{len(tables)} tables, {sum(rows for rows, _ in tables.values()):,} rows"
    words["sequences"] = f"{len(of['postgres']['sequences'])}"
    words |= {kind: f"{len(lines):,}" for kind, lines in of["postgres"]["definitions"].items()}
    for bucket, objects in of["lake"]["objects"].items():
        words[bucket] = f"{len(objects):,} objects, {sum(size for size, _ in objects.values()):,} bytes"
    delta = of["lake"]["delta"].values()
    words["silver"] = f"{len(delta)} Delta tables, {sum(rows for *_, rows in delta):,} rows"
    words["Luigi's history"] = f"{sum(of['history']['rows'].values()):,} rows"
    dates = of["postgres"]["checks"]["dates"]
    words["checks"] = ", ".join(f"{number} dates {state}" for state, number in dates.items())
    return words
