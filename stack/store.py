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
WRITING = [
    *READING,
    "s3:PutObject",
    "s3:DeleteObject",
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
    """Lets do these things in one bucket, and nothing else."""
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    allowed = {"Effect": "Allow", "Action": actions, "Resource": resources}
    return {"Version": "2012-10-17", "Statement": [allowed]}


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
    """The jobs' user and, where the settings name one, a reader, as the settings have them; false on no MinIO."""
    users = [("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "write", WRITING)]
    if settings.given("MINIO_READ_ACCESS_KEY"):
        users.append(("MINIO_READ_ACCESS_KEY", "MINIO_READ_SECRET_KEY", "read", READING))
    try:
        for key, secret, verb, actions in users:
            policies = {f"{bucket}-{verb}": policy(bucket, actions) for bucket in map(settings.get, BUCKETS)}
            for name, rights in policies.items():
                minio.policy_add(name, policy=rights)
            minio.user_add(settings.get(key), settings.get(secret))
            minio.policy_set(",".join(policies), user=settings.get(key))
    except MinioAdminException as error:
        if code := re.search(r"XMinio\w+", str(error)):
            raise Refused(f"MinIO makes no user of {key} and {secret} ({code[0]}): set others in .env.") from None
        return False
    return True
