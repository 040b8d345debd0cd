"""Who may do what in the lake: the jobs' user and a reader have the two buckets, and nobody has more."""

import http.client
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.exceptions import ClientError
from minio import MinioAdmin
from minio.credentials import StaticProvider
from minio.error import MinioAdminException

from jobs import lake, settings
from stack import store
from tests.conftest import run_stack

ELSEWHERE = "somebody-elses"


@pytest.fixture(scope="module")
def buckets(stack):
    """The two buckets, each with an object, beside one of somebody else's."""
    store.root().create_bucket(Bucket=ELSEWHERE)
    names = [settings.get(name) for name in store.BUCKETS]
    for name in (*names, ELSEWHERE):
        store.root().put_object(Bucket=name, Key="access/object", Body=b"content")
    yield names
    for name in (*names, ELSEWHERE):
        store.root().delete_object(Bucket=name, Key="access/object")
    store.root().delete_bucket(Bucket=ELSEWHERE)


def reader():
    return lake.client.__wrapped__(os.getpid(), "MINIO_READ_ACCESS_KEY", "MINIO_READ_SECRET_KEY")


def is_denied(call, **words):
    """Whether the store refuses this to somebody whom it knows."""
    try:
        call(**words)
    except ClientError as error:
        assert error.response["Error"]["Code"] in ("AccessDenied", "403"), error
        return True
    return False


def readings(client, bucket):
    """Whether it may read, one answer for each way."""
    return [
        not is_denied(client.list_objects_v2, Bucket=bucket),
        not is_denied(client.get_object, Bucket=bucket, Key="access/object"),
        not is_denied(client.head_object, Bucket=bucket, Key="access/object"),
    ]


def writings(client, bucket):
    """Whether it may write, one answer for each way."""
    return [
        not is_denied(client.put_object, Bucket=bucket, Key="access/more", Body=b"more"),
        not is_denied(client.create_multipart_upload, Bucket=bucket, Key="access/parts"),
        not is_denied(client.delete_object, Bucket=bucket, Key="access/more"),
    ]


def test_the_jobs_user_reads_and_writes_the_two_buckets(buckets):
    for bucket in buckets:
        assert all(readings(lake.s3(), bucket)) and all(writings(lake.s3(), bucket))
        [upload] = lake.s3().list_multipart_uploads(Bucket=bucket)["Uploads"]
        lake.s3().abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def test_a_reader_reads_them_and_writes_nothing(buckets):
    for bucket in buckets:
        assert all(readings(reader(), bucket)) and not any(writings(reader(), bucket))


def test_neither_knows_of_another_bucket_or_changes_any(buckets):
    for client in (lake.s3(), reader()):
        assert {each["Name"] for each in client.list_buckets()["Buckets"]} == set(buckets)
        assert not any(readings(client, ELSEWHERE)) and not any(writings(client, ELSEWHERE))
        assert is_denied(client.create_bucket, Bucket="one-more")
        for bucket in (*buckets, ELSEWHERE):
            assert is_denied(client.delete_bucket, Bucket=bucket)
            assert is_denied(client.put_bucket_policy, Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17"}))
            assert is_denied(client.put_bucket_versioning, Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


@pytest.mark.parametrize("kind", ["MINIO", "MINIO_READ"])
def test_neither_makes_users_or_policies(stack, kind):
    user = settings.get(f"{kind}_ACCESS_KEY")
    keys = StaticProvider(user, settings.get(f"{kind}_SECRET_KEY"))
    own = MinioAdmin(endpoint=settings.s3_endpoint().partition("://")[2], credentials=keys, secure=False)
    attempts = [own.user_list, own.policy_list, own.info, lambda: own.user_add("friend", "of-some-length")]
    attempts.append(lambda: own.policy_set("consoleAdmin", user=user))
    for attempt in attempts:
        with pytest.raises(MinioAdminException, match="AccessDenied"):
            attempt()


def users():
    return json.loads(store.admin().user_list())


def test_the_stores_again_change_nothing_and_a_wider_policy_is_taken_back(stack):
    before = users()
    assert {name: each["policyName"].count(",") for name, each in before.items()} == {
        settings.get("MINIO_ACCESS_KEY"): 1,
        settings.get("MINIO_READ_ACCESS_KEY"): 1,
    }
    store.admin().policy_set("readwrite", user=settings.get("MINIO_READ_ACCESS_KEY"))
    for _ in range(2):
        again = run_stack("stores")
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert {name: each["policyName"] for name, each in users().items()} == {
        name: each["policyName"] for name, each in before.items()
    }


def test_jobs_that_are_the_root_user_go_on_as_before_and_so_do_those_who_know_of_none(stack):
    root = {"MINIO_ACCESS_KEY": "MINIO_ROOT_USER", "MINIO_SECRET_KEY": "MINIO_ROOT_PASSWORD"}
    before = users()
    for given in ({name: settings.get(other) for name, other in root.items()}, {"MINIO_ROOT_USER": ""}):
        again = run_stack("stores", **given)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert users().keys() == before.keys()


@pytest.mark.parametrize(
    ("verb", "key", "secret", "sentence"),
    [
        ("up", "jobs-user", "another-secret", "are not what Spark runs with: `make down`, then `make up`."),
        (
            "stores",
            "lake",
            "short",
            "no user of MINIO_ACCESS_KEY and MINIO_SECRET_KEY (XMinioAdminInvalidSecretKey)",
        ),
        (
            "stores",
            "root-user",
            "not its secret",
            "refuses the key; check MINIO_ACCESS_KEY and MINIO_SECRET_KEY",
        ),
    ],
)
def test_keys_that_cannot_be_are_told_in_a_sentence(stack, verb, key, secret, sentence):
    told = run_stack(verb, MINIO_ACCESS_KEY=key, MINIO_SECRET_KEY=secret)
    assert told.returncode == 1 and sentence in told.stderr, told.stderr
    assert "Traceback" not in told.stderr and secret not in told.stderr


class PlainStore(BaseHTTPRequestHandler):
    """The store as one that speaks S3 and nothing else: what is MinIO's own it takes for a bucket that is not there."""

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/minio/"):
            status, headers, answer = 404, [], b"<Error><Code>NoSuchBucket</Code></Error>"
        else:
            server = http.client.HTTPConnection(settings.s3_endpoint().partition("://")[2])
            server.request(self.command, self.path, body, dict(self.headers))
            given = server.getresponse()
            status, headers, answer = given.status, given.getheaders(), given.read()
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else answer)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *words):
        pass


@pytest.mark.parametrize("root", [{}, {"MINIO_ROOT_USER": "stranger"}])
def test_a_store_that_is_not_ours_is_given_no_users_and_says_so(buckets, root):
    with ThreadingHTTPServer(("127.0.0.1", 0), PlainStore) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told = run_stack("stores", MINIO_ENDPOINT=f"http://127.0.0.1:{server.server_port}", **root)
        server.shutdown()
    assert (told.returncode, told.stderr) == (0, "")
    assert "takes no users from here" in told.stdout and told.stdout.count("\n") == 1
