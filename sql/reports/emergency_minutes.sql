-- One row per month (UTC) of arrival: within how many minutes half of the completed emergencies, and nine in ten, were
-- over, counted up from steps of 10 minutes: the end of the step. A month's day is its last one, and of the month that
-- goes on the newest date in gold.
with

cumulated as (
    select
        arrival_month,
        minutes,
        sum(visits) over (partition by arrival_month order by minutes) as so_far,
        sum(visits) over (partition by arrival_month) as visits
    from mart_emergency_minutes
),

months as (
    select
        arrival_month,
        max(visits)::bigint as timed,
        min(minutes) filter (where so_far >= 0.5 * visits) + 10 as median_minutes,
        min(minutes) filter (where so_far >= 0.9 * visits) + 10 as p90_minutes
    from cumulated
    group by arrival_month
)

select
    months.timed,
    months.median_minutes,
    months.p90_minutes,
    1 as months,
    case
        when newest.day >= months.arrival_month
            then least(newest.day, (months.arrival_month + interval '1 month')::date - 1)
        else (months.arrival_month + interval '1 month')::date - 1
    end as day
from months
cross join ops.newest
