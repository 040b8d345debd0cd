-- Marts of amounts billed, paid and owed.
create table if not exists mart_bill_days (
    visit_date date not null,
    end_date date not null,
    payment_status text not null,
    paid_on date not null,
    bills bigint not null,
    billed numeric(18, 2) not null,
    insurer_part numeric(18, 2) not null,
    patient_part numeric(18, 2) not null,
    primary key (visit_date, end_date, payment_status, paid_on)
);
comment on table mart_bill_days is
'One row per day on which visits started, day on which they ended, status of their bills and day of payment (all UTC):
what the receivables are added up from. A bill is open at the midnight that ends a day if visit_date is that day or
earlier and paid_on is later.';
comment on column mart_bill_days.visit_date is
'Calendar day (UTC) on which the visits started.';
comment on column mart_bill_days.end_date is
'Calendar day (UTC) on which they ended; that of the start where they have no end.';
comment on column mart_bill_days.payment_status is
'Status of the bills.';
comment on column mart_bill_days.paid_on is
'Calendar day (UTC) of the payment of paid bills, the visit''s day where they were paid before; 9999-12-31 for bills
that are not Paid or have no payment time.';
comment on column mart_bill_days.bills is
'Bills.';
comment on column mart_bill_days.billed is
'Sum of total_amount. Unit: currency of the installation.';
comment on column mart_bill_days.insurer_part is
'What falls to insurers of bills that were not paid by the date of their file: each bill''s total split in the ratio of
insurance_amount to patient_amount. Unit: currency of the installation.';
comment on column mart_bill_days.patient_part is
'What of the same bills falls to patients. A bill with neither amount is in neither part. Unit: currency of the
installation.';

create table if not exists mart_receivables (
    day date primary key,
    billed numeric(18, 2) not null,
    paid numeric(18, 2) not null,
    balance numeric(18, 2) not null
);
comment on table mart_receivables is
'One row per calendar day (UTC) from the first billed visit to the newest date in gold: what was billed, paid and owed.
Gross: the data have no adjustments. Gross days in receivables: balance / (billed in the 90 days before / 90). A day
more than 100 years before the newest date counts with the first day of these.';
comment on column mart_receivables.day is
'Calendar day (UTC).';
comment on column mart_receivables.billed is
'Sum of total_amount over the bills of visits that started on the day. Unit: currency of the installation.';
comment on column mart_receivables.paid is
'Sum of total_amount over the bills with status Paid that were paid on the day; a payment before the visit counts on the
visit''s day. Unit: currency of the installation.';
comment on column mart_receivables.balance is
'Owed at the midnight (UTC) that ends the day: the balance of the day before + billed - paid. A bill counts whole until
it is Paid, so that partial payments make this an upper bound. Unit: currency of the installation.';

create table if not exists mart_receivables_ageing (
    bucket text primary key,
    bucket_order integer not null,
    days_from integer,
    days_to integer,
    bills bigint not null,
    balance numeric(18, 2) not null,
    partial_balance numeric(18, 2) not null,
    insurer_balance numeric(18, 2) not null,
    patient_balance numeric(18, 2) not null
);
comment on table mart_receivables_ageing is
'One row per bucket of age: bills that are open at the midnight (UTC) that ends the newest date in gold, by the days
from the end of their visit (its start where it has none) to that date. AR-1 (HFMA): share of the balance over 90
days.';
comment on column mart_receivables_ageing.bucket is
'not yet due (the visit ends later), 0–30, 31–60, 61–90, 91–120, over 120. Unit: days.';
comment on column mart_receivables_ageing.bucket_order is
'Place of the bucket, 1 the youngest.';
comment on column mart_receivables_ageing.days_from is
'Least age of the bucket; null for the first. Unit: days.';
comment on column mart_receivables_ageing.days_to is
'Greatest age of the bucket; null for the last. Unit: days.';
comment on column mart_receivables_ageing.bills is
'Open bills.';
comment on column mart_receivables_ageing.balance is
'Sum of total_amount over the open bills; over all buckets it is the balance of mart_receivables. Unit: currency of the
installation.';
comment on column mart_receivables_ageing.partial_balance is
'Of it, bills with status Partial, which count whole: an upper bound. Unit: currency of the installation.';
comment on column mart_receivables_ageing.insurer_balance is
'Of the balance, what falls to insurers, in the ratio of the bills'' amounts. Unit: currency of the installation.';
comment on column mart_receivables_ageing.patient_balance is
'Of the balance, what falls to patients; bills with neither amount are in neither. Unit: currency of the installation.';

create table if not exists mart_collections (
    visit_month date primary key,
    billed numeric(18, 2) not null,
    paid_30d numeric(18, 2),
    paid_60d numeric(18, 2),
    paid_90d numeric(18, 2)
);
comment on table mart_collections is
'One row per month (UTC) in which visits started, up to the newest date in gold: what was billed for them, and paid
within so many days of the visit. Collection rate: paid / billed of the same month.';
comment on column mart_collections.visit_month is
'First day of the month (UTC) in which the visits started.';
comment on column mart_collections.billed is
'Sum of total_amount over the bills of the month''s visits. Unit: currency of the installation.';
comment on column mart_collections.paid_30d is
'Of it, bills paid up to 30 days after the visit''s start, by dates; null until every visit of the month is that old.
Unit: currency of the installation.';
comment on column mart_collections.paid_60d is
'The same for 60 days. Unit: currency of the installation.';
comment on column mart_collections.paid_90d is
'The same for 90 days. Unit: currency of the installation.';

create table if not exists mart_payment_days (
    visit_month date not null,
    days integer not null,
    bills bigint not null,
    amount numeric(18, 2) not null,
    primary key (visit_month, days)
);
comment on table mart_payment_days is
'One row per month (UTC) in which visits started and number of days until their bills were paid, from which medians and
percentiles are counted. Left out: bills that are open at the newest date in gold.';
comment on column mart_payment_days.visit_month is
'First day of the month (UTC) in which the visits started.';
comment on column mart_payment_days.days is
'Days from the visit''s start to the payment, by dates; 0 where it was paid before. Unit: days.';
comment on column mart_payment_days.bills is
'Bills paid.';
comment on column mart_payment_days.amount is
'Sum of total_amount over these bills. Unit: currency of the installation.';
