"""Takes backups of PostgreSQL, the lake and Luigi's history: python -m stack.backup take DIRECTORY | scheduled."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from apscheduler.triggers.cron import CronTrigger

from jobs import borders, object_store, program, settings, warehouse
from jobs.program import Refused
from stack import archive, inventory, prepare, services
from stack.store import BUCKETS

MANIFEST = "manifest.json"
FORMAT = "healthcare-backup 1"
FILES = {"globals": "globals.sql", "warehouse": "warehouse.dump", "lake": "lake.tar", "history": "history.sql"}
# The names and roles that a backup refers to; .env must have the same ones where it is restored.
NAMES = ("POSTGRES_DB", "POSTGRES_USER", "POSTGRES_READ_USER", "POSTGRES_DASHBOARDS_USER", *BUCKETS)
BY_CLOCK = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{6}Z")  # names of scheduled backups
FAILED = "failed"  # holds the error of a scheduled backup that failed
LATE = timedelta(hours=2)
DAY = 86_400  # seconds


def take(target: Path, by_clock: bool = False) -> str:
    """Writes a complete backup, or none, while no run writes; returns a one-sentence summary."""
    keys = archive.recipients()
    if target.exists():
        raise Refused(f"{target} already exists: name a new directory.")
    partial = target.with_name(f"{target.name}.partial")
    partial.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        partial.mkdir(mode=0o700)
    except FileExistsError:
        raise Refused(
            f"{partial} is there: another backup is writing it, or one was killed; remove it if none runs."
        ) from None
    try:
        with warehouse.connect() as connection, warehouse.standstill(connection):
            manifest = copy(connection, partial, keys) | {"by_clock": by_clock}
            warehouse.must_hold(connection)
        write_manifest(partial, manifest)
        partial.rename(target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and not error.filename:
            raise Refused(f"{partial} cannot be written ({error.strerror or 'age ended'}); is its disk full?") from None
        raise
    amounts = inventory.amounts(manifest["inventory"])
    size = sum(facts["bytes"] for facts in manifest["files"].values())
    return (
        f"{target} holds gold ({amounts['gold']}), silver ({amounts['silver']}) and all that belongs to them: "
        f"{size / 1e6:,.1f} MB, {'encrypted' if keys else 'NOT encrypted, as BACKUP_RECIPIENT is empty'}"
    )


def copy(connection: warehouse.Connection, to: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Writes the files of a backup; returns its manifest of counts and checksums."""
    before = [archive.keys_of(object_store.s3(), settings.get(bucket)) for bucket in BUCKETS]
    paths = {part: to / f"{name}{archive.SUFFIX if keys else ''}" for part, name in FILES.items()}
    taken_at = datetime.now(timezone.utc)
    # Counts and dump must come from one snapshot.
    connection.execute("begin isolation level repeatable read read only")
    snapshot = warehouse.value(connection, "select pg_export_snapshot()")
    of_postgres = inventory.of_postgres(connection)
    server = warehouse.value(connection, "show server_version")
    database = ["--dbname", settings.get("POSTGRES_DB")]
    with archive.written(paths["globals"], keys) as stream:
        ask("pg_dumpall", stream, "--globals-only", "--no-role-passwords", "--database", settings.get("POSTGRES_DB"))
    with archive.written(paths["warehouse"], keys) as stream:
        words = ["--format=custom", f"--snapshot={snapshot}", "--exclude-table=staging.*"]
        ask("pg_dump", stream, *words, *database)
    connection.execute("commit")
    with archive.written(paths["lake"], keys) as stream:
        objects = archive.pack(stream, object_store.s3(), map(settings.get, BUCKETS))
    of_lake = inventory.of_lake(objects)
    history = inventory.history()
    with archive.written(paths["history"], keys) as stream:
        stream.write(history.encode())
    if before != [archive.keys_of(object_store.s3(), settings.get(bucket)) for bucket in BUCKETS]:
        raise Refused("Somebody changed the lake while it was read, without the locks of a run; take the backup again.")
    return {
        "format": FORMAT,
        "taken_at": taken_at.isoformat(timespec="seconds"),
        "versions": {
            "platform": version_of_platform(),
            "postgresql": server,
            "minio": prepare.MINIO,
            "spark": version("pyspark"),
            "delta": version("delta-spark"),
        },
        "names": {name: settings.get(name) for name in NAMES},
        "files": {
            path.name: {"bytes": path.stat().st_size, "sha256": archive.checksum(path)} for path in paths.values()
        },
        "inventory": {"postgres": of_postgres, "lake": of_lake, "history": inventory.of_history(history)},
    }


def version_of_platform() -> str:
    """Returns the commit of the clone, or the version in pyproject.toml if this is not a git clone."""
    with suppress(OSError):
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=settings.ROOT, capture_output=True, text=True
        )
        if asked.returncode == 0:
            return asked.stdout.strip()
    found = re.search(r'^version = "(.+)"', (settings.ROOT / "pyproject.toml").read_text(), re.M)
    return found[1] if found else "unknown"


def ask(name: str, to: IO[bytes], *words: str) -> None:
    """Runs a PostgreSQL client program as the loader and writes its output to a stream; raises Refused if it fails."""
    place = ["--host", settings.get("POSTGRES_HOST"), "--port", settings.get("POSTGRES_PORT")]
    command = [
        str(services.postgres_bin() / name),
        "--no-password",
        *place,
        "--username",
        settings.get("POSTGRES_USER"),
    ]
    tls = {name: settings.given(name) for name in ("PGSSLMODE", "PGSSLROOTCERT") if settings.given(name)}
    own = {"PGPASSFILE": str(services.password_file()), "PGREQUIREAUTH": settings.required_auth()}
    # Do not print its error output, which may quote a value.
    failed = subprocess.run(
        [*command, *words], stdout=to, stderr=subprocess.DEVNULL, env=services.base_environment() | tls | own
    ).returncode
    if failed:
        raise Refused(f"{name} could not read PostgreSQL, or not write the file; see PostgreSQL's log and the disk.")


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    with open(os.open(folder / MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(manifest, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads the manifest of a backup; raises Refused if the directory is not a backup."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["format"] == FORMAT:
            return dict(manifest)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise Refused(f"{folder} is not a backup that this version reads: it lacks a {MANIFEST} of the format {FORMAT!r}.")


# ---- schedule -----------------------------------------------------------------------------------------------------


def trigger() -> CronTrigger | None:
    """Returns the trigger for BACKUP_SCHEDULE, None if it is empty; raises Refused if it or BACKUP_KEEP is invalid."""
    crontab = settings.given("BACKUP_SCHEDULE").strip()
    keep()
    try:
        return CronTrigger.from_crontab(crontab, timezone=timezone.utc) if crontab else None
    except ValueError:
        raise Refused(
            f"BACKUP_SCHEDULE {borders.quoted(crontab)} is not a time of crontab's; write five fields, as in: "
            "30 2 * * *"
        ) from None


def keep() -> int:
    """Returns how many scheduled backups to keep."""
    text = settings.given("BACKUP_KEEP") or "7"
    if not text.isdecimal() or not 0 < int(text) <= 10_000:
        raise Refused(f"BACKUP_KEEP is {borders.quoted(text)}; write how many backups stay, as in: 7")
    return int(text)


def scheduled() -> str:
    """Takes a backup named by the time, then removes old ones; records a failure for `make health`."""
    folder = settings.path("BACKUP_DIR")
    try:
        done = take(folder / f"{datetime.now(timezone.utc):%Y-%m-%dT%H%M%SZ}", by_clock=True)
    except BaseException as error:
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            was = "it was ended" if isinstance(error, KeyboardInterrupt) else program.sentence(error)
            (folder / FAILED).write_text(was)
        raise
    (folder / FAILED).unlink(missing_ok=True)
    gone = prune(folder, keep())
    return done + (f"; {len(gone)} older removed" if gone else "")


def of_clock(folder: Path) -> list[Path]:
    """Lists the complete scheduled backups, oldest first; excludes those that a person named."""
    found = []
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        with suppress(Refused):
            if BY_CLOCK.fullmatch(path.name) and not path.is_symlink() and read_manifest(path)["by_clock"]:
                found.append(path)
    return found


def prune(folder: Path, number: int) -> list[Path]:
    """Removes all but the newest scheduled backups, and incomplete ones; returns the complete ones removed."""
    gone = of_clock(folder)[:-number]
    for path in gone:
        path.rename(path.with_name(f"{path.name}.partial"))  # a half-removed directory is not a backup
    for path in folder.glob("*.partial"):
        is_left = (path / MANIFEST).exists() or time.time() - path.stat().st_mtime > DAY
        if BY_CLOCK.fullmatch(path.stem) and not path.is_symlink() and is_left:
            shutil.rmtree(path)
    return gone


def problems() -> Iterator[str]:
    """Yields a line if the last scheduled backup failed, and one if the newest backup is overdue."""
    try:
        times = trigger()
    except Refused as error:
        yield str(error)
        return
    if times is None:
        return
    folder = settings.path("BACKUP_DIR")
    with suppress(OSError):
        yield f"the last backup failed: {borders.printable((folder / FAILED).read_text())}"
    backups = of_clock(folder)
    if not backups:
        yield f"there is no backup in {folder}, and BACKUP_SCHEDULE promises some; does `make schedule` run?"
        return
    taken_at = datetime.fromisoformat(read_manifest(backups[-1])["taken_at"])
    following = times.get_next_fire_time(None, taken_at + timedelta(seconds=1))
    if following and following + LATE < datetime.now(timezone.utc):
        yield f"the newest backup is of {taken_at:%Y-%m-%d %H:%M} UTC, and BACKUP_SCHEDULE promised one since"


def answer(words: list[str]) -> str:
    """Runs the command line; returns its summary sentence."""
    match words:
        case ["take", target] if target:
            return take(Path(target).absolute())
        case ["take", *_]:
            program.leave(2, "Say which directory, as in: make backup TO=backups/2026-01-31")
        case ["scheduled"]:
            return scheduled()
        case _:
            program.leave(2, str(__doc__))


def main(answer: Callable[[list[str]], str], interrupted: str) -> None:
    """Calls `answer` with the command line and prints its sentence; exits with a sentence on failure or interruption.

    Sets a umask that closes new files to other users, and treats SIGTERM like an interruption.
    """
    settings.load()
    os.umask(0o077)
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        borders.say(answer(sys.argv[1:]))
    except KeyboardInterrupt:
        program.leave(130, interrupted)
    except Exception as error:
        program.leave(1, program.sentence(error))


if __name__ == "__main__":
    main(answer, "Interrupted: there is no backup.")
