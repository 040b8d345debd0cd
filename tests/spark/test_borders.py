"""Checks hostile text in files, errors and command lines at every border to a program that interprets text."""

import csv
import functools
import http.server
import json
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from luigi.worker import Worker

from jobs import borders, landing, object_store, program, reject_export, settings
from jobs.catalog import CATALOG
from pipelines import alert, failures, runs, scheduler
from pipelines.task_log import OnlySentences
from pipelines.tasks import Bronze, MarkedTask
from stack import services
from tests.conftest import Hospital

MARK = "b0rders"  # is part of every hostile text, to find it anywhere
NAMES = (  # column names
    f"<img src=x onerror='window.pwned=1'>{MARK}",
    f"</pre><script>window.pwned=1;alert(1)</script>{MARK}",
    f"\"'><svg onload=window.pwned=1>{MARK}",
    f"`id` $(id) ; & | {MARK}",
    f'=HYPERLINK("http://x.example","{MARK}")',
    f"%s %n %(message)s {{0}} {{{MARK}}} {{{{x}}}}",
    f"{MARK}\x1b[2J\x1b]0;owned\x07",
    f"{MARK}\r\n23:59:59 Gold: forged",
    f"{MARK}\u202egnp.exe",
    MARK * 100,
)
VALUES = (*NAMES, f"javascript:window.pwned=1//{MARK}", f"{MARK}\u2028\u2029\x85\x7f", f"\\u003cb\\x3e{MARK}</script>")
# Unexpected text: a job ends with it, a store answers with it, a file is named by it.
SHOUT = (
    b"\x1b[2J\x1b]0;owned\x07\r23:59:59 Gold: forged \x00 \xff \xe2\x80\xae <img src=x onerror='window.pwned=1'>"
    b"</pre><script>window.pwned=1</script> `id` $(id) %s {0} ~!id \" ' \\ "
) + MARK.encode()
PLAIN = (
    r"\x1b[2J\x1b]0;owned\x07\r23:59:59 Gold: forged \x00 \xff \u202e <img src=x onerror='window.pwned=1'>"
    r"</pre><script>window.pwned=1</script> `id` $(id) %s {0} ~!id " + "\" ' \\ " + MARK
)
TEXT = SHOUT.decode(errors="surrogateescape")
DAY = date(2026, 1, 2)


def is_plain(text):
    """Tells whether a terminal and a log show every line of text literally."""
    return all(line.isprintable() for line in text.split("\n"))


def call(*words, **environment):
    done = subprocess.run(
        [sys.executable, *words],
        cwd=settings.ROOT,
        env=os.environ | {"PYTHONPATH": str(settings.ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said = done.stdout.decode(errors="surrogateescape")
    assert is_plain(said) and "Traceback" not in said, said[-4000:]
    return done.returncode, said


# ---- sentences, terminals, logs ------------------------------------------------------------------------------------


def test_text_is_printable_on_one_line_and_not_of_any_length():
    for text in (*VALUES, TEXT, "\0", "\udcff", "é Łódź 東京 😀"):
        shown = borders.printable(text)
        assert shown.isprintable() and shown.encode() and borders.printable(shown) == shown
        assert shown == text or not text.isprintable()
    assert borders.printable(SHOUT.decode(errors="backslashreplace")) == PLAIN
    assert len(borders.printable("\x1b" * 1_000_000)) < 20_000 and len(borders.quoted("x" * 1_000_000)) < 50
    assert borders.plain("one\ntwo\r\nthree\x1b") == "one\ntwo\\r\nthree\\x1b"


def test_errors_of_stores_and_files_are_one_printable_line(tmp_path):
    for error in (
        ClientError({"Error": {"Code": TEXT}}, "GetObject"),
        program.Refused(TEXT),
        FileNotFoundError(
            2, "No such file", os.fsencode(tmp_path) + b"/" + SHOUT.replace(b"\0", b"").replace(b"/", b"")
        ),
    ):
        assert program.sentence(error).isprintable() and MARK in program.sentence(error)


def test_a_file_of_a_hostile_name_is_told_of_in_a_line(tmp_path):
    place = os.fsencode(tmp_path) + b"/" + SHOUT.replace(b"\0", b"").replace(b"/", b"")
    Path(os.fsdecode(place)).write_text("no folder")
    for line in (["export", str(DAY), "--to", os.fsdecode(place)], ["why", "--", TEXT.replace("\0", "")]):
        code, said = call("-m", "jobs.rejects", *line, POSTGRES_PORT="9")
        assert code == 1 and len(said.splitlines()) == 1
    with pytest.raises(NotADirectoryError) as raised:
        reject_export.write_whole(Path(os.fsdecode(place)) / "x" / "patients.csv", iter([]))
    assert MARK in program.sentence(raised.value) and program.sentence(raised.value).isprintable()


def test_a_word_of_the_command_line_is_quoted():
    word = TEXT.replace("\0", "")
    for words in (["jobs/landing_to_bronze.py", "patients", word], ["jobs/landing_to_bronze.py", word, str(DAY)]):
        code, said = call(*words)
        assert code == 2 and len(said) < 200 and said.count("\n") == 1
    code, said = call("-m", "luigi", "--module", "pipelines", "Day", "--date", word)
    assert code == 2 and "is not a date" in said and said.count("\n") == 1


def test_no_line_of_a_run_s_log_is_forged(tmp_path, monkeypatch):
    monkeypatch.setenv("STACK_DIR", str(tmp_path))
    for text in (TEXT, f"one\n{TEXT}", "23:59:59 Gold: forged"):
        runs.add(DAY, f"Bronze {TEXT}", text)
    lines = (runs.home() / runs.log(DAY)).read_text().split("\n")
    assert lines.pop() == "" and len(lines) == 4
    prefix = borders.printable(f" Bronze {TEXT}: ")
    assert all(line.isprintable() and line[8:].startswith(prefix) for line in lines)


def test_what_luigi_logs_of_an_unexpected_error_moves_no_cursor():
    written = []
    handler = logging.StreamHandler()
    handler.stream = type("Stream", (), {"write": lambda _, text: written.append(text), "flush": lambda _: None})()
    try:
        raise RuntimeError(TEXT)
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, f"100 % of {TEXT} failed: %s", (TEXT,), sys.exc_info())
        record.msg = record.msg.replace("100 % of", "100 %% of").replace("%s {0}", "%%s {0}")
    assert OnlySentences().filter(record)
    handler.emit(record)
    assert MARK in "".join(written) and "Traceback" in "".join(written) and is_plain("".join(written))


# ---- mails and webhooks --------------------------------------------------------------------------------------------


class Web(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.heard.append((dict(self.headers), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def listening():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        server.heard = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def examples():
    """Returns the notification scripts of docs/operations.md: a mail, a webhook with text, a webhook with JSON."""
    text = (settings.ROOT / "docs" / "operations.md").read_text()
    found = [
        block.replace("\n    ", "\n") for block in re.findall(r"^    (#!/bin/sh\n(?:    .*\n)+)", text, re.MULTILINE)
    ]
    return {name: next(each for each in found if word in each) for name, word in
            {"mail": "mail -s", "text": "Title:", "json": "application/json"}.items()}  # fmt: skip


def program_of(folder, script, server=None):
    """Writes an example as an executable for the operator, pointed at a local web server."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tell somebody"
    address = f"http://127.0.0.1:{server.server_address[1]}/" if server else ""
    path.write_text(script.replace("https://hooks.hospital.example/night", address))
    path.chmod(0o755)
    return f'"{path}"'


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STACK_DIR", str(tmp_path / "stack"))
    return tmp_path


@pytest.mark.parametrize("kind", ["text", "json"])
def test_the_documented_webhooks_send_hostile_text_as_text(home, monkeypatch, capfd, kind):
    if not shutil.which("curl"):
        pytest.skip("the example needs curl")
    sentence = f"{TEXT}\nsecond {TEXT}"
    with listening() as server:
        for setting in ("ON_FAILURE", "ON_RECOVERY"):
            monkeypatch.setenv(setting, program_of(home, examples()[kind], server))
        alert.failed(DAY, TEXT, sentence)
        alert.done(DAY)
    assert capfd.readouterr().err == ""
    shown = borders.plain(sentence)
    for (headers, body), begin in zip(server.heard, ("", f"{DAY} is done; before, it failed: "), strict=True):
        if kind == "json":
            assert json.loads(body) == {"date": str(DAY), "text": f"{begin}{shown}\n"}
        else:
            assert body == f"{begin}{shown}\n" and headers["Title"].startswith(f"{DAY} ")
        assert set(headers) <= {"Host", "User-Agent", "Accept", "Content-Type", "Content-Length", "Title"}


def test_the_documented_mail_has_one_subject_and_no_line_that_a_mail_program_obeys(home, monkeypatch):
    told = home / "mail"
    stub = f"#!{sys.executable}\nimport sys\nopen({str(told)!r}, 'w').write(repr((sys.argv[1:], sys.stdin.read())))\n"
    (home / "bin").mkdir()
    (home / "bin" / "mail").write_text(stub)
    (home / "bin" / "mail").chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("ON_FAILURE", program_of(home, examples()["mail"]))
    alert.failed(DAY, TEXT, f"one\n~!touch {home}/pwned\n.\n{TEXT}")
    words, body = eval(told.read_text())
    assert words[0] == "-s" and len(words) == 3 and words[1].isprintable() and MARK in words[1]
    assert all(line.startswith("  ") for line in body.splitlines()) and PLAIN.split(" ")[0] in body
    assert not (home / "pwned").exists()


def test_an_alert_is_lines_on_standard_input_and_a_line_in_each_variable(home, monkeypatch, capfd):
    script = f"#!/bin/sh\n{{ env -0; cat; }} > '{home}/told'\n"
    monkeypatch.setenv("ON_FAILURE", program_of(home, script))
    alert.failed(DAY, TEXT, TEXT)
    *variables, stdin = (home / "told").read_bytes().decode().split("\0")
    assert stdin == f"{borders.printable(TEXT)}\n" and capfd.readouterr().err == ""
    told = dict(each.split("=", 1) for each in variables)
    assert told["ALERT_TASK"] == borders.printable(TEXT) and told["ALERT_OUTCOME"] == "failed"
    assert alert.remembered(DAY).read_text().count("\n") == 2


# ---- a date with hostile files through everything ------------------------------------------------------------------


class Broken(MarkedTask):
    """Fails with a job that ends with unexpected text."""

    ledger = "bronze", "patients"
    retry_count = 1

    def made_in(self):
        return None

    def run(self):
        self.job(os.environ["BROKEN_JOB"])


def fail(text):
    """Makes a Luigi worker run the failing task."""
    with Worker(scheduler=scheduler.luigid()) as worker:
        worker.add(Broken(date=date.fromisoformat(text)))
        worker.run()


def write(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


class Night:
    """Holds the traces of a date with hostile files: a run that ended well, and a task that failed."""

    def __init__(self, hospital, folder, told):
        self.hospital, self.folder, self.told = hospital, folder, told
        self.day, self.said = hospital.day(1), ""
        self.bronze = Bronze(dataset="patients", date=self.day)
        self.broken = Broken(date=self.day)


def land(hospital, day):
    """Lands five files with hostile column names, values and keys, and one file name that is not text."""
    for dataset in CATALOG:
        hospital.land(dataset, 1)
    folder = landing.landing_path(CATALOG["patients"], day).parent
    row = functools.partial(hospital.row, "patients")
    patients = [row(f"P{n}", city=value) for n, value in enumerate(VALUES)]
    patients += [row(f"{value[:100]}-{n}", gender="?") for n, value in enumerate(VALUES)]
    write(folder / "patients.csv", [*CATALOG["patients"].names, *NAMES],
          [[*each.values(), *NAMES] for each in patients])  # fmt: skip
    visits = [hospital.row("visits", f"V{n}", patient_id=hospital.key(f"P{n}"), department=value[:200], doctor_id=value,
                           visit_start_ts=f"{day}T08:00:00", visit_end_ts=f"{day}T09:00:00")
              for n, value in enumerate(VALUES)]  # fmt: skip
    hospital.land("visits", 1, *visits, hospital.row("visits", "V\0", department="NUL\0"))
    (folder / os.fsdecode(SHOUT.replace(b"\0", b"").replace(b"/", b""))).write_text("")
    return folder


@pytest.fixture(scope="module")
def night(stack, spark, tmp_path_factory):
    home = tmp_path_factory.mktemp("night")
    with services.connect() as connection, pytest.MonkeyPatch.context() as patch, listening() as server:
        hospital = Hospital(connection, settings.path("LANDING_DIR"))
        night = Night(hospital, land(hospital, hospital.day(1)), server.heard)
        code, night.said = call("-m", "pipelines", "run", str(night.day))
        assert code == 0, night.said
        job = home / "broken.py"
        output = program.TRACKING.encode() + b"javascript:window.pwned=1\n" + SHOUT + b"\n"
        job.write_text(f"import sys\nsys.stdout.buffer.write({output!r})\nsys.exit(1)\n")
        script = f"#!{sys.executable}\n{WEBHOOK}".replace("PORT", str(server.server_address[1]))
        patch.setenv("ON_FAILURE", program_of(home, script))
        scheduler.disabled.cache_clear()
        assert night.broken.task_id not in scheduler.disabled()
        fail = f"from tests.spark import test_borders; test_borders.fail('{night.day}')"
        call("-c", fail, BROKEN_JOB=str(job))  # in a process without a Spark session, since Luigi forks
        failures.tell_failure(night.day, *failures.failure(night.day, "nothing is known"))
        yield night
        scheduler.disabled.cache_clear()
        alert.forget(night.day)
        hospital.close()
        shutil.rmtree(night.folder)


WEBHOOK = """
import json, os, sys, urllib.request
told = {name: value for name, value in os.environ.items() if name.startswith("ALERT_")}
body = json.dumps(told | {"stdin": sys.stdin.read()}).encode()
urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:PORT/", body), timeout=10).read()
"""


@pytest.fixture
def page(browser):
    """Yields a page that contacts only this machine; checks at the end that no script in a text has run."""
    opened, dialogs = browser.new_page(), []
    opened.route("**/*", lambda route: route.continue_() if "//127.0.0.1:" in route.request.url else route.abort())
    opened.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    yield opened
    assert opened.evaluate("window.pwned") is None and dialogs == []
    opened.close()


def test_a_run_s_lines_name_the_columns_and_move_no_cursor(night):
    [line] = [each for each in night.said.splitlines() if each.startswith("bronze patients")]
    shown = [name for name in NAMES if landing.is_legible(name)]
    assert len(shown) == 6 and all(repr(name) in line for name in shown) and "4 more" in line
    assert night.said.count(MARK) == len(shown), "values and keys stay out"


def test_luigis_page_shows_names_and_errors_as_text(night, page):
    message = scheduler.luigid().get_task_status_message(night.bronze.task_id)["statusMessage"]
    assert "&lt;img src=x" in message and "<" not in message
    page.goto(f"http://127.0.0.1:{services.port('LUIGI_PORT')}/static/visualiser/index.html")
    page.locator("#taskTable_filter input").fill(f"Bronze patients {night.day}")
    page.locator(f'.statusMessage[data-task-id="{night.bronze.task_id}"]').click()
    page.locator("#statusMessageModal pre", has_text="columns nobody declared").wait_for()
    shown = page.locator("#statusMessageModal pre").inner_text()
    assert all(repr(name) in shown for name in NAMES if landing.is_legible(name))
    assert page.locator("#statusMessageModal pre *").count() == 0
    page.locator("#statusMessageModal .close").click()
    page.locator("#statusMessageModal").wait_for(state="hidden")
    page.locator("#taskTable_filter input").fill(f"Broken {night.day}")
    row = page.locator("#taskTable tr", has_text="Broken")
    assert row.locator("a[href^=javascript]").count() == 0
    row.locator(".showError").click()
    page.locator("#errorModal pre", has_text=MARK).wait_for()
    assert page.locator("#errorModal pre").first.inner_text() == PLAIN
    page.locator("#errorModal .close").click()
    page.locator("#errorModal").wait_for(state="hidden")
    row.locator(".statusMessage").click()
    page.locator("#statusMessageModal pre", has_text=MARK).wait_for()
    assert page.locator("#statusMessageModal pre").inner_text() == PLAIN


@pytest.mark.parametrize("path", ["tasklist", "history", "history/by_name/Broken", "tasklist/Broken"])
def test_luigis_task_history_is_text(night, page, path):
    answer = page.goto(f"http://127.0.0.1:{services.port('LUIGI_PORT')}/{path}", wait_until="domcontentloaded")
    assert answer.status == 200 and MARK not in page.content()


def test_sparks_pages_show_a_description_as_text(night, spark, page):
    for text in (*NAMES, PLAIN, f"<a href='javascript:window.pwned=1'>{MARK}</a>"):
        program.describe(spark, text)
        spark.range(1).count()
    spark.conf.unset("spark.job.description")
    until = time.monotonic() + 30
    page.goto(f"{services.resident_page()}/jobs/")
    while MARK not in page.content() and time.monotonic() < until:
        time.sleep(0.5)
        page.reload()
    assert page.get_by_text(f"<img src=x onerror='window.pwned=1'>{MARK}").count()
    for path in ("jobs/", "SQL/", "connect/"):
        page.goto(f"{services.resident_page()}/{path}")
        assert page.locator("img[src=x], svg[onload], a[href*=pwned]").count() == 0
        assert page.evaluate("window.pwned") is None


def test_no_log_holds_a_line_that_is_not_printable_or_forged(night, stack, spark):
    forged = f"{MARK}\x1b[2J\u202e\r\n2026-01-01 00:00:00 ERROR Forged: {MARK}"
    for ask in (
        lambda: spark.read.format("json").load(f"/nowhere/{forged}").count(),
        lambda: spark.sql(f"select * from `{forged}`").collect(),
        lambda: spark.range(1).selectExpr(f"raise_error('{forged}')").collect(),
    ):
        with pytest.raises(Exception):  # noqa: B017  # the type is Spark's choice
            ask()
    found = [
        (file, line)
        for file in (stack / "logs").rglob("*")
        if stat.S_ISREG(file.lstat().st_mode) and MARK.encode() in file.read_bytes()
        for line in file.read_bytes().decode(errors="surrogateescape").split("\n")
        if MARK in line and (not line.replace("\t", "").isprintable() or line.startswith("2026-01-01 00:00:00"))
    ]
    assert found == []


def test_the_run_s_log_and_the_ledger_hold_the_failure_in_a_line(night):
    lines = "".join(file.read_text() for file in (runs.home() / str(night.day)).glob("*.log")).split("\n")
    assert all(line.isprintable() for line in lines) and any(line.endswith(f" broken: {PLAIN}") for line in lines)
    assert not [line for line in lines if line.startswith("23:59:59 Gold")]
    found = night.hospital.postgres.execute(
        "select error from ops.ledger where partition_date = %s and outcome = 'failed'", [night.day]
    )
    assert {error for (error,) in found} == {PLAIN}


@pytest.mark.parametrize(
    "words",
    [
        ["pipelines", "ledger"],
        ["pipelines", "health"],
        ["pipelines", "summary"],
        ["jobs.rejects", "show", "DAY", "--keys"],
        ["jobs.rejects", "why", "KEY"],
    ],
    ids=lambda words: words[1],
)
def test_what_a_person_asks_for_is_answered_in_printable_lines(night, words):
    key = night.hospital.key(f"{VALUES[6][:100]}-6")
    _, said = call("-m", *(word.replace("DAY", str(night.day)).replace("KEY", key) for word in words))
    if words[1] in ("health", "ledger"):
        assert PLAIN in said
    if words[1] in ("show", "why"):
        assert borders.printable(key) in said, said


def test_an_alert_tells_the_failure_in_a_line(night):
    [(_, body)] = night.told
    assert json.loads(body) == {
        "ALERT_DATE": str(night.day),
        "ALERT_TASK": "Broken",
        "ALERT_OUTCOME": "failed",
        "stdin": f"{PLAIN}\n",
    }


def test_the_static_pages_show_values_and_errors_as_text(night, page):
    texts = {}
    for file in sorted((Path(os.environ["STACK_DIR"]) / "dashboards").glob("*.html")):
        period = f"from={night.day}&to={night.day}"
        page.goto(f"http://127.0.0.1:{services.port('DASHBOARDS_PORT')}/{file.name}#{period}")
        page.locator("html[data-state=ready]").wait_for(state="attached")  # the page's policy refuses a function
        assert page.evaluate("window.pwned") is None
        assert page.locator("img[src=x], svg[onload], a[href^=javascript]").count() == 0, file.name
        texts[file.stem] = page.locator("body").text_content()
    assert PLAIN in texts["data-quality"]
    department = f"</pre><script>window.pwned=1;alert(1)</script>{MARK}"
    assert any(department in text for text in texts.values()), list(texts)


def test_an_exported_file_has_no_formula_and_the_source_s_own_bytes_otherwise(night, tmp_path):
    code, _ = call("-m", "jobs.rejects", "export", str(night.day), "--dataset", "patients", "--to", str(tmp_path))
    [file] = tmp_path.rglob("patients.csv")
    assert code == 0 and stat.S_IMODE(file.stat().st_mode) == 0o600
    with file.open(newline="", encoding="utf-8") as opened:
        header, *rows = csv.reader(opened)
    assert header[5 : 5 + len(NAMES)] == [reject_export.as_text(name) for name in NAMES]
    assert [name for name in header if name.startswith("=")] == [] and "'=HYPERLINK" in "".join(header)
    assert len(rows) == len(VALUES) and MARK in "".join(rows[0])


def test_bronze_holds_the_file_as_it_came(night):
    stored = object_store.s3().get_object(
        Bucket=settings.get("MINIO_BUCKET_BRONZE"), Key=f"patients/{landing.folder(night.day)}/patients.csv"
    )
    assert stored["Body"].read() == (night.folder / "patients.csv").read_bytes()
