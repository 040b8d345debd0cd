-- One row per city, gender, age group and number of visits: the patients of whom all that holds.
with grouped as (
    select
        gender,
        total_visits,
        total_billed,
        is_returning,
        coalesce(city, '(not known)') as city,
        case
            when age_years < 10 then '0 to 9'
            when age_years < 20 then '10 to 19'
            when age_years < 30 then '20 to 29'
            when age_years < 40 then '30 to 39'
            when age_years < 50 then '40 to 49'
            when age_years < 60 then '50 to 59'
            when age_years < 70 then '60 to 69'
            when age_years < 80 then '70 to 79'
            else '80 and over'
        end as age_group,
        case when total_visits < 6 then total_visits::text else '6 or more' end as number_of_visits
    from mart_patient_stats
)

select
    city,
    gender,
    age_group,
    number_of_visits,
    count(*) as patients,
    count(*) filter (where is_returning) as returning_patients,
    count(*) filter (where total_visits > 0) as seen_patients,
    sum(total_visits)::bigint as visits,
    sum(total_billed)::numeric(18, 2) as billed
from grouped
group by city, gender, age_group, number_of_visits
