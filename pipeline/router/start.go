package router

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/kafkax"
)

// firstSightPoll is how often a member looks whether another one has settled
// where a new topic is read from.
const firstSightPoll = 20 * time.Millisecond

// starter decides where partitions are read from when they are assigned, and
// notices what was removed before it was read.
//
// At a topic's first sight START counts, for all its partitions at once: the
// member that gets partition 0 commits the starting point of every partition
// before anything is read, and the others wait for that commit. Without it, an
// idle topic would be seen "for the first time" again after a restart, and
// "latest" would skip what came meanwhile. A partition without a commit in a
// topic that has some was added later: it is read from its beginning.
type starter struct {
	r   *Router
	aux *kgo.Client // plain client for requests

	mu       sync.Mutex
	session  *kgo.Client                // the session's client; set when partitions are assigned
	position map[string]map[int32]int64 // next offset expected of each partition
	ids      map[string][16]byte        // topic ids
	memories map[string]map[int32]*memory
	aheads   map[kafkax.TopicPartition]*ahead
}

func newStarter(r *Router, aux *kgo.Client) *starter {
	return &starter{r: r, aux: aux, position: map[string]map[int32]int64{}, ids: map[string][16]byte{}, memories: map[string]map[int32]*memory{}, aheads: map[kafkax.TopicPartition]*ahead{}}
}

// assigned is kgo's OnPartitionsAssigned; it goes before adjust.
func (s *starter) assigned(_ context.Context, cl *kgo.Client, _ map[string][]int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session = cl
}

// adjust is kgo's AdjustFetchOffsetsFn.
func (s *starter) adjust(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	fet := kafkax.NewFetcher(s.aux) // a new one: a topic may have been made anew since
	assigned := map[kafkax.TopicPartition]kafkax.Committed{}
	for topic, parts := range offsets {
		at, err := s.startOf(ctx, fet, topic, parts, assigned)
		if err != nil {
			return nil, fmt.Errorf("deciding where topic %s is read from: %w", topic, err)
		}
		for p, o := range at {
			parts[p] = kgo.NewOffset().At(o)
		}
	}
	if err := s.lookAhead(ctx, fet, assigned); err != nil {
		return nil, err
	}
	return offsets, nil
}

// startOf gives the starting points of those partitions for which it is not the
// committed offset, and adds the committed ones to assigned.
func (s *starter) startOf(ctx context.Context, fet *kafkax.Fetcher, topic string, parts map[int32]kgo.Offset, assigned map[kafkax.TopicPartition]kafkax.Committed) (map[int32]int64, error) {
	starts, err := fet.StartOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	ends, err := fet.EndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	id, err := fet.TopicID(ctx, topic)
	if err != nil {
		return nil, err
	}
	committed, err := s.settle(ctx, fet, topic, parts, starts[topic])
	if err != nil {
		return nil, err
	}
	from := map[int32]int64{}
	for p := range parts {
		from[p] = min(max(committed[p].Offset, starts[topic][p]), ends[topic][p])
	}
	memories, err := s.remember(ctx, fet, topic, id, starts[topic], from)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids[topic] = id
	if s.position[topic] == nil {
		s.position[topic], s.memories[topic] = map[int32]int64{}, map[int32]*memory{}
	}
	maps.Copy(s.memories[topic], memories)
	out := map[int32]int64{}
	for p := range parts {
		start, end := starts[topic][p], ends[topic][p]
		at := committed[p].Offset
		assigned[kafkax.TopicPartition{Topic: topic, Partition: p}] = committed[p]
		switch {
		case at < 0:
			out[p] = start
			at = start
		case at < start:
			s.gap(topic, p, at, start)
			out[p] = start
			at = start
		case at > end:
			s.r.log.Error("the committed offset is beyond the log's end: the topic was made anew or lost records; reading it from where they part, or from its start",
				"topic", topic, "partition", p, "committed", at, "end", end)
		case parts[p].EpochOffset().Offset < 0:
			out[p] = at // committed by settle after kgo had asked
		}
		s.position[topic][p] = at
	}
	return out, nil
}

// settle gives the committed offsets of all partitions of topic. Where there are
// none, this is its first sight.
func (s *starter) settle(ctx context.Context, fet *kafkax.Fetcher, topic string, mine map[int32]kgo.Offset, starts map[int32]int64) (map[int32]kafkax.Committed, error) {
	group := s.r.kafka.RouterGroup()
	all := make([]int32, 0, len(starts))
	for p := range starts {
		all = append(all, p)
	}
	for {
		got, err := fet.StableOffsets(ctx, group, map[string][]int32{topic: all})
		if err != nil {
			return nil, err
		}
		for _, c := range got[topic] {
			if c.Offset >= 0 {
				return got[topic], nil
			}
		}
		if _, ok := mine[0]; ok {
			return s.firstSight(ctx, fet, topic, starts)
		}
		select {
		case <-time.After(firstSightPoll):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// firstSight commits where topic is read from.
func (s *starter) firstSight(ctx context.Context, fet *kafkax.Fetcher, topic string, starts map[int32]int64) (map[int32]kafkax.Committed, error) {
	from, start := map[string]map[int32]int64{topic: starts}, s.r.cfg.Start
	var err error
	switch {
	case start.earliest:
	case start.at.IsZero():
		from, err = fet.StableEnds(ctx, topic)
	default:
		from, err = fet.OffsetsAfter(ctx, start.at, topic)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	id, generation := s.session.GroupMetadata()
	s.mu.Unlock()
	member := kafkax.Member{ID: id, Generation: generation, Instance: s.r.kafka.InstanceID}
	out := make(map[int32]kafkax.Committed, len(from[topic]))
	for p, o := range from[topic] {
		out[p] = kafkax.Committed{Offset: max(o, 0)}
	}
	if err := fet.CommitOffsets(ctx, s.r.kafka.RouterGroup(), member, map[string]map[int32]kafkax.Committed{topic: out}); err != nil {
		return nil, err
	}
	s.r.log.Info("event topic seen for the first time", "topic", topic, "partitions", len(out), "start", start.String())
	return out, nil
}

// gap reports offsets that were removed before they were read. s.mu is held.
func (s *starter) gap(topic string, p int32, from, to int64) {
	label := formatUnknown
	if spec := s.r.cfg.EventsTopics.find(topic); spec != nil && spec.Options.Format != "" {
		label = string(spec.Options.Format)
	}
	s.r.metrics.Event(label, ResultGap, int(to-from))
	s.r.log.Error("events were removed before they were read (retention, or DeleteRecords)",
		"topic", topic, "partition", p, "offsets", to-from, "first", from, "last", to-1)
}

// seen notes what was polled of a partition and reports a gap before it.
func (s *starter) seen(p *kgo.FetchPartition, topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.position[topic][p.Partition]
	if !ok {
		return // not assigned any more
	}
	if p.LogStartOffset > at {
		s.gap(topic, p.Partition, at, p.LogStartOffset)
		at = p.LogStartOffset
	}
	if n := len(p.Records); n > 0 {
		at = max(at, p.Records[n-1].Offset+1)
	}
	s.position[topic][p.Partition] = at
}

// rewind goes back to what is committed, after an aborted transaction.
func (s *starter) rewind(committed map[string]map[int32]kgo.EpochOffset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, parts := range committed {
		for p, o := range parts {
			if at, ok := s.position[topic][p]; ok && o.Offset >= 0 && o.Offset < at {
				s.position[topic][p] = o.Offset
			}
		}
	}
}

// topicID gives the id of a topic that is assigned.
func (s *starter) topicID(topic string) ([16]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.ids[topic]
	return id, ok
}
