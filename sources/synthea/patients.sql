-- One row per patient. One without an encounter in the export is registered on the day of the first encounter of all.
with

first_encounters as (
    select PATIENT, min(START) as started
    from encounters
    group by PATIENT
),

export as (
    select min(START) as started from encounters
)

select
    patients.Id as patient_id,
    patients.GENDER as gender,
    patients.BIRTHDATE as birth_date,
    patients.CITY as city,
    substring(coalesce(first_encounters.started, greatest(export.started, patients.BIRTHDATE)), 1, 10)
        as registration_date
from patients
cross join export
left join first_encounters on patients.Id = first_encounters.PATIENT
