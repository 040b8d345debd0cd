#!/bin/sh
# PostgreSQL as its image starts it, with WAL archiving where WAL_ARCHIVE is set: each segment is copied whole, and under its
# own name only once it is on disk.
set -eu
if [ -n "${WAL_ARCHIVE:-}" ]; then
  to=/var/lib/postgresql/wal
  set -- "$@" -cwal_level=replica -carchive_mode=on -carchive_timeout=15min \
    "-carchive_command=test ! -f $to/%f && cp %p $to/%f.part && sync $to/%f.part && mv $to/%f.part $to/%f"
fi
exec docker-entrypoint.sh "$@"
