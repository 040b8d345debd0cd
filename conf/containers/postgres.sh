#!/bin/sh
# Run once by PostgreSQL's image, before the server listens to anybody: sql/init.sql, then the names and passwords that
# .env has, and Metabase's own database. Afterwards the superuser has no password, so nobody can log in as it but from
# inside the container.
set -eu
as_superuser() { psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username postgres --dbname postgres "$@"; }

as_superuser --file /sql/init.sql
as_superuser <<'SQL'
\getenv loader LOADER
\set loader_password `cat /run/secrets/POSTGRES_PASSWORD`
\getenv reader READER
\set reader_password `cat /run/secrets/POSTGRES_READ_PASSWORD`
\getenv dashboards DASHBOARDS
\set dashboards_password `cat /run/secrets/POSTGRES_DASHBOARDS_PASSWORD`
\getenv warehouse WAREHOUSE
\set metabase_password `cat /run/secrets/METABASE_DB_PASSWORD`
-- By way of names that nobody uses: one role may be given the name that the other had.
alter role ecom rename to "the loader";
alter role ecom_read rename to "the reader";
alter role ecom_dashboards rename to "the dashboards";
alter role "the loader" rename to :"loader";
alter role "the reader" rename to :"reader";
alter role "the dashboards" rename to :"dashboards";
alter role :"loader" password :'loader_password';
alter role :"reader" password :'reader_password';
alter role :"dashboards" password :'dashboards_password';
alter database ecomdb rename to "the warehouse";
alter database "the warehouse" rename to :"warehouse";
create role metabase login password :'metabase_password';
create database metabase owner metabase;
revoke all on database metabase, postgres, template1 from public;
alter role postgres password null;
SQL
