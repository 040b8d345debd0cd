-- One row per day, for the last 60 days and the day after the newest: the actual census at the midnight that ends the
-- day, and its forecast: the census of the day before plus the mean change on up to 26 earlier days of the same
-- weekday, at least 8. Low and high differ from the forecast by the 10th and the 90th percentile of the errors of the
-- 60 forecasts before.
with

census as (
    select
        census_date as day,
        midnight_census,
        midnight_census - lag(midnight_census) over (order by census_date) as net_change
    from mart_daily_census
    where room_type = '*'
),

newest as (
    select max(day) as day
    from census
),

-- 120 days back, since the first interval needs the errors of 60 earlier forecasts.
nights as (
    select newest.day - ago as day
    from newest
    cross join generate_series(-1, 119) as ago
),

expected as (
    select
        nights.day,
        actual.midnight_census as actual,
        day_before.midnight_census as census_before,
        day_before.midnight_census + round(avg(earlier.net_change), 2) as forecast
    from nights
    inner join census as day_before on nights.day - 1 = day_before.day
    left join census as actual on nights.day = actual.day
    inner join census as earlier
        on
            earlier.day >= nights.day - 182
            and earlier.day <= nights.day - 7
            and extract(isodow from earlier.day) = extract(isodow from nights.day)
    group by nights.day, actual.midnight_census, day_before.midnight_census
    having count(earlier.net_change) >= 8
),

ranged as (
    select
        expected.day,
        expected.actual,
        expected.census_before,
        expected.forecast,
        percentile_disc(0.1) within group (order by past.actual - past.forecast) as low_error,
        percentile_disc(0.9) within group (order by past.actual - past.forecast) as high_error
    from expected
    inner join newest on expected.day > newest.day - 60
    inner join expected as past on past.day between expected.day - 60 and expected.day - 1
    group by expected.day, expected.actual, expected.census_before, expected.forecast
    having count(*) = 60
)

select
    ranged.day,
    ranged.forecast,
    1 as forecasts,
    greatest(0, ranged.forecast + ranged.low_error) as low,
    ranged.forecast + ranged.high_error as high,
    coalesce(ranged.actual, 0) as actual,
    (ranged.actual is not null)::integer as known,
    coalesce(abs(ranged.actual - ranged.forecast), 0) as error,
    coalesce(abs(ranged.actual - ranged.census_before), 0) as error_of_no_change,
    coalesce(
        ranged.actual between ranged.forecast + ranged.low_error and ranged.forecast + ranged.high_error, false
    )::integer as inside,
    (ranged.day > newest.day)::integer as tomorrow,
    case when ranged.day > newest.day then ranged.forecast else 0 end as forecast_tomorrow,
    case when ranged.day > newest.day then greatest(0, ranged.forecast + ranged.low_error) else 0 end as low_tomorrow,
    case when ranged.day > newest.day then ranged.forecast + ranged.high_error else 0 end as high_tomorrow
from ranged
cross join newest
