-- Admissions by day, and those by department, are gold's admissions, each counted once.
with

gold as (
    select count(*) as total_admissions from admissions
),

marts as (
    select
        'mart_daily_kpis' as mart,
        coalesce(sum(total_admissions), 0) as total_admissions
    from mart_daily_kpis
    union all
    select
        'mart_department_stats' as mart,
        coalesce(sum(total_admissions), 0) as total_admissions
    from mart_department_stats
)

select
    marts.mart,
    marts.total_admissions,
    gold.total_admissions as expected
from marts
cross join gold
where marts.total_admissions <> gold.total_admissions
