"""Programs in forked processes: to others they look as if they had been called by themselves."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from jobs import settings
from pipelines import forked

TELLS = """
import os, sys
print(sys.argv[1:], os.environ["TOLD"], __name__)
print("\\udcff as it is", file=sys.stderr)
"""
ENDS = {
    "by itself": ("", 0, ""),
    "with a code": ("sys.exit(3)", 3, ""),
    "with a sentence": ("sys.exit('no')", 1, "no\n"),
    "with an error": ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
    "by a signal": ("os.kill(os.getpid(), 9)", -9, ""),
}
# Luigi's worker, the process of a task, and a job that would take minutes.
WORKER = """
import os, sys
from pipelines import forked
if not os.fork():
    with forked.started(sys.argv[1], [], {}) as job:
        print(job.process.pid, os.getpid(), flush=True)
os.wait()
"""
TITLED = """
import sys
from pipelines import forked, tasks
with forked.started(sys.argv[1], ["visits", "2026-01-31"], {}) as job:
    print(job.output.read().decode(), end="")
"""


@pytest.mark.parametrize("how", ENDS)
def test_a_program_ends_as_it_would_by_itself(tmp_path, how):
    end, code, said = ENDS[how]
    script = tmp_path / "job.py"
    script.write_text(TELLS + end)
    with forked.started(str(script), ["visits", "2026-01-31"], {"TOLD": "a setting"}) as job:
        lines = job.output.read().decode().splitlines(keepends=True)
    assert job.returncode == code
    assert lines[:2] == ["['visits', '2026-01-31'] a setting __main__\n", "\\udcff as it is\n"]
    assert "".join(lines[2:]).endswith(said)
    assert "TOLD" not in os.environ, "it has an environment of its own"


def test_a_job_has_a_command_line_of_its_own(tmp_path):
    """It has one too where the settings replace the environment's first variable, which is next to it in memory."""
    script = tmp_path / "job.py"
    script.write_text("import psutil; print(' '.join(psutil.Process().cmdline()).strip())")
    environment = {"TZ": "Europe/Rome"} | {name: value for name, value in os.environ.items() if name != "TZ"}
    command = [sys.executable, "-c", TITLED, str(script)]
    told = subprocess.check_output(command, cwd=settings.ROOT, env=environment, text=True)
    assert told == f"{sys.executable} {script} visits 2026-01-31\n"


def test_a_worker_that_is_killed_leaves_no_job_behind(tmp_path):
    script = tmp_path / "job.py"
    script.write_text("import time; time.sleep(300)")
    command = [sys.executable, "-c", WORKER, str(script)]
    with subprocess.Popen(command, cwd=settings.ROOT, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        left = [psutil.Process(int(pid)) for pid in worker.stdout.readline().split()]
        assert len(left) == 2 and all(process.is_running() for process in left)
        worker.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(left, timeout=10)
    assert not alive, alive


def test_a_job_finds_its_imports_made(tmp_path):
    """The process that it was forked from has made them."""
    script = tmp_path / "job.py"
    script.write_text(
        "import sys; sys.exit(str({'pyspark.sql.connect.session', 'pandas'} - sys.modules.keys()) != 'set()')"
    )
    forked.preload()
    with forked.started(str(script), [], {}) as job:
        pass
    assert job.returncode == 0
