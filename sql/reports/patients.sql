-- One row: all patients, those who came at all and those who came more than once, their visits and their bills.
select
    count(*) as patients,
    count(*) filter (where is_returning) as returning_patients,
    count(*) filter (where total_visits > 0) as seen_patients,
    coalesce(sum(total_visits), 0)::bigint as visits,
    coalesce(sum(total_billed), 0)::numeric(18, 2) as billed
from mart_patient_stats
