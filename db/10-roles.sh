#!/usr/bin/env bash
# Makes the roles of the stack in its database. Run once, by the official image's entrypoint; for a database that
# somebody else runs, by a person, with the address of that database and of its administrator:
#
#   docker compose run --rm --no-deps --entrypoint /docker-entrypoint-initdb.d/10-roles.sh db postgresql://...
#
# psql asks for the administrator's password, unless PGPASSWORD holds it.
set -Eeuo pipefail

export POSTGRES_MIGRATOR_PASSWORD_FILE=/run/secrets/postgres_migrator_password
export POSTGRES_APP_PASSWORD_FILE=/run/secrets/postgres_app_password
connection=(--username "${POSTGRES_USER-}" --dbname "${POSTGRES_DB-}")
(($# == 0)) || connection=(--dbname "$1")
psql -X -q "${connection[@]}" --file /usr/local/share/transactions/roles.sql
