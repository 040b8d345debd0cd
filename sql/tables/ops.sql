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
