-- Visits in each mart are gold's visits, each counted once.
with

gold as (
    select
        count(*) as total_visits,
        count(*) filter (where status = 'Completed') as completed_visits
    from visits
),

-- The mart of patients does not have the number of completed visits.
marts as (
    select
        'mart_daily_kpis' as mart,
        coalesce(sum(total_visits), 0) as total_visits,
        coalesce(sum(completed_visits), 0) as completed_visits
    from mart_daily_kpis
    union all
    select
        'mart_department_stats' as mart,
        coalesce(sum(total_visits), 0) as total_visits,
        coalesce(sum(completed_visits), 0) as completed_visits
    from mart_department_stats
    union all
    select
        'mart_patient_stats' as mart,
        coalesce(sum(total_visits), 0) as total_visits,
        null as completed_visits
    from mart_patient_stats
)

select
    marts.mart,
    marts.total_visits,
    gold.total_visits as expected_total_visits,
    marts.completed_visits,
    gold.completed_visits as expected_completed_visits
from marts
cross join gold
where
    marts.total_visits <> gold.total_visits
    or marts.completed_visits <> gold.completed_visits
