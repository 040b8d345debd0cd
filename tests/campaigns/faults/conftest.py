"""Prepares the stage for faults on the tests' shared stack; `make test-faults` also puts Spark behind proxies."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from jobs import settings
from jobs.catalog import CATALOG
from stack import services
from tests.campaigns.faults import campaign, ground, strikes
from tests.support import twin
from tests.support.examples import VALID, broken, record

DAY = date(2048, 1, 1)
ROWS = 40
DISK = "2500m"
WHOLE = bool(os.environ.get("FAULTS"))


def small_hospital() -> dict[str, bytes]:
    """Returns a file of a few rows for each dataset, with separate keys; one row in eight is rejected."""
    files = {}
    for name, dataset in CATALOG.items():
        lines = [",".join(dataset.names)]
        for number in range(ROWS):
            keys = {dataset.key: f"{dataset.key[0].upper()}{number:03}-F"}
            for column, parent in dataset.parents.items():
                keys[column] = f"{CATALOG[parent].key[0].upper()}{number:03}-F"
            change = broken(name) if number % 8 == 5 else {}
            lines.append(record(name, VALID[name] | keys | change))
        files[name] = ("\n".join(lines) + "\n").encode()
    return files


@pytest.fixture(scope="session")
def disk() -> Iterator[None]:
    """Mounts a small disk for the stack before it starts, if root runs `make test-faults`."""
    home = Path(os.environ["STACK_DIR"])
    if not WHOLE or os.geteuid() != 0 or home.exists():
        yield
        return
    home.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "healthcare-tests", str(home)], check=True)
    yield
    subprocess.run(["umount", "--lazy", str(home)], check=True)


@pytest.fixture(scope="package")  # the tests that come after the faults have sources of their own
def stage(disk: None, stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[campaign.Stage]:
    """Yields jobs that reach the stores through proxies, and five files whose undisturbed results are known."""
    place = tmp_path_factory.mktemp("faults")
    password = services.stack_dir() / "pgpass"
    kept = password.read_bytes()
    (place / "sources").mkdir()
    (place / "sources" / f"{twin.NAME}.yml").write_text(twin.DECLARATION)
    with (
        pytest.MonkeyPatch.context() as patch,
        campaign.Stage(DAY, place, small_hospital()) as stage,
    ):
        patch.setenv("SOURCES_DIR", str(place / "sources"))
        stage.environment["SOURCES_DIR"] = str(place / "sources")
        if WHOLE:
            spark_behind(stage)
        try:
            for name in CATALOG if WHOLE else ("patients", "visits", "billing"):
                ground.land(name, DAY, stage.versions[name][0])
                stage.learn(name)
            for name in campaign.STRUCK if WHOLE else campaign.STRUCK[:1]:
                stage.flip(name)
                stage.learn(name)
            assert not stage.run("gold_to_marts", "")
            for _ in range(len(stage.exports)):
                stage.flip_export()
                stage.learn("", campaign.CONVERSION)
            yield stage
        finally:
            password.write_bytes(kept)
            forget = [sys.executable, "-m", "pipelines", "forget", str(stage.converted)]
            subprocess.run(forget, cwd=settings.ROOT, env=dict(os.environ), check=True, capture_output=True)
            shutil.rmtree(settings.path("LANDING_DIR") / f"{DAY:%Y}", ignore_errors=True)


def spark_behind(stage: campaign.Stage) -> None:
    """Makes the Spark Connect server and its executors reach MinIO through the proxy from their next start on."""
    quick = {  # for few rows, where planning takes longer than computing
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.databricks.delta.writeChecksumFile.enabled": "false",
    }
    own = quick | {"spark.hadoop.fs.s3a.endpoint": stage.environment["MINIO_ENDPOINT"]}
    with (services.spark_conf() / "spark-defaults.conf").open("a") as file:
        file.writelines(f"{name} {value}\n" for name, value in own.items())
    strikes.restart("spark-connect")
    assert not strikes.put_right(stage.proxies)
    strikes.password_file([stage.proxies["postgres"].port])
