-- The delivery log in the shapes of the systems that the events come from.
--
-- Events stand on the left and attempts on the right of the joins: the right
-- side is the one that is kept in memory, and a filter by subscription or time
-- makes it small, while the bodies stream by.
CREATE OR REPLACE VIEW {{.DB}}.cot_webhook_log {{.OnCluster}} AS
SELECT
	concat(leftPad(lower(hex(toUInt32(toUnixTimestamp(a.ended_at)))), 8, '0'), lower(substring(hex(SHA256(a.attempt_id)), 1, 16))) AS _id,
	a.tenant AS company,
	toDateTime64(a.ended_at, 3, 'UTC') AS createdAt,
	if(a.status_code = 0, toUInt16(409), a.status_code) AS status,
	a.retry AS retry,
	if(a.status_code = 0, a.error, a.response_body) AS response,
	if(e.payload = '', '{}', e.payload) AS event,
	a.subscription_id AS subscription,
	toUInt8(0) AS __v
FROM (
	SELECT source_cluster, source_topic_id, source_topic, source_partition, source_offset, payload
	FROM {{.DB}}.events WHERE format = 'cotalker'
) AS e
RIGHT JOIN (
	SELECT *, started_at + toIntervalMicrosecond(elapsed_us) AS ended_at
	FROM {{.DB}}.attempts WHERE format = 'cotalker' AND attempt > 0 AND outcome NOT IN ('local_error', 'cancelled')
) AS a
ON a.source_cluster = e.source_cluster AND a.source_topic_id = e.source_topic_id AND a.source_topic = e.source_topic
	AND a.source_partition = e.source_partition AND a.source_offset = e.source_offset;

CREATE OR REPLACE VIEW {{.DB}}.webhook_called {{.OnCluster}} AS
WITH
	a.request_bytes = length(e.payload) OR NOT a.request_written AND a.request_bytes = 0 AS request_known,
	length(e.payload) > {{.DumpBytes}} AS request_cut,
	position(a.response_body, '\0') > 0 OR NOT arrayExists(
		n -> isValidUTF8(substring(a.response_body, 1, greatest(0, toInt64(length(a.response_body)) - n))),
		if(a.response_truncated, [0, 1, 2, 3], [0])) AS response_binary,
	extract(a.url, '^[a-z]+://[^/?]+(.*)$') AS target,
	extract(a.url, '^[a-z]+://([^/?]+)') AS authority
SELECT
	'webhook_called' AS type,
	a.started_at + toIntervalMicrosecond(a.elapsed_us) AS created_on,
	a.url AS url,
	nullIf(e.resthook, '') AS resthook,
	multiIf(a.outcome = 'success', 'success', a.outcome = 'gone', 'subscriber_gone', a.status_code != 0, 'response_error', 'connection_error') AS status,
	nullIf(a.status_code, 0) AS status_code,
	intDiv(a.elapsed_us, 1000) AS elapsed_ms,
	toValidUTF8(concat(
		'POST ', if(startsWith(target, '/'), target, concat('/', target)), ' HTTP/1.1\r\n',
		if(a.request_headers = '', concat('Host: ', authority, '\r\n'), a.request_headers), '\r\n',
		if(request_known, substring(e.payload, 1, {{.DumpBytes}}), ''))) AS request,
	if(a.status_code = 0, NULL, toValidUTF8(concat(
		'HTTP/1.1 ', toString(a.status_code), ' ', {{.StatusText "a.status_code"}}, '\r\n',
		a.response_headers, '\r\n', if(response_binary, '', a.response_body)))) AS response,
	CAST(NOT request_known OR request_cut OR response_binary OR a.response_truncated OR a.bodies_dropped, 'Bool') AS body_ignored,
	a.subscription_id AS subscription_id,
	a.event_id AS event_id
FROM (
	SELECT source_cluster, source_topic_id, source_topic, source_partition, source_offset, payload,
		if(event_type = 'resthook_called', JSONExtractString(raw, 'resthook'), '') AS resthook
	FROM {{.DB}}.events WHERE format = 'goflow'
) AS e
RIGHT JOIN (
	SELECT * FROM {{.DB}}.attempts WHERE format = 'goflow' AND attempt > 0 AND outcome NOT IN ('local_error', 'cancelled')
) AS a
ON a.source_cluster = e.source_cluster AND a.source_topic_id = e.source_topic_id AND a.source_topic = e.source_topic
	AND a.source_partition = e.source_partition AND a.source_offset = e.source_offset;

CREATE OR REPLACE VIEW {{.DB}}.signl4_timeline {{.OnCluster}} AS
SELECT
	event_id,
	alert_event_id,
	alert_id,
	external_id,
	type,
	raised_at,
	user,
	team,
	message,
	(toUnixTimestamp64Micro(raised_at) - toUnixTimestamp64Micro(minIfOrNull(raised_at, type = 'signl.created') OVER (PARTITION BY alert_id))) / 1e6 AS seconds_since_created,
	(toUnixTimestamp64Micro(raised_at) - toUnixTimestamp64Micro(lagInFrame(toNullable(raised_at)) OVER (
		PARTITION BY alert_id, subscription_id ORDER BY raised_at, source_topic, source_partition, source_offset
		ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))) / 1e6 AS seconds_since_previous,
	delivery_state,
	subscription_id,
	delivery_id,
	attempts,
	last_at
FROM (
	SELECT
		d.event_id AS event_id,
		JSONExtractString(e.raw, 'alert', 'eventId') AS alert_event_id,
		if(e.raw = '', d.entity, JSONExtractString(e.raw, 'alert', 'id')) AS alert_id,
		d.correlation_id AS external_id,
		d.event_type AS type,
		coalesce(parseDateTime64BestEffortOrNull(JSONExtractString(e.raw, 'eventRaisedUtc'), 7, 'UTC'),
			toDateTime64(coalesce(d.event_time, d.produced_at), 7, 'UTC')) AS raised_at,
		arrayFirst(s -> s != '', [JSONExtractString(e.raw, 'user', 'username'), JSONExtractString(e.raw, 'user', 'mailaddress'),
			JSONExtractString(e.raw, 'user', 'id')]) AS user,
		JSONExtractString(e.raw, 'team', 'id') AS team,
		JSONExtractString(e.raw, 'annotation', 'message') AS message,
		multiIf(d.outcome = 'success', 'delivered', d.outcome = 'cancelled', 'cancelled', d.final, 'failed',
			d.next_attempt_at IS NOT NULL, 'retrying', 'waiting') AS delivery_state,
		d.subscription_id AS subscription_id,
		d.delivery_id AS delivery_id,
		d.attempts AS attempts,
		d.last_at AS last_at,
		d.source_topic AS source_topic,
		d.source_partition AS source_partition,
		d.source_offset AS source_offset
	FROM (
		SELECT source_cluster, source_topic_id, source_topic, source_partition, source_offset, raw
		FROM {{.DB}}.events WHERE format = 'signl4' AND startsWith(event_type, 'signl.')
	) AS e
	RIGHT JOIN (
		SELECT
			subscription_id,
			delivery_id,
			any(l.event_id) AS event_id,
			any(l.event_type) AS event_type,
			any(l.entity) AS entity,
			any(l.correlation_id) AS correlation_id,
			any(l.event_time) AS event_time,
			any(l.produced_at) AS produced_at,
			any(l.source_cluster) AS source_cluster,
			any(l.source_topic_id) AS source_topic_id,
			any(l.source_topic) AS source_topic,
			any(l.source_partition) AS source_partition,
			any(l.source_offset) AS source_offset,
			argMax(l.outcome, (l.started_at, l.round, l.attempt)) AS outcome,
			argMax(l.final, (l.started_at, l.round, l.attempt)) AS final,
			argMax(tuple(l.next_attempt_at), (l.started_at, l.round, l.attempt)).1 AS next_attempt_at,
			countIf(l.attempt > 0 AND l.outcome != 'local_error') AS attempts,
			max(l.started_at) AS last_at
		FROM {{.DB}}.attempts AS l
		WHERE l.format = 'signl4' AND startsWith(l.event_type, 'signl.')
		GROUP BY subscription_id, delivery_id
	) AS d
	ON d.source_cluster = e.source_cluster AND d.source_topic_id = e.source_topic_id AND d.source_topic = e.source_topic
		AND d.source_partition = e.source_partition AND d.source_offset = e.source_offset
);

CREATE OR REPLACE VIEW {{.DB}}.task_changes {{.OnCluster}} AS
WITH
	s -> if(startsWith(s, '"'), JSONExtractString(s), s) AS plain,
	was IN ('', 'null') AS was_null,
	now IN ('', 'null') AS now_null,
	(startsWith(was, '[') OR was_null) AND (startsWith(now, '[') OR now_null) AS by_elements,
	arrayMap(s -> plain(s), if(by_elements, JSONExtractArrayRaw(was), [])) AS was_list,
	arrayMap(s -> plain(s), if(by_elements, JSONExtractArrayRaw(now), [])) AS now_list,
	arrayZip(was_list, arrayEnumerateUniq(was_list)) AS was_counted,
	arrayZip(now_list, arrayEnumerateUniq(now_list)) AS now_counted
SELECT
	event_id,
	entity AS entity_id,
	if(organization_now = '', JSONExtractString(body, 'data', 'previous', 'organizationId'), organization_now) AS organization_id,
	if(location_now = '', JSONExtractString(body, 'data', 'previous', 'locationId'), location_now) AS location_id,
	field,
	if(was_null, NULL, plain(was)) AS before,
	if(now_null, NULL, plain(now)) AS after,
	arrayMap(t -> t.1, arrayFilter(t -> NOT has(was_counted, t), now_counted)) AS added,
	arrayMap(t -> t.1, arrayFilter(t -> NOT has(now_counted, t), was_counted)) AS removed,
	changed_at
FROM (
	SELECT
		event_id,
		entity,
		body,
		organization_now,
		location_now,
		changed_at,
		field,
		previous[field] AS was,
		current[field] AS now
	FROM (
		SELECT
			event_id,
			entity,
			payload AS body,
			JSONExtractString(body, 'data', 'current', 'organizationId') AS organization_now,
			JSONExtractString(body, 'data', 'current', 'locationId') AS location_now,
			coalesce(time, toDateTime64(produced_at, 6, 'UTC')) AS changed_at,
			CAST(JSONExtractKeysAndValuesRaw(body, 'data', 'current'), 'Map(String, String)') AS current,
			CAST(JSONExtractKeysAndValuesRaw(body, 'data', 'previous'), 'Map(String, String)') AS previous,
			arrayDistinct(arrayConcat(mapKeys(current), mapKeys(previous))) AS fields
		FROM {{.DB}}.events
		WHERE format = 'task'
	)
	ARRAY JOIN fields AS field
)
WHERE was != now AND NOT (was_null AND now_null)
	AND NOT (startsWith(was, '[') AND startsWith(now, '[') AND length(added) + length(removed) = 0);
