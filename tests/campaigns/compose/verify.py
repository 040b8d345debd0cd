"""Verifies what a date must have left in the stack of the settings: `make verify-docker DATE=...`."""

import sys
from datetime import date

from jobs import bronze_files, delta_tables, lake_paths, ledger, marts, program, settings, warehouse
from jobs.catalog import CATALOG
from jobs.program import Refused

MARTS = ("mart_daily_kpis", "mart_department_stats", "mart_patient_stats")


def verify(day: date) -> str:
    """Checks that bronze and silver of the date exist, the eight tables have rows, and no check finds a violation."""
    for dataset in CATALOG.values():
        if bronze_files.bronze_head(dataset, day) is None:
            raise Refused(f"bronze has no {lake_paths.bronze_key(dataset, day)}; run BronzeIngestion for {day}.")
        if not delta_tables.has_silver(dataset, "accepted"):
            raise Refused(f"silver has no {dataset.name}; run SilverPipeline for {day}.")
        if ledger.marker("gold", dataset.name, day) is None:
            raise Refused(f"gold has no marker for {dataset.name} of {day}; run GoldPipeline for {day}.")
    lines = []
    with warehouse.connect() as connection:
        for table in (*CATALOG, *MARTS):
            rows = warehouse.value(connection, f"select count(*) from {table}")
            if not rows:
                raise Refused(f"{table} has no row; run GoldPipeline for {day}.")
            lines.append(f"{table:<24}{rows:>12,}")
        marts.check(connection)
    files = len(list((settings.ROOT / "sql" / "checks").glob("*.sql")))
    return "\n".join([*lines, f"{files} checks of sql/checks hold"])


if __name__ == "__main__":
    try:
        print(verify(program.parse_day(sys.argv[1])))
    except Exception as error:
        program.leave(1, program.sentence(error))
