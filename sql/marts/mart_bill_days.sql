-- One row per start day of visits (UTC), end day, status of their bills and day of payment.
with

bills as (
    select
        billing.payment_status,
        billing.total_amount,
        billing.insurance_amount,
        billing.patient_amount,
        billing._partition_date,
        visits.visit_start_ts::date as visit_date,
        coalesce(visits.visit_end_ts, visits.visit_start_ts)::date as end_date,
        -- A payment before the visit counts on the visit's day; 9999-12-31 means not paid.
        case
            when billing.payment_status = 'Paid' and billing.payment_ts is not null
                then greatest(billing.payment_ts::date, visits.visit_start_ts::date)
            else '9999-12-31'::date
        end as paid_on
    from visits
    inner join billing on visits.visit_id = billing.visit_id
),

-- Splits the bills that were open when their file came by the ratio of the two amounts, which need not add up to the
-- total. No figure asks who owes the other bills.
split as (
    select
        *,
        case
            when paid_on > _partition_date
                then round(
                    total_amount * greatest(insurance_amount, 0)
                    / nullif(greatest(insurance_amount, 0) + coalesce(patient_amount, 0), 0), 2
                )
        end as insurer_part
    from bills
)

select
    visit_date,
    end_date,
    payment_status,
    paid_on,
    count(*) as bills,
    sum(total_amount) as billed,
    coalesce(sum(insurer_part), 0) as insurer_part,
    coalesce(sum(total_amount - insurer_part), 0) as patient_part
from split
group by visit_date, end_date, payment_status, paid_on
