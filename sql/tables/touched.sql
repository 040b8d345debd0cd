-- The days and patients that changes of gold touch, so that jobs/marts.py rebuilds only their rows of the marts.

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
