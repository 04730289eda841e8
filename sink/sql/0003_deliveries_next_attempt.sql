-- next_attempt_at of a delivery is that of its last attempt, null too: argMax of a plain Nullable passes
-- over nulls, and showed a settled delivery with the time of a retry long made.
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
	argMax(tuple(a.next_attempt_at), (a.started_at, a.round, a.attempt)).1 AS next_attempt_at,
	countIf(a.attempt > 0 AND a.outcome != 'local_error') AS attempts,
	uniqExactIf(a.replay, a.replay != '') AS replays,
	min(a.started_at) AS first_at,
	max(a.started_at) AS last_at
FROM {{.DB}}.attempts AS a
GROUP BY subscription_id, delivery_id;
