"""Stores a source's files in the lake, byte for byte, and for the time of a run the lines that Spark makes of them."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from jobs import object_store, settings
from jobs.landing import Upload, folder
from jobs.sources import Source

PREFIX = "_sources/"  # in bronze
CONVERTING = "_converting/"  # in silver's bucket, where the jobs may delete


def key(source: str, day: date, name: str = "") -> str:
    """Returns the key of a source's file in bronze; without a `name`, the prefix of all its files of a date."""
    return f"{PREFIX}{source}/{folder(day)}/{name}"


def path(source: str, day: date, name: str) -> str:
    """Returns the s3a path of a source's file in bronze."""
    return f"s3a://{settings.get('MINIO_BUCKET_BRONZE')}/{key(source, day, name)}"


def upload(file: Path, source: str, day: date, name: str, sha256: str) -> None:
    """Uploads a source's file to bronze as it is, unless it is there; raises Refused if its checksum has changed."""
    bucket, place = settings.get("MINIO_BUCKET_BRONZE"), key(source, day, name)
    try:
        if object_store.s3().head_object(Bucket=bucket, Key=place)["Metadata"].get("sha256") == sha256:
            return
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
    with file.open("rb", buffering=0) as opened:
        object_store.s3().upload_fileobj(
            Upload(opened, sha256, f"{folder(day)}/{source}/{name}"), bucket, place, {"Metadata": {"sha256": sha256}}
        )


def keys(bucket: str, prefix: str) -> Iterator[str]:
    """Yields the keys of a store's objects with a prefix, in order; `bucket` is the setting that names their bucket."""
    pages = object_store.s3().get_paginator("list_objects_v2").paginate(Bucket=settings.get(bucket), Prefix=prefix)
    yield from (entry["Key"] for page in pages for entry in page.get("Contents", []))


@contextmanager
def lines_of(source: Source, day: date, name: str) -> Iterator[io.TextIOWrapper]:
    """Opens a source's file in bronze for reading text line by line, in the source's encoding."""
    body = object_store.s3().get_object(Bucket=settings.get("MINIO_BUCKET_BRONZE"), Key=key(source.name, day, name))[
        "Body"
    ]
    with tempfile.TemporaryFile() as copy:
        for chunk in body.iter_chunks(1 << 20):
            copy.write(chunk)
        copy.seek(0)
        yield io.TextIOWrapper(copy, encoding=source.encoding, newline="\n")


def remove(day: date) -> None:
    """Deletes the files of all sources of a date from bronze; raises Refused if the store does not allow it."""
    bucket = settings.get("MINIO_BUCKET_BRONZE")
    client = object_store.remover()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=PREFIX, Delimiter="/")
    for source in [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]:
        for name in list(keys("MINIO_BUCKET_BRONZE", f"{source}{folder(day)}/")):
            try:
                client.delete_object(Bucket=bucket, Key=name)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                    raise
                raise object_store.may_not_delete(error) from None


@contextmanager
def staging(source: str, day: date, run_id: str) -> Iterator[str]:
    """Yields a staging prefix for a run; at the end deletes its objects, and those left by earlier runs of the date."""
    place = f"{CONVERTING}{source}/{folder(day)}/"
    try:
        yield f"{place}{run_id}"
    finally:
        bucket = settings.get("MINIO_BUCKET_SILVER")
        for name in list(keys("MINIO_BUCKET_SILVER", place)):
            object_store.s3().delete_object(Bucket=bucket, Key=name)


def staged(place: str) -> str:
    """Returns the s3a path of a staging prefix, where Spark writes."""
    return f"s3a://{settings.get('MINIO_BUCKET_SILVER')}/{place}"


def collect(place: str, header: str, file: Path) -> None:
    """Joins the lines that Spark wrote to a staging prefix into one local file, below a header."""
    with file.open("wb") as whole:
        whole.write(header.encode())
        for name in keys("MINIO_BUCKET_SILVER", f"{place}/part-"):
            body: Any = object_store.s3().get_object(Bucket=settings.get("MINIO_BUCKET_SILVER"), Key=name)["Body"]
            for chunk in body.iter_chunks(1 << 20):
                whole.write(chunk)
