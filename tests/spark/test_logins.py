"""Checks who can log in to Luigi's scheduler, Spark's master and Spark Connect."""

import http.client
import itertools
import json
import os
import re
import subprocess
import sys
from base64 import b64encode
from contextlib import closing
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import luigi
import psutil
import pytest
from luigi import worker
from luigi.scheduler import RPC_METHODS

from jobs import program, settings
from pipelines import scheduler
from stack import luigid, services, supervision


@pytest.fixture
def login(stack):
    """Returns the header that a browser sends after a person has entered the login."""
    text = f"{settings.get('LUIGI_USER')}:{settings.get('LUIGI_PASSWORD')}"
    return {"Authorization": f"Basic {b64encode(text.encode()).decode()}"}


def ask(path, headers=(), method="GET", **data):
    """Calls luigid as any program on this machine can; returns status and text of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", services.port("LUIGI_PORT"), timeout=60)
    query = f"?data={quote(json.dumps(data))}" if data else ""
    connection.request(method, f"{path}{query}", headers=dict(headers))
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


STRANGE = {"worker": "somebody", "task_id": "Strange__1", "family": "Strange", "module": "strange", "params": {}}


def test_nobody_changes_anything_in_luigid_without_its_login(stack, login):
    writing = sorted(RPC_METHODS.keys() - luigid.READING)
    assert "add_task" in writing and RPC_METHODS.keys() > luigid.READING
    for method in ("GET", "POST"):
        assert {ask(f"/api/{name}", method=method)[0] for name in writing} == {401}
    wrong = {"Authorization": f"Basic {b64encode(b'ecom:sesame').decode()}"}
    assert ask("/api/add_task", wrong, **STRANGE)[0] == 401
    assert "Strange__1" not in ask("/api/task_list", status="", upstream_status="")[1]
    assert ask("/api/prune", login)[0] == 200


def test_reading_calls_add_no_task_and_no_worker(stack):
    """Covers calls that Luigi does not declare as writing: `count_pending` creates the worker that it names."""
    given = {"worker": "nobody", "task_id": "Nothing__1", "task_str": "Nothing", "status": "", "upstream_status": ""}
    known = ask("/api/task_list", status="", upstream_status="")[1]
    for name in luigid.READING:
        method = getattr(luigi.scheduler.Scheduler, name)
        accepted = {key: value for key, value in given.items() if key in method.__code__.co_varnames}
        ask(f"/api/{name}", **accepted)
    tasks = json.loads(ask("/api/task_list", status="", upstream_status="")[1])["response"]
    assert tasks.keys() <= json.loads(known)["response"].keys()
    workers = json.loads(ask("/api/worker_list")[1])["response"]
    assert "nobody" not in [worker["name"] for worker in workers]


@pytest.mark.parametrize(
    "page",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example:8082"},
        {"Host": "[127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_sites_page_gets_nowhere_with_a_browsers_login(login, page):
    status, sentence = ask("/api/add_task", login | page, **STRANGE)
    assert status == 403 and "LUIGI_NAMES" in sentence
    if "Sec-Fetch-Site" not in page:
        assert ask("/static/visualiser/index.html", page)[0] == 403
    assert "Strange__1" not in ask("/api/task_list", status="", upstream_status="")[1]


def test_a_browser_reads_luigis_pages_without_a_login_and_changes_tasks_with_one(stack, browser):
    address = f"http://127.0.0.1:{services.port('LUIGI_PORT')}"
    user = {"username": settings.get("LUIGI_USER"), "password": settings.get("LUIGI_PASSWORD")}
    for credentials in (None, user):
        context = browser.new_context(http_credentials=credentials)
        page = context.new_page()
        page.goto(f"{address}/static/visualiser/index.html")
        page.get_by_text("Task Families").first.wait_for()
        if credentials:
            call = "() => fetch('/api/prune?data=%7B%7D').then(answer => answer.status)"
            assert page.evaluate(call) == 200
        context.close()


def test_a_worker_runs_only_tasks_that_it_has_scheduled_itself(stack, tmp_path, monkeypatch):
    """Refuses tasks even from a client with the login, or from a foreign luigid."""
    ran = tmp_path / "ran"
    strange = (
        f"import luigi, pathlib\npathlib.Path({str(ran)!r}).touch()\n\n\nclass Strange(luigi.Task):\n    override = 1\n"
    )
    (tmp_path / "strange.py").write_text(strange)
    monkeypatch.syspath_prepend(str(tmp_path))
    luigid_of_ours = scheduler.luigid()
    luigid_of_ours.add_task(**STRANGE | {"worker": "careless"})
    with worker.Worker(scheduler=luigid_of_ours, worker_id="careless") as careless:
        careless.run()
    assert not ran.exists()
    assert "Strange__1" in scheduler.tasks("FAILED") | scheduler.tasks("DISABLED")  # after its third failure


class Together(luigi.Task):
    """Declares tasks that Luigi may run as one."""

    numbers = luigi.ListParameter(batch_method=lambda lists: tuple(sorted(itertools.chain(*lists))))
    resources = {"rejudging": 1}  # noqa: RUF012  # a worker without resources is offered only its own tasks
    worker_timeout = 0  # zero makes it run in this process
    override = luigi.BoolParameter(significant=False)
    ran: ClassVar[list] = []
    overridden: ClassVar[set] = set()

    def deps(self):
        scheduler.SCHEDULED[self.task_id] = self
        return []

    def complete(self):
        return {*self.numbers} <= {*self.ran}

    def run(self):
        self.ran.extend(self.numbers)
        self.overridden.add(self.override)


class Root(luigi.WrapperTask):
    def requires(self):
        return [Together(numbers=[number]) for number in (1, 2, 3)]


def test_of_tasks_that_luigid_puts_together_a_worker_runs_its_own_and_leaves_others_alone(tmp_path, monkeypatch):
    state = str(tmp_path / "state.pickle")
    luigid_here = luigi.scheduler.Scheduler(record_task_history=False, state_path=state, retry_delay=900)
    monkeypatch.setattr(scheduler, "luigid", lambda: luigid_here)
    monkeypatch.setattr(scheduler, "SCHEDULED", {})
    monkeypatch.setattr(Together, "ran", [])
    monkeypatch.setattr(Together, "overridden", set())
    others = Together(numbers=[7])
    told = {"family": "Together", "module": Together.__module__, "resources": Together.resources, "batchable": True}
    with worker.Worker(scheduler=luigid_here, worker_id="ours", keep_alive=True, wait_interval=0.1) as ours:
        ours.add(Root())
        for task in luigid_here._state.get_active_tasks():  # as a hostile luigid would hand them out
            task.params |= {"override": "True"} if task.family == "Together" else {}
        luigid_here.add_task(worker="another", task_id=others.task_id, params=others.to_str_params(), **told)
        ours.run()
    assert Together.ran == [1, 2, 3]
    assert Together.overridden == {False}, "the command decides whether to override, not luigid"
    states = {name: task["status"] for name, task in luigid_here.task_list("", "").items()}
    assert states.pop(others.task_id) == "PENDING" and set(states.values()) == {"DONE"}


def test_a_wrong_login_is_told_in_a_sentence(stack):
    words = [str(services.BIN / "luigi"), "--module", "pipelines", "BronzeIngestion", "--date", "2026-01-01"]
    environment = os.environ | {"LUIGI_PASSWORD": "sesame"}
    told = subprocess.run(words, env=environment, cwd=settings.ROOT, capture_output=True, text=True)
    assert told.returncode
    assert "luigid refuses LUIGI_USER and LUIGI_PASSWORD" in told.stderr and "Traceback" not in told.stderr
    assert "sesame" not in told.stdout + told.stderr


# Uses a separate process: a session created in a test becomes the one that later tests continue with.
COUNT = """
import sys
from jobs import program
from pyspark.sql.connect.session import SparkSession
remote = program.spark_connect()
session = (program.builder(remote) if sys.argv[1] == "builder" else SparkSession.builder.remote(remote)).create()
try:
    print(session.range(3).count())
finally:
    session.client.close()
"""
CONNECT = "from jobs import program\nprogram.run(lambda day: program.connect('somebody'), words=['date'])"


def client(code, word, **more):
    """Runs a client of Spark Connect; returns its exit code, standard output and error."""
    environment = os.environ | {"SPARK_REMOTE": program.spark_connect(), "PYTHONPATH": str(settings.ROOT)} | more
    ended = subprocess.run([sys.executable, "-c", code, word], env=environment, capture_output=True, text=True)
    return ended.returncode, ended.stdout, ended.stderr


def test_spark_connect_answers_only_who_shows_its_token(stack):
    assert client(COUNT, "builder")[:2] == (0, "3\n")
    code, _, error = client(COUNT, "plain")
    assert code and "No authentication token" in error
    code, _, error = client(COUNT, "builder", SPARK_CONNECT_TOKEN="sesame")
    assert code and "Invalid authentication token" in error
    code, _, error = client(CONNECT, "2026-01-01", SPARK_CONNECT_TOKEN="sesame")
    assert (code, error.count("\n")) == (1, 1), error
    assert "refuses SPARK_CONNECT_TOKEN" in error and "sesame" not in error


AUTHENTICATED = "-Dspark.authenticate=true -Dspark.authenticate.secret=in-the-environment"


@pytest.mark.parametrize(
    ("secret", "options", "is_answered"), [("", AUTHENTICATED, True), ("sesame", AUTHENTICATED, False), ("", "", False)]
)
def test_the_master_answers_only_who_knows_sparks_secret(stack, secret, options, is_answered):
    """Asks the master to end a driver that does not exist."""
    script = str(settings.ROOT / ".venv" / "bin" / "spark-class")
    words = [script, "org.apache.spark.deploy.Client", "kill", services.master_url(), "driver-of-nobody"]
    environment = os.environ | {"JAVA_TOOL_OPTIONS": options}
    if secret:
        environment["SPARK_AUTH_SECRET"] = secret
    told = subprocess.run(words, env=environment, cwd=settings.ROOT, capture_output=True, text=True)
    said = told.stdout + told.stderr
    assert "This client is deprecated" in said and ("SparkException" not in said) == is_answered, said


def test_sparks_pages_end_no_job(stack):
    [app] = services.resident()
    for page in (services.resident_page(), f"http://127.0.0.1:{services.port('SPARK_MASTER_WEBUI_PORT')}"):
        for path in ("/jobs/job/kill/?id=0", "/stages/stage/kill/?id=0", "/app/kill/"):
            # A connection of its own: the server may close one whose request it does not read to its end.
            connection = http.client.HTTPConnection(page.removeprefix("http://").strip("/"), timeout=60)
            with closing(connection):
                connection.request("POST", path, f"id={app['id']}&terminate=true")
                connection.getresponse().read()
    assert [each["state"] for each in services.resident()] == ["RUNNING"]


def test_postgresql_started_as_root_may_read_as_root_and_write_as_its_own_user(stack):
    """Reads clone and venv wherever they are; CAP_DAC_OVERRIDE would allow writing there, too."""
    process = psutil.Process(supervision.processes()["postgres"]["pid"])
    status = Path(f"/proc/{process.pid}/status").read_text()
    [capabilities] = re.findall(r"^CapEff:\s*(\w+)", status, re.M)
    assert process.uids().effective != 0
    assert int(capabilities, 16) & ~(1 << 2) == 0, "nothing but CAP_DAC_READ_SEARCH"
