-- The figures of mart_trust count all of gold, and the excluded rows are the same by day and by department.
with

gold as (
    select
        (select count(*) from visits) as visits,
        (select count(*) from admissions) as admissions,
        (select count(*) from billing) as bills,
        (select coalesce(sum(total_amount), 0) from billing) as revenue
),

trust as (
    select
        department = '*' as by_day,
        sum(visits) as visits,
        sum(admissions) as admissions,
        sum(bills) as bills,
        sum(revenue) as revenue,
        sum(visits_withheld) as visits_withheld,
        sum(admissions_withheld) as admissions_withheld,
        sum(bills_withheld) as bills_withheld,
        sum(revenue_withheld) as revenue_withheld
    from ops.mart_trust
    group by department = '*'
),

by_day as (
    select * from trust
    where by_day
),

by_department as (
    select * from trust
    where not by_day
)

select
    'visits' as figure,
    gold.visits as expected
from gold
left join by_day on true
left join by_department on true
where
    gold.visits <> coalesce(by_day.visits, 0)
    or gold.visits <> coalesce(by_department.visits, 0)
    or by_day.visits_withheld <> coalesce(by_department.visits_withheld, 0)
union all
select
    'admissions' as figure,
    gold.admissions as expected
from gold
left join by_day on true
left join by_department on true
where
    gold.admissions <> coalesce(by_day.admissions, 0)
    or gold.admissions <> coalesce(by_department.admissions, 0)
    or by_day.admissions_withheld <> coalesce(by_department.admissions_withheld, 0)
union all
select
    'bills' as figure,
    gold.bills as expected
from gold
left join by_day on true
left join by_department on true
where
    gold.bills <> coalesce(by_day.bills, 0)
    or gold.bills <> coalesce(by_department.bills, 0)
    or by_day.bills_withheld <> coalesce(by_department.bills_withheld, 0)
union all
select
    'revenue' as figure,
    gold.revenue as expected
from gold
left join by_day on true
left join by_department on true
where
    gold.revenue <> coalesce(by_day.revenue, 0)
    or gold.revenue <> coalesce(by_department.revenue, 0)
    or by_day.revenue_withheld <> coalesce(by_department.revenue_withheld, 0)
