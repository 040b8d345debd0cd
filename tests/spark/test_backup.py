"""Checks that a backup is complete, private and encrypted, and that a drill finds what it would not restore."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from jobs import bronze_files, delta_log, delta_tables, lake_paths, object_store, settings, warehouse
from jobs.catalog import CATALOG
from jobs.program import Refused
from stack import archive, backup, inventory, own, prepare, services

PLANTED = "Zq7Kplanted"
DATA = ["globals.sql", "history.sql", "lake.tar", "warehouse.dump"]


def run(*words, **environment):
    """Runs a module as `make` does."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=settings.ROOT,
        env=os.environ | {name: str(value) for name, value in environment.items()},
        text=True,
        capture_output=True,
    )


def taken(target, **environment):
    done = run("stack.backup", "take", target, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def drilled(source, **environment):
    """Returns code and output of a drill; checks that its stack is removed."""
    before = set(Path(os.environ.get("TMPDIR", "/tmp")).glob("healthcare-[dp][rg]*"))
    done = run("stack.restore", "drill", source, **environment)
    assert not set(Path(os.environ.get("TMPDIR", "/tmp")).glob("healthcare-[dp][rg]*")) - before
    assert "Traceback" not in done.stderr and PLANTED not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr.strip()


@pytest.fixture(scope="session")
def key_pair(tmp_path_factory):
    """Returns age's key file and public key; without age, tests fail and name what to install."""
    try:
        archive.age()
    except Refused as error:
        pytest.fail(str(error), pytrace=False)
    file = tmp_path_factory.mktemp("keys") / "key.txt"
    told = subprocess.run(["age-keygen", "-o", file], capture_output=True, text=True, check=True).stderr
    return file, re.findall("age1[0-9a-z]+", told)[0]


@pytest.fixture
def filled(hospital):
    """Returns a hospital's day in every store: gold, the marts, both Delta tables, bronze."""
    from jobs.gold_to_marts import gold_to_marts

    people = [hospital.row("patients", f"P{number}", city=PLANTED) for number in range(30)]
    hospital.validate("patients", 1, *people, hospital.row("patients", "P99", birth_date="never"))
    hospital.load("patients", 1)
    gold_to_marts(hospital.day(1))
    return hospital


def test_a_backup_is_private_encrypted_and_restores_to_what_it_was_taken_of(filled, tmp_path, key_pair):
    identity, recipient = key_pair
    target = taken(tmp_path / "new" / "backup", BACKUP_RECIPIENT=recipient)
    files = sorted(target.iterdir())
    assert [file.name for file in files] == sorted([*(f"{name}.age" for name in DATA), "manifest.json"])
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    secrets = [settings.get(name) for name in ("POSTGRES_PASSWORD", "POSTGRES_READ_PASSWORD", "MINIO_SECRET_KEY")]
    for file in files:
        content = file.read_bytes()
        assert not [text for text in (PLANTED, *secrets) if text.encode() in content]
        assert file.name == "manifest.json" or content.startswith(b"age-encryption.org/v1")
    manifest = backup.read_manifest(target)
    tables, delta = manifest["inventory"]["postgres"]["tables"], manifest["inventory"]["lake"]["delta"]
    for name in CATALOG:
        assert tables[name][0] == warehouse.value(filled.postgres, f"select count(*) from {name}")
    assert tables["patients"][0] >= 30 and delta["patients, accepted"][2] >= 30 and delta["patients, rejected"][2] >= 1

    code, out, err = drilled(target, BACKUP_IDENTITY=identity)
    assert code == 0, out + err
    assert "can be restored" in out and "DIFFERS" not in out
    for group in ("gold", "marts", "ops", "rights", "policies", "triggers", "settings of roles", "silver"):
        assert re.search(rf"^  {group}\b.*as in the backup$", out, re.M), group

    assert "name the file of its private key" in drilled(target)[2]
    other = tmp_path / "other.txt"
    subprocess.run(["age-keygen", "-o", other], capture_output=True, check=True)
    code, _, err = drilled(target, BACKUP_IDENTITY=other)
    assert code == 1 and "age does not decrypt globals.sql.age" in err


def test_the_rows_that_a_delta_log_tells_are_those_of_the_table(filled, spark):
    """Covers commits followed by a Delta checkpoint, and files that replaced others."""
    table, day = CATALOG["patients"], filled.day(1)
    path = lake_paths.silver_path(table, "accepted")
    interval = f"alter table delta.`{path}` set tblproperties (delta.checkpointInterval={{}})"
    spark.sql(interval.format(5))
    rows = delta_tables.silver(spark, table).filter(f"_partition_date = '{day}'")
    for number in range(7):
        delta_tables.replace(rows, table, "accepted", [day], f"run {number}", None, lambda: None)
    spark.sql(interval.format(50))
    live = delta_log.live_files(table, "accepted")
    log = object_store.s3().list_objects_v2(Bucket=settings.get("MINIO_BUCKET_SILVER"), Prefix="patients/_delta_log/")
    assert [entry for entry in log["Contents"] if "checkpoint" in entry["Key"]]
    assert sum(live.values()) == delta_tables.silver(spark, table).count()
    assert len(live) == len(delta_tables.silver(spark, table).inputFiles())


def test_a_drill_finds_a_changed_byte_a_missing_row_and_a_missing_object(filled, tmp_path):
    first = taken(tmp_path / "first")
    with filled.postgres.transaction():
        filled.postgres.execute("delete from patients where patient_id = %s", [filled.key("P7")])
    second = taken(tmp_path / "second")

    torn = shutil.copytree(first, tmp_path / "torn")
    content = bytearray((torn / "lake.tar").read_bytes())
    content[len(content) // 2] ^= 1
    (torn / "lake.tar").write_bytes(content)
    code, _, err = drilled(torn)
    assert code == 1 and "lake.tar is not the file that was written" in err

    def with_parts(name, parts, **facts):
        """Returns the first backup with parts of the second, and a manifest that matches them."""
        made = shutil.copytree(first, tmp_path / name)
        manifest = json.loads((made / "manifest.json").read_text())
        for part in parts:
            shutil.copy(second / part, made / part)
            manifest["files"][part] = backup.read_manifest(second)["files"][part]
        manifest["inventory"]["lake"]["objects"][settings.get("MINIO_BUCKET_BRONZE")] |= facts
        (made / "manifest.json").write_text(json.dumps(manifest))
        return made

    code, out, err = drilled(with_parts("less", ["warehouse.dump"], **{"patients/lost.csv": [1, "0" * 64]}))
    was = backup.read_manifest(first)["inventory"]["postgres"]["tables"]["patients"][0]
    assert code == 1 and f"patients ({was - 1:,} rows, in the backup {was:,})" in err
    assert "healthcare-bronze: patients/lost.csv" in err
    assert re.search(r"^  gold\b.*DIFFERS$", out, re.M) and re.search(r"^  silver\b.*as in the backup$", out, re.M)


def test_a_backup_is_restored_into_an_empty_stack_and_over_another_only_by_force(filled, tmp_path):
    source, home = taken(tmp_path / "backup"), tmp_path / "restored"
    ports = own.free_ports(4)
    environment = {
        "STACK_DIR": home,
        "POSTGRES_PORT": ports[0],
        "POSTGRES_HOST": "127.0.0.1",
        "MINIO_ENDPOINT": f"http://127.0.0.1:{ports[1]}",
        "MINIO_CONSOLE_PORT": ports[2],
    }
    elsewhere = run("stack.restore", "put", source, **environment | {"POSTGRES_HOST": "warehouse.example.org"})
    assert elsewhere.returncode == 1 and "embedded stack alone" in elsewhere.stderr and not home.exists()
    done = run("stack.restore", "put", source, **environment)
    assert done.returncode == 0 and "`make up` starts it" in done.stdout, done.stdout + done.stderr
    assert {path.name for path in home.iterdir()} >= {"postgres", "minio", "luigi", "dashboards"}
    assert not (home / "restored").exists()

    (home / "luigi" / "mark").touch()
    refused = run("stack.restore", "put", source, **environment)
    assert refused.returncode == 1 and "FORCE=1" in refused.stderr and (home / "luigi" / "mark").exists()
    wrong = shutil.copytree(source, tmp_path / "wrong")
    manifest = json.loads((wrong / "manifest.json").read_text())
    manifest["inventory"]["postgres"]["tables"]["patients"][1] = "1"
    (wrong / "manifest.json").write_text(json.dumps(manifest))
    refused = run("stack.restore", "put", wrong, "--force", **environment)
    assert refused.returncode == 1 and "patients (as many rows, with other values)" in refused.stderr
    assert "The stack is unchanged and stopped" in refused.stderr
    assert (home / "luigi" / "mark").exists(), "what was there stays"
    (home / prepare.MARKER).write_text(f"{prepare.RESTORING}\n")  # left by a restore killed halfway
    refused = run("stack", "up", **environment)
    assert refused.returncode == 1 and "was killed: give it again, with FORCE=1" in refused.stderr
    done = run("stack.restore", "put", source, "--force", **environment)
    assert done.returncode == 0 and not (home / "luigi" / "mark").exists(), done.stdout + done.stderr

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, str(value))
        server = subprocess.Popen(services.postgres().command, cwd="/", stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 30
            while services.lacks_login():  # logs in as each of the three roles with the passwords of the settings
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
            with services.connect() as connection, services.connect("POSTGRES_READ") as reader:
                assert (
                    inventory.of_postgres(connection)["definitions"]
                    == (backup.read_manifest(source)["inventory"]["postgres"]["definitions"])
                )
                assert reader.execute("select count(*) from patients where city = %s", [PLANTED]).fetchone() == (30,)
                assert warehouse.value(reader, "select current_setting('temp_file_limit')") == "10GB"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()


def test_a_backup_waits_for_runs_they_wait_for_it_and_an_interrupted_one_leaves_nothing(hospital, tmp_path):
    (tmp_path / "there").mkdir()
    refused = run("stack.backup", "take", tmp_path / "there")
    assert refused.returncode == 1 and "already exists" in refused.stderr
    with warehouse.connect() as connection, warehouse.writer(connection, "silver patients"):
        waits = subprocess.Popen(
            [sys.executable, "-m", "stack.backup", "take", tmp_path / "none"],
            cwd=settings.ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waits.stderr.readline() == "waiting: a run is writing, and a backup wants all runs to stand still\n"
        assert (tmp_path / "none.partial").is_dir() and not (tmp_path / "none").exists()
        waits.terminate()
        assert waits.wait() == 130
    assert [path.name for path in tmp_path.iterdir()] == ["there"]

    hospital.land("patients", 1, hospital.row("patients", "P1"))
    with warehouse.connect() as connection:
        with warehouse.standstill(connection):
            job = subprocess.Popen(
                [sys.executable, "jobs/landing_to_bronze.py", "patients", str(hospital.day(1))],
                cwd=settings.ROOT,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert job.stderr.readline() == "waiting: a backup is being taken\n"
            assert bronze_files.bronze_head(CATALOG["patients"], hospital.day(1)) is None
        assert job.wait() == 0 and bronze_files.bronze_head(CATALOG["patients"], hospital.day(1))


def test_the_schedule_keeps_so_many_of_its_own_and_health_tells_of_one_that_is_missing(stack, tmp_path, monkeypatch):
    folder = tmp_path / "backups"
    monkeypatch.setenv("BACKUP_DIR", str(folder))
    assert list(backup.problems()) == [], "without a schedule nothing is promised"
    monkeypatch.setenv("BACKUP_SCHEDULE", "30 2 * * *")
    monkeypatch.setenv("BACKUP_KEEP", "1")
    assert "there is no backup" in next(backup.problems())
    for bystander in ("2026-01-31", "2026-01-31T023000Z", "notes"):
        (folder / bystander).mkdir(parents=True)
    by_hand = taken(folder / "2026-01-30T023000Z")
    killed, alive = folder / "2026-01-29T023000Z.partial", folder / "2026-01-28T023000Z.partial"
    for partial in (killed, alive):
        partial.mkdir()
    os.utime(killed, (0, 0))
    first = run("stack.backup", "scheduled")
    assert first.returncode == 0, first.stderr
    [earlier] = backup.of_clock(folder)
    time.sleep(1)
    second = run("stack.backup", "scheduled")
    assert second.returncode == 0 and "1 older removed" in second.stdout
    [newest] = backup.of_clock(folder)
    assert newest != earlier and not earlier.exists() and by_hand.exists()
    assert {path.name for path in folder.iterdir()} == {
        "2026-01-31",
        "2026-01-31T023000Z",
        "notes",
        alive.name,
        by_hand.name,
        newest.name,
    }
    assert list(backup.problems()) == []

    failed = run("stack.backup", "scheduled", POSTGRES_PORT="9")
    assert failed.returncode == 1 and "does not answer" in failed.stderr
    [line] = backup.problems()
    assert line.startswith("the last backup failed: PostgreSQL at ") and backup.of_clock(folder) == [newest]
    manifest = json.loads((newest / "manifest.json").read_text())
    manifest["taken_at"] = (datetime.now(timezone.utc) - timedelta(days=2)).isoformat()
    (newest / "manifest.json").write_text(json.dumps(manifest))
    [_, line] = backup.problems()
    assert line.startswith("the newest backup is of ")


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("BACKUP_RECIPIENT", "age1nonsense", "is not a public key of age"),
        ("BACKUP_RECIPIENT", "-i /etc/passwd", "is not a public key of age"),
        ("BACKUP_SCHEDULE", "at night", "is not a time of crontab's"),
        ("BACKUP_KEEP", "0", "how many backups stay"),
    ],
)
def test_a_wrong_setting_is_refused_with_a_sentence_before_anything_is_written(tmp_path, setting, value, sentence):
    words = (
        ("stack.backup", "take", tmp_path / "to") if setting == "BACKUP_RECIPIENT" else ("pipelines", "schedule", "")
    )
    refused = run(*words, **{"SCHEDULE": "", "BACKUP_SCHEDULE": "30 2 * * *"} | {setting: value})
    assert refused.returncode in (1, 2) and sentence in refused.stderr and "Traceback" not in refused.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "verb", "example"), [("backup", "take", "backup TO"), ("restore", "put", "restore FROM")]
)
def test_without_a_directory_it_says_how(module, verb, example):
    refused = run(f"stack.{module}", verb, "")
    assert refused.returncode == 2 and f"make {example}=backups/2026-01-31" in refused.stderr
