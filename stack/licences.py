"""docs/licences.md: every package, jar and server that the platform is made of, and the licence each says it has.

make licences
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from zipfile import ZipFile

import pyspark

from jobs import settings
from stack import jars, prepare

PAGE = settings.ROOT / "docs" / "licences.md"
HEAD = """# Licences

What the platform is made of, by the licence that each part itself says it has. Drawn by `make licences`; a test names
the packages of `requirements-dev.lock` that are missing here.

The platform itself: Apache-2.0. The servers are programs of their own: MinIO (AGPL-3.0, built from its unchanged
source), PostgreSQL (PostgreSQL License), Java (GPL-2.0 with the classpath exception), and in containers Metabase
(AGPL-3.0) and Debian's packages. What is GPL alone among the Python packages is for developers only.
"""
# One licence, many spellings: the first pattern that is found in a text names it.
NAMES = {
    "CDDL or GPL-2.0 with the classpath exception": r"cddl.*classpath",
    "GPL-2.0 with the classpath exception": r"classpath",
    "Apache-2.0": r"apache[\s-]*2|apache.*(licen[cs]e|2\.0)|al ?2\.0",
    "MIT-0": r"MIT-0",
    "BSD-2-Clause": r"bsd.?2|2.clause",
    "0BSD": r"0BSD",
    "BSD-3-Clause": r"bsd|3.clause|asm\.ow2|antlr\.org",
    "EPL-2.0": r"epl|eclipse public",
    "EDL-1.0 (BSD-3-Clause)": r"edl",
    "CDDL": r"cddl|common development",
    "MPL": r"mpl|mozilla",
    "LGPL": r"lgpl|lesser general",
    "GPL": r"gpl",
    "PSF-2.0": r"psf|python software",
    "Unicode": r"unicode",
    "ISC": r"\bisc\b",
    "Unlicense or CC0": r"unlicense|cc0|public ?domain",
    "MIT": r"\bmit\b|jquery",
    "W3C": r"w3\.org",
    "ZPL": r"zpl|zope|repoze",
}


def spdx(text: str) -> str:
    """The usual name of a licence however it is spelt; the text itself where it has none."""
    text = " ".join(text.split())
    if " AND " in text and len(text) < 60:
        return text  # an expression in a place for free text
    return next((name for name, pattern in NAMES.items() if re.search(pattern, text, re.I)), text[:60])


def of_package(package: Distribution) -> str:
    """What a package's metadata say: its expression, else its classifiers, else its free text."""
    about: Any = package.metadata.json
    if expression := about.get("license_expression"):
        return expression
    classes = [each.rpartition(" :: ")[2] for each in about.get("classifier", []) if each.startswith("License :: ")]
    named = [each for each in classes if each not in ("OSI Approved", "Freely Distributable")]
    return ", ".join(dict.fromkeys(map(spdx, named))) or spdx(about.get("license", "not said"))


def packages() -> Iterator[tuple[str, str]]:
    """(licence, package) of each package in requirements-dev.lock; some of it is for other systems."""
    for name in re.findall(r"^([\w.-]+)==", (settings.ROOT / "requirements-dev.lock").read_text(), re.M):
        try:
            yield of_package(distribution(name)), name
        except PackageNotFoundError:
            yield "for other systems or Pythons, not looked at", name


def downloaded() -> Iterator[tuple[str, str]]:
    """(licence, jar) of what Spark downloads, as the jar's description in its repository says."""
    for file in sorted(jars.listed()):
        group, _, rest = file.removesuffix(".jar").partition("_")
        [told] = (file for file in (prepare.packages() / "cache" / group).glob("*/ivy-*.xml") if is_of(file, rest))
        names = [each.get("name", "") for each in ElementTree.parse(told).iter("license")]
        yield ", ".join(dict.fromkeys(map(spdx, names))) or "not said", f"{group}:{rest}"


def is_of(told: Path, rest: str) -> bool:
    """Whether a description is of the artifact and version that stand in a jar's name."""
    return rest == f"{told.parent.name}-{told.stem.removeprefix('ivy-')}"


def shipped() -> Iterator[tuple[str, str]]:
    """(licence, jar) of what lies in pyspark's own package."""
    for jar in sorted((Path(pyspark.__file__).parent / "jars").glob("*.jar")):
        yield ", ".join(dict.fromkeys(map(spdx, of_jar(jar)))), jar.stem


def of_jar(path: Path) -> list[str]:
    """What a jar says of itself: its project's description, else its manifest, else the beginning of its licence."""
    with ZipFile(path) as jar:
        names = jar.namelist()
        for name in sorted(name for name in names if re.fullmatch(r"META-INF/maven/.*/pom\.xml", name)):
            if found := re.search(rb"<license>.*?<name>([^<]+)</name>.*?</license>", jar.read(name), re.S):
                return [found[1].decode()]
        manifest = jar.read("META-INF/MANIFEST.MF").decode() if "META-INF/MANIFEST.MF" in names else ""
        if bundle := re.search(r"^Bundle-License: *(.+)", re.sub(r"\r?\n ", "", manifest), re.M):
            return re.split(r",\s*(?=\w+://)", bundle[1].strip())
        for name in names:
            if re.fullmatch(r"(META-INF/)?LICENSE(\.txt|\.md)?", name, re.I):
                return [jar.read(name).decode(errors="replace")[:200]]
    return ["not said in the jar"]


def table(title: str, found: Iterable[tuple[str, str]]) -> str:
    """Licences, the commonest first, each with what is under it."""
    under: Mapping[str, list[str]] = defaultdict(list)
    for licence, name in found:
        if name not in under[licence]:  # the lock names a package once for each Python
            under[licence].append(name)
    rows = sorted(under.items(), key=lambda row: (-len(row[1]), row[0]))
    lines = [f"| {licence} | {len(names)} | {', '.join(names)} |" for licence, names in rows]
    return "\n".join([f"## {title}\n", "| licence | | of |", "| --- | --- | --- |", *lines]) + "\n"


def main() -> None:
    jars.ensure()
    tables = [
        table("Python packages", packages()),
        table("Jars that Spark downloads", downloaded()),
        table("Jars that come with PySpark", shipped()),
    ]
    PAGE.write_text("\n".join([HEAD, *tables]))
    print(f"{PAGE.relative_to(settings.ROOT)} is drawn.")


if __name__ == "__main__":
    main()
