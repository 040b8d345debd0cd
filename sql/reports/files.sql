-- One row per date and dataset: how many rows of its file were accepted and rejected by the current silver run.
select
    partition_date as day,
    bronze_rows as received,
    accepted,
    rejected,
    ops.in_words(dataset) as dataset
from ops.standing
