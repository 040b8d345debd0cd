"""Sets up the lake's store: buckets, and on MinIO users with only the privileges that their work needs."""

import os
import re
from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError
from minio import MinioAdmin
from minio.credentials import StaticProvider
from minio.error import MinioAdminException
from urllib3 import PoolManager, Timeout

from jobs import object_store, settings
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
    """Returns a boto3 client of MinIO's root user, which creates buckets; jobs use object_store.s3()."""
    return object_store.client(os.getpid(), "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")


def admin() -> MinioAdmin:
    """Returns MinIO's admin client as root user; it fails within seconds if the server does not answer."""
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
    """Returns a policy that allows only these actions in one bucket.

    Denies the deletion of versions explicitly, since MinIO grants it along with that of objects.
    """
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    allowed = {"Effect": "Allow", "Action": actions, "Resource": resources}
    denied = {"Effect": "Deny", "Action": ["s3:DeleteObjectVersion"], "Resource": resources}
    return {"Version": "2012-10-17", "Statement": [allowed, denied]}


def rights() -> dict[str, tuple[str, dict[str, list[str]]]]:
    """Returns by settings prefix of each user the name of its policy and its actions per bucket.

    No job deletes in bronze except `make forget`, which has its own user if the settings name one.
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
    """Creates missing buckets and, on a MinIO of the platform, the users of the settings with a policy per bucket.

    Without a root user, with the root user as the jobs' user, or on another store, it creates no users and makes the
    buckets with the jobs' own key. Raises Refused if Spark runs (`spark_runs`) with keys that have changed.
    """
    if spark_runs and refused(object_store.s3()):
        raise Refused(
            "MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not what Spark runs with: `make down`, then `make up`."
        )
    if settings.given("MINIO_ROOT_USER") in ("", settings.get("MINIO_ACCESS_KEY")):
        create_buckets(object_store.s3())
    elif refused(root()) or not create_users(admin()):
        print(f"{settings.s3_endpoint()} takes no users from here: its owner says who may do what (docs/access.md).")
        create_buckets(object_store.s3())
    else:
        create_buckets(root())
        keep_versions(root())


def refused(client: Any) -> bool:
    """Tells whether the store rejects this key or its secret."""
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
    """Creates the users of `rights` with a policy per bucket from the settings; returns False on any other store.

    Leaves a user without a secret in the settings unchanged: an administrator may hold the one for `make forget`.
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
    """Makes bronze keep replaced and deleted objects for BRONZE_VERSIONS_DAYS days; does nothing if that is not set."""
    days = settings.given("BRONZE_VERSIONS_DAYS")
    if not days:
        return
    if not re.fullmatch("[1-9][0-9]{0,4}", days):
        raise Refused("BRONZE_VERSIONS_DAYS is not a number of days: give it one from 1 on, or leave it empty.")
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
