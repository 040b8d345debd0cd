-- Every row that was rejected from a file behind gold is in ops.withheld.
with

rejected as (
    select
        gold.dataset,
        gold.partition_date,
        ledger.rejected
    from ops.receipts as gold
    inner join ops.ledger
        on
            gold.made_from = ledger.run_id
            and gold.dataset = ledger.dataset
            and gold.partition_date = ledger.partition_date
            and ledger.layer = 'silver'
    where gold.layer = 'gold'
),

withheld as (
    select
        dataset,
        _partition_date as partition_date,
        count(*) as withheld
    from ops.withheld
    group by dataset, _partition_date
)

select
    rejected.rejected,
    withheld.withheld,
    coalesce(rejected.dataset, withheld.dataset) as dataset,
    coalesce(rejected.partition_date, withheld.partition_date) as partition_date
from rejected
full join withheld
    on rejected.dataset = withheld.dataset and rejected.partition_date = withheld.partition_date
where coalesce(rejected.rejected, 0) <> coalesce(withheld.withheld, 0)
