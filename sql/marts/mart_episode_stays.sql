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

-- An open stay that began more than 180 days before the patient's next admission lacks its discharge record.
ends as (
    select
        *,
        discharge_ts is null and coalesce(next_admit_ts > admit_ts + interval '180 days', false) as end_is_assumed
    from stays
),

-- The time up to which the patient's next stay joins the episode: 7 hours after the end of this stay. A stay without a
-- discharge record ends its episode: no later stay joins it.
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

-- Stays can nest, so each stay is compared with all stays before it, not only with the previous one.
starts as (
    select
        *,
        coalesce(
            admit_ts > max(reach) over (
                partition by patient_id order by admit_ts, admission_id
                rows between unbounded preceding and 1 preceding
            ),
            true
        ) as is_first
    from reaches
),

-- A stay belongs to the patient's episode that started last, up to and including this stay.
placed as (
    select
        *,
        max(admit_ts) filter (where is_first) over (partition by patient_id order by admit_ts, admission_id)
            as episode_started
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
    episode_started,
    is_first,
    row_number() over (
        partition by patient_id, episode_started
        order by ended desc nulls first, admit_ts desc, admission_id desc
    ) = 1 as is_last
from placed
