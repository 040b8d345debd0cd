from jobs.dataset import Column, Dataset, Rule

treatments = Dataset(
    name="treatments",
    doc="One row per treatment given during a visit.",
    columns=(
        Column("treatment_id", required=True, doc="Identifier of the treatment.", example="T00000456"),
        Column("visit_id", required=True, references="visits", doc="The visit it belongs to.", example="V00000123"),
        Column("treatment_code", required=True, doc="Code in the hospital's list of treatments.", example="CA01"),
        Column("treatment_name", doc="Name in that list.", example="Electrocardiogram"),
        Column(
            "treatment_cost",
            "decimal",
            required=True,
            doc="Cost of the treatment.",
            unit="currency of the installation",
            example="120.00",
        ),
        Column(
            "performed_ts", "timestamp", required=True, doc="When it was given (UTC).", example="2026-01-05T10:45:00"
        ),
    ),
    amount="treatment_cost",
    rules=(
        Rule(
            "negative_treatment_cost",
            "treatment_cost >= 0",
            ("treatment_cost",),
            message="A cost is not negative.",
            violations=(
                {"treatment_cost": ("-{treatment_cost}", "-0.01")},
                {"treatment_code": ("",), "treatment_cost": ("-0.01",)},
            ),
        ),
    ),
)
