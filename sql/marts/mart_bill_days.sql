-- One row per day (UTC) on which visits started, day on which they ended, status of their bills and day of payment.
with

bills as (
    select
        billing.payment_status,
        billing.total_amount,
        visits.visit_start_ts::date as visit_date,
        coalesce(visits.visit_end_ts, visits.visit_start_ts)::date as end_date,
        -- A payment before the visit counts on the visit's day; the end of all days stands for none.
        case
            when billing.payment_status = 'Paid' and billing.payment_ts is not null
                then greatest(billing.payment_ts::date, visits.visit_start_ts::date)
            else '9999-12-31'::date
        end as paid_on,
        greatest(billing.insurance_amount, 0) as insurance_amount,
        coalesce(billing.patient_amount, 0) as patient_amount
    from visits
    inner join billing on visits.visit_id = billing.visit_id
),

-- Split in the ratio of the two amounts, which need not add up to the total; where they do, nothing is divided.
split as (
    select
        *,
        case
            when insurance_amount + patient_amount = 0 then null
            when insurance_amount + patient_amount = total_amount then insurance_amount
            else round(total_amount * insurance_amount / (insurance_amount + patient_amount), 2)
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
