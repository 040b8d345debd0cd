-- The loader's schemas in the warehouse. sql/init.sql runs this file. For data created before this version, `make up`
-- runs it before it starts its own server; elsewhere, a superuser runs `psql -d ecomdb -f sql/schemas.sql`.
create schema if not exists ops authorization ecom;
create schema if not exists staging authorization ecom;
create schema if not exists reports authorization ecom;
create schema if not exists reference authorization ecom;
