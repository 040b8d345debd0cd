"""Declares the faults, the boundaries of jobs at which they strike, and what must hold afterwards."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from jobs import exports, settings
from pipelines import tasks
from tests.campaigns.faults import ground, strikes
from tests.campaigns.faults.proxy import Proxy, Trap
from tests.campaigns.faults.strikes import STRIKES, Blow, Boundary
from tests.support import twin

PATIENCE = 240  # seconds within which an affected job must end
MARKER = r"insert into ops\.receipts"
LOCK = Boundary("its lock", "postgres", r"pg_try_advisory_lock\(")
ROW = Boundary("the ledger's row", "postgres", r"insert into ops\.ledger")
END = [
    Boundary("the marker", "postgres", MARKER),
    Boundary("the commit of the marker", "postgres", r"COMMIT", begun=MARKER),
]
SILVER = r"^PUT /[^/]*-silver/"
LOG = {
    kind: Boundary(f"the commit of {kind} rows", "minio", rf"{SILVER}{path}@/_delta_log/\d+\.json", "spark")
    for kind, path in {"accepted": "", "rejected": "rejected/"}.items()
}

CONVERSION = "source_to_bronze"  # not in the chain of the other jobs: it has a date of its own
# Boundaries by job, in the order in which they are crossed; @ is the dataset.
BOUNDARIES: dict[str, list[Boundary]] = {
    CONVERSION: [
        ROW,
        Boundary("the upload of a file of the source", "minio", r"^PUT /[^/]*-bronze/_sources/"),
        Boundary("converted lines", "minio", rf"{SILVER}_converting/", "spark"),
        Boundary("the upload of a derived file", "minio", r"^PUT /[^/]*-bronze/@/"),
        Boundary("the account of the files", "postgres", r"insert into ops\.source_files"),
        *END,
    ],
    "landing_to_bronze": [ROW, Boundary("the upload", "minio", r"^PUT /[^/]*-bronze/"), *END],
    "bronze_to_silver": [
        LOCK,
        ROW,
        Boundary("the withdrawal of the marker", "postgres", r"set made_from = ''"),
        Boundary("accepted rows", "minio", rf"{SILVER}@/_partition_date", "spark"),
        Boundary("rejected rows", "minio", rf"{SILVER}rejected/@/_partition_date", "spark"),
        *LOG.values(),
        Boundary("the reasons", "postgres", r"insert into ops\.reasons"),
        *END,
    ],
    "silver_to_gold": [
        LOCK,
        ROW,
        Boundary("the staging tables", "postgres", r"create unlogged table"),
        Boundary("rows by JDBC", "postgres", r"(?i)INSERT INTO staging\.@_", "spark"),
        Boundary("the commit of rows by JDBC", "postgres", r"COMMIT", "spark", begun=r"(?i)INSERT INTO staging\.@_"),
        Boundary("what is lost", "postgres", r"insert into staging\.lost_"),
        Boundary("the update", "postgres", r"update @ as g"),
        Boundary("the insert", "postgres", r"insert into @ \("),
        Boundary("withheld rows", "postgres", r"insert into ops\.withheld"),
        *END,
        Boundary("the end of staging", "postgres", r"drop table staging\.", begun=MARKER),
    ],
    "gold_to_marts": [
        LOCK,
        ROW,
        Boundary("gold held still", "postgres", r"lock table"),
        Boundary("a mart", "postgres", r"merge into"),
        Boundary("what is no longer touched", "postgres", r"truncate ops\.touched"),
        *END,
    ],
}


# Boundaries at which the disk becomes full, if the tests have a disk of their own.
FULL_DISK = ("the upload", "accepted rows", "the commit of accepted rows", "rows by JDBC", "the insert", "a mart")
SERVER_DIES = ("the withdrawal of the marker", "the commit of the marker", "rows by JDBC", "the insert", "a mart")


class Fault(NamedTuple):
    """Describes one strike at one side of a boundary of one job."""

    job: str
    boundary: Boundary
    side: str
    strike: str

    def __str__(self) -> str:
        return f"{self.job}: {self.strike} {self.side} {self.boundary.name}"


def plan() -> list[Fault]:
    """Lists all faults: driver kills and cut connections at every boundary, slow recoveries only at some."""
    faults = []
    for job, boundaries in BOUNDARIES.items():
        for boundary in boundaries:
            spark, is_log = boundary.sender == "spark", boundary in LOG.values()
            names = ["kill -9 of the driver", "the connection cut"]
            names += ["kill -9 of MinIO"] if boundary.store == "minio" else []
            names += ["kill -9 of the executors"] if spark else []
            faults += [Fault(job, boundary, side, name) for name in names for side in ("before", "after")]
            if boundary.name == "rows by JDBC":
                faults.append(Fault(job, boundary, "before", "kill -9 of the driver, and its rows in the next load"))
            if boundary.name in SERVER_DIES:
                faults += [Fault(job, boundary, side, "kill -9 of PostgreSQL") for side in ("before", "after")]
            before = ["slow answers", "all connections cut"] if spark or boundary in END else []
            before += ["the message lost each time"] if spark or boundary.name == "the upload" else []
            before += ["kill -9 of the driver, and the message late"] if spark else []
            faults += [Fault(job, boundary, "before", name) for name in before]
            if strikes.has_disk() and boundary.name in FULL_DISK:
                faults.append(Fault(job, boundary, "before", "a full disk"))
            torn = ["an empty commit left", "half a commit left", "a commit's first line left"] if is_log else []
            faults += [Fault(job, boundary, "after", name) for name in torn]
            if boundary.name in ("accepted rows", "the commit of accepted rows", "rows by JDBC"):
                faults += [Fault(job, boundary, side, "kill -9 of the Connect server") for side in ("before", "after")]
    return faults


def few() -> list[Fault]:
    """Lists the faults of `make test`, which kill nothing that other tests need."""
    chosen = [
        "source_to_bronze: kill -9 of the driver after the upload of a derived file",
        "landing_to_bronze: kill -9 of the driver after the upload",
        "landing_to_bronze: the connection cut before the commit of the marker",
        "bronze_to_silver: kill -9 of the driver after the withdrawal of the marker",
        "silver_to_gold: the connection cut before rows by JDBC",
        "silver_to_gold: kill -9 of the driver before the commit of the marker",
        "gold_to_marts: kill -9 of the driver after the marker",
    ]
    return [fault for fault in plan() if str(fault) in chosen]


class Job:
    """Holds a started job; `pid` is its process."""

    def __init__(self, pid: int, end: Callable[[], int], out: Path) -> None:
        self.pid, self.end, self.out = pid, end, out

    def said(self) -> str:
        return self.out.read_text(errors="replace")


class Nursery:
    """Represents the process that forks jobs, one at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaigns.faults.nursery"],
            cwd=settings.ROOT,
            env=os.environ | {"PYTHONPATH": str(settings.ROOT), "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> int:
        return int(self.process.stdout.readline())  # type: ignore[union-attr]

    def start(self, line: dict[str, Any]) -> Job:
        self.process.stdin.write(json.dumps(line) + "\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return Job(self.read(), self.read, Path(line["out"]))

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()


class Stage:
    """Runs jobs that reach the stores through proxies, for one date of five files in two versions each.

    The same files come a month later by a source, also in two versions.
    """

    def __init__(self, day: date, place: Path, files: dict[str, bytes]) -> None:
        self.day, self.place, self.connection = day, place, ground.connect()
        self.versions = {name: deque([text, ground.corrected(name, text)]) for name, text in files.items()}
        self.converted = day.replace(month=day.month + 1)
        self.exports = deque([files, {name: ground.corrected(name, text) for name, text in files.items()}])
        self.known: dict[
            tuple[str, str, str], str
        ] = {}  # (layer, dataset, hash of the file): the results of undisturbed runs
        self.plant: tuple[str, ...] = ()  # a bug planted in every job started from now on
        self.struck = Counter[str]()
        self.violations: list[str] = []
        stores = {
            "postgres": int(settings.get("POSTGRES_PORT")),
            "minio": int(settings.s3_endpoint().rpartition(":")[2]),
        }
        self.proxies = {name: Proxy(port) for name, port in stores.items()}
        self.temporary = place / "tmp"
        self.temporary.mkdir()
        self.environment = {
            "POSTGRES_PORT": str(self.proxies["postgres"].port),
            "MINIO_ENDPOINT": f"http://127.0.0.1:{self.proxies['minio'].port}",
            "SPARK_REMOTE": f"sc://127.0.0.1:{settings.get('SPARK_CONNECT_PORT')}",
            "TMPDIR": str(self.temporary),
            "PYTHONWARNINGS": "ignore",
        }

    def __enter__(self) -> "Stage":
        for proxy in self.proxies.values():
            proxy.__enter__()
        strikes.password_file([self.proxies["postgres"].port])
        self.nurseries = [Nursery(), Nursery()]
        return self

    def __exit__(self, *_: object) -> None:
        for nursery in self.nurseries:
            nursery.close()
        for proxy in self.proxies.values():
            proxy.__exit__()
        self.connection.close()

    # ---- jobs --------------------------------------------------------------------------------------------------------

    def words(self, job: str, dataset: str) -> list[str]:
        script = str(settings.ROOT / "jobs" / f"{job}.py")
        if job == CONVERSION:
            return [script, str(self.converted)]
        return [script, *([] if job == "gold_to_marts" else [dataset]), str(self.day)]

    def start(self, job: str, dataset: str, nursery: int = 0) -> Job:
        out = str(self.place / f"job-{nursery}.log")
        line = {"words": self.words(job, dataset), "environment": self.environment, "out": out, "plant": self.plant}
        return self.nurseries[nursery].start(line)

    def run(self, job: str, dataset: str) -> str:
        """Runs the command undisturbed; returns its output if it failed, else ""."""
        started = self.start(job, dataset)
        return started.said() if started.end() else ""

    # ---- states ------------------------------------------------------------------------------------------------------

    def flip(self, dataset: str) -> None:
        """Lands the other version of a file."""
        self.versions[dataset].rotate(1)
        ground.land(dataset, self.day, self.versions[dataset][0])

    def flip_export(self) -> None:
        """Lands the other version of the source's files."""
        self.exports.rotate(1)
        place = exports.folder(self.converted, twin.NAME)
        place.mkdir(parents=True, exist_ok=True)
        for name, text in self.exports[0].items():
            (place / twin.file_name(name)).write_bytes(twin.as_sent(text.decode()))

    def found(self, job: str, dataset: str) -> dict[str, str]:
        """Returns digests of what the job writes."""
        if job == CONVERSION:
            return {f"bronze {name}": ground.bronze(name, self.converted) for name in self.exports[0]}
        if job == "landing_to_bronze":
            return {"bronze": ground.bronze(dataset, self.day)}
        if job == "bronze_to_silver":
            return {kind: ground.silver(dataset, kind, self.day) for kind in ("accepted", "rejected")}
        if job == "silver_to_gold":
            return {"gold": ground.gold(self.connection, dataset, self.day)}
        return {"marts": repr(ground.marts(self.connection))}

    def expected(self, job: str, dataset: str) -> dict[str, str]:
        if job == "gold_to_marts":
            return {"marts": repr(ground.marts_by_hand(self.connection))}
        return self.known[self.input_of(job, dataset)]

    def input_of(self, job: str, dataset: str) -> tuple[str, str, str]:
        """Returns what a job's result follows from: the job, its dataset and a digest of the landed version."""
        if job == CONVERSION:
            return job, "", ground.digest(self.exports[0].values())
        return job, dataset, ground.digest([self.versions[dataset][0]])

    def is_current(self, job: str, dataset: str) -> bool:
        """Tells whether a Luigi process started now would consider the job's result current."""
        tasks.session.cache_clear()
        tasks.session()
        if job == "gold_to_marts":
            return tasks.Marts(date=self.day).made_in() is not None
        if job == CONVERSION:
            return tasks.Conversion(date=self.converted).made_in() is not None
        task = {"landing_to_bronze": tasks.Bronze, "bronze_to_silver": tasks.Silver, "silver_to_gold": tasks.Gold}[job]
        return task(dataset=dataset, date=self.day).made_in() is not None

    def learn(self, dataset: str, *jobs: str) -> None:
        """Records the results of undisturbed runs for the landed version."""
        for job in jobs or ("landing_to_bronze", "bronze_to_silver", "silver_to_gold"):
            failed = self.run(job, dataset)
            assert not failed, failed
            self.known[self.input_of(job, dataset)] = self.found(job, dataset)

    def put_right(self) -> list[str]:
        """Waits until all services run and reach PostgreSQL through its proxy; returns those that do not."""
        wrong = strikes.put_right(self.proxies)
        strikes.password_file([self.proxies["postgres"].port])
        self.connection.close()
        self.connection = ground.connect()
        return wrong

    # ---- faults ------------------------------------------------------------------------------------------------------

    def strike(self, fault: Fault, dataset: str) -> None:
        """Runs the job with a fault and then undisturbed; records violations."""
        boundary = fault.boundary
        if fault.job == CONVERSION:
            self.flip_export()
        before = self.found(fault.job, dataset)
        blow: Blow
        trap = Trap(
            boundary.pattern.replace("@", dataset),
            fault.side,
            lambda: STRIKES[fault.strike](blow),
            boundary.begun.replace("@", dataset),
        )
        self.proxies[boundary.store].trap = trap
        job = self.start(fault.job, dataset)
        blow = Blow(job.pid, boundary, self.proxies, dataset)
        code = self.end_of(job)
        wrong = [] if code is not None else [f"it had not ended after {PATIENCE} s"]
        wrong += [] if trap.struck.wait(5) else ["the boundary was never crossed"]
        wrong += self.put_right()
        said = job.said()
        if code and code > 0 and ("Traceback" in said or not said.strip()):
            wrong.append(f"it said no sentence: {said[-600:]}")
        now, counts = self.found(fault.job, dataset), self.is_current(fault.job, dataset)
        for attempt in range(3):
            failed = self.run(fault.job, dataset)
            if not failed:
                break
            wrong.append(f"the same command failed, attempt {attempt + 1}: {failed[-600:]}")
        if trap.struck.is_set() and not trap.done.is_set():
            trap.done.wait(30)
            time.sleep(1)  # lets delayed messages arrive
        # Compute these only now: one mart is made from another, also in the expected result.
        expected, after = self.expected(fault.job, dataset), self.found(fault.job, dataset)
        torn = fault.strike.endswith("left")
        wrong += [f"{k} is half published" for k in now if not torn and now[k] not in (before[k], expected[k])]
        if counts and now != expected:
            wrong.append("a marker says that it is made, and it is not")
        if code == 0 and now != expected:
            wrong.append("it said that it succeeded and had not")
        wrong += [f"{k} is not that of an undisturbed run" for k in after if after[k] != expected[k]]
        if fault.job in ("silver_to_gold", "gold_to_marts"):
            wrong += self.left_behind()
        if fault.job == "gold_to_marts":
            wrong += [f"the invariant {name} is violated" for name in ground.violated_invariants(self.connection)]
        self.struck[fault.strike] += trap.struck.is_set()
        self.violations += [f"{fault} ({dataset}): {what}" for what in wrong]

    def end_of(self, job: Job) -> int | None:
        """Returns the job's exit code, or None if it was killed for exceeding PATIENCE."""
        late = threading.Event()

        def end() -> None:
            late.set()
            strikes.kill(job.pid)

        timer = threading.Timer(PATIENCE, end)
        timer.start()
        code = job.end()
        timer.cancel()
        return None if late.is_set() else code

    def left_behind(self, seconds: float = 20) -> list[str]:
        """Lists what a load left behind, including locks; waits a moment, since a server notices dead clients late."""
        began = time.monotonic()
        while found := ground.left_behind(self.connection):
            if time.monotonic() - began > seconds:
                return [f"left behind: {each}" for each in found]
            time.sleep(0.2)
        return []


# Every new version updates and inserts gold rows of these, so that every boundary is crossed.
STRUCK = ("billing", "treatments")


def turns(faults: list[Fault], datasets: Sequence[str]) -> Iterator[tuple[str, dict[str, Fault]]]:
    """Yields a dataset in turn with one fault for each of its jobs, until no faults are left."""
    queues = {job: deque(f for f in faults if f.job == job) for job in BOUNDARIES}
    number = 0
    while any(queues.values()):
        dataset = datasets[number % len(datasets)]
        yield dataset, {job: queue.popleft() for job, queue in queues.items() if queue}
        number += 1


def run(stage: Stage, faults: list[Fault], datasets: Sequence[str], say: Callable[[str], None]) -> None:
    """Runs all faults, each followed by the same command again."""
    began, done = time.monotonic(), 0
    for dataset, chosen in turns(faults, datasets):
        stage.flip(dataset)
        for job in BOUNDARIES:
            if job in chosen:
                known = len(stage.violations)
                stage.strike(chosen[job], dataset)
                done += 1
                seconds = time.monotonic() - began
                say(f"{seconds:5.0f} s {done:4} of {len(faults)}  {chosen[job]} ({dataset})")
                for violation in stage.violations[known:]:
                    say(f"      VIOLATION: {violation}")
            elif job != CONVERSION:
                failed = stage.run(job, dataset)
                assert not failed, failed
