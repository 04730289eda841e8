package dispatch

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// parkedFetchBytes is what one read of parked/p asks for. Lanes drain in the
	// order of the log, more or less, so what follows is wanted soon.
	parkedFetchBytes = 512 << 10
	// parkedCacheBytes bounds each of the two shelves of one partition.
	parkedCacheBytes = 2 << 20
)

// parkedCache reads parked records by offset, one read at a time for each
// partition, and keeps what a read brought besides. Safe for concurrent use.
type parkedCache struct {
	fetcher *kafkax.Fetcher
	topic   string

	mu    sync.Mutex
	parts map[int32]*parkedPartition // under mu
}

// parkedPartition keeps apart what a read brought for the subscription that
// asked and for others. Many subscriptions drain at different paces, so that
// each reads in another place of the log: on one shelf each read would throw out
// what the one before had brought, and every delivery would cost a read.
type parkedPartition struct {
	mu       sync.Mutex
	own, too shelf // under mu
}

// shelf is a bounded number of records, the oldest read out first.
type shelf struct {
	recs  map[int64]*kgo.Record
	order []int64 // offsets of recs, oldest read first
	bytes int
}

func newParkedCache(f *kafkax.Fetcher, topic string) *parkedCache {
	return &parkedCache{fetcher: f, topic: topic, parts: map[int32]*parkedPartition{}}
}

// forget drops what is kept of a partition.
func (c *parkedCache) forget(p int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.parts, p)
}

func (c *parkedCache) part(p int32) *parkedPartition {
	c.mu.Lock()
	defer c.mu.Unlock()
	pp := c.parts[p]
	if pp == nil {
		pp = &parkedPartition{own: shelf{recs: map[int64]*kgo.Record{}}, too: shelf{recs: map[int64]*kgo.Record{}}}
		c.parts[p] = pp
	}
	return pp
}

// load fills in the work from its parked record.
func (c *parkedCache) load(ctx context.Context, w *lane.Work) error {
	r, err := c.get(ctx, w.Task.Partition(), w.ParkedOffset)
	if err != nil {
		return err
	}
	cp, err := kafkax.ParseCopy(r)
	if err != nil {
		return &unreadableError{why: err.Error(), raw: rawOf(r)}
	}
	if cp.Origin != w.Origin || cp.Lane != w.LaneKey() {
		why := fmt.Sprintf("%s/%d/%d is of lane %q, origin %d; wanted lane %q, origin %d",
			r.Topic, r.Partition, r.Offset, cp.Lane, cp.Origin, w.LaneKey(), w.Origin)
		return &unreadableError{why: why, raw: rawOf(r)}
	}
	env := new(pipeline.Envelope)
	if err := kafkax.DecodeEnvelope(cp.Envelope, env); err != nil {
		return &unreadableError{why: err.Error(), raw: rawOf(r)}
	}
	w.Envelope, w.Header, w.Payload = env, cp.Envelope, cp.Payload
	return nil
}

func (c *parkedCache) get(ctx context.Context, p int32, off int64) (*kgo.Record, error) {
	pp := c.part(p)
	pp.mu.Lock()
	defer pp.mu.Unlock()
	for _, sh := range []*shelf{&pp.own, &pp.too} {
		if r := sh.recs[off]; r != nil {
			sh.remove(off, r)
			return r, nil
		}
	}
	recs, _, err := c.fetcher.At(ctx, c.topic, p, off, parkedFetchBytes)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(recs, func(r *kgo.Record) bool { return r.Offset == off })
	if i < 0 {
		return nil, &unreadableError{why: fmt.Sprintf("%s/%d has no record at offset %d", c.topic, p, off)}
	}
	found := recs[i]
	for _, r := range recs[i+1:] {
		if bytes.Equal(r.Key, found.Key) {
			pp.own.add(r)
		} else {
			pp.too.add(r)
		}
	}
	return found, nil
}

func (s *shelf) remove(off int64, r *kgo.Record) {
	delete(s.recs, off)
	s.bytes -= len(r.Value)
}

func (s *shelf) add(r *kgo.Record) {
	if s.recs[r.Offset] != nil {
		return
	}
	s.recs[r.Offset] = r
	s.order = append(s.order, r.Offset)
	s.bytes += len(r.Value)
	for s.bytes > parkedCacheBytes && len(s.order) > 0 {
		off := s.order[0]
		s.order = s.order[1:]
		if old := s.recs[off]; old != nil {
			s.remove(off, old)
		}
	}
	// Offsets that were taken stay in order until their turn: drop them when
	// they are most of it.
	if len(s.order) > 64 && len(s.order) > 4*len(s.recs) {
		kept := s.order[:0]
		for _, off := range s.order {
			if s.recs[off] != nil {
				kept = append(kept, off)
			}
		}
		s.order = kept
	}
}
