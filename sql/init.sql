-- The warehouse's roles, database and schemas under their default names, created once by a superuser:
-- psql -f sql/init.sql, then \password for ecom, ecom_read and ecom_dashboards. `make up` sends these lines to its own
-- server, a statement a line, with the names and passwords that .env has.

-- The loader owns its five schemas and nothing else. What readers may do is granted to healthcare_read, by
-- sql/tables/grants.sql; their logins are members of it.
create role ecom login;
create role healthcare_read;
create role ecom_read login in role healthcare_read;
alter role ecom_read set default_transaction_read_only = on;

create database ecomdb;
revoke all on database ecomdb from public;
grant connect, temporary on database ecomdb to ecom;
grant connect on database ecomdb to healthcare_read;
\ir roles.sql

\connect ecomdb
revoke all on schema public from public;
alter schema public owner to ecom;
\ir schemas.sql
