-- One row per calendar day (UTC), doctor and department with visits.
with

-- The time that a visit adds to the visits that started before it: its interval without the part that they cover.
worked as (
    select
        department,
        patient_id,
        status,
        visit_start_ts::date as visit_date,
        coalesce(left(doctor_id, 100), '(none)') as doctor_id,
        visit_end_ts - greatest(
            visit_start_ts,
            max(visit_end_ts) over (
                partition by visit_start_ts::date, coalesce(left(doctor_id, 100), '(none)'), department
                order by visit_start_ts
                rows between unbounded preceding and 1 preceding
            )
        ) as added
    from visits
)

select
    visit_date,
    doctor_id,
    department,
    count(*) as visits,
    count(*) filter (where status = 'Completed') as kept,
    count(*) filter (where status = 'No-show') as missed,
    count(distinct patient_id) as patients,
    round(
        extract(epoch from coalesce(sum(added) filter (where added > interval '0'), interval '0')) / 60, 4
    ) as minutes
from worked
group by visit_date, doctor_id, department
