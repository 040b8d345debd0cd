-- One row per date and dataset: what became of the rows of its file, by the silver run that stands.
select
    partition_date as day,
    bronze_rows as received,
    accepted,
    rejected,
    ops.in_words(dataset) as dataset
from ops.standing
