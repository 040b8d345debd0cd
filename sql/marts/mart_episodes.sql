-- One row per episode of care: the stays of one patient that follow each other within 7 hours, overlap or nest.
with

episodes as (
    select
        patient_id,
        episode_started as started,
        max(ended) filter (where is_last) as ended,
        min(admission_id) filter (where is_first) as first_admission_id,
        min(admission_id) filter (where is_last) as last_admission_id,
        min(visit_id) filter (where is_first) as first_visit_id,
        min(visit_id) filter (where is_last) as last_visit_id,
        min(department) filter (where is_first) as first_department,
        min(department) filter (where is_last) as last_department,
        min(room_type) filter (where is_first) as first_room_type,
        min(room_type) filter (where is_last) as last_room_type,
        count(distinct room_type) as rooms,
        count(*) as stays,
        bool_or(end_is_assumed) filter (where is_last) as end_is_assumed,
        bool_or(room_type = 'ICU') as icu_contact
    from mart_episode_stays
    group by patient_id, episode_started
),

-- An assumed end gives no length of stay.
known as (
    select
        *,
        case when not end_is_assumed then ended end as known_end
    from episodes
),

lengths as (
    select
        *,
        round(extract(epoch from (known_end - started)) / 3600, 4) as hours,
        case when known_end is not null then greatest(1, known_end::date - started::date) end as los_days,
        known_end::date = started::date as same_day
    from known
)

select
    patient_id,
    started,
    ended,
    first_admission_id,
    last_admission_id,
    first_visit_id,
    last_visit_id,
    first_department,
    last_department,
    first_room_type,
    last_room_type,
    rooms,
    stays,
    hours,
    los_days,
    same_day,
    end_is_assumed,
    icu_contact
from lengths
