-- The amounts of insurers and of patients in the daily figures are the sums over gold's bills.
with

gold as (
    select
        coalesce(sum(insurance_amount), 0) as insurance_revenue,
        coalesce(sum(patient_amount), 0) as patient_revenue
    from billing
),

daily as (
    select
        coalesce(sum(insurance_revenue), 0) as insurance_revenue,
        coalesce(sum(patient_revenue), 0) as patient_revenue
    from mart_daily_kpis
)

select
    daily.insurance_revenue,
    gold.insurance_revenue as expected_insurance_revenue,
    daily.patient_revenue,
    gold.patient_revenue as expected_patient_revenue
from daily
cross join gold
where
    daily.insurance_revenue <> gold.insurance_revenue
    or daily.patient_revenue <> gold.patient_revenue
