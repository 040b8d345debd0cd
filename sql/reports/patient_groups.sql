-- One row per value of a patient's gender, age group, number of visits or city, each as a separate breakdown: the
-- number of patients with that value. Values with fewer patients than SMALL_CELLS are combined as (small groups). The
-- next larger values join them until the group has at least two values and SMALL_CELLS patients, so that totals
-- disclose none of them.
with

patients as (
    select
        gender,
        total_visits,
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
),

counted as (
    select
        breakdowns.breakdown,
        breakdowns.group_name,
        count(*) as patients
    from patients
    cross join
        lateral (
            values
            ('gender', case patients.gender when 'F' then 'Female' when 'M' then 'Male' else patients.gender end),
            ('age_group', patients.age_group),
            ('number_of_visits', patients.number_of_visits),
            ('city', patients.city)
        ) as breakdowns (breakdown, group_name)
    group by breakdowns.breakdown, breakdowns.group_name
),

-- From the smallest value on: the rank of each value, and the number of patients with smaller values.
ranked as (
    select
        breakdown,
        group_name,
        patients,
        bool_or(ops.is_small(patients)) over (partition by breakdown) as has_small,
        row_number() over smallest_first as rank_from_smallest,
        sum(patients) over smallest_first - patients as patients_before
    from counted
    window smallest_first as (partition by breakdown order by patients, group_name)
),

shown as (
    select
        breakdown,
        patients,
        case
            when has_small and (ops.is_small(patients) or rank_from_smallest <= 2 or ops.is_small(patients_before))
                then '(small groups)'
            else group_name
        end as group_name
    from ranked
)

select
    case when breakdown = 'gender' then group_name end as gender,
    case when breakdown = 'age_group' then group_name end as age_group,
    case when breakdown = 'number_of_visits' then group_name end as number_of_visits,
    case when breakdown = 'city' then group_name end as city,
    sum(patients)::bigint as patients
from shown
group by breakdown, group_name
