-- One row per calendar day (UTC) and department with outpatient visits that started before the end of the newest date.
select
    visits.visit_start_ts::date as visit_date,
    visits.department,
    count(*) as booked,
    count(*) filter (where visits.status = 'Completed') as kept,
    count(*) filter (where visits.status = 'No-show') as missed,
    count(*) filter (where visits.status = 'Cancelled') as cancelled
from visits
cross join ops.as_of
where visits.visit_type = 'Outpatient' and visits.visit_start_ts < as_of.day + 1
group by visits.visit_start_ts::date, visits.department
