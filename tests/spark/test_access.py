"""Tests privileges in the lake: the jobs' user and a reader reach two buckets, and `make forget` deletes in bronze."""

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from minio import MinioAdmin
from minio.credentials import StaticProvider
from minio.error import MinioAdminException

from jobs import bronze_files, lake_paths, object_store, settings
from jobs.catalog import CATALOG
from jobs.program import Refused
from stack import services, store
from stack.own import free_ports
from tests.conftest import run_stack

ELSEWHERE = "somebody-elses"
JOBS_ARE_ROOT = {"MINIO_ACCESS_KEY": "MINIO_ROOT_USER", "MINIO_SECRET_KEY": "MINIO_ROOT_PASSWORD"}


@pytest.fixture(scope="module")
def buckets(stack):
    """Yields the two buckets, each with an object; a third bucket belongs to somebody else."""
    store.root().create_bucket(Bucket=ELSEWHERE)
    names = [settings.get(name) for name in store.BUCKETS]
    for name in (*names, ELSEWHERE):
        store.root().put_object(Bucket=name, Key="access/object", Body=b"content")
    yield names
    for name in (*names, ELSEWHERE):
        store.root().delete_object(Bucket=name, Key="access/object")
    store.root().delete_bucket(Bucket=ELSEWHERE)


def reader():
    return object_store.client.__wrapped__(os.getpid(), "MINIO_READ_ACCESS_KEY", "MINIO_READ_SECRET_KEY")


def forgetter():
    return object_store.client.__wrapped__(os.getpid(), "MINIO_FORGET_ACCESS_KEY", "MINIO_FORGET_SECRET_KEY")


def is_denied(call, **words):
    """Tells whether the store denies a call to a user that it knows."""
    try:
        call(**words)
    except ClientError as error:
        assert error.response["Error"]["Code"] in ("AccessDenied", "403"), error
        return True
    return False


def readings(client, bucket):
    """Tells for each way of reading whether a user may."""
    return [
        not is_denied(client.list_objects_v2, Bucket=bucket),
        not is_denied(client.get_object, Bucket=bucket, Key="access/object"),
        not is_denied(client.head_object, Bucket=bucket, Key="access/object"),
    ]


def writings(client, bucket):
    """Tells for each way of writing whether a user may."""
    return [
        not is_denied(client.put_object, Bucket=bucket, Key="access/more", Body=b"more"),
        not is_denied(client.create_multipart_upload, Bucket=bucket, Key="access/parts"),
    ]


def deletes(client, bucket):
    """Tells whether a user may delete, one object and many at once."""
    one = not is_denied(client.delete_object, Bucket=bucket, Key="access/more")
    if is_denied(client.delete_objects, Bucket=bucket, Delete={"Objects": [{"Key": "access/more"}]}):
        return one
    many = client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "access/more"}]})
    assert one != bool(many.get("Errors")), many
    return one


def test_the_jobs_user_reads_and_writes_the_two_buckets(buckets):
    for bucket in buckets:
        assert all(readings(object_store.s3(), bucket)) and all(writings(object_store.s3(), bucket))
        [upload] = object_store.s3().list_multipart_uploads(Bucket=bucket)["Uploads"]
        object_store.s3().abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def test_the_jobs_user_deletes_in_silver_alone_and_forget_in_bronze_alone(buckets):
    bronze, silver = buckets
    assert [deletes(object_store.s3(), bucket) for bucket in buckets] == [False, True]
    object_store.s3().put_object(Bucket=bronze, Key="access/more", Body=b"more")
    assert [deletes(forgetter(), bucket) for bucket in buckets] == [True, False]
    assert not object_store.s3().list_objects_v2(Bucket=bronze, Prefix="access/more").get("Contents")
    assert readings(forgetter(), bronze) == [True, False, False], "it sees names and no content"
    assert not any(readings(forgetter(), silver) + writings(forgetter(), bronze) + writings(forgetter(), silver))


@pytest.fixture
def a_file(stack):
    """Yields the key of a date's file in bronze."""
    day = date(2049, 1, 1)
    where = {"Bucket": settings.get("MINIO_BUCKET_BRONZE"), "Key": lake_paths.bronze_key(CATALOG["visits"], day)}
    store.root().put_object(**where, Body=b"content")
    yield CATALOG["visits"], day
    store.root().delete_object(**where)


def test_forget_deletes_in_bronze_by_its_own_right_and_the_jobs_key_could_not(a_file, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("MINIO_FORGET_ACCESS_KEY", "")
        with pytest.raises(
            Refused, match=r"does not let `make forget` delete in .+ \(AccessDenied\); check MINIO_FORGET"
        ):
            bronze_files.remove_bronze(*a_file)
    assert bronze_files.bronze_head(*a_file)
    bronze_files.remove_bronze(*a_file)
    assert bronze_files.bronze_head(*a_file) is None


def test_where_the_store_has_no_user_for_it_forget_has_the_jobs_key(a_file, monkeypatch):
    monkeypatch.setenv("MINIO_FORGET_ACCESS_KEY", "nobody-knows-it")
    for name, root in JOBS_ARE_ROOT.items():
        monkeypatch.setenv(name, settings.get(root))
    object_store.client.cache_clear()
    try:
        bronze_files.remove_bronze(*a_file)
        assert bronze_files.bronze_head(*a_file) is None
    finally:
        object_store.client.cache_clear()


def test_a_wrong_secret_is_told_before_anything_is_forgotten(a_file):
    command = [sys.executable, "jobs/forget.py", str(a_file[1])]
    environment = os.environ | {"MINIO_FORGET_SECRET_KEY": "not this one", "PYTHONPATH": str(settings.ROOT)}
    told = subprocess.run(command, env=environment, cwd=settings.ROOT, text=True, capture_output=True)
    assert told.returncode == 1 and "(SignatureDoesNotMatch); check MINIO_FORGET_ACCESS_KEY" in told.stderr, told.stderr
    assert told.stderr.count("\n") == 1 and not told.stdout


def test_without_a_user_of_its_own_the_jobs_may_do_what_forget_needs(stack, monkeypatch):
    bronze = settings.get("MINIO_BUCKET_BRONZE")
    assert "s3:DeleteObject" not in store.rights()["MINIO"][1][bronze]
    monkeypatch.setenv("MINIO_FORGET_ACCESS_KEY", "")
    assert "s3:DeleteObject" in store.rights()["MINIO"][1][bronze] and "MINIO_FORGET" not in store.rights()


def test_a_secret_that_an_administrator_keeps_stays_as_it_is(a_file):
    again = run_stack("stores", MINIO_FORGET_SECRET_KEY="")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    bronze_files.remove_bronze(*a_file)
    assert bronze_files.bronze_head(*a_file) is None


def test_bronze_keeps_versions_by_switch_and_forget_removes_none_of_them(stack, monkeypatch):
    bucket, key = f"versions-{os.getpid()}", "visits/visits.csv"
    monkeypatch.setenv("MINIO_BUCKET_BRONZE", bucket)
    store.root().create_bucket(Bucket=bucket)
    store.admin().policy_add(bucket, policy=store.policy(bucket, store.rights()["MINIO_FORGET"][1][bucket]))
    store.admin().attach_policy([bucket], user=settings.get("MINIO_FORGET_ACCESS_KEY"))
    try:
        store.keep_versions(store.root())
        assert "Status" not in store.root().get_bucket_versioning(Bucket=bucket), "not unless it is asked for"
        monkeypatch.setenv("BRONZE_VERSIONS_DAYS", "soon")
        with pytest.raises(Refused, match="BRONZE_VERSIONS_DAYS is not a number of days"):
            store.keep_versions(store.root())
        monkeypatch.setenv("BRONZE_VERSIONS_DAYS", "30")
        for _ in range(2):
            store.keep_versions(store.root())
        assert store.root().get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        [rule] = store.root().get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        assert (rule["Status"], rule["NoncurrentVersionExpiration"]["NoncurrentDays"]) == ("Enabled", 30)
        for body in (b"as first sent", b"corrected"):
            store.root().put_object(Bucket=bucket, Key=key, Body=body)
        forgetter().delete_object(Bucket=bucket, Key=key)
        versions = store.root().list_object_versions(Bucket=bucket)["Versions"]
        assert len(versions) == 2
        for version in versions:
            assert is_denied(forgetter().delete_object, Bucket=bucket, Key=key, VersionId=version["VersionId"])
    finally:
        listed = store.root().list_object_versions(Bucket=bucket)
        for version in [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]:
            store.root().delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
        store.root().delete_bucket(Bucket=bucket)
        store.admin().detach_policy([bucket], user=settings.get("MINIO_FORGET_ACCESS_KEY"))
        store.admin().policy_remove(bucket)


def test_a_reader_reads_them_and_writes_nothing(buckets):
    for bucket in buckets:
        assert all(readings(reader(), bucket)) and not any(writings(reader(), bucket))
        assert not deletes(reader(), bucket)


def test_none_of_them_knows_of_another_bucket_or_changes_any(buckets):
    for client, known in ((object_store.s3(), buckets), (reader(), buckets), (forgetter(), buckets[:1])):
        assert {each["Name"] for each in client.list_buckets()["Buckets"]} == set(known)
        assert not any(readings(client, ELSEWHERE)) and not any(writings(client, ELSEWHERE))
        assert not deletes(client, ELSEWHERE)
        assert is_denied(client.create_bucket, Bucket="one-more")
        for bucket in (*buckets, ELSEWHERE):
            assert is_denied(client.delete_bucket, Bucket=bucket)
            assert is_denied(client.put_bucket_policy, Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17"}))
            assert is_denied(client.put_bucket_versioning, Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


@pytest.mark.parametrize("kind", ["MINIO", "MINIO_FORGET", "MINIO_READ"])
def test_none_of_them_makes_users_or_policies(stack, kind):
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
        settings.get("MINIO_FORGET_ACCESS_KEY"): 0,
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
    before = users()
    for given in ({name: settings.get(other) for name, other in JOBS_ARE_ROOT.items()}, {"MINIO_ROOT_USER": ""}):
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
    """Passes on S3 calls and answers MinIO's own with NoSuchBucket, like a store that knows only S3."""

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


class Listener(BaseHTTPRequestHandler):
    """Records MinIO's audit messages with the token sent with them."""

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.told.append((self.headers.get("Authorization"), text.decode()))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words):
        pass


@pytest.fixture
def auditor():
    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        server.told = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_minio_tells_each_request_to_a_listener_by_switch(auditor, tmp_path, monkeypatch):
    store_port, console = free_ports(2)
    assert not [name for name in services.minio().environment if "AUDIT" in name], "not unless it is asked for"
    for name, value in {
        "STACK_DIR": tmp_path,
        "MINIO_ENDPOINT": f"http://127.0.0.1:{store_port}",
        "MINIO_CONSOLE_PORT": console,
        "MINIO_AUDIT_WEBHOOK_ENABLE": "on",
        "MINIO_AUDIT_WEBHOOK_ENDPOINT": f"http://127.0.0.1:{auditor.server_port}",
        "MINIO_AUDIT_WEBHOOK_AUTH_TOKEN": "planted-token",
    }.items():
        monkeypatch.setenv(name, str(value))
    program = services.minio()
    with subprocess.Popen(program.command, env=program.environment, stdout=subprocess.DEVNULL) as server:
        try:
            root = object_store.client.__wrapped__(os.getpid(), "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")
            until = time.monotonic() + 30
            while not [text for _, text in auditor.told if "CreateBucket" in text or "PutBucket" in text]:
                assert server.poll() is None and time.monotonic() < until
                with suppress(BotoCoreError, ClientError):
                    root.create_bucket(Bucket="audited")
                time.sleep(0.2)
        finally:
            server.terminate()
    token, text = next((token, text) for token, text in auditor.told if "audited" in text)
    assert token.endswith("planted-token") and settings.get("MINIO_ROOT_USER") in text
    assert settings.get("MINIO_ROOT_PASSWORD") not in "".join(text for _, text in auditor.told)


def test_every_test_that_the_page_of_access_names_is_there():
    named = set(re.findall(r"\btest_\w+\.py\b", (settings.ROOT / "docs" / "access.md").read_text()))
    assert len(named) > 10
    assert not named - {path.name for path in (settings.ROOT / "tests").rglob("*.py")}
