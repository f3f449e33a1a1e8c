#!/bin/sh
# The image's entry: `serve metrics`, `rebuild payouts`, … become `python -m services …`.
# PGPASSWORD_FILE names a file with the password of the service's database role, which so stays out
# of the container's configuration; addresses (METRICS_DATABASE, …) are then given without one.
set -eu
if [ -n "${PGPASSWORD_FILE:-}" ]; then
    PGPASSWORD=$(cat "$PGPASSWORD_FILE")
    export PGPASSWORD
    unset PGPASSWORD_FILE
fi
exec python -m services "$@"
