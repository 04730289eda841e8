package sink

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// linger after the first record of a block, when the last block is long ago.
const linger = 50 * time.Millisecond

// stream stores the partitions of one topic that are assigned to the process, as many
// in one block as have records: what an insert costs ClickHouse depends little on
// how many rows it has.
type stream struct {
	s            *Sink
	topic, table string
	wake         chan struct{} // to run: there is something new
	inserted     atomic.Int64  // when the last insert ended, in nanoseconds since 1970

	mu         sync.Mutex // guards what follows, and what partition and job say
	partitions map[int32]*partition
	under      int       // jobs under way that insert new blocks
	flushed    time.Time // when the last of them ended
	turn       time.Time // when the block that is due may be inserted; zero: none is due
	waits      bool      // as noted in Sink.waiting: there are records in a queue
	spans      int       // of a block at most
}

func newStream(s *Sink, topic string) *stream {
	st := &stream{s: s, topic: topic, table: tableEvents, wake: make(chan struct{}, 1), partitions: map[int32]*partition{}, spans: maxSpans}
	if topic == s.deps.AttemptsTopic {
		st.table = tableAttempts
	}
	return st
}

// nudge has run look again whether there is something to store.
func (st *stream) nudge() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// run starts a job for each block that is due, until ctx ends.
func (st *stream) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if wait := st.due(time.Now()); wait > 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return
			case <-st.wake:
			case <-timer.C:
			}
			continue
		}
		select {
		case st.s.builds <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if j := st.take(); j != nil {
			st.s.jobs.Go(func() {
				defer func() { <-st.s.builds }()
				j.store()
			})
		} else {
			<-st.s.builds
		}
	}
}

// ready gives the partitions that a job may take records of. mu is held.
func (st *stream) ready() (list []*partition) {
	for _, p := range st.partitions {
		if p.ready() {
			list = append(list, p)
		}
	}
	return list
}

// due is how long to wait until a block is complete or its time has come.
func (st *stream) due(now time.Time) time.Duration {
	st.mu.Lock()
	defer st.mu.Unlock()
	rows, bytes, behind, oldest := 0, int64(0), false, time.Time{}
	for _, p := range st.partitions {
		if !p.ready() {
			continue
		}
		rows, bytes, behind = rows+p.rows, bytes+p.bytes, behind || p.behind
		if oldest.IsZero() || p.queued.Before(oldest) {
			oldest = p.queued
		}
	}
	switch {
	case oldest.IsZero():
		return time.Hour
	case behind || rows >= st.s.cfg.BlockRows || bytes >= int64(st.s.cfg.BlockBytes) || st.s.buffer.needs(bytes, st.s.count.Load()):
		return 0
	case st.under > 0:
		return time.Hour // its end tells
	}
	due := oldest.Add(linger)
	if t := st.flushed.Add(st.s.interval()); t.After(due) {
		due = t
	}
	return st.untilTurn(now, due)
}

// untilTurn is how long a block that is due then has to wait for those of other topics.
func (st *stream) untilTurn(now, due time.Time) time.Duration {
	if wait := due.Sub(now); wait > 0 {
		return wait
	}
	if st.s.buffer.filling() {
		return 0
	}
	if st.turn.IsZero() {
		st.turn = st.s.turn(now)
	}
	return st.turn.Sub(now)
}

// take makes a job of what waits, the partitions that wait for longest first, until a
// block is full; nil: nothing waits.
func (st *stream) take() *job {
	st.mu.Lock()
	defer st.mu.Unlock()
	list := st.ready()
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b *partition) int { return a.queued.Compare(b.queued) })
	first := list[0]
	j := newJob(st, first.topicID)
	rows, bytes := st.s.cfg.BlockRows, int64(st.s.cfg.BlockBytes)
	for _, p := range list {
		if len(j.parts) == st.spans || len(j.parts) > 0 && (rows <= 0 || bytes <= 0) {
			break
		}
		if p.topicID != first.topicID || p.member != first.member {
			continue // of before the topic was made anew, or the group was joined again
		}
		of, taken := p.off(rows, bytes)
		rows, bytes = rows-taken, bytes-of.bytes
		j.add(of)
	}
	st.under++
	j.counted = true
	st.turn = time.Time{}
	st.note()
	return j
}

// note keeps the Sink's count of streams that wait. mu is held.
func (st *stream) note() {
	waits := false
	for _, p := range st.partitions {
		if waits = len(p.queue) > 0; waits {
			break
		}
	}
	if waits == st.waits {
		return
	}
	st.waits = waits
	if waits {
		st.s.waiting.Add(1)
	} else {
		st.s.waiting.Add(-1)
	}
}

// push hands records to their partition, if it is ours.
func (st *stream) push(id int32, recs []*kgo.Record, start int64) {
	st.mu.Lock()
	p := st.partitions[id]
	st.mu.Unlock()
	if p != nil {
		p.push(recs, start)
	}
}

// ids of its partitions.
func (st *stream) ids() (list []partitionID) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for id := range st.partitions {
		list = append(list, partitionID{st.topic, id})
	}
	return list
}

// lag is the number of records, of our partitions, that are not stored yet.
func (st *stream) lag(ends map[int32]kadm.ListedOffset) (lag int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for id, p := range st.partitions {
		if end, ok := ends[id]; ok && end.Err == nil {
			lag += max(0, end.Offset-p.next)
		}
	}
	return lag
}

// oldest is the timestamp of the oldest record that is not stored; zero: none.
func (st *stream) oldest() (oldest time.Time) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, p := range st.partitions {
		if t := p.oldest(); !t.IsZero() && (oldest.IsZero() || t.Before(oldest)) {
			oldest = t
		}
	}
	return oldest
}

// leave lets no further job take of a partition.
func (st *stream) leave(p *partition) {
	st.mu.Lock()
	defer st.mu.Unlock()
	p.leaving = true
	st.s.buffer.add(-p.bytes)
	p.queue, p.bytes, p.rows = nil, 0, 0
	st.note()
	if p.job == nil {
		close(p.idle)
		return
	}
	p.job.left()
}

// drop has nothing committed for a partition any more.
func (st *stream) drop(p *partition) {
	st.mu.Lock()
	defer st.mu.Unlock()
	p.gone = true
	if p.job != nil {
		p.job.dropped()
	}
}

// failing tells whether the partition's job waits for ClickHouse to take an insert.
func (st *stream) failing(p *partition) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return p.job != nil && p.job.failing
}
