-- A day's balance is that of the day before plus billed minus paid, and gold's bills owe the newest balance.
with

followed as (
    select
        *,
        lag(day) over (order by day) as day_before,
        lag(balance, 1, 0::numeric) over (order by day) as balance_before
    from mart_receivables
),

-- Gold's bills that are unpaid or were paid after the newest date; `later` has those of visits after it.
unpaid as (
    select
        billing.visit_id,
        billing.total_amount
    from billing
    cross join ops.as_of
    where
        billing.payment_status <> 'Paid'
        or billing.payment_ts is null
        or billing.payment_ts >= as_of.day + 1
),

later as (
    select coalesce(sum(unpaid.total_amount), 0) as balance
    from unpaid
    inner join (
        select visits.visit_id
        from visits
        cross join ops.as_of
        where visits.visit_start_ts >= as_of.day + 1
    ) as visits on unpaid.visit_id = visits.visit_id
),

owed as (
    select (select coalesce(sum(unpaid.total_amount), 0) from unpaid) - later.balance as balance from later
),

newest as (
    select coalesce(sum(receivables.balance), 0) as balance
    from mart_receivables as receivables
    inner join ops.as_of on receivables.day = as_of.day
),

ageing as (
    select
        coalesce(sum(balance), 0) as balance,
        count(*) filter (where insurer_balance + patient_balance > balance or partial_balance > balance) as wrong
    from mart_receivables_ageing
),

billed as (
    select
        (select coalesce(sum(total_amount), 0) from billing) as gold,
        (select coalesce(sum(billed), 0) from mart_bill_days) as bill_days,
        (select coalesce(sum(billed), 0) from mart_receivables) as receivables,
        (select coalesce(sum(billed), 0) from mart_collections) as collections,
        (select coalesce(sum(paid), 0) from mart_receivables) as paid,
        (select coalesce(sum(amount), 0) from mart_payment_days) as paid_by_days
)

select 'a balance does not follow from that of the day before' as violation
from followed
where balance <> balance_before + billed - paid or balance < 0 or day <> day_before + 1
union all
select 'the newest balance, or its ageing, is not what gold''s bills owe' as violation
from owed
cross join newest
cross join ageing
where owed.balance <> newest.balance or owed.balance <> ageing.balance or ageing.wrong > 0
union all
select 'what was billed or paid is not the same in all marts' as violation
from billed
where gold <> bill_days or receivables <> collections or paid <> paid_by_days
union all
select 'more was paid than billed, or less later than sooner' as violation
from mart_collections
where paid_30d > paid_60d or paid_60d > paid_90d or greatest(paid_30d, paid_60d, paid_90d) > billed
