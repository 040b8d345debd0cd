"""Restores backups and compares the result: python -m stack.restore put DIRECTORY [--force] | drill DIRECTORY."""

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import psycopg

from jobs import borders, program, settings, warehouse
from jobs.program import Refused
from stack import archive, backup, inventory, own, prepare, services, store, supervision

# subdirectories of a stack; a restore is complete once the last is in place
PARTS = ("minio", "luigi", "dashboards", "postgres")


def put(source: Path, force: bool) -> str:
    """Stops this stack and restores a backup into it; keeps the old data until the new data is verified."""
    manifest = checked(source)
    for name in ("POSTGRES_HOST", "MINIO_ENDPOINT"):
        if settings.host_of(name) not in (services.LOOPBACK, "localhost"):
            raise Refused(f"{name} is not this machine's: a backup is restored into the embedded stack alone.")
    home = services.stack_dir()
    if ((home / "postgres").exists() or any((home / "minio").glob("*"))) and not force:
        raise Refused(
            f"{home} has a stack's data: `make clean` removes it, or give FORCE=1 to put the backup in its place."
        )
    if force and (home / prepare.MARKER).exists():
        (home / prepare.MARKER).write_text(f"{prepare.LAYOUT}\n")  # an interrupted restore has left another text
    prepare.state_directory()
    with prepare.alone(home / "up.lock"):
        supervision.sweep()
        new = home / "restored"
        shutil.rmtree(new, ignore_errors=True)
        try:
            with instead(STACK_DIR=str(new)):
                restore(source, manifest)
            swap(new, home)
        except Exception as error:
            raise Refused(
                f"{program.sentence(error)} The stack is unchanged and stopped; `make up` starts it."
            ) from None
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return f"The stack is what {source} has. `make up` starts it, and then `make dashboards` writes its pages."


def swap(new: Path, home: Path) -> None:
    """Replaces the stack's data with the restored data; if killed halfway, `make up` refuses to start the mixture."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    (home / prepare.MARKER).write_text(f"{prepare.RESTORING}\n")
    for name in PARTS:
        if (home / name).exists():
            (home / name).rename(new / f"{name}.before")
        (new / name).rename(home / name)
    (home / prepare.MARKER).write_text(f"{prepare.LAYOUT}\n")


def drill(source: Path) -> str:
    """Restores a backup into a separate stack, compares the result, and removes that stack; returns a summary."""
    began = time.monotonic()
    manifest = checked(source)
    home = Path(tempfile.mkdtemp(prefix="healthcare-drill-"))
    try:
        own.set_apart(home)
        restore(source, manifest)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    seconds = time.monotonic() - began
    return f"{source} can be restored: counts and checksums are those of {manifest['taken_at']} ({seconds:.0f} s)."


def checked(source: Path) -> dict[str, Any]:
    """Returns the manifest; raises Refused if a file is missing or damaged, .env names others, or the key is wrong."""
    manifest = backup.read_manifest(source)
    for name, facts in manifest["files"].items():
        path = source / name
        if not path.is_file():
            raise Refused(f"{source} is not a whole backup: it lacks {name}. Nothing was restored.")
        if archive.checksum(path) != facts["sha256"]:
            raise Refused(f"{source} is damaged: {name} is not the file that was written. Nothing was restored.")
    for name, value in manifest["names"].items():
        if settings.get(name) != value:
            raise Refused(f"The backup has {name}={value}: set that in .env, then restore it. Nothing was restored.")
    with archive.opened(source / part_of(manifest, backup.FILES["globals"])) as stream:
        stream.read()  # detects a wrong key before anything is stopped
    return manifest


@contextmanager
def instead(**environment: str) -> Iterator[None]:
    """Sets environment variables for the duration of the block."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ |= environment
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def restore(source: Path, manifest: dict[str, Any]) -> None:
    """Builds the stores of STACK_DIR from a backup and compares them with it; raises Refused if they differ."""
    prepare.state_directory()
    prepare.free_ports(["postgres", "minio"])
    prepare.database()
    names = {part: part_of(manifest, name) for part, name in backup.FILES.items()}
    with closed_socket() as (socket, options), serving("postgres", *options) as server:
        wait(server, lambda: psycopg.connect(**superuser(socket)).close(), psycopg.OperationalError)
        empty(socket)
        with archive.opened(source / names["globals"]) as stream:
            put_globals(socket, stream)
        with archive.opened(source / names["warehouse"]) as stream:
            run_client("pg_restore", socket, stream, "--create", "--exit-on-error", "--dbname=postgres")
        finish(socket)
        with serving("minio") as minio:
            wait(minio, must_answer, ConnectionError)
            store.create()
            with archive.opened(source / names["lake"]) as stream:
                archive.unpack(stream, store.root(), manifest["inventory"]["lake"]["objects"])
            with archive.opened(source / names["history"]) as stream:
                put_history(stream.read().decode())
            with warehouse.connect("POSTGRES", services.LOOPBACK) as connection:
                found = {
                    "postgres": inventory.of_postgres(connection),
                    "lake": inventory.of_lake(),
                    "history": inventory.of_history(inventory.history()),
                }
    report(manifest["inventory"], found, source)
    # `make up` applies sql/roles.sql to data without this file, as after an upgrade.
    (services.stack_dir() / "postgres" / prepare.ROLES).unlink(missing_ok=True)


def part_of(manifest: dict[str, Any], name: str) -> str:
    """Returns the name of a backup's file, encrypted or not."""
    return name if name in manifest["files"] else f"{name}{archive.SUFFIX}"


def report(expected: dict[str, Any], found: dict[str, Any], source: Path) -> None:
    """Prints a line for each compared group; raises Refused if any differs."""
    amounts, differs = inventory.amounts(found), inventory.compare(expected, found)
    for group, lines in differs.items():
        borders.say(f"  {group:<32}{amounts[group]:<74}{'DIFFERS' if lines else 'as in the backup'}")
    wrong = [
        f"{group}: {', '.join(lines[:5])}{', ...' if len(lines) > 5 else ''}"
        for group, lines in differs.items()
        if lines
    ]
    if wrong:
        raise Refused(f"What {source} restores is not what it was taken from: {'; '.join(wrong)}.")


# ---- servers -------------------------------------------------------------------------------------------------------


@contextmanager
def closed_socket() -> Iterator[tuple[Path, list[str]]]:
    """Creates a private directory for a socket, and the options that let PostgreSQL's superuser log in there."""
    folder = Path(tempfile.mkdtemp(prefix="healthcare-pg-"))  # socket paths are limited to about 100 characters
    try:
        rules = folder / "hba.conf"
        rules.write_text("local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        for path in (rules, folder):
            if as_other := services.unprivileged():
                os.chown(path, *(int(word.split("=")[1]) for word in as_other[1:3]))
        yield folder, ["-c", f"unix_socket_directories={folder}", "-c", f"hba_file={rules}"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serving(name: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a service of the stack without supervisord for the duration of the block."""
    service = services.SERVICES[name].program()
    log = services.stack_dir() / "logs" / f"{name}.log"
    with log.open("ab") as to:
        server = subprocess.Popen(
            [*service.command, *options],
            env=service.environment,
            cwd=services.stack_dir(),
            stdin=subprocess.DEVNULL,
            stdout=to,
            stderr=to,
        )
    try:
        yield server
    finally:
        server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait(server: subprocess.Popen[bytes], answers: Any, error: type[Exception]) -> None:
    """Waits until a server answers; raises Refused if it ends or takes longer than two minutes."""
    for _ in range(1200):
        try:
            answers()
            return
        except error:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    raise Refused(f"A server for the restored data does not start; see the logs in {services.stack_dir() / 'logs'}.")


def must_answer() -> None:
    """Raises ConnectionError unless MinIO answers."""
    if services.lacks_buckets():
        raise ConnectionError


# ---- PostgreSQL ----------------------------------------------------------------------------------------------------


def superuser(socket: Path) -> dict[str, Any]:
    return {
        "host": str(socket),
        "port": settings.get("POSTGRES_PORT"),
        "user": "postgres",
        "dbname": "postgres",
        "autocommit": True,
    }


def empty(socket: Path) -> None:
    """Drops the database and roles of a new server, so that it gets only those of the backup."""
    with psycopg.connect(**superuser(socket)) as connection:
        connection.execute(psycopg.sql.SQL("drop database {}").format(identifier("POSTGRES_DB")))
        roles = connection.execute("select rolname from pg_roles where rolname !~ '^pg_' and not rolsuper").fetchall()
        for (name,) in roles:
            connection.execute(psycopg.sql.SQL("drop role {}").format(psycopg.sql.Identifier(name)))


def identifier(setting: str) -> Any:
    return psycopg.sql.Identifier(settings.get(setting))


def put_globals(socket: Path, stream: IO[bytes]) -> None:
    """Creates roles, their memberships and settings; ignores that the superuser already exists."""
    told = run_client("psql", socket, stream, "--no-psqlrc", "--quiet", "-v", "VERBOSITY=sqlstate", "--dbname=postgres")
    codes = {line.split()[-1] for line in told.splitlines() if "ERROR:" in line or "FATAL:" in line}
    if codes - {"42710"}:
        raise Refused(f"PostgreSQL refused a role of the backup ({', '.join(sorted(codes - {'42710'}))}).")


def run_client(name: str, socket: Path, stream: IO[bytes], *words: str) -> str:
    """Runs a PostgreSQL client program as superuser with a stream as input; returns its standard error."""
    place = ["--host", str(socket), "--port", settings.get("POSTGRES_PORT"), "--username", "postgres", "--no-password"]
    run = subprocess.run(
        [str(services.postgres_bin() / name), *place, *words],
        stdin=stream,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=services.base_environment(),
        cwd=services.stack_dir(),
    )
    if run.returncode:  # do not print its error output, which may quote a value
        raise Refused(f"{name} could not put back the backup's part of PostgreSQL (code {run.returncode}).")
    return run.stderr.decode(errors="replace")


def finish(socket: Path) -> None:
    """Sets the roles' passwords from .env, and collects statistics, which restored tables lack."""
    with psycopg.connect(**superuser(socket)) as connection:
        known = {name for (name,) in connection.execute("select rolname from pg_roles")}
        for role in prepare.WITH_PASSWORD:
            if settings.get(f"{role}_USER") in known:
                connection.execute(prepare.password(role))
    with psycopg.connect(**superuser(socket) | {"dbname": settings.get("POSTGRES_DB")}) as connection:
        connection.execute("analyze")


def put_history(text: str) -> None:
    """Restores Luigi's history from SQL."""
    if text:
        inventory.history_file().unlink(missing_ok=True)
        with closing(sqlite3.connect(inventory.history_file())) as connection:
            connection.executescript(text)


def answer(words: list[str]) -> str:
    """Runs the command line; returns its summary sentence."""
    match words:
        case ["put", source, *force] if source and force in ([], ["--force"]):
            return put(Path(source).absolute(), bool(force))
        case ["drill", source] if source:
            return drill(Path(source).absolute())
        case ["put" | "drill" as verb, *_]:
            target = "restore" if verb == "put" else "restore-drill"
            program.leave(2, f"Say which backup, as in: make {target} FROM=backups/2026-01-31")
        case _:
            program.leave(2, str(__doc__))


if __name__ == "__main__":
    backup.main(answer, "Interrupted: nothing was put in the place of what is there.")
