-- Drawn from jobs/catalog and sql/tables by `make schema`; do not edit.

drop view if exists reports.activity, reports.completeness, reports.dates, reports.files, reports.freshness, reports.patients, reports.reasons, reports.runs, reports.treatments, reports.unfinished, reports.withheld, ops.newest, ops.standing, ops.tripped, ops.orphans, ops.freshness, ops.unaccounted, ops.never_ran, ops.dates, ops.run_times;

-- What gold's changes touch of the marts, from which these are made in part (jobs/marts.py).

create table if not exists ops.touched (
    day date,
    patient_id text
);

comment on table ops.touched is
'What gold''s changes since the marts were built touch: a day and a patient whose rows of the marts may differ now, or,
where both are null, all of them.';

create table if not exists ops.built (
    rule_set text not null,
    as_of date
);

comment on table ops.built is
'One row: the SQL that the marts were built by, and the newest partition of gold then, as of which ages are.';

-- Whoever changes gold, a load or a hand, leaves in ops.touched what it touches, with the change or not at all. A row
-- touches its own day and patient, or its visit's; one that is updated, in two triggers, those of both versions.
create or replace function ops.note_touched() returns trigger language plpgsql as $$
begin
    if tg_op = 'TRUNCATE' then
        insert into ops.touched values (null, null);
    elsif (select count(*) from (select from changed limit 100001) as many) > 100000 then
        insert into ops.touched values (null, null);
    elsif tg_table_name = 'patients' then
        insert into ops.touched select distinct registration_date, patient_id from changed;
    elsif tg_table_name = 'visits' then
        insert into ops.touched select distinct visit_start_ts::date, patient_id from changed;
    else
        if tg_table_name = 'admissions' then
            insert into ops.touched (day) select distinct admit_ts::date from changed;
        end if;
        insert into ops.touched
        select distinct visits.visit_start_ts::date, visits.patient_id
        from changed
        inner join public.visits on changed.visit_id = visits.visit_id;
    end if;
    return null;
end
$$;

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

create or replace trigger note_truncate after truncate on patients for each statement execute function ops.note_touched();
create or replace trigger note_new_of_insert after insert on patients referencing new table as changed for each statement execute function ops.note_touched();
create or replace trigger note_old_of_update after update on patients referencing old table as changed for each statement execute function ops.note_touched();
create or replace trigger note_new_of_update after update on patients referencing new table as changed for each statement execute function ops.note_touched();
create or replace trigger note_old_of_delete after delete on patients referencing old table as changed for each statement execute function ops.note_touched();

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

create or replace trigger note_truncate after truncate on visits for each statement execute function ops.note_touched();
create or replace trigger note_new_of_insert after insert on visits referencing new table as changed for each statement execute function ops.note_touched();
create or replace trigger note_old_of_update after update on visits referencing old table as changed for each statement execute function ops.note_touched();
create or replace trigger note_new_of_update after update on visits referencing new table as changed for each statement execute function ops.note_touched();
create or replace trigger note_old_of_delete after delete on visits referencing old table as changed for each statement execute function ops.note_touched();

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

create or replace trigger note_truncate after truncate on admissions for each statement execute function ops.note_touched();
create or replace trigger note_new_of_insert after insert on admissions referencing new table as changed for each statement execute function ops.note_touched();
create or replace trigger note_old_of_update after update on admissions referencing old table as changed for each statement execute function ops.note_touched();
create or replace trigger note_new_of_update after update on admissions referencing new table as changed for each statement execute function ops.note_touched();
create or replace trigger note_old_of_delete after delete on admissions referencing old table as changed for each statement execute function ops.note_touched();

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

create or replace trigger note_truncate after truncate on treatments for each statement execute function ops.note_touched();
create or replace trigger note_new_of_insert after insert on treatments referencing new table as changed for each statement execute function ops.note_touched();
create or replace trigger note_old_of_update after update on treatments referencing old table as changed for each statement execute function ops.note_touched();
create or replace trigger note_new_of_update after update on treatments referencing new table as changed for each statement execute function ops.note_touched();
create or replace trigger note_old_of_delete after delete on treatments referencing old table as changed for each statement execute function ops.note_touched();

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

create or replace trigger note_truncate after truncate on billing for each statement execute function ops.note_touched();
create or replace trigger note_new_of_insert after insert on billing referencing new table as changed for each statement execute function ops.note_touched();
create or replace trigger note_old_of_update after update on billing referencing old table as changed for each statement execute function ops.note_touched();
create or replace trigger note_new_of_update after update on billing referencing new table as changed for each statement execute function ops.note_touched();
create or replace trigger note_old_of_delete after delete on billing referencing old table as changed for each statement execute function ops.note_touched();

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

-- Audit: what was done, and what is current.

-- Who comes later has a higher turn, whatever any clock says: times are for people, and nothing is decided by them.
create sequence if not exists ops.turns;

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
    amount_in numeric(18, 2),
    accepted bigint,
    rejected bigint,
    faulty bigint,
    amount_accepted numeric(18, 2),
    amount_rejected numeric(18, 2),
    lost bigint,
    delta_accepted bigint,
    delta_rejected bigint,
    staged bigint,
    inserted bigint,
    updated bigint,
    unchanged bigint,
    removed bigint,
    amount_change numeric(18, 2),
    checksums text,
    warnings text,
    overridden text,
    error text,
    turn bigint not null default nextval('ops.turns'),
    asked_by text,
    log text,
    primary key (run_id, layer, dataset, partition_date)
);
alter table ops.ledger add column if not exists turn bigint not null default nextval('ops.turns');
alter table ops.ledger add column if not exists checksums text;
alter table ops.ledger add column if not exists asked_by text;
alter table ops.ledger add column if not exists log text;

create index if not exists ledger_by_partition on ops.ledger (layer, dataset, partition_date);

-- PostgreSQL releases an advisory lock with the connection of its holder, so that a lock tells who is alive.
create or replace function ops.is_locked(lock_name text) returns boolean language sql stable as $$
    select exists(
        select from pg_locks join pg_database on pg_locks.database = pg_database.oid
        where locktype = 'advisory' and objsubid = 1 and datname = current_database()
        and (classid::bigint << 32) | objid::bigint = hashtext(lock_name)::bigint
    )
$$;

comment on function ops.is_locked is 'Tells whether a live process holds the advisory lock of this name.';

comment on table ops.ledger is
'One row per run, layer, dataset and partition, failed runs included; running ones have no ended_at. Gold loads have one
for each dataset they touched. Amounts are those of the dataset''s money column as far as they can be read.';
comment on column ops.ledger.outcome is
'running, done, failed, stopped (a threshold keeps the date out of gold) or unaccounted (gold was changed by hand).';
comment on column ops.ledger.log is
'The file, under logs/runs of STACK_DIR, that has the whole output of the run; null for a job started by hand.';
comment on column ops.ledger.amount_in is 'The file''s money by a plain reading of it.';
comment on column ops.ledger.faulty is 'Rejected rows with a reason that no late parent can mend.';
comment on column ops.ledger.lost is 'Keys that the partition accepted before this run and no longer accepts.';
comment on column ops.ledger.delta_accepted is
'The version of the Delta table of accepted rows that this run wrote, or found as it would have written it.';
comment on column ops.ledger.amount_change is 'By how much this load changed the sum over the gold table.';
comment on column ops.ledger.checksums is
'Counts and checksums of what gold held of the partition after this load.';
comment on column ops.ledger.overridden is 'The stop levels that somebody let pass.';
comment on column ops.ledger.turn is 'Counts up: when the run began.';
comment on column ops.ledger.asked_by is
'The operating system''s name of who asked for a date to be forgotten, or let stop levels pass.';

create table if not exists ops.datasets (
    dataset text primary key,
    key_column text not null,
    amount_column text,
    orphan_days integer not null,
    due_hours integer not null
);
comment on table ops.datasets is
'One row per dataset, as the catalog declares it; amount_column is its money.';

-- Declared in the catalog and nowhere else: drawn anew each time, so that its columns may change.
drop table if exists ops.rules;
create table ops.rules (
    dataset text not null,
    reason text not null,
    message text not null,
    retryable boolean not null,
    warn_share numeric[],
    warn_rows bigint[],
    stop_share numeric[],
    stop_rows bigint[],
    primary key (dataset, reason)
);
comment on table ops.rules is
'One row per dataset and reason code, and one for all rejected rows together, with the levels that warn and those that
stop a date before gold: at least so many rows, and at least such a share of the file; any one of them is enough.';

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
    turn bigint not null default nextval('ops.turns'),
    stale_turn bigint,
    primary key (layer, dataset, partition_date)
);
alter table ops.receipts add column if not exists turn bigint not null default nextval('ops.turns');
alter table ops.receipts add column if not exists stale_turn bigint;
-- What an earlier version has marked stale stays so.
update ops.receipts set stale_turn = nextval('ops.turns')
where stale_since is not null and stale_turn is null;

comment on table ops.receipts is
'One row per layer, dataset and partition: the run that stands, and the input it was made from.';
comment on column ops.receipts.turn is 'Counts up: when the run was settled; stale_turn, when it was marked stale.';

create table if not exists ops.withheld (
    id bigint generated always as identity primary key,
    dataset text not null,
    _partition_date date not null,
    row_key text,
    visit_id text,
    row_day date,
    department text,
    amount numeric(12, 2),
    reasons text not null
);
create index if not exists withheld_by_partition on ops.withheld (dataset, _partition_date);

comment on table ops.withheld is
'One row per rejected row of each partition that is in gold: what can be read of where the figures lack it.';

create table if not exists ops.mart_trust (
    stat_date date not null,
    department text not null,
    visits bigint not null,
    visits_withheld bigint not null,
    admissions bigint not null,
    admissions_withheld bigint not null,
    bills bigint not null,
    bills_withheld bigint not null,
    revenue numeric(18, 2) not null,
    revenue_withheld numeric(18, 2) not null,
    revenue_unknown bigint not null,
    withheld_by_reason jsonb not null,
    visits_complete_pct numeric(7, 4),
    admissions_complete_pct numeric(7, 4),
    bills_complete_pct numeric(7, 4),
    revenue_complete_pct numeric(7, 4),
    patients bigint,
    patients_withheld bigint,
    patients_complete_pct numeric(7, 4),
    primary key (stat_date, department)
);

comment on table ops.mart_trust is
'One row per day and department, and one per day for the whole hospital under the department *: the rows and the revenue
that the figures of the marts stand on, and those that were rejected and have no other version in gold.';
comment on column ops.mart_trust.revenue_unknown is 'Withheld bills whose amount cannot be read or is below zero.';
comment on column ops.mart_trust.withheld_by_reason is
'{dataset: {reason: {"rows": n, "amount": x}}}; a row with two reasons stands under both.';

delete from ops.datasets;
insert into ops.datasets values
    ('patients', 'patient_id', null, 365, 6),
    ('visits', 'visit_id', null, 365, 6),
    ('admissions', 'admission_id', null, 365, 6),
    ('treatments', 'treatment_id', 'treatment_cost', 365, 6),
    ('billing', 'bill_id', 'total_amount', 365, 6);

delete from ops.rules;
insert into ops.rules values
    ('patients', 'rejected', 'all that no late parent can mend', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('patients', 'missing_patient_id', 'patient_id must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('patients', 'missing_gender', 'gender must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('patients', 'unknown_gender', 'gender must be one of M, F, Other, Unknown', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('patients', 'missing_birth_date', 'birth_date must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('patients', 'unreadable_birth_date', 'birth_date must be a date', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('patients', 'missing_registration_date', 'registration_date must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('patients', 'unreadable_registration_date', 'registration_date must be a date', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('patients', 'birth_after_registration', 'broken rule: birth_date <= registration_date', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('patients', 'duplicate_patient_id', 'another row with this patient_id stands in this file', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('patients', 'malformed_row', 'the record has too few or too many fields, an open quote or a NUL character', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('visits', 'rejected', 'all that no late parent can mend', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('visits', 'missing_visit_id', 'visit_id must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('visits', 'missing_patient_id', 'patient_id must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('visits', 'orphan_patient_id', 'patient_id must be the key of an accepted row of patients', true, '{0.05}', '{20}', null, null),
    ('visits', 'missing_visit_type', 'visit_type must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('visits', 'unknown_visit_type', 'visit_type must be one of Outpatient, Emergency, Inpatient', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('visits', 'missing_department', 'department must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('visits', 'missing_visit_start_ts', 'visit_start_ts must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('visits', 'unreadable_visit_start_ts', 'visit_start_ts must be a timestamp', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('visits', 'unreadable_visit_end_ts', 'visit_end_ts must be a timestamp', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('visits', 'missing_status', 'status must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('visits', 'unknown_status', 'status must be one of Completed, Cancelled, No-show', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('visits', 'visit_end_not_after_start', 'broken rule: visit_end_ts > visit_start_ts', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('visits', 'duplicate_visit_id', 'another row with this visit_id stands in this file', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('visits', 'malformed_row', 'the record has too few or too many fields, an open quote or a NUL character', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('admissions', 'rejected', 'all that no late parent can mend', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('admissions', 'missing_admission_id', 'admission_id must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('admissions', 'missing_visit_id', 'visit_id must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('admissions', 'orphan_visit_id', 'visit_id must be the key of an accepted row of visits', true, '{0.05}', '{20}', null, null),
    ('admissions', 'missing_admit_ts', 'admit_ts must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('admissions', 'unreadable_admit_ts', 'admit_ts must be a timestamp', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('admissions', 'unreadable_discharge_ts', 'discharge_ts must be a timestamp', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('admissions', 'missing_room_type', 'room_type must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('admissions', 'unknown_room_type', 'room_type must be one of General Ward, Semi-Private, Private, ICU, CCU', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('admissions', 'discharge_not_after_admit', 'broken rule: discharge_ts > admit_ts', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('admissions', 'duplicate_admission_id', 'another row with this admission_id stands in this file', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('admissions', 'malformed_row', 'the record has too few or too many fields, an open quote or a NUL character', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('treatments', 'rejected', 'all that no late parent can mend', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('treatments', 'missing_treatment_id', 'treatment_id must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('treatments', 'missing_visit_id', 'visit_id must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('treatments', 'orphan_visit_id', 'visit_id must be the key of an accepted row of visits', true, '{0.05}', '{20}', null, null),
    ('treatments', 'missing_treatment_code', 'treatment_code must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('treatments', 'missing_treatment_cost', 'treatment_cost must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('treatments', 'unreadable_treatment_cost', 'treatment_cost must be a decimal', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('treatments', 'missing_performed_ts', 'performed_ts must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('treatments', 'unreadable_performed_ts', 'performed_ts must be a timestamp', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('treatments', 'negative_treatment_cost', 'broken rule: treatment_cost >= 0', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('treatments', 'duplicate_treatment_id', 'another row with this treatment_id stands in this file', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('treatments', 'malformed_row', 'the record has too few or too many fields, an open quote or a NUL character', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'rejected', 'all that no late parent can mend', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'missing_bill_id', 'bill_id must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'missing_visit_id', 'visit_id must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'orphan_visit_id', 'visit_id must be the key of an accepted row of visits', true, '{0.05}', '{20}', null, null),
    ('billing', 'missing_total_amount', 'total_amount must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'unreadable_total_amount', 'total_amount must be a decimal', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'unreadable_insurance_amount', 'insurance_amount must be a decimal', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'unreadable_patient_amount', 'patient_amount must be a decimal', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'missing_payment_status', 'payment_status must not be blank', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'unknown_payment_status', 'payment_status must be one of Paid, Pending, Partial', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'unreadable_payment_ts', 'payment_ts must be a timestamp', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'negative_total_amount', 'broken rule: total_amount >= 0', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'negative_patient_amount', 'broken rule: patient_amount >= 0', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'insurance_exceeds_total', 'broken rule: insurance_amount <= total_amount', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'paid_without_payment_ts', 'broken rule: payment_status <> ''Paid'' or payment_ts is not null', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'duplicate_bill_id', 'another row with this bill_id stands in this file', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}'),
    ('billing', 'malformed_row', 'the record has too few or too many fields, an open quote or a NUL character', false, '{0.05}', '{20}', '{0.3333333333333333,0.9}', '{50,5}');

-- What the ledger tells: drawn anew each time, so that their columns may change.
create view ops.newest as
select max(partition_date) as day
from ops.receipts
where layer = 'gold';
comment on view ops.newest is
'One row: the newest date that stands in gold. Dashboards look back from it, not from the wall clock.';

create view ops.standing as
select
    receipts.dataset,
    receipts.partition_date,
    receipts.run_id,
    receipts.made_from,
    receipts.stale_since,
    ledger.ended_at,
    ledger.rule_set,
    ledger.bronze_rows,
    ledger.bronze_bytes,
    ledger.bronze_sha256,
    ledger.amount_in,
    ledger.accepted,
    ledger.rejected,
    ledger.faulty,
    ledger.amount_accepted,
    ledger.amount_rejected,
    ledger.delta_accepted,
    ledger.delta_rejected,
    ledger.warnings
from ops.receipts
inner join
    ops.ledger
    on
        receipts.run_id = ledger.run_id
        and receipts.layer = ledger.layer
        and receipts.dataset = ledger.dataset
        and receipts.partition_date = ledger.partition_date
where receipts.layer = 'silver';
comment on view ops.standing is
'One row per dataset and partition: the silver run that stands.';

create view ops.tripped as
with

counted as (
    select
        dataset,
        partition_date,
        run_id,
        'rejected' as reason,
        bronze_rows,
        bronze_sha256,
        faulty as hits
    from ops.ledger
    where layer = 'silver'
    union all
    select
        ledger.dataset,
        ledger.partition_date,
        ledger.run_id,
        reasons.reason,
        ledger.bronze_rows,
        ledger.bronze_sha256,
        reasons.hits
    from ops.reasons
    inner join
        ops.ledger
        on
            reasons.run_id = ledger.run_id
            and reasons.dataset = ledger.dataset
            and reasons.partition_date = ledger.partition_date
    where ledger.layer = 'silver' and reasons.hits > 0
)

select
    counted.dataset,
    counted.partition_date,
    counted.run_id,
    rules.reason,
    levels.action,
    counted.hits,
    counted.bronze_rows,
    levels.level_share,
    levels.level_rows,
    exists(
        select 1
        from ops.receipts as passed
        where
            passed.layer = 'override'
            and passed.dataset = counted.dataset
            and passed.partition_date = counted.partition_date
            and passed.made_from = counted.bronze_sha256
    ) as overridden
from counted
inner join ops.rules on counted.dataset = rules.dataset and counted.reason = rules.reason
cross join
    lateral (
        select distinct on (kinds.action)
            kinds.action,
            declared.level_share,
            declared.level_rows
        from (
            values ('warn', rules.warn_share, rules.warn_rows), ('stop', rules.stop_share, rules.stop_rows)
        ) as kinds (action, shares, least)
        cross join unnest(kinds.shares, kinds.least) as declared (level_share, level_rows)
        where counted.hits >= declared.level_rows and counted.hits >= declared.level_share * counted.bronze_rows
        order by kinds.action asc, declared.level_share asc, declared.level_rows asc
    ) as levels;
comment on view ops.tripped is
'One row per silver run, reason and action (warn, stop) of which its rejects reached a level: the one of the smallest
share. The reason rejected is all of them that no late parent can mend.';

create view ops.orphans as
select
    standing.dataset,
    standing.partition_date,
    reasons.reason,
    reasons.hits as waiting,
    attempts.first_seen,
    attempts.attempts,
    datasets.orphan_days,
    greatest(newest.day - standing.partition_date, 0) as age_days,
    greatest(newest.day - standing.partition_date, 0) > datasets.orphan_days as is_final
from ops.standing
inner join ops.datasets on standing.dataset = datasets.dataset
inner join ops.reasons on standing.run_id = reasons.run_id
inner join ops.rules on reasons.dataset = rules.dataset and reasons.reason = rules.reason
cross join ops.newest
cross join
    lateral (
        select
            min(ledger.ended_at) as first_seen,
            count(*) as attempts
        from ops.ledger
        inner join
            ops.reasons as hits
            on
                ledger.run_id = hits.run_id
                and ledger.dataset = hits.dataset
                and ledger.partition_date = hits.partition_date
        where
            ledger.layer = 'silver'
            and ledger.outcome = 'done'
            and ledger.dataset = standing.dataset
            and ledger.partition_date = standing.partition_date
            and ledger.bronze_sha256 = standing.bronze_sha256
            and hits.reason = reasons.reason
            and hits.hits > 0
    ) as attempts
where rules.retryable and reasons.hits > 0;
comment on view ops.orphans is
'One row per partition and foreign key that has rows without a parent: how often and since when they were judged so, and
whether a parent that comes with the newest date in gold would still count.';

create view ops.freshness as
with gold as (
    select
        dataset,
        min(partition_date) as oldest,
        max(partition_date) as newest,
        count(*) as dates,
        least(max(partition_date), date '9999-11-30') as last_before  -- no client reads the year 10000
    from ops.receipts
    where layer = 'gold'
    group by dataset
)

select
    datasets.dataset,
    gold.newest,
    gold.dates,
    gold.newest - gold.oldest + 1 - gold.dates as missing_dates,
    gold.last_before + 1 as next_date,
    gold.last_before + interval '2 days' + datasets.due_hours * interval '1 hour' as next_due,
    now() at time zone 'UTC'
    > gold.last_before + interval '2 days' + datasets.due_hours * interval '1 hour' as overdue
from ops.datasets
left join gold on datasets.dataset = gold.dataset;
comment on view ops.freshness is
'One row per dataset: the newest date that stands in gold, dates missing before it, when the next file is due (UTC).';

create view ops.unaccounted as
with

gold as (
    select
        'patients' as dataset,
        count(*) as gold_rows,
        null::numeric as amount
    from patients
    union all
    select
        'visits' as dataset,
        count(*) as gold_rows,
        null::numeric as amount
    from visits
    union all
    select
        'admissions' as dataset,
        count(*) as gold_rows,
        null::numeric as amount
    from admissions
    union all
    select
        'treatments' as dataset,
        count(*) as gold_rows,
        coalesce(sum(treatment_cost), 0) as amount
    from treatments
    union all
    select
        'billing' as dataset,
        count(*) as gold_rows,
        coalesce(sum(total_amount), 0) as amount
    from billing
),

loads as (
    select
        dataset,
        sum(inserted - removed) as gold_rows,
        sum(amount_change) as amount
    from ops.ledger
    where layer = 'gold' and outcome in ('done', 'unaccounted')
    group by dataset
)

select
    gold.dataset,
    gold.gold_rows - coalesce(loads.gold_rows, 0) as unaccounted_rows,
    gold.amount - coalesce(loads.amount, 0) as unaccounted_amount
from gold
left join loads on gold.dataset = loads.dataset
where
    gold.gold_rows <> coalesce(loads.gold_rows, 0)
    or gold.amount <> coalesce(loads.amount, 0);
comment on view ops.unaccounted is
'One row per gold table whose rows or whose money are not the sum of all loads: somebody changed it by hand since.';

create view ops.never_ran as
with

-- What is known of a date other than that it stands: files that were refused, runs that failed or died, a taking back.
attempts as (
    select distinct on (ledger.partition_date)
        ledger.partition_date,
        ledger.layer,
        ledger.dataset,
        ledger.outcome,
        ledger.error,
        ledger.asked_by,
        ledger.ended_at
    from ops.ledger
    left join ops.receipts
        on
            ledger.layer = receipts.layer
            and ledger.dataset = receipts.dataset
            and ledger.partition_date = receipts.partition_date
    where
        ledger.layer = 'forget'
        or (
            ledger.outcome <> 'done'
            and (
                ledger.layer in ('silver', 'gold', 'run')
                or (ledger.layer = 'bronze' and receipts.run_id is null)
            )
        )
    order by ledger.partition_date asc, ledger.turn desc
),

markers as (
    select
        partition_date,
        bool_or(layer = 'bronze') as has_files,
        bool_or(layer in ('silver', 'gold')) as has_rows
    from ops.receipts
    group by partition_date
)

select
    attempts.partition_date,
    attempts.layer,
    attempts.dataset,
    attempts.outcome,
    attempts.error,
    attempts.asked_by,
    attempts.ended_at
from attempts
left join markers on attempts.partition_date = markers.partition_date
where
    not coalesce(markers.has_rows, false)
    and (attempts.layer = 'bronze' or not coalesce(markers.has_files, false));
comment on view ops.never_ran is
'One row per date of which nothing stands: its files were refused before any was validated, or it was taken back (layer
forget); with its last attempt, and for a date taken back who asked and when.';

create view ops.dates as
with

days as (
    select distinct receipts.partition_date
    from ops.receipts
    left join ops.never_ran on receipts.partition_date = never_ran.partition_date
    where receipts.layer in ('bronze', 'silver', 'gold') and never_ran.partition_date is null
),

marts as (
    select exists(
        select 1
        from ops.receipts as marts
        where
            marts.layer = 'marts'
            and marts.made_from = (
                select md5(string_agg(gold.run_id, ',' order by gold.dataset, gold.partition_date))
                from ops.receipts as gold
                where gold.layer = 'gold'
            )
    ) as are_current
),

stops as (
    select
        dataset,
        partition_date,
        run_id,
        string_agg(reason, ', ' order by reason) as reasons
    from ops.tripped
    where action = 'stop' and not overridden
    group by dataset, partition_date, run_id
),

-- The last attempt of each partition, and the last of the marts.
attempts as (
    select distinct on (dataset, partition_date)
        dataset,
        partition_date,
        layer,
        outcome,
        error
    from ops.ledger
    where layer in ('bronze', 'silver', 'gold')
    order by dataset asc, partition_date asc, turn desc
),

marts_attempt as (
    select
        partition_date,
        error
    from ops.ledger
    where layer = 'marts'
    order by turn desc
    limit 1
),

-- Whole runs that failed before or beside their tasks, as where a store was down.
run_attempts as (
    select distinct on (partition_date)
        partition_date,
        layer,
        outcome,
        error
    from ops.ledger
    where layer in ('bronze', 'silver', 'gold', 'marts', 'run')
    order by partition_date asc, turn desc
),

running as (
    select distinct partition_date
    from ops.ledger
    where outcome = 'running' and ops.is_locked('run ' || run_id)
),

parts as (
    select
        days.partition_date,
        datasets.dataset,
        standing.bronze_rows,
        standing.accepted,
        standing.rejected,
        standing.amount_in,
        standing.amount_accepted,
        standing.amount_rejected,
        bronze.run_id is not null and standing.run_id is not null and gold.run_id is not null as is_complete,
        coalesce(
            standing.bronze_rows = standing.accepted + standing.rejected
            and standing.amount_in is not distinct from standing.amount_accepted + standing.amount_rejected, false
        ) as is_balanced,
        case
            when bronze.run_id is null then 'has not come'
            when standing.run_id is null then 'has not been judged'
            when standing.made_from = 'forgotten' then 'is being forgotten'
            when standing.made_from = '' then 'was being judged by a run that did not end'
            when standing.made_from <> bronze.made_from then 'came again since it was judged'
            when standing.stale_since is not null then 'lost or found parents since it was judged'
            when stops.reasons is not null then 'is stopped before gold by ' || stops.reasons
            when gold.run_id is null then 'is not in gold'
            when gold.made_from <> standing.run_id then 'was judged again since it was loaded'
        end as lag,
        stops.reasons is not null as is_stopped,
        case when attempts.outcome = 'failed' then attempts.layer || ' failed: ' || attempts.error end as failure
    from days
    cross join ops.datasets
    left join ops.receipts as bronze
        on
            bronze.layer = 'bronze'
            and datasets.dataset = bronze.dataset
            and days.partition_date = bronze.partition_date
    left join ops.standing
        on
            datasets.dataset = standing.dataset
            and days.partition_date = standing.partition_date
    left join ops.receipts as gold
        on
            gold.layer = 'gold'
            and datasets.dataset = gold.dataset
            and days.partition_date = gold.partition_date
    left join stops on standing.run_id = stops.run_id
    left join attempts
        on
            datasets.dataset = attempts.dataset
            and days.partition_date = attempts.partition_date
),

summed as (
    select
        parts.partition_date,
        bool_and(parts.is_complete) and bool_or(marts.are_current) as is_complete,
        bool_and(parts.is_balanced) as is_balanced,
        bool_and(parts.lag is null) and bool_or(marts.are_current) as is_current,
        sum(parts.bronze_rows) as bronze_rows,
        sum(parts.accepted) as accepted,
        sum(parts.rejected) as rejected,
        sum(parts.amount_in) as amount_in,
        sum(parts.amount_accepted) as amount_accepted,
        sum(parts.amount_rejected) as amount_rejected,
        bool_or(parts.failure is not null) as has_failed,
        bool_or(parts.is_stopped and parts.lag is not null) as is_stopped,
        bool_or(parts.accepted is not null and not parts.is_balanced) as is_unbalanced,
        concat_ws(
            '; ',
            string_agg(
                parts.dataset || ' ' || concat_ws(', last ', parts.lag, parts.failure), '; ' order by parts.dataset
            ) filter (where parts.lag is not null or parts.failure is not null),
            string_agg(parts.dataset || ' does not balance', '; ' order by parts.dataset)
            filter (where parts.accepted is not null and not parts.is_balanced)
        ) as why,
        bool_or(marts.are_current) as marts_are_current
    from parts
    cross join marts
    group by parts.partition_date
)

select
    summed.partition_date,
    summed.is_complete,
    summed.is_balanced,
    summed.is_current,
    summed.bronze_rows,
    summed.accepted,
    summed.rejected,
    summed.amount_in,
    summed.amount_accepted,
    summed.amount_rejected,
    concat_ws(
        '; ',
        nullif(summed.why, ''),
        'the last run failed: ' || run_attempts.error,
        case
            when not summed.marts_are_current
                then
                    'the marts are older than gold'
                    || coalesce(', last marts failed: ' || marts_attempt.error, '')
        end
    ) as why,
    case
        when
            running.partition_date is not null or ops.is_locked('the date ' || summed.partition_date) then 'running'
        when summed.is_stopped then 'stopped'
        when
            summed.has_failed
            or run_attempts.error is not null
            or (not summed.marts_are_current and marts_attempt.error is not null and summed.why = '') then 'failed'
        when summed.is_unbalanced then 'unbalanced'
        when not summed.is_complete then 'incomplete'
        when not summed.is_current then 'due'
        else 'done'
    end as state
from summed
left join run_attempts
    on
        summed.partition_date = run_attempts.partition_date
        and run_attempts.layer = 'run'
        and run_attempts.outcome = 'failed'
        and not (summed.is_complete and summed.is_current)
left join running on summed.partition_date = running.partition_date
left join marts_attempt on summed.partition_date = marts_attempt.partition_date;
comment on view ops.dates is
'One row per date: whether all of it is in gold and the marts, whether rows and money balance, whether it is current,
and if not, why; state is running, failed, stopped, unbalanced, incomplete, due or done. A file that changed in the
landing directory since is only known once it comes.';

create view ops.run_times as
select
    partition_date,
    log,
    min(started_at) as started_at,
    max(ended_at) as ended_at,
    round(extract(epoch from max(ended_at) - min(started_at))::numeric, 1) as seconds,
    sum(bronze_rows) filter (where layer = 'bronze') as bronze_rows,
    min(turn) as turn
from ops.ledger
where log is not null and layer in ('bronze', 'silver', 'gold', 'marts', 'rejudged')
group by partition_date, log;
comment on view ops.run_times is
'One row per date and run of it, by the file of its output: when it began and ended, and the seconds it took.';

create view reports.activity as
with

stays as (
    select
        visit_id,
        count(*) as admissions,
        count(length_of_stay_days) as ended_stays,
        sum(extract(epoch from (discharge_ts - admit_ts))::bigint) as stay_seconds
    from admissions
    group by visit_id
),

bills as (
    select
        visit_id,
        count(*) as bills,
        count(*) filter (where payment_status = 'Paid') as paid_bills,
        count(*) filter (where payment_status = 'Pending') as pending_bills,
        count(*) filter (where payment_status = 'Partial') as partial_bills,
        sum(total_amount) as revenue,
        sum(insurance_amount) as insurance_revenue,
        sum(patient_amount) as patient_revenue,
        sum(total_amount) filter (where payment_status <> 'Paid') as unpaid
    from billing
    group by visit_id
),

counted as (
    select
        visits.visit_start_ts::date as day,
        visits.department,
        visits.visit_type,
        count(*) as visits,
        count(*) filter (where visits.status = 'Completed') as completed_visits,
        count(*) filter (where visits.status = 'Cancelled') as cancelled_visits,
        count(*) filter (where visits.status = 'No-show') as missed_visits,
        count(visits.visit_end_ts) as timed_visits,
        sum(extract(epoch from (visits.visit_end_ts - visits.visit_start_ts))::bigint) as visit_seconds,
        count(*) filter (where visits.visit_start_ts::date = patients.first_visit_date) as new_visits,
        sum(stays.admissions) as admissions,
        sum(stays.ended_stays) as ended_stays,
        sum(stays.stay_seconds) as stay_seconds,
        sum(bills.bills) as bills,
        sum(bills.paid_bills) as paid_bills,
        sum(bills.pending_bills) as pending_bills,
        sum(bills.partial_bills) as partial_bills,
        sum(bills.revenue) as revenue,
        sum(bills.insurance_revenue) as insurance_revenue,
        sum(bills.patient_revenue) as patient_revenue,
        sum(bills.unpaid) as unpaid
    from visits
    left join mart_patient_stats as patients on visits.patient_id = patients.patient_id
    left join stays on visits.visit_id = stays.visit_id
    left join bills on visits.visit_id = bills.visit_id
    group by visits.visit_start_ts::date, visits.department, visits.visit_type
)

select
    counted.day,
    counted.department,
    counted.visit_type,
    counted.visits,
    counted.completed_visits,
    counted.cancelled_visits,
    counted.missed_visits,
    counted.timed_visits,
    counted.new_visits,
    case
        when newest.day - counted.day <= 30 then '0 to 30 days'
        when newest.day - counted.day <= 60 then '31 to 60 days'
        when newest.day - counted.day <= 90 then '61 to 90 days'
        when newest.day - counted.day <= 180 then '91 to 180 days'
        else 'over 180 days'
    end as age,
    coalesce(counted.visit_seconds, 0)::bigint as visit_seconds,
    counted.visits - counted.new_visits as returning_visits,
    coalesce(counted.admissions, 0)::bigint as admissions,
    coalesce(counted.ended_stays, 0)::bigint as ended_stays,
    coalesce(counted.stay_seconds, 0)::bigint as stay_seconds,
    coalesce(counted.bills, 0)::bigint as bills,
    coalesce(counted.paid_bills, 0)::bigint as paid_bills,
    coalesce(counted.pending_bills, 0)::bigint as pending_bills,
    coalesce(counted.partial_bills, 0)::bigint as partial_bills,
    coalesce(counted.revenue, 0)::numeric(18, 2) as revenue,
    coalesce(counted.insurance_revenue, 0)::numeric(18, 2) as insurance_revenue,
    coalesce(counted.patient_revenue, 0)::numeric(18, 2) as patient_revenue,
    coalesce(counted.unpaid, 0)::numeric(18, 2) as unpaid
from counted
cross join ops.newest;
comment on view reports.activity is
'One row per day (UTC) on which visits started, department and type of visit: these visits, their stays and bills. A visit is new on the day of its patient''s first; a bill is unpaid unless its status is Paid, whatever part was paid.';

create view reports.completeness as
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
where department = '*';
comment on view reports.completeness is
'One row per day (UTC) and department: what the figures of the marts stand on, and what they would with the rows that are withheld. An unreliable bill is a withheld one whose amount cannot be read or is below zero: it is in no sum. Patients belong to no department: they are counted in a row of each day without one.';

create view reports.dates as
with

running as (
    select distinct partition_date
    from ops.ledger
    where outcome = 'running' and ops.is_locked('run ' || run_id)
),

states as (
    select
        partition_date,
        state,
        nullif(why, '') as sentence,
        bronze_rows,
        rejected
    from ops.dates
    union all
    select
        never_ran.partition_date,
        case
            when running.partition_date is not null or ops.is_locked('the date ' || never_ran.partition_date)
                then 'running'
            else 'never ran'
        end as state,
        case
            when running.partition_date is null
                then coalesce(never_ran.error, never_ran.layer || ' ' || never_ran.dataset || ' did not end')
        end as sentence,
        null as bronze_rows,
        null as rejected
    from ops.never_ran
    left join running on never_ran.partition_date = running.partition_date
    where never_ran.layer <> 'forget' or never_ran.outcome <> 'done'  -- one that was taken back is no date any more
),

-- The last run of each date, leaving out those of other dates that validated rows of this one again.
timed as (
    select distinct on (states.partition_date)
        states.partition_date,
        run_times.started_at,
        run_times.log,
        case when states.state <> 'running' then run_times.seconds end as seconds
    from states
    inner join ops.run_times on states.partition_date = run_times.partition_date
    where starts_with(run_times.log, states.partition_date || '/')
    order by states.partition_date asc, run_times.turn desc
),

earlier as (
    select
        partition_date,
        array_agg(seconds) over (order by partition_date rows between 8 preceding and 1 preceding) as earlier_seconds
    from timed
    where seconds is not null
),

usual as (
    select
        earlier.partition_date,
        round(percentile_cont(0.5) within group (order by preceding_runs.seconds)::numeric, 1) as seconds
    from earlier
    cross join unnest(earlier.earlier_seconds) as preceding_runs (seconds)
    group by earlier.partition_date
)

select
    states.partition_date as day,
    states.state,
    states.sentence,
    states.bronze_rows as received,
    states.rejected,
    timed.seconds,
    usual.seconds as usual_seconds,
    timed.log,
    date_trunc('second', timed.started_at at time zone 'UTC') as started,
    (timed.seconds is not null)::integer as timed_runs,
    (usual.seconds is not null)::integer as usual_runs
from states
left join timed on states.partition_date = timed.partition_date
left join usual on states.partition_date = usual.partition_date;
comment on view reports.dates is
'One row per date that ran or was to run: its state, and if that is not done, the sentence that says why; its rows; when its last run began (UTC), how many seconds it took, and the median of those of up to eight dates before it.';

create view reports.files as
select
    partition_date as day,
    dataset,
    bronze_rows as received,
    accepted,
    rejected
from ops.standing;
comment on view reports.files is
'One row per date and dataset: what became of the rows of its file, by the silver run that stands.';

create view reports.freshness as
select
    dataset,
    newest as newest_date,
    dates,
    missing_dates,
    next_due,
    case when overdue then 'late' else 'in time' end as state
from ops.freshness;
comment on view reports.freshness is
'One row per dataset: the newest date that came, the dates missing before it, and when the next is due (UTC).';

create view reports.patients as
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
group by city, gender, age_group, number_of_visits;
comment on view reports.patients is
'One row per city, gender, age group and number of visits: the patients of whom all that holds.';

create view reports.reasons as
select
    standing.partition_date as day,
    standing.dataset,
    reasons.reason,
    reasons.hits as rejected
from ops.standing
inner join ops.reasons on standing.run_id = reasons.run_id
where reasons.hits > 0;
comment on view reports.reasons is
'One row per date, dataset and reason: the rows of its file that are rejected with that reason.';

create view reports.runs as
select
    layer,
    dataset,
    partition_date,
    accepted,
    rejected,
    inserted,
    updated,
    removed,
    log,
    case when outcome = 'running' and not ops.is_locked('run ' || run_id) then 'died' else outcome end as outcome,
    date_trunc('second', started_at at time zone 'UTC') as started,
    round(extract(epoch from (ended_at - started_at))::numeric, 1) as seconds,
    coalesce(bronze_rows, staged) as rows_read
from ops.ledger;
comment on view reports.runs is
'One row per run, layer, dataset and date that the ledger holds; when it began, in UTC. A run that says it is running and has no process any more has died. Its log is a file under logs/runs of STACK_DIR; jobs started by hand have none.';

create view reports.treatments as
select
    visits.visit_start_ts::date as day,
    visits.department,
    coalesce(treatments.treatment_name, treatments.treatment_code) as treatment,
    count(*) as treatments,
    sum(treatments.treatment_cost)::numeric(18, 2) as revenue
from treatments
inner join visits on treatments.visit_id = visits.visit_id
group by
    visits.visit_start_ts::date, visits.department, coalesce(treatments.treatment_name, treatments.treatment_code);
comment on view reports.treatments is
'One row per day (UTC) on which visits started, department and treatment: how often it was given then, and its cost.';

create view reports.unfinished as
select
    day as partition_date,
    state,
    sentence,
    log,
    1 as dates
from reports.dates
where state <> 'done';
comment on view reports.unfinished is
'One row per date that is not done, whichever period is looked at: its state, the sentence that says why, and the file under logs/runs of STACK_DIR that has the output of its last run.';

create view reports.withheld as
select
    mart_trust.stat_date as day,
    mart_trust.department,
    by_dataset.dataset,
    by_reason.reason,
    (by_reason.counted ->> 'rows')::bigint as withheld_rows,
    coalesce((by_reason.counted ->> 'amount')::numeric(18, 2), 0) as amount
from ops.mart_trust
cross join jsonb_each(mart_trust.withheld_by_reason) as by_dataset (dataset, reasons)
cross join jsonb_each(by_dataset.reasons) as by_reason (reason, counted)
where mart_trust.department <> '*';
comment on view reports.withheld is
'One row per day (UTC), department, dataset and reason: the rejected rows that no other version stands for, and their money. A row with two reasons stands under both.';

-- What readers see: gold, the marts, the reports, and of ops what names no patient; dashboards see the last two alone.
-- Applied last and each time, so that a new table of the catalog is covered, and one taken off this list withdrawn.
grant usage on schema public to healthcare_read;
grant usage on schema ops, reports to healthcare_read, healthcare_dashboards;
grant select on all tables in schema public to healthcare_read;
grant select on all tables in schema reports to healthcare_read, healthcare_dashboards;
revoke all on all tables in schema ops from healthcare_read, healthcare_dashboards;
grant select on
ops.ledger, ops.reasons, ops.receipts, ops.rules, ops.datasets, ops.mart_trust,
ops.standing, ops.tripped, ops.dates, ops.never_ran, ops.orphans, ops.freshness, ops.newest,
ops.run_times, ops.unaccounted
to healthcare_read, healthcare_dashboards;

-- Whoever reads gold or a mart, other than the loader, is told of in the server's log: when, who, which table. Row
-- level security asks this once per query and table, shows every row, and takes no text of the query to the log. Nor
-- does who calls it by hand: it takes a table, and no text.
create or replace function ops.log_read(gold regclass) returns boolean language plpgsql parallel safe as $$
begin
    raise log 'audit: % reads %', session_user, gold;
    return true;
end
$$;
comment on function ops.log_read is 'Notes in the server''s log that the session''s user reads a table; always true.';

do $$
declare
    name regclass;
begin
    for name in
        select oid from pg_class
        where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relrowsecurity
    loop
        execute format('create policy is_logged on %s using ((select ops.log_read(%L)))', name, name);
        execute format('alter table %s enable row level security', name);
    end loop;
end
$$;
