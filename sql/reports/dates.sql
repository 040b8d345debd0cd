-- One row per date that ran or was to run: its state, the sentence that explains a state other than done, and its rows.
-- Also when its last run began (UTC), its duration in seconds, and the median duration of up to eight dates before it.
with

running as (
    select distinct partition_date
    from ops.ledger
    where outcome = 'running' and ops.is_locked('run ' || run_id)
),

states as (
    select
        partition_date,
        state,
        nullif(why, '') as sentence,
        bronze_rows,
        rejected
    from ops.dates
    union all
    select
        never_ran.partition_date,
        case
            when running.partition_date is not null or ops.is_locked('the date ' || never_ran.partition_date)
                then 'running'
            else 'never ran'
        end as state,
        case
            when running.partition_date is null
                then coalesce(never_ran.error, never_ran.layer || ' ' || never_ran.dataset || ' did not end')
        end as sentence,
        null as bronze_rows,
        null as rejected
    from ops.never_ran
    left join running on never_ran.partition_date = running.partition_date
    where never_ran.layer <> 'forget' or never_ran.outcome <> 'done'  -- a forgotten date is not listed
),

-- The last run of each date itself, without runs of other dates that revalidated its rows.
timed as (
    select distinct on (states.partition_date)
        states.partition_date,
        run_times.started_at,
        run_times.log,
        case when states.state <> 'running' then run_times.seconds end as seconds
    from states
    inner join ops.run_times on states.partition_date = run_times.partition_date
    where starts_with(run_times.log, states.partition_date || '/')
    order by states.partition_date asc, run_times.turn desc
),

earlier as (
    select
        partition_date,
        array_agg(seconds) over (order by partition_date rows between 8 preceding and 1 preceding) as earlier_seconds
    from timed
    where seconds is not null
),

usual as (
    select
        earlier.partition_date,
        round(percentile_cont(0.5) within group (order by preceding_runs.seconds)::numeric, 1) as seconds
    from earlier
    cross join unnest(earlier.earlier_seconds) as preceding_runs (seconds)
    group by earlier.partition_date
)

select
    states.partition_date as day,
    states.state,
    states.sentence,
    states.bronze_rows as received,
    states.rejected,
    timed.seconds,
    usual.seconds as usual_seconds,
    timed.log,
    date_trunc('second', timed.started_at at time zone 'UTC') as started,
    (timed.seconds is not null)::integer as timed_runs,
    (usual.seconds is not null)::integer as usual_runs
from states
left join timed on states.partition_date = timed.partition_date
left join usual on states.partition_date = usual.partition_date
