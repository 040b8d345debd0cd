-- One row per day (UTC): episodes of care that began and ended on it, and patients present at the midnight that ends
-- it.
select
    census_date as day,
    admissions,
    discharges,
    midnight_census,
    1 as days
from mart_daily_census
where room_type = '*'
