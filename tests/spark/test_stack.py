"""Checks the promises of `make up`, `status` and `down` on the embedded stack."""

import os
import re
import socket
import subprocess
import time
import urllib.request
from contextlib import suppress

import psutil
import pytest

from jobs import object_store, program, settings
from stack import prepare, services, supervision
from stack.own import PORTS, free_ports
from tests.conftest import run_stack

SUBMITTED = """
from pyspark.sql import SparkSession
import jobs
spark = SparkSession.builder.appName("by-hand").getOrCreate()
spark.range(10, numPartitions=1).write.csv("s3a://{bucket}/by-hand")
print("rows", spark.read.csv("s3a://{bucket}/by-hand").count(), spark.sparkContext.master)
"""


def archived(tmp_path, monkeypatch, archive):
    """Loads a table of 20 MB into a separate PostgreSQL; returns data_checksums, wal_level and the bytes of log."""
    monkeypatch.setenv("STACK_DIR", str(tmp_path / "stack"))
    monkeypatch.setenv("POSTGRES_PORT", str(free_ports(1)[0]))
    monkeypatch.setenv("WAL_ARCHIVE", str(archive))
    for step in (prepare.state_directory, prepare.database, prepare.wal_archive):
        step()
    program = services.postgres()
    with subprocess.Popen(program.command, env=program.environment, stderr=subprocess.DEVNULL, cwd="/") as server:
        try:
            while services.lacks_login():
                assert server.poll() is None, "the server ended"
                time.sleep(0.1)
            with services.connect() as connection:
                shown = [connection.execute(f"show {name}").fetchone()[0] for name in ("data_checksums", "wal_level")]
                before = connection.execute("select pg_current_wal_lsn()").fetchone()[0]
                connection.execute("create table ops.big as select repeat('x', 100) from generate_series(1, 160000)")
                wal = connection.execute("select pg_wal_lsn_diff(pg_current_wal_lsn(), %s)", [before]).fetchone()[0]
                until = time.monotonic() + 30
                while archive and not list(archive.glob("0*")) and time.monotonic() < until:
                    time.sleep(0.1)
        finally:
            server.terminate()
    return [*shown, int(wal)]


@pytest.mark.stack
def test_the_log_is_archived_where_a_directory_is_named_and_data_has_checksums(tmp_path, monkeypatch):
    archive = tmp_path / "it's 100 % safe"
    checksums, level, wal = archived(tmp_path / "with", monkeypatch, archive)
    assert (checksums, level) == ("on", "replica") and wal > 16e6
    segments = [path for path in archive.iterdir() if re.fullmatch("[0-9A-F]{24}", path.name)]
    assert segments and all(path.stat().st_size == 16 * 2**20 for path in segments)
    assert archive.stat().st_mode & 0o777 == 0o700
    without = archived(tmp_path / "without", monkeypatch, "")
    print(f"log of a load: {wal:,} bytes archived, {without[-1]:,} otherwise")
    assert without[:-1] == ["on", "minimal"] and without[-1] < wal / 2


def test_every_service_answers(stack):
    assert {name: service.lacking() for name, service in services.SERVICES.items()} == dict.fromkeys(
        services.SERVICES, ""
    )


def test_up_again_is_quick_and_changes_nothing(stack):
    before, began = supervision.processes(), time.monotonic()
    again = run_stack("up")
    assert again.returncode == 0, again.stderr
    assert time.monotonic() - began < 15
    after = supervision.processes()
    assert [process["pid"] for process in after.values()] == [process["pid"] for process in before.values()]


def test_the_buckets_and_the_schema_are_there(stack, postgres):
    buckets = {bucket["Name"] for bucket in object_store.s3().list_buckets()["Buckets"]}
    assert buckets == {settings.get("MINIO_BUCKET_BRONZE"), settings.get("MINIO_BUCKET_SILVER")}
    assert postgres.execute("select to_regclass('public.patients') is not null").fetchone() == (True,)


def test_prometheus_can_read_what_luigi_spark_and_minio_tell(stack):
    told = {
        "luigi_task_started_total": ("LUIGI_PORT", "/metrics"),
        "metrics_master_aliveWorkers_Value": ("SPARK_MASTER_WEBUI_PORT", "/metrics/master/prometheus/"),
        "metrics_worker_coresUsed_Value": ("SPARK_WORKER_WEBUI_PORT", "/metrics/prometheus/"),
        "minio_cluster_health_status": ("MINIO_ENDPOINT", "/minio/v2/metrics/cluster"),
    }
    assert [name for name, place in told.items() if name not in services.web(*place).decode()] == []


def test_what_one_session_has_compiled_serves_the_next(stack):
    driver = services.resident_page()

    def stages_compiled():
        session = program.builder(program.spark_connect()).create()
        assert session.range(7).selectExpr("sum(id * id + 41)").collect() == [(378,)]
        session.stop()
        with urllib.request.urlopen(f"{driver}/metrics/prometheus/", timeout=30) as answer:
            return int(re.search(r"_CodeGenerator_compilationTime_Count\S* (\d+)", answer.read().decode())[1])

    assert stages_compiled() == stages_compiled()


def test_status_tells_a_running_stack_from_one_that_is_not(stack, tmp_path):
    assert run_stack("status").returncode == 0
    elsewhere = run_stack("status", STACK_DIR=str(tmp_path / "none"))
    assert elsewhere.returncode == 1
    assert "stopped" in elsewhere.stdout


def test_a_taken_port_is_named_and_nothing_is_started(tmp_path):
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = str(squatter.getsockname()[1])
        ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True)) | {"LUIGI_PORT": port}
        store = f"http://127.0.0.1:{free_ports(1)[0]}"
        refused = run_stack("up", STACK_DIR=str(tmp_path / "stack"), MINIO_ENDPOINT=store, **ports)
    assert refused.returncode == 1
    assert f"Port {port}, which luigid needs" in refused.stderr
    assert "LUIGI_PORT" in refused.stderr and "Traceback" not in refused.stderr
    assert not (tmp_path / "stack" / "postgres").exists()


def test_data_of_an_earlier_version_is_left_alone_with_a_sentence(tmp_path):
    (tmp_path / ".healthcare-stack").touch()
    (tmp_path / "postgres").mkdir()
    refused = run_stack("up", STACK_DIR=str(tmp_path))
    assert refused.returncode == 1
    assert "was made by an earlier version; its data cannot be kept: `make clean`, then `make up`." in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [".healthcare-stack", "postgres"]
    assert run_stack("clean", STACK_DIR=str(tmp_path)).returncode == 0 and not tmp_path.exists()


def test_clean_removes_only_a_stack(tmp_path):
    (tmp_path / "precious").touch()
    refused = run_stack("clean", STACK_DIR=str(tmp_path))
    assert refused.returncode == 1
    assert "nothing removed" in refused.stderr
    assert (tmp_path / "precious").exists()


def test_a_killed_service_comes_back(stack):
    old = supervision.processes()["luigid"]["pid"]
    psutil.Process(old).kill()
    until = time.monotonic() + 30
    while time.monotonic() < until:
        new = supervision.processes()["luigid"]["pid"]
        if new not in (0, old) and not services.SERVICES["luigid"].lacking():
            return
        time.sleep(0.5)
    raise AssertionError("luigid did not come back")


def test_nobody_else_may_enter_the_stacks_directory(stack):
    assert stack.stat().st_mode & 0o077 == 0
    assert (stack / "pgpass").stat().st_mode & 0o077 == 0


def test_no_command_line_shows_a_secret(stack):
    names = "POSTGRES_PASSWORD", "POSTGRES_READ_PASSWORD", "MINIO_ROOT_PASSWORD", "MINIO_SECRET_KEY"
    secrets = [settings.get(name) for name in names]
    for process in supervision.leftovers():
        with suppress(psutil.NoSuchProcess):
            assert not [secret for secret in secrets if secret in " ".join(process.cmdline())], process


def test_everything_listens_on_loopback_only(stack):
    mine = {process.pid for process in supervision.leftovers()}
    listening = [
        connection
        for connection in psutil.net_connections("tcp")
        if connection.pid in mine and connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= len(services.SERVICES)
    assert {connection.laddr.ip for connection in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_a_job_submitted_by_hand_runs_on_the_cluster(stack, tmp_path):
    job = tmp_path / "job.py"
    job.write_text(SUBMITTED.format(bucket=settings.get("MINIO_BUCKET_SILVER")))
    # pyspark itself marks the environment of a process that has a Spark Connect session.
    plain = {
        n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED")
    }
    done = subprocess.run(["spark-submit", str(job)], env=plain, cwd=tmp_path, capture_output=True, text=True)
    assert f"rows 10 {services.master_url()}" in done.stdout, done.stderr[-2000:]
    assert settings.get("MINIO_SECRET_KEY") not in done.stdout + done.stderr
