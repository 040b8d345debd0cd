"""The operator's own commands, and what they are told: a real web server and a real mail server hear it."""

import email.policy
import http.server
import os
import socketserver
import sys
import threading
from contextlib import contextmanager
from datetime import date

import pytest

from pipelines import alert

DAY = date(2026, 1, 2)
SENTENCE = "visits 2026-01-02: the file has not landed; `touch x`; $(id) & land it."
WEBHOOK = """
import os, sys, urllib.request
title = "{ALERT_DATE} {ALERT_OUTCOME} {ALERT_TASK}".format(**os.environ)
page = urllib.request.Request("http://127.0.0.1:PORT/", sys.stdin.buffer.read(), {"Title": title})
urllib.request.urlopen(page, timeout=10).read()
"""
MAIL = """
import email.message, os, smtplib, sys
mail = email.message.EmailMessage()
mail["Subject"] = "{ALERT_DATE} {ALERT_OUTCOME} {ALERT_TASK}".format(**os.environ)
mail["From"], mail["To"] = "platform@hospital.example", "operations@hospital.example"
mail.set_content(sys.stdin.read())
with smtplib.SMTP("127.0.0.1", PORT, timeout=10) as server:
    server.send_message(mail)
"""


class Web(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.heard.append((self.headers["Title"], body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Smtp(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                mail = email.message_from_bytes(
                    b"".join(iter(self.rfile.readline, b".\r\n")), policy=email.policy.default
                )
                self.server.heard.append((mail["Subject"], mail.get_content()))
            self.wfile.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 yes\r\n")


@contextmanager
def listening(handler):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.heard = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STACK_DIR", str(tmp_path / "my stack"))
    return tmp_path


def command(home, script, server):
    """A command with blanks in its path, as a setting writes it."""
    path = home / "tell somebody.py"
    path.write_text(script.replace("PORT", str(server.server_address[1])))
    return f'{sys.executable} "{path}"'


@pytest.mark.parametrize(("script", "handler"), [(WEBHOOK, Web), (MAIL, Smtp)], ids=["webhook", "mail"])
def test_a_failure_and_then_a_recovery_are_told(home, monkeypatch, capfd, script, handler):
    with listening(handler) as server:
        for setting in ("ON_FAILURE", "ON_RECOVERY"):
            monkeypatch.setenv(setting, command(home, script, server))
        alert.done(DAY)
        assert server.heard == [], "nothing had failed"
        alert.failed(DAY, "Bronze visits", SENTENCE)
        alert.done(date(2026, 1, 3))
        alert.done(DAY)
        alert.done(DAY)
    (failed, why), (recovered, again) = server.heard
    assert failed == "2026-01-02 failed Bronze visits" and why.rstrip("\r\n") == SENTENCE
    assert recovered == "2026-01-02 recovered Bronze visits"
    assert again.rstrip("\r\n") == f"2026-01-02 is done; before, it failed: {SENTENCE}"
    assert capfd.readouterr() == ("", "")


def test_a_date_that_is_forgotten_recovers_without_a_word(home, monkeypatch):
    monkeypatch.setenv("ON_RECOVERY", "/nowhere/at/all")
    alert.failed(DAY, "Day", SENTENCE)
    alert.forget(DAY)
    alert.done(DAY)
    assert not alert.remembered(DAY).exists()


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("/nowhere/at/all", "No such file or directory"),
        (f"{sys.executable} -c 'raise SystemExit(3)'", "code 3"),
        (f"{sys.executable} -c 'import time; time.sleep(60)'", "TimeoutExpired"),
        ("'unclosed", "ValueError"),
    ],
)
def test_a_command_that_cannot_tell_is_said_so_and_nothing_fails(home, monkeypatch, capfd, setting, reason):
    monkeypatch.setenv("ON_FAILURE", setting)
    monkeypatch.setattr(alert, "SECONDS", 1)
    alert.failed(DAY, "Day", SENTENCE)
    said = capfd.readouterr().err
    assert said.splitlines()[-1] == f"ON_FAILURE could not tell of 2026-01-02 ({reason}); try its command by hand."


def test_no_secret_reaches_the_command_and_no_shell_reads_its_words(home, monkeypatch):
    monkeypatch.setenv("ON_FAILURE", f"{sys.executable} -c 'import os; print(dict(os.environ))' $HOME;")
    done = []
    monkeypatch.setattr(alert.subprocess, "run", lambda *words, **how: done.append((words, how)))
    alert.failed(DAY, "Day", SENTENCE)
    [((words,), how)] = done
    assert words[3:] == ["$HOME;"] and "shell" not in how
    assert set(how["env"]) <= {*alert.INHERITED, "ALERT_DATE", "ALERT_TASK", "ALERT_OUTCOME"}
    assert os.environ["POSTGRES_PASSWORD"] not in how["env"].values()
