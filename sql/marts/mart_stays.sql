-- One row per month of discharge (UTC), last department and length of stay in days: episodes whose end is known.
with

discharges as (
    select
        last_department as department,
        los_days,
        same_day,
        date_trunc('month', ended)::date as discharge_month
    from mart_episodes
    where los_days is not null
)

select
    discharge_month,
    department,
    los_days,
    count(*) as discharges,
    count(*) filter (where same_day) as same_day_discharges
from discharges
group by discharge_month, department, los_days
