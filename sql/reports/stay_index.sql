-- One row per day (UTC) of discharge and department: observed and expected days of the episodes. The expected days of
-- an episode are the mean over episodes with the same first room type, age band and ICU contact that ended in the 365
-- days before. Leaves out episodes without such earlier episodes.
with

episodes as (
    select
        mart_episodes.ended::date as day,
        mart_episodes.last_department as department,
        mart_episodes.los_days,
        mart_episodes.first_room_type,
        mart_episodes.icu_contact,
        least(
            extract(year from age(mart_episodes.started, patients.birth_date::timestamp))::integer / 20, 4
        ) as age_band
    from mart_episodes
    inner join patients on mart_episodes.patient_id = patients.patient_id
    where mart_episodes.ended is not null and not mart_episodes.end_is_assumed
),

expected as (
    select
        day,
        department,
        los_days,
        avg(los_days) over (
            partition by first_room_type, icu_contact, age_band
            order by day range between interval '365 days' preceding and interval '1 day' preceding
        ) as expected_days
    from episodes
)

select
    day,
    department,
    count(*) as episodes,
    sum(los_days)::bigint as observed_days,
    round(sum(expected_days), 4) as expected_days
from expected
where expected_days is not null
group by day, department
