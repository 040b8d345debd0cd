"""Reads and writes the lake on MinIO: bronze files and silver Delta tables.

The other modules of this package leave Delta, and the paths of these files and tables, to this one.
"""

import io
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import botocore.session
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.exceptions import ClientError

from jobs import ledger, settings
from jobs.dataset import TYPES, WHITE_SPACE, Dataset
from jobs.dialect import RFC_4180, Dialect
from jobs.landing import MOST_COLUMNS, Facts, Upload, as_of, describe, folder, names_in, read_header, read_records
from jobs.program import Refused
from jobs.warehouse import Connection

MANY_FIELDS = 100  # a record with more is broken, unless the header has more itself
MANY_FILES = 4  # a partition with at least so many files is compacted
SMALL, LARGE = 64 << 20, 128 << 20  # bytes: files smaller than SMALL are merged into files of up to LARGE


def s3() -> Any:
    """Returns the S3 client of this process.

    Luigi forks, and two processes that share a connection would mix up their answers.
    """
    return client(os.getpid())


@lru_cache(maxsize=3)
def client(process: int, key: str = "MINIO_ACCESS_KEY", secret: str = "MINIO_SECRET_KEY") -> Any:
    """Returns an S3 client for one process, with the key of these settings; fails in seconds if MinIO is down."""
    return boto_session().client(
        "s3",
        endpoint_url=settings.s3_endpoint(),
        verify=settings.given("AWS_CA_BUNDLE") or None,
        aws_access_key_id=settings.get(key),
        aws_secret_access_key=settings.get(secret),
        region_name="us-east-1",
        config=Config(
            connect_timeout=3,
            read_timeout=60,
            retries={"max_attempts": 2},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@cache
def boto_session() -> boto3.Session:
    """Returns the boto3 session, without connections, that this process shares with the processes forked from it.

    A new session takes 0.1 s of CPU to read the description of S3. This one ignores a person's own AWS configuration
    (variables, profiles, files) except AWS_CA_BUNDLE.
    """
    own = {name: (None, None, *rest) for name, (_, _, *rest) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()}
    own |= {name: (None, None, os.devnull, None) for name in ("config_file", "credentials_file")}
    return boto3.Session(botocore_session=botocore.session.Session(own))


def bronze_key(dataset: Dataset, day: date) -> str:
    """Returns the key of a bronze file in its bucket."""
    return f"{dataset.name}/{folder(day)}/{dataset.name}.csv"


def bronze_path(dataset: Dataset, day: date) -> str:
    """Returns the s3a path of a bronze file."""
    return f"s3a://{settings.get('MINIO_BUCKET_BRONZE')}/{bronze_key(dataset, day)}"


def upload(path: Path, dataset: Dataset, day: date, facts: Facts, source: Mapping[str, str] | None = None) -> None:
    """Uploads a file to bronze as it is, with its profile as metadata: the object is its own completion marker.

    `source` is further metadata of a file that was derived from a source's files: what it was made from. Raises Refused
    if the file no longer has the checksum of its profile.
    """
    with path.open("rb", buffering=0) as file:
        s3().upload_fileobj(
            Upload(file, facts.sha256, f"{folder(day)}/{dataset.name}.csv"),
            settings.get("MINIO_BUCKET_BRONZE"),
            bronze_key(dataset, day),
            ExtraArgs={"Metadata": facts.metadata() | dict(source or {}), "ContentType": "text/csv"},
        )


def bronze_head(dataset: Dataset, day: date) -> dict[str, Any] | None:
    """Returns the S3 head of a bronze file (metadata, size, time of change), or None if there is no such file."""
    try:
        return s3().head_object(Bucket=settings.get("MINIO_BUCKET_BRONZE"), Key=bronze_key(dataset, day))
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return None
        raise


def remover() -> Any:
    """Returns a client that may delete in bronze: of the user of `make forget` if the store has it, else of the jobs.

    Raises Refused if the store refuses a request of that user.
    """
    if settings.given("MINIO_FORGET_ACCESS_KEY"):
        own = client(os.getpid(), "MINIO_FORGET_ACCESS_KEY", "MINIO_FORGET_SECRET_KEY")
        try:
            own.list_objects_v2(Bucket=settings.get("MINIO_BUCKET_BRONZE"), MaxKeys=1)
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidAccessKeyId":
                raise may_not_delete(error) from None
        else:
            return own
    return s3()


def may_not_delete(error: ClientError) -> Refused:
    """Returns the error that the store does not let `make forget` delete in bronze."""
    return Refused(
        f"{settings.s3_endpoint()} does not let `make forget` delete in {settings.get('MINIO_BUCKET_BRONZE')} "
        f"({error.response['Error']['Code']}); check MINIO_FORGET_ACCESS_KEY and MINIO_FORGET_SECRET_KEY in .env."
    )


def remove_bronze(dataset: Dataset, day: date) -> None:
    """Deletes a date's file from bronze if it is there; raises Refused if the store does not allow it."""
    try:
        remover().delete_object(Bucket=settings.get("MINIO_BUCKET_BRONZE"), Key=bronze_key(dataset, day))
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
            raise
        raise may_not_delete(error) from None


def facts_of(dataset: Dataset, day: date) -> Facts:
    """Returns the profile of a bronze file, from its metadata; reads a file that another program has put there.

    Also reads the file if its metadata are of another size or another amount column. Raises Refused if it is missing.
    """
    head = bronze_head(dataset, day)
    name = f"bronze {bronze_key(dataset, day)}"
    if head is None:
        raise Refused(f"{name} is missing; run BronzeIngestion for {day} first.")
    bucket, known = settings.get("MINIO_BUCKET_BRONZE"), head["Metadata"]
    if known.get("bytes") != str(head["ContentLength"]) or known.get("amount") != (dataset.amount or "none"):
        with tempfile.TemporaryDirectory() as place:
            copy = Path(place, "file.csv")
            s3().download_file(bucket, bronze_key(dataset, day), str(copy))
            return describe(copy, dataset, name, came_before="sha256" in known)
    span = f"bytes=0-{int(known['header-bytes']) - 1}"
    start = s3().get_object(Bucket=bucket, Key=bronze_key(dataset, day), Range=span)["Body"].read()
    lines = io.StringIO(start.decode("utf-8-sig"), newline="\n")
    record = next(record for record, _, _ in read_records(lines) if record.strip(WHITE_SPACE))
    dataset = as_of(dataset, names_in(record.rstrip("\r\n"), ","))  # the header was checked before the upload
    texts = {"sha256": known["sha256"], "header": read_header(record, dataset, name), "amount": dataset.amount or ""}
    numbers = {field: int(known[field.replace("_", "-")]) for field in Facts._fields if field not in texts}
    return Facts(**texts, **numbers)  # type: ignore[arg-type]


def records(spark: Any, dataset: Dataset, day: date, facts: Facts, path: str = "") -> Any:
    """Returns one row per data record of a bronze file, or of the file at `path`: its text in `_raw`, without line end.

    All cores read the lines. If records span lines, Spark's CSV reader finds where each ends: it is asked for more
    fields than any record has, so that it calls every record corrupt and returns the text.
    """
    from pyspark.sql import functions as F

    path = path or bronze_path(dataset, day)
    place = F.monotonically_increasing_id().bitwiseAND(F.lit((1 << 33) - 1))  # in Spark's partition
    if facts.spans:
        rows, raw = spanning_records(spark, [path], len(facts.header), facts.widest)
        skipped, first = facts.header_records, F.lit(True)
    else:
        rows = spark.read.text(path, lineSep="\n")
        raw, skipped, first = F.col("value"), facts.header_lines, F.col("_metadata.file_block_start") == 0
    rows = rows.select(raw.alias("_raw"), (first & (place < skipped)).alias("header"))
    # Spark warns about rtrim with two arguments; TRIM without the test of the last character is slow.
    without_return = F.expr(r"if(endswith(_raw, '\r'), trim(trailing '\r' from _raw), _raw)")
    rows = rows.select(without_return.alias("_raw"), "header")
    is_record = F.contains("_raw", F.lit(",")) | (F.btrim("_raw", F.lit(WHITE_SPACE)) != "")
    return rows.filter(~F.col("header") & is_record).select("_raw")


def spanning_records(
    spark: Any, paths: Sequence[str], columns: int, widest: int, dialect: Dialect = RFC_4180, **options: Any
) -> tuple[Any, Any]:
    """Returns the rows of files whose records may span lines, and the column that holds each record's text.

    Headers are among the rows unless `options` exclude them. `columns` is the number of columns in the header, `widest`
    the largest number of fields in a record.
    """
    from pyspark.sql import functions as F

    # Never exactly as many fields as a sound record has: one more, or fewer if a spreadsheet has padded its lines.
    most = columns if columns <= MOST_COLUMNS else MOST_COLUMNS - 1
    fields = [f"_{number}" for number in range(min(widest, max(MANY_FIELDS, most)) + 1)]
    rows = spark.read.option("columnPruning", False).csv(
        [*paths],
        schema=", ".join(f"{name} string" for name in (*fields, "_raw")),
        multiLine=True,
        lineSep="\n",
        sep=dialect.separator,
        quote=dialect.quote,
        escape=dialect.quote,
        maxColumns=widest + 1,
        columnNameOfCorruptRecord="_raw",
        **options,
    )
    # Spark returns no text for a record of exactly this many fields. There is none, or it is malformed: it is rebuilt.
    together = F.array_join(F.array(*(written(field, dialect) for field in fields)), dialect.separator, "")
    return rows, F.coalesce("_raw", together if len(fields) <= widest else fields[0])


def written(field: str, dialect: Dialect = RFC_4180) -> Any:
    """Returns a field as a CSV file has it: in quotes if it contains a separator, a quote or a line end."""
    from pyspark.sql import functions as F

    quote = F.lit(dialect.quote)
    quoted = F.concat(quote, F.replace(field, quote, F.lit(dialect.quote * 2)), quote)
    special = "".join(map(re.escape, (*dialect, "\n")))
    return F.when(F.col(field).rlike(f"[{special}]"), quoted).otherwise(F.col(field))


def silver_path(dataset: Dataset, kind: str) -> str:
    """Returns the s3a path of a silver table; `kind` is `accepted` or `rejected`."""
    folder = dataset.name if kind == "accepted" else f"rejected/{dataset.name}"
    return f"s3a://{settings.get('MINIO_BUCKET_SILVER')}/{folder}"


class Commit(NamedTuple):
    """Holds the newest version of a Delta table, the run that wrote it and the rows it wrote to each partition."""

    version: int
    run_id: str
    rows: dict[date, int]


def replace(
    rows: Any,
    dataset: Dataset,
    kind: str,
    days: Sequence[date],
    run_id: str,
    since: int | None,
    ready: Callable[[], None],
) -> Commit:
    """Replaces some partitions of a silver table by exactly these rows, in one Delta transaction.

    Marks the commit with `run_id`; each row has the run of its partition in `_run_id`. Returns the commit as the
    table's log has it; `since` is a version known to be older. `ready` raises if the caller is not, or no longer, the
    only writer. Even then another commit may be first, because the Spark Connect server may still write for a run that
    was killed: the commit is tried up to five times.

    Its parameters are the content, the place and the conditions of one commit.
    """

    within = ", ".join(f"'{day}'" for day in days)
    writer = (
        rows.write.format("delta")
        .mode("overwrite")
        .partitionBy("_partition_date")
        .option("replaceWhere", f"_partition_date in ({within})")
        .option("userMetadata", run_id)
        .option("mergeSchema", True)  # adds columns declared since the table was made
        # For new tables. Rows are looked up by key only, and statistics of all columns take a fourth of the write.
        .option("delta.dataSkippingStatsColumns", dataset.key)
        # A checkpoint is a separate Spark job; by default every tenth commit writes one.
        .option("delta.checkpointInterval", 50)
    )
    for tries_left in reversed(range(5)):
        ready()
        try:
            writer.save(silver_path(dataset, kind))
            break
        except Exception as error:
            if not (tries_left and is_overtaken(error)):
                raise
    commit = last_commit(dataset, kind, since)
    return commit if commit.run_id == run_id else commit._replace(rows={})  # Delta commits nothing if nothing changes


def is_overtaken(error: BaseException) -> bool:
    """Tells whether Delta refused a commit only because another commit was first."""
    condition = getattr(error, "getCondition", lambda: None)() or ""
    return condition.startswith(("DELTA_CONCURRENT_", "DELTA_METADATA_CHANGED", "DELTA_PROTOCOL_CHANGED"))


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
    bucket, prefix = settings.get("MINIO_BUCKET_SILVER"), log_prefix(dataset, kind)
    pages = (
        s3()
        .get_paginator("list_objects_v2")
        .paginate(Bucket=bucket, Prefix=prefix, StartAfter=prefix + (f"{since - 1:020d}.json" if since else ""))
    )
    names = (entry["Key"] for page in pages for entry in page.get("Contents", []))
    commits = [name for name in names if re.fullmatch(r"[0-9]{20}\.json", name.removeprefix(prefix))]
    if not commits:
        return head_of_log(dataset, kind) if since else None  # that version was removed
    text = s3().get_object(Bucket=bucket, Key=max(commits))["Body"].read()
    return int(max(commits).removeprefix(prefix).removesuffix(".json")), text


def repair_log(dataset: Dataset, kind: str, since: int | None = None) -> int | None:
    """Removes an incomplete commit from the end of a table's log; returns its version, or None if the log is complete.

    An upload that broke off leaves one if the store keeps what it received. Delta would fail on such a commit for ever,
    or read only part of it. The caller must be the only writer.
    """
    head = head_of_log(dataset, kind, since)
    if head is None or is_whole(*head):
        return None
    for ending in ("json", "crc"):
        key = f"{log_prefix(dataset, kind)}{head[0]:020d}.{ending}"
        s3().delete_object(Bucket=settings.get("MINIO_BUCKET_SILVER"), Key=key)
    return head[0]


def repair_tables(connection: Connection, dataset: Dataset) -> None:
    """Removes incomplete commits of dead writers from a dataset's logs; prints each, and invalidates its markers."""
    for kind, version in ledger.versions(connection, dataset).items():
        half = repair_log(dataset, kind, version)
        if half is not None:
            print(f"half a commit of {kind} {dataset.name} is taken away: version {half}", file=sys.stderr)
            ledger.invalidate(connection, dataset, kind, half)


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
    counted = {"add": metrics.get("numFiles"), "remove": metrics.get("numRemovedFiles")}
    return all(int(number) == kinds.count(kind) for kind, number in counted.items() if number is not None)


def silver(spark: Any, dataset: Dataset, kind: str = "accepted") -> Any:
    """Reads a silver table with all its partitions; returns no rows if the dataset was never validated.

    Columns declared since the table was last written are null in all rows.
    """
    from pyspark.sql import functions as F

    if not has_silver(dataset, kind):
        names = ", ".join(f"{name} string" for name in dataset.names)
        return spark.createDataFrame([], f"{names}, _partition_date date, _run_id string")
    rows = spark.read.format("delta").load(silver_path(dataset, kind))
    there = set(rows.columns)
    added = [column for column in dataset.columns if column.name not in there]
    types = {column.name: TYPES[column.type] if kind == "accepted" else "string" for column in added}
    return rows.withColumns({name: F.lit(None).cast(of) for name, of in types.items()}) if types else rows


def merge_files(spark: Any, dataset: Dataset, kind: str, run_id: str) -> int:
    """Merges the small files of partitions that have at least MANY_FILES; returns the number of partitions merged.

    Runs one Delta transaction, which changes no row. The caller must be the only writer.
    """
    path = silver_path(dataset, kind)
    files = spark.read.format("delta").load(path).inputFiles()
    of_days = Counter(found[1] for name in files if (found := re.search(r"/_partition_date=([0-9-]{10})/", name)))
    if not (days := [day for day, count in of_days.items() if count >= MANY_FILES]):
        return 0
    spark.conf.set("spark.databricks.delta.optimize.minFileSize", SMALL)
    spark.conf.set("spark.databricks.delta.optimize.maxFileSize", LARGE)
    spark.conf.set("spark.databricks.delta.commitInfo.userMetadata", run_id)
    try:
        within = ", ".join(f"'{day}'" for day in sorted(days))
        [[merged]] = (
            spark.sql(f"optimize delta.`{path}` where _partition_date in ({within})")
            .select("metrics.partitionsOptimized")
            .collect()
        )
    finally:
        spark.conf.unset("spark.databricks.delta.commitInfo.userMetadata")
    return int(merged)


def remove_old_files(spark: Any, dataset: Dataset, kind: str, hours: float) -> None:
    """Deletes files that no table version of the last `hours` references, including those of runs that died.

    Turns off Delta's minimum retention of a week; the caller ensures that no reader needs these files.
    """
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    # The number of tasks that list a table. The default of 10,000 is slow for tables of few directories.
    spark.conf.set("spark.sql.sources.parallelPartitionDiscovery.parallelism", "16")
    spark.sql(f"vacuum delta.`{silver_path(dataset, kind)}` retain {hours:f} hours")


def held(dataset: Dataset, kind: str) -> tuple[int, int]:
    """Returns the number and the total bytes of a table's data files, referenced or not; the log is left out."""
    bucket, log = settings.get("MINIO_BUCKET_SILVER"), log_prefix(dataset, kind)
    pages = s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=log.removesuffix("_delta_log/"))
    sizes = [entry["Size"] for page in pages for entry in page.get("Contents", []) if not entry["Key"].startswith(log)]
    return len(sizes), sum(sizes)


def has_silver(dataset: Dataset, kind: str) -> bool:
    """Tells whether a silver table exists."""
    found = s3().list_objects_v2(
        Bucket=settings.get("MINIO_BUCKET_SILVER"), Prefix=f"{log_prefix(dataset, kind)}0", MaxKeys=1
    )
    return "Contents" in found


def log_prefix(dataset: Dataset, kind: str) -> str:
    """Returns the prefix of a Delta table's log in silver's bucket."""
    return silver_path(dataset, kind).removeprefix("s3a://").partition("/")[2] + "/_delta_log/"


def live_files(dataset: Dataset, kind: str) -> dict[str, int]:
    """Returns the files of a Delta table's newest version with their numbers of rows, from the table's log."""
    import pyarrow.parquet as parquet

    bucket, prefix = settings.get("MINIO_BUCKET_SILVER"), log_prefix(dataset, kind)
    pages = s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    names = sorted(entry["Key"].removeprefix(prefix) for page in pages for entry in page.get("Contents", []))

    def content(name: str) -> bytes:
        return bytes(s3().get_object(Bucket=bucket, Key=prefix + name)["Body"].read())

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
