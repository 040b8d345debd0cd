-- One row per month (UTC) of discharge and department: episodes that ended, those followed up for 30 days, and the
-- readmissions among these. A month's day is its last day; for the current month, it is the newest date in gold.
select
    mart_readmissions.department,
    mart_readmissions.index_episodes,
    mart_readmissions.followed_up,
    mart_readmissions.readmitted_7d,
    mart_readmissions.readmitted_30d,
    mart_readmissions.index_episodes - mart_readmissions.followed_up as not_followed_up,
    case
        when newest.day >= mart_readmissions.discharge_month
            then least(newest.day, (mart_readmissions.discharge_month + interval '1 month')::date - 1)
        else (mart_readmissions.discharge_month + interval '1 month')::date - 1
    end as day
from mart_readmissions
cross join ops.newest
