package sink

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// graceStop is how long a partition that is taken away may finish the block
	// under way; after it the block stays declared for the new owner.
	graceStop = 3 * time.Second
	// assignTimeout bounds the look-ups at an assignment, well below the rebalance
	// timeout (kgo: 60 s).
	assignTimeout = 15 * time.Second
)

// onFetched starts the partitions that were just assigned: it knows their
// committed offsets with the metadata. kgo fetches nothing before it returns.
func (s *Sink) onFetched(ctx context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	<-s.begun
	ctx, cancel := context.WithTimeout(ctx, assignTimeout)
	defer cancel()
	topics, err := s.describe(ctx, resp)
	if err != nil {
		s.health.kafka(err)
		return err
	}
	for i := range resp.Groups[0].Topics {
		rt := &resp.Groups[0].Topics[i]
		t, ok := topics[rt.Topic]
		if !ok {
			t, ok = byID(topics, rt.TopicID)
		}
		if !ok {
			continue
		}
		for j := range rt.Partitions {
			if rt.Partitions[j].ErrorCode == 0 {
				s.begin(t, &rt.Partitions[j])
			}
		}
	}
	return nil
}

// topicState is what an assignment needs to know of a topic.
type topicState struct {
	name   string
	id     [16]byte
	starts map[int32]int64 // the log's start
	ends   map[int32]int64 // the log's end
	since  map[int32]int64 // where a partition begins that was never seen
}

func byID(topics map[string]*topicState, id [16]byte) (*topicState, bool) {
	for _, t := range topics {
		if t.id == id {
			return t, true
		}
	}
	return nil, false
}

func (s *Sink) describe(ctx context.Context, resp *kmsg.OffsetFetchResponse) (map[string]*topicState, error) {
	if len(resp.Groups) != 1 {
		return nil, fmt.Errorf("looking up the sink's offsets: %d groups in the answer, not 1", len(resp.Groups))
	}
	var names []string
	for i := range resp.Groups[0].Topics {
		if name := resp.Groups[0].Topics[i].Topic; name != "" {
			names = append(names, name)
			continue
		}
		names = nil // told by id only: look at all
		break
	}
	if len(resp.Groups[0].Topics) == 0 {
		return nil, nil
	}
	meta, err := s.admin.Metadata(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("looking up the sink's topics: %w", err)
	}
	s.setCluster(meta.Cluster)
	out := map[string]*topicState{}
	for name, d := range meta.Topics {
		if d.Err == nil {
			out[name] = &topicState{name: name, id: d.ID}
		}
	}
	for i := range resp.Groups[0].Topics {
		rt := &resp.Groups[0].Topics[i]
		t, ok := out[rt.Topic]
		if !ok {
			if t, ok = byID(out, rt.TopicID); !ok {
				return nil, fmt.Errorf("looking up the sink's topics: %q has no metadata", rt.Topic)
			}
		}
		if err := s.look(ctx, t); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// look finds the offsets at which a topic's partitions begin.
func (s *Sink) look(ctx context.Context, t *topicState) error {
	starts, err := s.admin.ListStartOffsets(ctx, t.name)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("looking up the start of %s: %w", t.name, err)
	}
	t.starts = offsetsOf(starts, t.name)
	ends, err := s.admin.ListEndOffsets(ctx, t.name)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("looking up the end of %s: %w", t.name, err)
	}
	t.ends = offsetsOf(ends, t.name)
	t.since = t.starts
	if t.name == s.deps.AttemptsTopic || s.deps.EventsSince.IsZero() {
		return nil
	}
	since, err := s.admin.ListOffsetsAfterMilli(ctx, s.deps.EventsSince.UnixMilli(), t.name)
	if err == nil {
		err = since.Error()
	}
	if err != nil {
		return fmt.Errorf("looking up where to start in %s: %w", t.name, err)
	}
	t.since = offsetsOf(since, t.name)
	return nil
}

func offsetsOf(listed kadm.ListedOffsets, topic string) map[int32]int64 {
	out := map[int32]int64{}
	for id, o := range listed[topic] {
		out[id] = o.Offset
	}
	return out
}

// begin starts one partition at its committed offset, or where it was never
// seen, at t.since.
func (s *Sink) begin(t *topicState, at *kmsg.OffsetFetchResponseGroupTopicPartition) {
	p := newPartition(s, partitionID{t.name, at.Partition}, t.id)
	p.member, _ = s.client.GroupMetadata()
	if at.Offset < 0 {
		p.next, p.unseen = t.since[at.Partition], true
	} else {
		p.next = at.Offset
		if at.Metadata != nil {
			d, err := parseDeclaration(at.Offset, *at.Metadata)
			if err != nil {
				s.deps.Logger.Error("storing the delivery log: a block's declaration is unreadable: rows may be stored twice", "topic", t.name, "partition", at.Partition, "error", err)
			}
			p.declared = d
		}
	}
	p.place(t.starts[at.Partition], t.ends[at.Partition])
	p.reached.Store(p.next)
	s.mu.Lock()
	old := s.partitions[p.id]
	s.partitions[p.id] = p
	s.count.Store(int64(len(s.partitions)))
	s.mu.Unlock()
	if old != nil { // assigned anew without a revocation: its goroutine must be gone
		s.end([]*partition{old}, 0)
	}
	if p.declared != nil {
		s.buffer.resume(p.id)
	}
	go p.run()
}

// adjustOffsets sets where kgo fetches partitions that were never seen.
func (s *Sink) adjustOffsets(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, ids := range offsets {
		for id := range ids {
			if p := s.partitions[partitionID{topic, id}]; p != nil && p.unseen {
				ids[id] = kgo.NewOffset().At(p.next)
			}
		}
	}
	return offsets, nil
}

// onRevoked lets the partitions finish their block, for a moment.
func (s *Sink) onRevoked(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	s.end(s.take(lost), s.grace)
}

// onLost drops the partitions: somebody else may have them already.
func (s *Sink) onLost(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	s.end(s.take(lost), 0)
}

// take removes partitions from those assigned; nil: all.
func (s *Sink) take(ids map[string][]int32) []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.count.Store(int64(len(s.partitions))) }()
	var out []*partition
	if ids == nil {
		for _, p := range s.partitions {
			out = append(out, p)
		}
		clear(s.partitions)
		return out
	}
	for topic, list := range ids {
		for _, n := range list {
			id := partitionID{topic, n}
			if p := s.partitions[id]; p != nil {
				out = append(out, p)
				delete(s.partitions, id)
			}
		}
	}
	return out
}

// end stops partitions and returns when their goroutines are gone: after it
// none of them commits.
func (s *Sink) end(list []*partition, grace time.Duration) {
	for _, p := range list {
		close(p.leave)
		if grace == 0 {
			p.cancel()
		}
	}
	limit := time.NewTimer(grace)
	defer limit.Stop()
	for _, p := range list {
		select {
		case <-p.done:
		case <-limit.C:
			for _, q := range list {
				q.cancel()
			}
			limit.Reset(time.Hour) // all are cancelled: wait for each
			<-p.done
		}
		p.cancel()
	}
}

func (s *Sink) setCluster(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cluster = id
}

func (s *Sink) clusterID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cluster
}
