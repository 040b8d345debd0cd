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
-- These stays are named by their keys, as in gold.
grant select on ops.stale_stays to healthcare_read;
grant usage on schema reference to healthcare_read;
grant select on all tables in schema reference to healthcare_read;

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
