-- One row per month (UTC) of visits: the amount billed for them, and the amounts paid within 30, 60 and 90 days of the
-- visit, each only if every visit of the month is that old. A month's day is its last day; for the current month, it is
-- the newest date in gold.
select
    mart_collections.billed,
    case when mart_collections.paid_30d is not null then mart_collections.billed else 0 end as billed_30d,
    case when mart_collections.paid_60d is not null then mart_collections.billed else 0 end as billed_60d,
    case when mart_collections.paid_90d is not null then mart_collections.billed else 0 end as billed_90d,
    coalesce(mart_collections.paid_30d, 0) as paid_30d,
    coalesce(mart_collections.paid_60d, 0) as paid_60d,
    coalesce(mart_collections.paid_90d, 0) as paid_90d,
    case
        when newest.day >= mart_collections.visit_month
            then least(newest.day, (mart_collections.visit_month + interval '1 month')::date - 1)
        else (mart_collections.visit_month + interval '1 month')::date - 1
    end as day
from mart_collections
cross join ops.newest
