-- One row per patient, with or without visits.
with

-- Ages are as of the newest data, not of today, so that the same gold always gives the same mart.
today as (
    select day::timestamp as as_of from ops.as_of
),

visits_by_patient as (
    select
        patient_id,
        count(*) as total_visits,
        min(visit_start_ts)::date as first_visit_date,
        max(visit_start_ts)::date as last_visit_date
    from visits
    group by patient_id
),

bills_by_patient as (
    select
        visits.patient_id,
        sum(billing.total_amount) as total_billed,
        sum(billing.total_amount) filter (where billing.payment_status = 'Paid') as total_paid
    from billing
    inner join visits on billing.visit_id = visits.visit_id
    group by visits.patient_id
),

aged_patients as (
    select
        patients.patient_id,
        patients.gender,
        patients.city,
        visits_by_patient.first_visit_date,
        visits_by_patient.last_visit_date,
        extract(year from age(today.as_of, patients.birth_date::timestamp))::integer as age_years,
        coalesce(visits_by_patient.total_visits, 0) as total_visits
    from patients
    cross join today
    left join visits_by_patient on patients.patient_id = visits_by_patient.patient_id
)

select
    aged_patients.patient_id,
    aged_patients.gender,
    aged_patients.city,
    aged_patients.age_years,
    aged_patients.total_visits,
    aged_patients.first_visit_date,
    aged_patients.last_visit_date,
    coalesce(bills_by_patient.total_billed, 0) as total_billed,
    coalesce(bills_by_patient.total_paid, 0) as total_paid,
    aged_patients.total_visits > 1 as is_returning
from aged_patients
left join bills_by_patient on aged_patients.patient_id = bills_by_patient.patient_id
