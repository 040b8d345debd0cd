-- One row per date and dataset: what became of the rows of its file, by the silver run that stands.
select
    partition_date as day,
    dataset,
    bronze_rows as received,
    accepted,
    rejected
from ops.standing
