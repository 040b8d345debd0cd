#!/bin/bash
# backup.sh take|put DIRECTORY: PostgreSQL's databases and the lake of the containers, as `make backup-docker` and
# `make restore-docker` call it. Both belong together, so no run may go on meanwhile: the runner stands still.
set -euo pipefail
verb="${1:-}" directory="${2:-}"
case "$verb" in
  take) example="backup-docker TO" ;;
  put) example="restore-docker FROM" ;;
  *) echo "usage: backup.sh take|put DIRECTORY" >&2; exit 2 ;;
esac
[ -n "$directory" ] || { echo "Say which directory, as in: make $example=backups/2026-01-31" >&2; exit 2; }
compose() { ${COMPOSE:-docker compose} "$@"; }
# In the lake's volume, as the user whom it belongs to.
in_lake() { compose run --rm -T --no-deps --user 10001 --entrypoint "$1" minio-volume "${@:2}"; }
in_postgres() { compose exec -T postgres "$@"; }
still=(runner minio)
again() { compose start "${still[@]}"; }

umask 077
if [ "$verb" = take ]; then
  mkdir -p "$directory"
  [ -z "$(ls -A "$directory")" ] || { echo "$directory is not empty: name a new one." >&2; exit 1; }
  trap again EXIT
  compose stop "${still[@]}"
  # $WAREHOUSE is the container's own.
  in_postgres sh -c 'exec pg_dump -U postgres -Fc "$WAREHOUSE"' > "$directory/warehouse.dump"
  in_postgres pg_dump -U postgres -Fc metabase > "$directory/metabase.dump"
  in_lake tar -C /data -cf - . > "$directory/lake.tar"
  (cd "$directory" && sha256sum warehouse.dump metabase.dump lake.tar > checksums)
  echo "$directory holds PostgreSQL and the lake."
else
  (cd "$directory" && sha256sum --quiet --check checksums) ||
    { echo "$directory is no whole backup: nothing was put back." >&2; exit 1; }
  # The resident application knows the tables' later versions, and would go on from those; Metabase writes to its own.
  still=(spark-connect "${still[@]}")
  if [ -n "$(compose ps --all --quiet metabase 2>/dev/null)" ]; then still+=(metabase); fi
  trap '[ $? = 0 ] || echo "Not all was put back: give the same command again before anything runs." >&2' EXIT
  compose stop "${still[@]}"
  for database in warehouse metabase; do
    # Made anew, so that nothing stays of what a later version has added.
    in_postgres pg_restore -U postgres -d postgres --create --clean --if-exists --exit-on-error \
      < "$directory/$database.dump"
  done
  # Restored tables have no statistics, and the next load does not wait for some.
  in_postgres vacuumdb -U postgres --all --analyze-only --quiet
  in_lake find /data -mindepth 1 -delete
  in_lake tar -C /data -xf - < "$directory/lake.tar"
  again
  echo "PostgreSQL and the lake are what $directory has."
fi
