-- One row per day (UTC): emergencies that arrived; of those completed with a known end, how many took up to four hours.
select
    arrival_date as day,
    arrivals,
    left_early,
    unknown_end,
    within_4h,
    over_12h,
    admitted,
    completed - unknown_end as timed
from mart_emergency_flow
