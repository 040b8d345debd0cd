-- Readable names for dashboards; the ledger and the commands keep the codes.
create or replace function ops.in_words(code text) returns text language sql immutable parallel safe as $$
    select upper(left(code, 1)) || replace(regexp_replace(substr(code, 2), '_ts$', '_time'), '_', ' ')
$$;
comment on function ops.in_words is 'A name of the catalog as people read it: Lab results for lab_results.';

create or replace function ops.reason_in_words(reason text) returns text language sql immutable parallel safe as $$
    select case
        when reason like 'missing\_%' then ops.in_words(substr(reason, 9)) || ' is missing'
        when reason like 'unreadable\_%' then ops.in_words(substr(reason, 12)) || ' cannot be read'
        when reason like 'unknown\_%' then ops.in_words(substr(reason, 9)) || ' is not a listed value'
        when reason like 'orphan\_%' then ops.in_words(substr(reason, 8)) || ' has no accepted row'
        when reason like 'duplicate\_%' then ops.in_words(substr(reason, 11)) || ' came twice'
        else ops.in_words(reason)
    end
$$;
comment on function ops.reason_in_words is 'A reason code as people read it: Visit id is missing for missing_visit_id.';

-- Views of the ledger, recreated each time so that their columns may change.
create view ops.newest as
select max(partition_date) as day
from ops.receipts
where layer = 'gold';
comment on view ops.newest is
'One row: the newest date in gold. Dashboards look back from it, not from the wall clock.';

create view ops.standing as
select
    receipts.dataset,
    receipts.partition_date,
    receipts.run_id,
    receipts.made_from,
    receipts.stale_since,
    receipts.stale_lost,
    ledger.ended_at,
    ledger.rule_set,
    ledger.bronze_rows,
    ledger.bronze_bytes,
    ledger.bronze_sha256,
    ledger.amount_in,
    ledger.accepted,
    ledger.rejected,
    ledger.faulty,
    ledger.amount_accepted,
    ledger.amount_rejected,
    ledger.delta_accepted,
    ledger.delta_rejected,
    ledger.differing,
    ledger.since_run,
    ledger.warnings
from ops.receipts
inner join
    ops.ledger
    on
        receipts.run_id = ledger.run_id
        and receipts.layer = ledger.layer
        and receipts.dataset = ledger.dataset
        and receipts.partition_date = ledger.partition_date
where receipts.layer = 'silver';
comment on view ops.standing is
'One row per dataset and partition: the current silver run.';

create view ops.tripped as
with

counted as (
    select
        dataset,
        partition_date,
        run_id,
        'rejected' as reason,
        bronze_rows,
        bronze_sha256,
        faulty as hits
    from ops.ledger
    where layer = 'silver'
    union all
    select
        ledger.dataset,
        ledger.partition_date,
        ledger.run_id,
        reasons.reason,
        ledger.bronze_rows,
        ledger.bronze_sha256,
        reasons.hits
    from ops.reasons
    inner join
        ops.ledger
        on
            reasons.run_id = ledger.run_id
            and reasons.dataset = ledger.dataset
            and reasons.partition_date = ledger.partition_date
    where ledger.layer = 'silver' and reasons.hits > 0
)

select
    counted.dataset,
    counted.partition_date,
    counted.run_id,
    rules.reason,
    levels.action,
    counted.hits,
    counted.bronze_rows,
    levels.level_share,
    levels.level_rows,
    exists(
        select 1
        from ops.receipts as passed
        where
            passed.layer = 'override'
            and passed.dataset = counted.dataset
            and passed.partition_date = counted.partition_date
            and passed.made_from = counted.bronze_sha256
    ) as overridden
from counted
inner join ops.rules on counted.dataset = rules.dataset and counted.reason = rules.reason
cross join
    lateral (
        select distinct on (kinds.action)
            kinds.action,
            declared.level_share,
            declared.level_rows
        from (
            values ('warn', rules.warn_share, rules.warn_rows), ('stop', rules.stop_share, rules.stop_rows)
        ) as kinds (action, shares, least)
        cross join unnest(kinds.shares, kinds.least) as declared (level_share, level_rows)
        where counted.hits >= declared.level_rows and counted.hits >= declared.level_share * counted.bronze_rows
        order by kinds.action asc, declared.level_share asc, declared.level_rows asc
    ) as levels;
comment on view ops.tripped is
'One row per silver run, reason and action (warn, stop) of which its rejects reached a level: the one of the smallest
share. The reason rejected is all of them that no late parent can mend.';

create view ops.orphans as
select
    standing.dataset,
    standing.partition_date,
    reasons.reason,
    reasons.hits as waiting,
    attempts.first_seen,
    attempts.attempts,
    datasets.orphan_days,
    greatest(newest.day - standing.partition_date, 0) as age_days,
    greatest(newest.day - standing.partition_date, 0) > datasets.orphan_days as is_final
from ops.standing
inner join ops.datasets on standing.dataset = datasets.dataset
inner join ops.reasons on standing.run_id = reasons.run_id
inner join ops.rules on reasons.dataset = rules.dataset and reasons.reason = rules.reason
cross join ops.newest
cross join
    lateral (
        select
            min(ledger.ended_at) as first_seen,
            count(*) as attempts
        from ops.ledger
        inner join
            ops.reasons as hits
            on
                ledger.run_id = hits.run_id
                and ledger.dataset = hits.dataset
                and ledger.partition_date = hits.partition_date
        where
            ledger.layer = 'silver'
            and ledger.outcome = 'done'
            and ledger.dataset = standing.dataset
            and ledger.partition_date = standing.partition_date
            and ledger.bronze_sha256 = standing.bronze_sha256
            and hits.reason = reasons.reason
            and hits.hits > 0
    ) as attempts
where rules.retryable and reasons.hits > 0;
comment on view ops.orphans is
'One row per partition and foreign key that has rows without a parent: how often they were validated without one, since
when, and whether a parent that comes with the newest date in gold would still count.';

create view ops.freshness as
with gold as (
    select
        dataset,
        min(partition_date) as oldest,
        max(partition_date) as newest,
        count(*) as dates,
        least(max(partition_date), date '9999-11-30') as last_before  -- clients cannot read the year 10000
    from ops.receipts
    where layer = 'gold'
    group by dataset
)

select
    datasets.dataset,
    gold.newest,
    gold.dates,
    gold.newest - gold.oldest + 1 - gold.dates as missing_dates,
    gold.last_before + 1 as next_date,
    gold.last_before + interval '2 days' + datasets.due_hours * interval '1 hour' as next_due,
    now() at time zone 'UTC'
    > gold.last_before + interval '2 days' + datasets.due_hours * interval '1 hour' as overdue
from ops.datasets
left join gold on datasets.dataset = gold.dataset;
comment on view ops.freshness is
'One row per dataset: the newest date in gold, dates missing before it, when the next file is due (UTC).';

create view ops.unaccounted as
with

loads as (
    select
        dataset,
        sum(inserted - removed) as gold_rows,
        sum(amount_change) as amount
    from ops.ledger
    where layer = 'gold' and outcome in ('done', 'unaccounted')
    group by dataset
)

select
    gold.dataset,
    gold.gold_rows - coalesce(loads.gold_rows, 0) as unaccounted_rows,
    gold.amount - coalesce(loads.amount, 0) as unaccounted_amount
from ops.gold_totals as gold
left join loads on gold.dataset = loads.dataset
where
    gold.gold_rows <> coalesce(loads.gold_rows, 0)
    or gold.amount <> coalesce(loads.amount, 0);
comment on view ops.unaccounted is
'One row per gold table whose rows or whose money are not the sum of all loads: somebody changed it by hand since.';

create view ops.never_ran as
with

-- Attempts that left no result: refused files, runs that failed or died, and forgotten dates.
attempts as (
    select distinct on (ledger.partition_date)
        ledger.partition_date,
        ledger.layer,
        ledger.dataset,
        ledger.outcome,
        ledger.error,
        ledger.asked_by,
        ledger.ended_at
    from ops.ledger
    left join ops.receipts
        on
            ledger.layer = receipts.layer
            and ledger.dataset = receipts.dataset
            and ledger.partition_date = receipts.partition_date
    where
        ledger.layer = 'forget'
        or (
            ledger.outcome <> 'done'
            and (
                ledger.layer in ('silver', 'gold', 'run', 'source')
                or (ledger.layer = 'bronze' and receipts.run_id is null)
            )
        )
    order by ledger.partition_date asc, ledger.turn desc
),

markers as (
    select
        partition_date,
        bool_or(layer = 'bronze') as has_files,
        bool_or(layer in ('silver', 'gold')) as has_rows
    from ops.receipts
    group by partition_date
)

select
    attempts.partition_date,
    attempts.layer,
    attempts.dataset,
    attempts.outcome,
    attempts.error,
    attempts.asked_by,
    attempts.ended_at
from attempts
left join markers on attempts.partition_date = markers.partition_date
where
    not coalesce(markers.has_rows, false)
    and (attempts.layer = 'bronze' or not coalesce(markers.has_files, false));
comment on view ops.never_ran is
'One row per date without a current run: its files were refused before any was validated, or it was forgotten (layer
forget). Has its last attempt and, for a forgotten date, who asked and when.';

create view ops.dates as
with

days as (
    select distinct receipts.partition_date
    from ops.receipts
    left join ops.never_ran on receipts.partition_date = never_ran.partition_date
    where receipts.layer in ('bronze', 'silver', 'gold') and never_ran.partition_date is null
),

marts as (
    select exists(
        select 1
        from ops.receipts as marts
        where
            marts.layer = 'marts'
            and marts.made_from = (
                select md5(string_agg(gold.run_id, ',' order by gold.dataset, gold.partition_date))
                from ops.receipts as gold
                where gold.layer = 'gold'
            )
    ) as are_current
),

-- Materialized, since the planner would otherwise compute it again for each partition of a year.
stops as materialized (
    select
        dataset,
        partition_date,
        run_id,
        string_agg(reason, ', ' order by reason) as reasons
    from ops.tripped
    where action = 'stop' and not overridden
    group by dataset, partition_date, run_id
),

-- The last attempt for each partition, and for the marts.
attempts as (
    select distinct on (dataset, partition_date)
        dataset,
        partition_date,
        layer,
        outcome,
        error
    from ops.ledger
    where layer in ('bronze', 'silver', 'gold')
    order by dataset asc, partition_date asc, turn desc
),

marts_attempt as (
    select
        partition_date,
        error
    from ops.ledger
    where layer = 'marts'
    order by turn desc
    limit 1
),

-- The last attempt for each date, including runs that failed outside their tasks, for example if a store was down.
run_attempts as (
    select distinct on (partition_date)
        partition_date,
        layer,
        outcome,
        error
    from ops.ledger
    where layer in ('source', 'bronze', 'silver', 'gold', 'marts', 'run')
    order by partition_date asc, turn desc
),

running as (
    select distinct partition_date
    from ops.ledger
    where outcome = 'running' and ops.is_locked('run ' || run_id)
),

parts as (
    select
        days.partition_date,
        datasets.dataset,
        standing.bronze_rows,
        standing.accepted,
        standing.rejected,
        standing.amount_in,
        standing.amount_accepted,
        standing.amount_rejected,
        bronze.run_id is not null and standing.run_id is not null and gold.run_id is not null as is_complete,
        coalesce(
            standing.bronze_rows = standing.accepted + standing.rejected
            and standing.amount_in is not distinct from standing.amount_accepted + standing.amount_rejected, false
        ) as is_balanced,
        case
            when bronze.run_id is null then 'has not come'
            when standing.run_id is null then 'has not been validated'
            when standing.made_from = 'forgotten' then 'is being forgotten'
            when standing.made_from = '' then 'was being validated by a run that did not end'
            when standing.made_from <> bronze.made_from then 'came again since it was validated'
            when standing.stale_since is not null then 'lost or found parents since it was validated'
            when stops.reasons is not null then 'is stopped before gold by ' || stops.reasons
            when gold.run_id is null then 'is not in gold'
            when gold.made_from <> standing.run_id then 'was revalidated since it was loaded'
        end as lag,
        stops.reasons is not null as is_stopped,
        case when attempts.outcome = 'failed' then attempts.layer || ' failed: ' || attempts.error end as failure
    from days
    inner join ops.datasets on days.partition_date >= datasets.since
    left join ops.receipts as bronze
        on
            bronze.layer = 'bronze'
            and datasets.dataset = bronze.dataset
            and days.partition_date = bronze.partition_date
    left join ops.standing
        on
            datasets.dataset = standing.dataset
            and days.partition_date = standing.partition_date
    left join ops.receipts as gold
        on
            gold.layer = 'gold'
            and datasets.dataset = gold.dataset
            and days.partition_date = gold.partition_date
    left join stops on standing.run_id = stops.run_id
    left join attempts
        on
            datasets.dataset = attempts.dataset
            and days.partition_date = attempts.partition_date
),

summed as (
    select
        parts.partition_date,
        bool_and(parts.is_complete) and bool_or(marts.are_current) as is_complete,
        bool_and(parts.is_balanced) as is_balanced,
        bool_and(parts.lag is null) and bool_or(marts.are_current) as is_current,
        sum(parts.bronze_rows) as bronze_rows,
        sum(parts.accepted) as accepted,
        sum(parts.rejected) as rejected,
        sum(parts.amount_in) as amount_in,
        sum(parts.amount_accepted) as amount_accepted,
        sum(parts.amount_rejected) as amount_rejected,
        bool_or(parts.failure is not null) as has_failed,
        bool_or(parts.is_stopped and parts.lag is not null) as is_stopped,
        bool_or(parts.accepted is not null and not parts.is_balanced) as is_unbalanced,
        concat_ws(
            '; ',
            string_agg(
                parts.dataset || ' ' || concat_ws(', last ', parts.lag, parts.failure), '; ' order by parts.dataset
            ) filter (where parts.lag is not null or parts.failure is not null),
            string_agg(parts.dataset || ' does not balance', '; ' order by parts.dataset)
            filter (where parts.accepted is not null and not parts.is_balanced)
        ) as why,
        bool_or(marts.are_current) as marts_are_current
    from parts
    cross join marts
    group by parts.partition_date
)

select
    summed.partition_date,
    summed.is_complete,
    summed.is_balanced,
    summed.is_current,
    summed.bronze_rows,
    summed.accepted,
    summed.rejected,
    summed.amount_in,
    summed.amount_accepted,
    summed.amount_rejected,
    concat_ws(
        '; ',
        nullif(summed.why, ''),
        'the last run failed: ' || run_attempts.error,
        case
            when not summed.marts_are_current
                then
                    'the marts are older than gold'
                    || coalesce(', last marts failed: ' || marts_attempt.error, '')
        end
    ) as why,
    case
        when
            running.partition_date is not null or ops.is_locked('the date ' || summed.partition_date) then 'running'
        when summed.is_stopped then 'stopped'
        when
            summed.has_failed
            or run_attempts.error is not null
            or (not summed.marts_are_current and marts_attempt.error is not null and summed.why = '') then 'failed'
        when summed.is_unbalanced then 'unbalanced'
        when not summed.is_complete then 'incomplete'
        when not summed.is_current then 'due'
        else 'done'
    end as state
from summed
left join run_attempts
    on
        summed.partition_date = run_attempts.partition_date
        and run_attempts.layer in ('run', 'source')
        and run_attempts.outcome = 'failed'
        and not (summed.is_complete and summed.is_current)
left join running on summed.partition_date = running.partition_date
left join marts_attempt on summed.partition_date = marts_attempt.partition_date;
comment on view ops.dates is
'One row per date: whether all of it is in gold and the marts, whether rows and money balance, whether it is current,
and if not, why; state is running, failed, stopped, unbalanced, incomplete, due or done. A file that changed in the
landing directory since is only known once it comes.';

create view ops.run_times as
select
    partition_date,
    log,
    min(started_at) as started_at,
    max(ended_at) as ended_at,
    round(extract(epoch from max(ended_at) - min(started_at))::numeric, 1) as seconds,
    sum(bronze_rows) filter (where layer = 'bronze') as bronze_rows,
    min(turn) as turn
from ops.ledger
where log is not null and layer in ('source', 'bronze', 'silver', 'gold', 'marts', 'revalidated')
group by partition_date, log;
comment on view ops.run_times is
'One row per date and run of it, by the file of its output: when it began and ended, and the seconds it took.';

create view ops.stale_stays as
select
    admission_id,
    patient_id,
    visit_id,
    department,
    room_type,
    admit_ts,
    ended as assumed_end
from mart_episode_stays
where end_is_assumed;
comment on view ops.stale_stays is
'One row per stay that lost its discharge: open, and admitted more than 180 days before the patient''s next admission,
at which it is taken to end.';
