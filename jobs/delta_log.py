"""Reads the transaction logs of silver's Delta tables, without Spark: newest commits and referenced files."""

import io
import json
import re
from collections import Counter
from datetime import date
from typing import Any, NamedTuple

from jobs import lake_paths, object_store, settings
from jobs.dataset import Dataset
from jobs.program import Refused


class Commit(NamedTuple):
    """Holds the newest version of a Delta table, the run that wrote it and the rows it wrote to each partition."""

    version: int
    run_id: str
    rows: dict[date, int]


def last_commit(dataset: Dataset, kind: str, since: int | None = None) -> Commit:
    """Returns the newest commit of a silver table, read from the table's log from version `since` on.

    Raises Refused if the table has no commit.
    """
    head = head_of_log(dataset, kind, since)
    if head is None:
        raise Refused(f"Silver's table of {kind} {dataset.name} has no commit.")
    version, text = head
    run_id, written = "", Counter[date]()
    for entry in map(json.loads, text.splitlines()):
        if "commitInfo" in entry:
            run_id = entry["commitInfo"].get("userMetadata", "")
        elif "add" in entry:
            day = date.fromisoformat(entry["add"]["partitionValues"]["_partition_date"])
            written[day] += json.loads(entry["add"]["stats"])["numRecords"]
    return Commit(version, run_id, dict(written))


def head_of_log(dataset: Dataset, kind: str, since: int | None = None) -> tuple[int, bytes] | None:
    """Returns the newest version of a Delta table and the text of its commit, or None if the table has no commit.

    Searches the log from version `since` on.
    """
    bucket, prefix = settings.get("MINIO_BUCKET_SILVER"), lake_paths.log_prefix(dataset, kind)
    pages = (
        object_store.s3()
        .get_paginator("list_objects_v2")
        .paginate(Bucket=bucket, Prefix=prefix, StartAfter=prefix + (f"{since - 1:020d}.json" if since else ""))
    )
    names = (entry["Key"] for page in pages for entry in page.get("Contents", []))
    commits = [name for name in names if re.fullmatch(r"[0-9]{20}\.json", name.removeprefix(prefix))]
    if not commits:
        return head_of_log(dataset, kind) if since else None  # that version was removed
    text = object_store.s3().get_object(Bucket=bucket, Key=max(commits))["Body"].read()
    return int(max(commits).removeprefix(prefix).removesuffix(".json")), text


def is_whole(version: int, commit: bytes) -> bool:
    """Tells whether a commit is complete: its text has as many files added and removed as its `commitInfo` counts."""
    try:
        entries: list[dict[str, Any]] = [json.loads(line) for line in commit.splitlines()]
    except ValueError:
        return False
    kinds = [next(iter(entry), "") for entry in entries]
    if not {"commitInfo", *(("metaData", "protocol") if version == 0 else ())} <= set(kinds):
        return False
    metrics = entries[kinds.index("commitInfo")]["commitInfo"].get("operationMetrics", {})
    counted = {
        "add": metrics.get("numFiles", metrics.get("numTargetFilesAdded")),
        "remove": metrics.get("numRemovedFiles", metrics.get("numTargetFilesRemoved")),
    }
    return all(int(number) == kinds.count(kind) for kind, number in counted.items() if number is not None)


def live_files(dataset: Dataset, kind: str) -> dict[str, int]:
    """Returns the files of a Delta table's newest version with their numbers of rows, from the table's log."""
    import pyarrow.parquet as parquet

    bucket, prefix = settings.get("MINIO_BUCKET_SILVER"), lake_paths.log_prefix(dataset, kind)
    pages = object_store.s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    names = sorted(entry["Key"].removeprefix(prefix) for page in pages for entry in page.get("Contents", []))

    def content(name: str) -> bytes:
        return bytes(object_store.s3().get_object(Bucket=bucket, Key=prefix + name)["Body"].read())

    checkpoints = [name for name in names if re.fullmatch(r"[0-9]{20}\.checkpoint(\.[0-9]+){0,2}\.parquet", name)]
    since = max(checkpoints)[:20] if checkpoints else ""
    live: dict[str, int] = {}
    for name in checkpoints:
        if name.startswith(since):
            added = parquet.read_table(io.BytesIO(content(name)), columns=["add"]).column("add").to_pylist()
            live |= {file["path"]: json.loads(file["stats"])["numRecords"] for file in added if file}
    for name in names:
        if re.fullmatch(r"[0-9]{20}\.json", name) and name[:20] > since:
            for entry in map(json.loads, content(name).splitlines()):
                if "add" in entry:
                    live[entry["add"]["path"]] = json.loads(entry["add"]["stats"])["numRecords"]
                elif "remove" in entry:
                    live.pop(entry["remove"]["path"], None)
    return live
