"""Looks up known vulnerabilities in every component of the platform: make audit

pip-audit asks PyPI about the packages in requirements-dev.lock; OSV is asked about the jars, MinIO, and the packages in
the images, if docker or podman has them. Exits 1 if a vulnerability is known, and 2 if a lookup failed, since an
unanswered question is not an all-clear.
"""

import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import chain
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import requests

from jobs import settings
from stack import sbom

PIP_AUDIT = "pip-audit@2.10.1"
OSV = "https://api.osv.dev/v1/query"


class Package(NamedTuple):
    """Identifies a package for OSV by name, version and ecosystem."""

    ecosystem: str
    name: str
    version: str


def main() -> int:
    codes = [python_packages()]
    codes.append(report(query_all(in_jars()), "jars and modules in them", "OSV"))
    codes.append(report(query_all(question(each) for each in sbom.go_modules()), "Go modules", "OSV"))
    codes += [image(reference) for reference in sbom.references()]
    return 1 if 1 in codes else max(codes)


def python_packages() -> int:
    """Runs pip-audit over requirements-dev.lock; returns the exit code."""
    command = [str(Path(sys.executable).with_name("uv")), "tool", "run", PIP_AUDIT]
    command += ["--requirement=requirements-dev.lock", "--require-hashes", "--disable-pip", "--progress-spinner=off"]
    done = subprocess.run([*command, "--format=json"], cwd=settings.ROOT, text=True, capture_output=True)
    try:
        return report(json.loads(done.stdout)["dependencies"])
    except ValueError:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print(f"Whether a Python package is vulnerable cannot be known, for pip-audit got no answer: {said}")
        return 2


def in_jars() -> list[Package]:
    """Lists the jars, and the modules bundled into some of them, each once."""
    whole = [*sbom.shipped(), *sbom.downloaded()]
    parts = chain(whole, *(jar.contents for jar in whole))
    return sorted({question(part) for part in parts})


def question(component: sbom.Component) -> Package:
    """Returns the OSV package of a jar or Go module."""
    name = (":" if component.ecosystem == "Maven" else "/").join(filter(None, (component.group, component.name)))
    return Package(component.ecosystem, name, component.version.removeprefix("v"))


def image(reference: str) -> int:
    """Looks up the system packages of an image; returns the exit code.

    A distribution lists vulnerabilities that it has not fixed and may never fix: those are counted, not reported one by
    one.
    """
    try:
        packages = installed(reference)
    except (OSError, ValueError, tarfile.TarError) as error:
        print(f"What is in the image {reference} cannot be known: {error}.")
        return 2
    answers = query_all(packages)
    unfixed = sum(not each["fix_versions"] for answer in answers for each in answer.get("vulns", []))
    for answer in answers:
        if "vulns" in answer:
            answer["vulns"] = [each for each in answer["vulns"] if each["fix_versions"]]
    code = report(answers, f"packages of the image {reference}", "OSV")
    if unfixed:
        print(f"Of {unfixed} more vulnerabilities in it {packages[0].ecosystem} has no mended version.")
    return code


def installed(reference: str) -> list[Package]:
    """Lists an image's Debian, Ubuntu or Alpine packages without running it; raises ValueError if it cannot."""
    program = shutil.which("docker") or shutil.which("podman")
    if not program:
        raise ValueError("there is neither docker nor podman on the PATH")

    def run(*words: str) -> bytes:
        done = subprocess.run([str(program), *words], capture_output=True)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise ValueError(f"{Path(str(program)).name} {words[0]}: {lines[-1].rstrip('.')}")
        return done.stdout

    container = run("create", reference, "none").decode().strip().splitlines()[-1]
    try:
        text = file(run("cp", f"{container}:/usr/lib/os-release", "-"))
        system = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.M))
        kind, number = system.get("ID", ""), system.get("VERSION_ID", "")
        if kind == "alpine":
            text = file(run("cp", f"{container}:/lib/apk/db/installed", "-"))
            found = of_alpine(text, f"Alpine:v{'.'.join(number.split('.')[:2])}")
        elif kind in ("debian", "ubuntu"):
            text = file(run("cp", f"{container}:/var/lib/dpkg/status", "-"))
            found = of_debian(text, f"Debian:{number}" if kind == "debian" else f"Ubuntu:{number}:LTS")
        else:
            raise ValueError(f"OSV is asked about Alpine, Debian and Ubuntu, and it is of {kind or 'none of them'}")
    finally:
        subprocess.run([program, "rm", container], capture_output=True)
    if packages := sorted(set(found)):
        return packages
    raise ValueError("it names no package")


def file(archive: bytes) -> str:
    """Returns the text of the single file in a tar archive from `docker cp`."""
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        for member in tar:
            if content := tar.extractfile(member):
                return content.read().decode(errors="replace")
    raise ValueError("docker cp gave no file")


def of_alpine(text: str, ecosystem: str) -> Iterator[Package]:
    """Reads apk's package list; OSV records vulnerabilities by the source package (o)."""
    for block in text.split("\n\n"):
        fields: dict[str, str] = dict(re.findall(r"^([PVo]):(.+)$", block, re.M))
        if "P" in fields and "V" in fields:
            yield Package(ecosystem, fields.get("o", fields["P"]), fields["V"])


def of_debian(text: str, ecosystem: str) -> Iterator[Package]:
    """Reads dpkg's package list, with the source package and its version where they differ from the package's own."""
    for block in text.split("\n\n"):
        fields: dict[str, str] = dict(re.findall(r"^(Package|Version|Source|Status): (.+)$", block, re.M))
        if fields.get("Status", "").endswith(" installed") and "Version" in fields:
            source, _, version = fields.get("Source", fields["Package"]).partition(" ")
            yield Package(ecosystem, source, version.strip("()") or fields["Version"])


def query_all(packages: Iterable[Package]) -> list[dict[str, Any]]:
    """Asks OSV about each package; returns answers in pip-audit's format, without `vulns` if the question failed.

    Stops asking once the server is unreachable.
    """
    unreachable = Event()
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda package: query(package, unreachable), packages))


def query(package: Package, unreachable: Event) -> dict[str, Any]:
    """Asks OSV about one package, unless another query found OSV unreachable."""
    answer: dict[str, Any] = {"name": package.name, "version": package.version}
    body = {"package": {"name": package.name, "ecosystem": package.ecosystem}, "version": package.version}
    vulnerabilities: list[dict[str, Any]] = []
    try:
        while package.ecosystem and not unreachable.is_set():
            reply = requests.post(OSV, json=body, timeout=30)
            reply.raise_for_status()
            page = reply.json()
            for each in page.get("vulns", []):
                vulnerabilities.append({"id": each["id"], "fix_versions": fixed_versions(each, package)})
            if not page.get("next_page_token"):
                return answer | {"vulns": vulnerabilities}
            body["page_token"] = page["next_page_token"]
    except (requests.ConnectionError, requests.Timeout):
        unreachable.set()
    except (requests.RequestException, ValueError):
        pass
    return answer


def fixed_versions(vulnerability: dict[str, Any], package: Package) -> list[str]:
    """Lists the versions of a package in which a vulnerability is fixed."""
    versions = []
    for affected in vulnerability.get("affected", []):
        name, ecosystem = (affected.get("package", {}).get(key) for key in ("name", "ecosystem"))
        if (name, ecosystem) == (package.name, package.ecosystem):
            ranges = [each for each in affected.get("ranges", []) if each.get("type") != "GIT"]
            versions += [event["fixed"] for each in ranges for event in each.get("events", []) if "fixed" in event]
    return versions


def report(packages: list[dict[str, Any]], what: str = "Python packages", who: str = "PyPI") -> int:
    """Prints the findings per package and the number of packages without an answer; returns the exit code."""
    unknown = [each["name"] for each in packages if "vulns" not in each]
    vulnerable = [each for each in packages if each.get("vulns")]
    for each in vulnerable:
        for one in each["vulns"]:
            fixed = ", ".join(one["fix_versions"]) or "no version yet"
            print(f"{each['name']} {each['version']}: {one['id']}, mended in {fixed}")
    print(f"{len(packages) - len(unknown)} {what} were looked up: {len(vulnerable)} with a known vulnerability.")
    if unknown:
        few = ", ".join(unknown[:3])
        print(f"Nothing can be known of {len(unknown)} others ({few}, ...): {who} could not be asked, or lacks them.")
    return 1 if vulnerable else 2 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
