package sink

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
)

// storedEvent is a row of the table events as EventRecords asks for it. Bytes are
// in base64: they need not be text.
type storedEvent struct {
	Offset  string         `json:"o"`
	TimeMS  string         `json:"t"`
	Key     string         `json:"k"`
	Raw     string         `json:"v"`
	Names   []string       `json:"hk"`
	Values  []string       `json:"hv"`
	Unknown jsontext.Value `json:",embed"`
}

// EventRecords gives the event records that the table events has of one source
// partition, by offset: from src.Offset on and below to, produced from since on
// and before until (zero: no such bound), at most limit. Two headers of one name
// come as one.
func (r *Reader) EventRecords(ctx context.Context, src pipeline.Position, to int64, since, until time.Time, limit int) ([]*kgo.Record, error) {
	where := sourceIs(&src)
	where += fmt.Sprintf(" AND source_offset >= %d AND source_offset < %d", src.Offset, to)
	if !since.IsZero() {
		where += fmt.Sprintf(" AND produced_at >= fromUnixTimestamp64Milli(toInt64(%d))", since.UnixMilli())
	}
	if !until.IsZero() {
		where += fmt.Sprintf(" AND produced_at < fromUnixTimestamp64Milli(toInt64(%d))", until.UnixMilli())
	}
	sql := "SELECT toString(source_offset) AS o, toString(toUnixTimestamp64Milli(produced_at)) AS t, base64Encode(key) AS k, base64Encode(raw) AS v, " +
		"arrayMap(x -> base64Encode(x), mapKeys(headers)) AS hk, arrayMap(x -> base64Encode(x), mapValues(headers)) AS hv " +
		"FROM events WHERE " + where + fmt.Sprintf(" ORDER BY source_offset LIMIT 1 BY source_offset LIMIT %d", limit)
	var out []*kgo.Record
	err := r.jsonRows(ctx, sql, func(line jsontext.Value) error {
		var e storedEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		rec, err := e.record(&src)
		if err == nil {
			out = append(out, rec)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading stored events of %s/%d: %w", src.Topic, src.Partition, err)
	}
	return out, nil
}

func (e *storedEvent) record(src *pipeline.Position) (*kgo.Record, error) {
	var errs []error
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		errs = append(errs, err)
		return n
	}
	raw := func(s string) []byte {
		b, err := base64.StdEncoding.DecodeString(s)
		errs = append(errs, err)
		return b
	}
	rec := &kgo.Record{
		Topic: src.Topic, Partition: src.Partition, Offset: number(e.Offset), Timestamp: time.UnixMilli(number(e.TimeMS)).UTC(), Value: raw(e.Raw),
	}
	if e.Key != "" {
		rec.Key = raw(e.Key)
	}
	for i := range min(len(e.Names), len(e.Values)) {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: string(raw(e.Names[i])), Value: raw(e.Values[i])})
	}
	return rec, errors.Join(errs...)
}

// EventPositions gives where the events with this id stand, that are in the table
// events or in the log of attempts.
func (r *Reader) EventPositions(ctx context.Context, eventID string) ([]pipeline.Position, error) {
	columns := "source_cluster AS c, toString(source_topic_id) AS i, source_topic AS s, toString(source_partition) AS p, toString(source_offset) AS o"
	sql := "SELECT DISTINCT * FROM (SELECT " + columns + " FROM events WHERE event_id = " + quoted(eventID) +
		" UNION ALL SELECT " + columns + " FROM attempts WHERE event_id = " + quoted(eventID) + ") ORDER BY s, i, toInt32(p), toInt64(o)"
	var out []pipeline.Position
	err := r.jsonRows(ctx, sql, func(line jsontext.Value) error {
		var row struct{ C, I, S, P, O string }
		if err := json.Unmarshal(line, &row, json.MatchCaseInsensitiveNames(true)); err != nil {
			return err
		}
		pos, err := position(row.C, row.I, row.S, row.P, row.O)
		if err == nil {
			out = append(out, pos)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("looking for event %.80q: %w", eventID, err)
	}
	return out, nil
}

func position(cluster, id, topic, partition, offset string) (pipeline.Position, error) {
	p := pipeline.Position{Cluster: cluster, Topic: topic}
	raw, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	if err != nil || len(raw) != len(p.TopicID) {
		return p, fmt.Errorf("%.60q is not a topic's id", id)
	}
	copy(p.TopicID[:], raw)
	n, err := strconv.ParseInt(partition, 10, 32)
	if err != nil {
		return p, err
	}
	p.Partition = int32(n)
	p.Offset, err = strconv.ParseInt(offset, 10, 64)
	return p, err
}

// DeliveryPositions calls each for deliveries in the log of attempts, by the time
// of their last attempt: of a subscription, or with an id; with failed only those
// that ended otherwise than by success. since and until bound that time. Tests are
// left out.
func (r *Reader) DeliveryPositions(ctx context.Context, subscription, delivery string, failed bool, since, until time.Time,
	each func(src pipeline.Position, subscription string) error,
) error {
	f := Filter{Subscription: subscription, Delivery: delivery, Since: since, Until: until, Last: true}
	if failed {
		f.Status = StatusFailed
	}
	for row, err := range r.Attempts(ctx, f) {
		if err != nil {
			return err
		}
		if failed && !row.Final {
			continue // it is still being tried
		}
		if row.Envelope.Source.Topic == pipeline.TestTopic {
			continue // it is of no event
		}
		if err := each(row.Envelope.Source, row.SubscriptionID); err != nil {
			return err
		}
	}
	return nil
}

func sourceIs(src *pipeline.Position) string {
	id := hex.EncodeToString(src.TopicID[:])
	uuid := id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
	return fmt.Sprintf("source_topic = %s AND source_partition = %d AND source_topic_id = toUUID('%s')", quoted(src.Topic), src.Partition, uuid)
}

// quoted is s as a literal of SQL.
func quoted(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\x00", `\0`).Replace(s) + "'"
}

// jsonRows runs a query and calls each for every row.
func (r *Reader) jsonRows(ctx context.Context, sql string, each func(jsontext.Value) error) error {
	body, err := r.Query(ctx, sql, "JSONEachRow")
	if err != nil {
		return err
	}
	defer body.Close()
	dec := jsontext.NewDecoder(body)
	for {
		line, err := dec.ReadValue()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(line); err != nil {
			return err
		}
	}
}
