-- One row per claim. Its sums are in its transactions: charges, transfers between those who pay, and payments.
with

amounts as (
    select
        CLAIMID,
        sum(case when TYPE = 'CHARGE' then cast(AMOUNT as decimal(18, 2)) end) as charged,
        -- What the patient owes: the copayment, what no insurer takes over ('p'), and all of it where there is no insurer.
        sum(case
            when TYPE = 'PAYMENT' and METHOD = 'COPAY' then cast(PAYMENTS as decimal(18, 2))
            when TYPE in ('CHARGE', 'TRANSFERIN') and TRANSFERTYPE = 'p' then cast(AMOUNT as decimal(18, 2))
            else 0
        end) as owed_by_patient,
        -- A payment ends with the encounter, or with the course of the medication. 1970 stands for a course that goes on.
        max(case when TYPE = 'PAYMENT' and TODATE not like '1970-01-01T00:00:00%' then TODATE end) as paid_at
    from transactions
    group by CLAIMID
)

select
    claims.Id as bill_id,
    claims.APPOINTMENTID as visit_id,
    amounts.charged as total_amount,
    amounts.charged - amounts.owed_by_patient as insurance_amount,
    amounts.owed_by_patient as patient_amount,
    -- The state of a claim with the first insurer, the second one and the patient; blank for one who has no part in it.
    case
        when concat_ws(' ', claims.STATUS1, claims.STATUS2, claims.STATUSP) rlike '^CLOSED( CLOSED)*$' then 'Paid'
        when 'CLOSED' in (claims.STATUS1, claims.STATUS2, claims.STATUSP) then 'Partial'
        when claims.STATUSP = 'BILLED' then 'Pending'
        else claims.STATUSP
    end as payment_status,
    case
        when concat_ws(' ', claims.STATUS1, claims.STATUS2, claims.STATUSP) rlike '^CLOSED( CLOSED)*$'
            then coalesce(amounts.paid_at, claims.LASTBILLEDDATEP)
    end as payment_ts
from claims
left join amounts on claims.Id = amounts.CLAIMID
