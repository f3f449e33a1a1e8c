-- What the counters must be, from the last state of everything: plain SQL, nothing of ours.
--
-- Given: `state (kind text, body jsonb)`, the last version of each message, kind being `record` or
-- the directory's kinds. Gives (subject, metric, grain, start, unit, value, count) for nine
-- metrics of the shipped catalogue.
WITH RECURSIVE live AS (
    SELECT kind, body FROM state WHERE NOT coalesce((body ->> 'deleted')::boolean, false)
), organisation AS (
    SELECT body ->> 'zone' AS zone, coalesce((body ->> 'week_start')::int, 0) AS week_start,
        coalesce((body ->> 'fiscal_year_start')::int, 1) AS fiscal_year_start
    FROM live WHERE kind = 'organisation'
), dated AS (
    SELECT kind, body,
        coalesce((body ->> 'valid_from')::date, '-infinity') AS valid_from,
        coalesce((body ->> 'valid_to')::date, 'infinity') AS valid_to
    FROM live
), field AS (  -- only what is known: state "value"
    SELECT body ->> 'type' AS type, body ->> 'id' AS id, body ->> 'source' AS source, f.key AS name,
        f.value ->> 1 AS value, jsonb_typeof(f.value -> 1) AS kind
    FROM live CROSS JOIN LATERAL jsonb_each(body -> 'fields') AS f
    WHERE live.kind = 'record' AND f.value ->> 0 = 'value' AND f.value ->> 1 IS NOT NULL
), record AS (
    SELECT type, id, source,
        max(value) FILTER (WHERE name = 'owner_id') AS owner_id,
        max(value) FILTER (WHERE name = 'status') AS status,
        max(value) FILTER (WHERE name = 'amount') AS amount,
        max(value) FILTER (WHERE name = 'currency') AS currency,
        max(value) FILTER (WHERE name = 'shares') AS shares,
        max(value) FILTER (WHERE name = 'region') AS region,
        max(value) FILTER (WHERE name = 'direction') AS direction,
        max(value) FILTER (WHERE name = 'created_at')::timestamptz AS created_at,
        max(value) FILTER (WHERE name = 'closed_at')::timestamptz AS closed_at,
        max(value) FILTER (WHERE name = 'occurred_at')::timestamptz AS occurred_at,
        bool_or(name = 'done' AND kind = 'boolean' AND value = 'true') AS done
    FROM field GROUP BY type, id, source
), told AS (  -- what the expected close date was, and what it is
    SELECT body ->> 'type' AS type, body ->> 'id' AS id, (t.field ->> 2)::bigint AS at,
        CASE WHEN t.field ->> 0 = 'value' THEN
            ((t.field ->> 1)::timestamptz AT TIME ZONE 'UTC')::date END AS day
    FROM live CROSS JOIN LATERAL (
        SELECT jsonb_array_elements(body -> 'expected_before')
        UNION ALL SELECT body -> 'fields' -> 'expected_close'
    ) AS t (field)
    WHERE kind = 'record' AND t.field IS NOT NULL
), move AS (
    SELECT type, id, 'epoch'::timestamptz + at * interval '1 microsecond' AS moved_at,
        day - lag(day) OVER (PARTITION BY type, id ORDER BY at) AS days
    FROM told
), places (currency, digits) AS (VALUES ('EUR', 2), ('USD', 2), ('JPY', 0)
), contribution AS (
    SELECT *, 'opportunities_created' AS metric, 'count' AS unit, created_at AS at, 1::numeric AS value
    FROM record WHERE type = 'opportunity'
    UNION ALL
    SELECT *, 'deals_' || status, 'count', closed_at, 1 FROM record
    WHERE type = 'opportunity' AND status IN ('won', 'lost')
    UNION ALL
    SELECT r.*, 'revenue_won', p.currency, closed_at, round(amount::numeric * 10 ^ p.digits)
    FROM record r JOIN places p USING (currency)
    WHERE type = 'opportunity' AND status = 'won' AND amount ~ '^-?[0-9]+(\.[0-9]+)?$'
    UNION ALL
    SELECT *, CASE type WHEN 'call' THEN 'calls_made' WHEN 'email' THEN 'emails_sent'
        ELSE 'meetings_held' END, 'count', occurred_at, 1
    FROM record WHERE type IN ('call', 'email', 'meeting') AND done
        AND (type <> 'email' OR direction IS DISTINCT FROM 'inbound')
    UNION ALL
    SELECT r.*, s.metric, s.unit, moved_at, s.value
    FROM record r JOIN move m USING (type, id) CROSS JOIN LATERAL (VALUES
        ('close_dates_slipped', 'count', 1), ('close_date_slip', 'seconds', days * 86400)
    ) AS s (metric, unit, value)
    WHERE type = 'opportunity' AND days > 0 AND (status = 'open' OR moved_at < closed_at)
), placed AS (
    SELECT c.*, (at AT TIME ZONE zone)::date AS day, row_number() OVER () AS number
    FROM contribution c, organisation WHERE at IS NOT NULL
), share AS (  -- owner, part and place of each share of a shared record, but those of bad shares
    SELECT p.number, s.place, split_part(s.text, '=', 1) AS owner_id,
        split_part(s.text, '=', 2)::numeric AS percent
    FROM placed p CROSS JOIN LATERAL
        unnest(string_to_array(p.shares, ';')) WITH ORDINALITY AS s (text, place)
    WHERE p.shares ~ '^([^=;]+=[0-9]+(\.[0-9]+)?;?)+$' AND 100 = (
        SELECT sum(split_part(t, '=', 2)::numeric) FROM unnest(string_to_array(p.shares, ';')) t
    )
), part AS (
    SELECT s.*, sign(p.value) AS sign, floor(abs(p.value) * percent / 100) AS floor,
        abs(p.value) * percent / 100 - floor(abs(p.value) * percent / 100) AS lost,
        p.unit, p.value AS whole
    FROM share s JOIN placed p USING (number)
), divided AS (
    SELECT number, owner_id, sign * (floor + CASE WHEN
        row_number() OVER (PARTITION BY number ORDER BY lost DESC, place)
            <= abs(whole) - sum(floor) OVER (PARTITION BY number) THEN 1 ELSE 0 END) AS value
    FROM part WHERE unit NOT IN ('count', 'seconds')
    UNION ALL
    (SELECT DISTINCT ON (number) number, owner_id, whole FROM part
    WHERE unit IN ('count', 'seconds')
    ORDER BY number, percent DESC, place)
), owned AS (
    SELECT p.number, coalesce(d.owner_id, p.owner_id) AS owner_id,
        coalesce(d.value, p.value) AS value
    FROM placed p LEFT JOIN divided d USING (number)
), credited AS (
    SELECT p.*, o.value AS part, (
        SELECT d.body ->> 'person' FROM dated d
        WHERE d.kind = 'owner' AND d.body ->> 'source' = p.source
            AND d.body ->> 'owner_id' = o.owner_id AND p.day >= d.valid_from AND p.day < d.valid_to
        ORDER BY d.body ->> 'id' COLLATE "C" LIMIT 1
    ) AS person
    FROM placed p JOIN owned o USING (number)
), known AS (
    SELECT row_number() OVER () AS credit, c.* FROM credited c
    WHERE EXISTS (SELECT FROM live WHERE kind = 'person' AND body ->> 'id' = c.person)
), team AS (
    SELECT k.credit, (
        SELECT d.body ->> 'team' FROM dated d
        WHERE d.kind = 'membership' AND d.body ->> 'person' = k.person
            AND k.day >= d.valid_from AND k.day < d.valid_to
        ORDER BY coalesce((d.body ->> 'manages')::boolean, false), d.body ->> 'id' COLLATE "C"
        LIMIT 1
    ) AS team
    FROM known k
), territory AS (
    SELECT k.credit, coalesce((
        SELECT d.body ->> 'id' FROM dated d
        WHERE d.kind = 'territory' AND d.body -> 'where' -> 'region' ? k.region
            AND k.day >= d.valid_from AND k.day < d.valid_to
        ORDER BY coalesce((d.body ->> 'rank')::int, 0), d.body ->> 'id' COLLATE "C" LIMIT 1
    ), (
        SELECT d.body ->> 'territory' FROM dated d
        WHERE d.kind = 'assignment' AND d.body ->> 'person' = k.person
            AND k.day >= d.valid_from AND k.day < d.valid_to
        ORDER BY d.body ->> 'territory' COLLATE "C" LIMIT 1
    )) AS territory
    FROM known k
), above AS (  -- everything upwards, once each: a cycle ends
    SELECT credit, 'team' AS kind, team AS id, ARRAY[team] AS seen FROM team WHERE team IS NOT NULL
    UNION ALL
    SELECT credit, 'territory', territory, ARRAY[territory] FROM territory
    WHERE territory IS NOT NULL
    UNION ALL
    SELECT a.credit, a.kind, l.body ->> 'parent', a.seen || (l.body ->> 'parent')
    FROM above a JOIN live l ON l.kind = a.kind AND l.body ->> 'id' = a.id
    WHERE coalesce(l.body ->> 'parent', '') <> '' AND NOT l.body ->> 'parent' = ANY (a.seen)
), role AS (
    SELECT k.credit, coalesce((
        SELECT d.body ->> 'role' FROM dated d
        WHERE d.kind = 'role' AND d.body ->> 'person' = k.person
            AND k.day >= d.valid_from AND k.day < d.valid_to
        ORDER BY d.body ->> 'id' COLLATE "C" LIMIT 1
    ), (SELECT coalesce(body ->> 'role', 'rep') FROM live
        WHERE kind = 'person' AND body ->> 'id' = k.person)) AS role
    FROM known k
), subject AS (
    SELECT credit, 'org:all' AS subject FROM known
    UNION ALL SELECT credit, 'person:' || person FROM known
    UNION ALL SELECT credit, kind || ':' || id FROM above
    UNION ALL SELECT credit, 'role:' || role FROM role
), period AS (
    SELECT k.credit, g.grain, g.start
    FROM known k CROSS JOIN organisation o CROSS JOIN LATERAL (
        SELECT date_trunc('month', k.day)::date AS month,
            (extract(month FROM k.day)::int - o.fiscal_year_start + 12) % 12 AS months
    ) AS m CROSS JOIN LATERAL (VALUES
        ('day', k.day),
        ('week', k.day - (extract(isodow FROM k.day)::int - 1 - o.week_start + 7) % 7),
        ('month', month),
        ('quarter', (month - make_interval(months => months % 3))::date),
        ('half', (month - make_interval(months => months % 6))::date),
        ('year', (month - make_interval(months => months))::date)
    ) AS g (grain, start)
)
SELECT s.subject, k.metric, p.grain, p.start, k.unit, sum(k.part)::bigint, count(DISTINCT k.number)
FROM known k JOIN subject s USING (credit) JOIN period p USING (credit)
GROUP BY 1, 2, 3, 4, 5
