from jobs.dataset import Column, Dataset, Rule

billing = Dataset(
    name="billing",
    doc="One row per bill for a visit: what the insurer and the patient owe, and whether it has been paid.",
    columns=(
        Column("bill_id", required=True),
        Column("visit_id", required=True, references="visits"),
        Column("total_amount", "decimal", required=True),
        Column("insurance_amount", "decimal"),
        Column("patient_amount", "decimal"),
        Column(
            "payment_status", required=True, one_of=("Paid", "Pending", "Partial"), rank=("Paid", "Partial", "Pending")
        ),
        Column("payment_ts", "timestamp"),
    ),
    amount="total_amount",
    rules=(
        Rule("negative_total_amount", "total_amount >= 0", ("total_amount",)),
        Rule("negative_patient_amount", "patient_amount >= 0", ("patient_amount",)),
        Rule("insurance_exceeds_total", "insurance_amount <= total_amount", ("insurance_amount", "total_amount")),
        Rule(
            "paid_without_payment_ts",
            "payment_status <> 'Paid' or payment_ts is not null",
            ("payment_status", "payment_ts"),
        ),
    ),
)
