"""What the statements of this package share: JSON, and how lines of statements are asked about."""

import msgspec

JSON = msgspec.json.Encoder(decimal_format="string", order="deterministic")

# The statements asked about, from four arrays; joined by STATEMENT.
STATEMENTS = (
    "unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS k (tenant, payee, plan, period)"
)
SINCE = (  # the same, each with the position from which on its lines are asked about
    "unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::date[], $6::text[], $7::text[]) "
    "AS k (tenant, payee, plan, period, since_day, since_type, since_id)"
)
POSITION = '(day, record_type COLLATE "C", record_id COLLATE "C")'
SINCE_POSITION = "(since_day, since_type, since_id)"
STATEMENT = "USING (tenant, payee, plan, period)"
