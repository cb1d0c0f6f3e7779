#!/usr/bin/env bash
# The last step of a first start: the mark that entrypoint.sh looks for.
set -Eeuo pipefail

touch "$PGDATA/first-start-finished"
