-- One row per calendar day (UTC) on which a visit started, an admission began or a patient registered.
with

visits_by_day as (
    select
        visit_start_ts::date as kpi_date,
        count(*) as total_visits,
        count(*) filter (where status = 'Completed') as completed_visits
    from visits
    group by visit_start_ts::date
),

admissions_by_day as (
    select
        admit_ts::date as kpi_date,
        count(*) as total_admissions,
        -- Averages the exact lengths: a mean of rounded-down quotients can fall just below a half and round wrongly.
        avg(extract(epoch from (discharge_ts - admit_ts))) / 86400 as avg_length_of_stay_days
    from admissions
    group by admit_ts::date
),

-- A bill counts on the day on which its visit started, whenever it was paid.
bills_by_day as (
    select
        visits.visit_start_ts::date as kpi_date,
        count(*) as total_bills,
        count(*) filter (where billing.payment_status = 'Paid') as paid_bills,
        count(*) filter (where billing.payment_status = 'Pending') as pending_bills,
        sum(billing.total_amount) as total_revenue,
        sum(billing.insurance_amount) as insurance_revenue,
        sum(billing.patient_amount) as patient_revenue
    from billing
    inner join visits on billing.visit_id = visits.visit_id
    group by visits.visit_start_ts::date
),

patients_by_day as (
    select
        registration_date as kpi_date,
        count(*) as new_patients
    from patients
    group by registration_date
),

days as (
    select kpi_date from visits_by_day
    union distinct
    select kpi_date from admissions_by_day
    union distinct
    select kpi_date from patients_by_day
)

select
    days.kpi_date,
    coalesce(visits_by_day.total_visits, 0) as total_visits,
    coalesce(visits_by_day.completed_visits, 0) as completed_visits,
    coalesce(admissions_by_day.total_admissions, 0) as total_admissions,
    round(admissions_by_day.avg_length_of_stay_days, 4) as avg_length_of_stay_days,
    coalesce(bills_by_day.total_revenue, 0) as total_revenue,
    coalesce(bills_by_day.insurance_revenue, 0) as insurance_revenue,
    coalesce(bills_by_day.patient_revenue, 0) as patient_revenue,
    coalesce(bills_by_day.paid_bills, 0) as paid_bills,
    coalesce(bills_by_day.pending_bills, 0) as pending_bills,
    round(100.0 * bills_by_day.paid_bills / bills_by_day.total_bills, 4) as payment_rate_pct,
    coalesce(patients_by_day.new_patients, 0) as new_patients
from days
left join visits_by_day on days.kpi_date = visits_by_day.kpi_date
left join admissions_by_day on days.kpi_date = admissions_by_day.kpi_date
left join bills_by_day on days.kpi_date = bills_by_day.kpi_date
left join patients_by_day on days.kpi_date = patients_by_day.kpi_date
