"""A sound row of each dataset, and what a change to it is rejected for: at least one example of every reason code."""

from collections.abc import Iterable, Iterator
from datetime import date
from itertools import count
from typing import Any

from jobs.catalog import CATALOG
from jobs.dataset import Dataset
from jobs.defects import defects
from jobs.drawing import letters
from jobs.further import sample
from jobs.verdicts import verdicts

Change = dict[str, str]
DAY = date(2026, 1, 31)  # the partition of rows that may be of any


def valid(dataset: Dataset) -> Change:
    """Returns a sound row: its columns' examples, or a row as the generator draws it where a required one has none.

    Keys are short: of a dataset with the example P00000042 the key is P1, and so is what refers to it.
    """
    examples = {column.name: column.example for column in dataset.columns}
    lacking = [column.name for column in dataset.columns if column.required and not column.example]
    parents = {name: CATALOG[parent] for name, parent in dataset.parents.items()}
    keys = {name: f"{letters(each)}1" for name, each in {dataset.key: dataset, **parents}.items()}
    fullest = min(sample(dataset.name), key=lambda row: [*row.values()].count(""))
    return (fullest if lacking else examples) | keys


VALID: dict[str, Change] = {name: valid(dataset) for name, dataset in CATALOG.items()}
# The keys that are accepted.
PARENTS = {
    parent: VALID[parent][CATALOG[parent].key] for dataset in CATALOG.values() for parent in dataset.parents.values()
}

# (dataset, change to the sound row, the reasons for which it is rejected, in their order; none: it is accepted)
EXAMPLES: list[tuple[str, Change, tuple[str, ...]]] = [
    ("patients", {"patient_id": ""}, ("missing_patient_id",)),
    ("patients", {"gender": "  "}, ("missing_gender",)),
    ("patients", {"gender": "\u00a0\u2003"}, ("missing_gender",)),
    ("patients", {"gender": "X"}, ("unknown_gender",)),
    ("patients", {"gender": "oTHER"}, ()),
    ("patients", {"gender": "\u2003m\u00a0"}, ()),
    ("patients", {"birth_date": ""}, ("missing_birth_date",)),
    ("patients", {"birth_date": "29/02/1980"}, ("unreadable_birth_date",)),
    ("patients", {"birth_date": "1981-02-29"}, ("unreadable_birth_date",)),
    ("patients", {"birth_date": "1980-2-9"}, ("unreadable_birth_date",)),
    ("patients", {"birth_date": "0000-01-01"}, ("unreadable_birth_date",)),
    ("patients", {"birth_date": "1980-02-29T00:00"}, ("unreadable_birth_date",)),
    ("patients", {"birth_date": "epoch"}, ("unreadable_birth_date",)),
    ("patients", {"birth_date": "\u0661\u0669\u0668\u0660-01-01"}, ("unreadable_birth_date",)),
    ("patients", {"birth_date": "0001-01-01"}, ()),
    ("patients", {"birth_date": "1582-10-10"}, ()),
    ("patients", {"city": ""}, ()),
    ("patients", {"city": 'St. John\'s, "North"\\'}, ()),
    ("patients", {"city": "two\nlines"}, ()),
    ("patients", {"registration_date": ""}, ("missing_registration_date",)),
    ("patients", {"registration_date": "soon"}, ("unreadable_registration_date",)),
    ("patients", {"registration_date": "1980-02-28"}, ("birth_after_registration",)),
    ("patients", {"registration_date": "1980-02-29"}, ()),
    ("patients", {"birth_date": "x", "registration_date": ""}, ("unreadable_birth_date", "missing_registration_date")),
    ("visits", {"visit_id": ""}, ("missing_visit_id",)),
    ("visits", {"patient_id": ""}, ("missing_patient_id",)),
    ("visits", {"patient_id": "P404"}, ("orphan_patient_id",)),
    ("visits", {"patient_id": " P1 "}, ()),
    ("visits", {"patient_id": "p1"}, ("orphan_patient_id",)),
    ("visits", {"visit_type": ""}, ("missing_visit_type",)),
    ("visits", {"visit_type": "Daycare"}, ("unknown_visit_type",)),
    ("visits", {"department": ""}, ("missing_department",)),
    ("visits", {"doctor_id": ""}, ()),
    ("visits", {"visit_start_ts": ""}, ("missing_visit_start_ts",)),
    ("visits", {"visit_start_ts": "2026-01-05"}, ("unreadable_visit_start_ts",)),
    ("visits", {"visit_start_ts": "2026-01-05T24:00"}, ("unreadable_visit_start_ts",)),
    ("visits", {"visit_start_ts": "2026-01-05T9:00"}, ("unreadable_visit_start_ts",)),
    ("visits", {"visit_start_ts": "2026-01-05T10:00:00.1234567"}, ("unreadable_visit_start_ts",)),
    ("visits", {"visit_start_ts": "2026-01-05T10:00:00 UTC"}, ("unreadable_visit_start_ts",)),
    ("visits", {"visit_start_ts": "2026-01-05T10:00+0530"}, ("unreadable_visit_start_ts",)),
    ("visits", {"visit_start_ts": "now"}, ("unreadable_visit_start_ts",)),
    ("visits", {"visit_start_ts": "2026-01-05 10:00"}, ()),
    ("visits", {"visit_start_ts": "2026-01-05 10:00Z"}, ()),
    ("visits", {"visit_start_ts": "2026-01-05T10:00:00.123456+05:30"}, ()),
    ("visits", {"visit_start_ts": "2026-01-05T13:00+02:30"}, ()),
    ("visits", {"visit_start_ts": "2026-01-05T13:00-02:30"}, ("visit_end_not_after_start",)),
    ("visits", {"visit_end_ts": "later"}, ("unreadable_visit_end_ts",)),
    ("visits", {"visit_end_ts": "2026-01-05T10:00:00"}, ("visit_end_not_after_start",)),
    ("visits", {"visit_end_ts": ""}, ()),
    ("visits", {"status": ""}, ("missing_status",)),
    ("visits", {"status": "Lost"}, ("unknown_status",)),
    (
        "visits",
        {"patient_id": "P404", "visit_type": "?", "department": " ", "status": ""},
        ("orphan_patient_id", "unknown_visit_type", "missing_department", "missing_status"),
    ),
    ("admissions", {"admission_id": ""}, ("missing_admission_id",)),
    ("admissions", {"visit_id": ""}, ("missing_visit_id",)),
    ("admissions", {"visit_id": "V404"}, ("orphan_visit_id",)),
    ("admissions", {"admit_ts": ""}, ("missing_admit_ts",)),
    ("admissions", {"admit_ts": "?"}, ("unreadable_admit_ts",)),
    ("admissions", {"discharge_ts": "?"}, ("unreadable_discharge_ts",)),
    ("admissions", {"discharge_ts": "2026-01-05T10:29"}, ("discharge_not_after_admit",)),
    ("admissions", {"discharge_ts": ""}, ()),
    ("admissions", {"room_type": ""}, ("missing_room_type",)),
    ("admissions", {"room_type": "Suite"}, ("unknown_room_type",)),
    ("admissions", {"room_type": "general ward"}, ()),
    ("treatments", {"treatment_id": ""}, ("missing_treatment_id",)),
    ("treatments", {"visit_id": ""}, ("missing_visit_id",)),
    ("treatments", {"visit_id": "V404"}, ("orphan_visit_id",)),
    ("treatments", {"treatment_code": ""}, ("missing_treatment_code",)),
    ("treatments", {"treatment_name": ""}, ()),
    ("treatments", {"treatment_cost": ""}, ("missing_treatment_cost",)),
    ("treatments", {"treatment_cost": "-0.01"}, ("negative_treatment_cost",)),
    ("treatments", {"treatment_cost": "-0.004"}, ()),
    ("treatments", {"treatment_cost": "-0.005"}, ("negative_treatment_cost",)),
    ("treatments", {"treatment_cost": "1,200.00"}, ("unreadable_treatment_cost",)),
    ("treatments", {"treatment_cost": "1e3"}, ("unreadable_treatment_cost",)),
    ("treatments", {"treatment_cost": "NaN"}, ("unreadable_treatment_cost",)),
    ("treatments", {"treatment_cost": "Infinity"}, ("unreadable_treatment_cost",)),
    ("treatments", {"treatment_cost": ".5"}, ()),
    ("treatments", {"treatment_cost": "+.25"}, ()),
    ("treatments", {"treatment_cost": "-.004"}, ()),
    ("treatments", {"treatment_cost": "-.005"}, ("negative_treatment_cost",)),
    ("treatments", {"treatment_cost": "."}, ("unreadable_treatment_cost",)),
    ("treatments", {"treatment_cost": "-."}, ("unreadable_treatment_cost",)),
    ("treatments", {"treatment_cost": ".5."}, ("unreadable_treatment_cost",)),
    ("treatments", {"treatment_cost": ". 5"}, ("unreadable_treatment_cost",)),
    ("treatments", {"treatment_cost": "5."}, ("unreadable_treatment_cost",)),
    ("treatments", {"treatment_cost": "12345678901"}, ("unreadable_treatment_cost",)),
    ("treatments", {"treatment_cost": "9999999999.995"}, ("unreadable_treatment_cost",)),
    ("treatments", {"treatment_cost": "9999999999.994"}, ()),
    ("treatments", {"treatment_cost": "+0000000000000012.5"}, ()),
    ("treatments", {"performed_ts": ""}, ("missing_performed_ts",)),
    ("treatments", {"performed_ts": "?"}, ("unreadable_performed_ts",)),
    ("billing", {"bill_id": ""}, ("missing_bill_id",)),
    ("billing", {"visit_id": ""}, ("missing_visit_id",)),
    ("billing", {"visit_id": "V404"}, ("orphan_visit_id",)),
    ("billing", {"total_amount": ""}, ("missing_total_amount",)),
    ("billing", {"total_amount": "?"}, ("unreadable_total_amount",)),
    ("billing", {"total_amount": "-1"}, ("negative_total_amount", "insurance_exceeds_total")),
    ("billing", {"insurance_amount": "?"}, ("unreadable_insurance_amount",)),
    ("billing", {"insurance_amount": ""}, ()),
    ("billing", {"insurance_amount": "500.01"}, ("insurance_exceeds_total",)),
    ("billing", {"patient_amount": "?"}, ("unreadable_patient_amount",)),
    ("billing", {"patient_amount": "-1"}, ("negative_patient_amount",)),
    ("billing", {"payment_status": ""}, ("missing_payment_status",)),
    ("billing", {"payment_status": "Waived", "payment_ts": ""}, ("unknown_payment_status",)),
    ("billing", {"payment_ts": ""}, ("paid_without_payment_ts",)),
    ("billing", {"payment_ts": "?"}, ("unreadable_payment_ts",)),
    ("billing", {"payment_status": "pending", "payment_ts": ""}, ()),
]
# Of a dataset that has none above, those that the generator derives from its declaration.
BY_HAND = {name for name, *_ in EXAMPLES}
EXAMPLES += [
    (name, {column: defect.spoil(VALID[name], 0)[column] for column in defect.texts}, tuple(defect.reasons.split(";")))
    for name in CATALOG
    if name not in BY_HAND
    for defect in defects(name)
    if defect.texts and not defect.reasons.startswith("duplicate_")
]


def broken(name: str) -> Change:
    """Returns a change for which a row is rejected: to an unlisted value, else against a rule, else to a blank key."""
    dataset = CATALOG[name]
    keys, rules = {dataset.key, *dataset.parents}, {rule.reason for rule in dataset.rules}
    changes = [(reasons[0], change) for of, change, reasons in EXAMPLES if of == name and len(reasons) == 1]
    changes = [(reason, change) for reason, change in changes if keys.isdisjoint(change)]
    order = sorted(changes, key=lambda each: (not each[0].startswith("unknown_"), each[0] not in rules))
    return order[0][1] if order else {dataset.key: ""}


# (dataset, changes to the sound row: versions of one key, each of which stands over those behind it)
UNPAID = {"payment_status": "Pending", "payment_ts": ""}
VERSIONS: list[tuple[str, list[Change]]] = [
    # What says more, before all else. "Unknown" says nothing.
    ("patients", [{"gender": "f"}, {"gender": " unKNOWN "}]),
    ("patients", [{"gender": "Other", "city": "Aachen"}, {"gender": "Unknown", "city": "Zug"}]),
    ("patients", [{"city": "Aachen"}, {"gender": "M", "city": " "}]),
    ("patients", [{"gender": "Unknown", "city": "Brest"}, {"gender": "Unknown", "city": ""}]),
    ("visits", [{"status": "Cancelled"}, {"doctor_id": ""}]),
    ("visits", [{"visit_end_ts": "2026-01-05T10:05"}, {"visit_end_ts": "", "department": "Surgery"}]),
    ("admissions", [{"room_type": "CCU"}, {"discharge_ts": "", "admit_ts": "2026-01-31T00:00"}]),
    ("treatments", [{"treatment_cost": "1"}, {"treatment_name": "", "treatment_cost": "999"}]),
    ("billing", [{}, UNPAID]),
    ("billing", [{"total_amount": "480.00"}, UNPAID]),
    ("billing", [UNPAID, {"insurance_amount": "", "patient_amount": ""}]),
    ("billing", [{"payment_status": "pending"}, {"payment_status": "Partial", "payment_ts": ""}]),
    # Then what is further along.
    ("patients", [{"gender": "F", "city": ""}, {"gender": "Unknown", "city": "Brest"}]),
    ("patients", [{"city": ""}, {"gender": "UNKNOWN", "registration_date": "2024-04-01"}]),
    ("visits", [{"status": " completed"}, {"status": "NO-SHOW\u00a0"}, {"status": "cancelled"}]),
    ("visits", [{"visit_end_ts": ""}, {"status": "No-show", "doctor_id": ""}]),
    (
        "visits",
        [
            {"status": "No-show"},
            {"status": "Cancelled", "visit_start_ts": "2026-01-05T11:00", "visit_type": "Outpatient"},
        ],
    ),
    (
        "billing",
        [
            {"payment_status": "PAID", "total_amount": "400"},
            {"payment_status": "partial", "total_amount": "450"},
            {"payment_status": "Pending", "payment_ts": "2026-01-21T00:00"},
        ],
    ),
    ("billing", [{"payment_status": "Partial", "payment_ts": ""}, UNPAID | {"total_amount": "900.00"}]),
    ("billing", [{"patient_amount": ""}, UNPAID]),
    # Then what is later; an earlier column goes before a later one.
    ("patients", [{"registration_date": "2024-03-02"}, {"gender": "M", "city": "Zug"}]),
    ("patients", [{"birth_date": "1980-03-01"}, {"registration_date": "2024-03-02"}]),
    ("visits", [{"visit_start_ts": "2026-01-05T10:30"}, {"visit_end_ts": "2026-01-05T12:00"}]),
    ("visits", [{"visit_end_ts": "2026-01-05T11:40+00:00"}, {"visit_end_ts": "2026-01-05T12:35+01:00"}]),
    ("visits", [{"visit_start_ts": "2026-01-05 10:00:00.5", "visit_end_ts": ""}, {"doctor_id": ""}]),
    ("admissions", [{"discharge_ts": "2026-01-10T09:00"}, {"room_type": "Private"}]),
    ("treatments", [{"performed_ts": "2026-01-05T10:46"}, {"treatment_code": "ZZ", "treatment_cost": "900"}]),
    (
        "billing",
        [
            {"payment_ts": "2026-01-20T13:00:01", "total_amount": "410"},
            {"payment_ts": "2026-01-20T14:00+01:00", "total_amount": "420"},
            {"total_amount": "430"},
        ],
    ),
    # Then what is greater, and that is no longer a matter of ranks.
    ("patients", [{"gender": "Other"}, {"gender": "m"}, {"gender": "F", "city": "Zug"}]),
    ("patients", [{"city": "Zug"}, {"city": "Aachen"}]),
    ("visits", [{"visit_type": "Outpatient"}, {"department": "Surgery"}, {"doctor_id": "D9"}, {}]),
    ("admissions", [{"room_type": "Semi-Private"}, {"room_type": "private"}, {"room_type": "ICU"}]),
    ("treatments", [{"treatment_cost": "1000"}, {"treatment_cost": "999.99"}]),
    ("treatments", [{"treatment_name": "X", "treatment_cost": "1"}, {"treatment_cost": "999"}]),
    ("billing", [{"insurance_amount": "410"}, {"patient_amount": "900"}, {}]),
    ("billing", [{"patient_amount": ""}, {"insurance_amount": "", "patient_amount": "900"}]),
]


def derive_versions(dataset: Dataset) -> Iterator[list[Change]]:
    """Yields versions for a dataset that has none above: what says more stands over a blank, greater text over less."""
    for column in dataset.columns[1:]:
        value = VALID[dataset.name][column.name]
        free = column.type == "text" and not column.one_of and not column.references
        pair = [{}, {column.name: ""}] if value and not column.required else [{column.name: f"{value}x"}, {}] * free
        if pair and not any(verdicts(dataset.name).codes(VALID[dataset.name] | change) for change in pair):
            yield pair


VERSIONS += [(n, pair) for n, dataset in CATALOG.items() if n not in BY_HAND for pair in derive_versions(dataset)]
# Versions that say the same.
WRITTEN_OTHERWISE: list[tuple[str, list[Change]]] = [
    ("patients", [{"gender": "F"}, {"gender": " f"}, {}]),
    ("visits", [{"status": "COMPLETED", "visit_start_ts": "2026-01-05T11:00+01:00"}, {"status": " completed "}]),
    ("admissions", [{"admit_ts": "2026-01-05 10:30Z"}, {"admit_ts": "2026-01-05T10:30:00.000"}]),
    ("treatments", [{"treatment_cost": "120"}, {"treatment_cost": "+0120.004"}]),
    ("billing", [UNPAID, UNPAID | {"payment_status": "pending"}, UNPAID]),
]


def versions(dataset: str, cases: list[tuple[str, list[Change]]] = VERSIONS) -> Iterator[tuple[Change, list[Change]]]:
    """(the row that must stand, all rows of its key), sent in either order; of more than two also without the first."""
    numbers, key = count(), CATALOG[dataset].key
    for changes in (changes for name, changes in cases if name == dataset):
        for rest in (changes[start:] for start in range(len(changes) - 1)):
            for step in (1, -1):
                own = {key: f"X{next(numbers)}"}
                yield VALID[dataset] | rest[0] | own, [VALID[dataset] | change | own for change in rest[::step]]


def records(spark: Any, texts: Iterable[str], day: date = DAY) -> Any:
    """The records of one file, as validation.judge takes them."""
    return spark.createDataFrame([(day, text) for text in texts], "_partition_date date, _raw string")


def keys(spark: Any, column: str, *accepted: str, day: date = DAY) -> Any:
    """Keys accepted in one partition, as validation.judge takes them."""
    return spark.createDataFrame([(key, day) for key in accepted], f"{column} string, _partition_date date")


def record(dataset: str, row: Change) -> str:
    """A row as a CSV record, its columns in declared order."""
    values = (row[name] for name in CATALOG[dataset].names)
    return ",".join('"' + v.replace('"', '""') + '"' if set(v) & set('",\n') else v for v in values)
