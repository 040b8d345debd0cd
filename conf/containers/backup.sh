#!/bin/bash
# backup.sh take|put DIRECTORY: PostgreSQL's databases and the lake of the containers, as `make backup-docker` and
# `make restore-docker` call it. Both belong together, so no run may go on meanwhile: the runner stands still.
set -euo pipefail
verb="${1:-}" directory="${2:-}"
case "$verb" in take | put) ;; *) echo "usage: backup.sh take|put DIRECTORY" >&2; exit 2 ;; esac
[ -n "$directory" ] || { echo "Say which directory, as in: make backup-docker TO=backups/2026-01-31" >&2; exit 2; }
compose() { ${COMPOSE:-docker compose} "$@"; }
# In the lake's volume, as the user whom it belongs to.
in_lake() { compose run --rm -T --no-deps --user 10001 --entrypoint "$1" minio-volume "${@:2}"; }
# $WAREHOUSE is the container's own.
in_postgres() { compose exec -T postgres sh -c "$1"; }
again() { compose start minio runner; }

umask 077
if [ "$verb" = take ]; then
  mkdir -p "$directory"
  [ -z "$(ls -A "$directory")" ] || { echo "$directory is not empty: name a new one." >&2; exit 1; }
  trap again EXIT
  compose stop runner minio
  in_postgres 'exec pg_dump -U postgres -Fc "$WAREHOUSE"' > "$directory/warehouse.dump"
  in_postgres 'exec pg_dump -U postgres -Fc metabase' > "$directory/metabase.dump"
  in_lake tar -C /data -cf - . > "$directory/lake.tar"
  (cd "$directory" && sha256sum warehouse.dump metabase.dump lake.tar > checksums)
else
  (cd "$directory" && sha256sum --quiet --check checksums) ||
    { echo "$directory is no whole backup: nothing was put back." >&2; exit 1; }
  trap again EXIT
  compose stop runner minio
  for database in warehouse metabase; do
    name='"$WAREHOUSE"'; [ "$database" = warehouse ] || name=metabase
    in_postgres "exec pg_restore -U postgres -d $name --clean --if-exists --single-transaction" \
      < "$directory/$database.dump"
  done
  in_lake find /data -mindepth 1 -delete
  in_lake tar -C /data -xf - < "$directory/lake.tar"
fi
