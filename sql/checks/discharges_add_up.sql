-- Every episode with a known end counts once as a discharge, with its length of stay, and once as an index episode.
with

episodes as (
    select count(*) filter (where ended is not null and not end_is_assumed) as discharges from mart_episodes
),

by_length as (
    select
        coalesce(sum(discharges), 0) as discharges,
        count(*) filter (where same_day_discharges > discharges or los_days < 1) as wrong
    from mart_stays
),

readmissions as (
    select
        coalesce(sum(index_episodes), 0) as discharges,
        count(*) filter (
            where followed_up > index_episodes or readmitted_30d > followed_up or readmitted_7d > readmitted_30d
        ) as wrong
    from mart_readmissions
)

select
    episodes.discharges as expected,
    by_length.discharges as by_length,
    readmissions.discharges as index_episodes
from episodes
cross join by_length
cross join readmissions
where
    episodes.discharges <> by_length.discharges
    or episodes.discharges <> readmissions.discharges
    or by_length.wrong + readmissions.wrong > 0
