-- One row per date that is not done, whichever period is looked at: its state, the sentence that says why, and the file
-- under logs/runs of STACK_DIR that has the output of its last run.
select
    day as partition_date,
    state,
    sentence,
    log,
    1 as dates
from reports.dates
where state <> 'done'
