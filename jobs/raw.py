"""Where the lake keeps a source's files, byte for byte, and for a while the lines that Spark makes of them."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from jobs import lake, settings
from jobs.landing import Upload, folder
from jobs.sources import Source

PREFIX = "_sources/"  # in bronze
CONVERTING = "_converting/"  # in silver's bucket, where the jobs may delete


def key(source: str, day: date, name: str = "") -> str:
    return f"{PREFIX}{source}/{folder(day)}/{name}"


def path(source: str, day: date, name: str) -> str:
    return f"s3a://{settings.get('MINIO_BUCKET_BRONZE')}/{key(source, day, name)}"


def upload(file: Path, source: str, day: date, name: str, sha256: str) -> None:
    """Puts a file of a source into bronze as it is, unless it is there; Refused where it is no longer of `sha256`."""
    bucket, place = settings.get("MINIO_BUCKET_BRONZE"), key(source, day, name)
    try:
        if lake.s3().head_object(Bucket=bucket, Key=place)["Metadata"].get("sha256") == sha256:
            return
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
    with file.open("rb", buffering=0) as opened:
        lake.s3().upload_fileobj(
            Upload(opened, sha256, f"{folder(day)}/{source}/{name}"), bucket, place, {"Metadata": {"sha256": sha256}}
        )


def keys(bucket: str, prefix: str) -> Iterator[str]:
    """Yields the keys of a store's objects that begin so, in order."""
    pages = lake.s3().get_paginator("list_objects_v2").paginate(Bucket=settings.get(bucket), Prefix=prefix)
    yield from (entry["Key"] for page in pages for entry in page.get("Contents", []))


@contextmanager
def lines_of(source: Source, day: date, name: str) -> Iterator[io.TextIOWrapper]:
    """Opens a file of a source as it lies in bronze, for reading text line by line."""
    body = lake.s3().get_object(Bucket=settings.get("MINIO_BUCKET_BRONZE"), Key=key(source.name, day, name))["Body"]
    with tempfile.TemporaryFile() as copy:
        for chunk in body.iter_chunks(1 << 20):
            copy.write(chunk)
        copy.seek(0)
        yield io.TextIOWrapper(copy, encoding=source.encoding, newline="\n")


def remove(day: date) -> None:
    """Deletes what any source has in bronze of a date; raises Refused where the store does not let us."""
    bucket = settings.get("MINIO_BUCKET_BRONZE")
    client = lake.remover()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=PREFIX, Delimiter="/")
    for source in [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]:
        for name in list(keys("MINIO_BUCKET_BRONZE", f"{source}{folder(day)}/")):
            try:
                client.delete_object(Bucket=bucket, Key=name)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                    raise
                raise lake.may_not_delete(error) from None


@contextmanager
def staging(source: str, day: date, run_id: str) -> Iterator[str]:
    """Gives a run a staging prefix; deletes it at the end, and what earlier runs of the date left."""
    place = f"{CONVERTING}{source}/{folder(day)}/"
    try:
        yield f"{place}{run_id}"
    finally:
        bucket = settings.get("MINIO_BUCKET_SILVER")
        for name in list(keys("MINIO_BUCKET_SILVER", place)):
            lake.s3().delete_object(Bucket=bucket, Key=name)


def staged(place: str) -> str:
    """Returns the path under which Spark writes to a staging prefix."""
    return f"s3a://{settings.get('MINIO_BUCKET_SILVER')}/{place}"


def collect(place: str, header: str, file: Path) -> None:
    """Puts the lines that Spark has written to a staging place into one file, below a header."""
    with file.open("wb") as whole:
        whole.write(header.encode())
        for name in keys("MINIO_BUCKET_SILVER", f"{place}/part-"):
            body: Any = lake.s3().get_object(Bucket=settings.get("MINIO_BUCKET_SILVER"), Key=name)["Body"]
            for chunk in body.iter_chunks(1 << 20):
                whole.write(chunk)
