-- One row per run, layer, dataset and date that the ledger holds; when it began, in UTC.
select
    layer,
    dataset,
    partition_date,
    outcome,
    accepted,
    rejected,
    inserted,
    updated,
    removed,
    date_trunc('second', started_at at time zone 'UTC') as started,
    round(extract(epoch from (ended_at - started_at))::numeric, 1) as seconds,
    coalesce(bronze_rows, staged) as rows_read
from ops.ledger
