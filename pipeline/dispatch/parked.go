package dispatch

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// parkedFetchBytes is what one read of parked/p asks for. Lanes drain in the
	// order of the log, so what follows is wanted soon.
	parkedFetchBytes = 256 << 10
	// shelfBytes bounds what is kept for one subscription, and
	// parkedCacheBytes what is kept of one partition.
	shelfBytes       = 512 << 10
	parkedCacheBytes = 4 << 20
	// recordOverheadBytes is about what a kept record costs beside its payload.
	recordOverheadBytes = 512
	// notYetPause between two looks for a record that the leader does not show yet.
	notYetPause = 20 * time.Millisecond
)

// parkedCache reads parked records by offset, one read at a time for each
// partition, and keeps what a read brought besides. Safe for concurrent use.
type parkedCache struct {
	fetcher *kafkax.Fetcher
	topic   string

	mu    sync.Mutex
	parts map[int32]*parkedPartition // under mu
}

// parkedPartition has a shelf for each subscription that drains. Subscriptions
// drain at different paces, each in another place of the log: on one shelf each
// read would throw out what the one before had brought.
type parkedPartition struct {
	mu      sync.Mutex
	shelves map[string]*shelf // by subscription id; under mu
	order   []string          // their ids, the one read longest ago first; under mu
	bytes   int               // of all; under mu
}

// shelf is what follows in the log for one subscription, up to a bound. What
// comes first is kept, since it is wanted first: a shelf that is full takes no
// more.
type shelf struct {
	recs  map[int64]*kgo.Record
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
		pp = &parkedPartition{shelves: map[string]*shelf{}}
		c.parts[p] = pp
	}
	return pp
}

// load fills in the work from its parked record.
func (c *parkedCache) load(ctx context.Context, w *lane.Work) error {
	r, err := c.get(ctx, w.Task.Partition(), pipeline.LaneSubscription(w.LaneKey()), w.ParkedOffset)
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
		return unreadable(err, r)
	}
	w.Envelope, w.Header, w.Payload = env, cp.Envelope, cp.Payload
	return nil
}

func (c *parkedCache) get(ctx context.Context, p int32, sub string, off int64) (*kgo.Record, error) {
	pp := c.part(p)
	pp.mu.Lock()
	defer pp.mu.Unlock()
	if sh := pp.shelves[sub]; sh != nil {
		if r := sh.recs[off]; r != nil {
			pp.remove(sh, r)
			return r, nil
		}
	}
	recs, err := c.read(ctx, p, off)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(recs, func(r *kgo.Record) bool { return r.Offset == off })
	if i < 0 {
		return nil, &unreadableError{why: fmt.Sprintf("%s/%d has no record at offset %d", c.topic, p, off)}
	}
	pp.put(sub, recs[i+1:])
	return recs[i], nil
}

// read reads from off on. A new leader may for a moment not know how far it may
// show its log: nothing at off and nothing after it means "not yet".
func (c *parkedCache) read(ctx context.Context, p int32, off int64) ([]*kgo.Record, error) {
	for {
		recs, next, err := c.fetcher.At(ctx, c.topic, p, off, parkedFetchBytes)
		if err != nil || len(recs) > 0 || next > off {
			return recs, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %s/%d to show offset %d: %w", c.topic, p, off, ctx.Err())
		case <-time.After(notYetPause):
		}
	}
}

// put makes the shelf of a subscription anew with what was read.
func (pp *parkedPartition) put(sub string, recs []*kgo.Record) {
	pp.drop(sub)
	sh := &shelf{recs: map[int64]*kgo.Record{}}
	for _, r := range recs {
		if sh.bytes >= shelfBytes {
			break
		}
		if string(r.Key) == sub {
			sh.recs[r.Offset] = detached(r)
			sh.bytes += size(r)
		}
	}
	if len(sh.recs) == 0 {
		return
	}
	for len(pp.order) > 0 && pp.bytes+sh.bytes > parkedCacheBytes {
		pp.drop(pp.order[0])
	}
	pp.shelves[sub] = sh
	pp.order = append(pp.order, sub)
	pp.bytes += sh.bytes
}

// detached copies what a record has of its batch: a record that is kept would
// keep the whole batch in memory.
func detached(r *kgo.Record) *kgo.Record {
	c := *r
	c.Key, c.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	c.Headers = slices.Clone(r.Headers)
	for i := range c.Headers {
		c.Headers[i].Value = bytes.Clone(c.Headers[i].Value)
	}
	return &c
}

func (pp *parkedPartition) drop(sub string) {
	sh := pp.shelves[sub]
	if sh == nil {
		return
	}
	pp.bytes -= sh.bytes
	delete(pp.shelves, sub)
	pp.order = slices.DeleteFunc(pp.order, func(id string) bool { return id == sub })
}

func (pp *parkedPartition) remove(sh *shelf, r *kgo.Record) {
	delete(sh.recs, r.Offset)
	sh.bytes -= size(r)
	pp.bytes -= size(r)
}

func size(r *kgo.Record) int { return len(r.Value) + recordOverheadBytes }
