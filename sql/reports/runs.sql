-- One row per run, layer, dataset and date in the ledger: its outcome, its start (UTC), and the sentence of its failure
-- or its warnings. A run has died if its outcome is still running but its process has ended. The log is a file under
-- logs/runs of STACK_DIR; it is null for jobs started by hand. The dataset is null for runs over all datasets.
select
    ledger.partition_date,
    ledger.accepted,
    ledger.rejected,
    ledger.log,
    case
        when ledger.outcome = 'running' and not ops.is_locked('run ' || ledger.run_id) then 'died'
        else ledger.outcome
    end as outcome,
    coalesce(ledger.error, ledger.warnings) as sentence,
    case ledger.layer
        when 'bronze' then 'Store the file'
        when 'silver' then 'Validate'
        when 'gold' then 'Load into gold'
        when 'marts' then 'Build the marts'
        when 'revalidated' then 'Revalidate'
        when 'forget' then 'Take back'
        else ops.in_words(ledger.layer)
    end as step,
    ops.in_words(datasets.dataset) as dataset,
    date_trunc('second', ledger.started_at at time zone 'UTC') as started,
    round(extract(epoch from (ledger.ended_at - ledger.started_at))::numeric, 1) as seconds,
    coalesce(ledger.bronze_rows, ledger.staged) as rows_read,
    ledger.inserted + ledger.updated + ledger.removed as rows_changed
from ops.ledger
left join ops.datasets on ledger.dataset = datasets.dataset
