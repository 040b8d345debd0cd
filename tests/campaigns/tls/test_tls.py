"""PostgreSQL and MinIO over TLS, with certificates that only our own authority vouches for: `make test-tls`.

The embedded PostgreSQL is built without TLS: Debian's is taken, which is installed where it is missing (root, Debian).
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from jobs import settings
from jobs.catalog import CATALOG
from stack import prepare, services
from tests.conftest import run_stack

DAY = "2026-01-01"
NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost"


def run(*words: object, **more: object) -> str:
    return subprocess.run(list(map(str, words)), check=True, text=True, stdout=subprocess.PIPE, **more).stdout  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server's certificate and key by it, and the authority as Java wants it."""
    place = tmp_path_factory.mktemp("certificates")
    for owner in ("authority", "stranger"):
        own = ("-keyout", f"{owner}.key", "-out", f"{owner}.crt", "-subj", f"/CN={owner}", "-days", 2)
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *own, cwd=place, stderr=subprocess.DEVNULL)
    (place / "names").write_text(NAMES)
    asked = ("-newkey", "rsa:2048", "-nodes", "-keyout", "private.key", "-out", "request", "-subj", "/CN=127.0.0.1")
    run("openssl", "req", *asked, cwd=place, stderr=subprocess.DEVNULL)
    by = ("-CA", "authority.crt", "-CAkey", "authority.key", "-days", 2, "-extfile", "names", "-out", "public.crt")
    run("openssl", "x509", "-req", "-in", "request", *by, cwd=place, stderr=subprocess.DEVNULL)
    keytool = Path(prepare.java_home(), "bin", "keytool")
    # Of the default type nothing is read without a password.
    store = (
        "-keystore",
        "trusted",
        "-storetype",
        "JKS",
        "-storepass",
        "changeit",
        "-alias",
        "ours",
        "-file",
        "authority.crt",
        "-noprompt",
    )
    run(keytool, "-importcert", *store, cwd=place, stderr=subprocess.DEVNULL)
    return place


@pytest.fixture(scope="module")
def servers(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """PostgreSQL that takes nobody without TLS, and MinIO that speaks nothing else; the settings of who uses them."""
    home = tmp_path_factory.mktemp("servers")
    port = settings.get("POSTGRES_PORT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIO_ENDPOINT", settings.s3_endpoint().replace("http:", "https:"))
        patch.setenv("AWS_CA_BUNDLE", str(certificates / "authority.crt"))
        patch.setenv("PGSSLMODE", "verify-full")
        patch.setenv("PGSSLROOTCERT", str(certificates / "authority.crt"))
        patch.setenv("JAVA_TOOL_OPTIONS", f"-Djavax.net.ssl.trustStore={certificates / 'trusted'}")
        prepare.state_directory()
        keys = home / "minio-keys"
        keys.mkdir()
        for name in ("public.crt", "private.key"):
            shutil.copy(certificates / name, keys)
        minio = services.minio()
        minio.command[2:2] = ["--certs-dir", str(keys)]
        processes = [
            subprocess.Popen(minio.command, env=minio.environment, stdout=subprocess.DEVNULL),
            subprocess.Popen(postgres(home / "postgres", certificates, port), stderr=subprocess.DEVNULL, cwd="/"),
        ]
        try:
            wait_for(lambda: psycopg.connect(superuser(port)).close(), psycopg.OperationalError)
            create_roles(port)
            yield
        finally:
            for process in processes:
                process.terminate()
                process.wait()


def postgres(data: Path, certificates: Path, port: str) -> list[str]:
    """The command of a server with TLS, by Debian's binaries, in a cluster that it makes."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        run("apt-get", "install", "-y", "-q", "postgresql")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    for above in (data.parent, data.parent.parent):  # pytest's own directories are closed to others
        above.chmod(0o755)
    data.mkdir()
    shutil.chown(data, "postgres", "postgres")
    run(*services.unprivileged(), programs / "initdb", "-D", data, "--auth-local=trust", "--encoding=UTF8", cwd="/")
    for name in ("public.crt", "private.key"):
        shutil.copy(certificates / name, data)
        shutil.chown(data / name, "postgres", "postgres")
        (data / name).chmod(0o600)
    (data / "pg_hba.conf").write_text("local all postgres trust\nhostssl all all all scram-sha-256\n")
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "/tmp", "ssl": "on"}
    options |= {"ssl_cert_file": "public.crt", "ssl_key_file": "private.key"}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    return [*services.unprivileged(), str(programs / "postgres"), "-D", str(data), *words]


def superuser(port: str) -> str:
    return f"host=/tmp port={port} user=postgres dbname=postgres"


def create_roles(port: str) -> None:
    """As docs/operations.md has it for a server that is not the embedded one."""
    run("psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", superuser(port), "-f", settings.ROOT / "sql" / "init.sql")
    with psycopg.connect(superuser(port), autocommit=True) as connection:
        for role, kind in (("ecom", ""), ("ecom_read", "READ_"), ("ecom_dashboards", "DASHBOARDS_")):
            name = f"POSTGRES_{kind}PASSWORD"
            connection.execute(f"alter role {role} password '{settings.get(name)}'")  # type: ignore[call-overload]


def wait_for(attempt, error: type[Exception]) -> None:
    for _ in range(100):
        try:
            return attempt()
        except error:
            time.sleep(0.1)
    attempt()


DATE = """
from datetime import date
from jobs import program
from jobs.catalog import CATALOG
from jobs.landing_to_bronze import landing_to_bronze
from jobs.bronze_to_silver import bronze_to_silver
from jobs.silver_to_gold import silver_to_gold
for job in (landing_to_bronze, bronze_to_silver, silver_to_gold):
    for dataset in CATALOG.values():
        print(job(dataset, date.fromisoformat("DAY")), flush=True)
""".replace("DAY", DAY)


def test_a_date_goes_from_its_files_to_gold(servers, tmp_path):
    stores = run_stack("stores")
    assert (stores.returncode, stores.stdout, stores.stderr) == (0, "", "")
    run(sys.executable, "-m", "jobs.generate", DAY, "--scale", "0.01", cwd=settings.ROOT)
    conf = {"spark.jars.ivy": prepare.packages(), "spark.eventLog.enabled": "false", "spark.cores.max": "2"}
    words = [word for name, value in conf.items() for word in ("--conf", f"{name}={value}")]
    (tmp_path / "date.py").write_text(DATE)
    done = subprocess.run(
        ["spark-submit", "--master", "local[2]", *words, tmp_path / "date.py"],
        cwd=settings.ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    print(done.stdout)
    with services.connect("POSTGRES_READ") as connection:
        assert connection.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()").fetchone() == (True,)
        for name in CATALOG:
            [rows] = connection.execute(f"select count(*) from {name}").fetchone()
            assert rows, name


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"AWS_CA_BUNDLE": "stranger.crt"}, "shows a certificate that nobody here vouches for; check AWS_CA_BUNDLE"),
        ({"PGSSLROOTCERT": "stranger.crt"}, "do not agree about TLS; check PGSSLMODE and PGSSLROOTCERT in .env."),
        ({"PGSSLMODE": "disable"}, "do not agree about TLS; check PGSSLMODE and PGSSLROOTCERT in .env."),
        ({"MINIO_ENDPOINT": "http"}, "MinIO at http://127.0.0.1:"),
    ],
)
def test_what_is_not_to_be_trusted_is_told_in_a_sentence(servers, certificates, given, sentence):
    [[name, value]] = given.items()
    changed = {"MINIO_ENDPOINT": settings.s3_endpoint().replace("https:", "http:")}.get(name, value)
    told = run_stack("stores", **{name: str(certificates / changed) if changed.endswith(".crt") else changed})
    assert told.returncode == 1 and sentence in told.stderr, told.stderr
    assert "Traceback" not in told.stderr and told.stderr.count("\n") == 1
