"""Measures whole dates against two peers that do the same work: `make bench [SCALES="1 10 100"] [REPEATS=3]`.

A whole date runs from bronze to marts. With ALONE=1, measures only the platform, its cold first date and the next one,
and what each spills, at sizes that the peers cannot complete.

Uses its own stack in `.bench`, so that no other data is touched. Exits with a sentence if the platform and the peers
disagree about the rows. docs/benchmarks.md describes what is measured.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
from psycopg2.extras import RealDictCursor

from benchmarks import peer, report
from benchmarks.watch import watch
from jobs import example_export, exports, landing, settings
from jobs.catalog import CATALOG
from jobs.object_store import s3
from stack import own, prepare, services

HOME = settings.ROOT / ".bench"
DAY = date(2026, 1, 1)  # the generator's start date, with the full volumes
PACKAGES = ("pyspark", "delta-spark", "luigi", "pandas", "pyarrow", "psycopg2-binary", "duckdb")
SIZES = ("spark.cores.max", "spark.executor.cores", "spark.executor.memory")
# Ordinary dates belong to the hospital whose history is the first date of this scale.
ORDINARY, DATES, BACKFILL = "1", 5, 30
LAST_PLACE = Decimal("0.0001")  # averages have four decimals
AVERAGES = ("avg_length_of_stay_days", "avg_los_days")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.bench", description=__doc__)
    parser.add_argument("--scales", default="1 10 100", help="scales of the generator (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each but the cold one (default: %(default)s)")
    parser.add_argument("--alone", action="store_true", help="the platform's first date and the next, no peers")
    given = parser.parse_args()
    if sys.version_info < (3, 11):
        raise SystemExit("The DuckDB peer needs DuckDB 2, and that Python 3.11: make PYTHON=/path/to/python3.11 bench.")
    with own_stack():
        for scale in given.scales.split():
            for done in alone(scale) if given.alone else [bench(scale, given.repeats)]:
                report.put(about() | {"scale": scale, "repeats": 1 if given.alone else given.repeats} | done)
                report.main()
    print(f"The tables are in {report.PAGE.relative_to(settings.ROOT)}.")


# ---- the stack -----------------------------------------------------------------------------------------------------


@contextmanager
def own_stack() -> Iterator[None]:
    """Points this process at a stopped stack in HOME with the peers' databases; removes the stack at the end."""
    own.set_apart(HOME)
    # The peers have their own buckets, for which the jobs' user has no privileges.
    root = ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")
    os.environ |= dict(zip(("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"), map(settings.get, root), strict=True))
    if HOME.exists():  # left by a killed benchmark
        stack("clean")
        shutil.rmtree(HOME)
    HOME.mkdir(mode=0o700)
    (HOME / ".gitignore").write_text("*\n")
    try:
        say("making the stack")
        stack("up")  # keeps one-time builds and downloads out of the measurements
        for name in peer.PEERS:
            s3().create_bucket(Bucket=peer.bucket(name))
        stack("down")
        create_databases()
        yield
    finally:
        stack("clean")
        shutil.rmtree(HOME)


def stack(verb: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "stack", verb], cwd=settings.ROOT, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise SystemExit(f"The benchmark's stack: {verb} failed.\n{run.stdout}{run.stderr}")


def create_databases() -> None:
    """Creates the peers' databases; only the server itself in single-user mode may create one."""
    owner = settings.get("POSTGRES_USER")
    names = [peer.database(name) for name in (*peer.PEERS, "limits")]
    lines = [f'create database {name} owner "{owner}"' for name in names] + [f'grant pg_checkpoint to "{owner}"']
    data = str(services.stack_dir() / "postgres")
    command = [*services.unprivileged(), str(services.postgres_bin() / "postgres"), "--single", "-D", data, "postgres"]
    text, environment = "".join(f"{line};\n" for line in lines), services.base_environment()
    run = subprocess.run(command, input=text, env=environment, capture_output=True, text=True, cwd="/", check=False)
    if run.returncode or "ERROR:" in run.stderr:
        raise SystemExit(f"The peers' databases could not be created.\n{run.stderr}")


# ---- measurements --------------------------------------------------------------------------------------------------


def generate(scale: str, day: date = DAY) -> None:
    os.environ["LANDING_DIR"] = str(HOME / "landing" / scale)
    say(f"scale {scale}: generating {day}")
    command = [sys.executable, "-m", "jobs.generate", str(day), "--scale", scale, "--start", str(DAY)]
    subprocess.run(command, cwd=settings.ROOT, check=True, capture_output=True)


@contextmanager
def by_source() -> Iterator[None]:
    """Points this process at a landing directory with the first date's export, made once from its five files."""
    files = settings.path("LANDING_DIR")
    os.environ["LANDING_DIR"] = f"{files}-source"
    if not exports.folder(DAY, example_export.NAME).exists():
        say(f"exporting {DAY}")
        export(DAY, files)
    try:
        yield
    finally:
        os.environ["LANDING_DIR"] = str(files)


def export(day: date, landed: Path) -> None:
    """Lands a date as the example source's export, written from the five files in the landing directory `landed`."""
    example_export.write_export(day, landed / landing.folder(day), exports.folder(day, example_export.NAME))


def alone(scale: str) -> Iterator[dict[str, Any]]:
    """Measures the first date of a scale on a newly started stack, and the next date with a 730th of its rows."""
    for what, day in (("alone", DAY), ("next date", DAY + timedelta(1))):
        generate(scale, day)
        stack("up")
        measured = run_platform(day)
        say(f"scale {scale}: platform, {what}: {measured['seconds']:.1f} s")
        kept = {name: value for name, value in measured.items() if name not in ("output", "began_at")}
        found = {"who": "platform", "what": what, "repeat": 1, "spilled_bytes": spilled()} | kept
        yield {"disk_bytes": disk(), "measurements": [found]}
    clear(scale)


def spilled() -> int:
    """Returns the bytes that the last thousand stages of the Spark Connect server spilled, from its own page.

    The history server retains less: for an endless application, only its last event files.
    """
    [app] = (app["id"] for app in services.resident())
    stages = f"{services.resident_page()}/api/v1/applications/{app}/stages"
    with urllib.request.urlopen(stages, timeout=120) as answer:
        return sum(stage["diskBytesSpilled"] for stage in json.load(answer))


def disk() -> dict[str, int]:
    """Returns bytes at rest: both buckets, PostgreSQL's gold and marts with indexes, and staged rows."""
    held = {}
    for layer in ("bronze", "silver"):
        pages = s3().get_paginator("list_objects_v2").paginate(Bucket=settings.get(f"MINIO_BUCKET_{layer.upper()}"))
        held[layer] = sum(entry["Size"] for page in pages for entry in page.get("Contents", []))
    for schema in ("public", "staging", "ops"):
        [row] = query(
            settings.get("POSTGRES_DB"),
            "select coalesce(sum(pg_total_relation_size(oid)), 0)::bigint as bytes from pg_class "
            "where relnamespace = %s::regnamespace and relkind = 'r'",
            [schema],
        )
        held[schema] = row["bytes"]
    return held


def size_of(scale: str) -> dict[str, Any]:
    """Returns rows and bytes of the scale's files."""
    rows = {name: sum(hits_of_silver(name)) for name in CATALOG}
    size = sum(landing.landing_path(dataset, DAY).stat().st_size for dataset in CATALOG.values())
    return {"rows": rows, "bytes": size}


def clear(scale: str) -> None:
    """Empties, stops and removes the stack and the files of one scale."""
    empty_platform()
    for name in peer.PEERS:
        empty_peer(name)
    stack("down")
    shutil.rmtree(HOME / "landing" / scale)
    shutil.rmtree(HOME / "landing" / f"{scale}-source", ignore_errors=True)


def bench(scale: str, repeats: int) -> dict[str, Any]:
    """Returns all measurements of one scale; starts and ends with a stopped, empty stack.

    Long because it lists the scenarios in the order in which they run.
    """
    generate(scale)
    found: list[dict[str, Any]] = []

    def note(who: str, what: str, repeat: int, measured: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in measured.items() if name not in ("output", "began_at", "hits")}
        found.append({"who": who, "what": what, "repeat": repeat} | kept)
        layers = ", ".join(f"{name} {seconds:.1f}" for name, seconds in kept.get("stages", {}).items())
        say(f"scale {scale}, {repeat}: {who}, {what}: {kept['seconds']:.1f} s ({layers})")
        return measured

    note("platform", "make up", 0, watch([sys.executable, "-m", "stack", "up"], own="client"))
    note("platform", "cold run", 0, run_platform())
    for repeat in range(1, repeats + 1):
        empty_platform()
        note("platform", "first load", repeat, run_platform())
        note("platform", "forced rerun", repeat, run_platform(DAY, "--force"))
        reference, hits = contents(settings.get("POSTGRES_DB")), platform_hits()
        for name in peer.PEERS:
            empty_peer(name)
            for what in ("first load", "rerun"):
                done = note(name, what, repeat, run_peer(name))
                must_agree(name, reference, contents(peer.database(name)), hits, done["hits"])
        note("limits", "limits", repeat, run_limits())
        with one_per_cent_changed():
            note("platform", "one per cent changed", repeat, run_platform())
            done = note("duckdb", "one per cent changed", repeat, run_peer("duckdb"))
        changed, changed_hits = contents(settings.get("POSTGRES_DB")), platform_hits()
        if changed == reference:
            raise SystemExit("One per cent of the rows changed, and nothing in gold: the change did not arrive.")
        must_agree("duckdb", changed, contents(peer.database("duckdb")), changed_hits, done["hits"])
        empty_platform()
        with by_source():
            note("platform", "first load by source", repeat, run_platform())
        must_agree("source", reference, contents(settings.get("POSTGRES_DB")), hits, platform_hits())
    size = size_of(scale)
    if scale == ORDINARY:
        empty_platform()
        note("platform", "first load", repeats + 1, run_platform())
        days = [DAY + timedelta(number) for number in range(1, 2 * DATES + BACKFILL + 1)]
        for day in days:
            generate(scale, day)
        for number in range(DATES):  # in turn, so that both have the same history
            day, other = days[2 * number : 2 * number + 2]
            note("platform", "ordinary date", number + 1, run_make(day, "run", f"DATE={day}"))
            export(other, settings.path("LANDING_DIR"))
            for dataset in CATALOG.values():
                landing.landing_path(dataset, other).unlink()
            note("platform", "ordinary date by source", number + 1, run_make(other, "run", f"DATE={other}"))
        since, until = days[2 * DATES], days[-1]
        note("platform", "backfill", 1, run_make(since, "backfill", f"FROM={since}", f"TO={until}"))
    clear(scale)
    return size | {"measurements": found}


def run_platform(day: date = DAY, *options: str) -> dict[str, Any]:
    """Measures one date through all layers; the ledger gives the seconds per layer, its rows and revalidated rows."""
    return run_watched(day, sys.executable, "-m", "pipelines", "run", str(day), *options)


def run_make(day: date, *words: str) -> dict[str, Any]:
    """Measures a make target that runs dates, including the check of the stack and the pages, and counts Spark jobs."""
    before = spark_jobs()
    measured = run_watched(day, "make", *words)
    return measured | {"spark_jobs": spark_jobs() - before}


def spark_jobs() -> int:
    """Counts the Spark jobs that the Spark Connect server has started so far."""
    [app] = (app["id"] for app in services.resident())
    with urllib.request.urlopen(f"{services.resident_page()}/api/v1/applications/{app}/jobs", timeout=120) as answer:
        return max((job["jobId"] + 1 for job in json.load(answer)), default=0)


def run_watched(day: date, *command: str) -> dict[str, Any]:
    """Measures a command that runs dates, starting with `day`; reads rows and seconds from the ledger.

    A source's conversion counts as bronze.
    """
    checkpoint()
    measured = watch(command, own="luigi and jobs")
    rows = query(
        settings.get("POSTGRES_DB"),
        "select case layer when 'source' then 'bronze' else layer end as layer, dataset, partition_date, "
        "accepted + rejected as validated, "
        "extract(epoch from started_at)::float as began, extract(epoch from ended_at)::float as ended "
        "from ops.ledger where outcome = 'done' and extract(epoch from started_at) >= %s order by started_at",
        [measured["began_at"]],
    )
    layers: dict[str, list[tuple[float, float]]] = {}
    busy: dict[str, dict[str, float]] = {}
    for row in rows:
        layers.setdefault(row["layer"], []).append((row["began"], row["ended"]))
        datasets = busy.setdefault(row["layer"], {})
        datasets[row["dataset"]] = round(datasets.get(row["dataset"], 0) + row["ended"] - row["began"], 3)
    stages = {
        layer: round(max(ended for _, ended in spans) - min(began for began, _ in spans), 3)
        for layer, spans in layers.items()
    }
    if missing := [layer for layer in peer.STAGES if layer not in stages]:
        raise SystemExit(f"The ledger has no run of {', '.join(missing)}:\n{measured['output'][-2000:]}")
    silver = [row for row in rows if row["layer"] == "silver"]
    own_rows = sum(row["validated"] for row in silver if row["partition_date"] >= day)
    again = sum(row["validated"] for row in silver) - own_rows
    return measured | {"stages": stages, "busy": busy, "rows": own_rows, "again": again}


def run_peer(name: str) -> dict[str, Any]:
    checkpoint()
    measured = watch([sys.executable, "-m", f"benchmarks.{name}_peer", str(DAY)], name, ("postgres", "minio"))
    told = json.loads(measured["output"].splitlines()[-1])
    return measured | {"stages": rounded(told["seconds"]), "hits": told["hits"]}


def run_limits() -> dict[str, Any]:
    measured = watch([sys.executable, "-m", "benchmarks.limits", str(DAY)], "limits", ("postgres", "minio"))
    return measured | {"stages": rounded(json.loads(measured["output"].splitlines()[-1])["seconds"])}


def rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def query(database: str, text: str, arguments: Any = None) -> list[Any]:
    with peer.connect(database) as connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(text, arguments)
        rows = cursor.fetchall() if cursor.description else []
    connection.close()
    return rows


def checkpoint() -> None:
    """Makes PostgreSQL write its outstanding pages, so that no run pays for an earlier one."""
    query(settings.get("POSTGRES_DB"), "checkpoint")


# ---- before a run --------------------------------------------------------------------------------------------------


def empty_platform() -> None:
    """Recreates the tables and empties both buckets; the servers stay up and warm."""
    database = settings.get("POSTGRES_DB")
    tables = query(
        database,
        "select schemaname || '.' || quote_ident(tablename) as name from pg_tables "
        "where schemaname in ('public', 'ops', 'staging')",
    )
    # Truncated tables would keep their statistics, by which the next load would be planned.
    query(database, f"drop table {', '.join(table['name'] for table in tables)} cascade")
    stack("up")  # creates them again
    for name in ("MINIO_BUCKET_BRONZE", "MINIO_BUCKET_SILVER"):
        empty_bucket(settings.get(name))


def empty_peer(name: str) -> None:
    query(peer.database(name), f"drop table if exists {', '.join([*CATALOG, *peer.MARTS])} cascade")
    empty_bucket(peer.bucket(name))


def empty_bucket(name: str) -> None:
    for page in s3().get_paginator("list_objects_v2").paginate(Bucket=name):
        if objects := [{"Key": entry["Key"]} for entry in page.get("Contents", [])]:
            s3().delete_objects(Bucket=name, Delete={"Objects": objects})


CHANGES = {  # dataset -> column to change and its new value, chosen to change marts but no verdicts
    "patients": ("city", lambda city: "Newtown"),
    "visits": ("department", lambda department: "Neurology" if department == "Cardiology" else "Cardiology"),
    "admissions": ("room_type", lambda room: "Private" if room == "ICU" else "ICU"),
    "treatments": ("treatment_name", lambda name: "Second opinion"),
    "billing": ("patient_amount", lambda amount: f"{Decimal(amount) + 1}"),
}
SOUND = {"patient_amount": r"[0-9]+\.[0-9]{2}", "room_type": "General Ward|Semi-Private|Private|ICU|CCU"}


@contextmanager
def one_per_cent_changed() -> Iterator[None]:
    """Changes one column in every hundredth row of each file; restores the files afterwards."""
    kept = HOME / "kept"
    kept.mkdir()
    for name, (column, change) in CHANGES.items():
        path = landing.landing_path(CATALOG[name], DAY)
        shutil.move(path, kept / path.name)
        with (kept / path.name).open(newline="") as source, path.open("w", newline="") as target:
            header = next(source)
            names, due = header.rstrip("\n").split(","), 0
            place = names.index(column)
            target.write(header)
            for number, line in enumerate(source):
                due += number % 100 == 99
                fields = line.rstrip("\n").split(",")
                # START's files have one plain line per row; a line with quotes or defects passes its change to the
                # next.
                if due and '"' not in line and len(fields) == len(names):
                    value = fields[place]
                    if value and re.fullmatch(SOUND.get(column, ".*"), value):
                        fields[place], due = change(value), due - 1
                        line = ",".join(fields) + "\n"
                target.write(line)
    try:
        yield
    finally:
        for name in CHANGES:
            shutil.move(kept / f"{name}.csv", landing.landing_path(CATALOG[name], DAY))
        kept.rmdir()


# ---- comparison of results -----------------------------------------------------------------------------------------


def contents(database: str) -> dict[str, Any]:
    """Returns a digest of the rows of each large table in key order, and the rows of the two small marts."""
    found: dict[str, Any] = {}
    for name, key, columns in [
        *((d.name, d.key, [*d.names, *(c[0] for c in d.computed), "_partition_date"]) for d in CATALOG.values()),
        ("mart_patient_stats", "patient_id", ["mart_patient_stats.*"]),
    ]:
        row = f"md5(row({', '.join(columns)})::text)"
        [found[name]] = query(
            database, f"select count(*), md5(coalesce(string_agg({row}, '' order by {key}), '')) from {name}"
        )
    for mart, keys in (("mart_daily_kpis", "kpi_date"), ("mart_department_stats", "stat_date, department")):
        found[mart] = query(database, f"select * from {mart} order by {keys}")
    return found


def platform_hits() -> dict[str, dict[str, int]]:
    """Returns rejected rows by dataset and reason, without zero counts."""
    hits: dict[str, dict[str, int]] = {name: {} for name in CATALOG}
    for row in query(
        settings.get("POSTGRES_DB"),
        "select dataset, reason, hits from ops.reasons natural join ops.receipts where layer = 'silver' and hits > 0",
    ):
        hits[row["dataset"]][row["reason"]] = row["hits"]
    return hits


def hits_of_silver(name: str) -> tuple[int, int]:
    """Returns the (accepted, rejected) rows of a dataset from the ledger."""
    [row] = query(
        settings.get("POSTGRES_DB"),
        "select accepted, rejected from ops.ledger join ops.receipts using (run_id, layer, dataset, partition_date) "
        "where layer = 'silver' and dataset = %s and partition_date = %s",
        [name, DAY],
    )
    return row["accepted"], row["rejected"]


def must_agree(name: str, ours: dict[str, Any], theirs: dict[str, Any], hits: Any, their_hits: Any) -> None:
    """Exits if a peer, or the hospital as the export of a source, differs in rows, marts or reasons.

    PostgreSQL averages stays as decimals of 16 to 20 digits, pandas as whole seconds: if the exact average lies
    half-way between two values, the fourth decimal may differ by one.
    """
    wrong = [table for table in ours if not is_same(ours[table], theirs[table])]
    wrong += [f"the reasons of {dataset}" for dataset in hits if hits[dataset] != their_hits[dataset]]
    if wrong:
        raise SystemExit(
            f"The platform and the {report.NAMES[name]} do not agree on {', '.join(wrong)}: no figure counts."
        )


def is_same(ours: Any, theirs: Any) -> bool:
    if ours == theirs or not isinstance(ours, list):
        return bool(ours == theirs)
    return len(ours) == len(theirs) and all(map(is_same_row, ours, theirs))


def is_same_row(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    apart = [(name, value, theirs[name]) for name, value in ours.items() if value != theirs[name]]
    return all(name in AVERAGES and None not in pair and is_near(*pair) for name, *pair in apart)


def is_near(one: Decimal, other: Decimal) -> bool:
    return abs(one - other) <= LAST_PLACE


# ---- environment ---------------------------------------------------------------------------------------------------


def about() -> dict[str, Any]:
    """Returns machine, versions and commit."""

    def said(*words: str) -> str:
        run = subprocess.run(words, capture_output=True, text=True, cwd=settings.ROOT, check=False)
        return (run.stdout + run.stderr).strip()

    cpus = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.+)$", cpus, re.M)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    versions |= {
        "Python": platform.python_version(),
        "PostgreSQL": said(str(services.postgres_bin() / "postgres"), "--version").split()[-1],
        "MinIO": prepare.MINIO.partition("@")[2],
        "Java": said("java", "-version").split('"')[1],
    }
    edited = "+" if said("git", "status", "--porcelain", "--untracked-files=no", "jobs", "sql") else ""
    return {
        "at": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "commit": said("git", "rev-parse", "HEAD") + edited,
        "machine": {
            "cpu": model[1] if model else platform.machine(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "kernel": platform.release(),
        },
        "versions": versions,
        "spark": {name: services.spark_setting(name, "") for name in SIZES},
    }


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


if __name__ == "__main__":
    main()
