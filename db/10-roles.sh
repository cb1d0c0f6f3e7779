#!/usr/bin/env bash
# Makes the roles of the stack in its new database. Run once, by the official image's entrypoint.
set -Eeuo pipefail

export POSTGRES_MIGRATOR_PASSWORD_FILE=/run/secrets/postgres_migrator_password
export POSTGRES_APP_PASSWORD_FILE=/run/secrets/postgres_app_password
psql -X -q --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --file /usr/local/share/transactions/roles.sql
