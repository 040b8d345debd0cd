-- The audit tables: which runs there were, and what is current.

-- Sequence numbers order runs and markers. Clocks do not decide anything: times are only for people.
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
    differing bigint,
    since_run text,
    primary key (run_id, layer, dataset, partition_date)
);
alter table ops.ledger add column if not exists turn bigint not null default nextval('ops.turns');
alter table ops.ledger add column if not exists checksums text;
alter table ops.ledger add column if not exists asked_by text;
alter table ops.ledger add column if not exists log text;
alter table ops.ledger add column if not exists differing bigint;
alter table ops.ledger add column if not exists since_run text;

create index if not exists ledger_by_partition on ops.ledger (layer, dataset, partition_date);

-- PostgreSQL releases an advisory lock when its holder's connection ends, so a lock shows that its holder is alive.
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
comment on column ops.ledger.differing is 'Keys that came in versions of different content, of which one is accepted.';
comment on column ops.ledger.since_run is
'The silver run whose rows still stand but for the records concerned by parents that came or went; null for a run that
validated the whole partition.';
comment on column ops.ledger.delta_accepted is
'The version of the Delta table of accepted rows that this run wrote, or found as it would have written it.';
comment on column ops.ledger.amount_change is 'By how much this load changed the sum over the gold table.';
comment on column ops.ledger.checksums is
'Counts and checksums of what gold held of the partition after this load.';
comment on column ops.ledger.overridden is 'The stop levels that somebody let pass.';
comment on column ops.ledger.turn is 'Counts up: when the run began.';
comment on column ops.ledger.asked_by is
'The operating system''s name of who asked for a date to be forgotten, or let stop levels pass.';

-- The catalog declares the content of both tables, so they are recreated each time and their columns may change.
drop table if exists ops.datasets, ops.rules;
create table ops.datasets (
    dataset text primary key,
    key_column text not null,
    amount_column text,
    orphan_days integer not null,
    due_hours integer not null,
    since date not null,
    of_visits boolean not null
);
comment on table ops.datasets is
'One row per dataset, as the catalog declares it: amount_column is its money, dates before since need no file of it, and
of_visits tells whether its rows belong to visits, by whatever references, and so to a department.';

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

create table if not exists ops.applied (
    ddl_sha256 text not null
);
comment on table ops.applied is
'One row: the SHA-256 of the DDL that was applied last (jobs/schema.py).';

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
    stale_lost boolean,
    sums numeric[],
    primary key (layer, dataset, partition_date)
);
alter table ops.receipts add column if not exists turn bigint not null default nextval('ops.turns');
alter table ops.receipts add column if not exists stale_turn bigint;
alter table ops.receipts add column if not exists stale_lost boolean;
alter table ops.receipts add column if not exists sums numeric[];
-- Partitions that an earlier version marked stale stay stale.
update ops.receipts set stale_turn = nextval('ops.turns')
where stale_since is not null and stale_turn is null;

comment on table ops.receipts is
'One row per layer, dataset and partition: the current run, and the input it was made from.';
comment on column ops.receipts.sums is
'What gold should hold of the partition: rows and the sum of their hashes, in its table and in ops.withheld. Each load
brings forward those of all partitions whose rows it changes, so that other numbers show a change by hand. Null if the
next load must be one of all rows.';
comment on column ops.receipts.stale_lost is
'Of a partition marked stale: false if orphans have found parents, and no row may have lost its own.';
comment on column ops.receipts.turn is 'Counts up: when the run was settled; stale_turn, when it was marked stale.';

create table if not exists ops.source_files (
    run_id text not null,
    source_name text not null,
    partition_date date not null,
    file_name text not null,
    sha256 text not null,
    bytes bigint not null,
    records bigint,
    datasets text not null,
    primary key (run_id, file_name)
);
alter table ops.source_files add column if not exists header text[];

comment on table ops.source_files is
'One row per run over a date that comes by a source, and file of that source: its checksum, bytes and records, and the
datasets that are made of it; none where the declaration names no such file, whose records nobody has counted then.';
comment on column ops.source_files.header is 'The names of its columns, by which a change since the last date is told.';

create table if not exists ops.source_rows (
    run_id text not null,
    source_name text not null,
    partition_date date not null,
    dataset text not null,
    records bigint not null,
    rows_made bigint not null,
    left_out bigint not null,
    doubled_times bigint not null,
    primary key (run_id, dataset)
);
comment on table ops.source_rows is
'One row per run over a date that comes by a source, and dataset: the records read, the rows made of them, and how many
records of the first table the SQL has left out. Where columns are mapped, each record is a row.';
comment on column ops.source_rows.doubled_times is
'Local times that came twice, as the clock was put back: they are taken as the first.';

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

create table if not exists ops.gone_keys (
    dataset text not null,
    _partition_date date not null,
    run_id text not null,
    row_key text not null
);
create index if not exists gone_keys_by_partition on ops.gone_keys (dataset, _partition_date);

comment on table ops.gone_keys is
'One row per key that a silver run found in no record of a corrected file, where it validated only the records that
differ. The next load of the partition deletes the key from gold, and its rows here.';

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
'One row per day and department; the department * stands for the whole hospital. Counts the rows and the revenue in
gold, and those that were rejected and have no other version in gold.';
comment on column ops.mart_trust.stat_date is
'Calendar day (UTC) on which the visit started; of admissions under * the day on which they began.';
comment on column ops.mart_trust.department is
'Department of the visit; (unknown) where it cannot be read; * for the whole hospital.';
comment on column ops.mart_trust.visits is
'Visits in gold.';
comment on column ops.mart_trust.visits_withheld is
'Rejected visits that have no other version in gold.';
comment on column ops.mart_trust.admissions is
'Admissions in gold.';
comment on column ops.mart_trust.admissions_withheld is
'Rejected admissions that have no other version in gold.';
comment on column ops.mart_trust.bills is
'Bills in gold.';
comment on column ops.mart_trust.bills_withheld is
'Rejected bills that have no other version in gold.';
comment on column ops.mart_trust.revenue is
'Sum of total_amount over the bills in gold. Unit: currency of the installation.';
comment on column ops.mart_trust.revenue_withheld is
'Sum of total_amount over the withheld bills whose amount can be relied on. Unit: currency of the installation.';
comment on column ops.mart_trust.visits_complete_pct is
'100 x visits / (visits + withheld visits). Unit: %.';
comment on column ops.mart_trust.admissions_complete_pct is
'The same for admissions. Unit: %.';
comment on column ops.mart_trust.bills_complete_pct is
'The same for bills. Unit: %.';
comment on column ops.mart_trust.revenue_complete_pct is
'The same for revenue. Unit: %.';
comment on column ops.mart_trust.patients is
'Patients registered on the day, in gold; of the whole hospital only.';
comment on column ops.mart_trust.patients_withheld is
'Rejected patients that have no other version in gold; of the whole hospital only.';
comment on column ops.mart_trust.patients_complete_pct is
'100 x patients / (patients + withheld patients); of the whole hospital only. Unit: %.';
comment on column ops.mart_trust.revenue_unknown is 'Withheld bills whose amount cannot be read or is below zero.';
comment on column ops.mart_trust.withheld_by_reason is
'{dataset: {reason: {"rows": n, "amount": x}}}; a row with two reasons stands under both.';
