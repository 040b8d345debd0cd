"""Checks that docker-compose.yml and Dockerfile are valid, and agree with .env.example and the embedded stack.

tests/campaigns/compose runs them (`make test-compose`).
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from dotenv import dotenv_values

from jobs import settings
from stack import archive, prepare, sbom, services
from tests.campaigns.compose import machine
from tests.unit.test_clusters import properties

FILE = settings.ROOT / "docker-compose.yml"
TEXT = FILE.read_text()
DOCKERFILE = (settings.ROOT / "Dockerfile").read_text()
EXAMPLE = dotenv_values(settings.ROOT / ".env.example")
VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


def interpolated(text: str) -> str:
    """Interpolates text as Compose does with .env.example as .env."""
    return VARIABLE.sub(lambda found: EXAMPLE.get(found[1]) or (found[3] if found[2] == ":-" else ""), text)


COMPOSE: dict[str, Any] = yaml.safe_load(interpolated(TEXT))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = {name for name, each in SERVICES.items() if each["restart"] == "no"}
OURS = {name for name, each in SERVICES.items() if each["image"] == "healthcare-platform"}
MINIO = settings.ROOT / "conf" / "containers" / "minio" / "Dockerfile"
# Third-party images without a known digest yet: `make lock` asks the registries for them.
AWAITING = {
    "docker.io/library/postgres:16.16-alpine",
    "docker.io/metabase/metabase:v0.58.34",
    "apache/spark:4.2.0-scala2.13-java17-python3-ubuntu",
}


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
    own |= {"PUBLISHED_ON"}  # used in `ports`, not a setting
    given = {name for service in OURS for name in SERVICES[service].get("environment", {})}
    assert given - own <= EXAMPLE.keys() | {name for name, kind, _ in VARIABLE.findall(TEXT) if kind == ":-"}


def test_every_port_is_this_machines_alone_and_the_one_that_people_know():
    published = [port.rsplit(":", 1)[0] for each in SERVICES.values() for port in each.get("ports", [])]
    hosts, ports = zip(*(port.split(":") for port in published), strict=True)
    assert set(hosts) == {"127.0.0.1"}
    names = {name for service in services.SERVICES.values() for name in service.ports} - {"MINIO_ENDPOINT"}
    inside = {"SPARK_WORKER_WEBUI_PORT", "SPARK_MASTER_PORT"}
    known = {EXAMPLE[name] for name in names - inside} | {"4040"}
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
    assert 0 < each["pids_limit"] <= 4096
    assert each.get("read_only") or name == "metabase"
    user = each.get("user", "10001" if name in OURS else "")
    assert user and (not user.startswith("0") or name == "minio-volume")
    assert "USER 10001\n" in DOCKERFILE


def test_images_are_ours_or_pinned_in_variables():
    images = re.findall(r"^ +image: (.+)", TEXT, re.M)
    for image in images:
        name, default = re.fullmatch(r"\$\{(\w+):-(.+)\}", image).groups()  # type: ignore[union-attr]
        assert name in ("PLATFORM_IMAGE", "MINIO_IMAGE") or default in sbom.references()


def test_every_image_of_others_has_a_digest_or_awaits_one():
    references = sbom.references()
    assert all(re.search(r":[\w.-]*\d+\.\d+[\w.-]*(@|$)", reference) for reference in references)
    assert {each for each in references if not re.search("@sha256:[0-9a-f]{64}$", each)} <= AWAITING


def test_an_image_is_built_by_one_service_whatever_the_profile():
    profiles = {profile for each in SERVICES.values() for profile in each["profiles"]}
    built = {each["image"]: set(each["profiles"]) for each in SERVICES.values() if "build" in each}
    assert built == {"healthcare-platform": profiles, "healthcare-minio": profiles}
    assert len([each for each in SERVICES.values() if "build" in each]) == len(built)


def test_the_image_of_minio_is_built_from_the_source_that_the_embedded_stack_pins():
    text = MINIO.read_text()
    assert (SERVICES["minio"]["build"]["dockerfile"], "USER 10001\n" in text) == (
        str(MINIO.relative_to(settings.ROOT)),
        True,
    )
    assert f"ARG MINIO={prepare.MINIO}\n" in text and f"ARG MINIO_SUM={prepare.MINIO_SUM}\n" in text
    assert str(prepare.GO_WHEEL.relative_to(settings.ROOT)) in text


def test_nothing_leads_out_of_a_container_that_needs_no_way_out():
    networks = COMPOSE["networks"]
    inside = {name for name, each in networks.items() if each and each.get("internal")}
    silent = {
        name
        for name, each in networks.items()
        if each and each.get("driver_opts") == {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    }
    for name, each in SERVICES.items():
        others = {*each["networks"]} - inside
        assert others <= silent or name == "runner", f"{name} may call anybody"
        assert bool(others & silent) == ("ports" in each), f"{name} publishes a port if it is on a network for that"


def test_metabase_shares_a_network_with_the_warehouse_and_the_runner_alone():
    on_both = {name for name, each in SERVICES.items() if {"platform", "bi"} <= {*each["networks"]}}
    assert on_both == {"postgres", "runner"}
    beside = {name for name, each in SERVICES.items() if {"bi", "bi-ports"} & {*each["networks"]}}
    assert beside == {*on_both, "metabase", "metabase-dashboards"}
    assert not {"ports", "platform"} & {*SERVICES["metabase"]["networks"], *SERVICES["metabase-dashboards"]["networks"]}
    assert [name for name, each in SERVICES.items() if "bi-ports" in each["networks"]] == ["metabase"]


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


def test_a_secret_is_a_file_that_no_variable_of_a_container_repeats():
    secret = re.compile(r"PASSWORD|TOKEN|SECRET|_KEY$")
    for name, each in SERVICES.items():
        shown = [variable for variable in each.get("environment", {}) if secret.search(variable)]
        users = {"MINIO_ACCESS_KEY", "MINIO_FORGET_ACCESS_KEY", "MINIO_READ_ACCESS_KEY"}  # names of users
        files = {variable for variable in shown if variable.endswith("_FILE")}
        assert set(shown) - users - files == set(), name
        mounted = [s if isinstance(s, str) else s["source"] for s in each.get("secrets", [])]
        assert {*mounted} <= COMPOSE["secrets"].keys()
        for variable in files:
            assert each["environment"][variable].removeprefix("/run/secrets/") in mounted
    used = {s if isinstance(s, str) else s["source"] for each in SERVICES.values() for s in each.get("secrets", [])}
    assert used == COMPOSE["secrets"].keys()
    known = {name for name in EXAMPLE if secret.search(name) and "ACCESS_KEY" not in name}
    assert known == used - {"MINIO_CONFIG_ENV", "MINIO_READ_SECRET_KEY"}


def write_secrets(clone: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs conf/containers/secrets.sh beside a given .env."""
    script = clone / "conf" / "containers" / "secrets.sh"
    if not script.exists():
        script.parent.mkdir(parents=True)
        shutil.copy(settings.ROOT / "conf" / "containers" / "secrets.sh", script)
        shutil.copy(FILE, clone)
    (clone / ".env").write_text(text)
    return subprocess.run(
        [script], env={"PATH": os.environ["PATH"]} | environment, cwd="/", text=True, capture_output=True
    )


def test_secrets_are_written_as_dotenv_reads_them_for_nobody_else(tmp_path):
    text = (settings.ROOT / ".env.example").read_text()
    text = text.replace("=ecom_secret\n", "='it\\has $every \"thing\" #'\n")
    text = text.replace("=ecom_lake_secret\n", "=plain  # and a comment\n")
    done = write_secrets(tmp_path, text, LUIGI_PASSWORD="of the environment")
    assert (done.returncode, done.stderr) == (0, "")
    home = tmp_path / ".secrets"
    assert home.stat().st_mode & 0o777 == 0o700
    read = dotenv_values(tmp_path / ".env") | {"LUIGI_PASSWORD": "of the environment", "MINIO_READ_SECRET_KEY": ""}
    for name in COMPOSE["secrets"].keys() - {"MINIO_CONFIG_ENV"}:
        assert (home / name).read_text() == f"{read[name]}\n", name
        assert (home / name).stat().st_mode & 0o777 == 0o444
    assert {path.name for path in home.iterdir()} == COMPOSE["secrets"].keys()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            'POSTGRES_PASSWORD="a$b"',
            "POSTGRES_PASSWORD in .env holds a quote, a \\ or a $: put it between single quotes",
        ),
        ("POSTGRES_PASSWORD=", "POSTGRES_PASSWORD is empty: set it in .env"),
    ],
)
def test_a_secret_that_could_be_read_otherwise_or_is_missing_is_refused(tmp_path, line, told):
    text = (settings.ROOT / ".env.example").read_text()
    done = write_secrets(tmp_path, text.replace("POSTGRES_PASSWORD=ecom_secret", line))
    assert done.returncode == 1 and told in done.stderr and "a$b" not in done.stderr


def test_settings_are_read_from_files_too_and_the_environment_beats_them(tmp_path):
    secrets = {"POSTGRES_PASSWORD": "of a file", "LUIGI_PASSWORD": "not this"}
    for name, value in secrets.items():
        (tmp_path / name).write_text(f"{value}\n")
    (tmp_path / "kubernetes.io").mkdir()
    given = {"PATH": os.environ["PATH"], "SECRETS_DIR": str(tmp_path), "LUIGI_PASSWORD": "of the environment"}
    code = "from jobs import settings; print(settings.get('POSTGRES_PASSWORD'), settings.get('LUIGI_PASSWORD'))"
    words = ([sys.executable, "-c", code], ["bash", "-c", 'source conf/containers/environment.sh && echo "$0"'])
    for command in words:
        command[-1] = command[-1].replace('"$0"', '"$POSTGRES_PASSWORD $LUIGI_PASSWORD"')
        done = subprocess.run(command, env=given, cwd=settings.ROOT, text=True, capture_output=True, check=True)
        assert done.stdout == "of a file of the environment\n"


def test_everything_mounted_from_the_clone_is_there_and_every_volume_is_used():
    mounts = [mount.split(":")[0] for each in SERVICES.values() for mount in each.get("volumes", [])]
    assert [mount for mount in mounts if mount.startswith("./") and not (settings.ROOT / mount).is_file()] == []
    assert {mount for mount in mounts if mount[0] not in "./"} == COMPOSE["volumes"].keys()
    assert "--data-checksums" in SERVICES["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split()
    assert {net for each in SERVICES.values() for net in each["networks"]} == COMPOSE["networks"].keys()


def test_the_database_has_the_settings_of_the_embedded_one():
    of_containers = dict(word.removeprefix("-c").split("=") for word in SERVICES["postgres"]["command"][1:])
    # The container decides who may reach it.
    embedded = services.POSTGRES_SETTINGS.keys() - {"listen_addresses", "unix_socket_directories"}
    assert of_containers == {name: services.POSTGRES_SETTINGS[name] for name in embedded}


def test_the_log_is_archived_by_the_same_settings_as_in_the_embedded_stack(monkeypatch, tmp_path):
    (tmp_path / "docker-entrypoint.sh").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "docker-entrypoint.sh").chmod(0o755)
    start = settings.ROOT / "conf" / "containers" / "postgres-start.sh"
    for directory in ("", "/var/lib/postgresql/wal"):
        monkeypatch.setenv("WAL_ARCHIVE", directory)
        given = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "WAL_ARCHIVE": directory}
        done = subprocess.run(["sh", start, "postgres"], env=given, text=True, capture_output=True, check=True)
        postgres, *words = done.stdout.splitlines()
        assert postgres == "postgres"
        assert dict(word.removeprefix("-c").split("=", 1) for word in words) == services.archiving()


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
    for text in (DOCKERFILE, MINIO.read_text()):
        assert re.search(rf"^ARG BASE_IMAGE={re.escape(machine.DEBIAN)}@sha256:[0-9a-f]{{64}}\n", text, re.M)
        assert re.findall(r"^FROM (\S+)", text, re.M)[0] == "${BASE_IMAGE}"
    assert all(f"FROM {machine.DEBIAN}\n" in file.read_text() for file in machine.HERE.glob("*/Dockerfile"))


def backup(*words: str, then: Path) -> subprocess.CompletedProcess[str]:
    """Runs conf/containers/backup.sh; a file appears as soon as the script calls a container."""
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
        ("put", "full"): "full is not a whole backup: nothing was put back.",
        ("put", "none"): "none is not a whole backup: nothing was put back.",
    }
    for words, sentence in refusals.items():
        refused = backup(*words, then=tmp_path / "touched")
        assert refused.returncode and refused.stderr.splitlines()[-1] == sentence
    assert not (tmp_path / "touched").exists()


def test_an_encrypted_backup_of_containers_needs_right_keys_before_anything_is_stopped(tmp_path, monkeypatch):
    archive.age()
    subprocess.run(["age-keygen", "-o", tmp_path / "key.txt"], capture_output=True, check=True)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "lake.tar.age").write_bytes(b"of another key")
    (tmp_path / "old" / "warehouse.dump.age").write_bytes(b"of another key")
    sums = subprocess.run("sha256sum *.age > checksums", shell=True, cwd=tmp_path / "old")
    assert sums.returncode == 0
    monkeypatch.delenv("BACKUP_IDENTITY", raising=False)
    refused = backup("put", "old", then=tmp_path / "touched")
    assert refused.returncode and "name the file of its private key" in refused.stderr
    monkeypatch.setenv("BACKUP_IDENTITY", str(tmp_path / "key.txt"))
    refused = backup("put", "old", then=tmp_path / "touched")
    assert refused.returncode and "age does not decrypt old" in refused.stderr
    (tmp_path / ".env").write_text("BACKUP_RECIPIENT='age1nonsense'\n")
    refused = backup("take", "new", then=tmp_path / "touched")
    assert refused.returncode and "is not a public key of age" in refused.stderr
    assert not (tmp_path / "touched").exists() and not (tmp_path / "new").exists()


def test_a_program_in_place_of_docker_compose_may_have_words_with_blanks(tmp_path):
    told = tmp_path / "told"
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$1" >> {told}\n')
    program.chmod(0o755)
    for number, mark in enumerate("'\""):
        words = [f"COMPOSE={program} {mark}--build-args=--one --two{mark}", f"TO={tmp_path / str(number)}"]
        subprocess.run(["make", "backup-docker", *words], cwd=settings.ROOT, check=True, capture_output=True)
    assert {*told.read_text().splitlines()} == {"--build-args=--one --two"}


@pytest.mark.parametrize("target", ["demo-docker", "generate-docker DATE=2026-01-01"])
def test_containers_make_the_files_of_a_source_too(target):
    wanted = subprocess.run(
        ["make", "--dry-run", *target.split(), "SOURCE=synthea"], cwd=settings.ROOT, capture_output=True, text=True
    ).stdout
    assert re.search(r"exec -T runner python -m jobs\.synthea_export ", wanted) and "jobs.generate " not in wanted
    assert "COPY sources sources" in DOCKERFILE, "the image has its sample"
    other = ["make", target.split()[0], "DATE=2026-01-01", "SOURCE=clinique"]
    refused = subprocess.run(other, cwd=settings.ROOT, capture_output=True, text=True)
    assert refused.returncode and "SOURCE may be example or synthea" in refused.stderr
