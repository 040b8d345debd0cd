-- The loader's schemas in the warehouse. sql/init.sql runs this file. For data made before it `make up` does so before
-- it starts its own server; elsewhere a superuser does, by `psql -d ecomdb -f sql/schemas.sql`.
create schema if not exists ops authorization ecom;
create schema if not exists staging authorization ecom;
create schema if not exists reports authorization ecom;
create schema if not exists reference authorization ecom;
