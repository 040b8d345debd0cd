-- One row per age bucket of the bills owed at the newest date, aged from the end of the visit; the buckets add up to
-- the balance. Partly paid bills count in full.
select
    bills,
    balance,
    insurer_balance,
    patient_balance,
    partial_balance,
    bucket_order || '. ' || bucket as age,
    case when days_from > 90 then balance else 0 end as balance_over_90,
    case
        when bucket_order = min(bucket_order) over ()
            then
                (
                    select sum(receivables.billed)
                    from mart_receivables as receivables
                    inner join ops.as_of on receivables.day between as_of.day - 89 and as_of.day
                )
        else 0
    end as billed_90_days
from mart_receivables_ageing
