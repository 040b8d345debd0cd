-- Drawn from jobs/catalog and sql/tables by `make schema`; do not edit.

create table if not exists patients (
    patient_id text primary key,
    gender text not null,
    birth_date date not null,
    city text,
    registration_date date not null,
    _partition_date date not null,
    _run_id text not null,
    _loaded_at timestamptz not null default clock_timestamp()
);

create index if not exists patients_by__partition_date on patients (_partition_date);

comment on table patients is
'One row per registered patient.';

create table if not exists visits (
    visit_id text primary key,
    patient_id text not null references patients (patient_id) deferrable,
    visit_type text not null,
    department text not null,
    doctor_id text,
    visit_start_ts timestamp not null,
    visit_end_ts timestamp,
    status text not null,
    _partition_date date not null,
    _run_id text not null,
    _loaded_at timestamptz not null default clock_timestamp()
);

create index if not exists visits_by_patient_id on visits (patient_id);
create index if not exists visits_by__partition_date on visits (_partition_date);

comment on table visits is
'One row per visit of a patient to a department, whether kept or not.';

create table if not exists admissions (
    admission_id text primary key,
    visit_id text not null references visits (visit_id) deferrable,
    admit_ts timestamp not null,
    discharge_ts timestamp,
    room_type text not null,
    length_of_stay_days numeric generated always as (extract(epoch from (discharge_ts - admit_ts)) / 86400) stored,
    _partition_date date not null,
    _run_id text not null,
    _loaded_at timestamptz not null default clock_timestamp()
);

create index if not exists admissions_by_visit_id on admissions (visit_id);
create index if not exists admissions_by__partition_date on admissions (_partition_date);

comment on table admissions is
'One row per stay in a room; no discharge_ts while the patient is still in.';

create table if not exists treatments (
    treatment_id text primary key,
    visit_id text not null references visits (visit_id) deferrable,
    treatment_code text not null,
    treatment_name text,
    treatment_cost numeric(12, 2) not null,
    performed_ts timestamp not null,
    _partition_date date not null,
    _run_id text not null,
    _loaded_at timestamptz not null default clock_timestamp()
);

create index if not exists treatments_by_visit_id on treatments (visit_id);
create index if not exists treatments_by__partition_date on treatments (_partition_date);

comment on table treatments is
'One row per treatment given during a visit.';

create table if not exists billing (
    bill_id text primary key,
    visit_id text not null references visits (visit_id) deferrable,
    total_amount numeric(12, 2) not null,
    insurance_amount numeric(12, 2),
    patient_amount numeric(12, 2),
    payment_status text not null,
    payment_ts timestamp,
    _partition_date date not null,
    _run_id text not null,
    _loaded_at timestamptz not null default clock_timestamp()
);

create index if not exists billing_by_visit_id on billing (visit_id);
create index if not exists billing_by__partition_date on billing (_partition_date);

comment on table billing is
'One row per bill for a visit: what the insurer and the patient owe, and whether it has been paid.';

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

-- Audit: what was done, and what is current.
create schema if not exists ops;
create schema if not exists staging;

create table if not exists ops.ledger (
    run_id text not null,
    layer text not null,
    dataset text not null,
    partition_date date not null,
    started_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    outcome text not null default 'running',
    rule_set text,
    bronze_rows bigint,
    bronze_bytes bigint,
    bronze_sha256 text,
    accepted bigint,
    rejected bigint,
    lost bigint,
    staged bigint,
    inserted bigint,
    updated bigint,
    unchanged bigint,
    removed bigint,
    error text,
    primary key (run_id, layer, dataset, partition_date)
);

create index if not exists ledger_by_partition on ops.ledger (layer, dataset, partition_date);

comment on table ops.ledger is
'One row per run, layer, dataset and partition, failed runs included; running ones have no ended_at.';

create table if not exists ops.reasons (
    run_id text not null,
    dataset text not null,
    partition_date date not null,
    reason text not null,
    hits bigint not null,
    primary key (run_id, dataset, partition_date, reason)
);

comment on table ops.reasons is
'One row per silver run and reason code: the rejected rows that carry it, zero hits included.';

create table if not exists ops.receipts (
    layer text not null,
    dataset text not null,
    partition_date date not null,
    run_id text not null,
    made_from text not null,
    rule_set text not null,
    finished_at timestamptz not null default clock_timestamp(),
    stale_since timestamptz,
    primary key (layer, dataset, partition_date)
);

comment on table ops.receipts is
'One row per layer, dataset and partition: the run that stands, and the input it was made from.';
