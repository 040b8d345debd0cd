"""Shows rejected rows and why, tells the whole story of a key, and exports files to hand back to their owners.

python -m jobs.rejects show 2026-01-31 [--dataset visits] [--keys]
KEY=V00000123 python -m jobs.rejects why    (other users could see a key that is an argument in the list of processes)
python -m jobs.rejects export 2026-01-31 [--dataset visits] [--to data/rejects]
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from jobs import borders, key_history, program, reject_counts, reject_export, settings
from jobs.catalog import CATALOG


def main() -> None:
    """Prints the answer to the command line, or ends the program with a sentence."""
    parser = argparse.ArgumentParser(prog="rejects", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="counts by reason, against earlier dates")
    show.add_argument("date")
    show.add_argument("--keys", action="store_true", help="name the rejected rows by their keys")
    story = commands.add_parser("why", help="the whole story of a key")
    story.add_argument("key", nargs="?", default=os.environ.get("KEY", ""), help="else the environment's KEY is taken")
    export = commands.add_parser("export", help="a CSV per dataset: the rows as they came, with their reasons")
    export.add_argument("date")
    export.add_argument("--to", default="data/rejects", help="the folder; relative ones are taken from the clone")
    for command in (show, export):
        command.add_argument("--dataset", choices=list(CATALOG))
    given = parser.parse_args()
    try:
        for line in answer(given):
            borders.say(line)
    except Exception as error:
        program.leave(1, program.sentence(error))


def answer(given: argparse.Namespace) -> Iterator[str]:
    """Returns the lines that answer one command."""
    if given.command == "why":
        program.bring_up_to_date()
        return key_history.why(given.key)
    day = program.given_day(given.date)  # checked before any store is asked
    program.bring_up_to_date()
    datasets = [CATALOG[given.dataset]] if given.dataset else list(CATALOG.values())
    if given.command == "show":
        return reject_counts.rejects(day, datasets, given.keys)
    return reject_export.export(day, datasets, settings.ROOT / Path(given.to).expanduser())


if __name__ == "__main__":
    main()
