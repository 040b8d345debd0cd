from jobs.dataset import Column, Dataset, Rule

admissions = Dataset(
    name="admissions",
    doc="One row per stay in a room; no discharge_ts while the patient is still in.",
    columns=(
        Column("admission_id", required=True, doc="Identifier of the stay.", example="A00000123"),
        Column("visit_id", required=True, references="visits", doc="The visit it belongs to.", example="V00000123"),
        Column("admit_ts", "timestamp", required=True, doc="Start of the stay (UTC).", example="2026-01-05T10:30:00"),
        Column(
            "discharge_ts",
            "timestamp",
            doc="End of the stay (UTC); blank while the patient is still in.",
            example="2026-01-08T09:00:00",
        ),
        Column(
            "room_type",
            required=True,
            one_of=("General Ward", "Semi-Private", "Private", "ICU", "CCU"),
            doc="Kind of room.",
            example="General Ward",
        ),
    ),
    day="admit_ts",
    rules=(
        Rule(
            "discharge_not_after_admit",
            "discharge_ts > admit_ts",
            ("admit_ts", "discharge_ts"),
            message="A patient is discharged after the admission.",
            violations=({"discharge_ts": ("{admit_ts}", "1900-01-01T00:00:00")},),
        ),
    ),
    computed=(("length_of_stay_days", "numeric", "extract(epoch from (discharge_ts - admit_ts)) / 86400"),),
)
