-- The dashboards' roles, and limits for all readers. sql/init.sql runs this file; a superuser may run it again. For
-- data created before this version, `make up` runs it before it starts its own server. Names are the default names.

-- The dashboards' role reads the reports and the ledger, not gold; sql/tables/grants.sql has its privileges.
do $roles$
    begin
        create role healthcare_dashboards;
    exception when duplicate_object then null;
    end
    $roles$;
do $roles$
    begin
        create role ecom_dashboards login;
    exception when duplicate_object then null;
    end
    $roles$;
grant healthcare_dashboards to ecom_dashboards;
grant connect on database ecomdb to healthcare_dashboards;
alter role ecom_dashboards set default_transaction_read_only = on;

-- Limits keep readers from blocking the jobs. A session can change only its statement_timeout.
alter role ecom_read connection limit 20;
alter role ecom_read set statement_timeout = '30min';
alter role ecom_dashboards connection limit 30;
alter role ecom_dashboards set statement_timeout = '10min';
-- This limit needs a superuser, which managed PostgreSQL services do not provide; there, readers have no such limit.
do $roles$
    begin
        alter role ecom_read set temp_file_limit = '10GB';
        alter role ecom_dashboards set temp_file_limit = '5GB';
    exception when insufficient_privilege then null;
    end
    $roles$;
