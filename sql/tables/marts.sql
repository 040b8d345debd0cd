create table if not exists mart_daily_kpis (
    kpi_date date primary key,
    total_visits bigint not null,
    completed_visits bigint not null,
    total_admissions bigint not null,
    avg_length_of_stay_days numeric(12, 4),
    total_revenue numeric(18, 2) not null,
    insurance_revenue numeric(18, 2) not null,
    patient_revenue numeric(18, 2) not null,
    paid_bills bigint not null,
    pending_bills bigint not null,
    payment_rate_pct numeric(7, 4),
    new_patients bigint not null
);
comment on table mart_daily_kpis is
'One row per calendar day (UTC) on which a visit started, an admission began or a patient registered.';

create table if not exists mart_department_stats (
    department text not null,
    stat_date date not null,
    total_visits bigint not null,
    completed_visits bigint not null,
    emergency_visits bigint not null,
    inpatient_visits bigint not null,
    outpatient_visits bigint not null,
    avg_visit_duration_hrs numeric(12, 4),
    total_admissions bigint not null,
    avg_los_days numeric(12, 4),
    total_revenue numeric(18, 2) not null,
    primary key (department, stat_date)
);
comment on table mart_department_stats is
'One row per department and calendar day (UTC) on which a visit to it started.';

create table if not exists mart_patient_stats (
    patient_id text primary key,
    gender text not null,
    city text,
    age_years integer not null,
    total_visits bigint not null,
    first_visit_date date,
    last_visit_date date,
    total_billed numeric(18, 2) not null,
    total_paid numeric(18, 2) not null,
    is_returning boolean not null
);
comment on table mart_patient_stats is
'One row per patient, with or without visits.';

-- How many groups there are by day: without it PostgreSQL expects as many as rows, and makes the marts on one core.
create statistics if not exists visits_by_day (ndistinct) on department, (visit_start_ts::date) from visits;
create statistics if not exists visits_day on (visit_start_ts::date) from visits;
create statistics if not exists admissions_day on (admit_ts::date) from admissions;
