"""Podman on a machine that can pull no image: base images from Debian's packages, stand-ins, and a project's services.

All of it lies in a directory of its own, whatever else podman has on this machine.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from stack import services

HERE = Path(__file__).parent
DEBIAN = "docker.io/library/debian:12.12-slim"
NEEDED = {
    "podman": "podman",
    "runc": "runc",
    "debootstrap": "debootstrap",
    "iptables": "iptables",
    "/usr/lib/podman/netavark": "netavark",
    "/usr/lib/podman/aardvark-dns": "aardvark-dns",
}
# What works in a machine that is a container or a sandbox itself: no systemd, and few rights over limits.
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=10000:10000", "nproc=20000:20000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
network_config_dir = "{home}/networks"
"""
STORAGE_CONF = """
[storage]
driver = "overlay"
graphroot = "{home}/storage"
runroot = "/run/healthcare-compose"
"""


class Unhealthy(Exception):
    """A service did not come up; the text says which, and what it said last."""


def home() -> Path:
    return services.cache() / "compose"


def ready() -> None:
    """Installs what is missing where that is allowed, and points podman at a directory of its own."""
    missing = [package for program, package in NEEDED.items() if not shutil.which(program)]
    if missing:
        if os.geteuid() or not shutil.which("apt-get"):
            raise SystemExit(
                f"`make test-compose` needs root on Debian, and its packages {', '.join(NEEDED.values())}."
            )
        run("apt-get", "update", "-q")
        run("apt-get", "install", "-y", "-q", "--no-install-recommends", *missing)
    home().mkdir(parents=True, exist_ok=True)
    for variable, text in (("CONTAINERS_CONF", CONTAINERS_CONF), ("CONTAINERS_STORAGE_CONF", STORAGE_CONF)):
        path = home() / f"{variable.lower()}.toml"
        path.write_text(text.format(home=home()))
        os.environ[variable] = str(path)


def run(*command: str, **options: Any) -> str:
    """Returns a command's output, with its errors unless `stderr` says otherwise; both are told when it fails."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, **{"stderr": subprocess.STDOUT} | options)
    if done.returncode:
        told = f"{done.stdout}{done.stderr or ''}"[-4000:]
        raise RuntimeError(f"{' '.join(command[:6])} ended with code {done.returncode}:\n{told}")
    return done.stdout


def podman(*words: str, **options: Any) -> str:
    return run("podman", *words, **options)


def has_image(name: str) -> bool:
    return subprocess.run(["podman", "image", "exists", name]).returncode == 0


# ---- images ----------------------------------------------------------------------------------------------------------


def debian() -> None:
    """The base image under the name that the files expect, from Debian's packages, once."""
    if has_image(DEBIAN):
        return
    tree = home() / "debian"
    shutil.rmtree(tree, ignore_errors=True)
    run("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(tree))
    shutil.rmtree(tree / "var/lib/apt/lists")
    shutil.rmtree(tree / "var/cache/apt/archives")
    # As in the real image: no package stays in a layer that installs some.
    clean = 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin"; };'
    (tree / "etc/apt/apt.conf.d/docker-clean").write_text(f"{clean}\n")
    trusted = tree / "usr/local/share/ca-certificates"
    for number, certificate in enumerate(own_authorities()):
        (trusted / f"machine-{number}.crt").write_text(f"{certificate}\n")
    run("chroot", str(tree), "update-ca-certificates")
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    variables = [f"ENV {name}={bundle}" for name in ("PIP_CERT", "SSL_CERT_FILE")]
    archive = home() / "debian.tar"
    run("tar", "-C", str(tree), "-cf", str(archive), ".")
    podman("import", *(word for each in variables for word in ("--change", each)), str(archive), DEBIAN)
    shutil.rmtree(tree)
    archive.unlink()


def own_authorities() -> list[str]:
    """The certificates that this machine trusts besides Debian's: a build reaches the registries by them."""
    pattern = r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----"
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    given = re.findall(pattern, bundle.read_text(), re.S) if bundle.exists() else []
    files = Path("/usr/share/ca-certificates").rglob("*.crt")
    known = {found for file in files for found in re.findall(pattern, file.read_text(), re.S)}
    return [certificate for certificate in given if certificate not in known]


def stand_in(image: str) -> None:
    """An image of PostgreSQL under the name that docker-compose.yml gives it, without a digest."""
    podman("build", "--layers", "--tag", image, str(HERE / "postgres"))


# ---- a project -------------------------------------------------------------------------------------------------------


class Project:
    """The services of a compose file, without those of the profile bi, under a project name of their own."""

    def __init__(self, file: Path, name: str) -> None:
        self.file, self.name = file, name
        declared = self.compose("config", stderr=subprocess.PIPE)  # podman-compose warns there of networks nobody uses
        self.declared = yaml.safe_load(declared)
        self.services = {name: each for name, each in self.declared["services"].items() if "core" in each["profiles"]}

    @property
    def command(self) -> list[str]:
        """What stands for `docker compose`."""
        program = Path(sys.executable).parent / "podman-compose"
        where = ["-f", str(self.file), "-p", self.name, "--in-pod=false", "--profile=core"]
        return [str(program), *where, f"--podman-build-args=--layers --build-arg=BASE_IMAGE={DEBIAN}"]

    def compose(self, *words: str, **options: Any) -> str:
        return run(*self.command, *words, cwd=self.file.parent, **options)

    def containers(self, service: str) -> list[str]:
        """The names of a service's containers, whatever their state."""
        labels = [f"label=com.docker.compose.project={self.name}", f"label=com.docker.compose.service={service}"]
        filters = [word for label in labels for word in ("--filter", label)]
        return podman("ps", "--all", *filters, "--format", "{{.Names}}").split()

    def state(self, container: str) -> dict[str, Any]:
        return json.loads(podman("inspect", container))[0]["State"]

    def build(self, service: str) -> str:
        """Builds an image of ours; how long that took, and the size of its layers, unpacked."""
        began = time.monotonic()
        self.compose("build", service)
        image = self.services[service]["image"]
        size = int(podman("image", "inspect", "--format", "{{.Size}}", image))
        return f"{time.monotonic() - began:.0f} s, {size / 1e9:.2f} GB"

    def networks(self) -> None:
        """Makes the networks whose options only Docker knows, without these; podman-compose makes the others."""
        for name, network in (self.declared.get("networks") or {}).items():
            if network and network.get("driver_opts"):
                whole = f"{self.name}_{name}"
                if subprocess.run(["podman", "network", "exists", whole]).returncode:
                    podman("network", "create", whole)

    def in_order(self) -> Iterator[str]:
        """The services, each after those it depends on."""
        done: list[str] = []
        while len(done) < len(self.services):
            for name in self.services:
                if name not in done and set(self.needs(name)) <= {*done}:
                    done.append(name)
                    yield name

    def needs(self, service: str) -> dict[str, str]:
        """Its conditions on other services of the project, by their names."""
        needs = self.services[service].get("depends_on", {})
        return {name: each["condition"] for name, each in needs.items() if name in self.services}

    def up(self, patience: float = 180) -> None:
        """Starts every service once its conditions hold, as `docker compose up --wait`; Unhealthy where one fails.

        This podman neither times health checks nor waits for them, so that is done here.
        """
        self.networks()
        for service in self.in_order():
            for other, condition in self.needs(service).items():
                if condition == "service_completed_successfully":
                    self.wait_for_end(other, patience)
                else:
                    self.wait_for_health(other, patience)
            self.compose("up", "-d", "--no-deps", "--no-build", service)
        for service, each in self.services.items():
            if "healthcheck" in each:
                self.wait_for_health(service, patience)

    def wait_for_end(self, service: str, patience: float) -> None:
        [container] = self.containers(service)
        until = time.monotonic() + patience
        while (state := self.state(container))["Status"] not in ("exited", "stopped"):
            if time.monotonic() > until:
                raise Unhealthy(f"{service} does not end: {self.last_lines(container)}")
            time.sleep(0.5)
        if state["ExitCode"]:
            raise Unhealthy(f"{service} ended with code {state['ExitCode']}: {self.last_lines(container)}")

    def wait_for_health(self, service: str, patience: float) -> None:
        """Until the file's own check passes in every container of the service."""
        until = time.monotonic() + patience
        for container in self.containers(service):
            while True:
                check = subprocess.run(
                    ["podman", "healthcheck", "run", container],
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
                if check.returncode == 0:
                    break
                if time.monotonic() > until:
                    said = check.stdout.strip() or "its check says no more"
                    raise Unhealthy(f"{service} is not healthy ({said}): {self.last_lines(container)}")
                time.sleep(1)

    def last_lines(self, container: str) -> str:
        lines = podman("logs", "--tail", "5", container).strip()
        return lines or "it said nothing"

    def execute(self, service: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A command in a service's container, as `docker compose exec` runs it."""
        command = ["podman", "exec", self.containers(service)[0], *words]
        return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def die(self, service: str) -> None:
        """Kills what a container of the service runs, from outside, as the kernel does."""
        container = self.containers(service)[0]
        process = self.state(container)["Pid"]
        os.kill(process, 9)
        until = time.monotonic() + 30
        while self.state(container)["Pid"] == process:
            assert time.monotonic() < until, f"{container} goes on"
            time.sleep(0.1)

    def back(self, service: str, patience: float = 180) -> None:
        """Until the restart policy has brought a container back, which is then healthy."""
        until = time.monotonic() + patience
        while any(self.state(container)["Status"] != "running" for container in self.containers(service)):
            if time.monotonic() > until:
                raise Unhealthy(f"{service} was not started again")
            time.sleep(0.2)
        self.wait_for_health(service, patience)

    def down(self, *words: str) -> None:
        """As `docker compose down`; podman-compose forgets containers that came by --scale."""
        self.compose("down", *words)
        if left := [container for service in self.services for container in self.containers(service)]:
            podman("rm", "--force", "--volumes", *left)
            self.compose("down", *words)

    def volumes(self) -> set[str]:
        """The project's, by their names: one that podman makes by itself has no label."""
        return {name for name in podman("volume", "ls", "--quiet").split() if name.startswith(f"{self.name}_")}
