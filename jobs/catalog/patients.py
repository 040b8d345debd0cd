from jobs.dataset import Column, Dataset, Rule

patients = Dataset(
    name="patients",
    doc="One row per registered patient.",
    columns=(
        Column("patient_id", required=True),
        Column("gender", required=True, one_of=("M", "F", "Other", "Unknown"), not_known="Unknown"),
        Column("birth_date", "date", required=True),
        Column("city"),
        Column("registration_date", "date", required=True),
    ),
    day="registration_date",
    rules=(Rule("birth_after_registration", "birth_date <= registration_date", ("birth_date", "registration_date")),),
)
