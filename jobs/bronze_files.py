"""Uploads, profiles and deletes the files of bronze, one per dataset and date."""

import io
import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from jobs import lake_paths, object_store, settings
from jobs.dataset import WHITE_SPACE, Dataset
from jobs.landing import Facts, Upload, as_of, describe, folder, names_in, read_header, read_records
from jobs.program import Refused


def upload(path: Path, dataset: Dataset, day: date, facts: Facts, source: Mapping[str, str] | None = None) -> None:
    """Uploads a file to bronze as it is, with its profile as metadata: the object is its own completion marker.

    `source` is further metadata of a file that was derived from a source's files: what it was made from. Raises Refused
    if the file no longer has the checksum of its profile.
    """
    with path.open("rb", buffering=0) as file:
        object_store.s3().upload_fileobj(
            Upload(file, facts.sha256, f"{folder(day)}/{dataset.name}.csv"),
            settings.get("MINIO_BUCKET_BRONZE"),
            lake_paths.bronze_key(dataset, day),
            ExtraArgs={"Metadata": facts.metadata() | dict(source or {}), "ContentType": "text/csv"},
        )


def bronze_head(dataset: Dataset, day: date) -> dict[str, Any] | None:
    """Returns the S3 head of a bronze file (metadata, size, time of change), or None if there is no such file."""
    try:
        return object_store.s3().head_object(
            Bucket=settings.get("MINIO_BUCKET_BRONZE"), Key=lake_paths.bronze_key(dataset, day)
        )
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return None
        raise


def remove_bronze(dataset: Dataset, day: date) -> None:
    """Deletes a date's file from bronze if it is there; raises Refused if the store does not allow it."""
    try:
        object_store.remover().delete_object(
            Bucket=settings.get("MINIO_BUCKET_BRONZE"), Key=lake_paths.bronze_key(dataset, day)
        )
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
            raise
        raise object_store.may_not_delete(error) from None


def facts_of(dataset: Dataset, day: date) -> Facts:
    """Returns the profile of a bronze file, from its metadata; reads a file that another program has put there.

    Also reads the file if its metadata are of another size or another amount column. Raises Refused if it is missing.
    """
    head = bronze_head(dataset, day)
    name = f"bronze {lake_paths.bronze_key(dataset, day)}"
    if head is None:
        raise Refused(f"{name} is missing; run BronzeIngestion for {day} first.")
    bucket, known = settings.get("MINIO_BUCKET_BRONZE"), head["Metadata"]
    if known.get("bytes") != str(head["ContentLength"]) or known.get("amount") != (dataset.amount or "none"):
        with tempfile.TemporaryDirectory() as place:
            copy = Path(place, "file.csv")
            object_store.s3().download_file(bucket, lake_paths.bronze_key(dataset, day), str(copy))
            return describe(copy, dataset, name, came_before="sha256" in known)
    span = f"bytes=0-{int(known['header-bytes']) - 1}"
    start = (
        object_store.s3().get_object(Bucket=bucket, Key=lake_paths.bronze_key(dataset, day), Range=span)["Body"].read()
    )
    lines = io.StringIO(start.decode("utf-8-sig"), newline="\n")
    record = next(record for record, _, _ in read_records(lines) if record.strip(WHITE_SPACE))
    dataset = as_of(dataset, names_in(record.rstrip("\r\n"), ","))  # the header was checked before the upload
    texts = {"sha256": known["sha256"], "header": read_header(record, dataset, name), "amount": dataset.amount or ""}
    numbers = {field: int(known[field.replace("_", "-")]) for field in Facts._fields if field not in texts}
    return Facts(**texts, **numbers)  # type: ignore[arg-type]
