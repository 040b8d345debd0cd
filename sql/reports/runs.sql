-- One row per run, layer, dataset and date that the ledger holds; when it began, in UTC. A run that says it is running
-- and has no process any more has died. Its log is a file under logs/runs of STACK_DIR; jobs started by hand have none.
select
    layer,
    dataset,
    partition_date,
    accepted,
    rejected,
    inserted,
    updated,
    removed,
    log,
    case when outcome = 'running' and not ops.is_locked('run ' || run_id) then 'died' else outcome end as outcome,
    date_trunc('second', started_at at time zone 'UTC') as started,
    round(extract(epoch from (ended_at - started_at))::numeric, 1) as seconds,
    coalesce(bronze_rows, staged) as rows_read
from ops.ledger
