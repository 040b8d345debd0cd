-- One row per department and calendar day (UTC) on which a visit to it started.
with

visits_by_department as (
    select
        department,
        visit_start_ts::date as stat_date,
        count(*) as total_visits,
        count(*) filter (where status = 'Completed') as completed_visits,
        count(*) filter (where visit_type = 'Emergency') as emergency_visits,
        count(*) filter (where visit_type = 'Inpatient') as inpatient_visits,
        count(*) filter (where visit_type = 'Outpatient') as outpatient_visits,
        avg(extract(epoch from (visit_end_ts - visit_start_ts))) / 3600 as avg_visit_duration_hrs
    from visits
    group by department, visit_start_ts::date
),

-- An admission counts on the day on which its visit started, whenever the stay began.
admissions_by_department as (
    select
        visits.department,
        visits.visit_start_ts::date as stat_date,
        count(*) as total_admissions,
        avg(extract(epoch from (admissions.discharge_ts - admissions.admit_ts))) / 86400 as avg_los_days
    from admissions
    inner join visits on admissions.visit_id = visits.visit_id
    group by visits.department, visits.visit_start_ts::date
),

bills_by_department as (
    select
        visits.department,
        visits.visit_start_ts::date as stat_date,
        sum(billing.total_amount) as total_revenue
    from billing
    inner join visits on billing.visit_id = visits.visit_id
    group by visits.department, visits.visit_start_ts::date
)

select
    visits_by_department.department,
    visits_by_department.stat_date,
    visits_by_department.total_visits,
    visits_by_department.completed_visits,
    visits_by_department.emergency_visits,
    visits_by_department.inpatient_visits,
    visits_by_department.outpatient_visits,
    round(visits_by_department.avg_visit_duration_hrs, 4) as avg_visit_duration_hrs,
    coalesce(admissions_by_department.total_admissions, 0) as total_admissions,
    round(admissions_by_department.avg_los_days, 4) as avg_los_days,
    coalesce(bills_by_department.total_revenue, 0) as total_revenue
from visits_by_department
left join admissions_by_department
    on
        visits_by_department.department = admissions_by_department.department
        and visits_by_department.stat_date = admissions_by_department.stat_date
left join bills_by_department
    on
        visits_by_department.department = bills_by_department.department
        and visits_by_department.stat_date = bills_by_department.stat_date
