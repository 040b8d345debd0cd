"""Builds the marts from gold and runs their checks: `python jobs/gold_to_marts.py 2026-01-31`."""

from jobs import program
from jobs.mart_build import gold_to_marts

if __name__ == "__main__":
    program.run(gold_to_marts, words=("date",))
