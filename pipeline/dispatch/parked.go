package dispatch

import (
	"context"
	"fmt"
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
	// parkedCacheBytes bounds what is kept of one partition.
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

type parkedPartition struct {
	mu    sync.Mutex
	recs  map[int64]*kgo.Record // under mu
	order []int64               // offsets of recs, oldest read first; under mu
	bytes int                   // under mu
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
		pp = &parkedPartition{recs: map[int64]*kgo.Record{}}
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
		return err
	}
	if cp.Origin != w.Origin || cp.Lane != w.LaneKey() {
		return fmt.Errorf("it is of lane %q, origin %d; wanted lane %q, origin %d", cp.Lane, cp.Origin, w.LaneKey(), w.Origin)
	}
	env := new(pipeline.Envelope)
	if err := kafkax.DecodeEnvelope(cp.Envelope, env); err != nil {
		return err
	}
	w.Envelope, w.Header, w.Payload = env, cp.Envelope, cp.Payload
	return nil
}

func (c *parkedCache) get(ctx context.Context, p int32, off int64) (*kgo.Record, error) {
	pp := c.part(p)
	pp.mu.Lock()
	defer pp.mu.Unlock()
	if r := pp.recs[off]; r != nil {
		pp.remove(off, r)
		return r, nil
	}
	recs, _, err := c.fetcher.At(ctx, c.topic, p, off, parkedFetchBytes)
	if err != nil {
		return nil, err
	}
	var found *kgo.Record
	for _, r := range recs {
		if r.Offset == off {
			found = r
		} else {
			pp.add(r)
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%s/%d has no record at offset %d", c.topic, p, off)
	}
	return found, nil
}

func (pp *parkedPartition) remove(off int64, r *kgo.Record) {
	delete(pp.recs, off)
	pp.bytes -= len(r.Value)
}

func (pp *parkedPartition) add(r *kgo.Record) {
	if pp.recs[r.Offset] != nil {
		return
	}
	pp.recs[r.Offset] = r
	pp.order = append(pp.order, r.Offset)
	pp.bytes += len(r.Value)
	for pp.bytes > parkedCacheBytes && len(pp.order) > 0 {
		off := pp.order[0]
		pp.order = pp.order[1:]
		if old := pp.recs[off]; old != nil {
			pp.remove(off, old)
		}
	}
	// Offsets that were taken stay in order until their turn: drop them when
	// they are most of it.
	if len(pp.order) > 64 && len(pp.order) > 4*len(pp.recs) {
		kept := pp.order[:0]
		for _, off := range pp.order {
			if pp.recs[off] != nil {
				kept = append(kept, off)
			}
		}
		pp.order = kept
	}
}
