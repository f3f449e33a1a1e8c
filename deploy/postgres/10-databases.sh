#!/bin/sh
# One database and one role per service; no role can open another's database. PostgreSQL's image
# runs this once, on an empty volume; run it by hand for a service that is added later.
set -eu
for service in ${SERVICES:-ingest metrics payouts notifications}; do
    export PASSWORD_FILE="${SECRETS:-/run/secrets}/${service}_password"
    test -s "$PASSWORD_FILE" || { echo "$PASSWORD_FILE is missing or empty" >&2; exit 1; }
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set service="$service" \
        --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\set password `cat "$PASSWORD_FILE"`
CREATE ROLE :"service" LOGIN PASSWORD :'password';
CREATE DATABASE :"service" OWNER :"service";
REVOKE CONNECT ON DATABASE :"service" FROM PUBLIC;
SQL
done
