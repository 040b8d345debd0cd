"""Pins each third-party image to the digest that its registry returns for its tag; `make lock` runs it."""

import re
from hashlib import sha256

import requests

from stack import sbom

SECONDS = 30
# Accepts the digest of a multi-platform list, so that the pin does not depend on the machine that asks.
ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


def address(tagged: str) -> str:
    """Returns the manifest URL of `host/path:tag`; the default host is Docker Hub."""
    name, tag = tagged.rsplit(":", 1)
    host, _, path = name.partition("/")
    if not re.search("[.:]", host):
        host, path = "docker.io", name
    if host == "docker.io":
        host, path = "registry-1.docker.io", path if "/" in path else f"library/{path}"
    return f"https://{host}/v2/{path}/manifests/{tag}"


def digest(url: str) -> str:
    """Returns the digest of a manifest, after fetching the anonymous token that the registry requires."""
    headers = {"Accept": ACCEPT}
    answer = requests.get(url, headers=headers, timeout=SECONDS)
    if answer.status_code == 401:
        asked = dict(re.findall(r'(\w+)="([^"]*)"', answer.headers.get("WWW-Authenticate", "")))
        token = requests.get(asked.pop("realm", ""), params=asked, timeout=SECONDS)
        token.raise_for_status()
        given = token.json()
        headers["Authorization"] = f"Bearer {given.get('token') or given['access_token']}"
        answer = requests.get(url, headers=headers, timeout=SECONDS)
    answer.raise_for_status()
    return f"sha256:{sha256(answer.content).hexdigest()}"


def pin(tagged: str, found: str) -> None:
    """Writes a digest after an image's tag, replacing an earlier one, in every file that names the image."""
    for file in sbom.image_files():
        text = file.read_text()
        pinned = re.sub(rf"(?<![\w./]){re.escape(tagged)}(?:@sha256:\w+)?(?![\w.-])", f"{tagged}@{found}", text)
        if pinned != text:
            file.write_text(pinned)


def main() -> None:
    tags = sorted({reference.partition("@")[0] for reference in sbom.references()})
    try:
        digests = {tagged: digest(address(tagged)) for tagged in tags}
    except (requests.RequestException, ValueError, KeyError) as error:
        raise SystemExit(
            f"No image was pinned, because a registry did not answer ({type(error).__name__}): run `make lock` where "
            "all of them can be reached."
        ) from None
    for tagged, found in digests.items():
        pin(tagged, found)
    print(f"{len(digests)} images are pinned by what their registries have today.")


if __name__ == "__main__":
    main()
