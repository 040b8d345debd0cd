-- One row per calendar day (UTC) from the first billed visit to the newest date: amounts billed, paid and owed.
with

-- The calendar starts at most a hundred years ago, since a year may be mistyped.
calendar as (
    select
        as_of.day as newest,
        greatest(min(bills.visit_date), as_of.day - 36525) as oldest
    from mart_bill_days as bills
    cross join ops.as_of
    group by as_of.day
),

amounts as (
    select
        visit_date as day,
        billed,
        0 as paid
    from mart_bill_days
    union all
    select
        paid_on as day,
        0 as billed,
        billed as paid
    from mart_bill_days
),

amounts_by_day as (
    select
        greatest(amounts.day, calendar.oldest) as day,
        sum(amounts.billed) as billed,
        sum(amounts.paid) as paid
    from amounts
    cross join calendar
    group by greatest(amounts.day, calendar.oldest)
),

days as (
    select calendar.oldest + series.number as day
    from calendar
    cross join lateral generate_series(0, calendar.newest - calendar.oldest) as series (number)
)

select
    days.day,
    coalesce(amounts_by_day.billed, 0) as billed,
    coalesce(amounts_by_day.paid, 0) as paid,
    sum(coalesce(amounts_by_day.billed - amounts_by_day.paid, 0)) over (order by days.day) as balance
from days
left join amounts_by_day on days.day = amounts_by_day.day
