"""Forks jobs from a process that has already imported their modules, since a campaign runs hundreds of them.

Each line of standard input is a job, {"words", "environment", "out", "plant"}; the answers are its pid, and later its
exit code. A plant names a module's function, a line in it, and the wrong line that replaces it.
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

from jobs import bronze_to_silver, gold_to_marts, landing_to_bronze, program, silver_to_gold, source_to_bronze

OF_A_DATASET = bronze_to_silver, landing_to_bronze, silver_to_gold
IMPORTED = (grpc, pandas, pyarrow, pyspark, gold_to_marts, source_to_bronze, *OF_A_DATASET)


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
                # The script's own functions are in its module, where one of them may be the planted one.
                name = os.path.basename(sys.argv[0]).removesuffix(".py")
                words = ("date",) if name == "gold_to_marts" else ("dataset", "date")
                program.run(getattr(importlib.import_module(f"jobs.{name}"), name), words)
            else:
                runpy.run_path(sys.argv[0], run_name="__main__")
            return
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
