-- One row per calendar day (UTC), doctor and department with visits.
with

days as (
    select
        department,
        visit_start_ts::date as visit_date,
        coalesce(left(doctor_id, 100), '(none)') as doctor_id,
        count(*) as visits,
        count(*) filter (where status = 'Completed') as kept,
        count(*) filter (where status = 'No-show') as missed,
        count(distinct patient_id) as patients,
        -- The union of the visits' intervals: visits that overlap count once.
        range_agg(tsrange(visit_start_ts, visit_end_ts)) filter (where visit_end_ts > visit_start_ts) as busy
    from visits
    group by visit_start_ts::date, coalesce(left(doctor_id, 100), '(none)'), department
)

select
    days.visit_date,
    days.doctor_id,
    days.department,
    days.visits,
    days.kept,
    days.missed,
    days.patients,
    coalesce(
        (
            select round(extract(epoch from sum(upper(spans.span) - lower(spans.span))) / 60, 4)
            from unnest(days.busy) as spans (span)
        ), 0
    ) as minutes
from days
