"""Runs many dates one after the other through one Spark Connect server: `make endurance [DATES=60]`.

Restarts luigid and Spark Connect after the first third; maintains the silver tables every tenth date with a retention
scaled to these short dates, and at the end as `make maintain` does. After each date, measures what may grow: memory,
handles, files, logs. Exits with a sentence if something grows by more than its bound, or if maintenance changed data.
Uses its own stack in `.bench`; docs/endurance.md has the results.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil

from benchmarks import bench, report, watch
from jobs import delta_maintenance, delta_tables, lake_paths, object_store, program, settings
from jobs.catalog import CATALOG
from stack import prepare, services, supervision

RESULTS = settings.ROOT / "docs" / "endurance.json"
PAGE = settings.ROOT / "docs" / "endurance.md"
CHART = settings.ROOT / "docs" / "endurance.svg"
MARK = "<!-- What follows is written by `make endurance`. -->"
FIRST = bench.DAY
SCALE = "1"
EVERY = 10  # dates between two maintenance runs
KEEP_HOURS = "0.05"  # about seven dates here, as 168 hours are seven dates of a hospital
KINDS = ("accepted", "rejected")
JVMS = ("spark driver", "spark executors", "spark master", "spark worker", "spark history")
WAITS_FOR_A_WHILE = re.compile(
    r"Queue\.poll\(.*\n(?:\s+- .*\n)*\s+at java\.util\.concurrent\.ThreadPoolExecutor\.getTask"
)
Sample = dict[str, float]


class Bound(NamedTuple):
    """Declares by how much something may grow per date; `what` says what it is and the reason for the bound."""

    name: str
    unit: str
    per_date: float
    what: str


def bounds() -> list[Bound]:
    """Lists the bounds: a year of dates must fit into the available resources without a restart."""
    heap = "objects alive after a full collection: a year's growth fits into the heap"
    rows = [
        Bound("live heap, spark driver", "MiB", 1.0, heap),
        Bound("live heap, spark executors", "MiB", 1.0, heap),
        *(Bound(f"live heap, {name}", "MiB", 0.2, heap) for name in JVMS[2:]),
        *(Bound(f"memory, {name}", "MiB", 8.0, "resident: heap that was used once is kept") for name in JVMS[:2]),
        *(Bound(f"memory, {name}", "MiB", 2.0, "resident: heap that was used once is kept") for name in JVMS[2:]),
        Bound("memory, minio", "MiB", 2.0, "resident; it caches"),
        Bound("memory, postgres", "MiB", 2.0, "resident, shared buffers once: these fill with the data"),
        Bound("memory, luigid", "MiB", 0.3, "resident; it remembers each task until it ends"),
        *(Bound(f"handles, {name}", "", 0.2, "open files and connections") for name in watch.KINDS if name != "other"),
        *(Bound(f"threads, {name}", "", 0.2, "without those that end when idle") for name in JVMS[:2]),
        Bound("silver, files of a partition", "", 0.05, "the most that one partition of a table stands on"),
        Bound("silver, files that no longer count", "", 2.0, "between two maintenances they may come, and go again"),
        Bound("silver, commits since a checkpoint", "", 0.2, "what a reader of a table reads one by one, at most"),
        Bound("silver, log entries per commit", "", 0.02, "Delta keeps them for 30 days, whatever their number"),
        Bound("staging tables", "", 0.0, "none is left when a date has ended"),
        Bound("locks", "", 0.0, "none is left"),
        Bound("postgres, catalog", "MiB", 0.05, "tables come and go with each load"),
        Bound("postgres, ledger and reasons", "MiB", 0.3, "the account of each run is kept for good"),
        Bound("luigi, history", "MiB", 0.1, "90 days of it are kept"),
        Bound("spark, event logs", "MiB", 4.0, "an application's own stays as long as it runs"),
        Bound("spark, work and spill", "MiB", 1.0, "directories of applications, shuffle files"),
        Bound("logs", "MiB", 0.5, "each is turned over at 10 MB"),
        Bound("seconds", "s", 0.3, "of `pipelines run`"),
    ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.endurance", description=__doc__)
    parser.add_argument("--dates", type=int, default=60, help="how many (default: %(default)s)")
    parser.add_argument("--merge", metavar="DATE", help=argparse.SUPPRESS)  # used by this program to call itself
    parser.add_argument("--report", action="store_true", help="write the document anew from its figures")
    given = parser.parse_args()
    if given.merge:
        merge(program.given_day(given.merge))
        return
    if not given.report:
        endure(given.dates)
    run = json.loads(RESULTS.read_text())
    PAGE.write_text(f"{PAGE.read_text().partition(MARK)[0]}{MARK}\n\n{page(run)}")
    CHART.write_text(chart(run["samples"]))
    if broken := [row["name"] for row in verdicts(run["samples"]) if not row["holds"]]:
        raise SystemExit(f"Not bounded: {', '.join(broken)}; {RESULTS.relative_to(settings.ROOT)} has each date.")
    print(f"All is bounded over {len(run['samples'])} dates: {PAGE.relative_to(settings.ROOT)}.")


# ---- the dates -----------------------------------------------------------------------------------------------------


def endure(dates: int) -> None:
    """Runs the dates and records the measurements after each; exits if their results change."""
    if not jcmd().is_file():
        raise SystemExit(f"Counting the objects of a JVM needs a JDK with jcmd, and there is no {jcmd()}: install one.")
    with bench.own_stack():
        bench.stack("up")
        samples = []
        for number in range(1, dates + 1):
            day = FIRST + timedelta(number - 1)
            bench.generate(SCALE, day)
            began = time.monotonic()
            call("-m", "pipelines", "run", str(day))
            seconds = time.monotonic() - began
            if number % min(EVERY, max(1, dates // 3)) == 0:
                call("-m", "benchmarks.endurance", "--merge", str(day), SPARK_REMOTE=program.spark_connect())
            samples.append({"date": number, "seconds": round(seconds, 1)} | count())
            bench.say(f"date {number}: {seconds:.1f} s")
            write(samples)
            if number == dates // 3:
                restart("luigid", "spark-connect")
            if number in (2 * dates // 3, dates):
                keep_histograms(number)
        must_stay_the_same(day)
    write(samples)


def write(samples: list[Sample]) -> None:
    about = bench.about()
    lines = ",\n".join(map(json.dumps, samples))
    RESULTS.write_text(f'{{"about": {json.dumps(about)},\n"samples": [\n{lines}\n]}}\n')


def call(*words: str, **environment: str) -> None:
    run = subprocess.run(
        [sys.executable, *words], cwd=settings.ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    if run.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{run.stdout[-3000:]}{run.stderr[-3000:]}")


def merge(day: date) -> None:
    """Maintains silver with a retention of seconds, below the minimum: there are no readers to protect here."""
    from jobs import delta_maintenance, ledger
    from jobs.maintain import maintain

    delta_maintenance.LEAST, ledger.longest_run = 0, lambda connection: 0.0
    program.resident("endurance").conf.set(delta_maintenance.KEEP, KEEP_HOURS)
    for dataset in CATALOG.values():
        print(maintain(dataset, day), flush=True)


def restart(*names: str) -> None:
    """Restarts processes as a crash or an update would."""
    for name in names:
        supervision.supervisor().stopProcess(name)
        supervision.supervisor().startProcess(name)
    bench.stack("up")  # waits until the services answer
    bench.say(f"{' and '.join(names)} have been started anew")


def must_stay_the_same(day: date) -> None:
    """Checks that `make maintain` changes no silver row and makes no date due, and a forced run changes nothing."""
    before, gold = silver(), bench.contents(settings.get("POSTGRES_DB"))
    call("-m", "pipelines", "maintain")
    if silver() != before:
        raise SystemExit("Maintenance has changed rows of silver.")
    [due] = bench.query(settings.get("POSTGRES_DB"), "select count(*) from ops.dates where not is_current")
    if due["count"]:
        raise SystemExit(f"{due['count']} dates are due after maintenance.")
    call("-m", "pipelines", "run", str(day), "--force")
    if bench.contents(settings.get("POSTGRES_DB")) != gold:
        raise SystemExit(f"{day}, run again after maintenance, has changed gold or marts.")
    bench.say("maintenance has changed no row, and no date is due")


def silver() -> dict[str, str]:
    """Returns a digest of all rows of each silver table, run ids included."""
    os.environ["SPARK_REMOTE"] = program.spark_connect()
    spark, found = program.connect("endurance"), {}
    for dataset in CATALOG.values():
        for kind in KINDS:
            rows = sorted(map(repr, delta_tables.silver(spark, dataset, kind).collect()))
            found[f"{dataset.name} {kind}"] = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    spark.stop()
    del os.environ["SPARK_REMOTE"]
    return found


# ---- measurements --------------------------------------------------------------------------------------------------


def count() -> Sample:
    """Returns the current value of everything with a bound, and sizes without one."""
    counted = processes() | delta() | postgres() | directories()
    return {name: round(value, 3) for name, value in sorted(counted.items())}


def jcmd() -> Path:
    return Path(prepare.java_home()) / "bin" / "jcmd"


def histogram(pid: int) -> dict[str, tuple[int, int]]:
    """Returns (objects, bytes) of a JVM by class, after a full collection."""
    text = subprocess.run([jcmd(), str(pid), "GC.class_histogram"], capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^\s*\d+:\s+(\d+)\s+(\d+)\s+(\S+)", text, re.M)
    return {name: (int(objects), int(size)) for objects, size, name in rows}


def lasting_threads(pid: int) -> int:
    """Counts a JVM's threads, except those of pools that wait for work with a time limit and then end."""
    text = subprocess.run([jcmd(), str(pid), "Thread.print"], capture_output=True, text=True, check=True).stdout
    threads = [each for each in text.split("\n\n") if each.lstrip().startswith('"')]
    return len(threads) - sum(bool(WAITS_FOR_A_WHILE.search(each)) for each in threads)


def processes() -> Sample:
    """Measures memory, live heap, handles and threads of the stack by kind of process."""
    found: Sample = defaultdict(float)
    shared = 0.0
    for process in watch.stack():
        kind = watch.kind_of(process)
        try:
            memory = process.memory_info()
            apart = memory.shared if kind == "postgres" else 0  # all its processes count the same shared buffers
            shared = max(shared, apart)
            found[f"memory, {kind}"] += (memory.rss - apart) / 2**20
            found[f"handles, {kind}"] += process.num_fds()
            if kind in JVMS:
                found[f"threads, {kind}"] += lasting_threads(process.pid)
                live = sum(size for _, size in histogram(process.pid).values())
                found[f"live heap, {kind}"] += live / 2**20
        except (psutil.Error, subprocess.CalledProcessError):
            continue  # the process has just ended
    found["memory, postgres"] += shared / 2**20
    return found


class Table(NamedTuple):
    """Holds what has been read of a table's log."""

    commits: set[str]
    files: set[str]  # files in the current version


TABLES: dict[str, Table] = {}


def delta() -> Sample:
    """Counts files and log entries of the silver tables, from their logs and from the bucket."""
    bucket = settings.get("MINIO_BUCKET_SILVER")
    most, counting, there, entries, commits, tail = 0, 0, 0, 0, 0, 0
    for dataset in CATALOG.values():
        for kind in KINDS:
            prefix = lake_paths.log_prefix(dataset, kind)
            pages = object_store.s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            names = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
            table = TABLES.setdefault(prefix, Table(set(), set()))
            read_log(bucket, [name for name in names if re.search(r"/[0-9]{20}\.json$", name)], table)
            of_days: dict[str, int] = defaultdict(int)
            for path in table.files:
                of_days[path.partition("/")[0]] += 1
            checkpoints = [name[len(prefix) :][:20] for name in names if ".checkpoint" in name[len(prefix) :]]
            newest = max((int(name) for name in checkpoints if name.isdigit()), default=-1)
            tail = max(tail, len(table.commits) - 1 - newest)
            most = max(most, *of_days.values()) if of_days else most
            counting, entries, commits = counting + len(table.files), entries + len(names), commits + len(table.commits)
            there += delta_maintenance.held(dataset, kind)[0]
    return {
        "silver, files": there,
        "silver, files of a partition": most,
        "silver, files that no longer count": there - counting,
        "silver, commits": commits,
        "silver, commits since a checkpoint": tail,
        "silver, log entries": entries,
        "silver, log entries per commit": entries / commits,
    }


def read_log(bucket: str, names: list[str], table: Table) -> None:
    """Reads a table's log from where the last call stopped."""
    for name in sorted(set(names) - table.commits):
        for line in object_store.s3().get_object(Bucket=bucket, Key=name)["Body"].read().splitlines():
            entry = json.loads(line)
            if "add" in entry:
                table.files.add(entry["add"]["path"])
            if "remove" in entry:
                table.files.discard(entry["remove"]["path"])
        table.commits.add(name)


def postgres() -> Sample:
    [row] = bench.query(
        settings.get("POSTGRES_DB"),
        "with sizes as (select relnamespace::regnamespace::text as schema, "
        "sum(pg_total_relation_size(oid)) / 1048576.0 as mib from pg_class where relkind = 'r' group by 1) select "
        "(select count(*) from pg_tables where schemaname = 'staging') as \"staging tables\", "
        "(select count(*) from pg_locks where locktype = 'advisory') as locks, "
        "(select mib from sizes where schema = 'pg_catalog') as \"postgres, catalog\", "
        "(select mib from sizes where schema = 'ops') as \"postgres, ledger and reasons\", "
        "(select mib from sizes where schema = 'public') as \"postgres, gold and marts\"",
    )
    return {name: float(value) for name, value in row.items()}


def directories() -> Sample:
    """Measures the MiB on disk that the stack writes beside its stores."""
    home = services.stack_dir()
    return {
        "luigi, history": size(home / "luigi" / "history.db"),
        "luigi, state": size(home / "luigi" / "state.pickle"),
        "spark, event logs": size(home / "spark" / "events"),
        "spark, work and spill": size(home / "spark" / "work") + size(home / "spark" / "local"),
        "logs": size(home / "logs"),
    }


def size(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(os.lstat(file).st_blocks * 512 for file in files if os.path.lexists(file)) / 2**20


HISTOGRAMS: dict[str, dict[str, tuple[int, int]]] = {}


def keep_histograms(number: int) -> None:
    """Prints which classes of the driver, the executors and the history server have grown most since the last call."""
    for process in watch.stack():
        kind = watch.kind_of(process)
        if kind in ("spark driver", "spark executors", "spark history"):
            now, before = histogram(process.pid), HISTOGRAMS.get(kind, {})
            gains = {name: size - before.get(name, (0, 0))[1] for name, (_, size) in now.items()}
            if before:
                most = sorted(gains, key=lambda name: -gains[name])[:12]
                told = ", ".join(f"{name} {gains[name] / 2**20:+.2f} ({now[name][0]:,})" for name in most)
                bench.say(f"{kind}, MiB gained up to date {number}: {told}")
            HISTOGRAMS[kind] = now


# ---- results -------------------------------------------------------------------------------------------------------


def slope(values: list[float]) -> float:
    """Returns the growth per date: the median over all pairs of dates, which single peaks do not affect (Theil-Sen)."""
    return median((later - earlier) / (j - i) for (i, earlier), (j, later) in combinations(enumerate(values), 2))


def verdicts(samples: list[Sample]) -> Iterable[dict[str, Any]]:
    """Yields each bound with the measurement over the second half of the dates."""
    second = samples[len(samples) // 2 :]
    for bound in bounds():
        values = [sample.get(bound.name, 0.0) for sample in second]
        grows = slope(values)
        first = next((sample[bound.name] for sample in samples[2:] if bound.name in sample), 0.0)
        of = {
            "third": first,
            "middle": values[0],
            "last": values[-1],
            "most": max(s.get(bound.name, 0) for s in samples),
        }
        yield bound._asdict() | of | {"grows": grows, "holds": grows <= bound.per_date}


def page(run: dict[str, Any]) -> str:
    about, samples = run["about"], run["samples"]
    machine, versions = about["machine"], ", ".join(f"{name} {v}" for name, v in about["versions"].items())
    counted = ("third", "middle", "last", "most")
    lines = [
        "![What may grow, by date](endurance.svg)",
        "",
        f"`make endurance DATES={len(samples)}`, SCALE={SCALE}. {about['at']}, commit {about['commit'][:12]}, "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}. "
        f"{versions}.",
        "",
        *report.table("what", "unit", "third date", "middle", "last", "most", "per date, second half", "bound", ""),
    ]
    for row in verdicts(samples):
        values = [f"{row[name]:,.4g}" if row[name] < 1000 else f"{row[name]:,.0f}" for name in counted]
        verdict = "holds" if row["holds"] else "**grows**"
        lines.append(
            report.row(row["name"], row["unit"], *values, f"{row['grows']:+.3f}", f"{row['per_date']:g}", verdict)
        )
    return "\n".join(lines) + "\n"


PANELS: dict[str, Callable[[str], bool]] = {
    "memory, MiB": lambda name: name.startswith("memory, ") and "other" not in name,
    "live heap, MiB": lambda name: name.startswith("live heap, "),
    "open handles": lambda name: name.startswith("handles, ") and "other" not in name,
    "files of silver": lambda name: name in ("silver, files", "silver, files that no longer count"),
    "on disk, MiB": lambda name: name in ("spark, event logs", "logs", "luigi, history", "postgres, catalog"),
    "seconds of a date": lambda name: name == "seconds",
}


def chart(samples: list[Sample]) -> str:
    """Draws six panels by date as SVG."""
    import vl_convert

    panels = []
    for title, belongs in PANELS.items():
        values = [
            {"date": sample["date"], "what": name.partition(", ")[2] or name, "value": value}
            for sample in samples
            for name, value in sample.items()
            if belongs(name)
        ]
        panels.append(
            {
                "title": {"text": title, "fontSize": 13},
                "width": 340,
                "height": 170,
                "data": {"values": values},
                "mark": {"type": "line", "strokeWidth": 1.5},
                "encoding": {
                    "x": {"field": "date", "type": "quantitative", "title": None},
                    "y": {"field": "value", "type": "quantitative", "title": None},
                    "color": {"field": "what", "type": "nominal", "title": None, "legend": {"labelLimit": 240}},
                },
            }
        )
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": "white",
        "columns": 2,
        "concat": panels,
        "resolve": {"scale": {"color": "independent"}},
        "config": {"font": "sans-serif"},
    }
    return str(vl_convert.vegalite_to_svg(spec))


if __name__ == "__main__":
    main()
