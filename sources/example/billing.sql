-- A bill and what has been paid of it come in two files; LFD is the bill's number in the export of its day.
select
    bills.RECHNUNGNR as bill_id,
    bills.FALLNR as visit_id,
    bills.GESAMT as total_amount,
    bills.ANTEIL_KASSE as insurance_amount,
    bills.ANTEIL_PATIENT as patient_amount,
    case payments.STAND when 'B' then 'Paid' when 'O' then 'Pending' when 'T' then 'Partial' else payments.STAND end
        as payment_status,
    payments.BEZAHLT_AM as payment_ts
from bills
left join payments on bills.LFD = payments.LFD
