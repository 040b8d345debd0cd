-- One row per day (UTC): the amounts billed and paid, and the balance owed at the midnight that ends the day.
select
    day,
    billed,
    paid,
    balance,
    1 as days
from mart_receivables
