-- Every emergency counts on one day, as completed or left early, and has one length if completed with a known end.
with

gold as (
    select count(*) as arrivals from visits
    where visit_type = 'Emergency'
),

flow as (
    select
        coalesce(sum(arrivals), 0) as arrivals,
        coalesce(sum(completed - unknown_end), 0) as timed,
        count(*) filter (
            where
            completed + left_early <> arrivals
            or within_4h + over_12h > completed - unknown_end
            or unknown_end > completed
            or admitted > arrivals
        ) as wrong
    from mart_emergency_flow
),

lengths as (
    select coalesce(sum(visits), 0) as timed from mart_emergency_minutes
)

select
    gold.arrivals as expected,
    flow.arrivals,
    flow.timed,
    lengths.timed as timed_by_length
from gold
cross join flow
cross join lengths
where
    gold.arrivals <> flow.arrivals
    or flow.timed <> lengths.timed
    or flow.wrong > 0
