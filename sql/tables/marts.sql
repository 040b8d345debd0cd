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
comment on column mart_daily_kpis.kpi_date is
'Calendar day (UTC).';
comment on column mart_daily_kpis.total_visits is
'Visits that started on the day, whatever their status.';
comment on column mart_daily_kpis.completed_visits is
'Of these, visits with status Completed.';
comment on column mart_daily_kpis.total_admissions is
'Admissions that began on the day.';
comment on column mart_daily_kpis.avg_length_of_stay_days is
'Mean length of stay, in days, of the admissions that began on the day and have ended; null where none has.';
comment on column mart_daily_kpis.total_revenue is
'Sum of total_amount over the bills of visits that started on the day. Unit: currency of the installation.';
comment on column mart_daily_kpis.insurance_revenue is
'Sum of insurance_amount over the same bills. Unit: currency of the installation.';
comment on column mart_daily_kpis.patient_revenue is
'Sum of patient_amount over the same bills. Unit: currency of the installation.';
comment on column mart_daily_kpis.paid_bills is
'Of the same bills, those with status Paid.';
comment on column mart_daily_kpis.pending_bills is
'Of the same bills, those with status Pending.';
comment on column mart_daily_kpis.payment_rate_pct is
'100 x paid bills / bills; null where there is no bill. Unit: %.';
comment on column mart_daily_kpis.new_patients is
'Patients registered on the day.';

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
comment on column mart_department_stats.department is
'Department of the visit.';
comment on column mart_department_stats.stat_date is
'Calendar day (UTC) on which the visit started; admissions and bills count on the day of their visit.';
comment on column mart_department_stats.total_visits is
'Visits to the department that started on the day, whatever their status.';
comment on column mart_department_stats.completed_visits is
'Of these, visits with status Completed.';
comment on column mart_department_stats.emergency_visits is
'Of these, visits of type Emergency.';
comment on column mart_department_stats.inpatient_visits is
'Of these, visits of type Inpatient.';
comment on column mart_department_stats.outpatient_visits is
'Of these, visits of type Outpatient.';
comment on column mart_department_stats.avg_visit_duration_hrs is
'Mean time from start to end of the visits that have ended; null where none has. Unit: hours.';
comment on column mart_department_stats.total_admissions is
'Admissions that belong to these visits.';
comment on column mart_department_stats.avg_los_days is
'Mean length of stay of these admissions that have ended; null where none has. Unit: days.';
comment on column mart_department_stats.total_revenue is
'Sum of total_amount over the bills of these visits. Unit: currency of the installation.';

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
comment on column mart_patient_stats.patient_id is
'Identifier of the patient.';
comment on column mart_patient_stats.gender is
'Gender of the patient.';
comment on column mart_patient_stats.city is
'City of the patient; null where it is not known.';
comment on column mart_patient_stats.age_years is
'Age in whole years as of the newest date in gold, not of the wall clock.';
comment on column mart_patient_stats.total_visits is
'Visits of the patient, whatever their status.';
comment on column mart_patient_stats.first_visit_date is
'Day (UTC) on which the first visit started; null without visits.';
comment on column mart_patient_stats.last_visit_date is
'Day (UTC) on which the last visit started; null without visits.';
comment on column mart_patient_stats.total_billed is
'Sum of total_amount over the bills of the patient. Unit: currency of the installation.';
comment on column mart_patient_stats.total_paid is
'Sum of total_amount over the bills with status Paid. Unit: currency of the installation.';
comment on column mart_patient_stats.is_returning is
'Whether the patient has more than one visit.';

-- Tells PostgreSQL how many days and departments there are. Without these statistics it expects as many groups as rows,
-- and builds the marts on one core.
create statistics if not exists visits_by_day (ndistinct) on department, (visit_start_ts::date) from visits;
create statistics if not exists visits_day on (visit_start_ts::date) from visits;
create statistics if not exists admissions_day on (admit_ts::date) from admissions;
