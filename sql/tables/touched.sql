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
