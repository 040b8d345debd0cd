-- One row per date, dataset and reason: the rows of its file that are rejected with that reason.
select
    standing.partition_date as day,
    reasons.hits as rejected,
    ops.in_words(standing.dataset) as dataset,
    ops.reason_in_words(reasons.reason) as reason
from ops.standing
inner join ops.reasons on standing.run_id = reasons.run_id
where reasons.hits > 0
