-- One row per stay in a room (a row of admissions): the episode of care that it belongs to, and when it ended.
with

stays as (
    select
        admissions.admission_id,
        visits.patient_id,
        admissions.visit_id,
        visits.department,
        admissions.room_type,
        admissions.admit_ts,
        admissions.discharge_ts,
        min(admissions.admit_ts) over (
            partition by visits.patient_id order by admissions.admit_ts
            groups between 1 following and 1 following
        ) as next_admit_ts
    from admissions
    inner join visits on admissions.visit_id = visits.visit_id
),

-- An open stay more than 180 days before the patient's next admission has lost its discharge.
ends as (
    select
        *,
        discharge_ts is null and coalesce(next_admit_ts > admit_ts + interval '180 days', false) as end_is_assumed
    from stays
),

-- Until when a stay takes in the patient's next one: 7 hours after its end. One that lost its discharge takes in none.
reaches as (
    select
        *,
        case when end_is_assumed then next_admit_ts else discharge_ts end as ended,
        case
            when end_is_assumed then admit_ts
            else coalesce(discharge_ts, 'infinity'::timestamp) + interval '7 hours'
        end as reach
    from ends
),

-- Stays nest, so that a stay is compared with all before it and not with the one before it.
starts as (
    select
        *,
        case
            when
                admit_ts <= max(reach) over (
                    partition by patient_id order by admit_ts, admission_id
                    rows between unbounded preceding and 1 preceding
                )
                then 0
            else 1
        end as begins
    from reaches
),

numbered as (
    select
        *,
        sum(begins) over (partition by patient_id order by admit_ts, admission_id) as episode
    from starts
)

select
    admission_id,
    patient_id,
    visit_id,
    department,
    room_type,
    admit_ts,
    ended,
    end_is_assumed,
    min(admit_ts) over episodes as episode_started,
    row_number() over (partition by patient_id, episode order by admit_ts, admission_id) = 1 as is_first,
    row_number() over (
        partition by patient_id, episode order by ended desc nulls first, admit_ts desc, admission_id desc
    ) = 1 as is_last
from numbered
window episodes as (partition by patient_id, episode)
