package sink

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pipeline"
)

// StoredEvent is one row of the table events.
type StoredEvent struct {
	pipeline.Event
	Key     []byte
	Headers map[string]string
	Raw     []byte // the record's value
}

// positionsPerQuery keeps statements well below max_query_size (256 KiB).
const positionsPerQuery = 500

// Events fetches the events at these positions, for a list that was asked for
// before: a join over bodies would read them all. A position whose event is not
// stored (not yet, without takers, or too old) is missing in the answer.
func (r *Reader) Events(ctx context.Context, at []pipeline.Position) (map[pipeline.Position]*StoredEvent, error) {
	out := make(map[pipeline.Position]*StoredEvent, len(at))
	want := make(map[pipeline.Position]bool, len(at))
	var distinct []pipeline.Position
	for _, p := range at {
		if !want[p] {
			want[p] = true
			distinct = append(distinct, p)
		}
	}
	for len(distinct) > 0 {
		n := min(len(distinct), positionsPerQuery)
		if err := r.events(ctx, distinct[:n], out); err != nil {
			return nil, fmt.Errorf("reading events: %w", briefly(err))
		}
		distinct = distinct[n:]
	}
	for p := range out {
		if !want[p] {
			delete(out, p) // of a topic that was made anew under its name
		}
	}
	return out, nil
}

func (r *Reader) events(ctx context.Context, at []pipeline.Position, out map[pipeline.Position]*StoredEvent) error {
	args := make([]any, 0, 3*len(at))
	for _, p := range at {
		args = append(args, p.Topic, p.Partition, p.Offset)
	}
	rows, err := r.server.conn.Query(ctx, "SELECT source_cluster, source_topic_id, source_topic, source_partition, source_offset, key, headers, raw, payload,"+
		" event_id, tenant, format, event_type, entity, correlation_id, content_type, time, produced_at FROM "+r.cfg.Database+
		".events WHERE (source_topic, source_partition, source_offset) IN ("+strings.Repeat("(?, ?, ?), ", len(at)-1)+"(?, ?, ?))", args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scanEvent(rows.Scan)
		if err != nil {
			return err
		}
		out[e.Source] = e
	}
	return rows.Err()
}

func scanEvent(scan func(...any) error) (*StoredEvent, error) {
	e := &StoredEvent{}
	var id uuid.UUID
	var key, raw, payload, format string
	var at *time.Time
	err := scan(&e.Source.Cluster, &id, &e.Source.Topic, &e.Source.Partition, &e.Source.Offset, &key, &e.Headers, &raw, &payload,
		&e.ID, &e.Tenant, &format, &e.Type, &e.Entity, &e.Correlation, &e.ContentType, &at, &e.ProducedAt)
	if err != nil {
		return nil, err
	}
	e.Source.TopicID, e.Format = id, pipeline.Format(format)
	e.Key, e.Raw, e.Payload = []byte(key), []byte(raw), []byte(payload)
	if at != nil {
		e.Time = *at
	}
	return e, nil
}
