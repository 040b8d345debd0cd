-- One row per month (UTC) in which visits started and number of days until their bills were paid.
select
    date_trunc('month', bills.visit_date)::date as visit_month,
    bills.paid_on - bills.visit_date as days,
    sum(bills.bills) as bills,
    sum(bills.billed) as amount
from mart_bill_days as bills
cross join ops.as_of
where bills.paid_on <= as_of.day
group by date_trunc('month', bills.visit_date)::date, bills.paid_on - bills.visit_date
