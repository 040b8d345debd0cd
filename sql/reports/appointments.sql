-- One row per day (UTC) and department: outpatient visits booked, kept, missed and cancelled.
select
    visit_date as day,
    department,
    booked,
    kept,
    missed,
    cancelled,
    kept + missed as due,
    to_char(visit_date, 'ID Dy') as day_of_week
from mart_appointments
