-- Each stay is in one episode of its patient, and a patient's episodes do not overlap.
with

gold as (
    select count(*) as stays from admissions
),

placed as (
    select
        count(*) as stays,
        count(*) filter (where is_first) as first_stays,
        count(*) filter (where is_last) as last_stays
    from mart_episode_stays
),

episodes as (
    select
        count(*) as episodes,
        coalesce(sum(stays), 0) as stays
    from mart_episodes
),

followed as (
    select
        started,
        ended,
        lead(started) over (partition by patient_id order by started) as next_started
    from mart_episodes
)

select 'a stay is in no episode, or in two' as violation
from gold
cross join placed
cross join episodes
where
    gold.stays <> placed.stays
    or gold.stays <> episodes.stays
    or episodes.episodes <> placed.first_stays
    or episodes.episodes <> placed.last_stays
union all
select 'two episodes of a patient overlap' as violation
from followed
where next_started < coalesce(ended, 'infinity'::timestamp) or ended <= started
