-- One row per day (UTC) on which visits started, department and treatment: how often it was given in these visits, and
-- its cost.
select
    visits.visit_start_ts::date as day,
    visits.department,
    coalesce(treatments.treatment_name, treatments.treatment_code) as treatment,
    count(*) as treatments,
    sum(treatments.treatment_cost)::numeric(18, 2) as revenue
from treatments
inner join visits on treatments.visit_id = visits.visit_id
group by
    visits.visit_start_ts::date, visits.department, coalesce(treatments.treatment_name, treatments.treatment_code)
