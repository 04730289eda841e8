package router

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// use takes a partition's memory, nil where its topic has no dedupe, and what is in
// Kafka already of its events, for the records that are added next.
func (b *batch) use(m *memory, a *ahead) {
	b.ahead = a
	if b.memory = m; m != nil {
		b.memories = append(b.memories, m)
	}
}

// duplicate tells whether the event at hand repeats one of its partition.
func (b *batch) duplicate(rec *kgo.Record) bool {
	m := b.memory
	if m == nil {
		return false
	}
	key, ok := b.keys.key(&b.ev)
	if !ok {
		return false
	}
	return m.repeats(key, rec.Timestamp.UnixMilli(), rec.Offset)
}

// settle ends the memories' part of a transaction.
func (b *batch) settle(committed bool) {
	for _, m := range b.memories {
		if committed {
			m.settle()
			b.r.crowded(m)
		} else {
			m.undo()
			_ = m.takeDropped()
		}
	}
	clear(b.memories)
	b.memory, b.ahead, b.memories = nil, nil, b.memories[:0]
}

// crowded tells of ids that were forgotten before their time.
func (r *Router) crowded(m *memory) {
	n := m.takeDropped()
	if n == 0 {
		return
	}
	r.metrics.DedupeForgotten(n)
	if m.told {
		return
	}
	m.told = true
	r.log.Warn("a partition has more event ids within the topic's window than are remembered; the oldest are forgotten, and their duplicates are routed (use a shorter window or more partitions)",
		"topic", m.topic, "partition", m.partition, "limit", m.limit, "window", time.Duration(m.windowMillis)*time.Millisecond)
}

// remember builds the memories of partitions of a topic that are about to be
// read from at; nothing for a topic without dedupe.
func (s *starter) remember(ctx context.Context, fet *kafkax.Fetcher, topic string, id [16]byte, starts, at map[int32]int64) (map[int32]*memory, error) {
	spec := s.r.cfg.EventsTopics.find(topic)
	if spec == nil || spec.Options.DedupeWindow == 0 {
		return nil, nil //nolint:nilnil // there is nothing to remember
	}
	out := make(map[int32]*memory, len(at))
	for p, to := range at {
		m := newMemory(spec.Options.DedupeWindow.Milliseconds(), s.r.memoryIDs)
		m.topic, m.partition = topic, p
		src := pipeline.Position{Cluster: s.r.cluster, TopicID: id, Topic: topic, Partition: p}
		err := s.r.recall(ctx, fet, m, spec, src, starts[p], to)
		if kafkax.IsCorrupt(err) {
			// Routing an event twice is better than not routing a partition.
			s.r.log.Error("a batch cannot be read again to tell duplicates; those of what stands behind it are routed", "topic", topic, "partition", p, "error", err)
		} else if err != nil {
			return nil, fmt.Errorf("reading the ids of %s/%d before offset %d for dedupe: %w", topic, p, to, err)
		}
		out[p] = m
	}
	return out, nil
}

// recall fills m with what stands before offset to.
func (r *Router) recall(ctx context.Context, fet *kafkax.Fetcher, m *memory, spec *TopicSpec, src pipeline.Position, start, to int64) error {
	last, ok, err := lastBefore(ctx, fet, src, start, to)
	if err != nil || !ok {
		return err
	}
	window := time.Duration(m.windowMillis) * time.Millisecond
	after, err := fet.OffsetsAfter(ctx, last.Add(-window), src.Topic)
	if err != nil {
		return err
	}
	var keys keyer
	parse := r.newParse()
	var ev pipeline.Event
	return fet.Scan(ctx, src.Topic, src.Partition, max(after[src.Topic][src.Partition], start), to, func(rec *kgo.Record) error {
		src.Offset = rec.Offset
		m.forget(rec.Timestamp.UnixMilli())
		if r.guard(parse, rec, spec, &src, &ev) != nil {
			return nil // it is in events.dead
		}
		if key, ok := keys.key(&ev); ok {
			m.repeats(key, rec.Timestamp.UnixMilli(), rec.Offset)
			r.crowded(m)
		}
		m.settle()
		return nil
	})
}

// lastBefore gives the timestamp of the last record before an offset; offsets may
// be missing (transactions' ends, aborted or compacted records).
func lastBefore(ctx context.Context, fet *kafkax.Fetcher, src pipeline.Position, start, to int64) (at time.Time, ok bool, err error) {
	for back := int64(1); ; back *= 16 {
		from := max(start, to-back)
		err = fet.Scan(ctx, src.Topic, src.Partition, from, to, func(rec *kgo.Record) error {
			at, ok = rec.Timestamp, true
			return nil
		})
		if err != nil || ok || from == start || from >= to {
			return at, ok, err
		}
	}
}

// memory gives what is remembered of an assigned partition; nil: nothing is.
func (s *starter) memory(topic string, p int32) *memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.memories[topic][p]
}

// revoked is kgo's OnPartitionsRevoked and OnPartitionsLost: the memories are let
// go. A transaction with records of these partitions is not committed any more.
func (s *starter) revoked(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, ps := range parts {
		for _, p := range ps {
			delete(s.memories[topic], p)
			delete(s.aheads, kafkax.TopicPartition{Topic: topic, Partition: p})
		}
	}
}
