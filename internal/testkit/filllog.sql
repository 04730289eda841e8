INSERT INTO {{.DB}}.attempts (attempt_id, delivery_id, event_id, subscription_id, tenant, format, event_type, entity, correlation_id, url,
	attempt, retry, outcome, status_code, error, started_at, elapsed_us, connect_us, ttfb_us, request_headers, request_bytes, request_written,
	response_headers, response_body, final, next_attempt_at, node, content_type, produced_at, source_cluster, source_topic_id, source_topic,
	source_partition, source_offset, stored_at, log_topic_id, log_partition, log_offset, log_index)
WITH
	toUInt64(floor({{.Subscriptions}} * pow((sipHash64(n, 1) % 1000000) / 1e6, 3))) AS sub,
	sipHash64(n, 2) % 1000 AS kind,
	intDiv(n, 5) AS ev,
	toInt64({{.Until}}) - toInt64({{.Span}}) + toInt64({{.Span}} / {{.All}} * (n + 0.5)) AS began,
	sub % 100 = 7 AS broken,
	-- tries, and how the last of them ends: 0 success, 1 given up, 2 cancelled, 3 waiting without a time
	multiIf(broken, 4, kind < 940, 1, kind < 965, 2, kind < 975, 3, kind < 995, 4, 1) AS tries,
	multiIf(broken, 1, kind < 975, 0, kind < 995, 1, kind < 999, 2, 3) AS ends,
	began + (try - 1) * 30500000 AS started,
	try = tries AS is_last,
	is_last AND ends != 3 AS is_final,
	multiIf(is_last AND ends = 0, 'success', is_last AND ends = 2, 'cancelled', sipHash64(n, 3) % 3 = 0, 'timeout', 'response_error') AS result,
	concat('dlv_', substring(lower(hex(MD5(concat('dlv', toString(n))))), 1, 26)) AS delivery,
	multiIf(result = 'success', 200, result = 'response_error', 503, 0) AS status
SELECT
	concat(delivery, '-', toString(try), '-0-', toString(sipHash64(n, try) % 1000000)),
	delivery,
	concat('evt_', substring(lower(hex(MD5(concat('evt', toString(ev))))), 1, 26)),
	concat('sub-', leftPad(toString(sub), 6, '0')),
	if(sub >= {{.Subscriptions}} - 3, 'rare', concat('tenant-', toString(sub % 200))),
	'json',
	concat('order.', ['created', 'paid', 'shipped', 'returned', 'closed'][ev % 5 + 1]),
	concat('order-', toString(sipHash64(ev, 4) % 1000000)),
	concat('cor_', substring(lower(hex(MD5(concat('cor', toString(intDiv(n, 20)))))), 1, 26)),
	concat('https://hooks-', toString(sub), '.example.com/in/orders'),
	if(result = 'cancelled', 0, try),
	if(result = 'cancelled', 0, try - 1),
	result,
	status,
	multiIf(result = 'timeout', 'no answer within 15s', result = 'response_error', 'answered 503', ''),
	fromUnixTimestamp64Micro(started, 'UTC'),
	if(result = 'timeout', 15000000, 20000 + sipHash64(n, try, 5) % 300000),
	3000,
	if(result = 'timeout', 0, 19000 + sipHash64(n, try, 5) % 300000),
	concat('Host: hooks.example.com\r\nContent-Type: application/json\r\nUser-Agent: hookline/1.0\r\nwebhook-id: ', delivery,
		'\r\nwebhook-timestamp: ', toString(intDiv(started, 1000000)), '\r\nwebhook-signature: v1,', substring(hex(SHA256(delivery)), 1, 43), '=\r\n'),
	1024,
	result != 'cancelled',
	if(status = 0, '', concat('Content-Type: application/json\r\nServer: nginx\r\nX-Request-Id: ', lower(hex(MD5(toString(n)))), '\r\n')),
	multiIf(status = 200, concat('{"ok":true,"id":"', lower(hex(MD5(concat('r', toString(n))))), '"}'), status = 503, repeat('upstream connect error or disconnect/reset before headers. ', 4), ''),
	is_final,
	if(is_last, NULL, fromUnixTimestamp64Micro(started + 30000000, 'UTC')),
	concat('node-', toString(n % 4)),
	'application/json',
	fromUnixTimestamp64Milli(intDiv(began, 1000) - 40, 'UTC'),
	'cluster',
	toUUID('5b9f4c1e-7d8a-4f60-9a3b-2c1d0e9f8a7b'),
	'orders',
	ev % 12,
	intDiv(ev, 12),
	fromUnixTimestamp64Milli(intDiv(started, 1000) + 900, 'UTC'),
	toUUID('7c2f4c1e-7d8a-4f60-9a3b-2c1d0e9f8a7b'),
	n % 4,
	intDiv(n, 400),
	n % 400 * 4 + try
FROM (SELECT number AS n, arrayJoin([1, 2, 3, 4]) AS try FROM numbers({{.From}}, {{.N}}))
WHERE try <= tries AND started <= {{.Until}}
SETTINGS max_partitions_per_insert_block = 0;
INSERT INTO {{.DB}}.events (source_cluster, source_topic_id, source_topic, source_partition, source_offset, key, raw, payload_from, payload_length,
	event_id, tenant, format, event_type, entity, correlation_id, content_type, produced_at, stored_at)
WITH
	toInt64({{.Until}}) - toInt64({{.Span}}) + toInt64({{.Span}} / {{.All}} * (number * 5 + 0.5)) AS began,
	concat('{"type":"order","id":"', toString(number), '","total":', toString(sipHash64(number, 6) % 100000), ',"note":"', repeat('a line of the order; ', 30), '"}') AS body
SELECT
	'cluster', toUUID('5b9f4c1e-7d8a-4f60-9a3b-2c1d0e9f8a7b'), 'orders', number % 12, intDiv(number, 12), toString(number), body, 0, length(body),
	concat('evt_', substring(lower(hex(MD5(concat('evt', toString(number))))), 1, 26)), 'tenant-0', 'json', 'order.created', 'order-1', '', 'application/json',
	fromUnixTimestamp64Milli(intDiv(began, 1000) - 40, 'UTC'), fromUnixTimestamp64Milli(intDiv(began, 1000) + 900, 'UTC')
FROM numbers(intDiv({{.From}}, 5), intDiv({{.N}} + 4, 5))
SETTINGS max_partitions_per_insert_block = 0
