"""Checks that patients' values stay in lake and warehouse, and secrets in the files meant for them.

A whole flow over marked values, under random passwords, must leave neither in a process list, log, page or file.
"""

import ast
import csv
import io
import itertools
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from urllib.parse import quote

import psutil
import psycopg
import pytest
import zstandard

from jobs import delta_tables, program, settings
from jobs.catalog import CATALOG
from jobs.defects import defects
from stack import services, supervision
from tests.conftest import SECRETS
from tests.support.examples import VALID

FIRST, SECOND = date(2003, 5, 1), date(2003, 5, 2)

# Marks a patient's value in texts and keys, in dates and timestamps, and in amounts.
MARK = re.compile(rb"(?i)QZAN[0-9]\w*|19(?:13|17|21)-[0-9]{2}-[0-9]{2}|48151[0-9]{2}\.[0-9]{2}")

# How a row breaks each of the further rules; the changes for other codes follow from the code.
BREAKS = {
    "birth_after_registration": {"birth_date": "1921-05-21"},
    "visit_end_not_after_start": {"visit_end_ts": "1913-02-13T03:47:19"},
    "discharge_not_after_admit": {"discharge_ts": "1913-02-13T03:47:19"},
    "negative_treatment_cost": {"treatment_cost": "-4815191.11"},
    "negative_total_amount": {"total_amount": "-4815192.22", "insurance_amount": ""},
    "negative_patient_amount": {"patient_amount": "-4815193.33"},
    "insurance_exceeds_total": {"insurance_amount": "4815194.44"},
    "paid_without_payment_ts": {"payment_ts": ""},
}
MALFORMED = b'QZAN60,QZAN60,1913-02-13\nQZAN61\0,1913-02-13\nQZAN62,"QZAN62,1913-02-13\n'


def key(dataset, number):
    return f"QZAN{number:02}{dataset}"


def sound(dataset, number, **changes):
    """Returns a row to accept, with marks in all but listed values; its parent has the same number, up to 9."""
    texts = {
        "text": f"QZAN{number:02}",
        "date": f"1913-02-{number % 28 + 1:02}",
        "timestamp": f"1917-03-{number % 28 + 1:02}T03:47:19",
        "decimal": f"48151{number:02}.42",
    }
    row = {"note": f"QZAN{number:02}note"}
    for column in CATALOG[dataset].columns:
        row[column.name] = VALID[dataset][column.name] if column.one_of else texts[column.type]
    row |= {name: key(parent, number if number < 10 else 1) for name, parent in CATALOG[dataset].parents.items()}
    later = {"date": "1917-03-19", "timestamp": "1917-04-30T01:02"}  # for all but the first time in a row
    row |= {column.name: later[column.type] for column in [c for c in CATALOG[dataset].columns if c.is_time][1:]}
    return row | {CATALOG[dataset].key: key(dataset, number)} | changes


def broken(dataset, code, number):
    """Returns a row to reject with this code."""
    kind, _, column = code.partition("_")
    if kind == "missing":
        return sound(dataset, number, **{column: ""})
    if kind in ("unreadable", "unknown", "orphan"):
        return sound(dataset, number, **{column: f"QZAN{number}{column}"})
    if kind == "duplicate":
        return sound(dataset, 1, note=f"QZAN{number}note")
    if code not in BREAKS:
        return next(d for d in defects(dataset) if d.reasons == code).spoil(sound(dataset, number), 0)
    return sound(dataset, number, **BREAKS[code])


def land(dataset, day, rows, tail=b""):
    """Lands a file with an undeclared column and `tail` appended as is; returns its path."""
    path = settings.path("LANDING_DIR") / f"{day:%Y/%m/%d}" / f"{dataset}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*CATALOG[dataset].names, "note"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode() + tail)
    return path


def first_rows(dataset):
    """Returns rows of the first date: accepted ones, and one for each code except malformed_row.

    The parent of the third row comes later. Money that stays, arrives or goes is never a single amount, in whatever
    order dates are revalidated: a sum over one row would be that row's value.
    """
    codes = [code for code in CATALOG[dataset].reasons if code != "malformed_row"]
    rows = [sound(dataset, 1), sound(dataset, 2), *(broken(dataset, code, 10 + n) for n, code in enumerate(codes))]
    if dataset != "patients":
        rows.append(sound(dataset, 3))
    if CATALOG[dataset].amount:
        rows += [sound(dataset, 6 + visit, visit_id=key("visits", visit)) for visit in (1, 2, 3)]
    return rows


def land_refused(day):
    """Lands five files that bronze refuses, each for a different reason."""
    paths = {dataset: land(dataset, day, [sound(dataset, 1), sound(dataset, 2)]) for dataset in CATALOG}

    def spoil(dataset, old, new):
        content = paths[dataset].read_bytes()
        assert old in content
        paths[dataset].write_bytes(content.replace(old, new, 1))

    spoil("patients", b"QZAN01note", b"QZAN01\xff")
    spoil("visits", b",".join(name.encode() for name in (*CATALOG["visits"].names, "note")) + b"\n", b"")
    spoil("visits", b"QZAN01note", key("visits", 1).encode())  # the first row is now the header, and repeats a value
    spoil("admissions", b"QZAN01note", b"QZAN01" * 20_000)
    spoil("treatments", key("treatments", 1).encode(), b"QZAN01" * 100)
    spoil("billing", b"payment_ts,note", b"4815101.42,4815101.42")


def call(*words, fails=False, **more):
    """Returns a command's output; checks that it succeeds, or fails if `fails`."""
    given = {n: v for n, v in os.environ.items() if n not in ("SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED")} | more
    done = subprocess.run(words, cwd=settings.ROOT, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert bool(done.returncode) == fails, done.stdout.decode()[-4000:]
    return done.stdout


def without_keys(said):
    """Removes keys from the output of a command that was asked for keys; checks that there were some."""
    rest, keys = re.subn(rf"QZAN[0-9]+({'|'.join(CATALOG)})\b".encode(), b"", said)
    assert keys
    return rest


def call_job(statement):
    """Returns the output of a job that fails at `statement` over the marked patients of silver, at any row."""
    job = f"""
from jobs import delta_tables, gold, program
def job(dataset, day):
    rows = delta_tables.silver(program.spark("failing"), dataset).filter(f"_partition_date = '{{day}}'")
    {statement}
program.run(job)
"""
    remote = f"sc://127.0.0.1:{settings.get('SPARK_CONNECT_PORT')}"
    return call(sys.executable, "-c", job, "patients", str(FIRST), fails=True, SPARK_REMOTE=remote)


BACKTEST = """
from dataclasses import replace
from jobs import backtest
from jobs.catalog import CATALOG
from jobs.defects import defects
CATALOG["patients"] = replace(CATALOG["patients"], rules=())
backtest.main()
"""


class Watch:
    """Records what others see of processes: all command lines, and this stack's open addresses."""

    def __init__(self):
        self.commands, self.addresses = set(), set()

    def look_at_commands(self):
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                self.commands.add(" ".join(process.cmdline()))

    def look_at_addresses(self):
        services, home, ours = {each.pid for each in supervision.leftovers()}, os.environ["STACK_DIR"], {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid in services or process.environ().get("STACK_DIR") == home:
                    ours[process.pid] = process.name()
        for each in psutil.net_connections("tcp"):
            if each.pid in ours and each.status == psutil.CONN_LISTEN:
                self.addresses.add((ours[each.pid], each.laddr.ip))


@contextmanager
def watched():
    """Runs a Watch during the block."""
    watch, over = Watch(), threading.Event()

    def look():
        for number in itertools.count():
            watch.look_at_commands()
            if number % 5 == 0:
                watch.look_at_addresses()
            if over.wait(0.2):
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def said(stack, tmp_path_factory):
    """Returns the output of commands, Luigi and the process list for everything that can happen to two dates."""
    with watched() as watch:
        said = happen(tmp_path_factory.mktemp("exports"))
    return said | {"command lines": "\n".join(watch.commands).encode(), "addresses": repr(watch.addresses).encode()}


def happen(exports):
    """Runs everything that can happen to two dates with marked values; returns the output of commands and Luigi."""
    python, said = sys.executable, {}
    for dataset in CATALOG:
        land(dataset, FIRST, first_rows(dataset), MALFORMED)
    said["first date"] = call(python, "-m", "pipelines", "run", str(FIRST))
    land_refused(SECOND)
    said["refused"] = call(python, "-m", "pipelines", "run", str(SECOND), fails=True)
    said |= {f"{address} when refused": content for address, content in luigi_pages()}
    said["by hand"] = call("spark-submit", "jobs/bronze_to_silver.py", "visits", str(FIRST))
    for dataset in CATALOG:
        land(dataset, SECOND, [sound(dataset, 4), sound(dataset, 5)])
    late, update = sound("patients", 3), sound("patients", 2, city="QZAN99moved")
    land("patients", SECOND, [sound("patients", 4), sound("patients", 5), late, update])
    lost = key("patients", 1)  # a patient whose dependent rows go as well
    land("patients", FIRST, [row for row in first_rows("patients") if row["patient_id"] != lost], MALFORMED)
    range_of = "--of", "Day", "--start", str(FIRST), "--stop", str(SECOND + timedelta(days=1))
    # Nearly all rows of the first date's patients are rejected now, which an operator overrides.
    said["both again"] = call(
        python, "-m", "luigi", "--module", "pipelines", "RangeDaily", *range_of, "--QualityGate-override"
    )
    for report in ("ledger", "summary"):
        said[report] = call(python, "-m", "pipelines", report)
    said["rejects"] = call(python, "-m", "jobs.rejects", "show", str(FIRST))
    said["export"] = call(python, "-m", "jobs.rejects", "export", str(FIRST), "--to", str(exports))
    said["backtest"] = call(python, "-c", BACKTEST, "--first", str(FIRST), "--last", str(SECOND))
    # A user who asks for keys gets keys and nothing else.
    said["keys"] = without_keys(call(python, "-m", "jobs.rejects", "show", str(FIRST), "--keys"))
    said["why"] = without_keys(call(python, "-m", "jobs.rejects", "why", KEY=key("visits", 3)))
    said["errors"] = fail()
    # Luigi's scheduler writes its state to disk when it ends.
    supervision.supervisor().stopProcess("luigid")
    supervision.supervisor().startProcess("luigid")
    while services.SERVICES["luigid"].lacking():
        time.sleep(0.2)
    return said


def fail():
    """Makes jobs fail over rows in Spark's executors and in PostgreSQL; returns their output."""
    with services.connect() as postgres:
        postgres.execute("create unlogged table staging.picky (city text check (city = 'none'))")
        said = call_job("gold.append(rows.select('city'), 'staging.picky')")
        postgres.execute("drop table staging.picky")
        marked = "from patients where patient_id like 'QZAN%'"
        for statement in (f"insert into patients select * {marked}", f"select city::date {marked}"):
            with pytest.raises(psycopg.Error, match="QZAN") as failure:
                postgres.execute(statement)
            said += program.sentence(failure.value).encode()
    return said


# --- places to search ------------------------------------------------------------------------------------------------


def is_data(path):
    """Tells whether a file under STACK_DIR is data: objects, tables with their log, Spark's working files."""
    buckets = [f"minio/{settings.get(name)}" for name in ("MINIO_BUCKET_BRONZE", "MINIO_BUCKET_SILVER")]
    places = [*buckets, "minio/.minio.sys/tmp", "postgres/base", "postgres/pg_wal", "spark/local"]
    return any(f"{path}/".startswith(f"{place}/") for place in places)


def files(stack, under="", data=False):
    """Yields (name, content) of every file of the stack, either only data or all but data."""
    for path in (stack / under).rglob("*"):
        name = path.relative_to(stack)
        if is_data(name) == data and path.is_file() and path.suffix != ".jar":
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # removed meanwhile, as an event log compacted by the history server
                continue
            if path.suffix == ".zstd":
                reader = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True)
                content = reader.read(1 << 30)
            yield str(name), content


def get(address):
    with urllib.request.urlopen(address, timeout=120) as answer:
        return answer.read()


def luigi_pages():
    """Returns (address, content) of what Luigi's scheduler shows and answers."""
    luigi = f"http://127.0.0.1:{settings.get('LUIGI_PORT')}"
    addresses = [f"{luigi}/history", f"{luigi}/api/graph", f"{luigi}/api/worker_list"]
    for state in ("PENDING", "DONE", "FAILED", "DISABLED"):
        tasks = f"{luigi}/api/task_list?data=" + quote(json.dumps({"status": state, "limit": False}))
        addresses.append(tasks)
        failed = json.loads(get(tasks))["response"] if state in ("FAILED", "DISABLED") else []
        addresses += [f"{luigi}/api/fetch_error?data=" + quote(json.dumps({"task_id": task})) for task in failed]
    return [(address, get(address)) for address in addresses]


def spark_pages():
    """Returns (address, content) of Spark's pages and APIs: the Spark Connect server's, and the history."""
    master, worker, history = (
        f"http://127.0.0.1:{settings.get(name)}"
        for name in ("SPARK_MASTER_WEBUI_PORT", "SPARK_WORKER_WEBUI_PORT", "SPARK_HISTORY_PORT")
    )
    [app] = (app["id"] for app in services.resident())
    about, live = f"{master}/app/?appId={app}", services.resident_page()
    addresses = [master, f"{master}/json/", about, worker, f"{worker}/json/", history]
    addresses += [f"{worker}/logPage/?appId={app}&executorId=0&logType=stderr&byteLength=1000000"]
    tabs = ("jobs", "stages", "storage", "environment", "executors", "SQL", "connect")
    addresses += [f"{live}/{tab}/" for tab in tabs]
    told = ("jobs", "stages?details=true", "sql?length=10000", "environment", "storage/rdd", "allexecutors")
    ended = [each["id"] for each in json.loads(get(f"{history}/api/v1/applications")) if each["id"] != app]
    for place, each in ((live, app), *((history, each) for each in ended)):
        addresses += [f"{place}/api/v1/applications/{each}/{what}" for what in told]
    executions = json.loads(get(f"{live}/api/v1/applications/{app}/sql?length=10000&details=false"))
    addresses += [f"{live}/SQL/execution/?id={each['id']}" for each in executions[-10:]]
    return ((address, get(address)) for address in addresses)


def records(postgres):
    """Yields (name, content) of the ledger's tables."""
    for table in ("ops.ledger", "ops.receipts", "ops.reasons"):
        rows = postgres.execute(f"select each::text from {table} as each").fetchall()
        yield table, "\n".join(row for (row,) in rows).encode()


def words(*texts):
    """Returns a pattern for these texts, also in URL and JSON form."""
    forms = {form for text in texts for form in (text, quote(text), json.dumps(text)[1:-1])}
    return re.compile("|".join(map(re.escape, sorted(forms))).encode())


class Search:
    """Searches (name, content) for marks; records the bytes and names searched, and the marks found by name."""

    def __init__(self, *places, mark=MARK):
        self.bytes, self.names, self.found = 0, [], {}
        for name, content in itertools.chain(*places):
            self.bytes += len(content)
            self.names.append(name)
            if marks := set(mark.findall(content)):
                self.found[name] = marks


def all_logged(spark, stack):
    """Waits until the Spark Connect server's event log contains a query made now, and so everything before it."""
    word = f"now-{time.time()}"
    spark.sql(f"select '{word}' as word").collect()
    for _ in range(60):
        if any(word.encode() in content for _, content in files(stack, "spark/events")):
            return
        time.sleep(1)
    raise AssertionError(f"{word} has not come to the event log")


def test_the_marked_values_are_in_the_lake_the_rejects_and_gold(said, stack, spark, postgres):
    cities = {city for (city,) in postgres.execute("select city from patients where patient_id like 'QZAN%'")}
    assert cities == {"QZAN99moved", "QZAN03", "QZAN04", "QZAN05"}
    codes = postgres.execute("select dataset, reason from ops.reasons where hits > 0 and partition_date = %s", [FIRST])
    assert {tuple(row) for row in codes} == {(name, code) for name in CATALOG for code in CATALOG[name].reasons}
    for dataset in CATALOG.values():
        rejected = delta_tables.silver(spark, dataset, "rejected").filter(f"_partition_date = '{FIRST}'")
        assert MARK.search(repr(rejected.collect()).encode())
    assert len(said["refused"].splitlines()) >= 5
    assert len(Search(files(stack, data=True)).found) > 10


def test_no_command_log_page_ledger_row_or_event_log_holds_any_of_them(said, stack, spark, postgres):
    all_logged(spark, stack)
    search = Search(said.items(), files(stack), luigi_pages(), spark_pages(), records(postgres))
    # The dashboards' pages hold sums by day, city, department and treatment, as intended, and no key.
    pages = {place: values for place, values in search.found.items() if place.startswith("dashboards/")}
    keys = {key(dataset, number).encode() for dataset in CATALOG for number in range(20)}
    assert {place: values & keys for place, values in pages.items() if values & keys} == {}
    assert {place: values for place, values in search.found.items() if place not in pages} == {}
    assert search.bytes > 10_000_000
    for place in (
        "spark/events/",
        "spark/work",
        "luigi/state",
        "luigi/history",
        "logs/postgres",
        "lineage/events",
        "http",
        "ops.ledger",
    ):
        assert any(name.startswith(place) for name in search.names), place


def test_the_search_finds_what_is_planted_and_what_spark_quotes(said, stack, spark, postgres):
    (stack / "logs" / "planted.log").write_text("something about QZAN01ville\n")
    planted = "('planted', 'bronze', 'patients', '2033-05-01', 'born 1913-02-17')"
    postgres.execute(f"insert into ops.ledger (run_id, layer, dataset, partition_date, error) values {planted}")
    try:
        casting = call_job("rows.selectExpr('cast(city as int)').collect()")  # jobs use try_cast
        all_logged(spark, stack)
        search = Search({"said": b"4815162.42"}.items(), files(stack), spark_pages(), records(postgres))
    finally:
        (stack / "logs" / "planted.log").unlink()
        postgres.execute("delete from ops.ledger where run_id = 'planted'")
    assert b"CAST_INVALID_INPUT" in casting and not MARK.search(casting), "the job itself says no value"
    for place in ("said", "logs/planted", "ops.ledger", "spark/events", "spark/work", "logs/spark-connect", "http"):
        assert any(name.startswith(place) for name in search.found), place


# --- secrets ---------------------------------------------------------------------------------------------------------

# The stack's files that hold a secret, readable by their owner alone: the JDBC driver's password file, MinIO's users.
KEEPERS = ("pgpass", "minio/.minio.sys/config/iam/")


def test_no_secret_is_in_a_command_line_log_page_or_file_but_those_that_keep_them(said, stack, spark, postgres):
    all_logged(spark, stack)
    mark = words(*map(settings.get, SECRETS))
    search = Search(said.items(), files(stack), luigi_pages(), spark_pages(), records(postgres), mark=mark)
    assert {name: marks for name, marks in search.found.items() if not name.startswith(KEEPERS)} == {}
    for keeper in KEEPERS:
        assert any(name.startswith(keeper) for name in search.found), f"{keeper} is where the search finds secrets"
    assert {name: mode for name in search.found if (mode := (stack / name).stat().st_mode & 0o777) != 0o600} == {}
    assert stack.stat().st_mode & 0o777 == 0o700
    assert len(said["command lines"]) > 10_000 and b"bronze_to_silver" in said["command lines"]
    assert any(name.endswith("/environment") for name in search.names)


OPEN = "import socket, time; server = socket.create_server(('', 0)); time.sleep(60)"
FAILING = """
import os
import luigi
from luigi.contrib.spark import SparkSubmitTask
class Failing(SparkSubmitTask):
    app, spark_submit, retry_count = "nothing.py", "false", 1
luigi.build([Failing()], scheduler_url=os.environ.pop("LUIGID"))  # which it would tell, too
"""


def test_the_search_finds_secrets_that_are_planted_and_an_open_port(said, stack):
    """Plants secrets on a command line, in a log, and where Luigi's SparkSubmitTask leaves them: pages and terminal."""
    secret = secrets.token_hex(16)
    with watched() as watch, subprocess.Popen([sys.executable, "-c", OPEN, f"--key={secret}"]) as planted:
        until = time.monotonic() + 30
        # The port may be seen before the command line, so look until both are.
        while not (secret in "".join(list(watch.commands)) and "0.0.0.0" in {ip for _, ip in list(watch.addresses)}):
            assert time.monotonic() < until, "both are seen in time"
            time.sleep(0.1)
        planted.kill()
    (stack / "logs" / "planted.log").write_text(f"connecting with {secret}\n")
    known = {name: os.environ[name] for name in ("PATH", "LUIGI_CONFIG_PATH", "LUIGI_HOST", "LUIGI_PORT", "STACK_DIR")}
    login = f"{settings.get('LUIGI_USER')}:{settings.get('LUIGI_PASSWORD')}"
    known |= {"KEY": secret, "LUIGID": f"http://{login}@127.0.0.1:{settings.get('LUIGI_PORT')}"}
    try:
        failed = subprocess.run([sys.executable, "-c", FAILING], env=known, capture_output=True)
        places = {"command lines": "\n".join(watch.commands).encode(), "terminal": failed.stderr}
        search = Search(places.items(), files(stack, "logs"), luigi_pages(), mark=words(secret))
    finally:
        (stack / "logs" / "planted.log").unlink()
    for place in ("command lines", "terminal", "logs/planted", "http"):
        assert any(name.startswith(place) for name in search.found), place
    assert "0.0.0.0" in {ip for _, ip in watch.addresses}


def test_no_task_is_one_of_luigis_that_tell_their_environment_when_they_fail():
    from luigi.contrib.external_program import ExternalProgramTask

    from pipelines import tasks

    assert [
        each for each in vars(tasks).values() if isinstance(each, type) and issubclass(each, ExternalProgramTask)
    ] == []


def test_whatever_runs_listens_on_this_machine_only(said):
    addresses = ast.literal_eval(said["addresses"].decode())
    assert {"java", "postgres", "minio"} <= {name for name, _ in addresses}
    assert {(name, ip) for name, ip in addresses if ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")} == set()
