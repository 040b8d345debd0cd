-- One row per day (UTC): what was owing at the midnight that ends it.
select
    day,
    billed,
    paid,
    balance,
    1 as days
from mart_receivables
