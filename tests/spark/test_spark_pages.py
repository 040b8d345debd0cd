"""Checks what Spark shows of a run: named jobs, live and in the history, and little output for a job run by hand."""

import json
import os
import subprocess
import sys
import time
import urllib.request

from jobs import ledger, program, settings
from stack import services

STEPS = {"validate", "publish", "find dates to validate again", "stage", "compare with the last run"}


def get(address):
    with urllib.request.urlopen(address, timeout=60) as answer:
        return answer.read().decode()


def wait_until(true, seconds=60):
    until = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < until, "it is so in time"
        time.sleep(1)
    return found


def run_job(*command, **environment):
    """Runs a job as a person would, in an environment without marks of pyspark or of this test's session."""
    marks = "PYTHONPATH", "SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED"
    plain = {name: value for name, value in os.environ.items() if name not in marks}
    return subprocess.run(command, env=plain | environment, cwd=settings.ROOT, capture_output=True, text=True)


def resident_jobs():
    [app] = services.resident()
    return json.loads(get(f"{services.resident_page()}/api/v1/applications/{app['id']}/jobs"))


def history():
    return f"http://{services.LOOPBACK}:{services.port('SPARK_HISTORY_PORT')}"


def test_jobs_are_named_by_dataset_date_and_step(hospital):
    before = max((job["jobId"] for job in resident_jobs()), default=-1)  # Spark lists a limited number of jobs
    hospital.validate("patients", 1, hospital.row("patients", "P1"), hospital.row("patients", "P2"))
    hospital.validate("visits", 1, hospital.row("visits", "V1"))
    hospital.validate("patients", 1, hospital.row("patients", "P2"))  # removes a parent
    hospital.load("patients", 1)

    jobs = wait_until(lambda: [job for job in resident_jobs() if job["jobId"] > before])
    names = {job.get("description", job["name"]) for job in jobs}
    day = hospital.day(1)
    assert {name for name in names if "session_id" in name or hospital.key("P1") in name} == set()
    assert {f"patients {day}: {step}" for step in STEPS} <= names, names
    assert f"visits {day}: validate" in names


def test_the_link_of_a_job_that_luigi_runs_shows_it_in_sparks_history(hospital, browser):
    hospital.land("patients", 2, hospital.row("patients", "P1"))
    hospital.bronze("patients", 2)
    command = [sys.executable, "jobs/bronze_to_silver.py", "patients", str(hospital.day(2))]
    luigi = {"RUN_LOG": "x.log", "SPARK_REMOTE": program.spark_connect(), "PYTHONPATH": str(settings.ROOT)}
    done = run_job(*command, **luigi)
    [link] = [line for line in done.stderr.splitlines() if line.startswith(program.TRACKING)]
    link = link.removeprefix(program.TRACKING)
    assert link.startswith(f"{history()}/history/")

    name = f"patients {hospital.day(2)}: publish"
    page = browser.new_page()

    def shown():
        page.goto(link)  # reloads after an error: the server compacts the log of a long run while reading it
        return page.locator("table").get_by_text(name).count() > 0

    wait_until(shown)
    assert page.locator("table").get_by_text(name).first.is_visible()


def test_a_job_by_hand_says_what_it_did_and_nothing_else(hospital):
    hospital.land("patients", 3, hospital.row("patients", "P1"))
    hospital.bronze("patients", 3)
    done = run_job("spark-submit", "jobs/bronze_to_silver.py", "patients", str(hospital.day(3)))
    assert (done.returncode, done.stderr) == (0, "")
    said, remaining = done.stdout.splitlines()
    assert said.startswith(f"silver patients {hospital.day(3)}: 1 rows = 1 accepted + 0 rejected")
    assert remaining == ledger.remaining(hospital.day(3))

    name = f"bronze_to_silver patients {hospital.day(3)}"
    told = f"{history()}/api/v1/applications?status=completed"
    [app] = wait_until(lambda: [each["id"] for each in json.loads(get(told)) if each["name"] == name])
    jobs = json.loads(get(f"{history()}/api/v1/applications/{app}/jobs"))
    assert f"patients {hospital.day(3)}: publish" in {job["description"] for job in jobs if "description" in job}


def test_a_job_by_hand_that_fails_says_why_and_nothing_else(hospital):
    done = run_job("spark-submit", "jobs/bronze_to_silver.py", "patients", str(hospital.day(4)))
    assert (done.returncode, done.stderr) == (1, "")  # Spark prints a program's standard error as its own output
    [line] = done.stdout.splitlines()
    assert line.startswith(f"patients {hospital.day(4)}: bronze patients/"), line
