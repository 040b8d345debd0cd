-- Readers may read gold, the marts, the reports, and the tables of ops that name no patient; dashboards may read only
-- the last two. Applied last and each time, so that new tables of the catalog are covered, and privileges on tables
-- removed from this list are revoked.
grant usage on schema public to healthcare_read;
grant usage on schema ops, reports to healthcare_read, healthcare_dashboards;
grant select on all tables in schema public to healthcare_read;
grant select on all tables in schema reports to healthcare_read, healthcare_dashboards;
revoke all on all tables in schema ops from healthcare_read, healthcare_dashboards;
grant select on
ops.ledger, ops.reasons, ops.receipts, ops.rules, ops.datasets, ops.mart_trust,
ops.standing, ops.tripped, ops.dates, ops.never_ran, ops.orphans, ops.freshness, ops.newest,
ops.run_times, ops.unaccounted, ops.as_of
to healthcare_read, healthcare_dashboards;
-- This view names stays by their keys, as gold does, so dashboards may not read it.
grant select on ops.stale_stays to healthcare_read;
grant usage on schema reference to healthcare_read;
grant select on all tables in schema reference to healthcare_read;

-- Writes to the server's log who, other than the loader, reads gold or a mart: time, user, table. Row level security
-- calls the function once per query and table and shows every row. The text of the query does not reach the log, not
-- even if somebody calls the function directly: it takes a table, not a text.
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
