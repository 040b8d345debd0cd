-- One row per month (UTC) that begins a year after the first visit or later: the patients with visits in it, each
-- counted once. Patients are new in the month of their first visit. Numbers of fewer patients than SMALL_CELLS are
-- null, and no total discloses them. A month's day is its last day; for the current month, it is the newest date in
-- gold.
with

of_month as (
    select
        visits.patient_id,
        date_trunc('month', visits.visit_start_ts)::date as first_day,
        bool_or(visits.visit_start_ts::date = patients.first_visit_date) as is_new
    from visits
    inner join mart_patient_stats as patients on visits.patient_id = patients.patient_id
    group by visits.patient_id, date_trunc('month', visits.visit_start_ts)::date
),

counted as (
    select
        first_day,
        count(*) filter (where is_new) as new_patients,
        count(*) filter (where not is_new) as returning_patients
    from of_month
    where first_day >= (select min(patients.first_visit_date) + 365 from mart_patient_stats as patients)
    group by first_day
)

select
    1 as months,
    case
        when newest.day >= counted.first_day then least(newest.day, (counted.first_day + interval '1 month')::date - 1)
        else (counted.first_day + interval '1 month')::date - 1
    end as day,
    case when not ops.is_small(counted.new_patients) then counted.new_patients end as new_patients,
    case when not ops.is_small(counted.returning_patients) then counted.returning_patients end as returning_patients,
    (not ops.is_small(counted.new_patients))::integer as new_months,
    (not ops.is_small(counted.returning_patients))::integer as returning_months
from counted
cross join ops.newest
