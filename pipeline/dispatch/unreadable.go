package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// originFetchBytes is what one read of a delivery's origin asks for; at least
// one batch comes.
const originFetchBytes = 64 << 10

// unreadableError says of a record that no later try will read it.
type unreadableError struct {
	why string
	raw *lane.Raw // nil: there is no such record
}

func (e *unreadableError) Error() string { return e.why }

// unreadable makes an unreadableError of why r cannot be decoded, unless a newer
// version can.
func unreadable(err error, r *kgo.Record) error {
	if errors.Is(err, kafkax.ErrNewer) {
		return fmt.Errorf("%s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	return &unreadableError{why: err.Error(), raw: rawOf(r)}
}

// permanent makes an error of a fetch that no later try will mend an
// unreadableError: the log does not have the record, or not whole.
func permanent(err error) error {
	if oor, ok := errors.AsType[*kafkax.OutOfRangeError](err); ok {
		return &unreadableError{why: oor.Error()}
	}
	if kafkax.IsCorrupt(err) {
		return &unreadableError{why: err.Error()}
	}
	return err
}

// load gets the work's payload: from its copy in parked or, where that cannot be
// read, from the record of deliveries that it was made of. An error is one that
// may pass; where none would help it fills in w.Unreadable.
func (d *Dispatcher) load(ctx context.Context, w *lane.Work) error {
	why := "its record in a retry topic cannot be read"
	if !w.FromOrigin {
		err := permanent(d.parked.load(ctx, w))
		bad, ok := errors.AsType[*unreadableError](err)
		if !ok {
			return err
		}
		why, w.Raw = bad.why, bad.raw
	}
	d.log.Error("a delivery's copy cannot be read: its origin is read instead", "topic", d.topics.Deliveries(),
		"partition", w.Task.Partition(), "offset", w.Origin, "lane", w.LaneKey(), "err", why)
	err := permanent(d.loadOrigin(ctx, w))
	if bad, ok := errors.AsType[*unreadableError](err); ok {
		w.Unreadable = why + "; nor its origin: " + bad.why
		if w.Raw == nil {
			w.Raw = bad.raw
		}
		return nil
	}
	return err
}

// loadOrigin makes the delivery again of its record in deliveries.
func (d *Dispatcher) loadOrigin(ctx context.Context, w *lane.Work) error {
	topic, p := d.topics.Deliveries(), w.Task.Partition()
	recs, _, err := d.fetcher.At(ctx, topic, p, w.Origin, originFetchBytes)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(recs, func(r *kgo.Record) bool { return r.Offset == w.Origin })
	if i < 0 {
		return &unreadableError{why: fmt.Sprintf("%s/%d has no record at offset %d", topic, p, w.Origin)}
	}
	rec, err := decodeDelivery(recs[i])
	if err != nil {
		return unreadable(err, recs[i])
	}
	sub := pipeline.LaneSubscription(w.LaneKey())
	if !slices.Contains(rec.Subs, sub) ||
		pipeline.LaneKeyOf(sub, pipeline.LaneOrdering(w.LaneKey()), rec.Envelope, w.Origin) != w.LaneKey() {
		return &unreadableError{why: fmt.Sprintf("%s/%d/%d is not of lane %q", topic, p, w.Origin, w.LaneKey()), raw: rawOf(recs[i])}
	}
	w.Envelope, w.Header, w.Payload = rec.Envelope, rec.Header, rec.Payload
	return nil
}

// rawOf keeps a record that cannot be read, with what can be told of it.
func rawOf(r *kgo.Record) *lane.Raw {
	raw := &lane.Raw{Topic: r.Topic, Offset: r.Offset, Key: r.Key, Value: r.Value, Origin: -1}
	for _, h := range r.Headers {
		raw.Headers = append(raw.Headers, lane.RawHeader{Key: h.Key, Value: h.Value})
	}
	key, origin := string(header(r, kafkax.HeaderLane)), header(r, kafkax.HeaderOrigin)
	if o, err := strconv.ParseInt(string(origin), 10, 64); err == nil && o >= 0 && pipeline.LaneSubscription(key) == string(r.Key) {
		raw.Lane, raw.Origin = key, o
	}
	return raw
}

// Headers of a dead record whose delivery could not be read, besides those that
// every dead record has. The headers of the raw record follow, each with
// headerRaw before its name.
const (
	headerRecord = "hookline-record" // topic/partition/offset of the raw record
	headerRaw    = "hookline-raw-"
)

// unreadableRecord is the dead record of a delivery that could not be read: the
// bytes as they were found, and what is known of it.
func (d *Dispatcher) unreadableRecord(p int32, o *lane.Out) *kgo.Record {
	r := &kgo.Record{
		Topic: d.topics.Dead(), Partition: p, Key: []byte(o.Subscription),
		Headers: []kgo.RecordHeader{
			{Key: kafkax.HeaderSubscription, Value: []byte(o.Subscription)},
			{Key: kafkax.HeaderReason, Value: []byte(o.Reason)},
			{Key: kafkax.HeaderMadeAttempts, Value: strconv.AppendInt(nil, int64(o.Attempts), 10)},
			{Key: kafkax.HeaderError, Value: []byte(kafkax.CleanError(o.Error))},
		},
	}
	if o.Origin >= 0 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: kafkax.HeaderOrigin, Value: strconv.AppendInt(nil, o.Origin, 10)})
	}
	if raw := o.Raw; raw != nil {
		if r.Value = raw.Value; len(r.Key) == 0 {
			r.Key = raw.Key
		}
		at := raw.Topic + "/" + strconv.Itoa(int(p)) + "/" + strconv.FormatInt(raw.Offset, 10)
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headerRecord, Value: []byte(at)})
		for _, h := range raw.Headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: headerRaw + h.Key, Value: h.Value})
		}
	}
	return r
}
