-- Every patient has one row and is new on one day.
with

gold as (
    select count(*) as patients from patients
),

marts as (
    select
        'mart_daily_kpis' as mart,
        coalesce(sum(new_patients), 0) as patients
    from mart_daily_kpis
    union all
    select
        'mart_patient_stats' as mart,
        count(*) as patients
    from mart_patient_stats
)

select
    marts.mart,
    marts.patients,
    gold.patients as expected
from marts
cross join gold
where marts.patients <> gold.patients
