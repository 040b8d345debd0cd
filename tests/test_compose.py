"""docker-compose.yml and Dockerfile: known to the specification, agreed with .env.example and the embedded stack.

What runs them is tests/compose (`make test-compose`).
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from dotenv import dotenv_values

from jobs import settings
from stack import services
from tests.compose import machine
from tests.test_clusters import properties

FILE = settings.ROOT / "docker-compose.yml"
TEXT = FILE.read_text()
DOCKERFILE = (settings.ROOT / "Dockerfile").read_text()
EXAMPLE = dotenv_values(settings.ROOT / ".env.example")
VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


def interpolated(text: str) -> str:
    """As Compose reads it with .env.example for .env."""
    return VARIABLE.sub(lambda found: EXAMPLE.get(found[1]) or (found[3] if found[2] == ":-" else ""), text)


COMPOSE: dict[str, Any] = yaml.safe_load(interpolated(TEXT))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = {name for name, each in SERVICES.items() if each["restart"] == "no"}
OURS = {name for name, each in SERVICES.items() if each["image"] == "healthcare-platform"}


def needs(name: str) -> dict[str, dict[str, Any]]:
    return SERVICES[name].get("depends_on", {})


def test_it_is_as_the_specification_has_it():
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [checker, "--builtin-schema", "vendor.compose-spec", FILE]
    checked = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert checked.returncode == 0, checked.stdout


def test_every_setting_is_one_of_env_example():
    wanted = {name for name, kind, _ in VARIABLE.findall(TEXT) if kind != ":-"}
    assert {name for name in wanted if not EXAMPLE.get(name)} == set()


def test_what_has_a_default_here_has_no_value_there_and_is_spoken_of():
    defaults = {name for name, kind, _ in VARIABLE.findall(TEXT) if kind == ":-"}
    assert defaults & EXAMPLE.keys() == set()
    comments = " ".join(re.findall(r"^#.*", (settings.ROOT / ".env.example").read_text(), re.M))
    assert {name for name in defaults if not re.search(rf"\b{name}\b", comments)} == set()


def test_containers_get_settings_under_their_own_names():
    own = {"SPARK_MASTER_URL", "SPARK_DAEMON_MEMORY", "SPARK_DAEMON_JAVA_OPTS"}
    own |= {"PUBLISHED_ON"}  # of `ports`, not a setting
    own |= {"_SPARK_AUTH_SECRET", "SPARK_CONNECT_AUTHENTICATE_TOKEN"}  # Spark's own names for two secrets
    given = {name for service in OURS for name in SERVICES[service].get("environment", {})}
    assert given - own <= EXAMPLE.keys() | {name for name, kind, _ in VARIABLE.findall(TEXT) if kind == ":-"}


def test_every_port_is_this_machines_alone_and_the_one_that_people_know():
    published = [port.rsplit(":", 1)[0] for each in SERVICES.values() for port in each.get("ports", [])]
    hosts, ports = zip(*(port.split(":") for port in published), strict=True)
    assert set(hosts) == {"127.0.0.1"}
    names = {name for service in services.SERVICES.values() for name in service.ports} - {"MINIO_ENDPOINT"}
    known = {EXAMPLE[name] for name in names - {"SPARK_WORKER_WEBUI_PORT"}} | {"4040"}
    known |= {str(urlsplit(EXAMPLE[name]).port) for name in ("MINIO_ENDPOINT", "METABASE_URL")}
    assert sorted(ports) == sorted(known)


def test_a_service_is_checked_or_ends_and_is_waited_for():
    for name, each in SERVICES.items():
        assert ("healthcheck" in each) == (name not in ONCE), name
    for name in ONCE:
        for profile in SERVICES[name]["profiles"]:
            assert [
                other
                for other in SERVICES
                if needs(other).get(name, {}).get("condition") == "service_completed_successfully"
                and (profile in SERVICES[other]["profiles"] or name == "metabase-dashboards")
            ], f"`up --wait` takes the end of {name} for a failure in the profile {profile}"


def test_a_service_waits_for_health_or_for_an_end_and_never_for_less():
    for name in SERVICES:
        for other, need in needs(name).items():
            assert need["condition"] == ("service_completed_successfully" if other in ONCE else "service_healthy")
            missing = set(SERVICES[name]["profiles"]) - set(SERVICES[other]["profiles"])
            assert not missing or need.get("required") is False, f"{name} needs {other}, which {missing} lacks"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_few_rights_and_an_end_to_what_it_takes(name):
    each = SERVICES[name]
    assert each["cap_drop"] == ["ALL"] and each["security_opt"] == ["no-new-privileges:true"]
    assert each["restart"] in ("unless-stopped", "no")
    assert each["deploy"]["resources"]["limits"]["memory"]
    assert each["logging"]["options"]["max-size"]
    assert each.get("read_only") or name == "metabase"
    user = each.get("user", "10001" if name in OURS else "")
    assert user and (not user.startswith("0") or name == "minio-volume")
    assert "USER 10001\n" in DOCKERFILE


def test_images_are_pinned_in_variables():
    images = re.findall(r"^ +image: (.+)", TEXT, re.M)
    for image in images:
        name, default = re.fullmatch(r"\$\{(\w+):-(.+)\}", image).groups()  # type: ignore[union-attr]
        assert name == "PLATFORM_IMAGE" or re.search(r":[\w.-]*\d+\.\d+[\w.-]*$|:RELEASE\.", default), image


def test_one_service_builds_the_image_whatever_the_profile():
    profiles = {profile for each in SERVICES.values() for profile in each["profiles"]}
    assert [set(each["profiles"]) for each in SERVICES.values() if "build" in each] == [profiles]


def test_metabase_shares_a_network_with_the_warehouse_and_the_runner_alone():
    on_both = {name for name, each in SERVICES.items() if {"platform", "bi"} <= {*each["networks"]}}
    assert on_both == {"postgres", "runner"}
    assert {name for name, each in SERVICES.items() if each["networks"] == ["bi"]} == {
        "metabase",
        "metabase-dashboards",
    }


def test_no_secret_stands_in_a_command_or_in_the_image():
    secret = re.compile(r"\$\{?\w*(PASSWORD|_KEY)")
    for each in SERVICES.values():
        words = [each.get("command", ""), each.get("entrypoint", ""), each.get("healthcheck", {}).get("test", "")]
        assert not secret.search(str(words))
    for block in re.findall(r"^    (?:command|entrypoint|healthcheck):.*\n(?:      .*\n)*", TEXT, re.M):
        assert not secret.search(block)
    values = [value for name, value in EXAMPLE.items() if secret.search(f"${name}")]
    assert [value for value in values if value in TEXT or value in DOCKERFILE] == []
    assert not re.search(r"^COPY.*\.env", DOCKERFILE, re.M)


def test_everything_mounted_from_the_clone_is_there_and_every_volume_is_used():
    mounts = [mount.split(":")[0] for each in SERVICES.values() for mount in each.get("volumes", [])]
    assert [mount for mount in mounts if mount.startswith("./") and not (settings.ROOT / mount).is_file()] == []
    assert {mount for mount in mounts if mount[0] not in "./"} == COMPOSE["volumes"].keys()
    assert {net for each in SERVICES.values() for net in each["networks"]} == COMPOSE["networks"].keys()


def test_the_database_has_the_settings_of_the_embedded_one():
    of_containers = dict(word.removeprefix("-c").split("=") for word in SERVICES["postgres"]["command"][1:])
    # Who may reach it is the container's affair.
    embedded = services.POSTGRES_SETTINGS.keys() - {"listen_addresses", "unix_socket_directories"}
    assert of_containers == {name: services.POSTGRES_SETTINGS[name] for name in embedded}


def test_a_worker_offers_what_two_applications_take():
    shared = properties(settings.ROOT / "spark-defaults.conf")
    _, _, *words, _ = SERVICES["spark-worker"]["command"]
    offer = dict(zip(words[::2], words[1::2], strict=True))
    assert int(offer["--cores"]) == 2 * int(shared["spark.cores.max"])
    assert offer["--memory"] == f"{2 * int(shared['spark.executor.memory'].removesuffix('g'))}g"


def test_the_image_is_made_of_what_the_context_lets_through():
    allowed = set(re.findall(r"^!(.+)", (settings.ROOT / ".dockerignore").read_text(), re.M))
    copied = {word for line in re.findall(r"^COPY (?!--from)(.+)", DOCKERFILE, re.M) for word in line.split()[:-1]}
    assert copied == allowed


def test_the_bases_are_those_that_the_test_of_the_containers_makes():
    assert f"ARG BASE_IMAGE={machine.DEBIAN}\n" in DOCKERFILE
    assert all(f"FROM {machine.DEBIAN}\n" in file.read_text() for file in machine.HERE.glob("*/Dockerfile"))


def backup(*words: str, then: Path) -> subprocess.CompletedProcess[str]:
    """conf/containers/backup.sh, with a file that comes to be as soon as it reaches for a container."""
    script = settings.ROOT / "conf" / "containers" / "backup.sh"
    return subprocess.run(
        [script, *words], env=os.environ | {"COMPOSE": f"touch {then}"}, cwd=then.parent, text=True, capture_output=True
    )


def test_a_backup_that_cannot_be_is_refused_before_anything_is_stopped(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "lake.tar").write_text("what was torn off")
    (tmp_path / "full" / "checksums").write_text(f"{'0' * 64}  lake.tar\n")
    refusals = {
        ("take", ""): "Say which directory, as in: make backup-docker TO=backups/2026-01-31",
        ("put", ""): "Say which directory, as in: make restore-docker FROM=backups/2026-01-31",
        ("take", "full"): "full is not empty: name a new one.",
        ("put", "full"): "full is no whole backup: nothing was put back.",
        ("put", "none"): "none is no whole backup: nothing was put back.",
    }
    for words, sentence in refusals.items():
        refused = backup(*words, then=tmp_path / "touched")
        assert refused.returncode and refused.stderr.splitlines()[-1] == sentence
    assert not (tmp_path / "touched").exists()
