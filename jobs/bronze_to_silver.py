"""Validates bronze partitions: `spark-submit jobs/bronze_to_silver.py visits 2026-01-31`."""

from jobs import ledger, program
from jobs.silver_partitions import bronze_to_silver

if __name__ == "__main__":
    program.run(bronze_to_silver, together=True, remaining=ledger.remaining)
