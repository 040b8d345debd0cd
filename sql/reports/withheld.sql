-- One row per day (UTC), department, dataset and reason: the excluded rows, which were rejected and have no other
-- version in gold, and their amount of money. A row with two reasons counts under both.
select
    mart_trust.stat_date as day,
    mart_trust.department,
    (by_reason.counted ->> 'rows')::bigint as withheld_rows,
    coalesce((by_reason.counted ->> 'amount')::numeric(18, 2), 0) as amount,
    ops.in_words(by_dataset.dataset) as dataset,
    ops.reason_in_words(by_reason.reason) as reason
from ops.mart_trust
cross join jsonb_each(mart_trust.withheld_by_reason) as by_dataset (dataset, reasons)
cross join jsonb_each(by_dataset.reasons) as by_reason (reason, counted)
where mart_trust.department <> '*'
