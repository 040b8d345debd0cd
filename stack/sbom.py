"""Writes the bill of materials: every package, jar, server and image of the platform, with checksums.

`make sbom` writes it to sbom.cdx.json in CycloneDX 1.6; `make audit` looks up the same components.
"""

import json
import re
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from zipfile import ZipFile

from jobs import settings
from stack import jars, licences, prepare, services

BILL = settings.ROOT / "sbom.cdx.json"
NAME = "healthcare-platform"
LOCKS = (settings.ROOT / "requirements.lock", prepare.GO_WHEEL)

# The Maven group of jars in PySpark that contain no POM.
GROUPS = {
    "com.fasterxml.jackson.module": "jackson-module-scala.*",
    "com.github.luben": "zstd-jni",
    "com.google.code.findbugs": "jsr305",
    "com.google.crypto.tink": "tink",
    "com.twitter": "chill.*",
    "javax.jdo": "jdo-api",
    "javax.transaction": "jta|transaction-api",
    "net.sourceforge.f2j": "arpack_combined_all",
    "org.apache.derby": "derby.*",
    "org.apache.hadoop": "hadoop-client-runtime",
    "org.apache.ivy": "ivy",
    "org.apache.thrift": "lib(fb303|thrift)",
    "org.json4s": "json4s-.*",
    "org.objenesis": "objenesis",
    "org.roaringbitmap": "RoaringBitmap",
    "org.rocksdb": "rocksdbjni",
    "org.scala-lang": "scala-(compiler|library|reflect)",
    "org.scala-lang.modules": "scala-(parallel-collections|parser-combinators|xml)_.*",
    "org.scalanlp": "breeze.*",
    "org.tukaani": "xz",
    "org.typelevel": "(algebra|cats-kernel|spire.*)_.*",
    "org.xerial.snappy": "snappy-java",
    "oro": "oro",
    "stax": "stax-api",
}


class Component(NamedTuple):
    """Describes one component of the platform; `contents` are the modules bundled into a jar."""

    ecosystem: str  # OSV's name for it; "" for an image
    group: str
    name: str
    version: str
    purl: str
    checksums: tuple[str, ...] = ()
    licence: str = ""
    contents: tuple["Component", ...] = ()


def python_packages() -> Iterator[Component]:
    """Reads the locks; yields one component per package and version, with all of its files."""
    licence = {name: text for text, name in licences.packages()}
    components: dict[str, Component] = {}
    for lock in LOCKS:
        for name, number, rest in re.findall(r"^([\w.-]+)==([^\s;]+)(.*(?:\n +--hash.*)+)", lock.read_text(), re.M):
            purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{quote(number)}"
            checksums = tuple(re.findall(r"sha256:(\w+)", rest))
            components[purl] = Component("PyPI", "", name, number, purl, checksums, licence.get(name, ""))
    yield from components.values()


def maven(group: str, name: str, number: str, **more: Any) -> Component:
    """Returns the component of a Maven artifact; without a group, only its name is known."""
    kind = f"pkg:maven/{group}" if group else "pkg:generic"
    return Component("Maven" if group else "", group, name, number, f"{kind}/{name}@{quote(number)}", **more)


def downloaded() -> Iterator[Component]:
    """Reads conf/jars.sha256, where Spark's file names hold group, artifact and version."""
    licence = {name: text for text, name in licences.downloaded()} if (prepare.packages() / "complete").exists() else {}
    for file, checksum in jars.listed().items():
        group, _, rest = file.removesuffix(".jar").partition("_")
        name, number = re.fullmatch(r"(.+?)-(\d.*)", rest).groups()  # type: ignore[union-attr]
        yield maven(group, name, number, checksums=(checksum,), licence=licence.get(f"{group}:{rest}", ""))


def shipped() -> Iterator[Component]:
    """Reads the jars in pyspark's package."""
    for path in sorted((services.spark_home() / "jars").glob("*.jar")):
        projects = sorted(set(described(path)))
        named = [each for each in projects if path.stem.startswith(f"{each[1]}-{each[2]}")]
        group, name, number = max(named, key=lambda each: len(each[1]), default=guessed(path.stem))
        contents = tuple(maven(*each) for each in projects if each != (group, name, number))
        licence = ", ".join(dict.fromkeys(map(licences.spdx, licences.of_jar(path))))
        yield maven(group, name, number, checksums=(jars.checksum(path),), licence=licence, contents=contents)


def described(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yields (group, artifact, version) of each Maven project that has a POM in a jar."""
    with ZipFile(path) as jar:
        for file in jar.namelist():
            if re.fullmatch(r"META-INF/maven/.+/pom\.properties", file):
                properties = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", jar.read(file).decode(errors="replace"), re.M))
                if {"groupId", "artifactId", "version"} <= properties.keys():
                    yield properties["groupId"], properties["artifactId"], properties["version"]


def guessed(stem: str) -> tuple[str, str, str]:
    """Returns (group, artifact, version) of a jar, guessed from its file name."""
    name, number = re.fullmatch(r"(.+?)-(\d.*)", stem).groups()  # type: ignore[union-attr]
    return next((group for group, names in GROUPS.items() if re.fullmatch(names, name)), ""), name, number


def go_modules() -> Iterator[Component]:
    """Yields MinIO, which is built from source."""
    module, number = prepare.MINIO.split("@")
    group, _, name = module.rpartition("/")
    yield Component("Go", group, name, number, f"pkg:golang/{module}@{number}", licence="AGPL-3.0")


def images() -> Iterator[Component]:
    """Yields the images named by docker-compose.yml and the Dockerfiles."""
    for reference in references():
        match = re.fullmatch(r"(?:([^/]+[.:][^/]*)/)?([^:@]+)(?::([^@]+))?(?:@sha256:(\w+))?", reference)
        if not match:
            raise SystemExit(f"{reference!r} does not name an image: write it as host/name:tag@sha256:digest.")
        host, path, tag, digest = match.groups()
        where = f"?repository_url={host}" if host and host != "docker.io" else ""
        group, _, name = path.rpartition("/")
        purl = f"pkg:docker/{path}@{f'sha256:{digest}' if digest else quote(tag or 'latest')}{where}"
        yield Component("", group, name, tag or "latest", purl, (digest,) if digest else ())


def references() -> list[str]:
    """Lists the third-party images; our own images and build stages have neither path nor tag."""
    named = []
    for file in image_files():
        text = file.read_text()
        named += re.findall(r"^ +image: +(?:\$\{\w+:-)?([^\s}$]+)", text, re.M)
        named += re.findall(r"^(?:ARG \w*IMAGE\w*=|FROM (?:--platform=\S+ )?)([^\s$]+)", text, re.M)
    return sorted({name for name in named if re.search("[/:]", name)})


def image_files() -> list[Path]:
    """Lists the files that name images."""
    dockerfiles = sorted((settings.ROOT / "conf").rglob("*Dockerfile*"))
    return [settings.ROOT / "docker-compose.yml", settings.ROOT / "Dockerfile", *dockerfiles]


def listed(component: Component) -> dict[str, Any]:
    """Returns a component in CycloneDX form, without unknown fields."""
    kinds = {"pkg:docker": "container", "pkg:golang": "application"}
    entry = {
        "type": kinds.get(component.purl.partition("/")[0], "library"),
        "group": component.group,
        "name": component.name,
        "version": component.version,
        "purl": component.purl,
        "hashes": [{"alg": "SHA-256", "content": checksum} for checksum in component.checksums],
        "licenses": [{"license": {"name": component.licence}}] if component.licence else [],
        "components": [listed(each) for each in component.contents],
    }
    return {name: value for name, value in entry.items() if value}


def bill() -> dict[str, Any]:
    """Returns the complete bill of materials."""
    # A jar that Spark downloads may also be part of PySpark: list it once, since references must be unique.
    every = {
        part.purl: part for parts in (go_modules, images, python_packages, shipped, downloaded) for part in parts()
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
            "component": {
                "type": "application",
                "bom-ref": NAME,
                "name": NAME,
                "version": re.search(r'^version = "(.+)"', (settings.ROOT / "pyproject.toml").read_text(), re.M)[1],  # type: ignore[index]
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": [{"bom-ref": purl} | listed(part) for purl, part in sorted(every.items())],
        "dependencies": [{"ref": NAME, "dependsOn": sorted(every)}],
    }


def main() -> None:
    jars.ensure()  # their POMs name the licences
    whole = bill()
    BILL.write_text(json.dumps(whole, indent=2) + "\n")
    print(f"{BILL.relative_to(settings.ROOT)} lists {len(whole['components'])} components.")


if __name__ == "__main__":
    main()
