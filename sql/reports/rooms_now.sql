-- One row per room type at the newest midnight: patients present, available beds, and the median census of the 365 days
-- before, with which the census is compared if no beds are declared.
with

newest as (
    select max(census_date) as census_date
    from mart_daily_census
),

usual as (
    select
        mart_daily_census.room_type,
        percentile_disc(0.5) within group (order by mart_daily_census.midnight_census) as median_census
    from mart_daily_census
    inner join newest
        on mart_daily_census.census_date between newest.census_date - 365 and newest.census_date - 1
    group by mart_daily_census.room_type
)

select
    census.room_type,
    census.midnight_census,
    census.patient_days,
    coalesce(usual.median_census, 0) as usual_census,
    case when census.available_beds > 0 then census.patient_days else 0 end as occupied_days,
    coalesce(census.available_beds, 0) as available_beds
from mart_daily_census as census
inner join newest on census.census_date = newest.census_date
left join usual on census.room_type = usual.room_type
where census.room_type <> '*'
