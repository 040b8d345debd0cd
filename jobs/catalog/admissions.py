from jobs.dataset import Column, Dataset, Rule

admissions = Dataset(
    name="admissions",
    doc="One row per stay in a room; no discharge_ts while the patient is still in.",
    columns=(
        Column("admission_id", required=True),
        Column("visit_id", required=True, references="visits"),
        Column("admit_ts", "timestamp", required=True),
        Column("discharge_ts", "timestamp"),
        Column("room_type", required=True, one_of=("General Ward", "Semi-Private", "Private", "ICU", "CCU")),
    ),
    day="admit_ts",
    rules=(Rule("discharge_not_after_admit", "discharge_ts > admit_ts", ("admit_ts", "discharge_ts")),),
    computed=(("length_of_stay_days", "numeric", "extract(epoch from (discharge_ts - admit_ts)) / 86400"),),
)
