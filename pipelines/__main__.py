"""What `make run` and `make demo` call: `python -m pipelines run 2026-01-31 [--force]` and `... summary`."""

import argparse
import sys
from datetime import datetime, timezone

from luigi.retcodes import run_with_retcodes

from jobs import program, settings, warehouse
from jobs.catalog import CATALOG
from pipelines.tasks import Day, Failed


def main() -> None:
    parser = argparse.ArgumentParser(prog="pipelines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="bring one date through all layers, if it is due")
    run.add_argument("date")
    run.add_argument("--force", action="store_true", help="run it all the same")
    commands.add_parser("summary", help="rows per table, rejects per reason, URLs")
    given = parser.parse_args()
    try:
        if given.command == "summary":
            print(summary())
        else:
            run_day(given.date, given.force)
    except program.Refused as error:
        program.leave(2, str(error))
    except Failed as error:
        program.leave(1, str(error))
    except Exception as error:
        program.leave(1, program.sentence(error))


def run_day(text: str, force: bool) -> None:
    """Runs Day for a date, or says that it is current; exits with Luigi's code."""
    day = program.parse_day(text)
    if not force and Day(date=day).complete():
        print(
            f"{day} is current: its files, rules and parents are those of its last run. FORCE=1 runs it all the same."
        )
        return
    since = ["--since", datetime.now(timezone.utc).isoformat()] if force else []
    try:
        run_with_retcodes(["--module", "pipelines", "Day", "--date", str(day), "--log-level", "WARNING", *since])
    except SystemExit as end:
        if end.code:
            print(f"{day} is not done; the same command goes on from here once the cause is gone.", file=sys.stderr)
        raise


def summary() -> str:
    """Rows of every gold table and mart, rejected rows per dataset and reason, and where to look."""
    with warehouse.connect() as connection:
        marts = ["mart_daily_kpis", "mart_department_stats", "mart_patient_stats"]
        lines = ["Rows"]
        for table in [*CATALOG, *marts]:
            rows = warehouse.value(connection, f"select count(*) from {table}")
            lines.append(f"  {table:<24}{rows:>12,}")
        lines.append("Rejected, all dates")
        for dataset in CATALOG:
            found = connection.execute(
                "select reason, sum(hits) from ops.reasons natural join ops.receipts "
                "where layer = 'silver' and dataset = %s and hits > 0 group by reason order by 2 desc, 1",
                [dataset],
            )
            lines += [f"  {dataset:<12}{reason:<28}{hits:>8,}" for reason, hits in found]
    lines.append("Look at")
    places = {
        "Luigi": f"http://127.0.0.1:{settings.get('LUIGI_PORT')}",
        "Spark master": f"http://127.0.0.1:{settings.get('SPARK_MASTER_WEBUI_PORT')}",
        "Spark history": f"http://127.0.0.1:{settings.get('SPARK_HISTORY_PORT')}",
        "MinIO console": f"http://127.0.0.1:{settings.get('MINIO_CONSOLE_PORT')}",
        "PostgreSQL": f"{settings.get('POSTGRES_HOST')}:{settings.get('POSTGRES_PORT')}/{settings.get('POSTGRES_DB')}",
    }
    return "\n".join([*lines, *(f"  {name:<16}{place}" for name, place in places.items())])


if __name__ == "__main__":
    main()
