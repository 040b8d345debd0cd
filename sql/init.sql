-- The warehouse's roles, database and schemas under their default names, created once by a superuser:
-- psql -f sql/init.sql, then \password for ecom, ecom_read and ecom_dashboards. `make up` sends these statements to its
-- own server, one per line, with the names and passwords from .env.

-- The loader owns its five schemas and nothing else. sql/tables/grants.sql grants the readers' privileges to
-- healthcare_read; the readers' logins are members of that role.
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
