#!/bin/bash
# The first process of a container of ours. One that is given the stores' keys leaves PostgreSQL's password where the
# JDBC driver looks for it (PGPASSFILE): so no command line, plan or event log has to carry it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
if [ -n "${POSTGRES_PASSWORD:-}" ]; then
  eval "$(python -m stack env)"
fi
exec "$@"
