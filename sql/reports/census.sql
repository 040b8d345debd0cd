-- One row per day (UTC) and room type: patients present at the midnight that ends the day, and patient days. Also the
-- patient days and available beds of those days on which beds are declared for the room type.
select
    census_date as day,
    room_type,
    midnight_census,
    patient_days,
    1 as days,
    case when available_beds > 0 then patient_days else 0 end as occupied_days,
    coalesce(available_beds, 0) as bed_days
from mart_daily_census
where room_type <> '*'
