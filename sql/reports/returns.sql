-- One row per day (UTC) on which visits started, department and type of visit, beginning a year after the first visit.
-- A visit is new if it is on the day of its patient's first visit. In the first year, new patients cannot be told from
-- returning ones, since the data do not reach further back.
with

visits_of_day as (
    select
        visits.visit_start_ts::date as day,
        visits.department,
        visits.visit_type,
        count(*) as visits,
        count(*) filter (where visits.visit_start_ts::date = patients.first_visit_date) as new_visits
    from visits
    inner join mart_patient_stats as patients on visits.patient_id = patients.patient_id
    group by visits.visit_start_ts::date, visits.department, visits.visit_type
)

select
    day,
    department,
    visit_type,
    visits,
    new_visits,
    visits - new_visits as returning_visits
from visits_of_day
where day >= (select min(patients.first_visit_date) + 365 from mart_patient_stats as patients)
