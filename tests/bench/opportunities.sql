-- What the four files say, in plain SQL: nothing of ours, written from the definitions in
-- services/metrics/catalogue.yaml and docs/guides (import, mapping, metrics, export).
--
-- Given: tables `sales_pipeline`, `sales_teams`, `products` and `accounts`, every column text as it
-- stands in the file, null where the cell is empty.
-- Gives: `expected` (metric, level, name, quarter, value), with null for no data, for every agent,
-- manager's team, regional office and the organisation in every quarter that the files know;
-- `state` (state, rows) of the pipeline's rows; `quirk` (quirk, rows), what is odd about some.

CREATE FUNCTION is_day(cell text) RETURNS boolean IMMUTABLE
    RETURN cell ~ '^\d{4}-\d{2}-\d{2}$' AND pg_input_is_valid(cell, 'date');

-- A row is read as a whole or not at all: an unknown stage, a date or a value that is none.
CREATE VIEW read AS
SELECT *, opportunity_id IS NOT NULL
    AND coalesce(deal_stage IN ('Won', 'Lost', 'Engaging', 'Prospecting'), true)
    AND coalesce(is_day(engage_date), true)
    AND coalesce(is_day(close_date), true)
    AND coalesce(close_value ~ '^-?\d+(\.\d+)?$', true) AS readable
FROM sales_pipeline;

-- An open deal has not closed, whatever date it has.
CREATE VIEW deal AS
SELECT opportunity_id, sales_agent, product, account, status, engaged, value,
    CASE WHEN status <> 'open' THEN closed END AS closed
FROM (
    SELECT *,
        CASE deal_stage WHEN 'Won' THEN 'won' WHEN 'Lost' THEN 'lost'
            WHEN 'Engaging' THEN 'open' WHEN 'Prospecting' THEN 'open'
            ELSE 'without a stage' END AS status,
        CASE WHEN readable THEN engage_date::date END AS engaged,
        CASE WHEN readable THEN close_date::date END AS closed,
        CASE WHEN readable THEN close_value::numeric END AS value
    FROM read
) AS typed
WHERE readable;

CREATE VIEW state AS
SELECT CASE WHEN deal.opportunity_id IS NULL THEN 'quarantined' ELSE status END AS state,
    count(*) AS rows
FROM read LEFT JOIN deal USING (opportunity_id)
GROUP BY 1;

CREATE VIEW quirk AS
SELECT quirk, count(*) FILTER (WHERE odd) AS rows
FROM deal, LATERAL (VALUES
    ('open, never engaged: created on no day', status = 'open' AND engaged IS NULL),
    ('open without a value: in no pipeline', status = 'open' AND value IS NULL),
    ('won or lost on no day: in no quarter', status IN ('won', 'lost') AND closed IS NULL),
    ('won without a value: no revenue', status = 'won' AND value IS NULL),
    ('won without an engagement before it: no cycle',
        status = 'won' AND closed IS NOT NULL AND coalesce(engaged > closed, true)),
    ('of an agent whom sales_teams.csv lacks: for nobody',
        NOT EXISTS (SELECT FROM sales_teams t WHERE t.sales_agent = deal.sales_agent)),
    ('of a product that products.csv lacks: kept as written',
        NOT EXISTS (SELECT FROM products p WHERE p.product = deal.product)),
    ('without an account', account IS NULL),
    ('of an account that accounts.csv lacks: kept as written',
        account IS NOT NULL AND NOT EXISTS (SELECT FROM accounts a WHERE a.account = deal.account))
) AS found (quirk, odd)
GROUP BY quirk;

-- Whom an agent's deals count for; those of an agent whom nobody knows count for nobody.
CREATE VIEW counts_for AS
SELECT sales_agent, level, name
FROM sales_teams, LATERAL (VALUES
    ('person', sales_agent), ('team', manager), ('office', regional_office), ('organisation', 'all')
) AS above (level, name);

CREATE VIEW quarter AS
SELECT generate_series(
    date_trunc('quarter', min(day)::timestamp), max(day)::timestamp, interval '3 months'
)::date AS quarter
FROM (SELECT engaged AS day FROM deal UNION ALL SELECT closed FROM deal) AS days;

-- A deal counts in the quarter in which it was won or lost. The cycle is the time from its
-- creation, which is the day of engagement, to winning it; one that ended before it began has none.
CREATE VIEW closed_deal AS
SELECT level, name, status, value, date_trunc('quarter', closed::timestamp)::date AS quarter,
    CASE WHEN status = 'won' AND engaged <= closed THEN (closed - engaged) * 86400 END AS cycle
FROM deal JOIN counts_for USING (sales_agent)
WHERE closed IS NOT NULL AND status IN ('won', 'lost');

CREATE VIEW expected AS
SELECT metric, level, name, quarter, figure.value
FROM (
    SELECT level, name, quarter,
        count(*) FILTER (WHERE status = 'won')::numeric AS won,
        count(*) FILTER (WHERE status = 'lost')::numeric AS lost,
        sum(round(value, 2)) FILTER (WHERE status = 'won') AS revenue,
        round(avg(cycle)) AS mean,
        round((percentile_cont(0.5) WITHIN GROUP (ORDER BY cycle))::numeric) AS median
    FROM (SELECT DISTINCT level, name FROM counts_for) AS subject
    CROSS JOIN quarter
    LEFT JOIN closed_deal USING (level, name, quarter)
    GROUP BY level, name, quarter
) AS sums, LATERAL (VALUES
    ('deals_won', nullif(won, 0)),
    ('deals_lost', nullif(lost, 0)),
    ('revenue_won', revenue),
    ('win_rate', round(won / nullif(won + lost, 0), 4)),
    ('sales_cycle', mean),
    ('sales_cycle_median', median)
) AS figure (metric, value);
