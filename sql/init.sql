-- The warehouse's role and database, created once by a superuser. By hand: psql -f sql/init.sql, which takes the POSTGRES_*
-- settings from the environment; `make up` sends the same statements to a server of its own. One statement per line.
\getenv user POSTGRES_USER
\getenv password POSTGRES_PASSWORD
\getenv database POSTGRES_DB
create role :"user" login password :'password';
create database :"database" owner :"user";
