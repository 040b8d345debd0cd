"""Writes and reads the files of a backup, private and encrypted by age before they reach the disk."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from jobs import borders, settings
from jobs.program import Refused

SUFFIX = ".age"
METADATA = "HEALTHCARE.metadata"  # the tar header with an object's metadata; bronze keeps its markers there
Objects = dict[str, dict[str, tuple[int, str]]]  # bucket -> key -> (bytes, SHA-256)


def age() -> str:
    """Returns the path of the program age; on Debian as root, installs it if it is missing."""
    if not shutil.which("age") and os.geteuid() == 0 and shutil.which("apt-get"):
        print("Encrypted backups need age: installing it with apt-get.", flush=True)
        subprocess.run(["apt-get", "update", "-q"])
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-y", "-q", "age"], env=environment)
    if found := shutil.which("age"):
        return found
    raise Refused(
        "Encrypted backups need the program age: install it (Debian and Ubuntu: `sudo apt-get install age`; macOS: "
        "`brew install age`)."
    )


def recipients() -> list[str]:
    """Returns the public keys in BACKUP_RECIPIENT; raises Refused if age rejects one."""
    keys = settings.given("BACKUP_RECIPIENT").split()
    for key in keys:
        is_key = re.fullmatch("age1[0-9a-z]{20,}", key)
        if not is_key or subprocess.run([age(), "-r", key], stdin=subprocess.DEVNULL, capture_output=True).returncode:
            raise Refused(
                f"BACKUP_RECIPIENT {borders.quoted(key)} is not a public key of age; write the line `age1…` that "
                "`age-keygen -o key.txt` prints."
            )
    return keys


@contextmanager
def written(path: Path, keys: Iterable[str]) -> Iterator[IO[bytes]]:
    """Opens a new file that only its owner can read; encrypts the content with age if there are public keys."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        if not keys:
            yield file
        else:
            words = [word for key in keys for word in ("-r", key)]
            process = subprocess.Popen([age(), *words], stdin=subprocess.PIPE, stdout=file, stderr=subprocess.DEVNULL)
            assert process.stdin
            try:
                yield process.stdin
                process.stdin.close()
            except BaseException:
                process.kill()
                process.wait()
                raise
            if process.wait():
                raise BrokenPipeError
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file of a backup for reading to its end, decrypted with the private key in the file BACKUP_IDENTITY."""
    if path.suffix != SUFFIX:
        with path.open("rb") as file:
            yield file
        return
    command = [age(), "--decrypt", "--identity", str(identity())]
    with path.open("rb") as file:
        process = subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    try:
        yield process.stdout
        process.stdout.read()  # age verifies a file only once it has been read to the end
    finally:
        process.stdout.close()
        # If age refused the key, the reader found no data and failed as well: report the key. A reader that stops early
        # ends age by a signal, which is not an error.
        if process.wait() > 0:
            raise Refused(f"age does not decrypt {path.name} with the key in BACKUP_IDENTITY; give the right one.")


def identity() -> Path:
    """Returns the path of the private key; raises Refused if it is not set or cannot be read."""
    if not (name := settings.given("BACKUP_IDENTITY")):
        raise Refused("The backup is encrypted; name the file of its private key: BACKUP_IDENTITY=/path/to/key.txt")
    path = Path(name).expanduser()
    if not os.access(path, os.R_OK) or path.is_dir():
        raise Refused(f"BACKUP_IDENTITY {borders.quoted(name)} is not a file that this user may read.")
    return path


def checksum(path: Path) -> str:
    """Returns the SHA-256 of a file as stored."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class Hashed:
    """Reads a stream once, counting bytes and computing their SHA-256."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.bytes, self.digest = stream, 0, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = bytes(self.stream.read(size if size >= 0 else None))
        self.bytes += len(chunk)
        self.digest.update(chunk)
        return chunk

    def facts(self) -> tuple[int, str]:
        return self.bytes, self.digest.hexdigest()


def keys_of(client: Any, bucket: str) -> dict[str, str]:
    """Returns the ETag of each object in a bucket, by key."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {entry["Key"]: entry["ETag"] for page in pages for entry in page.get("Contents", [])}


def pack(to: IO[bytes], client: Any, buckets: Iterable[str]) -> Objects:
    """Writes the objects of buckets as a tar archive (`bucket/key`) with their metadata; returns their checksums."""
    found: Objects = {}
    with tarfile.open(fileobj=to, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for bucket in buckets:
            found[bucket] = {}
            for key in sorted(keys_of(client, bucket)):
                answer = client.get_object(Bucket=bucket, Key=key)
                entry = tarfile.TarInfo(f"{bucket}/{key}")
                entry.size, entry.mode, entry.mtime = answer["ContentLength"], 0o600, answer["LastModified"].timestamp()
                kept = {"Metadata": answer["Metadata"], "ContentType": answer["ContentType"]}
                entry.pax_headers = {METADATA: json.dumps(kept)}
                body = Hashed(answer["Body"])
                archive.addfile(entry, body)
                found[bucket][key] = body.facts()
    return found


def unpack(stream: IO[bytes], client: Any, expected: Mapping[str, Mapping[str, Any]]) -> None:
    """Uploads the objects of a tar archive to their buckets; raises Refused if an object differs from the manifest."""
    from boto3.s3.transfer import TransferConfig

    one_thread = TransferConfig(use_threads=False)
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            bucket, _, key = entry.name.partition("/")
            if (content := archive.extractfile(entry)) is None or key not in expected.get(bucket, {}):
                raise Refused(
                    f"the archive of the lake has {borders.quoted(entry.name)}, which its manifest does not list"
                )
            body = Hashed(content)
            kept = json.loads(entry.pax_headers[METADATA])
            client.upload_fileobj(body, bucket, key, ExtraArgs=kept, Config=one_thread)
            if list(body.facts()) != list(expected[bucket][key]):
                raise Refused(f"{borders.quoted(entry.name)} of the archive is not the object that was read")
