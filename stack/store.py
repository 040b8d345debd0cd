"""What the lake's store must have: buckets, and on MinIO users who may do there what their work needs and no more."""

import os
import re
from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError
from minio import MinioAdmin
from minio.credentials import StaticProvider
from minio.error import MinioAdminException
from urllib3 import PoolManager, Timeout

from jobs import lake, settings
from jobs.program import Refused

BUCKETS = ("MINIO_BUCKET_BRONZE", "MINIO_BUCKET_SILVER")
READING = ["s3:GetBucketLocation", "s3:ListBucket", "s3:GetObject"]
DELETING = ["s3:GetBucketLocation", "s3:ListBucket", "s3:DeleteObject"]
WRITING = [
    *READING,
    "s3:PutObject",
    "s3:AbortMultipartUpload",
    "s3:ListBucketMultipartUploads",
    "s3:ListMultipartUploadParts",
]
WRONG_KEY = ("InvalidAccessKeyId", "SignatureDoesNotMatch")


def root() -> Any:
    """A boto3 client as MinIO's root user, who makes buckets; the jobs' own is lake.s3()."""
    return lake.client(os.getpid(), "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")


def admin() -> MinioAdmin:
    """MinIO's own interface, as its root user; it fails within seconds when nobody answers."""
    scheme, _, place = settings.s3_endpoint().partition("://")
    return MinioAdmin(
        endpoint=place.rstrip("/"),
        credentials=StaticProvider(settings.get("MINIO_ROOT_USER"), settings.get("MINIO_ROOT_PASSWORD")),
        secure=scheme == "https",
        http_client=PoolManager(
            timeout=Timeout(connect=3, read=30), retries=1, ca_certs=settings.given("AWS_CA_BUNDLE") or None
        ),
    )


def policy(bucket: str, actions: Sequence[str]) -> dict[str, Any]:
    """Lets do these things in one bucket, and nothing else: to MinIO, who deletes may delete versions unless denied."""
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    allowed = {"Effect": "Allow", "Action": actions, "Resource": resources}
    denied = {"Effect": "Deny", "Action": ["s3:DeleteObjectVersion"], "Resource": resources}
    return {"Version": "2012-10-17", "Statement": [allowed, denied]}


def rights() -> dict[str, tuple[str, dict[str, list[str]]]]:
    """Returns for each user, by how its settings begin, the name of what it may do, and the actions for each bucket.

    No job deletes in bronze but `make forget`, which has a user of its own where the settings name one.
    """
    bronze, silver = map(settings.get, BUCKETS)
    is_apart = bool(settings.given("MINIO_FORGET_ACCESS_KEY"))
    everything = [*WRITING, "s3:DeleteObject"]
    users = {"MINIO": ("write", {bronze: WRITING if is_apart else everything, silver: everything})}
    if is_apart:
        users["MINIO_FORGET"] = ("forget", {bronze: DELETING})
    if settings.given("MINIO_READ_ACCESS_KEY"):
        users["MINIO_READ"] = ("read", {bronze: READING, silver: READING})
    return users


def create(spark_runs: bool = False) -> None:
    """Makes the buckets that are missing, and on a MinIO of ours the users of the settings with a policy per bucket.

    Where the jobs' key is the root user's, or no root user is named, or the store is somebody else's, it makes no
    user, and the buckets by the jobs' own key. A Spark that runs has the keys it was started with: others are Refused.
    """
    if spark_runs and refused(lake.s3()):
        raise Refused(
            "MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not what Spark runs with: `make down`, then `make up`."
        )
    if settings.given("MINIO_ROOT_USER") in ("", settings.get("MINIO_ACCESS_KEY")):
        create_buckets(lake.s3())
    elif refused(root()) or not create_users(admin()):
        print(f"{settings.s3_endpoint()} takes no users from here: its owner says who may do what (docs/access.md).")
        create_buckets(lake.s3())
    else:
        create_buckets(root())
        keep_versions(root())


def refused(client: Any) -> bool:
    """Whether the store does not know this key, or knows it with another secret."""
    try:
        client.list_buckets()
    except ClientError as error:
        return error.response["Error"]["Code"] in WRONG_KEY
    return False


def create_buckets(client: Any) -> None:
    for bucket in map(settings.get, BUCKETS):
        try:
            client.head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            client.create_bucket(Bucket=bucket)


def create_users(minio: MinioAdmin) -> bool:
    """Makes the users of `rights`, each with a policy per bucket, as the settings have them; false on no MinIO.

    A user whose secret the settings lack stays as it is: an administrator may keep the one of `make forget`.
    """
    try:
        for user, (verb, buckets) in rights().items():
            key, secret = f"{user}_ACCESS_KEY", f"{user}_SECRET_KEY"
            policies = {f"{bucket}-{verb}": policy(bucket, actions) for bucket, actions in buckets.items()}
            for name, allowed in policies.items():
                minio.policy_add(name, policy=allowed)
            if user == "MINIO_FORGET" and not settings.given(secret):
                continue
            minio.user_add(settings.get(key), settings.get(secret))
            minio.policy_set(",".join(policies), user=settings.get(key))
    except MinioAdminException as error:
        if code := re.search(r"XMinio\w+", str(error)):
            raise Refused(f"MinIO makes no user of {key} and {secret} ({code[0]}): set others in .env.") from None
        return False
    return True


def keep_versions(client: Any) -> None:
    """Has bronze keep what is replaced or deleted there for BRONZE_VERSIONS_DAYS days; without it, changes nothing."""
    days = settings.given("BRONZE_VERSIONS_DAYS")
    if not days:
        return
    if not re.fullmatch("[1-9][0-9]{0,4}", days):
        raise Refused("BRONZE_VERSIONS_DAYS is no number of days: give it one from 1 on, or leave it empty.")
    bucket = settings.get("MINIO_BUCKET_BRONZE")
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    expiry = {
        "ID": "versions-that-were-replaced",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "NoncurrentVersionExpiration": {"NoncurrentDays": int(days)},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [expiry]})
