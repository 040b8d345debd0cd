-- One row per bucket of age: the bills that were open at the midnight that ends the newest date.
with

buckets as (
    select *
    from (
        values
        (1, 'not yet due', null, -1),
        (2, '0–30', 0, 30),
        (3, '31–60', 31, 60),
        (4, '61–90', 61, 90),
        (5, '91–120', 91, 120),
        (6, 'over 120', 121, null)
    ) as buckets (bucket_order, bucket, days_from, days_to)
),

open_bills as (
    select
        bills.*,
        as_of.day - bills.end_date as age
    from mart_bill_days as bills
    cross join ops.as_of
    where bills.visit_date <= as_of.day and bills.paid_on > as_of.day
)

select
    buckets.bucket,
    buckets.bucket_order,
    buckets.days_from,
    buckets.days_to,
    coalesce(sum(open_bills.bills), 0) as bills,
    coalesce(sum(open_bills.billed), 0) as balance,
    coalesce(sum(open_bills.billed) filter (where open_bills.payment_status = 'Partial'), 0) as partial_balance,
    coalesce(sum(open_bills.insurer_part), 0) as insurer_balance,
    coalesce(sum(open_bills.patient_part), 0) as patient_balance
from buckets
inner join ops.as_of on as_of.day is not null
left join open_bills
    on
        open_bills.age >= coalesce(buckets.days_from, open_bills.age)
        and open_bills.age <= coalesce(buckets.days_to, open_bills.age)
group by buckets.bucket, buckets.bucket_order, buckets.days_from, buckets.days_to
