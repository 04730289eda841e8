-- Tables of the delivery log. Every statement is idempotent: several processes
-- may run it at once.
CREATE TABLE IF NOT EXISTS {{.DB}}.attempts {{.OnCluster}} (
	attempt_id          String,
	delivery_id         String,
	event_id            String,
	round               UInt16,
	subscription_id     String,
	tenant              LowCardinality(String),
	format              LowCardinality(String),
	event_type          LowCardinality(String),
	entity              String,
	correlation_id      String,
	url                 String,
	attempt             UInt8,
	retry               UInt8,
	outcome             {{.OutcomeType}},
	status_code         UInt16,
	error               String,
	started_at          DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
	elapsed_us          UInt32,
	dns_us              UInt32,
	connect_us          UInt32,
	tls_us              UInt32,
	ttfb_us             UInt32,
	request_headers     String CODEC(ZSTD(1)),
	request_bytes       UInt32,
	request_written     Bool,
	response_headers    String CODEC(ZSTD(1)),
	response_body       String CODEC(ZSTD(1)),
	response_truncated  Bool,
	bodies_dropped      Bool,
	ack_id              String,
	final               Bool,
	next_attempt_at     Nullable(DateTime64(6, 'UTC')),
	replay              String,
	resends             UInt8,
	node                LowCardinality(String),
	registry_version    Int64,
	content_type        LowCardinality(String),
	event_time          Nullable(DateTime64(6, 'UTC')),
	produced_at         DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
	source_cluster      LowCardinality(String),
	source_topic_id     UUID,
	source_topic        LowCardinality(String),
	source_partition    Int32,
	source_offset       Int64,
	stored_at           DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
	log_topic_id        UUID,
	log_partition       Int32,
	log_offset          Int64,
	log_index           UInt32,
	INDEX event_id_bloom event_id TYPE bloom_filter(0.01) GRANULARITY 4,
	INDEX delivery_id_bloom delivery_id TYPE bloom_filter(0.01) GRANULARITY 4,
	INDEX correlation_id_bloom correlation_id TYPE bloom_filter(0.01) GRANULARITY 4,
	INDEX log_offset_minmax log_offset TYPE minmax GRANULARITY 4
) ENGINE = {{.Engine "MergeTree"}}
PARTITION BY toMonday(started_at)
ORDER BY (subscription_id, started_at, attempt_id)
{{.TTL "started_at" 0}}
SETTINGS {{.Window}}, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS {{.DB}}.events {{.OnCluster}} (
	source_cluster      LowCardinality(String),
	source_topic_id     UUID,
	source_topic        LowCardinality(String),
	source_partition    Int32,
	source_offset       Int64 CODEC(Delta, ZSTD(1)),
	key                 String,
	headers             Map(String, String),
	raw                 String CODEC(ZSTD(1)),
	payload_from        UInt32,
	payload_length      UInt32,
	payload_apart       String CODEC(ZSTD(1)),
	event_id            String,
	tenant              LowCardinality(String),
	format              LowCardinality(String),
	event_type          LowCardinality(String),
	entity              String,
	correlation_id      String,
	content_type        LowCardinality(String),
	time                Nullable(DateTime64(6, 'UTC')),
	produced_at         DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
	stored_at           DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
	payload             String ALIAS if(payload_apart = '', substring(raw, payload_from + 1, payload_length), payload_apart),
	INDEX event_id_bloom event_id TYPE bloom_filter(0.01) GRANULARITY 4,
	INDEX correlation_id_bloom correlation_id TYPE bloom_filter(0.01) GRANULARITY 4
) ENGINE = {{.Engine "MergeTree"}}
PARTITION BY toMonday(stored_at)
ORDER BY (source_topic, source_partition, source_offset)
{{.TTL "stored_at" 7}}
SETTINGS {{.Window}}, ttl_only_drop_parts = 1, index_granularity = 1024;

CREATE TABLE IF NOT EXISTS {{.DB}}.subscription_stats_1m_data {{.OnCluster}} (
	subscription_id  String,
	minute           DateTime('UTC'),
	tenant           LowCardinality(String),
	attempts         SimpleAggregateFunction(sum, UInt64),
	successes        SimpleAggregateFunction(sum, UInt64),
	latency          AggregateFunction(quantilesTDigest(0.5, 0.9, 0.99), Float64)
) ENGINE = {{.Engine "AggregatingMergeTree"}}
PARTITION BY toMonday(minute)
ORDER BY (subscription_id, minute, tenant)
{{.TTL "minute" 0}}
SETTINGS {{.Window}}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS {{.DB}}.subscription_stats_1m_mv {{.OnCluster}}
TO {{.DB}}.subscription_stats_1m_data AS
SELECT
	subscription_id,
	toDateTime(toStartOfMinute(started_at), 'UTC') AS minute,
	tenant,
	count() AS attempts,
	countIf(outcome = 'success') AS successes,
	quantilesTDigestState(0.5, 0.9, 0.99)(toFloat64(elapsed_us) / 1e6) AS latency
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
	quantilesTDigestMergeState(0.5, 0.9, 0.99)(d.latency) AS latency
FROM {{.DB}}.subscription_stats_1m_data AS d
GROUP BY subscription_id, minute, tenant;

CREATE OR REPLACE VIEW {{.DB}}.deliveries {{.OnCluster}} AS
SELECT
	subscription_id,
	delivery_id,
	any(a.event_id) AS event_id,
	any(a.tenant) AS tenant,
	any(a.format) AS format,
	any(a.event_type) AS event_type,
	any(a.entity) AS entity,
	any(a.correlation_id) AS correlation_id,
	any(a.source_cluster) AS source_cluster,
	any(a.source_topic_id) AS source_topic_id,
	any(a.source_topic) AS source_topic,
	any(a.source_partition) AS source_partition,
	any(a.source_offset) AS source_offset,
	any(a.produced_at) AS produced_at,
	argMax(a.url, (a.started_at, a.round, a.attempt)) AS url,
	argMax(a.outcome, (a.started_at, a.round, a.attempt)) AS outcome,
	argMax(a.status_code, (a.started_at, a.round, a.attempt)) AS status_code,
	argMax(a.error, (a.started_at, a.round, a.attempt)) AS error,
	argMax(a.final, (a.started_at, a.round, a.attempt)) AS final,
	argMax(a.next_attempt_at, (a.started_at, a.round, a.attempt)) AS next_attempt_at,
	countIf(a.attempt > 0 AND a.outcome != 'local_error') AS attempts,
	uniqExactIf(a.replay, a.replay != '') AS replays,
	min(a.started_at) AS first_at,
	max(a.started_at) AS last_at
FROM {{.DB}}.attempts AS a
GROUP BY subscription_id, delivery_id;
