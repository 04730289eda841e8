package sink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/logshape"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// Headers of a record in the topic webhook_called.
const (
	// headerAttempt is the attempt's id: unique by try, so that a consumer knows a
	// record again that came twice.
	headerAttempt      = "hookline-attempt"
	headerSubscription = "hookline-subscription"
	headerDelivery     = "webhook-id"
)

// caller makes goflow's webhook_called of attempts. It reads the events' bodies
// from their topics: in ClickHouse they may arrive later, or never.
type caller struct {
	topic     string
	bodyBytes int
	parse     func(*kgo.Record, *pipeline.Position) (*pipeline.Event, error)
	client    *kgo.Client // consumes nothing, as fetch wants it; also produces
	fetch     *kafkax.Fetcher
}

// bodyFetchBytes is how much of an event topic is read at once: neighbours of
// an event are likely wanted next.
const bodyFetchBytes = 1 << 20

func newCaller(deps *Deps) (*caller, error) {
	client, err := kgo.NewClient(append(slices.Clone(deps.ClientOpts), kgo.RequiredAcks(kgo.AllISRAcks()))...)
	if err != nil {
		return nil, fmt.Errorf("making the Kafka client for %s: %w", deps.WebhookCalledTopic, err)
	}
	return &caller{topic: deps.WebhookCalledTopic, bodyBytes: deps.DumpBodyBytes, parse: deps.ParseEvent, client: client, fetch: kafkax.NewFetcher(client)}, nil
}

// calledRow is an attempt of a goflow event, and the record made of it.
type calledRow struct {
	attempt pipeline.Attempt
	dropped bool
	rec     *kgo.Record
}

// rows takes the attempts of goflow events out of a batch. They share its
// memory.
func (c *caller) rows(rec *kgo.Record) []calledRow {
	var out []calledRow
	// What is unreadable is reported by who stores it.
	_ = attemptlog.Decode(rec.Value, func(row *attemptlog.Row) error {
		if row.Envelope.Format == pipeline.FormatGoflow && check(row) == nil && logshape.Logged(&row.Attempt) {
			out = append(out, calledRow{attempt: row.Attempt, dropped: row.WithoutBodies})
		}
		return nil
	})
	return out
}

// records makes the records of a batch, in the order of its attempts. An error
// is Kafka's, and passes.
func (c *caller) records(ctx context.Context, batch *kgo.Record) ([]*kgo.Record, error) {
	rows := c.rows(batch)
	byEvent := make([]*calledRow, len(rows))
	for i := range rows {
		byEvent[i] = &rows[i]
	}
	slices.SortStableFunc(byEvent, func(a, b *calledRow) int {
		p, q := &a.attempt.Envelope.Source, &b.attempt.Envelope.Source
		return cmp.Or(cmp.Compare(p.Topic, q.Topic), cmp.Compare(p.Partition, q.Partition), cmp.Compare(p.Offset, q.Offset))
	})
	src := bodySource{c: c}
	for _, row := range byEvent {
		ev, err := src.event(ctx, &row.attempt.Envelope.Source)
		if err != nil {
			return nil, err
		}
		row.rec = c.record(row, ev)
	}
	out := make([]*kgo.Record, len(rows))
	for i := range rows {
		out[i] = rows[i].rec
	}
	return out, nil
}

// record makes a record; ev is nil where the event is not to be had any more.
func (c *caller) record(row *calledRow, ev *pipeline.Event) *kgo.Record {
	a := &row.attempt
	called := logshape.Called{BodyBytes: c.bodyBytes, BodiesDropped: row.dropped}
	if ev != nil {
		called.Payload, called.Resthook = ev.Payload, ev.Resthook
	}
	return &kgo.Record{
		Topic: c.topic, Key: []byte(a.Envelope.EventID), Value: logshape.AppendWebhookCalled(nil, a, called),
		Headers: []kgo.RecordHeader{
			{Key: headerAttempt, Value: []byte(a.AttemptID)},
			{Key: headerSubscription, Value: []byte(a.SubscriptionID)},
			{Key: headerDelivery, Value: []byte(a.DeliveryID)},
		},
	}
}

// bodySource reads events in the order of their positions.
type bodySource struct {
	c     *caller
	at    pipeline.Position // of the first of recs, as it was asked for
	recs  []*kgo.Record
	valid bool
}

// event gives the event at p, or nil where it is gone: removed by retention, or
// with its topic.
func (s *bodySource) event(ctx context.Context, p *pipeline.Position) (*pipeline.Event, error) {
	if rec := s.find(p); rec != nil {
		return s.parse(rec, p), nil
	}
	topic := strings.Clone(p.Topic) // fetch keeps it, and it is a part of the batch
	id, err := s.c.fetch.TopicID(ctx, topic)
	if err == nil && id == p.TopicID {
		s.recs, _, err = s.c.fetch.At(ctx, topic, p.Partition, p.Offset, bodyFetchBytes)
		s.at, s.valid = *p, err == nil
	}
	if gone(err) {
		return nil, nil //nolint:nilnil // there is no such event, and no error
	}
	if err != nil {
		return nil, fmt.Errorf("reading the event at %s: %w", p, err)
	}
	if rec := s.find(p); rec != nil {
		return s.parse(rec, p), nil
	}
	return nil, nil //nolint:nilnil // as above
}

func gone(err error) bool {
	_, anew := errors.AsType[*kafkax.RecreatedError](err)
	return anew || errors.Is(err, kerr.OffsetOutOfRange) || errors.Is(err, kerr.UnknownTopicOrPartition)
}

func (s *bodySource) find(p *pipeline.Position) *kgo.Record {
	if !s.valid || s.at.Topic != p.Topic || s.at.TopicID != p.TopicID || s.at.Partition != p.Partition {
		return nil
	}
	i, found := slices.BinarySearchFunc(s.recs, p.Offset, func(r *kgo.Record, at int64) int { return cmp.Compare(r.Offset, at) })
	if !found {
		return nil
	}
	return s.recs[i]
}

func (s *bodySource) parse(rec *kgo.Record, p *pipeline.Position) *pipeline.Event {
	ev, err := s.c.parse(rec, p)
	if err != nil {
		return nil // it was an event when it was routed: the configuration changed
	}
	return ev
}

// call produces webhook_called records for the attempts of our partitions. It repeats
// until Kafka has them; false: the partitions are left, and whoever has them next
// makes them again.
func (j *job) call() bool {
	c := j.st.s.caller
	if c == nil || j.st.table != tableAttempts {
		return true
	}
	for _, part := range j.parts {
		if j.isOurs(part.id) && !j.callFor(c, part.recs) {
			return false
		}
	}
	return true
}

func (j *job) callFor(c *caller, recs []*kgo.Record) bool {
	for _, batch := range recs {
		for {
			out, err := c.records(j.ctx, batch)
			if err == nil {
				err = c.produce(j.ctx, out)
			}
			if err == nil {
				break
			}
			j.st.s.health.kafka(fmt.Errorf("producing to %s: %w", c.topic, err))
			if j.ctx.Err() != nil || !j.pause(commitRetry) {
				return false
			}
		}
	}
	return true
}

// produce returns when Kafka has all of recs, or with an error when it may have
// some of them.
func (c *caller) produce(ctx context.Context, recs []*kgo.Record) error {
	if len(recs) == 0 {
		return nil
	}
	var again []*kgo.Record
	for _, r := range c.client.ProduceSync(ctx, recs...) {
		switch {
		case r.Err == nil:
		case errors.Is(r.Err, kerr.MessageTooLarge):
			again = append(again, r.Record)
		default:
			return r.Err
		}
	}
	for _, rec := range again {
		small, err := logshape.WithoutDumps(rec.Value)
		if err != nil {
			return err
		}
		rec.Value = small
	}
	if len(again) == 0 {
		return nil
	}
	return c.client.ProduceSync(ctx, again...).FirstErr()
}
