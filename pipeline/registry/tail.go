package registry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrTopicLost says that the topic is not the one that reading began with, or
// has lost records: only a start from the beginning can tell what it holds.
var ErrTopicLost = errors.New("the topic was deleted, made anew or truncated while it was read (restart)")

// tail reads the topic's one partition by plain fetch requests. A consumer would
// not say how far it has come where the last records are compacted away, aborted
// or control records; a version that others wait for must be reached over these
// too. Not safe for concurrent use.
type tail struct {
	client *kgo.Client
	topic  string
	id     [16]byte
	leader *kgo.Broker // nil: to be looked up
	next   int64       // the next offset to read; all below was read
	stable int64       // what was committed, when the last fetch was answered
}

const (
	fetchBytes = 8 << 20 // of one answer; a larger batch still comes whole
	// readCommitted is the isolation level of fetch and list-offsets requests.
	readCommitted = 1
)

// locate finds the partition's leader.
func (t *tail) locate(ctx context.Context) error {
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = kmsg.StringPtr(t.topic)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, t.client)
	if err != nil {
		return fmt.Errorf("looking up topic %s: %w", t.topic, err)
	}
	if len(resp.Topics) != 1 {
		return fmt.Errorf("looking up topic %s: got %d topics in answer", t.topic, len(resp.Topics))
	}
	rt0 := &resp.Topics[0]
	if err := kerr.ErrorForCode(rt0.ErrorCode); err != nil {
		return fmt.Errorf("looking up topic %s: %w", t.topic, err)
	}
	if len(rt0.Partitions) != 1 {
		return fmt.Errorf("%w: %s has %d", errPartitions, t.topic, len(rt0.Partitions))
	}
	if t.id != [16]byte{} && t.id != rt0.TopicID {
		return fmt.Errorf("reading topic %s: %w", t.topic, ErrTopicLost)
	}
	p := &rt0.Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		return fmt.Errorf("looking up the leader of %s/0: %w", t.topic, err)
	}
	t.id, t.leader = rt0.TopicID, t.client.Broker(int(p.Leader))
	return nil
}

var errPartitions = errors.New("the subscriptions topic must have one partition (its offsets are the registry's versions)")

// end is the offset behind the last record, be it committed or not.
func (t *tail) end(ctx context.Context) (int64, error) { return t.list(ctx, -1) }

// begin puts the tail at the first record.
func (t *tail) begin(ctx context.Context) (err error) {
	t.next, err = t.list(ctx, -2)
	return err
}

func (t *tail) list(ctx context.Context, timestamp int64) (int64, error) {
	if t.leader == nil {
		if err := t.locate(ctx); err != nil {
			return 0, err
		}
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = t.topic
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Timestamp, rp.CurrentLeaderEpoch = timestamp, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	kresp, err := t.leader.Request(ctx, req)
	if err != nil {
		t.leader = nil
		return 0, fmt.Errorf("listing the offsets of %s: %w", t.topic, err)
	}
	resp := kresp.(*kmsg.ListOffsetsResponse)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		t.leader = nil
		return 0, fmt.Errorf("listing the offsets of %s: the answer has no partition", t.topic)
	}
	p := &resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		t.leader = nil
		return 0, fmt.Errorf("listing the offsets of %s: %w", t.topic, err)
	}
	return p.Offset, nil
}

// fetch reads on, waiting at most wait for a first record. It returns the
// committed records; t.next moves over all others too.
func (t *tail) fetch(ctx context.Context, wait time.Duration) ([]*kgo.Record, error) {
	if t.leader == nil {
		if err := t.locate(ctx); err != nil {
			return nil, err
		}
	}
	t.stable = math.MaxInt64 // not known yet
	kresp, err := t.leader.Request(ctx, t.request(wait))
	if err != nil {
		t.leader = nil
		return nil, fmt.Errorf("fetching from %s/0: %w", t.topic, err)
	}
	resp := kresp.(*kmsg.FetchResponse)
	err = kerr.ErrorForCode(resp.ErrorCode)
	if err == nil && (len(resp.Topics) == 0 || len(resp.Topics[0].Partitions) == 0) {
		return nil, nil // throttled: says nothing of the partition
	}
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange):
		return nil, fmt.Errorf("fetching from %s/0 at %d: %w", t.topic, t.next, ErrTopicLost)
	case err != nil:
		t.leader = nil
		return nil, fmt.Errorf("fetching from %s/0: %w", t.topic, err)
	}
	return t.take(&resp.Topics[0].Partitions[0])
}

func (t *tail) request(wait time.Duration) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(wait.Milliseconds()), 1, fetchBytes
	req.IsolationLevel, req.SessionID, req.SessionEpoch = readCommitted, 0, -1 // no session
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = t.topic, t.id
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = t.next, fetchBytes, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// whole tells whether everything has been read that was committed when the last
// fetch was answered.
func (t *tail) whole() bool { return t.next >= t.stable }

func (t *tail) take(p *kmsg.FetchResponseTopicPartition) ([]*kgo.Record, error) {
	t.stable = p.LastStableOffset
	if len(p.RecordBatches) == 0 {
		// Nothing between here and the last stable offset: compacted away. The
		// broker takes that offset before it reads.
		t.next = max(t.next, p.LastStableOffset)
		return nil, nil
	}
	out, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: t.next, IsolationLevel: kgo.ReadCommitted(), Topic: t.topic,
	}, p, kgo.DefaultDecompressor(), nil)
	if out.Err != nil {
		return nil, fmt.Errorf("decoding %s/0 at %d: %w", t.topic, t.next, out.Err)
	}
	if next <= t.next {
		return nil, fmt.Errorf("decoding %s/0 at %d: the answer has no whole batch", t.topic, t.next)
	}
	t.next = next
	return out.Records, nil
}
