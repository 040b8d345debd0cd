"""Runs whole days through Luigi with faults: the first date of a small generated hospital, and the next."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from jobs import settings
from jobs.catalog import CATALOG
from jobs.landing import landing_path
from tests.campaigns.faults import ground, strikes
from tests.campaigns.faults.campaign import LOG, SILVER, Stage
from tests.campaigns.faults.proxy import Trap
from tests.campaigns.faults.strikes import STRIKES, Blow, Boundary

FIRST, SECOND, THIRD = (date(2031, 1, day) for day in (1, 2, 3))
SCALE = "0.2"  # four visits on a later date
MARKER = r"insert into ops\.receipts"

# Where a fault strikes a whole day: (boundary, fault).
DAY_FAULTS: list[tuple[Boundary, str]] = [
    (Boundary("a bronze upload", "minio", r"^PUT /[^/]*-bronze/"), "kill -9 of the Luigi worker"),
    (Boundary("silver's visits", "minio", rf"{SILVER}visits/_partition_date", "spark"), "kill -9 of the Luigi worker"),
    (Boundary("gold's bills", "postgres", r"insert into billing \("), "kill -9 of the Luigi worker"),
    (Boundary("a mart", "postgres", r"merge into"), "kill -9 of the Luigi worker"),
    (Boundary("silver's patients", "minio", rf"{SILVER}patients/_partition_date", "spark"), "kill -9 of luigid"),
    (Boundary("gold's visits", "postgres", r"update visits as g"), "kill -9 of luigid"),
    (Boundary("gold's visits", "postgres", r"update visits as g"), "kill -9 of PostgreSQL"),
    (LOG["accepted"], "kill -9 of MinIO"),
    (LOG["accepted"], "kill -9 of the Connect server"),
    (LOG["accepted"], "half a commit left"),
    (Boundary("rows by JDBC", "postgres", r"(?i)INSERT INTO staging\.@_", "spark"), "kill -9 of the executors"),
]
RECEIPT_FAULTS = {
    "lost": "delete from ops.receipts",
    "of a run that never was": "update ops.receipts set run_id = 'x'",
    "of another input": "update ops.receipts set made_from = 'x'",
}
CLOCKS = {
    "ops.receipts": ("finished_at",),
    "ops.ledger": ("started_at", "ended_at"),
}


def generate(day: date) -> None:
    words = [sys.executable, "-m", "jobs.generate", str(day), "--scale", SCALE, "--start", str(FIRST)]
    subprocess.run(words, cwd=settings.ROOT, env=dict(os.environ), check=True, capture_output=True)


def start(stage: Stage, day: date, *options: str, out: Path | None = None) -> subprocess.Popen[str]:
    """Starts `make run` of a date with its output in a file; uses the proxies unless `out` is given."""
    environment = {} if out else stage.environment | {"SPARK_REMOTE": ""}
    with (out or stage.place / "run.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines", "run", str(day), *options],
            cwd=settings.ROOT,
            env=os.environ | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )


def run(stage: Stage, day: date, *options: str) -> str:
    """Runs the date undisturbed; returns its output if it failed, else ""."""
    code = start(stage, day, *options).wait(600)
    return f"code {code}: {(stage.place / 'run.log').read_text()[-3000:]}" if code else ""


class Days:
    """Holds two versions of a date, and the content of the stores after undisturbed runs of each."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        for day in (FIRST, SECOND, THIRD):
            generate(day)
        self.versions = []
        for change in (lambda _, text: text, ground.corrected):
            texts = {name: landing_path(CATALOG[name], FIRST).read_bytes() for name in CATALOG}
            self.versions.append({name: change(name, text) for name, text in texts.items()})
        self.now, self.expected = 0, [{}, {}]
        for version in (1, 0):
            self.land(version)
            for day in (FIRST, SECOND, THIRD):
                failed = run(stage, day)
                assert not failed, failed
            self.expected[version] = ground.state(stage.connection)

    def land(self, version: int) -> None:
        self.now = version
        for name, text in self.versions[version].items():
            ground.land(name, FIRST, text)

    def strike(self, boundary: Boundary, name: str) -> list[str]:
        """Runs a corrected date with a fault and then undisturbed; returns the violations."""
        self.land(1 - self.now)
        stage = self.stage
        process: subprocess.Popen[str]
        proxies = stage.proxies

        def blow() -> bool:
            if name == "kill -9 of the Luigi worker":
                strikes.kill(process.pid)
                return True
            return STRIKES[name](Blow(process.pid, boundary, proxies, "visits"))

        side = "after" if name.endswith("left") else "before"
        trap = Trap(boundary.pattern.replace("@", "visits"), side, blow, boundary.begun)
        proxies[boundary.store].trap = trap
        process = start(stage, FIRST)
        process.wait(600)
        said = (stage.place / "run.log").read_text()
        wrong = [] if trap.struck.wait(5) else [f"the boundary was never crossed, code {process.returncode}: {said}"]
        stage.struck[name] += trap.struck.is_set()
        wrong += stage.put_right()
        if process.returncode > 0 and "Traceback" in said:
            wrong.append(f"it said no sentence: {said[-1500:]}")
        return wrong + self.again()

    def damage(self, change: str) -> list[str]:
        """Damages the ledger or markers, runs the date again, and returns the violations."""
        self.stage.connection.execute(change)
        wrong = self.again()
        run(self.stage, FIRST)
        is_current = "is current" in (self.stage.place / "run.log").read_text()
        return wrong + ([] if is_current else ["it is due once more"])

    def again(self) -> list[str]:
        """Runs the same command again; returns what differs from an undisturbed run, and what is left behind."""
        failed = run(self.stage, FIRST)
        wrong = [f"the same command failed: {failed}"] if failed else []
        began = time.monotonic()
        while ground.jobs_alive() and time.monotonic() - began < 60:
            time.sleep(0.5)
        wrong += [f"left behind: {job}" for job in ground.jobs_alive()]
        found = ground.state(self.stage.connection)
        expected = self.expected[self.now]
        wrong += [f"{key} is not that of an undisturbed run" for key in expected if found.get(key) != expected[key]]
        wrong += [f"the invariant {name} is violated" for name in ground.violated_invariants(self.stage.connection)]
        return wrong + self.stage.left_behind()


def campaign(days: Days, say: Callable[[str], None]) -> None:
    """Runs kills in whole days, lost and corrupted markers, and clocks that jump."""
    stage = days.stage

    def note(what: str, wrong: list[str]) -> None:
        stage.violations += [f"{what}: {each}" for each in wrong]
        say(f"{what}{''.join(f'{chr(10)}      VIOLATION: {each}' for each in wrong)}")

    for boundary, name in DAY_FAULTS:
        note(f"a day: {name} at {boundary.name}", days.strike(boundary, name))
    of_day = f"where partition_date = '{FIRST}'"
    for layer in ("bronze", "silver", "gold", "marts"):
        for fault, change in RECEIPT_FAULTS.items():
            dataset = "" if layer == "marts" else "and dataset = 'billing'"
            name = f"a marker {fault}"
            wrong = days.damage(
                f"{change} {of_day if layer != 'marts' else 'where true'} and layer = '{layer}' {dataset}"
            )
            stage.struck[name] += 1
            note(f"a day: {name} ({layer})", wrong)
    for jump in ("+ interval '10 years'", "- interval '20 years'"):
        for table, columns in CLOCKS.items():
            stage.connection.execute(f"update {table} set " + ", ".join(f"{c} = {c} {jump}" for c in columns))
        boundary = Boundary("gold's visits", "postgres", r"update visits as g")
        name = "kill -9 of the Luigi worker"
        stage.struck[f"a clock that jumps ({jump})"] += 1
        note(f"a day: clocks jump {jump}, and {name}", days.strike(boundary, name))
