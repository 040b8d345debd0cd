-- One row per run, layer, dataset and date that the ledger holds; when it began, in UTC.
select
    date_trunc('second', started_at at time zone 'UTC') as started,
    layer,
    dataset,
    partition_date,
    outcome,
    round(extract(epoch from (ended_at - started_at))::numeric, 1) as seconds,
    coalesce(bronze_rows, staged) as rows_read,
    accepted,
    rejected,
    inserted,
    updated,
    removed
from ops.ledger
