-- One row per month (UTC) of discharge and department: episodes that ended, those followed up for 30 days, and the
-- readmissions among these; then the same of whole months, all of whose episodes have been followed up. A month's day
-- is its last day; for the current month, it is the newest date in gold.
with

months as (
    select
        mart_readmissions.*,
        newest.day,
        (mart_readmissions.discharge_month + interval '1 month')::date - 1 <= newest.day - 30 as is_whole
    from mart_readmissions
    cross join ops.newest
)

select
    department,
    index_episodes,
    followed_up,
    readmitted_7d,
    readmitted_30d,
    index_episodes - followed_up as not_followed_up,
    case when is_whole then followed_up else 0 end as whole_followed_up,
    case when is_whole then readmitted_7d else 0 end as whole_readmitted_7d,
    case when is_whole then readmitted_30d else 0 end as whole_readmitted_30d,
    case
        when day >= discharge_month then least(day, (discharge_month + interval '1 month')::date - 1)
        else (discharge_month + interval '1 month')::date - 1
    end as day
from months
