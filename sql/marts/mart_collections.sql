-- One row per month (UTC) in which visits started: what was billed for them, and paid within 30, 60 and 90 days.
with

-- The age in days of the newest visit of the month: every visit of the month is at least that old.
months as (
    select
        date_trunc('month', days.stat_date)::date as visit_month,
        min(as_of.day - days.stat_date) as age
    from mart_department_stats as days
    cross join ops.as_of
    where days.stat_date <= as_of.day
    group by date_trunc('month', days.stat_date)::date
),

bills as (
    select
        date_trunc('month', bill_days.visit_date)::date as visit_month,
        bill_days.paid_on - bill_days.visit_date as days,
        sum(bill_days.billed) as billed
    from mart_bill_days as bill_days
    cross join ops.as_of
    where bill_days.visit_date <= as_of.day
    group by date_trunc('month', bill_days.visit_date)::date, bill_days.paid_on - bill_days.visit_date
)

select
    months.visit_month,
    coalesce(sum(bills.billed), 0) as billed,
    case when months.age >= 30 then coalesce(sum(bills.billed) filter (where bills.days <= 30), 0) end as paid_30d,
    case when months.age >= 60 then coalesce(sum(bills.billed) filter (where bills.days <= 60), 0) end as paid_60d,
    case when months.age >= 90 then coalesce(sum(bills.billed) filter (where bills.days <= 90), 0) end as paid_90d
from months
left join bills on months.visit_month = bills.visit_month
group by months.visit_month, months.age
