-- One row per weekday, hour (UTC), department and type of visit: the visits that started then in the 52 weeks up to the
-- newest date in gold, so that each weekday occurs equally often.
select
    visits.department,
    visits.visit_type,
    to_char(visits.visit_start_ts, 'ID Dy') as day_of_week,
    to_char(visits.visit_start_ts, 'HH24') as start_hour,
    count(*) as visits,
    count(*) filter (where visits.visit_type = 'Emergency') as emergencies
from visits
inner join ops.newest on visits.visit_start_ts::date between newest.day - 363 and newest.day
group by
    visits.department,
    visits.visit_type,
    to_char(visits.visit_start_ts, 'ID Dy'),
    to_char(visits.visit_start_ts, 'HH24')
