-- What each person's days must be, from all messages in any order: plain SQL, nothing of anybody's.
--
-- Given: `message (key text, version bigint, body jsonb)`. Money is in minor units.
WITH last AS (
    SELECT DISTINCT ON (key) body ->> 'type' AS type, body -> 'fields' AS field,
        coalesce((body ->> 'deleted')::boolean, false) AS deleted
    FROM message ORDER BY key, version DESC
), counted AS (
    SELECT 'p' || (field -> 'owner_id' ->> 1) AS person, 1 AS deals, 0 AS calls,
        (field -> 'amount' ->> 1)::numeric * 100 AS revenue,
        (field -> 'closed_at' ->> 1)::timestamptz AS at
    FROM last WHERE type = 'opportunity' AND NOT deleted AND field -> 'status' ->> 1 = 'won'
    UNION ALL
    SELECT 'p' || (field -> 'owner_id' ->> 1), 0, 1, 0, (field -> 'occurred_at' ->> 1)::timestamptz
    FROM last WHERE type = 'call' AND NOT deleted AND (field -> 'done' ->> 1)::boolean
)
SELECT person, (at AT TIME ZONE 'America/New_York')::date AS day,
    sum(deals)::bigint AS deals, sum(revenue)::bigint AS revenue, sum(calls)::bigint AS calls
FROM counted GROUP BY person, day
