#!/bin/sh
# The words of a command are the server's own unless they begin with its name.
[ "${1:-}" = minio ] || set -- minio "$@"
exec "$@"
