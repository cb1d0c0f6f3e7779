#!/usr/bin/env bash
# Starts PostgreSQL through the official image's entrypoint, unless a variable is bad: PostgreSQL would print its value
# again and again, or the volume get a database under a name that the application refuses. Or unless the data is that of
# a first start that was cut off: then the official entrypoint would take it for finished, and the roles would be missing
# for ever, or initdb would refuse the folder again and again without a word about this stack.
#
# Every bad variable is named in one message, without its value, and the exit status is 78 (EX_CONFIG of sysexits.h).
# The accepted values are those of backend/config/env.py, which declares the same variables for the whole stack.
set -Eeuo pipefail

# In other locales [a-z] may contain more than these letters. Not for PostgreSQL, which makes its databases with it.
matches() { local LC_ALL=C && [[ $1 =~ $2 ]]; }

complaints=()
if ! matches "${POSTGRES_DB-transactions}" '^[a-z_][a-z0-9_]{0,62}$'; then
  complaints+=('POSTGRES_DB must be lower-case letters, digits and underscores; remove it to use transactions.')
fi
connections=${POSTGRES_MAX_CONNECTIONS-100}
if ! matches "$connections" '^[0-9]{1,9}$' || ((10#$connections < 10 || 10#$connections > 10000)); then
  complaints+=('POSTGRES_MAX_CONNECTIONS must be a whole number from 10 to 10000; remove it to use 100.')
fi
if ((${#complaints[@]} > 0)); then
  {
    echo 'PostgreSQL does not start, its configuration is wrong:'
    printf '  - %s\n' "${complaints[@]}"
    echo 'Correct the variables in .env, then run ./scripts/up again.'
  } >&2
  exit 78
fi
# The application counts on the decimal number; PostgreSQL takes one with a leading zero for octal. The last one holds.
[[ ${1-} != postgres || $connections != 0* ]] || set -- "$@" -c "max_connections=$((10#$connections))"

if [[ -d $PGDATA && -n $(ls -A "$PGDATA") && ! -e $PGDATA/first-start-finished ]]; then
  cat >&2 <<'MESSAGE'
The first start of this database was interrupted before its roles were made; it holds no data yet.
  next: ./scripts/down --volumes --yes && ./scripts/up
MESSAGE
  exit 1
fi

exec docker-entrypoint.sh "$@"
