"""Loads silver partitions into PostgreSQL: `spark-submit jobs/silver_to_gold.py visits 2026-01-31`."""

from jobs import ledger, program
from jobs.gold_load import silver_to_gold

if __name__ == "__main__":
    program.run(silver_to_gold, together=True, remaining=ledger.remaining)
