package kafkax

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

// readsAtOnce is how many partitions are read at once.
const readsAtOnce = 8

// End is how a record's transaction ended.
type End uint8

const (
	// EndUnknown: the record is not there any more.
	EndUnknown End = iota
	// EndOpen: nothing has ended it.
	EndOpen
	// EndCommitted: the first marker of its producer behind it is a commit's.
	EndCommitted
	// EndAborted: it is an abort's.
	EndAborted
)

// Range is a part of a partition, from an offset to before another one, or to the
// partition's present end if that is below, or To is 0.
type Range struct{ From, To int64 }

// Ends reads parts of partitions, with what is open or aborted there. It calls fn for those records that want asks for, as soon as it is
// known how their transaction ended; for what has no end there, at last, with EndOpen. What
// was written without a transaction is EndCommitted. One goroutine at a time calls
// want and fn.
func (f *Fetcher) Ends(ctx context.Context, parts map[TopicPartition]Range, want func(*kgo.Record) bool, fn func(*kgo.Record, End)) error {
	topics := map[string]bool{}
	for at := range parts {
		topics[at.Topic] = true
	}
	if len(topics) == 0 {
		return nil
	}
	ends, err := f.EndOffsets(ctx, slices.Collect(maps.Keys(topics))...)
	if err != nil {
		return err
	}
	raw := *f
	raw.uncommitted = true
	var turn sync.Mutex
	var reading errgroup.Group
	reading.SetLimit(readsAtOnce)
	for at, part := range parts {
		to := ends[at.Topic][at.Partition]
		if part.To > 0 {
			to = min(to, part.To)
		}
		reading.Go(func() error {
			open := undecided{want: want, fn: fn, of: map[int64][]*kgo.Record{}}
			err := raw.Scan(ctx, at.Topic, at.Partition, part.From, to, func(rec *kgo.Record) error {
				turn.Lock()
				defer turn.Unlock()
				open.take(rec)
				return nil
			})
			turn.Lock()
			defer turn.Unlock()
			for id := range open.of {
				open.end(id, EndOpen)
			}
			return err
		})
	}
	return reading.Wait()
}

// undecided are the records of a partition whose end was not read yet, by producer.
type undecided struct {
	want func(*kgo.Record) bool
	fn   func(*kgo.Record, End)
	of   map[int64][]*kgo.Record
}

// take looks at the next record of the partition.
func (u *undecided) take(rec *kgo.Record) {
	if rec.Attrs.IsControl() {
		var key kmsg.ControlRecordKey
		if key.ReadFrom(rec.Key) != nil {
			return // of a kind that ends nothing
		}
		switch key.Type {
		case kmsg.ControlRecordKeyTypeAbort:
			u.end(rec.ProducerID, EndAborted)
		case kmsg.ControlRecordKeyTypeCommit:
			u.end(rec.ProducerID, EndCommitted)
		}
		return
	}
	switch {
	case !u.want(rec):
	case rec.Attrs.IsTransactional():
		u.of[rec.ProducerID] = append(u.of[rec.ProducerID], rec)
	default:
		u.fn(rec, EndCommitted)
	}
}

func (u *undecided) end(producer int64, how End) {
	for _, rec := range u.of[producer] {
		u.fn(rec, how)
	}
	delete(u.of, producer)
}

// LeaderStarts gives, for every partition of topics, the offset from which on its
// present leader has written, or the same one since it was down: what is below was
// written before that. 0: there was no leader before; [math.MaxInt64]: it has written
// nothing.
func (f *Fetcher) LeaderStarts(ctx context.Context, topics ...string) (map[string]map[int32]int64, error) {
	out, err := f.leaderStarts(ctx, topics)
	if err != nil {
		return nil, fmt.Errorf("asking where the leaders of %v began: %w", topics, err)
	}
	return out, nil
}

func (f *Fetcher) leaderStarts(ctx context.Context, topics []string) (map[string]map[int32]int64, error) {
	listed, err := f.adm.ListTopics(ctx, topics...)
	if err != nil {
		return nil, err
	}
	out := map[string]map[int32]int64{}
	ask := kadm.OffsetForLeaderEpochRequest{}
	for _, t := range listed {
		if t.Err != nil {
			return nil, fmt.Errorf("%s: %w", t.Topic, t.Err)
		}
		out[t.Topic] = map[int32]int64{}
		for p, d := range t.Partitions {
			if d.Err != nil {
				return nil, fmt.Errorf("%s/%d: %w", t.Topic, p, d.Err)
			}
			if out[t.Topic][p] = 0; d.LeaderEpoch > 0 {
				ask.Add(t.Topic, p, d.LeaderEpoch-1)
			}
		}
	}
	if len(ask) == 0 {
		return out, nil
	}
	got, err := f.adm.OffsetForLeaderEpoch(ctx, ask)
	if err != nil {
		return nil, err
	}
	for topic, ps := range ask {
		for p := range ps {
			answer, ok := got[topic][p]
			if !ok {
				return nil, fmt.Errorf("%s/%d: no answer", topic, p)
			}
			if answer.Err != nil {
				return nil, fmt.Errorf("%s/%d: %w", topic, p, answer.Err)
			}
			out[topic][p] = answer.EndOffset
			if answer.EndOffset < 0 { // it knows of nothing that was written since
				out[topic][p] = math.MaxInt64
			}
		}
	}
	return out, nil
}

// OpenTransactions gives, for partitions, the producers that have a transaction open
// there, each with its first offset.
func (f *Fetcher) OpenTransactions(ctx context.Context, at []TopicPartition) (map[TopicPartition]map[int64]int64, error) {
	var set kadm.TopicsSet
	for _, p := range at {
		set.Add(p.Topic, p.Partition)
	}
	described, err := describeProducers(ctx, f.adm, set)
	if err != nil {
		return nil, err
	}
	out := make(map[TopicPartition]map[int64]int64, len(at))
	for _, p := range at {
		out[p] = map[int64]int64{}
	}
	described.EachProducer(func(p kadm.DescribedProducer) {
		if p.CurrentTxnStartOffset >= 0 {
			out[TopicPartition{p.Topic, p.Partition}][p.ProducerID] = p.CurrentTxnStartOffset
		}
	})
	return out, nil
}
