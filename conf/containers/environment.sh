# Sourced by the entry point and, as Spark's spark-env.sh, by what is started by hand in a container: gives each secret that
# was mounted as a file to this process as a variable of the file's name. `docker inspect` shows none of them.
for secret in "${SECRETS_DIR:-/run/secrets}"/*; do
  if [ -f "$secret" ]; then
    secret_name="${secret##*/}"
    [ -n "${!secret_name+set}" ] || export "$secret_name=$(< "$secret")"
  fi
done
unset secret secret_name
