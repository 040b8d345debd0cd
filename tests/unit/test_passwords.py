"""Checks that known passwords are replaced in every store, never a default, and never open to a network."""

import os
import re
import secrets
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from dotenv import dotenv_values

from jobs import object_store, settings
from pipelines import health
from stack import own, passwords, prepare, services, store, supervision
from tests.flow.test_environment import clone

EXAMPLE = {name: value or "" for name, value in dotenv_values(settings.ROOT / ".env.example").items()}
POSTGRES = ("POSTGRES", "POSTGRES_READ", "POSTGRES_DASHBOARDS")
EMBEDDED = [name for name in settings.SECRETS if name != "MINIO_READ_SECRET_KEY"]


def plain(**more: str) -> dict[str, str]:
    """Returns the tests' environment without secrets and users, so that `.env` decides."""
    mine = {*settings.SECRETS, *EXAMPLE, "MINIO_READ_ACCESS_KEY", "SPARK_CONNECT_MODE_ENABLED"} - {"STACK_CACHE"}
    return {name: value for name, value in os.environ.items() if name not in mine} | more


def run(*words: object, cwd: Path, code: int = 0, given: str = "", **more: str) -> str:
    """Returns the output of a command in a clone; fails unless it ends with `code`."""
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env=plain(**more), text=True, capture_output=True, input=given, timeout=300
    )
    said = done.stdout + done.stderr
    assert done.returncode == code and "Traceback" not in said, said
    return said


def own_ports() -> dict[str, str]:
    """Returns settings on free ports for a stack and for a Metabase that does not run."""
    *ports, minio, nobody = own.free_ports(len(own.PORTS) + 2)
    urls = {"MINIO_ENDPOINT": f"http://127.0.0.1:{minio}", "METABASE_URL": f"http://127.0.0.1:{nobody}"}
    return dict(zip(own.PORTS, map(str, ports), strict=True)) | urls


def test_every_value_of_env_example_is_known_and_no_other_setting_holds_a_secret():
    secret = {name for name in EXAMPLE if re.search("PASSWORD|SECRET|TOKEN|ENCRYPTION_KEY", name)}
    assert secret | {"MINIO_READ_SECRET_KEY"} == {*settings.SECRETS}
    assert {EXAMPLE[name] for name in secret} <= settings.KNOWN


# ---- no default -----------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Returns a clone with a `.env` as `make` creates it."""
    place = clone(tmp_path / "clone")
    (place / ".env").write_text((place / ".env.example").read_text())
    (place / ".env").chmod(0o644)
    return place


def without(file: Path, *names: str) -> None:
    """Removes the lines of these settings from `.env`."""
    pattern = "|".join(names)
    file.write_text(re.sub(rf"^({pattern})=.*\n", "", file.read_text(), flags=re.M))


ASK = """
from jobs import settings
for name in settings.SECRETS:
    assert not settings.given(name), name
    try:
        settings.get(name)
    except SystemExit as error:
        print(error)
"""


def test_a_secret_that_env_lacks_is_not_defaulted(place):
    without(place / ".env", *settings.SECRETS)
    for name, line in zip(settings.SECRETS, run(sys.executable, "-c", ASK, cwd=place).splitlines(), strict=True):
        assert line.startswith(f"The secret {name} is neither in .env nor") and "`make up` adds a random one" in line


def test_a_start_adds_what_env_lacks_and_closes_it(place, monkeypatch):
    without(place / ".env", "POSTGRES_DASHBOARDS_PASSWORD", "LUIGI_PASSWORD")
    add = "import os; from jobs import settings; settings.load(); from stack import passwords; passwords.settle(())"
    said = run(sys.executable, "-c", add, cwd=place)
    assert said == ".env lacked POSTGRES_DASHBOARDS_PASSWORD, LUIGI_PASSWORD: random ones are in it now.\n"
    values = dotenv_values(place / ".env")
    added = {values.pop(name) for name in ("POSTGRES_DASHBOARDS_PASSWORD", "LUIGI_PASSWORD")}
    assert len(added) == 2 and all(re.fullmatch("[0-9a-f]{32}", value or "") for value in added)
    assert values == {name: value for name, value in EXAMPLE.items() if name in values}
    assert stat.S_IMODE((place / ".env").stat().st_mode) == 0o600
    (place / ".env").chmod(0o644)
    assert run(sys.executable, "-c", add, cwd=place) == ""
    assert stat.S_IMODE((place / ".env").stat().st_mode) == 0o600


# ---- beyond loopback ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", supervision.BOUND)
def test_a_stack_with_known_passwords_is_not_bound_beyond_loopback(place, name, tmp_path):
    conf = place / "spark-defaults.conf"
    conf.write_text(re.sub(rf"^({re.escape(name)}\s+).*", r"\g<1>0.0.0.0", conf.read_text(), flags=re.M))
    more = {**own_ports(), "STACK_DIR": str(tmp_path / "stack")}
    try:
        said = run(sys.executable, "-m", "stack", "up", cwd=place, code=1, **more)
    finally:  # in case the platform does not refuse
        run(sys.executable, "-m", "stack", "down", cwd=place, **more)
    assert f"Known passwords of .env.example are in use, and {name} in spark-defaults.conf would open" in said
    assert "run `make secrets` first" in said and not (tmp_path / "stack").exists()


def test_a_port_that_is_open_all_the_same_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("STACK_DIR", str(tmp_path))
    (tmp_path / prepare.MARKER).touch()
    listen = "import socket, time; s = socket.create_server(('0.0.0.0', 0)); print(flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", listen], env=os.environ | {"STACK_OF": str(tmp_path)}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.readline()
        assert list(health.open_ports()) == []
        monkeypatch.setenv("MINIO_SECRET_KEY", "minioadmin123")
        [line] = health.open_ports()
        port = psutil.Process(process.pid).net_connections()[0].laddr.port
        assert f"at port {port} listens on 0.0.0.0 while known passwords are in use" in line
        process.kill()


def test_processes_that_end_while_the_ports_are_read_do_no_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("STACK_DIR", str(tmp_path))
    short_lived = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do while :; do sleep 0.02; done & done; wait"
    with subprocess.Popen(
        ["sh", "-c", short_lived], env=os.environ | {"STACK_OF": str(tmp_path)}, start_new_session=True
    ) as process:
        try:
            looks = [supervision.open_addresses() for _ in range(30)]
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert looks == [[]] * 30


@pytest.mark.parametrize("words", [["--address", "0.0.0.0"], ["--address=::"], []])
def test_luigid_with_the_known_login_is_not_bound_beyond_loopback(words):
    command = [sys.executable, "-m", "stack.luigid", "--port", str(own.free_ports(1)[0]), *words]
    login = {"LUIGI_USER": "ecom", "LUIGI_PASSWORD": "ecom_luigi_secret"}
    done = subprocess.run(
        command, cwd=settings.ROOT, env=os.environ | login, text=True, capture_output=True, timeout=60
    )
    assert done.returncode == 1 and done.stderr.startswith("Known passwords of .env.example are in use, and luigid's")


def test_spark_connect_with_the_known_token_is_not_bound_beyond_loopback(tmp_path):
    words = ["--master", "local[1]", "--conf", "spark.ui.enabled=false", "--conf", "spark.jars.packages="]
    words += ["--conf", "spark.eventLog.enabled=false", "--conf", "spark.connect.grpc.binding.address=0.0.0.0"]
    program = services.spark("spark-submit", *words, str(settings.ROOT / "stack" / "connect.py"))
    secret = {"SPARK_CONNECT_AUTHENTICATE_TOKEN": "ecom_connect_secret", "_SPARK_AUTH_SECRET": secrets.token_hex(16)}
    environment = program.environment | secret | {"SPARK_CONF_DIR": str(tmp_path)}
    (tmp_path / "spark-defaults.conf").write_text((settings.ROOT / "spark-defaults.conf").read_text())
    done = subprocess.run(program.command, env=environment, text=True, capture_output=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "Known passwords of .env.example are in use, and spark.connect.grpc.binding.address would" in done.stdout


CONFIG = """
services:
  luigid:
    environment: {LUIGI_PASSWORD: "%s"}
    ports: [%s]
"""
LONG = "{mode: ingress, %starget: 8082, published: '8082', protocol: tcp}"


@pytest.mark.parametrize(
    ("port", "is_open"),
    [
        ("127.0.0.1:8082:8082", False),
        ("'[::1]:8082:8082'", False),
        ("0.0.0.0:8082:8082", True),
        ("192.0.2.1:8082:8082", True),
        ("'8082:8082'", True),
        ("8082", True),
        (LONG % "host_ip: 127.0.0.1, ", False),
        (LONG % "host_ip: 0.0.0.0, ", True),
        (LONG % "", True),
    ],
)
def test_containers_with_known_passwords_publish_nothing_beyond_loopback(port, is_open):
    random, known = secrets.token_hex(16), "ecom_luigi_secret"
    for env_has, container_has in ((known, random), (random, known)):
        text = f"LUIGI_PASSWORD={env_has}\n---\n{CONFIG % (container_has, port)}"
        try:
            passwords.refuse_published(text)
            said = ""
        except SystemExit as error:
            said = str(error)
        assert ("of luigid would open a port to other machines: run `make secrets`" in said) == is_open
    passwords.refuse_published(f"LUIGI_PASSWORD={random}\n---\n{CONFIG % (random, port)}")


def test_containers_that_cannot_be_read_are_not_started():
    said = run(sys.executable, "-m", "stack", "published", cwd=settings.ROOT, code=1, given="LUIGI_PASSWORD=x\n---\n")
    assert "names no service" in said


# ---- files ----------------------------------------------------------------------------------------------------------


def test_landing_files_are_for_the_eyes_of_who_writes_them(tmp_path):
    command = [sys.executable, "-m", "jobs.generate", "2026-01-01", "--scale", "0.01"]
    environment = os.environ | {"LANDING_DIR": str(tmp_path / "data" / "raw")}
    subprocess.run(command, cwd=settings.ROOT, env=environment, check=True, capture_output=True, umask=0o022)
    written = [*(tmp_path / "data").rglob("*")]
    assert len([path for path in written if path.suffix == ".csv"]) == 6
    assert [path for path in written if path.stat().st_mode & 0o077] == []


def test_git_sees_no_file_that_may_hold_values_or_secrets():
    names = [
        ".env",
        ".env.new",
        ".env.x1/env",
        ".stack/pgpass",
        ".stack-docker/dashboards/index.html",
        "pgpass",
        "token",
    ]
    names += ["data/raw/2026/01/01/visits.csv", "data/rejects/visits.csv", "backups/2026-01-31/lake.tar"]
    names += ["healthcare.tar", "healthcare.tar.gz", "warehouse.dump"]
    done = subprocess.run(["git", "check-ignore", *names], cwd=settings.ROOT, capture_output=True, text=True)
    assert done.stdout.split() == names
    assert subprocess.run(["git", "check-ignore", ".env.example"], cwd=settings.ROOT).returncode == 1


def test_the_documents_make_no_archive_that_others_can_read():
    for page in ("README.md", "docs/operations.md", "docs/access.md", "docs/scaling.md"):
        for line in (settings.ROOT / page).read_text().splitlines():
            assert not re.search(r"\btar -?\w*c\w* |cp \.env\.example", line) or "umask 077" in line, line


# ---- in the stores: PostgreSQL and MinIO alone, as the stack starts them --------------------------------------------


class Servers:
    """Runs PostgreSQL, with Metabase's database, and MinIO in a separate clone, as `make up` starts them."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        prepare.state_directory()
        prepare.roles()
        for name in ("postgres", "minio"):
            program, log = services.SERVICES[name].program(), services.stack_dir() / "logs" / f"{name}.log"
            with log.open("ab") as file:
                started = subprocess.Popen(program.command, env=program.environment, stdout=file, stderr=file, cwd="/")
            self.processes.append(started)
        object_store.client.cache_clear()
        until = time.monotonic() + 30
        while lacking := [name for name in ("postgres", "minio") if services.SERVICES[name].lacking()]:
            assert time.monotonic() < until, lacking
            time.sleep(0.1)
        store.create()

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait()
        self.processes = []


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Yields both servers under the known passwords, with a row and an object."""
    home, servers = tmp_path_factory.mktemp("small"), Servers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "ROOT", clone(home / "clone"))
        (settings.ROOT / ".env").write_text((settings.ROOT / ".env.example").read_text())
        for name, value in (EXAMPLE | {"STACK_CACHE": settings.get("STACK_CACHE")}).items():
            patch.setenv(name, value)
        for name in ("MINIO_READ_ACCESS_KEY", "MINIO_READ_SECRET_KEY"):
            patch.delenv(name)
        postgres, console, minio, nobody = map(str, own.free_ports(4))
        patch.setenv("POSTGRES_PORT", postgres)
        patch.setenv("MINIO_CONSOLE_PORT", console)
        patch.setenv("MINIO_ENDPOINT", f"http://127.0.0.1:{minio}")
        patch.setenv("METABASE_URL", f"http://127.0.0.1:{nobody}")
        patch.setenv("STACK_DIR", str(home / "stack"))
        prepare.state_directory()
        prepare.database()
        of_metabase = (
            "create role metabase login password 'metabase_secret';\ncreate database metabase owner metabase;\n"
        )
        assert not prepare.failure(prepare.single_user(home / "stack" / "postgres", "postgres"), of_metabase)
        try:
            servers.start()
            with services.connect() as connection:
                connection.execute("create table ops.precious as select 42 as figure")
            object_store.s3().put_object(Bucket=settings.get("MINIO_BUCKET_BRONZE"), Key="precious", Body=b"42")
            yield servers
        finally:
            servers.stop()
            object_store.client.cache_clear()


def env() -> dict[str, str]:
    return {name: value or "" for name, value in dotenv_values(settings.ROOT / ".env").items()}


def logs_in(role: str, password: str) -> bool:
    """Tells whether PostgreSQL accepts a role's password, by a login through libpq."""
    user, database = (role, role) if role == "metabase" else (settings.get(f"{role}_USER"), settings.get("POSTGRES_DB"))
    at = {"host": "127.0.0.1", "port": settings.get("POSTGRES_PORT")}
    try:
        psycopg.connect(**at, user=user, dbname=database, password=password).close()
    except psycopg.OperationalError as error:
        assert "authentication failed" in str(error)
        return False
    return True


def takes(user: str, secret: str) -> bool:
    """Tells whether MinIO accepts a user's secret."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_OF_A_TEST", secret)
        object_store.client.cache_clear()
        refused = store.refused(object_store.client(os.getpid(), user, "SECRET_OF_A_TEST"))
        object_store.client.cache_clear()
    return not refused


USERS = {
    "MINIO_ROOT_PASSWORD": "MINIO_ROOT_USER",
    "MINIO_SECRET_KEY": "MINIO_ACCESS_KEY",
    "MINIO_FORGET_SECRET_KEY": "MINIO_FORGET_ACCESS_KEY",
}


def check(old: dict[str, str]) -> None:
    """Checks everything that a replacement promises, once the stores run with the secrets now in `.env`."""
    new = env()
    for role in POSTGRES:
        assert logs_in(role, new[f"{role}_PASSWORD"]) and not logs_in(role, old[f"{role}_PASSWORD"]), role
    for name, user in USERS.items():
        assert takes(user, new[name]) and not takes(user, old[name]), name
    with services.connect() as connection:
        assert connection.execute("select figure from ops.precious").fetchone() == (42,)
    kept = object_store.s3().get_object(Bucket=settings.get("MINIO_BUCKET_BRONZE"), Key="precious")
    assert kept["Body"].read() == b"42"
    assert stat.S_IMODE((settings.ROOT / ".env").stat().st_mode) == 0o600
    assert not [*settings.ROOT.glob(".env.n*"), *settings.ROOT.glob(".env.t*")]
    log = (services.stack_dir() / "logs" / "postgres.log").read_text()
    assert not [name for name in settings.SECRETS if new.get(name) and new[name] in log]


def test_secrets_are_replaced_in_servers_that_run(servers, capsys):
    old, text = env(), (settings.ROOT / ".env").read_text()
    assert logs_in("POSTGRES", "ecom_secret") and "(12, " in passwords.notice()
    passwords.replace(())
    said = capsys.readouterr().out
    assert said.startswith("11 secrets are random now") and "METABASE_ENCRYPTION_KEY stays: " in said
    assert "`make up-docker`" in said, "no stack of ours runs them"
    new = env()
    assert not [name for name in settings.SECRETS if name in new and new[name] in said]
    assert {name for name in new if new[name] != old[name]} == {*EMBEDDED} - {"METABASE_ENCRYPTION_KEY"}
    masked = [re.sub(r"=[0-9a-f]{32}$", "=", line) for line in (settings.ROOT / ".env").read_text().splitlines()]
    expected = [
        f"{n}=" if (n := line.partition("=")[0]) in new and new[n] != old[n] else line for line in text.splitlines()
    ]
    assert masked == expected, "comments and other lines"
    # PostgreSQL changes at once; MinIO needs a restart.
    assert logs_in("POSTGRES", new["POSTGRES_PASSWORD"]) and not logs_in("POSTGRES", "ecom_secret")
    assert logs_in("metabase", new["METABASE_DB_PASSWORD"]) and not logs_in("metabase", "metabase_secret")
    servers.stop()
    servers.start()
    check(old)
    assert passwords.notice().startswith("Known passwords of .env.example are in use (1, METABASE_ENCRYPTION_KEY")


def test_servers_that_are_down_take_them_when_they_start(servers, capsys):
    old = env()
    servers.stop()
    passwords.replace(())
    said = capsys.readouterr().out
    assert "Stores that are down take them at the next `make up`." in said
    assert "METABASE_DB_PASSWORD stays: " in said, "what is random is lost to Metabase if its database cannot be told"
    servers.start()
    check(old)
    assert logs_in("metabase", old["METABASE_DB_PASSWORD"])


class Death(BaseException):
    """Signals the death of a process between two steps."""


def dying(function: Any, after: int) -> Any:
    """Wraps a function that raises Death after `after` calls."""
    calls = 0

    def call(*words: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Death
        return function(*words)

    return call


def again() -> None:
    passwords.replace(())


def up() -> None:
    """Does what `make up` does before it starts anything."""
    passwords.settle(())


@pytest.mark.parametrize(
    ("step", "after", "goes_on"),
    [
        ("write", 0, again),
        ("alter_roles", 0, up),
        ("lets_in", 4, again),
        ("lets_in", 6, up),
        ("publish", 0, again),
        ("sync", 2, up),
    ],
)
def test_after_a_death_at_any_step_the_next_command_goes_on(servers, step, after, goes_on, monkeypatch):
    old = env()
    with monkeypatch.context() as patch, pytest.raises(Death):
        patch.setattr(passwords, step, dying(getattr(passwords, step), after))
        passwords.replace(())
    was_published, planned = env() != old, dotenv_values(settings.ROOT / ".env.new")
    assert was_published == (step == "sync") and bool(planned) == (step not in ("write", "sync"))
    os.environ |= {name: env()[name] for name in settings.SECRETS if name in env()}  # as the next process reads them
    goes_on()
    if planned:
        assert {name: env()[name] for name in settings.SECRETS if name in planned} == {
            name: planned[name] for name in settings.SECRETS if name in planned
        }, "the same values again"
    servers.stop()
    servers.start()
    if env() == old:
        assert step == "write", "nothing had begun, and `make up` begins nothing"
        return
    check(old)
    assert logs_in("metabase", env()["METABASE_DB_PASSWORD"])


def test_a_journal_that_somebody_removes_locks_nobody_out(servers, monkeypatch):
    old = env()
    with monkeypatch.context() as patch, pytest.raises(Death):
        patch.setattr(passwords, "publish", dying(passwords.publish, 0))
        passwords.replace(())
    (settings.ROOT / ".env.new").unlink()
    assert not logs_in("POSTGRES", old["POSTGRES_PASSWORD"])
    servers.stop()
    servers.start()
    assert env() == old and all(logs_in(role, old[f"{role}_PASSWORD"]) for role in POSTGRES)


def test_nothing_is_replaced_while_a_run_is_at_work(servers):
    old = env()
    with services.connect() as connection:
        connection.execute("select pg_advisory_lock(42)")
        with pytest.raises(SystemExit, match=r"^A run is at work, .*: wait for its end, then `make secrets`.$"):
            passwords.replace(())
    assert env() == old and not (settings.ROOT / ".env.new").exists()


def test_what_the_environment_sets_or_another_machine_has_is_not_replaced(servers, monkeypatch):
    old = env()
    with pytest.raises(SystemExit, match=r"^The environment sets LUIGI_PASSWORD, which overrides .env"):
        passwords.replace(["LUIGI_PASSWORD"])
    monkeypatch.setenv("POSTGRES_HOST", "192.0.2.1")
    monkeypatch.setenv("MINIO_ENDPOINT", "https://s3.example.org")
    values, kept = passwords.chosen()
    assert {name.partition("_")[0] for name in values} == {"SPARK", "LUIGI"}
    assert [line.rpartition(" stay: ")[2].split()[0] for line in kept[:2]] == ["POSTGRES_HOST", "MINIO_ENDPOINT"]
    assert env() == old


def test_a_role_that_cannot_log_in_is_told_before_anything_changes(servers, monkeypatch):
    old = env()
    monkeypatch.setattr(passwords, "env_file", lambda: settings.ROOT / "other")
    without_new = (settings.ROOT / ".env").read_text().replace(old["POSTGRES_READ_PASSWORD"], "sesame")
    (settings.ROOT / "other").write_text(without_new)
    with pytest.raises(SystemExit, match=r"^PostgreSQL refuses ecom_read with POSTGRES_READ_PASSWORD of .env, so noth"):
        passwords.replace(())
    assert not (settings.ROOT / "other.new").exists() and logs_in("POSTGRES", old["POSTGRES_PASSWORD"])
