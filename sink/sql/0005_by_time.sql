-- The table is ordered by subscription: a list over many of them, or the newest of all, would read all of it. The
-- projection has what lists show, in the order of time; ClickHouse keeps it with each part and uses it by itself.
ALTER TABLE {{.DB}}.attempts {{.OnCluster}} ADD PROJECTION IF NOT EXISTS by_time (
	SELECT
		attempt_id, delivery_id, subscription_id, url, attempt, round, outcome, status_code, error, started_at, elapsed_us, final,
		next_attempt_at, replay, event_id, tenant, format, event_type, entity, correlation_id, produced_at, node
	ORDER BY started_at, attempt_id
);

ALTER TABLE {{.DB}}.attempts {{.OnCluster}} MATERIALIZE PROJECTION by_time;
