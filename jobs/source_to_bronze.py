"""Converts a source's files of a date into our files in bronze: `spark-submit jobs/source_to_bronze.py 2026-01-31`."""

import re
import sys
import tempfile
from contextlib import ExitStack
from datetime import date
from functools import partial
from pathlib import Path

from jobs import derived_files, exports, ledger, program, raw, warehouse
from jobs.borders import quoted
from jobs.catalog import expected
from jobs.derivation import derive, read_export
from jobs.program import Refused


def source_to_bronze(day: date, named: str = "") -> str:
    """Stores a date's raw files in bronze, and derives the files of all datasets from them.

    Publishes all derived files or, if one cannot be made, none. Raises Refused if the files come from another
    source than `named`. Returns a sentence for each file, and the warnings.
    """
    with warehouse.connect() as connection, ExitStack() as held:
        datasets = expected(day)
        for name in datasets:
            held.enter_context(warehouse.writer(connection, f"bronze {name} {day}"))
        folders = exports.folders(day)
        row = held.enter_context(ledger.run(connection, "source", named or (folders or ["all"])[0], day, ""))
        source = exports.source_of(day)
        if named not in ("", source.name):
            raise Refused(
                f"the files of {day} come from the source {source.name}, not from {quoted(named)}; name that one."
            )
        export = read_export(source, day)
        made_from = exports.fingerprint(export.sha256)
        row |= {"rule_set": source.fingerprint, "bronze_sha256": made_from}
        row |= {"bronze_bytes": sum(path.stat().st_size for path in export.paths.values())}
        for name, path in export.paths.items():
            raw.upload(path, source.name, day, name, export.sha256[name])
        place = Path(held.enter_context(tempfile.TemporaryDirectory()))
        made = derive(export, datasets, row["run_id"], place)
        return derived_files.publish(connection, export, row, made, datasets)


if __name__ == "__main__":
    is_named = len(sys.argv) > 2 and not re.match(r"[0-9]{4}-", sys.argv[1])
    name = sys.argv.pop(1) if is_named else ""
    program.run(partial(source_to_bronze, named=name), words=("date",), future=False, remaining=ledger.remaining)
