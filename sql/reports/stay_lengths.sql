-- One row per month (UTC) of discharge: the median and the 90th percentile of the lengths of stay in whole days, and
-- the number of discharges. A month's day is its last day; for the current month, it is the newest date in gold.
with

counted as (
    select
        discharge_month,
        los_days,
        sum(discharges) as discharges
    from mart_stays
    group by discharge_month, los_days
),

cumulated as (
    select
        discharge_month,
        los_days,
        sum(discharges) over (partition by discharge_month order by los_days) as so_far,
        sum(discharges) over (partition by discharge_month) as discharges
    from counted
),

months as (
    select
        discharge_month,
        max(discharges) as discharges,
        min(los_days) filter (where so_far >= 0.5 * discharges) as median_days,
        min(los_days) filter (where so_far >= 0.9 * discharges) as p90_days
    from cumulated
    group by discharge_month
)

select
    months.discharges,
    months.median_days,
    months.p90_days,
    1 as months,
    case
        when newest.day >= months.discharge_month
            then least(newest.day, (months.discharge_month + interval '1 month')::date - 1)
        else (months.discharge_month + interval '1 month')::date - 1
    end as day
from months
cross join ops.newest
