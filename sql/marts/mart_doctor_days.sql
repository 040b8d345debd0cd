-- One row per calendar day (UTC), doctor and department with visits.
with

-- What a visit adds to the time of those that started before it: its interval, less what these cover.
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
    round(coalesce(sum(extract(epoch from added)) filter (where added > interval '0'), 0) / 60, 4) as minutes
from worked
group by visit_date, doctor_id, department
