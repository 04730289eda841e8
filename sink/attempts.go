package sink

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/attemptlog"
)

// attemptRows fills the table attempts.
type attemptRows struct {
	dec     attemptlog.Decoder
	rec     *kgo.Record
	from    origin
	each    func(*attemptlog.Row) error // append as a value, made once
	refused error                       // the first row of the record that the table cannot hold
	list    []namedColumn

	attemptID, deliveryID, eventID, subscriptionID, tenant, format, eventType, entity strColumn
	correlationID, url, errText, requestHeaders, responseHeaders, responseBody        strColumn
	ackID, replay, node, contentType, sourceCluster, sourceTopic                      strColumn
	attempt, retry, resends                                                           u8Column
	round, statusCode                                                                 u16Column
	outcome                                                                           outcomeColumn
	elapsed, dns, connect, tls, ttfb, requestBytes, logIndex                          u32Column
	startedAt                                                                         microColumn
	requestWritten, responseTruncated, bodiesDropped, final                           boolColumn
	nextAttemptAt, eventTime                                                          nullMicroColumn
	producedAt, storedAt                                                              milliColumn
	registryVersion, sourceOffset, logOffset                                          i64Column
	sourcePartition, logPartition                                                     i32Column
	sourceTopicID, logTopicID                                                         uuidColumn
}

func newAttemptRows() *attemptRows {
	r := &attemptRows{}
	r.each = r.append
	r.list = []namedColumn{
		{"attempt_id", &r.attemptID},
		{"delivery_id", &r.deliveryID},
		{"event_id", &r.eventID},
		{"round", &r.round},
		{"subscription_id", &r.subscriptionID},
		{"tenant", &r.tenant},
		{"format", &r.format},
		{"event_type", &r.eventType},
		{"entity", &r.entity},
		{"correlation_id", &r.correlationID},
		{"url", &r.url},
		{"attempt", &r.attempt},
		{"retry", &r.retry},
		{"outcome", &r.outcome},
		{"status_code", &r.statusCode},
		{"error", &r.errText},
		{"started_at", &r.startedAt},
		{"elapsed_us", &r.elapsed},
		{"dns_us", &r.dns},
		{"connect_us", &r.connect},
		{"tls_us", &r.tls},
		{"ttfb_us", &r.ttfb},
		{"request_headers", &r.requestHeaders},
		{"request_bytes", &r.requestBytes},
		{"request_written", &r.requestWritten},
		{"response_headers", &r.responseHeaders},
		{"response_body", &r.responseBody},
		{"response_truncated", &r.responseTruncated},
		{"bodies_dropped", &r.bodiesDropped},
		{"ack_id", &r.ackID},
		{"final", &r.final},
		{"next_attempt_at", &r.nextAttemptAt},
		{"replay", &r.replay},
		{"resends", &r.resends},
		{"node", &r.node},
		{"registry_version", &r.registryVersion},
		{"content_type", &r.contentType},
		{"event_time", &r.eventTime},
		{"produced_at", &r.producedAt},
		{"source_cluster", &r.sourceCluster},
		{"source_topic_id", &r.sourceTopicID},
		{"source_topic", &r.sourceTopic},
		{"source_partition", &r.sourcePartition},
		{"source_offset", &r.sourceOffset},
		{"stored_at", &r.storedAt},
		{"log_topic_id", &r.logTopicID},
		{"log_partition", &r.logPartition},
		{"log_offset", &r.logOffset},
		{"log_index", &r.logIndex},
	}
	return r
}

func (r *attemptRows) columns() []namedColumn { return r.list }

func (r *attemptRows) bytes() int {
	return len(r.requestHeaders.wire) + len(r.responseHeaders.wire) + len(r.responseBody.wire) + len(r.url.wire) + len(r.errText.wire)
}

// add appends a batch. Where its end is unreadable, the attempts before that
// are kept. A row that the table cannot hold does not keep out its neighbours.
func (r *attemptRows) add(rec *kgo.Record, from origin) error {
	r.rec, r.from = rec, from
	err := r.dec.Decode(rec.Value, r.each)
	err = errors.Join(err, r.refused)
	r.rec, r.refused = nil, nil
	return err
}

// check says why the table cannot hold row.
func check(row *attemptlog.Row) error {
	if row.Outcome.String() == "" {
		return fmt.Errorf("storing attempt %d of a batch: outcome %d is not known", row.Index, row.Outcome)
	}
	if row.StartedAt.Before(minTime) || row.StartedAt.After(maxTime) {
		return fmt.Errorf("storing attempt %d of a batch: its start is not within 1900..2299", row.Index)
	}
	return nil
}

func (r *attemptRows) append(row *attemptlog.Row) error {
	if err := check(row); err != nil {
		if r.refused == nil {
			r.refused = err
		}
		return nil
	}
	r.appendTry(row)
	r.appendEvent(row)
	r.storedAt.time(r.from.storedAt)
	r.logTopicID.Append(r.from.topicID)
	r.logPartition.Append(r.rec.Partition)
	r.logOffset.Append(r.rec.Offset)
	r.logIndex.Append(uint32(row.Index))
	return nil
}

func (r *attemptRows) appendTry(row *attemptlog.Row) {
	r.attemptID.Append(row.AttemptID)
	r.deliveryID.Append(row.DeliveryID)
	r.subscriptionID.Append(row.SubscriptionID)
	r.url.Append(row.URL)
	r.attempt.Append(uint8(min(row.Attempt.Attempt, 255)))
	r.retry.Append(uint8(min(row.Retry(), 255)))
	r.round.Append(uint16(min(row.Round, 65535)))
	r.outcome.Append(int8(row.Outcome))
	r.statusCode.Append(uint16(min(row.StatusCode, 65535)))
	r.errText.Append(row.Error)
	r.startedAt.time(row.StartedAt)
	r.elapsed.micros(row.Elapsed)
	r.dns.micros(row.DNS)
	r.connect.micros(row.Connect)
	r.tls.micros(row.TLS)
	r.ttfb.micros(row.TTFB)
	r.requestHeaders.AppendBytes(row.RequestHeaders)
	r.requestBytes.Append(uint32(row.RequestBytes))
	r.requestWritten.Append(row.RequestWritten)
	r.responseHeaders.AppendBytes(row.ResponseHeaders)
	r.responseBody.AppendBytes(row.ResponseBody)
	r.responseTruncated.Append(row.ResponseTruncated)
	r.bodiesDropped.Append(row.WithoutBodies)
	r.ackID.Append(row.AckID)
	r.final.Append(row.Final)
	r.nextAttemptAt.time(row.NextAttemptAt)
	r.resends.Append(uint8(min(row.Resends, 255)))
	r.node.Append(row.Node)
}

func (r *attemptRows) appendEvent(row *attemptlog.Row) {
	env := row.Envelope
	r.eventID.Append(env.EventID)
	r.tenant.Append(env.Tenant)
	r.format.Append(string(env.Format))
	r.eventType.Append(env.EventType)
	r.entity.Append(env.Entity)
	r.correlationID.Append(env.Correlation)
	r.replay.Append(env.Replay)
	r.registryVersion.Append(env.RegistryVersion)
	r.contentType.Append(env.ContentType)
	r.eventTime.time(env.Time)
	r.producedAt.time(env.ProducedAt)
	r.sourceCluster.Append(env.Source.Cluster)
	r.sourceTopicID.Append(env.Source.TopicID)
	r.sourceTopic.Append(env.Source.Topic)
	r.sourcePartition.Append(env.Source.Partition)
	r.sourceOffset.Append(env.Source.Offset)
}
