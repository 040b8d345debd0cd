from jobs.dataset import Column, Dataset, Rule

treatments = Dataset(
    name="treatments",
    doc="One row per treatment given during a visit.",
    columns=(
        Column("treatment_id", required=True),
        Column("visit_id", required=True, references="visits"),
        Column("treatment_code", required=True),
        Column("treatment_name"),
        Column("treatment_cost", "decimal", required=True),
        Column("performed_ts", "timestamp", required=True),
    ),
    amount="treatment_cost",
    rules=(Rule("negative_treatment_cost", "treatment_cost >= 0", ("treatment_cost",)),),
)
