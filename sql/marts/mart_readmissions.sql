-- One row per month of discharge (UTC) and last department: episodes that ended, and how many led to a readmission.
with

-- Leaves out episodes with an assumed end, both as index episode and as readmission.
episodes as (
    select
        last_department,
        ended,
        lead(started) over (partition by patient_id order by started) as next_started
    from mart_episodes
    where not end_is_assumed
),

followed as (
    select
        episodes.last_department as department,
        date_trunc('month', episodes.ended)::date as discharge_month,
        episodes.ended::date <= as_of.day - 30 as is_followed_up,
        episodes.next_started::date - episodes.ended::date as days_until_next
    from episodes
    cross join ops.as_of
    where episodes.ended is not null
)

select
    discharge_month,
    department,
    count(*) as index_episodes,
    count(*) filter (where is_followed_up) as followed_up,
    count(*) filter (where is_followed_up and days_until_next <= 7) as readmitted_7d,
    count(*) filter (where is_followed_up and days_until_next <= 30) as readmitted_30d
from followed
group by discharge_month, department
