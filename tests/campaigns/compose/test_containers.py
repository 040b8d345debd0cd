"""Runs the whole stack in containers of docker-compose.yml: real servers, real days, and recovery after kills.

`make test-compose` runs this; the tests build on one another, in this order. COMPOSE_FILE names another file to test.
"""

import csv
import json
import os
import re
import shlex
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs import bronze_files, delta_tables, marts, object_store, settings, warehouse
from jobs.catalog import CATALOG
from stack import archive
from stack.own import free_ports
from tests.campaigns.compose import machine
from tests.support import model
from tests.support.history import comparable, expect, found, found_rows

FIRST, *LATER = (date(2026, 1, day) for day in range(1, 8))
SCALE = "0.5"  # ten visits on a later date
# Renamed volumes would leave behind the data of an earlier version.
VOLUMES = {"postgres", "minio", "landing", "spark-events", "scheduler", "dashboards"}


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[machine.Project]:
    """Yields the project, built and running; removes it with all its data afterwards."""
    file = Path(os.environ.get("COMPOSE_FILE", settings.ROOT / "docker-compose.yml"))
    os.environ["MINIO_PORT"] = settings.s3_endpoint().rpartition(":")[2]
    os.environ["SPARK_UI_PORT"] = str(free_ports(1)[0])
    os.environ["COMPOSE_PROFILES"] = "core"
    os.environ["POSTGRES_IMAGE"] = "docker.io/library/postgres:stand-in"
    os.environ["WAL_ARCHIVE"] = str(tmp_path_factory.mktemp("wal"))
    os.chmod(os.environ["WAL_ARCHIVE"], 0o777)  # the container's user, whoever it is
    os.environ["SECRETS_DIR"] = str(tmp_path_factory.mktemp("secrets"))
    subprocess.run([settings.ROOT / "conf" / "containers" / "secrets.sh"], check=True)
    machine.ready()
    machine.debian()
    own = machine.Project(file, f"healthcare-test-{os.getpid()}")
    machine.stand_in(own.services["postgres"]["image"])
    try:
        for service in ("minio", "stores"):
            print(f"\nour image of {service}: {own.build(service)}")
        began = time.monotonic()
        own.up()
        print(f"up and healthy in {time.monotonic() - began:.0f} s")
        yield own
    finally:
        own.down("--volumes")


def python(project: machine.Project, *words: str) -> str:
    """Runs one of the platform's modules in the runner; returns its output."""
    done = project.execute("runner", "python", "-m", *words)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def generate(project: machine.Project, day: date) -> None:
    python(project, "jobs.generate", str(day), "--scale", SCALE)


def make(project: machine.Project, *words: str) -> str:
    """Runs a make target on this project; returns its output."""
    return machine.run("make", f"COMPOSE={shlex.join(project.command)}", *words, cwd=settings.ROOT)


def luigi(project: machine.Project, day: date) -> subprocess.CompletedProcess[str]:
    return project.execute("runner", "luigi", "--module", "pipelines", "Day", "--date", str(day))


def landed(project: machine.Project) -> dict[model.Place, list[list[str]]]:
    """Returns the well-formed rows of the files in the landing volume."""
    files: dict[model.Place, list[list[str]]] = {}
    with TemporaryDirectory() as landing:
        machine.podman("cp", f"{project.containers('runner')[0]}:/var/lib/healthcare/landing/.", landing)
        for path in (path for path in sorted(Path(landing).rglob("*.csv")) if path.stem in CATALOG):
            with path.open(newline="", encoding="utf-8-sig") as file:
                header, *rows = csv.reader(file)
            # A malformed row is not a parent and in no table; undeclared columns are not loaded.
            sound = [row for row in rows if len(row) == len(header) and "\0" not in "".join(row)]
            places = [header.index(name) for name in model.COLUMNS[path.stem]]
            day = date(*map(int, path.parts[-4:-1]))
            files[path.stem, day] = [[row[place] for place in places] for row in sound]
    return files


def check(project: machine.Project) -> None:
    """Checks that all eight tables hold what the plain model derives from the landing volume."""
    files = landed(project)
    gold = model.gold(model.silver(files))
    for layer, tables in (("gold", gold), ("mart", model.marts(gold))):
        for name, rows in tables.items():
            assert rows, f"{name} has no row"
            expect(f"{layer} {name}", map(comparable, found_rows(name)), map(comparable, rows))
    with warehouse.connect() as connection:
        marts.check(connection)
    verdicts = python(project, "pipelines", "ledger").splitlines()[1 : 1 + len({day for _, day in files})]
    assert all(" complete, balanced, current" in line for line in verdicts), verdicts


def get(port: str, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.get(port)}{path}", timeout=20) as answer:
        return answer.read().decode()


# ---- services --------------------------------------------------------------------------------------------------------


def test_the_data_lies_in_the_volumes_that_the_documentation_names(project):
    there = project.volumes()
    missing = {volume for volume in VOLUMES if f"{project.name}_{volume}" not in there}
    assert not missing, f"no service has its data in {missing}"


def test_a_health_check_fails_where_its_service_does_not_run(project):
    for service in (name for name, each in project.services.items() if "healthcheck" in each):
        container = json.loads(machine.podman("inspect", project.containers(service)[0]))[0]
        kind, *words = container["Config"]["Healthcheck"]["Test"]
        command = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        run = ["podman", "run", "--rm", "--network=none", f"--entrypoint={command[0]}", container["Image"]]
        checked = subprocess.run([*run, *command[1:]], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        # Codes from 125 on are podman's own.
        assert 0 < checked.returncode < 125, f"{service}'s check, beside no server: {checked}"


def test_no_container_is_started_with_a_secret(project):
    values = [file.read_text().strip() for file in Path(os.environ["SECRETS_DIR"]).iterdir()]
    secrets = [value for value in values if value and not value.endswith("=")]
    assert len(secrets) > 10
    for service in project.services:
        for container in project.containers(service):
            told = machine.podman("inspect", container)
            assert [value for value in secrets if value in told] == [], f"{service} shows a secret"


def test_where_no_port_is_published_nothing_leads_out(project):
    listener = machine.podman(
        "run", "-d", "--rm", "--entrypoint=python3", project.services["stores"]["image"], "-m", "http.server"
    )
    try:
        at = machine.podman("inspect", "--format", "{{.NetworkSettings.IPAddress}}", listener.strip()).strip()
        ask = ["curl", "-sS", "-o", "/dev/null", "--connect-timeout", "3", "--retry", "3", "--retry-connrefused"]
        assert project.execute("runner", *ask, f"http://{at}:8000/").returncode == 0
        assert project.execute("spark-worker", *ask[:-3], f"http://{at}:8000/").returncode in (7, 28)
    finally:
        machine.podman("rm", "--force", listener.strip())


def test_postgres_has_checksums_and_archives_its_log(project):
    with warehouse.connect() as connection:
        assert warehouse.value(connection, "show data_checksums") == "on"
    superuser = ["psql", "-U", "postgres", "-tAc", "select pg_walfile_name(pg_switch_wal())"]
    segment = project.execute("postgres", *superuser).stdout.strip()
    until = time.monotonic() + 60
    while not (Path(os.environ["WAL_ARCHIVE"]) / segment).is_file():
        assert time.monotonic() < until, f"{segment} was not archived"
        time.sleep(0.5)


# ---- a day -----------------------------------------------------------------------------------------------------------


def test_a_day_runs_by_the_targets_that_the_workflows_call(project):
    make(project, "generate-docker", f"DATE={FIRST}", f"SCALE={SCALE}")
    for target in ("bronze-docker", "silver-docker", "gold-docker", "verify-docker"):
        make(project, target, f"DATE={FIRST}")
    make(project, "endpoints")
    done = luigi(project, FIRST)
    assert done.returncode == 0, done.stdout[-4000:]
    check(project)
    for dataset in CATALOG.values():
        assert bronze_files.bronze_head(dataset, FIRST)
        assert delta_tables.has_silver(dataset, "accepted") and delta_tables.has_silver(dataset, "rejected")


def test_it_is_current_then_and_a_forced_rerun_changes_nothing(project):
    assert "is current" in python(project, "pipelines", "run", str(FIRST))
    python(project, "pipelines", "run", str(FIRST), "--force")
    check(project)


def test_targets_that_ask_the_servers_need_no_twin_for_containers(project):
    assert f"{FIRST} " in make(project, "ledger")
    assert "orphan_patient_id" in make(project, "rejects", f"DATE={FIRST}")
    assert f"visits/{FIRST:%Y/%m/%d}/visits.csv" in make(project, "why", "KEY=V00000123")


def test_a_job_by_hand_is_an_application_of_its_own(project):
    done = project.execute("runner", "spark-submit", "jobs/bronze_to_silver.py", "patients", str(FIRST))
    assert done.returncode == 0 and "accepted" in done.stdout, done.stdout[-4000:]


def test_by_the_clock_the_date_that_has_ended_is_run(project):
    yesterday = (datetime.now(timezone.utc) - timedelta(days=1)).date()
    generate(project, yesterday)
    command = ["sh", "-c", 'echo $$; exec python -m pipelines schedule "* * * * *"']
    runner = project.containers("runner")[0]
    with subprocess.Popen(["podman", "exec", runner, *command], text=True, stdout=subprocess.PIPE) as clock:
        assert clock.stdout
        process = next(clock.stdout).strip()
        said = next(line for line in clock.stdout if line.startswith(f"{yesterday}: "))
        project.execute("runner", "kill", process)
    assert said.strip() == f"{yesterday}: done"
    check(project)


def test_pages_are_served_and_the_history_server_knows_the_applications(project):
    python(project, "dashboards.pages")
    assert "mart_patient_stats" in python(project, "pipelines", "summary")
    assert "Executive Overview" in get("DASHBOARDS_PORT", "/executive-overview.html")
    names = {each["name"] for each in applications()}
    assert "spark-connect" in names and len(names) > 1, names


def applications() -> list[dict[str, Any]]:
    return json.loads(get("SPARK_HISTORY_PORT", "/api/v1/applications"))


def test_prometheus_can_read_what_luigi_spark_and_minio_tell(project):
    told = {
        "luigi_task": ("LUIGI_PORT", "/metrics"),
        "metrics_master_aliveWorkers": ("SPARK_MASTER_WEBUI_PORT", "/metrics/master/prometheus/"),
        "metrics_executor_": ("SPARK_UI_PORT", "/metrics/executors/prometheus"),
        "metrics_spark_connect_driver_": ("SPARK_UI_PORT", "/metrics/prometheus/"),
        "minio_cluster_usage_object": ("MINIO_PORT", "/minio/v2/metrics/cluster"),
    }
    pages = {beginning: get(port, path) for beginning, (port, path) in told.items()}
    worker = project.execute("spark-worker", "curl", "-fsS", "http://127.0.0.1:8081/metrics/prometheus/")
    for beginning, page in (pages | {"metrics_worker_": worker.stdout}).items():
        names = {family.name for family in text_string_to_metric_families(page)}
        assert any(name.startswith(beginning) for name in names), (beginning, sorted(names)[:20])


# ---- kills -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("service", "day"), list(zip(["spark-worker", "minio", "postgres"], LATER, strict=False)))
def test_after_a_death_in_mid_run_the_same_command_ends_right(project, service, day):
    generate(project, day)
    command = ["podman", "exec", project.containers("runner")[0], "luigi", "--module", "pipelines", "Day", "--date"]
    with subprocess.Popen([*command, str(day)], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        assert run.stdout
        for line in run.stdout:  # a file is validated: silver is being written, gold is not there yet
            if line.startswith("silver "):
                break
        assert run.poll() is None, "the run was over"
        began = time.monotonic()
        project.die(service)
        project.back(service)
        rest = run.stdout.read()
    print(f"\n{service} died: the run ended with code {run.returncode} after {time.monotonic() - began:.0f} s")
    print(rest[-3000:] if os.environ.get("SHOW") else "")
    if run.returncode:
        assert "Traceback" not in rest, rest[-4000:]
    project.wait_for_health("spark-connect", 180)
    python(project, "pipelines", "run", str(day))
    check(project)


def test_a_backup_brings_back_what_was_and_runs_go_on_from_there(project, tmp_path):
    backup, day = tmp_path / "backup", LATER[3]
    archive.age()
    told = subprocess.run(["age-keygen", "-o", tmp_path / "key.txt"], capture_output=True, text=True, check=True).stderr
    make(project, "backup-docker", f"TO={backup}", f"BACKUP_RECIPIENT={re.findall('age1[0-9a-z]+', told)[0]}")
    parts = ["globals.sql", "lake.tar", "metabase.dump", "warehouse.dump"]
    assert sorted(file.name for file in backup.iterdir()) == ["checksums", *(f"{part}.age" for part in parts)]
    with pytest.raises(RuntimeError, match="name the file of its private key"):
        make(project, "restore-docker", f"FROM={backup}")
    project.up()
    # The restore must remove what came later: a date, and additions of a later version of the schema.
    generate(project, day)
    python(project, "pipelines", "run", str(day))
    with warehouse.connect() as connection:
        connection.execute("create view reports.later as select patient_id from patients")
        connection.execute("truncate patients cascade")
    for kept in object_store.s3().list_objects_v2(Bucket=settings.get("MINIO_BUCKET_SILVER"))["Contents"][:50]:
        object_store.s3().delete_object(Bucket=settings.get("MINIO_BUCKET_SILVER"), Key=kept["Key"])
    make(project, "restore-docker", f"FROM={backup}", f"BACKUP_IDENTITY={tmp_path / 'key.txt'}")
    project.up()
    assert bronze_files.bronze_head(CATALOG["patients"], day) is None
    assert not found("select 1 from pg_views where viewname = 'later'")
    project.execute("runner", "rm", "-r", f"/var/lib/healthcare/landing/{day:%Y/%m/%d}")
    check(project)
    assert "is current" in python(project, "pipelines", "run", str(FIRST))
    generate(project, day)
    python(project, "pipelines", "run", str(day))
    check(project)
    (backup / "lake.tar.age").write_bytes(b"torn")
    with pytest.raises(RuntimeError, match="not a whole backup"):
        make(project, "restore-docker", f"FROM={backup}")


def test_what_is_stopped_and_started_goes_on(project):
    machine.podman("restart", *(name for service in project.services for name in running(project, service)))
    project.up()
    python(project, "pipelines", "run", str(FIRST), "--force")
    check(project)


def scheduled() -> set[str]:
    """Returns the runs of whole dates in Luigi's history, by the addresses of their pages."""
    return set(re.findall(r"/history/by_id/\d+", get("LUIGI_PORT", "/history/by_name/Day")))


def running(project: machine.Project, service: str) -> list[str]:
    return [name for name in project.containers(service) if project.state(name)["Status"] == "running"]


# ---- more workers, and the end ---------------------------------------------------------------------------------------


def test_two_workers_share_a_day(project):
    day = LATER[4]
    generate(project, day)
    project.compose("up", "-d", "--no-deps", "--no-build", "--scale", "spark-worker=2", "spark-worker")
    project.wait_for_health("spark-worker", 120)
    assert len(project.containers("spark-worker")) == 2
    # The Spark Connect server requested its cores when it started.
    machine.podman("restart", *project.containers("spark-connect"))
    project.wait_for_health("spark-connect", 180)
    python(project, "pipelines", "run", str(day))
    check(project)
    newest = max(
        (each for each in applications() if each["name"] == "spark-connect"),
        key=lambda each: each["attempts"][0]["startTimeEpoch"],
    )
    tasks = tasks_by_host(newest["id"])
    print(f"\ntasks by worker: {tasks}")
    assert len(tasks) == 2 and all(tasks.values())


def tasks_by_host(application: str) -> dict[str, int]:
    """Returns how many tasks succeeded on each worker, from the history server's copy of the event log."""
    executors = json.loads(get("SPARK_HISTORY_PORT", f"/api/v1/applications/{application}/allexecutors"))
    tasks: Counter[str] = Counter()
    for each in executors:
        if each["id"] != "driver":
            tasks[each["hostPort"].rpartition(":")[0]] += each["completedTasks"]
    return dict(tasks)


def test_down_keeps_the_data_and_down_with_volumes_does_not(project):
    files, events, history = landed(project), {each["id"] for each in applications()}, scheduled()
    assert files and events and history
    project.down()
    assert not any(project.containers(service) for service in project.services)
    project.up()
    assert landed(project) == files
    check(project)
    for dataset in CATALOG.values():
        assert bronze_files.bronze_head(dataset, FIRST)
    assert "is current" in python(project, "pipelines", "run", str(FIRST))
    assert "Executive Overview" in get("DASHBOARDS_PORT", "/executive-overview.html")
    assert events <= {each["id"] for each in applications()}
    assert history <= scheduled()
    project.down("--volumes")
    assert project.volumes() == set()
