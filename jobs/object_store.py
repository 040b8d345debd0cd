"""Connects to the object store (MinIO or S3), with the keys of the jobs or of `make forget`."""

import os
from functools import cache, lru_cache
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.exceptions import ClientError

from jobs import settings
from jobs.program import Refused


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
