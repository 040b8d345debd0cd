"""Replaces the platform's passwords and keys with random ones: `make secrets`.

`.env` is the source of truth; every store follows it. PostgreSQL's roles are altered if the server runs, else when
`make up` starts it (stack/prepare.py). MinIO's root user, Spark and Luigi get their secrets at start; MinIO's other
users are recreated by each `make up` (stack/store.py).

New values are written to `.env.new` before any store gets one, so that a crash between two steps locks nobody out: the
next `make secrets` or `make up` continues with the same values, and every step is idempotent.
"""

import fcntl
import os
import secrets
import socket
import tempfile
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import yaml
from dotenv import dotenv_values, set_key
from psycopg import sql

from jobs import settings
from jobs.program import Refused, sentence
from stack import prepare, services

# The setting that tells where the server of each secret runs.
SERVER = {"POSTGRES": "POSTGRES_HOST", "MINIO": "MINIO_ENDPOINT", "SPARK": "SPARK_CONNECT_HOST", "LUIGI": "LUIGI_HOST"}
METABASE = "metabase"  # Metabase's own role and database in PostgreSQL (conf/containers/postgres.sh)


def env_file() -> Path:
    """Returns the file that holds the secrets, with links resolved."""
    return (settings.ROOT / ".env").resolve()


def journal() -> Path:
    """Returns the file that holds the new secrets until every store has them."""
    return env_file().with_name(f"{env_file().name}.new")


@contextmanager
def alone() -> Iterator[None]:
    """Lets one process at a time change `.env`."""
    directory = os.open(settings.ROOT, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def replace(given: Container[str]) -> None:
    """Replaces every secret of this machine's servers in `.env` and in the stores; restarts a running stack."""
    from stack import supervision

    if beating := [name for name in settings.SECRETS if name in given]:
        raise SystemExit(
            f"The environment sets {', '.join(beating)}, which overrides .env: unset it, then `make secrets`."
        )
    if not env_file().exists():
        raise SystemExit("There is no .env yet: `make install` creates it.")
    try:
        with alone():
            if not journal().exists():
                refuse_during_a_run()
                values, kept = chosen()
                check_logins(values)
                write(journal(), values)
            else:
                values, kept = pending(), []
            runs = bool(supervision.processes())
            answers = postgres_answers()
            complete(values)
    except (Refused, psycopg.Error, OSError) as error:
        raise SystemExit(sentence(error)) from None
    print(f"{len(values)} secrets are random now, in .env and nowhere else to read: {', '.join(values)}.")
    for line in kept:
        print(line)
    if runs:
        supervision.up()
    elif answers:
        print("The containers run with the old ones until `make up-docker`.")
    else:
        print("Stores that are down take them at the next `make up`.")


def settle(given: Container[str]) -> None:
    """Completes `.env` before a start: finishes an interrupted `make secrets`, adds missing secrets, closes the file.

    Skips secrets that the environment provides (`given`).
    """
    if not env_file().exists():
        return
    with alone():
        if env_file().stat().st_mode & 0o077 and env_file().stat().st_uid == os.geteuid():
            env_file().chmod(0o600)
        try:
            if journal().exists() and not any(name in given for name in settings.SECRETS):
                complete(pending())
                print("A `make secrets` that had been interrupted is done.")
            elif values := {name: new_secret() for name in missing()}:
                write(env_file(), values)
                os.environ |= values
                print(f".env lacked {', '.join(values)}: random ones are in it now.")
        except (Refused, psycopg.Error, OSError) as error:
            raise SystemExit(sentence(error)) from None


def complete(values: Mapping[str, str]) -> None:
    """Gives the stores the secrets of the journal, then makes the journal the new `.env`; every step is idempotent."""
    from stack import supervision

    alter_roles(values)
    if supervision.processes():
        supervision.sweep()
    publish()
    os.environ |= values


def publish() -> None:
    """Replaces `.env` with the journal."""
    os.replace(journal(), env_file())
    sync(env_file().parent)


# ---- secrets and their values --------------------------------------------------------------------------------------


def new_secret() -> str:
    """Returns 128 random bits in letters that need no quoting in configurations, URLs or password rules."""
    return secrets.token_hex(16)


def missing() -> list[str]:
    """Lists the secrets missing from both `.env` and the environment, except the optional reader's."""
    return [name for name in settings.SECRETS if name not in os.environ and name != "MINIO_READ_SECRET_KEY"]


def chosen() -> tuple[dict[str, str], list[str]]:
    """Returns a new value for each replaceable secret, and a sentence for each of the others.

    An empty value stays empty: that secret is managed elsewhere.
    """
    wanted = [name for name in settings.SECRETS if settings.given(name) or name in missing()]
    kept = []
    for group, server in SERVER.items():
        theirs = [name for name in wanted if name.startswith(f"{group}_")]
        if theirs and not settings.is_loopback(settings.host_of(server)):
            wanted = [name for name in wanted if name not in theirs]
            kept.append(f"{', '.join(theirs)} stay: {server} is another machine; change them there, then in .env.")
    for name, reason in of_metabase():
        if name in wanted:
            wanted.remove(name)
            kept.append(f"{name} stays: {reason}.")
    values = {name: new_secret() for name in wanted}
    if settings.given("MINIO_ACCESS_KEY") == settings.given("MINIO_ROOT_USER") and "MINIO_SECRET_KEY" in values:
        values["MINIO_SECRET_KEY"] = values["MINIO_ROOT_PASSWORD"]  # the jobs use the root user
    return values, kept


def of_metabase() -> Iterator[tuple[str, str]]:
    """Yields each of Metabase's secrets that this command cannot replace, with the reason."""
    known = {name for name in settings.SECRETS if name not in os.environ} | {*settings.known_secrets()}
    if is_open("METABASE_URL", 3000):
        yield "METABASE_PASSWORD", "Metabase has it; change it there (account settings), then in .env"
    elif "METABASE_PASSWORD" not in known:
        yield "METABASE_PASSWORD", "Metabase does not answer; change it there once it does, then in .env"
    has_database = has_role(METABASE, {})
    if has_database:
        told = "Metabase's database is encrypted with it; docs/access.md says how to change it"
        yield "METABASE_ENCRYPTION_KEY", told
    elif "METABASE_ENCRYPTION_KEY" not in known:
        yield "METABASE_ENCRYPTION_KEY", "Metabase's database may be encrypted with it, and does not answer"
    if not has_database and "METABASE_DB_PASSWORD" not in known:
        yield "METABASE_DB_PASSWORD", "Metabase's database does not answer; it is replaced while the containers run"


def pending() -> dict[str, str]:
    """Returns the secrets of an interrupted `make secrets`, after rewriting its journal from today's `.env`."""
    old, new = dotenv_values(env_file()), dotenv_values(journal())
    values = {name: value for name in settings.SECRETS if (value := new.get(name)) and value != old.get(name)}
    write(journal(), values)
    return values


def write(target: Path, values: Mapping[str, str]) -> None:
    """Writes `.env` with these values atomically to a file of mode 0600; leaves all other lines unchanged."""
    with tempfile.TemporaryDirectory(dir=env_file().parent, prefix=".env.") as directory:  # mode 0700
        new = Path(directory, "env")
        new.touch(mode=0o600)
        new.write_bytes(env_file().read_bytes())
        for name, value in values.items():
            set_key(new, name, value, quote_mode="never")
        sync(new)
        os.replace(new, target)
        sync(target.parent)


def sync(path: Path) -> None:
    """Flushes a file or directory to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


# ---- PostgreSQL -----------------------------------------------------------------------------------------------------


def roles(values: Mapping[str, str]) -> Iterator[tuple[str, str, str, str, str]]:
    """Yields (setting, role, database, old password, new password) for each role to alter."""
    example = dotenv_values(settings.ROOT / ".env.example")
    names = {f"{role}_PASSWORD": settings.get(f"{role}_USER") for role in prepare.WITH_PASSWORD}
    if has_role(METABASE, values):
        names["METABASE_DB_PASSWORD"] = METABASE
    for name, role in names.items():
        if name in values:
            database = METABASE if role == METABASE else settings.get("POSTGRES_DB")
            old = dotenv_values(env_file()).get(name) or example.get(name) or ""
            yield name, role, database, old, values[name]


def check_logins(values: Mapping[str, str]) -> None:
    """Raises Refused before any change if PostgreSQL answers but a role cannot log in to be altered."""
    if not postgres_answers():
        own = [name for name in values if name.startswith("POSTGRES_") and settings.given(name)]
        if not (services.stack_dir() / "postgres").exists() and not {*own} <= {*settings.known_secrets()}:
            raise Refused(
                "PostgreSQL does not answer, this clone's stack has no data, and .env has secrets of its own: start "
                "the containers that have them (`make up-docker`), then `make secrets`."
            )
        return
    for name, role, database, old, _ in roles(values):
        if not lets_in(role, database, old):
            raise Refused(
                f"PostgreSQL refuses {role} with {name} of .env, so nothing was changed: `make down`, then "
                "`make secrets`; in containers docs/access.md says how to set it."
            )


def alter_roles(values: Mapping[str, str]) -> None:
    """Gives each role its new password if PostgreSQL answers; skips a role that already has it.

    Sends the server a SCRAM verifier, so that no password can reach its log.
    """
    if not postgres_answers():
        return
    prepare.forget_passwords()
    for name, role, database, old, new in roles(values):
        if lets_in(role, database, new):
            continue
        connection = login(role, database, old)
        if connection is None:
            raise Refused(
                f"PostgreSQL refuses {role} with the old {name} and the new one: `make down`, then `make up`; in "
                "containers docs/access.md says how to set it."
            )
        with connection:
            verifier = connection.pgconn.encrypt_password(new.encode(), role.encode(), b"scram-sha-256").decode()
            statement = sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(verifier))
            connection.execute(statement)


def lets_in(role: str, database: str, password: str) -> bool:
    """Tells whether PostgreSQL accepts a role's password."""
    if connection := login(role, database, password):
        connection.close()
    return connection is not None


def has_role(role: str, values: Mapping[str, str]) -> bool:
    """Tells whether PostgreSQL answers and has this role, asking as the loader with its old or new password."""
    for password in (settings.given("POSTGRES_PASSWORD"), values.get("POSTGRES_PASSWORD", "")):
        if postgres_answers() and (connection := loader(password)):
            with connection:
                return bool(connection.execute("select to_regrole(%s) is not null", [role]).fetchone()[0])
    return False


def refuse_during_a_run() -> None:
    """Raises Refused if a run or another writer is active, since a restart would end it."""
    if postgres_answers() and (connection := loader(settings.given("POSTGRES_PASSWORD"))):
        with connection:
            locks = "select count(*) from pg_locks where locktype = 'advisory'"
            if connection.execute(locks).fetchone()[0]:
                raise Refused("A run is at work, which a restart would end: wait for its end, then `make secrets`.")


def loader(password: str) -> Any:
    return login(settings.get("POSTGRES_USER"), settings.get("POSTGRES_DB"), password)


def login(role: str, database: str, password: str) -> Any:
    """Returns a connection of a role, or None if the server rejects the password or does not know the role."""
    try:
        return psycopg.connect(
            host=settings.get("POSTGRES_HOST"),
            port=settings.get("POSTGRES_PORT"),
            user=role,
            password=password,
            dbname=database,
            require_auth=settings.required_auth(),
            connect_timeout=5,
            autocommit=True,
            options="-c default_transaction_read_only=off",
        )
    except psycopg.OperationalError as error:
        if "authentication failed" in str(error):
            return None
        raise


def postgres_answers() -> bool:
    """Tells whether a server listens at POSTGRES_HOST on this machine."""
    return settings.is_loopback(settings.get("POSTGRES_HOST")) and is_open(
        "POSTGRES_HOST", int(settings.get("POSTGRES_PORT"))
    )


def is_open(setting: str, port: int) -> bool:
    """Tells whether a server listens at the host named by a setting."""
    try:
        socket.create_connection((settings.host_of(setting), port), timeout=5).close()
    except OSError:
        return False
    return True


# ---- known passwords ------------------------------------------------------------------------------------------------


def notice() -> str:
    """Returns a warning that known passwords are in use, with the next step; "" if none is."""
    known = settings.known_secrets()
    if not known:
        return ""
    return (
        f"Known passwords of .env.example are in use ({len(known)}, {known[0]} among them): where anybody else can log "
        "in to this machine, run `make secrets` (docs/access.md)."
    )


def refuse_published(text: str) -> None:
    """Exits with a sentence if containers would publish a port beyond loopback while a known password is in use.

    `text` is `.env`, a line `---`, and the output of `docker compose config`.
    """
    env, _, config = text.partition("\n---\n")
    containers = (yaml.safe_load(config) or {}).get("services") or {}
    if not containers:
        raise SystemExit(
            "`docker compose config` names no service: see what it says against docker-compose.yml and .env."
        )
    values = [value or "" for name, value in dotenv_values(stream=StringIO(env)).items() if name in settings.SECRETS]
    addresses: dict[str, str] = {}
    for name, container in containers.items():
        environment = container.get("environment") or {}
        pairs = (
            environment.values() if isinstance(environment, dict) else (line.partition("=")[2] for line in environment)
        )
        values += map(str, pairs)
        addresses |= {f"port {port} of {name}": host for port, host in map(published, container.get("ports") or [])}
        if container.get("network_mode") == "host":
            addresses[f"network_mode: host of {name}"] = ""
    settings.refuse_open(addresses, values)


def published(port: Any) -> tuple[str, str]:
    """Returns the port and host address of an entry under `ports`, in Compose's short or long form."""
    if isinstance(port, dict):
        return str(port.get("published", port.get("target"))), port.get("host_ip", "")
    host, _, rest = str(port).rpartition(":")[0].rpartition(":")
    return rest or str(port), host
