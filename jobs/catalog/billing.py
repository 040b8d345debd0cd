from jobs.dataset import Column, Dataset, Rule

MONEY = "currency of the installation"

billing = Dataset(
    name="billing",
    doc="One row per bill for a visit: what the insurer and the patient owe, and whether it has been paid.",
    columns=(
        Column("bill_id", required=True, doc="Identifier of the bill.", example="B00000123"),
        Column("visit_id", required=True, references="visits", doc="The visit it is for.", example="V00000123"),
        Column("total_amount", "decimal", required=True, doc="Amount of the bill.", unit=MONEY, example="500.00"),
        Column("insurance_amount", "decimal", doc="What the insurer owes of it.", unit=MONEY, example="400.00"),
        Column("patient_amount", "decimal", doc="What the patient owes of it.", unit=MONEY, example="100.00"),
        Column(
            "payment_status",
            required=True,
            one_of=("Paid", "Pending", "Partial"),
            rank=("Paid", "Partial", "Pending"),
            doc="Whether it has been paid.",
            example="Paid",
        ),
        Column("payment_ts", "timestamp", doc="When it was paid in full (UTC).", example="2026-01-20T12:00:00"),
    ),
    amount="total_amount",
    rules=(
        Rule(
            "negative_total_amount",
            "total_amount >= 0",
            ("total_amount",),
            message="The amount of a bill is not negative.",
            violations=(
                {"total_amount": ("-{total_amount}",), "insurance_amount": ("",)},
                {"total_amount": ("-{total_amount}",), "insurance_amount": ("0.00", "25.00")},
            ),
        ),
        Rule(
            "negative_patient_amount",
            "patient_amount >= 0",
            ("patient_amount",),
            message="The patient's share is not negative.",
            violations=({"patient_amount": ("-1{patient_amount}",)},),
        ),
        Rule(
            "insurance_exceeds_total",
            "insurance_amount <= total_amount",
            ("insurance_amount", "total_amount"),
            message="The insurer's share is at most the amount of the bill.",
            violations=({"insurance_amount": ("9{total_amount}",)},),
        ),
        Rule(
            "paid_without_payment_ts",
            "payment_status <> 'Paid' or payment_ts is not null",
            ("payment_status", "payment_ts"),
            message="A paid bill needs a payment time.",
            violations=({"payment_status": ("Paid", "paid"), "payment_ts": ("",)},),
        ),
    ),
)
