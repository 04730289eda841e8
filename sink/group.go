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
	if s.running.Err() != nil {
		return s.running.Err() // Run is about to end
	}
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
		a := s.assignment(t)
		for j := range rt.Partitions {
			if rt.Partitions[j].ErrorCode == 0 {
				if err := a.add(ctx, &rt.Partitions[j]); err != nil {
					s.health.kafka(err)
					return err
				}
			}
		}
		s.begin(a)
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

// assignment is what one topic's partitions that were just assigned begin with.
type assignment struct {
	t          *topicState
	st         *stream
	member     string
	partitions []*partition
	noted      *job                 // of those whose beginning is committed first; nil: none
	repeat     map[string]*job      // by declaration
	offsets    kadm.OffsetResponses // of the whole group; nil: not asked for
}

func (s *Sink) assignment(t *topicState) *assignment {
	a := &assignment{t: t, st: s.openStream(t.name), repeat: map[string]*job{}}
	a.member, _ = s.client.GroupMetadata()
	return a
}

// openStream gives the topic's stream, which it starts.
func (s *Sink) openStream(topic string) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[topic]
	if st == nil {
		st = newStream(s, topic)
		s.streams[topic] = st
		s.jobs.Go(func() { st.run(s.running) })
	}
	return st
}

// add finds where a partition begins: at its committed offset, after a declared block
// that is to be repeated, or where it was never seen, at t.since.
func (a *assignment) add(ctx context.Context, at *kmsg.OffsetFetchResponseGroupTopicPartition) error {
	p := newPartition(a.st, at.Partition, a.t.id)
	p.member = a.member
	a.partitions = append(a.partitions, p)
	var d *declaration
	if at.Offset < 0 {
		p.next, p.noted, p.moved = a.t.since[at.Partition], true, true
	} else {
		p.next = at.Offset
		var err error
		if d, err = a.declared(ctx, p, at); err != nil {
			return err
		}
		if d != nil {
			p.next, p.moved = d.of(p.id).to+1, true
		}
	}
	switch there := p.place(a.t.starts[at.Partition], a.t.ends[at.Partition]); {
	case p.noted:
		if a.noted == nil {
			a.noted = newJob(a.st, a.t.id)
		}
		a.noted.add(part{id: p.id, p: p})
	case d != nil && there:
		a.repeated(d, p)
	}
	return nil
}

// declared gives the block that was declared with a committed offset and is to be
// repeated; nil: none.
func (a *assignment) declared(ctx context.Context, p *partition, at *kmsg.OffsetFetchResponseGroupTopicPartition) (*declaration, error) {
	if at.Metadata == nil {
		return nil, nil //nolint:nilnil // no declaration is not an error
	}
	s := a.st.s
	d, err := parseDeclaration(at.Partition, at.Offset, *at.Metadata)
	if err != nil {
		s.deps.Logger.Error("storing the delivery log: a block's declaration is unreadable: rows may be stored twice", "topic", a.t.name, "partition", at.Partition, "error", err)
		return nil, nil //nolint:nilnil // told
	}
	if d == nil || a.repeat[d.String()] != nil || len(d.spans) == 1 {
		return d, nil
	}
	if a.offsets == nil {
		if a.offsets, err = s.committed(ctx, d); err != nil {
			return nil, err
		}
	}
	if !d.byAll(a.offsets, a.t.name) {
		p.noted = true  // else it would be taken for declared later, when others are past it
		return nil, nil //nolint:nilnil // it was not stored
	}
	return d, nil
}

// committed looks up the offsets of the group, for a declared block.
func (s *Sink) committed(ctx context.Context, d *declaration) (kadm.OffsetResponses, error) {
	offsets, err := s.admin.FetchOffsets(ctx, s.deps.Group)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("looking up whether the block %s was declared: %w", d, err)
	}
	return offsets, nil
}

// repeated notes that the partition has a block to be repeated: one for all partitions
// that have it.
func (a *assignment) repeated(d *declaration, p *partition) {
	j := a.repeat[d.String()]
	if j == nil {
		j = newJob(a.st, a.t.id)
		j.d = *d
		for _, span := range d.spans {
			j.parts = append(j.parts, part{id: span.partition})
		}
		a.repeat[d.String()] = j
	}
	for i := range j.parts {
		if j.parts[i].id == p.id {
			j.parts[i].p = p
		}
	}
	p.job = j
}

// begin has the partitions of an assignment stored from now on.
func (s *Sink) begin(a *assignment) {
	var old []*partition
	a.st.mu.Lock()
	for _, p := range a.partitions {
		if before := a.st.partitions[p.id]; before != nil { // assigned anew without a revocation
			old = append(old, before)
		}
		a.st.partitions[p.id] = p
	}
	a.st.mu.Unlock()
	s.recount()
	s.end(old, 0)
	if a.noted != nil {
		s.jobs.Go(a.noted.begin)
	}
	for _, j := range a.repeat {
		// What comes behind the block would fill the buffer where it cannot be read.
		s.client.PauseFetchPartitions(j.fetched())
		s.jobs.Go(j.repeat)
	}
}

// recount counts the streams with partitions.
func (s *Sink) recount() {
	n := int64(0)
	for _, st := range s.all() {
		if len(st.ids()) > 0 {
			n++
		}
	}
	s.count.Store(n)
}

// adjustOffsets sets where kgo fetches partitions that were never seen, or that have a
// block that is repeated first.
func (s *Sink) adjustOffsets(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	for topic, ids := range offsets {
		if st := s.stream(topic); st != nil {
			st.adjust(ids)
		}
	}
	return offsets, nil
}

func (st *stream) adjust(ids map[int32]kgo.Offset) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for id := range ids {
		if p := st.partitions[id]; p != nil && p.moved {
			ids[id] = kgo.NewOffset().At(p.next)
		}
	}
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
	defer s.recount()
	var out []*partition
	for _, st := range s.all() {
		if ids == nil {
			out = append(out, st.remove(st.ids())...)
			continue
		}
		var of []partitionID
		for _, id := range ids[st.topic] {
			of = append(of, partitionID{st.topic, id})
		}
		out = append(out, st.remove(of)...)
	}
	return out
}

func (st *stream) remove(ids []partitionID) (out []*partition) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, id := range ids {
		if p := st.partitions[id.id]; p != nil {
			out = append(out, p)
			delete(st.partitions, id.id)
		}
	}
	return out
}

// end gives partitions up, at once or once the jobs that have records of them are done,
// unless those wait for ClickHouse: after it no commit is made for them. One that was
// made before may still be written; the group's client joins anew behind it.
func (s *Sink) end(list []*partition, grace time.Duration) {
	for _, p := range list {
		p.st.leave(p)
	}
	limit := time.NewTimer(grace)
	defer limit.Stop()
	if grace > 0 {
		for _, p := range list {
			if p.st.failing(p) {
				continue
			}
			select {
			case <-p.idle:
				continue
			case <-limit.C:
			}
			break
		}
	}
	for _, p := range list {
		p.st.drop(p)
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
