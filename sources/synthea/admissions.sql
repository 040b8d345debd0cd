-- One row per encounter that lasts overnight: in hospital, in skilled nursing or in a hospice. Synthea knows no rooms; of a
-- few encounters it says that they are intensive care, and the others count as the general ward.
select
    Id as admission_id,
    Id as visit_id,
    START as admit_ts,
    STOP as discharge_ts,
    case when lower(DESCRIPTION) like '%intensive care%' then 'ICU' else 'General Ward' end as room_type
from encounters
where ENCOUNTERCLASS in ('inpatient', 'snf', 'hospice')
