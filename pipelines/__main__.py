"""Runs make's commands: `python -m pipelines run 2026-01-31 [--force] [--override]`, `forget`, `ledger`, ..."""

import argparse
import os
import sys
from datetime import datetime, timezone

from jobs import borders, ledger, program, settings
from pipelines import dates, failures, health, ledger_report, schedule, summary, worker
from pipelines.task_log import Failed


def main() -> None:
    """Runs one command of the platform; long because it declares each command with its options."""
    parser = argparse.ArgumentParser(prog="pipelines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="bring one date through all layers, if it is due")
    run.add_argument("date")
    run.add_argument("--force", action="store_true", help="run it all the same")
    run.add_argument("--override", action="store_true", help="let it pass where its rejects stop it before gold")
    backfill = commands.add_parser("backfill", help="bring all dates from one to another through all layers, if due")
    backfill.add_argument("first")
    backfill.add_argument("last")
    forget = commands.add_parser("forget", help="take a date back, as if it had never run")
    forget.add_argument("date")
    reconcile = commands.add_parser(
        "reconcile", help="compare a date in silver and gold with its files, and correct it"
    )
    reconcile.add_argument("date")
    commands.add_parser("summary", help="rows per table, rejects per reason, URLs")
    ledger = commands.add_parser("ledger", help="is every date complete, balanced and current, and if not, why")
    ledger.add_argument("--last", type=int, default=31, help="dates to show, the newest first")
    commands.add_parser("health", help="one line per problem; code 1 if there is any")
    commands.add_parser("maintain", help="few files in silver, none that nobody reads; Luigi's old history forgotten")
    by_clock = commands.add_parser(
        "schedule", help="wait, and run each date that has ended, those that were missed too"
    )
    by_clock.add_argument(
        "crontab", nargs="?", help="when, as crontab writes it, in UTC; empty for never; else SCHEDULE"
    )
    given = parser.parse_args()
    try:
        if given.command == "summary":
            borders.say(summary.summary())
        elif given.command == "ledger":
            borders.say(ledger_report.ledger_of(given.last))
        elif given.command == "health":
            health.tell_health()
        elif given.command == "maintain":
            run_maintenance()
        elif given.command == "backfill":
            dates.run_backfill(given.first, given.last)
        elif given.command == "forget":
            dates.forget_day(given.date)
        elif given.command == "reconcile":
            dates.reconcile_day(given.date)
        elif given.command == "schedule":
            schedule.by(settings.given("SCHEDULE") if given.crontab is None else given.crontab)
        else:
            with failures.told(given.date):
                dates.run_day(given.date, given.force, given.override)
    except program.Refused as error:
        program.leave(2, str(error))
    except Failed as error:
        program.leave(1, str(error))
    except KeyboardInterrupt:
        program.leave(130, "Ended by the keyboard; the same command goes on from what is done.")
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        os._exit(1)
    except Exception as error:
        program.leave(1, program.sentence(error))


def run_maintenance() -> None:
    """Runs Maintenance even if it has already run today; exits with Luigi's code."""
    today = datetime.now(timezone.utc).date()
    sys.exit(worker.luigi_code(today, "Maintenance", "--since", str(ledger.turn())))


if __name__ == "__main__":
    main()
