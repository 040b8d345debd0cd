"""Runs a program and measures its cost, including the services that work for it: time, memory, CPU, traffic."""

import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import psutil

from jobs import settings
from stack import services

EVERY = 0.5  # seconds between two memory samples
JAVA = {  # a word in a JVM's command line, its class or for the driver its plugin -> kind
    "org.apache.spark.deploy.master.Master": "spark master",
    "org.apache.spark.deploy.worker.Worker": "spark worker",
    services.CONNECT_PLUGIN: "spark driver",
    "org.apache.spark.executor.CoarseGrainedExecutorBackend": "spark executors",
    "org.apache.spark.deploy.history.HistoryServer": "spark history",
}
KINDS = (*JAVA.values(), "postgres", "minio", "luigid", "other")
TRAFFIC = {way: f"minio_api_requests_traffic_{way}_bytes" for way in ("received", "sent")}


class Failed(SystemExit):
    """Signals that a program of the benchmark failed; the message has its last lines."""


def watch(command: Sequence[str], own: str, counted: Collection[str] = ()) -> dict[str, Any]:
    """Runs a command; returns output, seconds, peak memory and CPU seconds by kind of process, and MinIO's bytes.

    `own` is the kind of the command's own processes; `counted` limits the stack's kinds, by default to all.
    """
    kinds = {own, *(counted or KINDS)}
    before, traffic_before = cpu_of_stack(), traffic()
    peaks: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        began, began_at = time.monotonic(), time.time()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=settings.ROOT)
        ended = threading.Event()
        sampler = threading.Thread(target=sample, args=(process.pid, own, kinds, peaks, ended))
        sampler.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.monotonic() - began
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            ended.set()
            sampler.join()
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise Failed(f"{' '.join(command[1:])} failed:\n{text[-4000:]}")
    cpu = {kind: spent - before.get(kind, 0) for kind, spent in cpu_of_stack().items() if kind in kinds}
    cpu[own] = usage.ru_utime + usage.ru_stime
    s3 = {way: count - traffic_before[way] for way, count in traffic().items()}
    return {
        "output": text,
        "began_at": began_at,
        "seconds": round(seconds, 3),
        "peak_mib": {kind: round(peak) for kind, peak in peaks.items()},
        "cpu_seconds": {kind: round(spent, 1) for kind, spent in cpu.items()},
        "s3_bytes": s3,
    }


def sample(pid: int, own: str, kinds: Collection[str], peaks: dict[str, float], ended: threading.Event) -> None:
    """Records the peaks of resident memory in MiB, for each kind and for all together."""
    while not ended.wait(EVERY):
        used: dict[str, float] = defaultdict(float)
        shared = 0.0
        for kind, process in [(kind_of(p), p) for p in stack()] + [(own, p) for p in family(pid)]:
            try:
                memory = process.memory_info()
            except psutil.Error:
                continue
            # PostgreSQL's processes all count the same shared buffers.
            apart = memory.shared if kind == "postgres" else 0
            shared = max(shared, apart)
            used[kind] += memory.rss - apart
        used["postgres"] += shared
        used = {kind: size / 2**20 for kind, size in used.items() if kind in kinds}
        for kind, size in {**used, "all": sum(used.values())}.items():
            peaks[kind] = max(peaks[kind], size)


def family(pid: int) -> list[psutil.Process]:
    """Returns a process and its descendants; none if it has ended."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def stack() -> list[psutil.Process]:
    """Returns the stack's processes: supervisord and its descendants."""
    pid_file = settings.path("STACK_DIR") / "supervisord.pid"
    try:
        return family(int(pid_file.read_text()))
    except (OSError, ValueError):
        return []


known: dict[psutil.Process, str] = {}


def kind_of(process: psutil.Process) -> str:
    """Returns the kind of a process of the stack; a process that is still starting is classified on a later call."""
    if process not in known:
        try:
            name, words = process.name(), process.cmdline()
        except psutil.Error:
            return "other"
        kind = next((JAVA[word] for word in words if word in JAVA), name)
        if kind not in KINDS:
            return "other"
        known[process] = kind
    return known[process]


def cpu_of_stack() -> dict[str, float]:
    """Returns CPU seconds so far by kind of process, including ended children."""
    spent: dict[str, float] = defaultdict(float)
    for process in stack():
        try:
            spent[kind_of(process)] += sum(process.cpu_times()[:4])
        except psutil.Error:
            continue
    return spent


def traffic() -> dict[str, int]:
    """Returns the bytes that MinIO has received and sent through S3 since it started."""
    try:
        request = urllib.request.Request(
            # Version 2 of these metrics is cached for ten seconds; version 3 is current.
            f"{settings.s3_endpoint()}/minio/metrics/v3/api/requests",
            headers={"Authorization": f"Bearer {token()}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read().decode()
    except OSError:
        return dict.fromkeys(TRAFFIC, 0)
    return {
        way: sum(int(float(value)) for value in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.M))
        for way, name in TRAFFIC.items()
    }


def token() -> str:
    """Returns the token that `mc admin prometheus generate` prints: a JWT signed with the root user's password."""
    claims = {"exp": int(time.time()) + 3600, "sub": settings.get("MINIO_ROOT_USER"), "iss": "prometheus"}
    parts = [in_base64(json.dumps(part).encode()) for part in ({"alg": "HS512", "typ": "JWT"}, claims)]
    secret = settings.get("MINIO_ROOT_PASSWORD").encode()
    signature = hmac.new(secret, ".".join(parts).encode(), hashlib.sha512).digest()
    return ".".join([*parts, in_base64(signature)])


def in_base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
