-- One row per date, dataset and reason: the rows of its file that are rejected with that reason.
select
    standing.partition_date as day,
    standing.dataset,
    reasons.reason,
    reasons.hits as rejected
from ops.standing
inner join ops.reasons on standing.run_id = reasons.run_id
where reasons.hits > 0
