package dispatch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// parkedFetchBytes is what one read of parked/p asks for. Lanes drain in the
	// order of the log, so what follows is wanted soon.
	parkedFetchBytes = 64 << 10
	// parkedCacheBytes bounds what is kept of all partitions, of which each has an
	// equal share, within the bounds below it. A share has to hold what lies in the
	// log between the lane that drains last and the one that drains first: what does
	// not fit is read, and taken apart, once more for each lane.
	parkedCacheBytes    = 32 << 20
	leastPartitionBytes = 1 << 20
	mostPartitionBytes  = 12 << 20
	// lastReadBytes bounds what is kept of each of a partition's two last reads as they came.
	lastReadBytes = 4 << 20
	// drainedAfter is how long an empty shelf is kept.
	drainedAfter = 5 * time.Second
	// lastSingleFor is how long what was read for a lane that does not drain is kept.
	lastSingleFor = 30 * time.Second
	// recordOverheadBytes is about what a kept record costs beside its payload.
	recordOverheadBytes = 512
	// notYetPause between two looks for a record that the leader does not show yet.
	notYetPause = 20 * time.Millisecond
)

// parkedCache reads parked records by offset, one read at a time for each
// partition, and keeps what a read brought besides. Safe for concurrent use.
type parkedCache struct {
	// doubts, while above zero: what is committed may have been lost, and is looked
	// for. What is not where it must be is not given up meanwhile.
	doubts atomic.Int32

	fetcher reader
	topic   string

	mu    sync.Mutex
	parts map[int32]*parkedPartition // under mu
	share atomic.Int64               // bytes of each partition
}

// parkedPartition has a shelf for each subscription that drains. Subscriptions
// drain at different paces, each in another place of the log: on one shelf each
// read would throw out what the one before had brought.
//
// What a read brings is put on the shelves of all of them: lanes that drain at
// about the same pace, as after an outage, share reads instead of each throwing
// away what is of the others.
type parkedPartition struct {
	share *atomic.Int64 // bytes that it may have

	mu      sync.Mutex
	shelves map[string]*shelf // by subscription id; under mu
	order   []string          // their ids, the one read longest ago first; under mu
	bytes   int               // of all; under mu
	// last is what the last read brought: many lanes with a delivery or two each were
	// parked at about the same time.
	last []*kgo.Record // under mu
	// lastSingle is the same of reads for lanes that do not drain, or are not known
	// to, as thousands of endpoints that do not answer: those that drain read so much
	// between two of them that each would find last replaced.
	lastSingle   []*kgo.Record // under mu
	lastSingleAt time.Time     // when it was read; under mu
}

// shelf is what was read for one subscription and is wanted soon, up to a bound.
// What comes first in the log is kept, since it is wanted first: a shelf that is
// full takes no more.
type shelf struct {
	recs   map[int64]*kgo.Record
	bytes  int
	done   int64 // the highest offset that was wanted
	readAt time.Time
}

// reader is what of kafkax.Fetcher the cache needs.
type reader interface {
	At(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32) (recs []*kgo.Record, next int64, err error)
}

func newParkedCache(f reader, topic string) *parkedCache {
	return &parkedCache{fetcher: f, topic: topic, parts: map[int32]*parkedPartition{}}
}

// forget drops what is kept of a partition.
func (c *parkedCache) forget(p int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.parts, p)
	c.divide()
}

// divide tells the partitions their share. Under mu.
func (c *parkedCache) divide() {
	c.share.Store(int64(min(mostPartitionBytes, max(leastPartitionBytes, parkedCacheBytes/max(1, len(c.parts))))))
}

func (c *parkedCache) part(p int32) *parkedPartition {
	c.mu.Lock()
	defer c.mu.Unlock()
	pp := c.parts[p]
	if pp == nil {
		pp = &parkedPartition{share: &c.share, shelves: map[string]*shelf{}}
		c.parts[p] = pp
		c.divide()
	}
	return pp
}

// load fills in the work from its parked record.
func (c *parkedCache) load(ctx context.Context, w *lane.Work) error {
	drains := !w.Cold() && !w.Suspect()
	r, err := c.get(ctx, w.Task.Partition(), pipeline.LaneSubscription(w.LaneKey()), w.ParkedOffset, drains)
	if err != nil {
		return err
	}
	return c.fill(w, r)
}

// loadKept does so without waiting, where the record is on its shelf and readable.
func (c *parkedCache) loadKept(w *lane.Work) bool {
	pp := c.part(w.Task.Partition())
	if !pp.mu.TryLock() {
		return false // somebody reads
	}
	defer pp.mu.Unlock()
	sub := pipeline.LaneSubscription(w.LaneKey())
	r := pp.kept(sub, w.ParkedOffset)
	if r == nil || c.fill(w, r) != nil {
		return false
	}
	pp.taken(sub, r)
	return true
}

// fill fills in the work from r.
func (c *parkedCache) fill(w *lane.Work, r *kgo.Record) error {
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

// get reads the record at off, and keeps what comes with it. drains tells that the
// lane is known to drain: it wants more soon.
func (c *parkedCache) get(ctx context.Context, p int32, sub string, off int64, drains bool) (*kgo.Record, error) {
	pp := c.part(p)
	pp.mu.Lock()
	defer pp.mu.Unlock()
	if r := pp.kept(sub, off); r != nil {
		pp.taken(sub, r)
		return r, nil
	}
	recs, err := c.read(ctx, p, off)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(recs, func(r *kgo.Record) bool { return r.Offset == off })
	if i < 0 {
		why := fmt.Sprintf("%s/%d has no record at offset %d", c.topic, p, off)
		if c.doubts.Load() > 0 {
			return nil, errors.New(why + " at the moment: a transaction has failed, and what is missing is looked for")
		}
		return nil, &unreadableError{why: why}
	}
	pp.put(sub, off, recs[i+1:])
	pp.keepLast(recs, drains)
	return detached(recs[i]), nil
}

// keepLast keeps what a read brought, unless that is far more than was asked for,
// as where it was compressed well.
func (pp *parkedPartition) keepLast(recs []*kgo.Record, drains bool) {
	n := 0
	for _, r := range recs {
		n += size(r)
	}
	if n > lastReadBytes {
		recs = nil
	}
	if !drains {
		pp.lastSingle, pp.lastSingleAt = recs, time.Now()
		return
	}
	pp.last = recs
	if time.Since(pp.lastSingleAt) > lastSingleFor {
		pp.lastSingle = nil
	}
}

// kept finds a record among what was read already.
func (pp *parkedPartition) kept(sub string, off int64) *kgo.Record {
	if sh := pp.shelves[sub]; sh != nil && sh.recs[off] != nil {
		return sh.recs[off]
	}
	for _, last := range [][]*kgo.Record{pp.last, pp.lastSingle} {
		i, ok := slices.BinarySearchFunc(last, off, func(r *kgo.Record, off int64) int { return cmp.Compare(r.Offset, off) })
		if ok {
			return detached(last[i])
		}
	}
	return nil
}

// taken takes a record that was kept off its shelf, if it is on one.
func (pp *parkedPartition) taken(sub string, r *kgo.Record) {
	if sh := pp.shelves[sub]; sh != nil && sh.recs[r.Offset] == r {
		pp.remove(sh, r)
	}
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

// put puts what was read after off, which sub wanted, on the shelves.
func (pp *parkedPartition) put(sub string, off int64, recs []*kgo.Record) {
	own := pp.reopen(sub, off)
	partition, shelf := int(pp.share.Load()), pp.shelfBytes()
	for _, r := range recs {
		sh := pp.shelves[string(r.Key)]
		if sh == nil || sh.bytes+size(r) > shelf || sh.recs[r.Offset] != nil || sh != own && r.Offset <= sh.done {
			continue
		}
		if sh == own {
			pp.makeRoom(own, size(r))
		}
		if pp.bytes+size(r) > partition {
			continue
		}
		pp.add(sh, detached(r))
	}
	pp.tidy(own, own.readAt)
}

func (pp *parkedPartition) add(sh *shelf, r *kgo.Record) {
	sh.recs[r.Offset] = r
	sh.bytes += size(r)
	pp.bytes += size(r)
}

// reopen gives the shelf of a subscription that has to read at off, as the newest
// one. One that is half full and yet does not have off holds what nobody wants any
// more, or what lanes far behind want.
func (pp *parkedPartition) reopen(sub string, off int64) *shelf {
	sh := pp.shelves[sub]
	if sh != nil && sh.bytes > pp.shelfBytes()/2 {
		pp.drop(sub)
		sh = nil
	}
	if sh == nil {
		sh = &shelf{recs: map[int64]*kgo.Record{}}
		pp.shelves[sub] = sh
	} else {
		pp.order = slices.DeleteFunc(pp.order, func(id string) bool { return id == sub })
	}
	pp.order = append(pp.order, sub)
	sh.done, sh.readAt = max(sh.done, off), time.Now()
	return sh
}

// tidy drops empty shelves: that of own, where what was read had nothing more for
// it, and those of others that have drained. They would take space from the rest.
func (pp *parkedPartition) tidy(own *shelf, now time.Time) {
	for id, sh := range pp.shelves {
		if len(sh.recs) == 0 && (sh == own || now.Sub(sh.readAt) > drainedAfter) {
			delete(pp.shelves, id)
		}
	}
	if len(pp.order) > len(pp.shelves) {
		pp.order = slices.DeleteFunc(pp.order, func(id string) bool { return pp.shelves[id] == nil })
	}
}

// shelfBytes is what one subscription may have: all have the same, so that none
// throws out what another one wants soon, and a share is left for the next.
func (pp *parkedPartition) shelfBytes() int {
	return int(pp.share.Load()) / (len(pp.shelves) + 1)
}

// makeRoom drops the shelves read longest ago, but not the one that needs it.
func (pp *parkedPartition) makeRoom(keep *shelf, n int) {
	for pp.bytes+n > int(pp.share.Load()) && pp.shelves[pp.order[0]] != keep {
		pp.drop(pp.order[0])
	}
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
	sh.done = max(sh.done, r.Offset)
	sh.bytes -= size(r)
	pp.bytes -= size(r)
}

func size(r *kgo.Record) int { return len(r.Value) + recordOverheadBytes }
