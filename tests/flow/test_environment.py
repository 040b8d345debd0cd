"""Checks that a person's environment variables and directory names do not affect the servers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError, ProfileNotFound, ProxyConnectionError
from dotenv import dotenv_values

from dashboards import pages
from jobs import object_store, program, settings, warehouse
from stack import prepare, services
from tests.conftest import run_stack

NOWHERE = "http://127.0.0.1:9"
PROXIES = {
    name: NOWHERE for kind in ("http", "https", "all", "ftp") for name in (f"{kind}_proxy", f"{kind}_proxy".upper())
}
HOSTILE = PROXIES | {
    "grpc_proxy": NOWHERE,
    "no_grpc_proxy": "example.org",
    "AWS_PROFILE": "nobody",
    "AWS_DEFAULT_PROFILE": "nobody",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_ENDPOINT_URL": NOWHERE,
    "AWS_ENDPOINT_URL_S3": NOWHERE,
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_SESSION_TOKEN": "nothing",
    "AWS_REGION": "eu-north-9",
    "AWS_RETRY_MODE": "nonsense",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "PGTZ": "America/New_York",
    "PGHOST": "192.0.2.1",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": "1",
    "PGUSER": "nobody",
    "PGPASSWORD": "nothing",
    "PGSERVICE": "nobody",
    "PGSERVICEFILE": "/nonexistent",
    "PGOPTIONS": "-c search_path=nowhere",
    "PGCLIENTENCODING": "LATIN1",
    "PGDATESTYLE": "German",
    "PGTARGETSESSIONATTRS": "standby",
    "PGCHANNELBINDING": "require",
    "SPARK_HOME": "/opt/other",
    "SPARK_CONF_DIR": "/nonexistent",
    "SPARK_ENV_LOADED": "1",
    "SPARK_DIST_CLASSPATH": "/nonexistent",
    "SPARK_LOCAL_DIRS": "/nonexistent",
    "SPARK_LOCAL_IP": "192.0.2.1",
    "SPARK_MASTER": "local",
    "SPARK_REMOTE": "sc://127.0.0.1:9",
    "SPARK_SUBMIT_OPTS": "-Xmx1x",
    "PYSPARK_DRIVER_PYTHON": "/nonexistent",
    "PYSPARK_PYTHON": "/nonexistent",
    "PYSPARK_SUBMIT_ARGS": "--bad",
    "HADOOP_CONF_DIR": "/nonexistent",
    "HADOOP_HOME": "/nonexistent",
    "JAVA_HOME": "/nonexistent",
    "JAVA_TOOL_OPTIONS": "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=9 -Dhttp.nonProxyHosts=*.example.org",
    "_JAVA_OPTIONS": "-Xmx1x",
    "JDK_JAVA_OPTIONS": "-bad",
    "LUIGI_CONFIG_PATH": "/nonexistent",
    "LUIGI_CONFIG_PARSER": "toml",
    "TZ": "Asia/Kolkata",
    "LC_ALL": "C",
    "LANG": "de_DE@euro",
}
NOT_DROPPED = {*PROXIES, "JAVA_HOME", "LANG"}  # unchanged
PINNED = {"JAVA_TOOL_OPTIONS", "TZ", "LC_ALL", "LUIGI_CONFIG_PATH"}  # present with another value


def hostile(tmp_path: Path, **more: str) -> dict[str, str]:
    """Returns the tests' environment with all of these, and other modules `jobs` and `pyspark` on PYTHONPATH."""
    for name in ("jobs", "pyspark", "stack"):
        (tmp_path / "other" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "other" / name / "__init__.py").write_text(f"raise SystemExit('another {name}')")
    tidy = {n: v for n, v in os.environ.items() if n.lower() != "no_proxy" and n != "SPARK_CONNECT_MODE_ENABLED"}
    return tidy | HOSTILE | {"PYTHONPATH": str(tmp_path / "other")} | more


def run(*words: object, environment: dict[str, str], cwd: Path = settings.ROOT) -> str:
    """Returns the output of a command that must succeed."""
    command = list(map(str, words))
    done = subprocess.run(command, env=environment, cwd=cwd, text=True, capture_output=True, umask=0o077)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


LOADED = "import json, os; from jobs import settings; settings.load(); print(json.dumps(dict(os.environ)))"


def loaded(environment: dict[str, str], cwd: Path = settings.ROOT) -> dict[str, str]:
    """Returns the environment of a program once it has loaded the settings."""
    return json.loads(run(sys.executable, "-c", LOADED, environment=environment, cwd=cwd))


def test_other_programs_variables_reach_nobody(tmp_path):
    more = {"PGSSLMODE": "prefer", "PGREQUIREAUTH": "gss", "AWS_CA_BUNDLE": "/ca.crt"}
    given = hostile(tmp_path, POSTGRES_HOST="warehouse.example.org", **more)
    found = loaded(given, cwd=tmp_path)
    assert HOSTILE.keys() & found.keys() == NOT_DROPPED | PINNED
    assert {name: found[name] for name in NOT_DROPPED} == {name: HOSTILE[name] for name in NOT_DROPPED}
    assert (found["TZ"], found["PYTHONPATH"]) == ("UTC", str(settings.ROOT))
    assert {name: found[name] for name in more} == more
    hosts = {"127.0.0.1", "localhost", "warehouse.example.org"}
    assert hosts <= {*found["no_proxy"].split(",")} == {*found["NO_PROXY"].split(",")}
    assert loaded(found) == found, "once more changes nothing"


def test_what_a_person_excepts_from_a_proxy_stays_excepted(tmp_path):
    assert loaded(hostile(tmp_path, no_proxy="a.example.org, .b.org"))["no_proxy"].startswith("a.example.org,.b.org,")
    assert loaded(hostile(tmp_path, NO_PROXY="*"))["no_proxy"] == "*"


def test_no_setting_of_ours_is_taken_for_another_programs():
    named = dotenv_values(settings.ROOT / ".env.example").keys()
    assert {n for n in named if n.startswith(tuple(settings.OTHERS.split()))} <= {*settings.USED.split()}


def test_spark_remote_is_ours_or_nobodys(tmp_path):
    ours = f"sc://{settings.get('SPARK_CONNECT_HOST')}:{settings.get('SPARK_CONNECT_PORT')}"
    assert loaded(hostile(tmp_path, SPARK_REMOTE=ours))["SPARK_REMOTE"] == ours == program.spark_connect()


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ("-Xmx1g", ""),
        ("-Dhttp.proxyHost=p", " -Dhttp.nonProxyHosts=127.*|h"),
        ("-Dhttps.proxyHost=p -Dhttp.nonProxyHosts=a|b", " -Dhttp.nonProxyHosts=a|b|127.*|h"),
        ("'-Dhttp.nonProxyHosts=a|127.*|h' -Dhttp.proxyHost=p", ""),
        ("-DsocksProxyHost=p", " -DsocksNonProxyHosts=127.*|h"),
    ],
)
def test_java_asks_no_proxy_for_our_hosts(given, more):
    assert settings.java_options(given, ["127.*", "h"]) == given + more


def test_the_lakes_client_is_nobody_elses(monkeypatch, tmp_path):
    (tmp_path / "config").write_text(
        "[default]\nregion = eu-north-9\nretry_mode = nonsense\ns3 =\n  addressing_style = x\n"
    )
    for name, value in (HOSTILE | {"AWS_CONFIG_FILE": str(tmp_path / "config")}).items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    with pytest.raises(ProfileNotFound):
        boto3.client("s3")
    for cached in (object_store.client, object_store.boto_session):
        cached.cache_clear()
    client = object_store.s3()
    assert (client.meta.endpoint_url, client.meta.region_name) == (settings.s3_endpoint(), "us-east-1")
    signed = client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    assert settings.get("MINIO_ACCESS_KEY") in signed and "oken" not in signed
    object_store.client.cache_clear()


@pytest.mark.parametrize("connect", [warehouse.connect, pages.connect, services.connect])
def test_a_session_is_utc_whatever_libpq_finds(connect, warehouse_server, monkeypatch):
    for name, value in {"PGTZ": "America/New_York", "PGCLIENTENCODING": "LATIN1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("POSTGRES_PORT", str(warehouse_server.info.port))
    with connect() as connection:
        zone, text = connection.execute("select current_setting('timezone'), 'Łódź'").fetchone()
    assert (zone, text) == ("UTC", "Łódź")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            ProfileNotFound(profile="nobody"),
            "could not be asked (ProfileNotFound); check the settings MINIO_* in .env.",
        ),
        (EndpointConnectionError(endpoint_url="x"), "does not answer; start the stack with `make up`."),
        (ProxyConnectionError(proxy_url="x"), "is asked of a proxy that does not answer; name its host in no_proxy."),
    ],
)
def test_a_store_that_was_not_asked_is_not_one_that_does_not_answer(error, sentence):
    assert program.sentence(error) == f"MinIO at {settings.s3_endpoint()} {sentence}"


def test_spark_by_hand_is_this_clones(tmp_path):
    where = run(Path(sys.executable).parent / "spark-class", "org.apache.spark.launcher.Main",
                "org.apache.spark.deploy.SparkSubmit", "x.py", environment=hostile(tmp_path), cwd=tmp_path)  # fmt: skip
    command = where.split("\0")
    assert str(services.spark_home() / "jars") in where and "/nonexistent" not in where and "/opt/other" not in where
    assert Path(command[1]).name == "java"


# ---- names of directories ------------------------------------------------------------------------------------------


def clone(place: Path) -> Path:
    """Returns a copy of the clone in another directory, with this one's venv."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=settings.ROOT, capture_output=True, check=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith(("tests/", "docs/")) and (settings.ROOT / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(settings.ROOT / name, place / name)
    (place / ".venv").symlink_to(settings.ROOT / ".venv")
    return place


def test_make_works_in_a_clone_with_blanks_in_its_path(tmp_path):
    place = clone(tmp_path / "my hospital's" / "a clöne")
    more = {"STACK_DIR": str(tmp_path / "none"), "PYTHONHOME": "/nonexistent", "PYTHONWARNINGS": "error"}
    done = subprocess.run(["make", "status"], cwd=place, env=hostile(tmp_path, **more), text=True, capture_output=True)
    assert done.stdout.count("stopped") == len(services.SERVICES), done.stderr
    theirs = json.loads(run(place / ".venv/bin/python", "-c", LOADED, environment=hostile(tmp_path), cwd=tmp_path))
    assert theirs["PYTHONPATH"] == str(place) and theirs["LUIGI_CONFIG_PATH"] == str(place / "conf" / "luigi.cfg")


@pytest.mark.parametrize("name", ["STACK_DIR", "STACK_CACHE"])
@pytest.mark.parametrize("sign", ["%", '"', ",", ":", "?", "\\", "\n"])
def test_a_directory_that_some_program_would_misread_is_refused(sign, name, tmp_path, monkeypatch):
    monkeypatch.setenv(name, str(tmp_path / f"a{sign}b"))
    with pytest.raises(SystemExit, match=f"^{name} is at .*: move it.$"):
        prepare.state_directory()
    assert not list(tmp_path.iterdir())


def test_a_cache_with_a_blank_is_refused_at_once(tmp_path):
    refused = run_stack("up", STACK_CACHE=str(tmp_path / "a b"))
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "misreads: move it" in refused.stderr


@pytest.mark.parametrize("sign", ['"', "\\", "%"])
def test_a_clone_that_cannot_work_is_refused_before_anything_is_installed(sign, tmp_path):
    place = tmp_path / f"c{sign}d"
    (place / "conf").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", ".env.example", "conf/spark-submit"):
        shutil.copy(settings.ROOT / name, place / name)
    refused = subprocess.run(["make", "up", "PYTHON=python3"], cwd=place, text=True, capture_output=True)
    assert refused.returncode == 2 and f"The clone is at {place}: move it" in refused.stderr
    assert not (place / ".venv").exists()
