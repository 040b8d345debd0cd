#!/bin/bash
# backup.sh take|put DIRECTORY: PostgreSQL's roles and databases and the lake of the containers, as `make backup-docker`
# and `make restore-docker` call it. Both belong together, so no run may go on meanwhile: the runner stands still.
set -euo pipefail
verb="${1:-}" directory="${2:-}"
case "$verb" in
  take) example="backup-docker TO" ;;
  put) example="restore-docker FROM" ;;
  *) echo "usage: backup.sh take|put DIRECTORY" >&2; exit 2 ;;
esac
[ -n "$directory" ] || { echo "Say which directory, as in: make $example=backups/2026-01-31" >&2; exit 2; }
# In words as make's recipes have it: one may be quoted for the blanks in it.
eval "command=(${COMPOSE:-docker compose})"
compose() { "${command[@]}" "$@"; }
# In the lake's volume, as the user whom it belongs to.
in_lake() { compose run --rm -T --no-deps --user 10001 --entrypoint "$1" minio-volume "${@:2}"; }
in_postgres() { compose exec -T postgres "$@"; }
still=(runner minio)
again() { compose start "${still[@]}"; }

# A backup is encrypted by age where BACKUP_RECIPIENT, in the environment or in .env, has public keys.
read -ra keys <<< "${BACKUP_RECIPIENT:-$(sed -n "s/^BACKUP_RECIPIENT=//p" .env 2>/dev/null | tail -n 1 | tr -d "\"'")}"
has_age() { command -v age >/dev/null || { echo "Encrypted backups need the program age: install it." >&2; exit 1; }; }
write() { if [ ${#keys[@]} = 0 ]; then cat > "$directory/$1"; else age "${keys[@]/#/--recipient=}" > "$directory/$1.age"; fi; }
read_back() {
  if [ -f "$directory/$1.age" ]; then age --decrypt --identity "$BACKUP_IDENTITY" "$directory/$1.age"
  else cat "$directory/$1"; fi
}

umask 077
if [ "$verb" = take ]; then
  if [ ${#keys[@]} != 0 ]; then
    has_age
    age "${keys[@]/#/--recipient=}" < /dev/null > /dev/null 2>&1 ||
      { echo "BACKUP_RECIPIENT is not a public key of age; write the line age1… that age-keygen prints." >&2; exit 1; }
  fi
  mkdir -p "$directory"
  [ -z "$(ls -A "$directory")" ] || { echo "$directory is not empty: name a new one." >&2; exit 1; }
  trap again EXIT
  compose stop "${still[@]}"
  in_postgres pg_dumpall -U postgres --globals-only --no-role-passwords | write globals.sql
  # $WAREHOUSE is the container's own.
  in_postgres sh -c 'exec pg_dump -U postgres -Fc "$WAREHOUSE"' | write warehouse.dump
  in_postgres pg_dump -U postgres -Fc metabase | write metabase.dump
  in_lake tar -C /data -cf - . | write lake.tar
  (cd "$directory" && sha256sum -- * > ../checksums.$$ && mv ../checksums.$$ checksums)
  echo "$directory holds PostgreSQL and the lake."
else
  (cd "$directory" && sha256sum --quiet --check checksums) ||
    { echo "$directory is not a whole backup: nothing was put back." >&2; exit 1; }
  if [ -f "$directory/lake.tar.age" ]; then
    has_age
    [ -r "${BACKUP_IDENTITY:-}" ] ||
      { echo "$directory is encrypted; name the file of its private key: BACKUP_IDENTITY=/path/to/key.txt" >&2; exit 1; }
    read_back warehouse.dump > /dev/null ||
      { echo "age does not decrypt $directory with that key: nothing was put back." >&2; exit 1; }
  fi
  # The Spark Connect server would go on from the tables' later versions; Metabase writes to its own database.
  still=(spark-connect "${still[@]}")
  if [ -n "$(compose ps --all --quiet metabase 2>/dev/null)" ]; then still+=(metabase); fi
  trap '[ $? = 0 ] || echo "Not all was put back: give the same command again before anything runs." >&2' EXIT
  compose stop "${still[@]}"
  # Roles keep the passwords they have; a role that already exists (42710) is not a failure. Older backups have no roles.
  if [ -f "$directory/globals.sql" ] || [ -f "$directory/globals.sql.age" ]; then
    refused=$(read_back globals.sql | in_postgres psql -U postgres -d postgres -qXv VERBOSITY=sqlstate 2>&1 > /dev/null |
      grep -E "ERROR|FATAL" | grep -v 42710 || true)
    [ -z "$refused" ] || { echo "PostgreSQL refused a role of the backup: ${refused##* }" >&2; exit 1; }
  fi
  for database in warehouse metabase; do
    # Made anew, so that nothing stays of what a later version has added.
    read_back "$database.dump" |
      in_postgres pg_restore -U postgres -d postgres --create --clean --if-exists --exit-on-error
  done
  # Restored tables have no statistics, and the next load does not wait for some.
  in_postgres vacuumdb -U postgres --all --analyze-only --quiet
  in_lake find /data -mindepth 1 -delete
  read_back lake.tar | in_lake tar -C /data -xf -
  again
  echo "PostgreSQL and the lake are what $directory has."
fi
