-- Every outpatient visit up to the newest date counts as one appointment, and every visit counts in one doctor's day.
with

gold as (
    select
        count(*) as visits,
        count(*) filter (
            where visits.visit_type = 'Outpatient' and visits.visit_start_ts < as_of.day + 1
        ) as booked
    from visits
    cross join ops.as_of
),

appointments as (
    select
        coalesce(sum(booked), 0) as booked,
        coalesce(sum(kept + missed + cancelled), 0) as parts
    from mart_appointments
),

doctors as (
    select
        coalesce(sum(visits), 0) as visits,
        count(*) filter (where kept + missed > visits or patients not between 1 and visits or minutes < 0) as wrong
    from mart_doctor_days
)

select
    gold.booked as expected_booked,
    appointments.booked,
    gold.visits as expected_visits,
    doctors.visits
from gold
cross join appointments
cross join doctors
where
    gold.booked <> appointments.booked
    or gold.booked <> appointments.parts
    or gold.visits <> doctors.visits
    or doctors.wrong > 0
