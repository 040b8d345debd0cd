"""Writes the sample of Synthea's CSV export into a date's folder, from where sources/synthea.yml brings it in.

    python -m jobs.synthea_export 2026-01-01

The sample is one export of two years: sources/synthea/sample.tar.xz, which sources/synthea/sample.sh makes. It lands as
it is, on whatever date.
"""

import argparse
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

from jobs import exports, landing, program, settings

NAME = "synthea"
SAMPLE = settings.ROOT / "sources" / NAME / "sample.tar.xz"


def write_export(folder: Path) -> dict[str, int]:
    """Unpacks the sample into a folder; returns the bytes of each file."""
    folder.mkdir(parents=True, exist_ok=True)
    written = dict[str, int]()
    with tarfile.open(SAMPLE) as sample:
        for member in sample:
            content = sample.extractfile(member)
            assert content, "the sample holds files alone"
            written[member.name] = (folder / Path(member.name).name).write_bytes(content.read())
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the sample where the command line asks for it, or says in a sentence why not."""
    parser = argparse.ArgumentParser(description="Writes the sample of Synthea's export into the folder of one date.")
    parser.add_argument("date", help="YYYY-MM-DD")
    # What jobs/generate.py knows beside: the sample has its own size, seed and time.
    day = program.given_day(parser.parse_known_args(arguments)[0].date)
    others = [f"{name}.csv" for name in exports.own_files(day)] + [n for n in exports.folders(day) if n != NAME]
    if others:
        named = landing.listed(others)
        program.leave(1, f"{landing.folder(day)} already has {named}, and a date has one source: remove them.")
    os.umask(0o077)
    folder = exports.folder(day, NAME)
    for name, size in write_export(folder).items():
        print(f"{folder / name}: {size:,} bytes")


if __name__ == "__main__":
    main()
