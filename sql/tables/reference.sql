-- Reference data that the hospital declares in conf/reference.
create table if not exists reference.beds (
    room_type text not null,
    beds integer not null,
    out_of_service integer not null,
    valid_from date not null,
    valid_to date,
    primary key (room_type, valid_from)
);
comment on table reference.beds is
'One row per room type and period: the beds that there are. Loaded from conf/reference/beds.csv by each build of the
marts.';
comment on column reference.beds.room_type is
'Kind of room.';
comment on column reference.beds.beds is
'Beds set up.';
comment on column reference.beds.out_of_service is
'Of these, beds that cannot be used.';
comment on column reference.beds.valid_from is
'First day of the period.';
comment on column reference.beds.valid_to is
'Last day of the period; null while it lasts.';
