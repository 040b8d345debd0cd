from jobs.dataset import Column, Dataset, Rule

patients = Dataset(
    name="patients",
    doc="One row per registered patient.",
    columns=(
        Column("patient_id", required=True, doc="Identifier given at registration.", example="P00000042"),
        Column(
            "gender",
            required=True,
            one_of=("M", "F", "Other", "Unknown"),
            not_known="Unknown",
            doc="Administrative gender.",
            example="F",
        ),
        Column("birth_date", "date", required=True, identifies=True, doc="Date of birth.", example="1980-02-29"),
        Column("city", identifies=True, doc="City of residence.", example="Springfield"),
        Column("registration_date", "date", required=True, doc="Day of the first registration.", example="2024-03-01"),
    ),
    day="registration_date",
    rules=(
        Rule(
            "birth_after_registration",
            "birth_date <= registration_date",
            ("birth_date", "registration_date"),
            message="A patient is not born after the registration.",
            violations=({"birth_date": ("{registration_date}",), "registration_date": ("{birth_date}",)},),
        ),
    ),
)
