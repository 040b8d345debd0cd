"""Forks jobs from a process that has already imported their modules, since a campaign runs hundreds of them.

Each line of standard input is a job, {"words", "environment", "out", "plant"}; the answers are its pid, and later its
exit code. A plant names a function of a module that the job imports, a line in it, and the wrong line that replaces it.
"""

import importlib
import inspect
import json
import os
import runpy
import sys

import grpc
import pandas
import pyarrow
import pyspark.sql.connect.functions
import pyspark.sql.connect.session

from jobs import bronze_to_silver, gold_to_marts, landing_to_bronze, silver_to_gold, source_to_bronze

JOBS = bronze_to_silver, gold_to_marts, landing_to_bronze, silver_to_gold, source_to_bronze
IMPORTED = (grpc, pandas, pyarrow, pyspark, *JOBS)


def plant(module: str, function: str, line: str, wrong: str) -> None:
    """Replaces a function with a copy that has a wrong line."""
    place = importlib.import_module(module)
    source = inspect.getsource(getattr(place, function))
    assert source.count(line) == 1, f"{function} no longer says {line}"
    exec(source.replace(line, wrong), vars(place))


def main() -> None:
    for line in iter(sys.stdin.readline, ""):
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            out = os.open(job["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.environ.update(job["environment"])
            sys.argv = job["words"]
            if job["plant"]:
                plant(*job["plant"])
            runpy.run_path(sys.argv[0], run_name="__main__")
            return
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
