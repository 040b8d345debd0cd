-- One row per month of arrival (UTC) and step of 10 minutes: completed emergencies by the time from start to end.
select
    date_trunc('month', visit_start_ts)::date as arrival_month,
    10 * floor(extract(epoch from (visit_end_ts - visit_start_ts)) / 600)::bigint as minutes,
    count(*) as visits
from visits
where visit_type = 'Emergency' and status = 'Completed' and visit_end_ts is not null
group by
    date_trunc('month', visit_start_ts)::date,
    10 * floor(extract(epoch from (visit_end_ts - visit_start_ts)) / 600)::bigint
