-- One row per day (UTC) and room type, and one per day for the whole hospital under *: arrivals, departures, census.
with

-- Starts with the first admission, but at most a hundred years ago, since a year may be mistyped.
calendar as (
    select
        as_of.day as newest,
        greatest(min(stays.admit_ts)::date, as_of.day - 36525) as oldest
    from mart_episode_stays as stays
    cross join ops.as_of
    group by as_of.day
),

-- Counts stays per room type, but episodes under *, since the stays of an episode may overlap.
moves as (
    select
        room_type,
        admit_ts::date as day,
        count(*) filter (where is_first) as admissions,
        0 as discharges,
        count(*) filter (where not is_first) as transfers_in,
        0 as transfers_out,
        count(*) filter (where ended::date = admit_ts::date) as same_day
    from mart_episode_stays
    group by room_type, admit_ts::date
    union all
    select
        room_type,
        ended::date as day,
        0 as admissions,
        count(*) filter (where is_last) as discharges,
        0 as transfers_in,
        count(*) filter (where not is_last) as transfers_out,
        0 as same_day
    from mart_episode_stays
    where ended is not null
    group by room_type, ended::date
    union all
    select
        '*' as room_type,
        started::date as day,
        count(*) as admissions,
        0 as discharges,
        0 as transfers_in,
        0 as transfers_out,
        count(*) filter (where ended::date = started::date) as same_day
    from mart_episodes
    group by started::date
    union all
    select
        '*' as room_type,
        ended::date as day,
        0 as admissions,
        count(*) as discharges,
        0 as transfers_in,
        0 as transfers_out,
        0 as same_day
    from mart_episodes
    where ended is not null
    group by ended::date
),

moves_by_day as (
    select
        moves.room_type,
        greatest(moves.day, calendar.oldest) as day,
        sum(moves.admissions) as admissions,
        sum(moves.discharges) as discharges,
        sum(moves.transfers_in) as transfers_in,
        sum(moves.transfers_out) as transfers_out,
        sum(moves.same_day) as same_day
    from moves
    cross join calendar
    group by moves.room_type, greatest(moves.day, calendar.oldest)
),

room_types as (
    select room_type from mart_episode_stays
    union distinct
    select room_type from reference.beds
    union distinct
    select '*' as room_type
),

days as (
    select
        room_types.room_type,
        calendar.oldest + series.number as day
    from calendar
    cross join room_types
    cross join lateral generate_series(0, calendar.newest - calendar.oldest) as series (number)
),

-- A day's midnight census is that of the day before, plus arrivals, minus departures.
counted as (
    select
        days.day,
        days.room_type,
        coalesce(moves_by_day.admissions, 0) as admissions,
        coalesce(moves_by_day.discharges, 0) as discharges,
        coalesce(moves_by_day.transfers_in, 0) as transfers_in,
        coalesce(moves_by_day.transfers_out, 0) as transfers_out,
        coalesce(moves_by_day.same_day, 0) as same_day,
        coalesce(sum(
            moves_by_day.admissions + moves_by_day.transfers_in
            - moves_by_day.discharges - moves_by_day.transfers_out
        ) over (partition by days.room_type order by days.day), 0) as midnight_census
    from days
    left join moves_by_day on days.day = moves_by_day.day and days.room_type = moves_by_day.room_type
),

with_beds as (
    select
        counted.*,
        beds.beds,
        counted.midnight_census + counted.same_day as patient_days,
        beds.beds - beds.out_of_service as available_beds
    from counted
    left join reference.beds as beds
        on
            counted.room_type = beds.room_type
            and counted.day between beds.valid_from and coalesce(beds.valid_to, counted.day)
),

-- The hospital's beds are the sum over room types; null if a room type in use has no declared beds.
all_beds as (
    select
        day,
        case when count(*) filter (where patient_days > 0 and beds is null) = 0 then sum(beds) end as beds,
        case when count(*) filter (where patient_days > 0 and beds is null) = 0 then sum(available_beds) end
            as available_beds
    from with_beds
    where room_type <> '*'
    group by day
),

totalled as (
    select
        with_beds.day,
        with_beds.room_type,
        with_beds.admissions,
        with_beds.discharges,
        with_beds.transfers_in,
        with_beds.transfers_out,
        with_beds.midnight_census,
        with_beds.same_day,
        with_beds.patient_days,
        coalesce(with_beds.beds, all_beds.beds) as beds,
        coalesce(with_beds.available_beds, all_beds.available_beds) as available_beds
    from with_beds
    left join all_beds on with_beds.day = all_beds.day and with_beds.room_type = '*'
)

select
    day as census_date,
    room_type,
    admissions,
    discharges,
    transfers_in,
    transfers_out,
    midnight_census,
    same_day,
    patient_days,
    beds,
    available_beds,
    round(100.0 * patient_days / nullif(available_beds, 0), 4) as occupancy_pct
from totalled
