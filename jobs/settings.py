"""Reads the platform's settings: the environment, secrets as files, `.env` and `.env.example`.

No other module reads them. A secret has no default: `.env.example` is only the file from which a fresh clone's `.env`
is copied. This module also decides which variables of other programs reach the clients of our own servers
(docs/operations.md has the table).
"""

import os
import re
import time
from collections.abc import Iterable, Mapping
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values, load_dotenv

ROOT = Path(__file__).resolve().parent.parent

# A shell may have variables that begin with these names for other work: all are dropped except those in USED.
OTHERS = (
    "AWS_ BOTO PG SPARK_ PYSPARK_ HADOOP_ YARN_ HIVE_ LUIGI_ _JAVA_OPTIONS JDK_JAVA_OPTIONS grpc_proxy no_grpc_proxy"
)
OTHERS += " PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONWARNINGS"
USED = "AWS_CA_BUNDLE PGREQUIREAUTH PGSSLMODE PGSSLROOTCERT PGPASSFILE LUIGI_HOST LUIGI_PORT SPARK_CONNECT_HOST"
USED += " SPARK_AUTH_SECRET SPARK_CONNECT_TOKEN LUIGI_USER LUIGI_PASSWORD LUIGI_NAMES"
USED += " SPARK_CONNECT_PORT SPARK_HISTORY_PORT SPARK_MASTER_PORT SPARK_MASTER_WEBUI_PORT SPARK_WORKER_WEBUI_PORT"
SERVERS = ("POSTGRES_HOST", "MINIO_ENDPOINT", "SPARK_CONNECT_HOST", "LUIGI_HOST", "METABASE_URL")

# The settings that open a store, a service or a page.
SECRETS = (
    *("POSTGRES_PASSWORD", "POSTGRES_READ_PASSWORD", "POSTGRES_DASHBOARDS_PASSWORD"),
    *("MINIO_ROOT_PASSWORD", "MINIO_SECRET_KEY", "MINIO_FORGET_SECRET_KEY", "MINIO_READ_SECRET_KEY"),
    *("SPARK_AUTH_SECRET", "SPARK_CONNECT_TOKEN", "LUIGI_PASSWORD"),
    *("METABASE_PASSWORD", "METABASE_DB_PASSWORD", "METABASE_ENCRYPTION_KEY"),
)
# The values that `.env.example` has, or had, for them, which are published. A test compares the two; container images
# lack the file.
KNOWN = frozenset(
    {
        *("ecom_secret", "ecom_read_secret", "ecom_dashboards_secret"),
        *("minioadmin", "minioadmin123", "ecom_lake_secret", "ecom_forget_secret"),
        *("ecom_spark_secret", "ecom_connect_secret", "ecom_luigi_secret"),
        *("admin1234!", "metabase_secret", "change_me_to_32_characters_or_more"),
    }
)


@cache  # the files are read once per process: a connection asks for five settings
def load() -> list[str]:
    """Fills the environment with missing settings, drops other programs' variables, and sets those of `pins`.

    A variable of the environment takes precedence over the files. Returns the names of dropped variables.
    """
    if directory := text("SECRETS_DIR"):  # where containers have each secret as a file of its name
        for file in Path(directory).glob("*"):
            if file.is_file():
                os.environ.setdefault(file.name, file.read_text().removesuffix("\n"))
    load_dotenv(ROOT / ".env", override=False)
    for name, value in dotenv_values(ROOT / ".env.example").items():
        if name not in SECRETS:
            os.environ.setdefault(name, value or "")
    kept, others = USED.split(), OTHERS.split()
    if text("SPARK_REMOTE") == f"sc://{text('SPARK_CONNECT_HOST')}:{text('SPARK_CONNECT_PORT')}":
        kept.append("SPARK_REMOTE")  # set by one of the platform's tasks
    if text("PYSPARK_GATEWAY_PORT"):
        # Spark has started this program and set these variables itself: conf/spark-submit has dropped others before.
        others = [prefix for prefix in others if "SPARK_" not in prefix]
    dropped = [name for name in os.environ if name.startswith(tuple(others)) and name not in kept]
    for name in dropped:
        del os.environ[name]
    os.environ |= pins()
    time.tzset()
    return dropped


def pins() -> dict[str, str]:
    """Returns the variables of all our programs: UTC, UTF-8, the modules of this clone, no proxy to our own servers."""
    hosts = dict.fromkeys(["localhost", "127.0.0.1", "::1", *filter(None, map(host_of, SERVERS))])
    named = [name for each in ("no_proxy", "NO_PROXY") for name in re.split(r"[\s,]+", text(each)) if name]
    direct = "*" if "*" in named else ",".join(dict.fromkeys([*named, *hosts]))
    pinned = {
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "PYTHONUTF8": "1",
        "PYTHONPATH": str(ROOT),
        "LUIGI_CONFIG_PATH": str(ROOT / "conf" / "luigi.cfg"),
        "no_proxy": direct,
        "NO_PROXY": direct,
    }
    if options := text("JAVA_TOOL_OPTIONS"):
        pinned["JAVA_TOOL_OPTIONS"] = java_options(options, ["127.*", "[::1]", *hosts])
    return pinned


def host_of(setting: str) -> str:
    """Returns the host that a setting names, by itself or in a URL; empty if it names none."""
    address = text(setting)
    return urlsplit(address if "://" in address else f"//{address}").hostname or ""


def java_options(options: str, hosts: list[str]) -> str:
    """Returns Java's options; if they name a proxy, adds that these hosts are reached without it."""
    for proxy, direct in (
        (r"-Dhttps?\.proxyHost", "-Dhttp.nonProxyHosts"),
        ("-DsocksProxyHost", "-DsocksNonProxyHosts"),
    ):
        if re.search(rf"{proxy}=", options):
            named = re.findall(rf"{re.escape(direct)}=([^\s'\"]+)", options)
            before = named[-1].split("|") if named else []
            if not before or set(hosts) - set(before):
                options += f" {direct}={'|'.join(dict.fromkeys([*before, *hosts]))}"
    return options


def text(name: str) -> str:
    """Returns a variable of the environment as it is; empty if it is not set."""
    return os.environ.get(name, "")


def given(name: str) -> str:
    """Returns the text of a setting that may be empty."""
    load()
    return text(name)


def get(name: str) -> str:
    """Returns the text of a setting; exits with a sentence if it is empty."""
    value = given(name)
    if not value and name in SECRETS:
        raise SystemExit(
            f"The secret {name} is neither in .env nor in the environment, and has no default: `make up` adds a random "
            "one to .env where its line is missing; an empty line needs a value."
        )
    if not value:
        raise SystemExit(f"The setting {name} is empty: set it in .env or in the environment.")
    return value


def path(name: str) -> Path:
    """Returns a setting that is a directory; a relative one is taken from the root of the clone."""
    return (ROOT / Path(get(name)).expanduser()).resolve()


def currency() -> str:
    """Returns CURRENCY, the ISO 4217 code of the money in the files; exits with a sentence if it has another form."""
    code = get("CURRENCY")
    if not re.fullmatch("[A-Z]{3}", code):
        raise SystemExit("CURRENCY is not an ISO 4217 code: set it to three capital letters, as EUR or USD, in .env.")
    return code


def small_cells() -> int:
    """Returns SMALL_CELLS, the number of patients below which breakdowns of patients are suppressed; 0 suppresses none.

    Exits with a sentence if the setting is not a whole number.
    """
    number = get("SMALL_CELLS")
    if not re.fullmatch("[0-9]{1,6}", number):
        raise SystemExit(
            "SMALL_CELLS is not a whole number: set it to the smallest number of patients to show, in .env."
        )
    return int(number)


def s3_endpoint() -> str:
    """Returns MINIO_ENDPOINT as a URL; with http if it names no scheme."""
    endpoint = get("MINIO_ENDPOINT")
    return endpoint if "://" in endpoint else f"http://{endpoint}"


def required_auth() -> str:
    """Returns how PostgreSQL must ask for the password: by SCRAM, unless PGREQUIREAUTH names other methods.

    With SCRAM the server proves that it has the password too, so that a program that listens in its place learns no
    password.
    """
    return given("PGREQUIREAUTH") or "scram-sha-256"


def known_secrets() -> list[str]:
    """Returns the names of the secrets in use whose values are published."""
    return [name for name in SECRETS if given(name) in KNOWN]


def is_loopback(host: str) -> bool:
    """Tells whether an address is reached from this machine only; of names this holds for localhost alone."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_open(addresses: Mapping[str, str], secrets: Iterable[str]) -> None:
    """Exits with a sentence if one of these secrets is published and one of these addresses is not loopback.

    A container binds an address of its own network: PUBLISHED_ON says at which address of the machine its ports are
    open.
    """
    beyond = [] if is_loopback(text("PUBLISHED_ON")) else [w for w, host in addresses.items() if not is_loopback(host)]
    if beyond and KNOWN.intersection(secrets):
        raise SystemExit(
            f"Known passwords of .env.example are in use, and {beyond[0]} would open a port to other machines: run "
            "`make secrets` first, or keep to 127.0.0.1 (docs/access.md)."
        )
