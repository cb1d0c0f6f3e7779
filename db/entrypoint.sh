#!/usr/bin/env bash
# Starts PostgreSQL through the official image's entrypoint, unless the data is that of a first start that was cut
# off: then the official entrypoint would take it for finished, and the roles would be missing for ever, or initdb
# would refuse the folder again and again without a word about this stack.
set -Eeuo pipefail

if [[ -d $PGDATA && -n $(ls -A "$PGDATA") && ! -e $PGDATA/first-start-finished ]]; then
  cat >&2 <<'MESSAGE'
The first start of this database was interrupted before its roles were made; it holds no data yet.
  next: ./scripts/down --volumes --yes && ./scripts/up
MESSAGE
  exit 1
fi

exec docker-entrypoint.sh "$@"
