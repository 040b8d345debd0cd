"""Writes a generated day as the export of a made-up patient administration system (sources/example.yml).

    python -m jobs.example_export 2026-01-31 --scale 1 --seed 42 --start 2026-01-01

The rows are those that jobs/generate.py writes into our five files, defects included, in another form: Windows-1252,
semicolons, local times, decimal commas, codes, a bill and its payment in two files.
"""

import csv
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

from jobs import exports, landing, program
from jobs.catalog import CATALOG
from jobs.dataset import WHITE_SPACE, Column
from jobs.landing_files import generate, read_request

NAME, ENCODING, ZONE = "example", "windows-1252", ZoneInfo("Europe/Berlin")
TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.([0-9]{3}){1,2})?)?(Z|[+-][0-9]{2}:[0-9]{2})?"
)
# The codes of listed values, by the value in lower case.
CODES = {
    "gender": {"m": "1", "f": "2", "other": "3", "unknown": "9"},
    "visit_type": {"outpatient": "A", "emergency": "N", "inpatient": "S"},
    "status": {"completed": "10", "cancelled": "20", "no-show": "30"},
    "room_type": {"general ward": "AK", "semi-private": "ZB", "private": "EB", "icu": "ITS", "ccu": "CCU"},
    "payment_status": {"paid": "B", "pending": "O", "partial": "T"},
}
# Each file with its columns, and for each the column of ours that it holds; a visit's times are split into two each.
FILES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "PAT": (
        "patients",
        {
            "PATNR": "patient_id",
            "ORT": "city",
            "GESCHLECHT": "gender",
            "GEBDAT": "birth_date",
            "ANGELEGT_AM": "registration_date",
        },
    ),
    "FALL": (
        "visits",
        {
            "FALLNR": "visit_id",
            "PATNR": "patient_id",
            "FALLART": "visit_type",
            "FACHABTEILUNG": "department",
            "ARZT": "doctor_id",
            "BEGINN_DATUM": "visit_start_ts",
            "BEGINN_ZEIT": "visit_start_ts",
            "ENDE_DATUM": "visit_end_ts",
            "ENDE_ZEIT": "visit_end_ts",
            "STATUS": "status",
        },
    ),
    "AUFENTHALT": (
        "admissions",
        {
            "AUFENTHALTNR": "admission_id",
            "FALLNR": "visit_id",
            "VON": "admit_ts",
            "BIS": "discharge_ts",
            "KLASSE": "room_type",
        },
    ),
    "LEISTUNG": (
        "treatments",
        {
            "LEISTUNGNR": "treatment_id",
            "FALLNR": "visit_id",
            "CODE": "treatment_code",
            "BEZEICHNUNG": "treatment_name",
            "KOSTEN": "treatment_cost",
            "ERBRACHT_AM": "performed_ts",
        },
    ),
    "RECHNUNG": (
        "billing",
        {
            "LFD": "",
            "RECHNUNGNR": "bill_id",
            "FALLNR": "visit_id",
            "GESAMT": "total_amount",
            "ANTEIL_KASSE": "insurance_amount",
            "ANTEIL_PATIENT": "patient_amount",
        },
    ),
    "ZAHLUNG": ("billing", {"LFD": "", "STAND": "payment_status", "BEZAHLT_AM": "payment_ts"}),
}


def write_export(day: date, landed: Path, folder: Path) -> dict[str, int]:
    """Writes the source's files for a date from our five files in the folder `landed`; returns their record counts."""
    folder.mkdir(parents=True, exist_ok=True)
    written = dict[str, int]()
    for prefix, (dataset, columns) in FILES.items():
        path = folder / f"{prefix}_{day:%Y%m%d}.csv"
        types = {column.name: column for column in CATALOG[dataset].columns}
        with path.open("w", encoding=ENCODING, newline="") as file:
            writer = csv.writer(file, delimiter=";", lineterminator="\r\n")
            writer.writerow(columns)
            count = 0
            for number, row in enumerate(rows_of(landed / f"{dataset}.csv"), start=1):
                if row is not None:
                    writer.writerow(convert(row, types, columns, number))
                elif prefix != "ZAHLUNG":  # a malformed record stays malformed
                    file.write("?;\r\n")
                else:
                    continue
                count += 1
        written[path.name] = count
    return written


def rows_of(path: Path) -> Iterator[dict[str, str] | None]:
    """Yields the rows of a landing file by column, with trimmed texts; None for a malformed record."""
    with path.open(encoding="utf-8-sig", newline="\n") as lines:
        header: list[str] = []
        for record, _, is_open in landing.read_records(lines):
            if not record.strip(WHITE_SPACE):
                continue
            fields = landing.plain_fields(record.rstrip("\n").removesuffix("\r"))
            fields = [field.strip(WHITE_SPACE) for field in fields]
            if not header:
                header = fields
            else:
                malformed = is_open or "\0" in record or len(fields) != len(header)
                yield None if malformed else dict(zip(header, fields, strict=True))


def convert(row: Mapping[str, str], types: Mapping[str, Column], columns: Mapping[str, str], number: int) -> list[str]:
    """Returns a row's fields in the source's notation; `types` has our columns by name."""
    fields = []
    for theirs, ours in columns.items():
        text = in_dialect(types[ours], row[ours]) if ours else str(number)
        if theirs.endswith("_DATUM"):
            text = text.partition(" ")[0]
        elif theirs.endswith("_ZEIT"):
            text = text.partition(" ")[2]
        fields.append(text)
    return fields


def in_dialect(column: Column, text: str) -> str:
    """Returns a value in the source's notation; a value that is unreadable in ours stays unreadable."""
    if column.name in CODES:
        codes = CODES[column.name]
        return codes.get(text.lower(), f"?{text}" if text in codes.values() else text)
    try:
        return WRITERS[column.name if column.name in WRITERS else column.type](text) if text else ""
    except ValueError:
        return f"?{text}"


def local_time(text: str) -> str:
    """Returns a timestamp in local time, with its offset if that local time occurs for the second time.

    Raises ValueError for any other text.
    """
    if not TIMESTAMP.fullmatch(text):
        raise ValueError
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    local = moment.astimezone(ZONE)
    if local.microsecond:  # their patterns have no fractions of a second
        return f"{moment.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S.%f}Z"
    time = f"{written(local)} {local.hour:02}:{local.minute:02}" + (f":{local.second:02}" if local.second else "")
    return f"{time}+01:00" if local.fold else time


def amount(text: str) -> str:
    """Returns a decimal with a comma; raises ValueError for any other text."""
    if landing.cents(text) is None:
        raise ValueError
    return text.replace(".", ",")


def written(day: date) -> str:
    """Returns a date in the source's notation; strftime is slow, and writes the years before 1000 with fewer digits."""
    return f"{day.day:02}.{day.month:02}.{day.year:04}"


def day_of(text: str) -> date:
    """Returns a date of our files; raises ValueError for any other form."""
    day = date.fromisoformat(text)
    if str(day) != text:
        raise ValueError
    return day


WRITERS: Mapping[str, Callable[[str], str]] = {
    "text": str,
    "date": lambda text: written(day_of(text)),
    "registration_date": lambda text: f"{written(day_of(text))} 23:45",  # late, and still that day in local time
    "timestamp": local_time,
    "decimal": amount,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the export that the command line asks for, with the arguments of jobs/generate.py."""
    request = read_request(arguments)
    day = request.date
    if own := exports.own_files(day):
        named = landing.listed(f"{name}.csv" for name in own)
        program.leave(1, f"{landing.folder(day)} already has {named}, and a date has one source: remove them.")
    target = exports.folder(day, NAME)
    os.umask(0o077)
    with tempfile.TemporaryDirectory() as place:
        try:
            generate(day, Path(place), request.scale, request.seed, request.start)
            written = write_export(day, Path(place) / landing.folder(day), target)
        except OSError as error:
            raise SystemExit(f"The export of {day} cannot be written: {error}. See LANDING_DIR.") from None
    for name, records in written.items():
        print(f"{target / name}: {records} records")


if __name__ == "__main__":
    main()
