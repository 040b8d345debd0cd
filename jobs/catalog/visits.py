from jobs.dataset import Column, Dataset, Rule

visits = Dataset(
    name="visits",
    doc="One row per visit of a patient to a department, whether kept or not.",
    columns=(
        Column("visit_id", required=True, doc="Identifier of the visit.", example="V00000123"),
        Column("patient_id", required=True, references="patients", doc="The patient.", example="P00000042"),
        Column(
            "visit_type",
            required=True,
            one_of=("Outpatient", "Emergency", "Inpatient"),
            doc="How the patient comes in.",
            example="Inpatient",
        ),
        Column("department", required=True, groups=True, doc="The department visited.", example="Cardiology"),
        Column("doctor_id", doc="The doctor in charge.", example="D0001"),
        Column(
            "visit_start_ts", "timestamp", required=True, doc="Start of the visit (UTC).", example="2026-01-05T10:00:00"
        ),
        Column(
            "visit_end_ts",
            "timestamp",
            doc="End of the visit (UTC); blank while it lasts and where it was not kept.",
            example="2026-01-05T11:30:00",
        ),
        Column(
            "status",
            required=True,
            one_of=("Completed", "Cancelled", "No-show"),
            rank=("Completed", "No-show", "Cancelled"),
            doc="What became of the appointment.",
            example="Completed",
        ),
    ),
    day="visit_start_ts",
    rules=(
        Rule(
            "visit_end_not_after_start",
            "visit_end_ts > visit_start_ts",
            ("visit_start_ts", "visit_end_ts"),
            message="A visit ends after it starts.",
            violations=({"visit_end_ts": ("{visit_start_ts}", "1900-01-01T00:00:00")},),
        ),
    ),
)
