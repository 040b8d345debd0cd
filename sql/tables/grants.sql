-- What readers see: gold, the marts, the reports, and of ops what names no patient. Applied last and each time, so that
-- a new table of the catalog is covered, and what is taken off this list is withdrawn.
grant usage on schema public, ops, reports to healthcare_read;
grant select on all tables in schema public, reports to healthcare_read;
revoke all on all tables in schema ops from healthcare_read;
grant select on
ops.ledger, ops.reasons, ops.receipts, ops.rules, ops.datasets, ops.mart_trust,
ops.standing, ops.tripped, ops.dates, ops.never_ran, ops.orphans, ops.freshness, ops.newest,
ops.run_times, ops.unaccounted
to healthcare_read;
