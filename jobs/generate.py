"""Writes one hospital's landing files for a date, and beside them a manifest of every defect put into them.

    python -m jobs.generate 2026-01-31 --scale 1 --seed 42 --start 2026-01-01

START's files hold two years of history. Each later date has the news of one more such day, about a 730th of it: new
rows, and earlier rows sent again, whole, when a patient is discharged or a bill is paid. The same seed gives the same
bytes, whichever dates were written.
"""

import os
from collections.abc import Sequence

from jobs import settings
from jobs.landing_files import generate, read_request


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the files that the command line asks for; exits with a sentence if it cannot."""
    request = read_request(arguments)
    landing = settings.path("LANDING_DIR")
    os.umask(0o077)  # only the user who writes patients' values may read them
    try:
        written = generate(request.date, landing, request.scale, request.seed, request.start)
    except OSError as error:
        raise SystemExit(f"The files of {request.date} cannot be written: {error}. See LANDING_DIR.") from None
    for name, rows in written.items():
        print(f"{landing / f'{request.date:%Y/%m/%d}' / name}.csv: {rows} rows")


if __name__ == "__main__":
    main()
