-- One row per calendar day (UTC) on which an emergency arrived.
with

emergencies as (
    select
        visit_id,
        patient_id,
        visit_start_ts,
        visit_end_ts,
        status = 'Completed' as is_completed,
        case when status = 'Completed' then visit_end_ts - visit_start_ts end as time_in
    from visits
    where visit_type = 'Emergency'
),

-- Counts an emergency once even if two episodes follow it.
admitted as (
    select distinct emergencies.visit_id
    from emergencies
    inner join mart_episodes as episodes
        on
            emergencies.patient_id = episodes.patient_id
            and episodes.started between emergencies.visit_start_ts and emergencies.visit_end_ts + interval '1 hour'
)

select
    emergencies.visit_start_ts::date as arrival_date,
    count(*) as arrivals,
    count(*) filter (where emergencies.is_completed) as completed,
    count(*) filter (where not emergencies.is_completed) as left_early,
    count(*) filter (where emergencies.is_completed and emergencies.time_in is null) as unknown_end,
    count(*) filter (where emergencies.time_in <= interval '4 hours') as within_4h,
    count(*) filter (where emergencies.time_in > interval '12 hours') as over_12h,
    count(admitted.visit_id) as admitted
from emergencies
left join admitted on emergencies.visit_id = admitted.visit_id
group by emergencies.visit_start_ts::date
