-- One row per day (UTC) on which visits started, department and type of visit: these visits, their stays and bills. A
-- booking is an outpatient visit that was kept or missed; cancelled visits are not counted as bookings. A visit is
-- unbilled if it was completed and has no bill. A bill is unpaid unless its status is Paid, even if a part was paid.
with

stays as (
    select
        visit_id,
        count(*) as admissions,
        count(length_of_stay_days) as ended_stays,
        sum(extract(epoch from (discharge_ts - admit_ts))::bigint) as stay_seconds
    from admissions
    group by visit_id
),

bills as (
    select
        visit_id,
        count(*) as bills,
        count(*) filter (where payment_status = 'Paid') as paid_bills,
        count(*) filter (where payment_status = 'Pending') as pending_bills,
        count(*) filter (where payment_status = 'Partial') as partial_bills,
        sum(total_amount) as revenue,
        sum(insurance_amount) as insurance_revenue,
        sum(patient_amount) as patient_revenue,
        sum(total_amount) filter (where payment_status <> 'Paid') as unpaid
    from billing
    group by visit_id
),

counted as (
    select
        visits.visit_start_ts::date as day,
        visits.department,
        visits.visit_type,
        count(*) as visits,
        count(*) filter (where visits.status = 'Completed') as completed_visits,
        count(*) filter (where visits.status = 'Cancelled') as cancelled_visits,
        count(*) filter (where visits.status = 'No-show') as missed_visits,
        count(*) filter (where visits.visit_type = 'Outpatient' and visits.status in ('Completed', 'No-show'))
            as due_bookings,
        count(*) filter (where visits.visit_type = 'Outpatient' and visits.status = 'No-show') as missed_bookings,
        count(*) filter (where visits.visit_type = 'Outpatient' and visits.visit_end_ts is not null)
            as timed_outpatients,
        sum(extract(epoch from (visits.visit_end_ts - visits.visit_start_ts))::bigint)
        filter (where visits.visit_type = 'Outpatient') as outpatient_seconds,
        count(*) filter (where visits.visit_type = 'Emergency' and visits.visit_end_ts is not null)
            as timed_emergencies,
        sum(extract(epoch from (visits.visit_end_ts - visits.visit_start_ts))::bigint)
        filter (where visits.visit_type = 'Emergency') as emergency_seconds,
        count(*) filter (where visits.status = 'Completed' and bills.visit_id is null) as unbilled_visits,
        sum(stays.admissions) as admissions,
        sum(stays.ended_stays) as ended_stays,
        sum(stays.stay_seconds) as stay_seconds,
        sum(bills.bills) as bills,
        sum(bills.paid_bills) as paid_bills,
        sum(bills.pending_bills) as pending_bills,
        sum(bills.partial_bills) as partial_bills,
        sum(bills.revenue) as revenue,
        sum(bills.insurance_revenue) as insurance_revenue,
        sum(bills.patient_revenue) as patient_revenue,
        sum(bills.unpaid) as unpaid
    from visits
    left join stays on visits.visit_id = stays.visit_id
    left join bills on visits.visit_id = bills.visit_id
    group by visits.visit_start_ts::date, visits.department, visits.visit_type
)

select
    day,
    department,
    visit_type,
    visits,
    completed_visits,
    cancelled_visits,
    missed_visits,
    due_bookings,
    missed_bookings,
    timed_outpatients,
    timed_emergencies,
    unbilled_visits,
    coalesce(outpatient_seconds, 0)::bigint as outpatient_seconds,
    coalesce(emergency_seconds, 0)::bigint as emergency_seconds,
    coalesce(admissions, 0)::bigint as admissions,
    coalesce(ended_stays, 0)::bigint as ended_stays,
    coalesce(stay_seconds, 0)::bigint as stay_seconds,
    coalesce(bills, 0)::bigint as bills,
    coalesce(paid_bills, 0)::bigint as paid_bills,
    coalesce(pending_bills, 0)::bigint as pending_bills,
    coalesce(partial_bills, 0)::bigint as partial_bills,
    coalesce(revenue, 0)::numeric(18, 2) as revenue,
    coalesce(insurance_revenue, 0)::numeric(18, 2) as insurance_revenue,
    coalesce(patient_revenue, 0)::numeric(18, 2) as patient_revenue,
    coalesce(unpaid, 0)::numeric(18, 2) as unpaid
from counted
