-- Revenue in each mart is the sum over gold's bills.
with

gold as (
    select coalesce(sum(total_amount), 0) as revenue from billing
),

marts as (
    select
        'mart_daily_kpis' as mart,
        coalesce(sum(total_revenue), 0) as revenue
    from mart_daily_kpis
    union all
    select
        'mart_department_stats' as mart,
        coalesce(sum(total_revenue), 0) as revenue
    from mart_department_stats
    union all
    select
        'mart_patient_stats' as mart,
        coalesce(sum(total_billed), 0) as revenue
    from mart_patient_stats
)

select
    marts.mart,
    marts.revenue,
    gold.revenue as expected
from marts
cross join gold
where marts.revenue <> gold.revenue
