"""Downloads Spark's jars and verifies them against the checksums in conf/jars.sha256.

`python -m stack.jars` rewrites that file from a fresh download; `make lock` calls it.
"""

import re
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path

from jobs import settings
from stack import prepare, services

LIST = settings.ROOT / "conf" / "jars.sha256"
NEXT_STEP = (
    "remove {} and run `make up` again; if spark-defaults.conf names other packages on purpose, run `make lock` first."
)


def listed() -> dict[str, str]:
    """Returns the checksum of each jar by file name; sha256sum reads the same file format."""
    lines = [line.split() for line in LIST.read_text().splitlines()]
    return {name: checksum for checksum, name in lines}


def checksum(path: Path) -> str:
    """Computes a file's SHA-256."""
    return sha256(path.read_bytes()).hexdigest()


def ensure() -> list[Path]:
    """Downloads missing jars and returns all of them; exits with a sentence if one does not match its checksum.

    Hashing takes a moment, so the file `complete` stores the checksum of the list that the jars were last verified
    against.
    """
    directory = prepare.packages()
    (directory / "jars").mkdir(parents=True, exist_ok=True)
    complete, paths = directory / "complete", [directory / "jars" / name for name in sorted(listed())]
    with prepare.alone(services.cache() / "jars.lock"):
        missing = [path for path in paths if not path.exists()]
        if missing:
            print("Downloading Spark's packages (30 MB), once.", flush=True)
            resolve(directory)
        if missing or not complete.exists() or complete.read_text() != checksum(LIST):
            complete.unlink(missing_ok=True)
            if fault := first_fault(directory / "jars"):
                raise SystemExit(f"{fault}, so that Spark is not started: {NEXT_STEP.format(directory)}")
            complete.write_text(checksum(LIST))
    return paths


def first_fault(directory: Path) -> str:
    """Describes the first jar that does not match conf/jars.sha256; returns "" if all match."""
    expected, files = listed(), {path.name: path for path in sorted(directory.glob("*.jar"))}
    for name in sorted(expected.keys() | files.keys()):
        if name not in expected:
            return f"The jar {name} is not listed in conf/jars.sha256"
        if name not in files:
            return f"The jar {name}, which conf/jars.sha256 lists, was not downloaded"
        if checksum(files[name]) != expected[name]:
            return f"The jar {name} is not the file that conf/jars.sha256 lists"
    return ""


def resolve(directory: Path) -> None:
    """Has Spark download the packages named in spark-defaults.conf into `jars` of a directory.

    This Spark opens no session and gets no keys: it runs a one-line program from pyspark and loads no downloaded class.
    """
    prepare.java()
    options = {"spark.master": "local[1]", "spark.jars.ivy": str(directory), "spark.eventLog.enabled": "false"}
    words = [word for name, value in options.items() for word in ("--conf", f"{name}={value}")]
    words += [
        "--properties-file",
        str(settings.ROOT / "spark-defaults.conf"),
        str(services.spark_home() / "version.py"),
    ]
    conf = str(settings.ROOT / "conf")
    program = services.spark("spark-submit", *words, SPARK_CONF_DIR=conf, SPARK_LOCAL_DIRS=str(directory))
    done = subprocess.run(program.command, env=program.environment, cwd=directory, capture_output=True, text=True)
    if done.returncode:
        unresolved = re.search(r"unresolved dependency: ([^,\]]+)", done.stderr)
        reason = unresolved[1] if unresolved else prepare.last_line(done.stderr)
        raise SystemExit(
            f"Spark's packages could not be downloaded ({reason}): see that this machine reaches Maven Central, "
            "through a proxy by JAVA_TOOL_OPTIONS, then run `make up` again."
        )


def main() -> None:
    """Writes conf/jars.sha256 from a download into an empty directory."""
    with tempfile.TemporaryDirectory() as directory:
        resolve(Path(directory))
        lines = [f"{checksum(path)}  {path.name}\n" for path in sorted(Path(directory, "jars").glob("*.jar"))]
    LIST.write_text("".join(lines))
    print(f"{LIST.relative_to(settings.ROOT)} lists {len(lines)} jars.")


if __name__ == "__main__":
    main()
