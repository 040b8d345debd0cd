#!/bin/bash
# A first start makes the cluster and runs /docker-entrypoint-initdb.d on a server that no network reaches; any later one
# only starts the server. As with the official image, a first start that fails is not tried again: the data is there.
set -Eeuo pipefail
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
  user="${POSTGRES_USER:-postgres}"
  database="${POSTGRES_DB:-$user}"
  POSTGRES_PASSWORD="$(< "${POSTGRES_PASSWORD_FILE:?The superuser needs a password.}")"
  chmod 700 "$PGDATA"
  read -ra options <<< "${POSTGRES_INITDB_ARGS:-}"
  initdb --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") "${options[@]}"
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  pg_ctl --pgdata "$PGDATA" --wait --options "$(printf '%q ' "${@:2}") -c listen_addresses=''" start
  [ "$database" = postgres ] || createdb --username "$user" "$database"
  for file in /docker-entrypoint-initdb.d/*; do
    case "$file" in
      *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
      *.sql) psql --set ON_ERROR_STOP=1 --username "$user" --dbname "$database" --file "$file" ;;
    esac
  done
  pg_ctl --pgdata "$PGDATA" --mode fast --wait stop
fi
exec "$@"
