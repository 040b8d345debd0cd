-- One row per date that is not done, whatever period is chosen: its state, the sentence that says why, and the file
-- under logs/runs of STACK_DIR with the output of its last run.
select
    day as partition_date,
    state,
    sentence,
    log,
    1 as dates
from reports.dates
where state <> 'done'
