-- What the console shows on its pages: sums by minute that need no look at the
-- attempts themselves.
ALTER TABLE {{.DB}}.subscription_stats_1m_data {{.OnCluster}}
	ADD COLUMN IF NOT EXISTS lag_max SimpleAggregateFunction(max, Float64),
	ADD COLUMN IF NOT EXISTS last_at SimpleAggregateFunction(max, DateTime64(6, 'UTC')),
	ADD COLUMN IF NOT EXISTS last_success_at SimpleAggregateFunction(max, DateTime64(6, 'UTC'));

ALTER TABLE {{.DB}}.subscription_stats_1m_mv {{.OnCluster}} MODIFY QUERY
SELECT
	subscription_id,
	toDateTime(toStartOfMinute(started_at), 'UTC') AS minute,
	tenant,
	count() AS attempts,
	countIf(outcome = 'success') AS successes,
	quantilesTDigestState(0.5, 0.9, 0.99)(toFloat64(elapsed_us) / 1e6) AS latency,
	maxIf(greatest(0, toFloat64(toUnixTimestamp64Micro(started_at)) / 1e6 - toFloat64(toUnixTimestamp64Milli(produced_at)) / 1e3), attempt = 1 AND round = 0 AND replay = '') AS lag_max,
	max(started_at) AS last_at,
	maxIf(started_at, outcome = 'success') AS last_success_at
FROM {{.DB}}.attempts
WHERE attempt > 0 AND outcome != 'local_error'
GROUP BY subscription_id, minute, tenant;

CREATE OR REPLACE VIEW {{.DB}}.subscription_stats_1m {{.OnCluster}} AS
SELECT
	subscription_id,
	minute,
	tenant,
	sum(d.attempts) AS attempts,
	sum(d.successes) AS successes,
	quantilesTDigestMergeState(0.5, 0.9, 0.99)(d.latency) AS latency,
	max(d.lag_max) AS lag_max,
	max(d.last_at) AS last_at,
	max(d.last_success_at) AS last_success_at
FROM {{.DB}}.subscription_stats_1m_data AS d
GROUP BY subscription_id, minute, tenant;

CREATE TABLE IF NOT EXISTS {{.DB}}.outcome_stats_1m_data {{.OnCluster}} (
	minute    DateTime('UTC'),
	outcome   {{.OutcomeType}},
	attempts  SimpleAggregateFunction(sum, UInt64),
	retries   SimpleAggregateFunction(sum, UInt64),
	ended     SimpleAggregateFunction(sum, UInt64),
	latency   AggregateFunction(quantilesTDigest(0.5, 0.9, 0.99), Float64),
	lag_max   SimpleAggregateFunction(max, Float64)
) ENGINE = {{.Engine "AggregatingMergeTree"}}
PARTITION BY toMonday(minute)
ORDER BY (minute, outcome)
{{.TTL "minute" 0}}
SETTINGS {{.Window}}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS {{.DB}}.outcome_stats_1m_mv {{.OnCluster}}
TO {{.DB}}.outcome_stats_1m_data AS
SELECT
	toDateTime(toStartOfMinute(started_at), 'UTC') AS minute,
	outcome,
	count() AS attempts,
	countIf(attempt > 1) AS retries,
	countIf(final) AS ended,
	quantilesTDigestState(0.5, 0.9, 0.99)(toFloat64(elapsed_us) / 1e6) AS latency,
	maxIf(greatest(0, toFloat64(toUnixTimestamp64Micro(started_at)) / 1e6 - toFloat64(toUnixTimestamp64Milli(produced_at)) / 1e3), attempt = 1 AND round = 0 AND replay = '') AS lag_max
FROM {{.DB}}.attempts
GROUP BY minute, outcome;

CREATE OR REPLACE VIEW {{.DB}}.outcome_stats_1m {{.OnCluster}} AS
SELECT
	minute,
	outcome,
	sum(d.attempts) AS attempts,
	sum(d.retries) AS retries,
	sum(d.ended) AS ended,
	quantilesTDigestMergeState(0.5, 0.9, 0.99)(d.latency) AS latency,
	max(d.lag_max) AS lag_max
FROM {{.DB}}.outcome_stats_1m_data AS d
GROUP BY minute, outcome;
