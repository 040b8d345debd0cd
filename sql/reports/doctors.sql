-- One row per doctor: the visits, and the days with visits, in the 52 weeks up to the newest date.
select
    mart_doctor_days.doctor_id as doctor,
    count(distinct mart_doctor_days.visit_date) as working_days,
    sum(mart_doctor_days.visits)::bigint as visits,
    sum(mart_doctor_days.kept)::bigint as kept,
    sum(mart_doctor_days.missed)::bigint as missed
from mart_doctor_days
inner join ops.newest on mart_doctor_days.visit_date between newest.day - 363 and newest.day
group by mart_doctor_days.doctor_id
