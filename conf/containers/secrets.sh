#!/bin/bash
# Writes each secret that docker-compose.yml names into a file of its own, from the environment or .env, as make does before
# it starts containers. The directory is closed to all but its owner; the files in it are not, for a container reads one as
# the user that it runs as.
set -euo pipefail
umask 077
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
directory="${SECRETS_DIR:-$root/.secrets}"
env_file="$root/.env"
given() { grep -E "^(export +)?$1=" "$env_file" | tail -n 1 | sed -E 's/^(export +)?[A-Z_]+=//; s/\r$//'; }

value_of() {
  local name="$1" text
  if [ -n "${!name+set}" ]; then
    printf %s "${!name}"
    return
  fi
  text="$(given "$name" || true)"
  case "$text" in
    "'"*"'") text="${text:1:-1}" ;;
    *[\\\$\"\'\`]*)
      echo "$name in .env holds a quote, a \\ or a \$: put it between single quotes, without one in it." >&2
      return 1 ;;
    *) text="$(sed -E 's/ +#.*//; s/ +$//' <<< "$text")" ;;
  esac
  printf %s "$text"
}

put() {
  cat > "$directory/.$1"
  chmod 444 "$directory/.$1"
  mv -f "$directory/.$1" "$directory/$1"
}

[ -f "$env_file" ] || { echo "There is no .env: copy .env.example to it." >&2; exit 1; }
mkdir -p "$directory"
chmod 700 "$directory"
for name in $(sed -nE 's|^ +file: \$\{SECRETS_DIR:-\./\.secrets\}/([A-Z_]+)$|\1|p' "$root/docker-compose.yml"); do
  case "$name" in
    # The one file of settings that MinIO reads by itself.
    MINIO_CONFIG_ENV) text="MINIO_AUDIT_WEBHOOK_AUTH_TOKEN=$(value_of MINIO_AUDIT_WEBHOOK_AUTH_TOKEN)" ;;
    *)
      text="$(value_of "$name")"
      if [ -z "$text" ] && [ "$name" != MINIO_READ_SECRET_KEY ]; then
        echo "$name is empty: set it in .env, as .env.example has it." >&2
        exit 1
      fi ;;
  esac
  put "$name" <<< "$text"
done
