-- One row per department: the median and the 90th percentile of the lengths of stay of episodes that ended in the 12
-- months up to the month of the newest date, same-day episodes included, by the department of the last stay.
with

counted as (
    select
        mart_stays.department,
        mart_stays.los_days,
        sum(mart_stays.discharges) as discharges,
        sum(mart_stays.same_day_discharges) as same_day_discharges
    from mart_stays
    inner join ops.newest
        on
            mart_stays.discharge_month > newest.day - interval '12 months'
            and mart_stays.discharge_month <= newest.day
    group by mart_stays.department, mart_stays.los_days
),

cumulated as (
    select
        department,
        los_days,
        same_day_discharges,
        sum(discharges) over (partition by department order by los_days) as so_far,
        sum(discharges) over (partition by department) as discharges
    from counted
)

select
    department,
    1 as departments,
    max(discharges)::bigint as discharges,
    sum(same_day_discharges)::bigint as same_day_discharges,
    min(los_days) filter (where so_far >= 0.5 * discharges) as median_days,
    min(los_days) filter (where so_far >= 0.9 * discharges) as p90_days
from cumulated
group by department
