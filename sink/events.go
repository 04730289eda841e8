package sink

import (
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
)

// eventRows fills the table events.
type eventRows struct {
	parse func(*kgo.Record, *pipeline.Position) (*pipeline.Event, error)
	taken func(*pipeline.Event) bool
	src   pipeline.Position // of the record under way, a field so that it is not allocated
	list  []namedColumn

	sourceCluster, sourceTopic, key, raw, payloadApart, eventID, tenant, format strColumn
	eventType, entity, correlationID, contentType                               strColumn
	sourceTopicID                                                               uuidColumn
	sourcePartition                                                             i32Column
	sourceOffset                                                                i64Column
	headers                                                                     mapColumn
	payloadFrom, payloadLength                                                  u32Column
	time                                                                        nullMicroColumn
	producedAt, storedAt                                                        milliColumn
}

func newEventRows(parse func(*kgo.Record, *pipeline.Position) (*pipeline.Event, error), taken func(*pipeline.Event) bool) *eventRows {
	r := &eventRows{parse: parse, taken: taken}
	r.list = []namedColumn{
		{"source_cluster", &r.sourceCluster},
		{"source_topic_id", &r.sourceTopicID},
		{"source_topic", &r.sourceTopic},
		{"source_partition", &r.sourcePartition},
		{"source_offset", &r.sourceOffset},
		{"key", &r.key},
		{"headers", &r.headers},
		{"raw", &r.raw},
		{"payload_from", &r.payloadFrom},
		{"payload_length", &r.payloadLength},
		{"payload_apart", &r.payloadApart},
		{"event_id", &r.eventID},
		{"tenant", &r.tenant},
		{"format", &r.format},
		{"event_type", &r.eventType},
		{"entity", &r.entity},
		{"correlation_id", &r.correlationID},
		{"content_type", &r.contentType},
		{"time", &r.time},
		{"produced_at", &r.producedAt},
		{"stored_at", &r.storedAt},
	}
	return r
}

func (r *eventRows) columns() []namedColumn { return r.list }

func (r *eventRows) bytes() int { return len(r.raw.wire) + len(r.payloadApart.wire) }

// add appends the event that rec is, unless nobody takes it. A record that
// cannot be parsed is skipped: the router puts it into events.dead.
func (r *eventRows) add(rec *kgo.Record, from origin) error {
	r.src = pipeline.Position{Cluster: from.cluster, TopicID: from.topicID, Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset}
	ev, err := r.parse(rec, &r.src)
	if err != nil || ev == nil || !r.taken(ev) {
		return nil //nolint:nilerr // the router reports it, with the same words
	}
	r.sourceCluster.Append(from.cluster)
	r.sourceTopicID.Append(from.topicID)
	r.sourceTopic.Append(rec.Topic)
	r.sourcePartition.Append(rec.Partition)
	r.sourceOffset.Append(rec.Offset)
	r.key.AppendBytes(rec.Key)
	for i := range rec.Headers {
		r.headers.add(rec.Headers[i].Key, rec.Headers[i].Value)
	}
	r.headers.end()
	r.raw.AppendBytes(rec.Value)
	at, within := partOf(rec.Value, ev.Payload)
	r.payloadFrom.Append(uint32(at))
	r.payloadLength.Append(uint32(len(ev.Payload)))
	if within {
		r.payloadApart.Append("")
	} else {
		r.payloadApart.AppendBytes(ev.Payload)
	}
	r.eventID.Append(ev.ID)
	r.tenant.Append(ev.Tenant)
	r.format.Append(string(ev.Format))
	r.eventType.Append(ev.Type)
	r.entity.Append(ev.Entity)
	r.correlationID.Append(ev.Correlation)
	r.contentType.Append(ev.ContentType)
	r.time.time(ev.Time)
	r.producedAt.time(ev.ProducedAt)
	r.storedAt.time(from.storedAt)
	return nil
}

// partOf tells where part lies in whole, if it shares its memory.
func partOf(whole, part []byte) (at int, within bool) {
	if len(part) == 0 {
		return 0, true
	}
	if len(whole) == 0 {
		return 0, false
	}
	w, p := uintptr(unsafe.Pointer(unsafe.SliceData(whole))), uintptr(unsafe.Pointer(unsafe.SliceData(part)))
	if p < w || p+uintptr(len(part)) > w+uintptr(len(whole)) {
		return 0, false
	}
	return int(p - w), true
}
