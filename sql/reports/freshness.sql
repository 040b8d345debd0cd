-- One row per dataset: the newest date in gold, the number of dates missing before it, and when the next file is due
-- (UTC).
select
    newest as newest_date,
    dates,
    missing_dates,
    next_due,
    case when overdue then 'late' else 'in time' end as state,
    ops.in_words(dataset) as dataset
from ops.freshness
