-- A day's census is that of the day before plus arrivals minus departures, and the newest census is that of gold.
with

followed as (
    select
        *,
        lag(census_date) over days as day_before,
        lag(midnight_census, 1, 0::bigint) over days as census_before
    from mart_daily_census
    window days as (partition by room_type order by census_date)
),

-- Counts gold's stays by room type; for stays without a discharge, the marts tell which have ended.
present as (
    select
        admissions.room_type,
        count(*) filter (where stays.ended is null or stays.ended >= as_of.day + 1) as midnight_census
    from admissions
    cross join ops.as_of
    left join mart_episode_stays as stays
        on admissions.admission_id = stays.admission_id and admissions.discharge_ts is null
    where
        admissions.admit_ts < as_of.day + 1
        and (admissions.discharge_ts is null or admissions.discharge_ts >= as_of.day + 1)
    group by admissions.room_type
),

newest as (
    select
        census.room_type,
        census.midnight_census
    from mart_daily_census as census
    inner join ops.as_of on census.census_date = as_of.day
    where census.room_type <> '*'
),

hospital as (
    select
        census_date,
        sum(admissions) filter (where room_type = '*') as admissions,
        sum(discharges) filter (where room_type = '*') as discharges,
        sum(admissions) filter (where room_type <> '*') as admissions_to_rooms,
        sum(discharges) filter (where room_type <> '*') as discharges_from_rooms
    from mart_daily_census
    group by census_date
)

select
    room_type,
    census_date,
    'the census does not follow from that of the day before' as violation
from followed
where
    midnight_census <> census_before + admissions + transfers_in - discharges - transfers_out
    or midnight_census < 0
    or patient_days <> midnight_census + same_day
    or census_date <> day_before + 1
union all
select
    coalesce(present.room_type, newest.room_type) as room_type,
    null as census_date,
    'the newest census is not that of gold' as violation
from present
full join newest on present.room_type = newest.room_type
where coalesce(present.midnight_census, 0) <> coalesce(newest.midnight_census, 0)
union all
select
    '*' as room_type,
    census_date,
    'rooms and hospital differ in admissions or discharges' as violation
from hospital
where admissions <> admissions_to_rooms or discharges <> discharges_from_rooms
