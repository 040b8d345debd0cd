-- Marts of episodes of care, beds, emergencies and appointments.
create table if not exists mart_episode_stays (
    admission_id text primary key,
    patient_id text not null,
    visit_id text not null,
    department text not null,
    room_type text not null,
    admit_ts timestamp not null,
    ended timestamp,
    end_is_assumed boolean not null,
    episode_started timestamp not null,
    is_first boolean not null,
    is_last boolean not null
);
comment on table mart_episode_stays is
'One row per stay in a room (a row of admissions): the episode of care that it belongs to, and when it ended.';
comment on column mart_episode_stays.admission_id is
'Identifier of the stay.';
comment on column mart_episode_stays.patient_id is
'The patient.';
comment on column mart_episode_stays.episode_started is
'Start (UTC) of the episode of care; with patient_id the key of mart_episodes.';
comment on column mart_episode_stays.visit_id is
'The visit that the stay belongs to.';
comment on column mart_episode_stays.department is
'Department of that visit.';
comment on column mart_episode_stays.room_type is
'Kind of room.';
comment on column mart_episode_stays.admit_ts is
'Start of the stay (UTC).';
comment on column mart_episode_stays.ended is
'End of the stay (UTC): its discharge; null while it is open. A stay without a discharge, admitted more than 180 days
before the patient''s next admission, is taken to end at that admission.';
comment on column mart_episode_stays.end_is_assumed is
'Whether the stay lost its discharge, so that its end is assumed.';
comment on column mart_episode_stays.is_first is
'Whether the episode begins with this stay: the earliest admission.';
comment on column mart_episode_stays.is_last is
'Whether the episode ends with this stay: an open one, else the latest end.';

create table if not exists mart_episodes (
    patient_id text not null,
    started timestamp not null,
    ended timestamp,
    first_admission_id text not null,
    last_admission_id text not null,
    first_visit_id text not null,
    last_visit_id text not null,
    first_department text not null,
    last_department text not null,
    first_room_type text not null,
    last_room_type text not null,
    rooms bigint not null,
    stays bigint not null,
    hours numeric(14, 4),
    los_days integer,
    same_day boolean,
    end_is_assumed boolean not null,
    icu_contact boolean not null,
    primary key (patient_id, started)
);
comment on table mart_episodes is
'One row per episode of care: the stays of one patient of which each begins no later than 7 hours after the latest end
of those before it (CIHI: less than 7 hours is a transfer, coded or not). An open stay keeps its episode open.';
comment on column mart_episodes.patient_id is
'The patient.';
comment on column mart_episodes.started is
'First admission (UTC).';
comment on column mart_episodes.ended is
'Latest discharge (UTC); null while a stay is open; assumed where end_is_assumed.';
comment on column mart_episodes.first_admission_id is
'The stay with which the episode begins.';
comment on column mart_episodes.last_admission_id is
'The stay with which the episode ends, an open one first.';
comment on column mart_episodes.first_visit_id is
'Visit of the first stay.';
comment on column mart_episodes.last_visit_id is
'Visit of the last stay.';
comment on column mart_episodes.first_department is
'Department of the first stay: the way in.';
comment on column mart_episodes.last_department is
'Department of the last stay: the way out.';
comment on column mart_episodes.first_room_type is
'Kind of room of the first stay.';
comment on column mart_episodes.last_room_type is
'Kind of room of the last stay.';
comment on column mart_episodes.rooms is
'Kinds of room, each counted once.';
comment on column mart_episodes.stays is
'Stays in a room (rows of admissions).';
comment on column mart_episodes.hours is
'Time from start to end; null while open and where the end is assumed. Unit: hours.';
comment on column mart_episodes.los_days is
'Length of stay: days from the date of the start to the date of the end, at least 1, so that a same-day episode counts
1; null while open and where the end is assumed. Unit: days.';
comment on column mart_episodes.same_day is
'Whether the episode ended on the day on which it started; null while open and where the end is assumed.';
comment on column mart_episodes.end_is_assumed is
'Whether the last stay has no discharge and was admitted more than 180 days before the patient''s next admission. Such
an episode ends at that admission, and is in no length of stay and no readmission (ops.stale_stays).';
comment on column mart_episodes.icu_contact is
'Whether one of the stays was in the ICU; for the length of stay index.';

create table if not exists mart_daily_census (
    census_date date not null,
    room_type text not null,
    admissions bigint not null,
    discharges bigint not null,
    transfers_in bigint not null,
    transfers_out bigint not null,
    midnight_census bigint not null,
    same_day bigint not null,
    patient_days bigint not null,
    beds bigint,
    available_beds bigint,
    occupancy_pct numeric(12, 4),
    primary key (census_date, room_type)
);
comment on table mart_daily_census is
'One row per calendar day (UTC) and room type, and one per day under * for the whole hospital; every day from the first
admission to the newest date in gold. By room type stays in a room count, under * episodes of care, so that a patient
with two rooms counts once there. A day more than 100 years before the newest date counts with the first day of these.';
comment on column mart_daily_census.census_date is
'Calendar day (UTC), which ends at the midnight of the census.';
comment on column mart_daily_census.room_type is
'Kind of room; * for the whole hospital.';
comment on column mart_daily_census.admissions is
'Episodes that started on the day, in the room type of their first stay.';
comment on column mart_daily_census.discharges is
'Episodes that ended on the day, in the room type of their last stay; assumed ends are among them.';
comment on column mart_daily_census.transfers_in is
'Stays that began on the day within an episode; 0 under *.';
comment on column mart_daily_census.transfers_out is
'Stays that ended on the day within an episode; 0 under *.';
comment on column mart_daily_census.midnight_census is
'Present at the midnight (UTC) that ends the day: began before it, and ended at it or later or not at all (NHS KH03). It
is the census of the day before + admissions + transfers in - discharges - transfers out.';
comment on column mart_daily_census.same_day is
'Began and ended on the day, and so are not in the census.';
comment on column mart_daily_census.patient_days is
'Midnight census + same-day stays (AHIMA: inpatient service days). Unit: days.';
comment on column mart_daily_census.beds is
'Beds declared for the day in conf/reference/beds.csv; null where none are. Under * their sum; null where a room type in
use has none.';
comment on column mart_daily_census.available_beds is
'Of these, beds that are not out of service.';
comment on column mart_daily_census.occupancy_pct is
'100 x patient days / available beds (MSF); null without such beds; over 100 where more patients than beds were there.
Of several days: 100 x sum of patient days / sum of available beds. Unit: %.';

create table if not exists mart_stays (
    discharge_month date not null,
    department text not null,
    los_days integer not null,
    discharges bigint not null,
    same_day_discharges bigint not null,
    primary key (discharge_month, department, los_days)
);
comment on table mart_stays is
'One row per month of discharge (UTC), last department and length of stay: episodes of care by whole days, from which
medians and percentiles are counted. Left out: open episodes and those whose end is assumed.';
comment on column mart_stays.discharge_month is
'First day of the month (UTC) in which the episodes ended.';
comment on column mart_stays.department is
'Department of the last stay.';
comment on column mart_stays.los_days is
'Length of stay: days from the date of the start to the date of the end, at least 1. Unit: days.';
comment on column mart_stays.discharges is
'Episodes of this length, those of the same day included.';
comment on column mart_stays.same_day_discharges is
'Of these, episodes that ended on the day on which they started.';

create table if not exists mart_readmissions (
    discharge_month date not null,
    department text not null,
    index_episodes bigint not null,
    followed_up bigint not null,
    readmitted_7d bigint not null,
    readmitted_30d bigint not null,
    primary key (discharge_month, department)
);
comment on table mart_readmissions is
'One row per month of discharge (UTC) and last department: episodes of care that ended, and those followed by another
one of the patient. Rate: readmitted / followed up. All causes: deaths, self-discharges and planned stays cannot be told
apart. Left out: episodes whose end is assumed.';
comment on column mart_readmissions.discharge_month is
'First day of the month (UTC) in which the episodes ended.';
comment on column mart_readmissions.department is
'Department of the last stay.';
comment on column mart_readmissions.index_episodes is
'Episodes that ended; one that is itself a readmission counts as well.';
comment on column mart_readmissions.followed_up is
'Of these, episodes that ended 30 days before the newest date in gold, or earlier: the denominator.';
comment on column mart_readmissions.readmitted_7d is
'Of those followed up, episodes after which the patient was admitted again 0 to 7 days later, by dates; several
admissions count once.';
comment on column mart_readmissions.readmitted_30d is
'The same within 30 days.';

create table if not exists mart_emergency_flow (
    arrival_date date primary key,
    arrivals bigint not null,
    completed bigint not null,
    left_early bigint not null,
    unknown_end bigint not null,
    within_4h bigint not null,
    over_12h bigint not null,
    admitted bigint not null
);
comment on table mart_emergency_flow is
'One row per calendar day (UTC) on which an emergency arrived. Four-hour share: within_4h / (completed - unknown_end).';
comment on column mart_emergency_flow.arrival_date is
'Calendar day (UTC) on which the visits started.';
comment on column mart_emergency_flow.arrivals is
'Visits of type Emergency that started on the day, whatever their status.';
comment on column mart_emergency_flow.completed is
'Of these, visits with status Completed.';
comment on column mart_emergency_flow.left_early is
'Of the arrivals, those with status Cancelled or No-show: a proxy for left without being seen.';
comment on column mart_emergency_flow.unknown_end is
'Of the completed, those without an end, which no time in the department can be told of.';
comment on column mart_emergency_flow.within_4h is
'Of the completed with an end, those of at most 240 minutes from start to end (NHS England).';
comment on column mart_emergency_flow.over_12h is
'Of the completed with an end, those of more than 12 hours from start to end.';
comment on column mart_emergency_flow.admitted is
'Of the arrivals with an end, those whose patient began an episode of care between their start and one hour after their
end (the link of CMS); each counts once.';

create table if not exists mart_emergency_minutes (
    arrival_month date not null,
    minutes bigint not null,
    visits bigint not null,
    primary key (arrival_month, minutes)
);
comment on table mart_emergency_minutes is
'One row per month of arrival (UTC) and step of 10 minutes: completed emergencies by their time from start to end, from
which medians and percentiles are counted. Left out: those without an end.';
comment on column mart_emergency_minutes.arrival_month is
'First day of the month (UTC) in which the visits started.';
comment on column mart_emergency_minutes.minutes is
'Time from start to end: from this up to, not including, 10 more. Unit: minutes.';
comment on column mart_emergency_minutes.visits is
'Completed visits of type Emergency of this length.';

create table if not exists mart_appointments (
    visit_date date not null,
    department text not null,
    booked bigint not null,
    kept bigint not null,
    missed bigint not null,
    cancelled bigint not null,
    primary key (visit_date, department)
);
comment on table mart_appointments is
'One row per calendar day (UTC) and department with outpatient visits that started before the end of the newest date in
gold. Emergencies and inpatients are in no figure. Did-not-attend rate (NHS England): missed / (kept + missed);
cancellation rate: cancelled / booked.';
comment on column mart_appointments.visit_date is
'Calendar day (UTC) on which the visits started, or should have.';
comment on column mart_appointments.department is
'Department of the visit.';
comment on column mart_appointments.booked is
'Visits of type Outpatient, whatever their status.';
comment on column mart_appointments.kept is
'Of these, visits with status Completed.';
comment on column mart_appointments.missed is
'Of these, visits with status No-show.';
comment on column mart_appointments.cancelled is
'Of these, visits with status Cancelled.';

create table if not exists mart_doctor_days (
    visit_date date not null,
    doctor_id text not null,
    department text not null,
    visits bigint not null,
    kept bigint not null,
    missed bigint not null,
    patients bigint not null,
    minutes numeric(14, 4) not null,
    primary key (visit_date, doctor_id, department)
);
comment on table mart_doctor_days is
'One row per calendar day (UTC), doctor and department with visits that started on the day.';
comment on column mart_doctor_days.visit_date is
'Calendar day (UTC) on which the visits started.';
comment on column mart_doctor_days.doctor_id is
'The doctor in charge, up to 100 characters; (none) where it is blank.';
comment on column mart_doctor_days.department is
'Department of the visit.';
comment on column mart_doctor_days.visits is
'Visits of every type, whatever their status.';
comment on column mart_doctor_days.kept is
'Of these, visits with status Completed.';
comment on column mart_doctor_days.missed is
'Of these, visits with status No-show.';
comment on column mart_doctor_days.patients is
'Patients of the visits, each counted once.';
comment on column mart_doctor_days.minutes is
'Length of the union of the visits'' intervals from start to end, so that visits at the same time do not count twice; an
interval counts whole on the day on which it starts. Left out: visits without an end. Unit: minutes.';
