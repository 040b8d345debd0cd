-- One row per day (UTC) and department: the rows behind the figures of the marts, and what these would be with the
-- excluded rows. An unreliable bill is an excluded one whose amount is unreadable or negative: it is in no sum.
-- Patients belong to no department: each day has one row without a department that counts them.
select
    stat_date as day,
    department,
    visits,
    visits + visits_withheld as visits_sent,
    admissions,
    admissions + admissions_withheld as admissions_sent,
    bills,
    bills + bills_withheld as bills_sent,
    revenue,
    revenue + revenue_withheld as revenue_sent,
    revenue_withheld,
    revenue_unknown as unreliable_bills,
    0 as patients,
    0 as patients_sent
from ops.mart_trust
where department <> '*'
union all
select
    stat_date as day,
    null as department,
    0 as visits,
    0 as visits_sent,
    0 as admissions,
    0 as admissions_sent,
    0 as bills,
    0 as bills_sent,
    0 as revenue,
    0 as revenue_sent,
    0 as revenue_withheld,
    0 as unreliable_bills,
    patients,
    patients + patients_withheld as patients_sent
from ops.mart_trust
where department = '*'
