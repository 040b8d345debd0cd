-- The numbers of paid and pending bills, and the money paid, are those of gold's bills.
with

gold as (
    select
        count(*) filter (where payment_status = 'Paid') as paid_bills,
        count(*) filter (where payment_status = 'Pending') as pending_bills,
        coalesce(sum(total_amount) filter (where payment_status = 'Paid'), 0) as total_paid
    from billing
),

daily as (
    select
        coalesce(sum(paid_bills), 0) as paid_bills,
        coalesce(sum(pending_bills), 0) as pending_bills
    from mart_daily_kpis
),

by_patient as (
    select coalesce(sum(total_paid), 0) as total_paid from mart_patient_stats
)

select
    daily.paid_bills,
    gold.paid_bills as expected_paid_bills,
    daily.pending_bills,
    gold.pending_bills as expected_pending_bills,
    by_patient.total_paid,
    gold.total_paid as expected_total_paid
from daily
cross join by_patient
cross join gold
where
    daily.paid_bills <> gold.paid_bills
    or daily.pending_bills <> gold.pending_bills
    or by_patient.total_paid <> gold.total_paid
