-- One row per day (UTC) and department, and one per day for the whole hospital under *: the rows behind the figures,
-- and the excluded rows, which were rejected and have no other version in gold.
-- A department whose name consists only of asterisks gets one more asterisk here.
with

-- Only the newest rejected version of a row counts; each row without a key counts by itself.
withheld as (
    select distinct on (dataset, row_key, case when row_key is null then id end)
        dataset,
        _partition_date,
        row_key,
        visit_id,
        row_day,
        department,
        amount,
        reasons
    from ops.withheld
    where
        -- Rejected rows are few: each key is looked up in an index of gold, where `not exists` hashes all of gold's.
        not (
            select count(*) > 0 from ops.gold_keys
            where gold_keys.dataset = withheld.dataset and gold_keys.row_key = withheld.row_key
        )
    order by
        dataset asc, row_key asc, case when row_key is null then id end,
        _partition_date desc, amount desc nulls last, row_day desc nulls last, department desc nulls last, reasons asc
),

departments as (
    select distinct department from mart_department_stats
),

-- The day and department whose figures lack a row: from its own fields or its visit; else the date of its file.
placed as (
    select
        withheld.dataset,
        withheld.amount,
        withheld.reasons,
        datasets.of_visits,
        coalesce(withheld.row_day, visits.visit_start_ts::date, parents.row_day, withheld._partition_date) as own_date,
        coalesce(visits.visit_start_ts::date, parents.row_day, withheld.row_day, withheld._partition_date)
            as visit_date,
        coalesce(visits.department, departments.department, '(unknown)') as department
    from withheld
    inner join ops.datasets on withheld.dataset = datasets.dataset
    left join visits on withheld.visit_id = visits.visit_id
    left join withheld as parents on parents.dataset = 'visits' and withheld.visit_id = parents.row_key
    left join departments on departments.department = coalesce(parents.department, withheld.department)
),

-- Under *, an admission counts on the day it began; per department, on the day its visit began. Rows that belong to no
-- visit have no department.
placements as (
    select
        '*' as department,
        own_date as stat_date,
        dataset,
        amount,
        reasons
    from placed
    union all
    select
        case when btrim(department, '*') = '' then '*' || department else department end as department,
        visit_date as stat_date,
        dataset,
        amount,
        reasons
    from placed
    where of_visits
),

lacking as (
    select
        department,
        stat_date,
        count(*) filter (where dataset = 'visits') as visits,
        count(*) filter (where dataset = 'admissions') as admissions,
        count(*) filter (where dataset = 'billing') as bills,
        sum(amount) filter (where dataset = 'billing' and amount >= 0) as revenue,
        count(*) filter (where dataset = 'billing' and coalesce(amount, -1) < 0) as revenue_unknown,
        count(*) filter (where dataset = 'patients') as patients
    from placements
    group by department, stat_date
),

rows_by_reasons as (
    select
        department,
        stat_date,
        dataset,
        reasons,
        count(*) as reason_rows,
        sum(amount) filter (where amount >= 0) as reason_amount
    from placements
    group by department, stat_date, dataset, reasons
),

rows_by_reason as (
    select
        rows_by_reasons.department,
        rows_by_reasons.stat_date,
        rows_by_reasons.dataset,
        codes.reason,
        sum(rows_by_reasons.reason_rows) as reason_rows,
        sum(rows_by_reasons.reason_amount) as reason_amount
    from rows_by_reasons
    cross join unnest(string_to_array(rows_by_reasons.reasons, ';')) as codes (reason)
    group by rows_by_reasons.department, rows_by_reasons.stat_date, rows_by_reasons.dataset, codes.reason
),

by_dataset as (
    select
        department,
        stat_date,
        dataset,
        jsonb_object_agg(
            reason, jsonb_strip_nulls(jsonb_build_object('rows', reason_rows, 'amount', reason_amount))
        ) as reasons
    from rows_by_reason
    group by department, stat_date, dataset
),

by_reason as (
    select
        department,
        stat_date,
        jsonb_object_agg(dataset, reasons) as reasons
    from by_dataset
    group by department, stat_date
),

bills_by_department as (
    select
        visits.visit_start_ts::date as stat_date,
        visits.department,
        count(*) as bills
    from billing
    inner join visits on billing.visit_id = visits.visit_id
    group by visits.visit_start_ts::date, visits.department
),

bills as (
    select
        stat_date,
        coalesce(case when btrim(department, '*') = '' then '*' || department else department end, '*') as department,
        sum(bills) as bills
    from bills_by_department
    group by grouping sets ((stat_date), (stat_date, department))
),

used as (
    select
        '*' as department,
        kpi_date as stat_date,
        total_visits as visits,
        total_admissions as admissions,
        total_revenue as revenue,
        new_patients as patients
    from mart_daily_kpis
    union all
    select
        case when btrim(department, '*') = '' then '*' || department else department end as department,
        stat_date,
        total_visits as visits,
        total_admissions as admissions,
        total_revenue as revenue,
        null as patients
    from mart_department_stats
),

figures as (
    select
        coalesce(used.stat_date, lacking.stat_date) as stat_date,
        coalesce(used.department, lacking.department) as department,
        coalesce(used.visits, 0) as visits,
        coalesce(lacking.visits, 0) as visits_withheld,
        coalesce(used.admissions, 0) as admissions,
        coalesce(lacking.admissions, 0) as admissions_withheld,
        coalesce(bills.bills, 0) as bills,
        coalesce(lacking.bills, 0) as bills_withheld,
        coalesce(used.revenue, 0) as revenue,
        coalesce(lacking.revenue, 0) as revenue_withheld,
        coalesce(lacking.revenue_unknown, 0) as revenue_unknown,
        coalesce(used.patients, 0) as patients,
        coalesce(lacking.patients, 0) as patients_withheld,
        coalesce(by_reason.reasons, '{}') as withheld_by_reason
    from used
    full join lacking
        on used.department = lacking.department and used.stat_date = lacking.stat_date
    left join bills
        on used.department = bills.department and used.stat_date = bills.stat_date
    left join by_reason
        on lacking.department = by_reason.department and lacking.stat_date = by_reason.stat_date
)

select
    stat_date,
    department,
    visits,
    visits_withheld,
    admissions,
    admissions_withheld,
    bills,
    bills_withheld,
    revenue,
    revenue_withheld,
    revenue_unknown,
    withheld_by_reason,
    round(100.0 * visits / nullif(visits + visits_withheld, 0), 4) as visits_complete_pct,
    round(100.0 * admissions / nullif(admissions + admissions_withheld, 0), 4) as admissions_complete_pct,
    round(100.0 * bills / nullif(bills + bills_withheld, 0), 4) as bills_complete_pct,
    round(100.0 * revenue / nullif(revenue + revenue_withheld, 0), 4) as revenue_complete_pct,
    case when department = '*' then patients end as patients,
    case when department = '*' then patients_withheld end as patients_withheld,
    case
        when department = '*' then round(100.0 * patients / nullif(patients + patients_withheld, 0), 4)
    end as patients_complete_pct
from figures
