"""The platform's settings: the environment, secrets as files, `.env`, `.env.example`. No other module reads them.

A secret has no default: `.env.example` is what a fresh clone's `.env` is copied from, and no more. Decides, too, what
other programs' variables may tell the clients of our own servers (docs/operations.md has the table).
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

# A shell may have variables of these names, or that begin so, for other work: all are dropped but those in USED.
OTHERS = (
    "AWS_ BOTO PG SPARK_ PYSPARK_ HADOOP_ YARN_ HIVE_ LUIGI_ _JAVA_OPTIONS JDK_JAVA_OPTIONS grpc_proxy no_grpc_proxy"
)
OTHERS += " PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONWARNINGS"
USED = "AWS_CA_BUNDLE PGREQUIREAUTH PGSSLMODE PGSSLROOTCERT PGPASSFILE LUIGI_HOST LUIGI_PORT SPARK_CONNECT_HOST"
USED += " SPARK_AUTH_SECRET SPARK_CONNECT_TOKEN LUIGI_USER LUIGI_PASSWORD LUIGI_NAMES"
USED += " SPARK_CONNECT_PORT SPARK_HISTORY_PORT SPARK_MASTER_PORT SPARK_MASTER_WEBUI_PORT SPARK_WORKER_WEBUI_PORT"
SERVERS = ("POSTGRES_HOST", "MINIO_ENDPOINT", "SPARK_CONNECT_HOST", "LUIGI_HOST", "METABASE_URL")

# What opens a store, a service or a page.
SECRETS = (
    *("POSTGRES_PASSWORD", "POSTGRES_READ_PASSWORD", "POSTGRES_DASHBOARDS_PASSWORD"),
    *("MINIO_ROOT_PASSWORD", "MINIO_SECRET_KEY", "MINIO_FORGET_SECRET_KEY", "MINIO_READ_SECRET_KEY"),
    *("SPARK_AUTH_SECRET", "SPARK_CONNECT_TOKEN", "LUIGI_PASSWORD"),
    *("METABASE_PASSWORD", "METABASE_DB_PASSWORD", "METABASE_ENCRYPTION_KEY"),
)
# What `.env.example` has, or had, for them: anybody knows these. A test holds the two together; images lack the file.
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
    """Fills the environment with the settings it lacks, drops other programs' variables, and pins what `pins` says.

    A variable set there beats the files. Returns the names that were dropped.
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
        kept.append("SPARK_REMOTE")  # a task of ours has set it
    if text("PYSPARK_GATEWAY_PORT"):
        # Spark has started this program, and tells it so: conf/spark-submit has dropped these before.
        others = [prefix for prefix in others if "SPARK_" not in prefix]
    dropped = [name for name in os.environ if name.startswith(tuple(others)) and name not in kept]
    for name in dropped:
        del os.environ[name]
    os.environ |= pins()
    time.tzset()
    return dropped


def pins() -> dict[str, str]:
    """What holds for every program of ours: UTC, UTF-8, the modules of this clone, and no proxy to its own servers."""
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
    """The host that a setting names, by itself or in a URL."""
    address = text(setting)
    return urlsplit(address if "://" in address else f"//{address}").hostname or ""


def java_options(options: str, hosts: list[str]) -> str:
    """Java's options with a last word that none of these hosts is asked of a proxy, where they name a proxy."""
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
    """A variable of the environment as it is."""
    return os.environ.get(name, "")


def given(name: str) -> str:
    """The text of a setting that may be empty."""
    load()
    return text(name)


def get(name: str) -> str:
    """The text of one setting; a KeyError-free lookup that exits with a sentence when there is none."""
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
    """A setting that is a directory; relative ones are taken from the root of the clone."""
    return (ROOT / Path(get(name)).expanduser()).resolve()


def currency() -> str:
    """CURRENCY, the ISO 4217 code of the money in the files; exits with a sentence where it is none."""
    code = get("CURRENCY")
    if not re.fullmatch("[A-Z]{3}", code):
        raise SystemExit("CURRENCY is no ISO 4217 code: set it to three capital letters, as EUR or USD, in .env.")
    return code


def small_cells() -> int:
    """SMALL_CELLS, the number of patients below which breakdowns of patients are suppressed; 0 suppresses none."""
    number = get("SMALL_CELLS")
    if not re.fullmatch("[0-9]{1,6}", number):
        raise SystemExit("SMALL_CELLS is no whole number: set it to the smallest number of patients to show, in .env.")
    return int(number)


def s3_endpoint() -> str:
    """MINIO_ENDPOINT as a URL; plain http where it names no scheme."""
    endpoint = get("MINIO_ENDPOINT")
    return endpoint if "://" in endpoint else f"http://{endpoint}"


def required_auth() -> str:
    """Names how PostgreSQL has to ask for the password: by SCRAM, in which the server proves that it knows it too,
    unless PGREQUIREAUTH names other methods. So a program that listens in its place learns no password.
    """
    return given("PGREQUIREAUTH") or "scram-sha-256"


def known_secrets() -> list[str]:
    """Names the secrets in use whose values anybody knows."""
    return [name for name in SECRETS if given(name) in KNOWN]


def is_loopback(host: str) -> bool:
    """True if only this machine reaches an address; a name other than localhost, and no name at all, do not count."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_open(addresses: Mapping[str, str], secrets: Iterable[str]) -> None:
    """Exits with a sentence if one of these secrets is known and one of these addresses is not loopback.

    A container binds an address of its own network: PUBLISHED_ON says at which of the machine its ports are open.
    """
    beyond = [] if is_loopback(text("PUBLISHED_ON")) else [w for w, host in addresses.items() if not is_loopback(host)]
    if beyond and KNOWN.intersection(secrets):
        raise SystemExit(
            f"Known passwords of .env.example are in use, and {beyond[0]} would open a port to other machines: run "
            "`make secrets` first, or keep to 127.0.0.1 (docs/access.md)."
        )
