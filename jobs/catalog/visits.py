from jobs.dataset import Column, Dataset, Rule

visits = Dataset(
    name="visits",
    doc="One row per visit of a patient to a department, whether kept or not.",
    columns=(
        Column("visit_id", required=True),
        Column("patient_id", required=True, references="patients"),
        Column("visit_type", required=True, one_of=("Outpatient", "Emergency", "Inpatient")),
        Column("department", required=True, groups=True),
        Column("doctor_id"),
        Column("visit_start_ts", "timestamp", required=True),
        Column("visit_end_ts", "timestamp"),
        Column(
            "status",
            required=True,
            one_of=("Completed", "Cancelled", "No-show"),
            rank=("Completed", "No-show", "Cancelled"),
        ),
    ),
    day="visit_start_ts",
    rules=(Rule("visit_end_not_after_start", "visit_end_ts > visit_start_ts", ("visit_start_ts", "visit_end_ts")),),
)
