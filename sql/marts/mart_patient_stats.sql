-- One row per patient, with or without visits.
with

partitions as (
    select max(_partition_date) as newest from patients
    union all
    select max(_partition_date) as newest from visits
    union all
    select max(_partition_date) as newest from admissions
    union all
    select max(_partition_date) as newest from treatments
    union all
    select max(_partition_date) as newest from billing
),

-- Ages are as of the newest data, not of the wall clock: the same gold always gives the same mart.
today as (
    select max(newest)::timestamp as as_of from partitions
),

aged_patients as (
    select
        patients.patient_id,
        patients.gender,
        patients.city,
        extract(year from age(today.as_of, patients.birth_date::timestamp))::integer as age_years
    from patients
    cross join today
),

visits_by_patient as (
    select
        patients.patient_id,
        count(visits.visit_id) as total_visits,
        min(visits.visit_start_ts)::date as first_visit_date,
        max(visits.visit_start_ts)::date as last_visit_date
    from patients
    left join visits on patients.patient_id = visits.patient_id
    group by patients.patient_id
),

bills_by_patient as (
    select
        visits.patient_id,
        sum(billing.total_amount) as total_billed,
        sum(billing.total_amount) filter (where billing.payment_status = 'Paid') as total_paid
    from billing
    inner join visits on billing.visit_id = visits.visit_id
    group by visits.patient_id
)

select
    aged_patients.patient_id,
    aged_patients.gender,
    aged_patients.city,
    aged_patients.age_years,
    visits_by_patient.total_visits,
    visits_by_patient.first_visit_date,
    visits_by_patient.last_visit_date,
    coalesce(bills_by_patient.total_billed, 0) as total_billed,
    coalesce(bills_by_patient.total_paid, 0) as total_paid,
    visits_by_patient.total_visits > 1 as is_returning
from aged_patients
inner join visits_by_patient on aged_patients.patient_id = visits_by_patient.patient_id
left join bills_by_patient on aged_patients.patient_id = bills_by_patient.patient_id
