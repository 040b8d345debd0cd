"""Checks that a server in PostgreSQL's place that asks for the password other than by SCRAM gets none."""

import os
import socketserver
import struct
import subprocess
import sys
import threading
import time

import pytest

from jobs import gold, settings

PASSWORD = "planted-password"
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
# Authentication requests of protocol 3.0: clear-text password, MD5, or none.
CLEAR, MD5, NOTHING = struct.pack("!I", 3), struct.pack("!I", 5) + b"salt", struct.pack("!I", 0)


class Impostor(socketserver.StreamRequestHandler):
    """Listens without TLS, asks with `server.question`, and records the answers."""

    def handle(self):
        while True:
            [size] = struct.unpack("!I", self.rfile.read(4))
            message = self.rfile.read(size - 4)
            if struct.unpack("!I", message[:4])[0] not in (SSL_REQUEST, GSS_REQUEST):
                break
            self.wfile.write(b"N")
        self.server.asked += 1
        self.wfile.write(b"R" + struct.pack("!I", 4 + len(self.server.question)) + self.server.question)
        self.server.answers.append(self.connection.recv(1000))


@pytest.fixture
def impostor():
    """Starts impostors that ask with a given question; stops them afterwards."""
    started = []

    def start(question):
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Impostor)
        server.daemon_threads, server.question, server.asked, server.answers = True, question, 0, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def answers(server):
    """Returns the answers after every connection has ended."""
    for _ in range(1000):
        if server.asked and len(server.answers) == server.asked:
            return server.answers
        time.sleep(0.01)
    raise AssertionError(f"asked {server.asked}, answered {len(server.answers)}")


def ledger(server, **more):
    """Runs `make ledger` with this server as the warehouse."""
    environment = os.environ | {"POSTGRES_PORT": str(server.server_address[1]), "POSTGRES_PASSWORD": PASSWORD} | more
    command = [sys.executable, "-m", "pipelines", "ledger"]
    return subprocess.run(command, env=environment, cwd=settings.ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("question", [CLEAR, MD5, NOTHING], ids=["clear", "md5", "nothing"])
def test_an_impostor_gets_no_password_and_is_told_of_in_a_sentence(impostor, question):
    server = impostor(question)
    told = ledger(server)
    assert (told.returncode, told.stdout) == (1, "")
    assert "does not ask for the password by scram-sha-256, so it got none; see who listens there" in told.stderr
    assert told.stderr.count("\n") == 1
    assert answers(server) == [b""]


def test_the_search_would_find_a_password_where_a_hospital_allows_another_method(impostor):
    server = impostor(CLEAR)
    ledger(server, PGREQUIREAUTH="password")
    assert PASSWORD.encode() in answers(server)[0]


@pytest.mark.parametrize("question", [CLEAR, MD5, NOTHING], ids=["clear", "md5", "nothing"])
def test_spark_gives_an_impostor_no_password_either(spark, impostor, monkeypatch, question):
    server = impostor(question)
    monkeypatch.setenv("POSTGRES_PORT", str(server.server_address[1]))
    options = gold.jdbc("staging.keys")
    options["url"] += f"&password={PASSWORD}"
    with pytest.raises(Exception, match="not allowed by requireAuth"):
        spark.read.format("jdbc").options(**options).load().collect()
    assert set(answers(server)) == {b""}
    if question == CLEAR:
        options["url"] = options["url"].replace("requireAuth=scram-sha-256", "requireAuth=password")
        with pytest.raises(Exception, match="JDBC"):
            spark.read.format("jdbc").options(**options).load().collect()
        assert PASSWORD.encode() in answers(server)[-1]
