-- No part is larger than its whole, in any row of a mart.
select
    'mart_daily_kpis' as mart,
    kpi_date::text as row_key
from mart_daily_kpis
where completed_visits > total_visits or payment_rate_pct not between 0 and 100
union all
select
    'mart_department_stats' as mart,
    concat_ws(' ', department, stat_date) as row_key
from mart_department_stats
where
    completed_visits > total_visits
    or emergency_visits + inpatient_visits + outpatient_visits <> total_visits
union all
select
    'mart_patient_stats' as mart,
    patient_id as row_key
from mart_patient_stats
where
    total_paid > total_billed
    or first_visit_date > last_visit_date
    or is_returning <> (total_visits > 1)
