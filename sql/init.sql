-- The warehouse's role and database under their default names, created once by a superuser, who then gives the role
-- its password (psql: \password ecom). `make up` sends these lines to its own server, with the names that .env has.
create role ecom login;
create database ecomdb owner ecom;
