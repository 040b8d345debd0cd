"""Computes the expected silver, gold and marts for given files: sections 4 to 6 of the design in plain Python.

Shares nothing with jobs/ and sql/: no rule, no query, no Spark.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from typing import Any, NamedTuple

Row = tuple[Any, ...]
Place = tuple[str, date]  # (dataset, partition) of a file
Files = Mapping[Place, Sequence[Sequence[str]]]  # rows as they came: texts in the order of COLUMNS

ORPHAN_DAYS = 365
BLANKS = "\t\n\v\f\r \u0085\u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"


# ---- parsing: a value, or None if the text is unreadable -------------------------------------------------------------


def text(value: str) -> str:
    return value


def day(value: str) -> date | None:
    try:
        return date.fromisoformat(value) if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value) else None
    except ValueError:
        return None


def moment(value: str) -> datetime | None:
    """Parses a timestamp to UTC; the result has no time zone."""
    found = re.fullmatch(
        r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?"
        r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))?",
        value,
    )
    if not found or day(found[1]) is None:
        return None
    hour, minute, second, fraction = int(found[2]), int(found[3]), int(found[4] or 0), (found[5] or "").ljust(6, "0")
    try:
        local = datetime.combine(date.fromisoformat(found[1]), datetime.min.time()).replace(
            hour=hour, minute=minute, second=second, microsecond=int(fraction)
        )
        ahead = timedelta(hours=int(found[7] or 0), minutes=int(found[8] or 0))
        if ahead > timedelta(hours=18) or int(found[8] or 0) > 59:  # the limits of zones in ISO 8601 and java.time
            return None
        return local + ahead if found[6] == "-" else local - ahead
    except (ValueError, OverflowError):
        return None


def money(value: str) -> Decimal | None:
    if not re.fullmatch(r"[+-]?([0-9]+(\.[0-9]+)?|\.[0-9]+)", value):
        return None
    amount = Decimal(value).quantize(Decimal("0.01"), ROUND_HALF_UP, Context(prec=len(value) + 3))
    return amount if abs(amount) < 10**10 else None


def one_of(*listed: str) -> Callable[[str], str | None]:
    return lambda value: next((word for word in listed if word.lower() == value.lower()), None)


class Field(NamedTuple):
    name: str
    read: Callable[[str], Any]
    required: bool = False
    parent: str | None = None

    @property
    def unread(self) -> str:
        """Returns the code for a text that does not parse."""
        return f"unreadable_{self.name}" if self.read in (day, moment, money) else f"unknown_{self.name}"


FIELDS = {
    "patients": (
        Field("patient_id", text, True),
        Field("gender", one_of("M", "F", "Other", "Unknown"), True),
        Field("birth_date", day, True),
        Field("city", text),
        Field("registration_date", day, True),
    ),
    "visits": (
        Field("visit_id", text, True),
        Field("patient_id", text, True, "patients"),
        Field("visit_type", one_of("Outpatient", "Emergency", "Inpatient"), True),
        Field("department", text, True),
        Field("doctor_id", text),
        Field("visit_start_ts", moment, True),
        Field("visit_end_ts", moment),
        Field("status", one_of("Completed", "Cancelled", "No-show"), True),
    ),
    "admissions": (
        Field("admission_id", text, True),
        Field("visit_id", text, True, "visits"),
        Field("admit_ts", moment, True),
        Field("discharge_ts", moment),
        Field("room_type", one_of("General Ward", "Semi-Private", "Private", "ICU", "CCU"), True),
    ),
    "treatments": (
        Field("treatment_id", text, True),
        Field("visit_id", text, True, "visits"),
        Field("treatment_code", text, True),
        Field("treatment_name", text),
        Field("treatment_cost", money, True),
        Field("performed_ts", moment, True),
    ),
    "billing": (
        Field("bill_id", text, True),
        Field("visit_id", text, True, "visits"),
        Field("total_amount", money, True),
        Field("insurance_amount", money),
        Field("patient_amount", money),
        Field("payment_status", one_of("Paid", "Pending", "Partial"), True),
        Field("payment_ts", moment),
    ),
}
COLUMNS = {dataset: tuple(field.name for field in fields) for dataset, fields in FIELDS.items()}
AMOUNTS = {"treatments": "treatment_cost", "billing": "total_amount"}

# Ranks of listed values among versions of one key; columns that are missing here have no ranks.
WEIGHTS = {
    "gender": {"M": 1, "F": 1, "Other": 1, "Unknown": 0},
    "status": {"Completed": 3, "No-show": 2, "Cancelled": 1},
    "payment_status": {"Paid": 3, "Partial": 2, "Pending": 1},
}

# (code, columns, condition on their values)
RULES: dict[str, list[tuple[str, tuple[str, ...], Callable[..., bool]]]] = {
    "patients": [
        (
            "birth_after_registration",
            ("birth_date", "registration_date"),
            lambda birth, registration: None in (birth, registration) or birth <= registration,
        )
    ],
    "visits": [
        (
            "visit_end_not_after_start",
            ("visit_start_ts", "visit_end_ts"),
            lambda start, end: None in (start, end) or end > start,
        )
    ],
    "admissions": [
        (
            "discharge_not_after_admit",
            ("admit_ts", "discharge_ts"),
            lambda admit, discharge: None in (admit, discharge) or discharge > admit,
        )
    ],
    "treatments": [("negative_treatment_cost", ("treatment_cost",), lambda cost: cost is None or cost >= 0)],
    "billing": [
        ("negative_total_amount", ("total_amount",), lambda total: total is None or total >= 0),
        ("negative_patient_amount", ("patient_amount",), lambda own: own is None or own >= 0),
        (
            "insurance_exceeds_total",
            ("insurance_amount", "total_amount"),
            lambda insurance, total: None in (insurance, total) or insurance <= total,
        ),
        (
            "paid_without_payment_ts",
            ("payment_status", "payment_ts"),
            lambda status, paid: status != "Paid" or paid is not None,
        ),
    ],
}


# ---- splitting files into records and fields -------------------------------------------------------------------------

LONGEST = {"field": 65_536, "key": 512, "record": 1 << 20, "open": 1 << 24, "names": 1_000, "columns": 16_384}
INDEXED = {"patient_id", "visit_id", "admission_id", "treatment_id", "bill_id", "department"}

PLAIN = re.compile(rb"[^,\n]*")
CLOSED = re.compile(rb'"([^"]*(?:""[^"]*)*)"[\x00-\x09\x0b-\x20]*(?=[,\n]|\Z)')
STRAY = re.compile(rb'"[^"]*(?:""[^"]*)*"(?!")[^,\n]*')  # goes on after its closing quote, so it is literal text


class Record(NamedTuple):
    """Holds a record that is not blank: its text without line end, and its raw fields, or None if it is malformed."""

    raw: str
    fields: tuple[str, ...] | None


class Reading(NamedTuple):
    header: tuple[str, ...]
    records: list[Record]
    spans: bool  # a record has several lines, or leaves a quote open


class Refusal(Exception):
    """Signals that the file must be refused, in a sentence with all of these words."""


def cut(content: bytes) -> Iterator[tuple[bytes, list[bytes], bool]]:
    """Yields (text with line end, fields, whether a quote is open at the end) of each record, also blank lines."""
    place = 0
    while place < len(content):
        start, fields, is_open, as_it_stands = place, list[bytes](), False, False
        while True:
            as_it_stands = True
            if content[place : place + 1] != b'"':
                found = PLAIN.match(content, place)
                fields.append(found[0])
            elif found := CLOSED.match(content, place):
                fields.append(found[1].replace(b'""', b'"'))
                as_it_stands = False
            elif found := STRAY.match(content, place):
                fields.append(found[0])
            else:
                fields.append(content[place + 1 :].replace(b'""', b'"'))
                is_open = True
            place = len(content) if is_open else found.end()
            if content[place : place + 1] != b",":
                break
            place += 1
        if as_it_stands and not is_open:
            fields[-1] = fields[-1].rstrip(b"\r")
        place += 1
        yield content[start:place], fields, is_open


def is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_file(content: bytes, dataset: str) -> Reading:
    """Reads a landing file of any bytes; raises Refusal if it must be refused."""
    header: tuple[str, ...] | None = None
    records, spans = [], False
    foreign: list[str] = []  # columns with bytes that are not UTF-8: from there on, nothing else is reported about rows
    for text, values, is_open in cut(content.removeprefix(b"\xef\xbb\xbf")):
        raw = text.removesuffix(b"\n").rstrip(b"\r").decode(errors="replace")
        if not raw.strip(BLANKS):
            continue
        spans = spans or is_open or b"\n" in text[:-1]
        if header is None:
            header = tuple(value.decode(errors="replace").strip(BLANKS) for value in values)
            check_header(content, header, raw, all(map(is_utf8, values)), is_open, dataset)
            continue
        for place, value in enumerate(values):
            if not is_utf8(value):
                named = place < len(header) and 0 < len(header[place]) <= 64 and header[place].isprintable()
                foreign.append(repr(header[place] if named else f"field {place + 1}"))
        if foreign:
            continue
        fields = tuple(value.decode() for value in values)
        check_lengths(text.decode(), fields, header, is_open)
        is_broken = is_open or "\0" in raw or len(fields) != len(header)
        records.append(Record(raw, None if is_broken else fields))
    if foreign:
        raise Refusal("column", "bytes that are not UTF-8", *list(dict.fromkeys(foreign))[:19])
    if header is None:
        raise Refusal("is empty, without even a header")
    return Reading(header, records, spans)


ENCODED = {b"\xff\xfe\0\0": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
OTHER_THINGS = {
    rb"PK\x03\x04": "it is a ZIP archive (an Excel workbook?)",
    rb"\x1f\x8b": "it is a gzip archive",
    rb"\0+\Z": "it is filled with NUL characters",
    rb"(\xef\xbb\xbf)?\s*(?i:<!doctype html|<html)": "it is an HTML page",
}


def check_header(content: bytes, header: Sequence[str], raw: str, is_text: bool, is_open: bool, dataset: str) -> None:
    """Raises Refusal with all defects of a header, and with the apparent format of a file that is not CSV."""
    wrong: list[str] = []
    wrong += ["leaves a quote open"] * is_open
    wrong += ["holds NUL characters"] * ("\0" in raw)
    wrong += ["holds a carriage return that ends no line"] * bool(re.search(r"\r(?!\n)", raw))
    named = [name for name in header if name]
    if not re.search(r"\r(?!\n)", raw):
        wrong += [f"names {len(named):,} columns"] * (len(named) > LONGEST["names"])
        wrong += [f"has {len(header):,} columns"] * (
            len(named) <= LONGEST["names"] and len(header) > LONGEST["columns"]
        )
    wrong += ["bytes that are not UTF-8"] * (not is_text)
    if not wrong and len(set(named)) == len(named) and set(COLUMNS[dataset]) <= set(named):
        return
    for pattern, sentence in OTHER_THINGS.items():
        if re.match(pattern, content):
            raise Refusal(sentence, *map(repr, COLUMNS[dataset]))
    for mark, encoding in ENCODED.items():
        if content.startswith(mark):
            raise Refusal(f"it seems to be {encoding}")
    for width, encoding in (4, "UTF-32"), (2, "UTF-16"):
        start = content[:64]
        rest = [start[place::width] for place in range(width)]
        if len(start) == 64 and any(
            b"\0" not in rest[own] and not any(b"".join(rest[:own] + rest[own + 1 :])) for own in (0, width - 1)
        ):
            raise Refusal(f"it seems to be {encoding}")
    if re.fullmatch(r'"?sep=.?"?', raw.strip(BLANKS), re.IGNORECASE):
        raise Refusal("begins with a spreadsheet's line `sep=`")

    has_return = "\r" in raw.replace("\r\n", "")
    names = {
        each: [name.strip(BLANKS + '"') for name in raw.replace("\r", each if has_return else "\r").split(each)]
        for each in ",;\t|"
    }
    known = {each: (len(set(names[each]) & set(COLUMNS[dataset])), len(raw.split(each))) for each in names}
    best = max(names, key=lambda each: known[each])
    if best == ",":
        names[","] = names[","] if has_return else list(header)
    else:
        wrong = [word for word in wrong if word != "bytes that are not UTF-8" and not word.endswith(" columns")]
        wrong += ["seems to be separated by " + {";": "semicolons", "\t": "tabs", "|": "pipes"}[best]]
    lacking = [repr(name) for name in COLUMNS[dataset] if name not in names[best]]
    twice = [repr(name) for name in COLUMNS[dataset] if names[best].count(name) > 1 and not has_return]
    wrong += ["lacks the column", *lacking] * bool(lacking) + ["twice", *twice] * bool(twice)
    raise Refusal(*wrong) if wrong else Refusal(" alike")


def check_lengths(text: str, fields: Sequence[str], header: Sequence[str], is_open: bool) -> None:
    if is_open:
        if len(text) > LONGEST["open"]:
            raise Refusal("leaves a quote open, which makes one of more than")
        return
    if len(text) > LONGEST["record"]:
        raise Refusal("is one of more than")
    for place, field in enumerate(fields):
        name = header[place] if place < len(header) else ""
        if len(field) > LONGEST["key" if name in INDEXED else "field"]:
            named = name and len(name) <= 64 and name.isprintable()
            raise Refusal(f"column {name if named else f'field {place + 1}'!r} holds a field of {len(field):,}")


# ---- silver ----------------------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """Holds the expected verdicts on one partition.

    These are the accepted rows by key, how often a raw key was rejected for these reasons, and the number of keys whose
    versions have different values.
    """

    accepted: dict[str, Row]
    rejected: Counter[tuple[str | None, str]]
    differing: int


def silver(files: Files) -> dict[Place, Verdict]:
    """Validates every file, parents first."""
    verdicts: dict[Place, Verdict] = {}
    for dataset, fields in FIELDS.items():
        for name, when in files:
            if name == dataset:
                latest = when + timedelta(days=ORPHAN_DAYS)
                known = {
                    field.parent: {
                        key
                        for (parent, came), verdict in verdicts.items()
                        if parent == field.parent and came <= latest
                        for key in verdict.accepted
                    }
                    for field in fields
                    if field.parent
                }
                verdicts[dataset, when] = validate(files[dataset, when], dataset, known)
    return verdicts


def validate(rows: Iterable[Sequence[str]], dataset: str, known: Mapping[str, set[str]]) -> Verdict:
    """Validates one file; of several valid rows of a key, the one with the greatest weight wins."""
    sound: dict[str, list[tuple[Row, str]]] = defaultdict(list)
    rejected: Counter[tuple[str | None, str]] = Counter()
    for row in rows:
        values, reasons = read(row, dataset, known)
        if reasons:
            rejected[row[0] or None, ";".join(reasons)] += 1
        else:
            sound[values[0]].append((values, row[0]))
    accepted = {}
    for key, versions in sound.items():
        versions.sort(key=lambda version: weight(dataset, version[0]), reverse=True)
        accepted[key] = versions[0][0]
        for _, as_it_came in versions[1:]:
            rejected[as_it_came, f"duplicate_{COLUMNS[dataset][0]}"] += 1
    differing = sum(len({values for values, _ in versions}) > 1 for versions in sound.values())
    return Verdict(accepted, rejected, differing)


def weight(dataset: str, values: Row) -> tuple[Any, ...]:
    """Returns the weight of a version: number of values, then rank, later times, greater values.

    "Unknown" counts as no value.
    """
    fields = list(zip(FIELDS[dataset], values, strict=True))
    said = [value for field, value in fields if value is not None and (field.name, value) != ("gender", "Unknown")]
    stages = [WEIGHTS[field.name].get(value, 0) for field, value in fields if field.name in WEIGHTS]
    times = [(value is not None, value) for field, value in fields if field.read in (day, moment)]
    others = [(value is not None, value) for field, value in fields if field.read not in (day, moment)]
    return len(said), stages, times, others


def read(row: Sequence[str], dataset: str, known: Mapping[str, set[str]]) -> tuple[Row, list[str]]:
    """Returns a row's values, and the codes of every rule that it breaks, in order."""
    values: dict[str, Any] = {}
    unread, reasons = set(), []
    for field, came in zip(FIELDS[dataset], row, strict=True):
        trimmed = came.strip(BLANKS)
        value = values[field.name] = field.read(trimmed) if trimmed else None
        if not trimmed and field.required:
            reasons.append(f"missing_{field.name}")
        elif trimmed and value is None:
            unread.add(field.name)
            reasons.append(field.unread)
        elif field.parent and value not in known[field.parent]:
            reasons.append(f"orphan_{field.name}")
    for code, columns, holds in RULES[dataset]:
        if not unread.intersection(columns) and not holds(*(values[column] for column in columns)):
            reasons.append(code)
    return tuple(values.values()), reasons


# ---- gold ------------------------------------------------------------------------------------------------------------

Gold = dict[str, list[dict[str, Any]]]


def gold(verdicts: Mapping[Place, Verdict]) -> Gold:
    """Returns for every key the version of the newest partition that accepts it."""
    tables: Gold = {}
    for dataset, columns in COLUMNS.items():
        newest: dict[str, dict[str, Any]] = {}
        for name, when in sorted(verdicts):
            if name == dataset:
                for key, row in verdicts[dataset, when].accepted.items():
                    newest[key] = dict(zip(columns, row, strict=True)) | {"_partition_date": when}
        tables[dataset] = list(newest.values())
    for stay in tables["admissions"]:
        stay["length_of_stay_days"] = days_between(stay["admit_ts"], stay["discharge_ts"])
    return tables


def days_between(start: datetime, end: datetime | None) -> Fraction | None:
    return None if end is None else Fraction((end - start) // timedelta(microseconds=1), 86_400_000_000)


# ---- marts -----------------------------------------------------------------------------------------------------------


def four_decimals(number: Fraction | None) -> Decimal | None:
    """Rounds half up, away from zero, as PostgreSQL does."""
    if number is None:
        return None
    parts = (abs(number) * 10_000 + Fraction(1, 2)) // 1
    return Decimal(parts if number >= 0 else -parts).scaleb(-4)


def average(numbers: Iterable[Fraction | None]) -> Fraction | None:
    known = [number for number in numbers if number is not None]
    return sum(known, Fraction()) / len(known) if known else None


def total(amounts: Iterable[Decimal | None]) -> Decimal:
    return sum((amount for amount in amounts if amount is not None), Decimal())


def marts(tables: Gold) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of the three marts; days are in UTC."""
    patients, visits, stays, bills = (tables[name] for name in ("patients", "visits", "admissions", "billing"))
    visit_of = {visit["visit_id"]: visit for visit in visits}
    as_of = max((row["_partition_date"] for rows in tables.values() for row in rows), default=None)
    daily = [
        kpis(
            when,
            [visit for visit in visits if visit["visit_start_ts"].date() == when],
            [stay for stay in stays if stay["admit_ts"].date() == when],
            [bill for bill in bills if visit_of[bill["visit_id"]]["visit_start_ts"].date() == when],
            [patient for patient in patients if patient["registration_date"] == when],
        )
        for when in {visit["visit_start_ts"].date() for visit in visits}
        | {stay["admit_ts"].date() for stay in stays}
        | {patient["registration_date"] for patient in patients}
    ]
    by_department = []
    for department, when in {(visit["department"], visit["visit_start_ts"].date()) for visit in visits}:
        own = {
            visit["visit_id"]: visit
            for visit in visits
            if (visit["department"], visit["visit_start_ts"].date()) == (department, when)
        }
        by_department.append(
            department_stats(
                department,
                when,
                list(own.values()),
                [stay for stay in stays if stay["visit_id"] in own],
                [bill for bill in bills if bill["visit_id"] in own],
            )
        )
    by_patient = [
        patient_stats(
            patient,
            as_of,
            [visit for visit in visits if visit["patient_id"] == patient["patient_id"]],
            [bill for bill in bills if visit_of[bill["visit_id"]]["patient_id"] == patient["patient_id"]],
        )
        for patient in patients
    ]
    return {"mart_daily_kpis": daily, "mart_department_stats": by_department, "mart_patient_stats": by_patient}


def kpis(when: date, visits: list, stays: list, bills: list, patients: list) -> dict[str, Any]:
    paid = [bill for bill in bills if bill["payment_status"] == "Paid"]
    return {
        "kpi_date": when,
        "total_visits": len(visits),
        "completed_visits": sum(visit["status"] == "Completed" for visit in visits),
        "total_admissions": len(stays),
        "avg_length_of_stay_days": four_decimals(average(stay["length_of_stay_days"] for stay in stays)),
        "total_revenue": total(bill["total_amount"] for bill in bills),
        "insurance_revenue": total(bill["insurance_amount"] for bill in bills),
        "patient_revenue": total(bill["patient_amount"] for bill in bills),
        "paid_bills": len(paid),
        "pending_bills": sum(bill["payment_status"] == "Pending" for bill in bills),
        "payment_rate_pct": four_decimals(Fraction(100 * len(paid), len(bills)) if bills else None),
        "new_patients": len(patients),
    }


def department_stats(department: str, when: date, visits: list, stays: list, bills: list) -> dict[str, Any]:
    kinds = Counter(visit["visit_type"] for visit in visits)
    lengths = (days_between(visit["visit_start_ts"], visit["visit_end_ts"]) for visit in visits)
    return {
        "department": department,
        "stat_date": when,
        "total_visits": len(visits),
        "completed_visits": sum(visit["status"] == "Completed" for visit in visits),
        "emergency_visits": kinds["Emergency"],
        "inpatient_visits": kinds["Inpatient"],
        "outpatient_visits": kinds["Outpatient"],
        "avg_visit_duration_hrs": four_decimals(average(None if days is None else 24 * days for days in lengths)),
        "total_admissions": len(stays),
        "avg_los_days": four_decimals(average(stay["length_of_stay_days"] for stay in stays)),
        "total_revenue": total(bill["total_amount"] for bill in bills),
    }


def patient_stats(patient: dict[str, Any], as_of: date, visits: list, bills: list) -> dict[str, Any]:
    born, starts = patient["birth_date"], [visit["visit_start_ts"].date() for visit in visits]
    return {
        "patient_id": patient["patient_id"],
        "gender": patient["gender"],
        "city": patient["city"],
        "age_years": as_of.year - born.year - ((as_of.month, as_of.day) < (born.month, born.day)),
        "total_visits": len(visits),
        "first_visit_date": min(starts, default=None),
        "last_visit_date": max(starts, default=None),
        "total_billed": total(bill["total_amount"] for bill in bills),
        "total_paid": total(bill["total_amount"] for bill in bills if bill["payment_status"] == "Paid"),
        "is_returning": len(visits) > 1,
    }
