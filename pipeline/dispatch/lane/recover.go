package lane

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// Recovery rebuilds a task from what was committed: feed every record of
// lanes/p up to its end, then every record of parked/p from ParkedFrom, then
// call Task. Deliveries and retry topics are then fed from the Task's
// positions.
type Recovery struct {
	partition int32
	cfg       *Config
	state     *State
	lanes     map[string]*laneRecord
	parked    map[string]*parkedList
	refs      int // places in memory, over all lanes
	bad       []*Raw
}

// NewRecovery begins the recovery of a partition.
func NewRecovery(partition int32, cfg *Config) *Recovery {
	return &Recovery{
		partition: partition, cfg: cfg, lanes: map[string]*laneRecord{}, parked: map[string]*parkedList{},
	}
}

// Lane takes one record of lanes/p. An error means that the state cannot be
// understood: go no further.
func (r *Recovery) Lane(key string, value []byte) error {
	if key == StateKey {
		s, err := ParseState(value)
		if err != nil {
			return fmt.Errorf("recovering task %d: %w", r.partition, err)
		}
		r.state = s
		return nil
	}
	if value == nil {
		delete(r.lanes, key)
		return nil
	}
	var rec laneRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return fmt.Errorf("recovering task %d: lane %q: %w", r.partition, key, err)
	}
	if rec.V != laneRecordVersion {
		return fmt.Errorf("recovering task %d: lane %q: version %d: this hookline reads %d",
			r.partition, key, rec.V, laneRecordVersion)
	}
	if h := rec.Head; h != nil && (h.Attempts < 1 || h.Attempts > pipeline.MaxRetries) {
		return fmt.Errorf("recovering task %d: lane %q: a head after %d attempts: want 1 to %d",
			r.partition, key, h.Attempts, pipeline.MaxRetries)
	}
	r.lanes[key] = &rec
	return nil
}

// Front is the offset up to which the task had read deliveries/p.
func (r *Recovery) Front() int64 {
	if r.state == nil {
		return 0
	}
	return r.state.Front
}

// RetryRead is up to where the task had read retry.*/p, as its state says.
func (r *Recovery) RetryRead() (read [pipeline.MaxRetries]int64) {
	if r.state != nil {
		read = r.state.Retry
	}
	return read
}

// ParkedFrom is the offset of parked/p to scan from; false: nothing is parked.
func (r *Recovery) ParkedFrom() (int64, bool) {
	from, any := int64(0), false
	for _, l := range r.lanes {
		if l.From != nil && (!any || *l.From < from) {
			from, any = *l.From, true
		}
	}
	return from, any
}

// Parked takes one record of parked/p.
func (r *Recovery) Parked(off int64, laneKey string, origin int64, attempts, round int, notBefore, written time.Time) {
	l := r.lanes[laneKey]
	if l == nil || l.From == nil || off < *l.From || origin < l.Next || (l.Head != nil && l.Head.Origin == origin) {
		return // settled, or from an earlier life of the lane
	}
	p := r.parked[laneKey]
	if p == nil {
		p = &parkedList{}
		r.parked[laneKey] = p
	}
	if attempts > 0 || round > 0 || !notBefore.IsZero() { // the lane's first, moved here
		p.first = &firstMark{Origin: origin, Attempts: attempts, Round: round, NotBeforeMS: unixMS(notBefore)}
	}
	r.refs += p.add(parkedRef{origin, off, written.UnixMilli()}, r.refs >= r.cfg.MaxParkedOffsets)
}

// parkedList is what was read of one lane's parked deliveries.
type parkedList struct {
	refs  []parkedRef // by origin
	tail  parkedTail
	first *firstMark // as a record says
}

// add takes one more; full says that no more than each lane's first are kept in
// memory. It returns by how many there are more.
func (l *parkedList) add(p parkedRef, full bool) int {
	n := len(l.refs)
	switch {
	case l.tail.n > 0 && p.origin >= l.tail.origin:
		l.tail.n++
		return 0
	case n > 0 && p.origin <= l.refs[n-1].origin:
		// The lane's first: it was moved there behind others. It may stand there
		// twice (moved again after more attempts): the last one counts.
		i, found := slices.BinarySearchFunc(l.refs, p.origin, func(x parkedRef, o int64) int { return cmp.Compare(x.origin, o) })
		if found {
			l.refs[i] = p
			return 0
		}
		l.refs = slices.Insert(l.refs, i, p)
		return 1
	case n > 0 && full:
		l.tail = parkedTail{n: 1, off: p.off, origin: p.origin}
		return 0
	}
	l.refs = append(l.refs, p)
	return 1
}

// ParkedBad takes one record of parked/p that cannot be read at all: it goes to
// dead as it is, once.
func (r *Recovery) ParkedBad(raw *Raw) {
	if r.state == nil || raw.Offset > r.state.ParkedBad {
		r.bad = append(r.bad, raw)
	}
}

// Start says where a task begins.
type Start struct {
	Incarnation uint64
	Deliveries  int64 // the committed offset of deliveries/p, or the log's start
	Retry       [pipeline.MaxRetries]int64
	RetryRead   [pipeline.MaxRetries]int64 // Recovery.RetryRead
	RetryEnd    [pipeline.MaxRetries]int64 // the ends of retry.*/p, found after lanes/p was read
	ParkedEnd   int64                      // the end of parked/p up to which it was scanned
	Subs        pipeline.Subscriptions
	Scheduler   *Scheduler
}

// Task ends the recovery. Lanes with parked deliveries become ready at once.
func (r *Recovery) Task(now time.Time, st Start) *Task {
	t := &Task{
		partition: r.partition, cfg: r.cfg, subs: st.Subs, sched: st.Scheduler, incarnation: st.Incarnation,
		lanes: map[string]*lane{}, bySub: map[string]*sub{}, durable: map[string]struct{}{},
		dirty: map[string]struct{}{}, read: st.Deliveries, front: st.Deliveries, parkedEnd: st.ParkedEnd,
		touched: true, recovering: true, now: now, parkedBad: -1,
	}
	for k := range t.retry {
		t.retry[k].next = st.Retry[k]
	}
	if s := r.state; s != nil {
		t.front = max(t.front, s.Front)
		t.old, t.parkedBad, t.control = s.Open, s.ParkedBad, s.Control
		t.old.take(st.Deliveries-1, 0)
		for k := range t.retry {
			// At most the end: a topic that was made anew begins at 0 again.
			t.retry[k].next = min(max(t.retry[k].next, s.Retry[k]), st.RetryEnd[k])
		}
	}
	// Between the committed position and the recovered front everything that
	// is not in the open set is settled; above it everything is open.
	t.recoveredFront = t.front
	for _, key := range slices.Sorted(maps.Keys(r.lanes)) {
		t.recoverLane(now, key, r.lanes[key], r.parked[key])
	}
	t.parkedRefs = r.refs
	t.eachLane(func(l *lane) {
		if h := l.head; h != nil {
			t.awaitHead(l, h, h.attempts, st.RetryEnd[h.attempts-1]-1)
		}
	})
	t.findLost(now)
	for _, raw := range r.bad {
		t.passParked(raw)
		t.parkedBad = max(t.parkedBad, raw.Offset)
	}
	t.eachLane(func(l *lane) {
		if !t.unblock(l, now) { // it may have been changed meanwhile
			t.advance(l, now)
		}
	})
	return t
}

// passParked puts a record of parked/p into dead of which nothing can be told.
func (t *Task) passParked(raw *Raw) {
	t.emitUnreadable(nil, -1, "hookline's record of a waiting delivery cannot be read", raw)
	t.badSeen = append(t.badSeen, raw.Offset)
}

func (t *Task) recoverLane(now time.Time, key string, rec *laneRecord, parked *parkedList) {
	id := pipeline.LaneSubscription(key)
	s := t.subOf(id)
	s.kind = pipeline.LaneOrdering(key)
	l := t.laneOf(key, s)
	l.waiting, l.next, l.blocked, l.first = true, rec.Next, rec.Blocked, rec.First
	l.held, l.fresh = rec.Held, fromUnixMS(rec.FreshMS)
	t.noteHeld(l) // it may have been resumed meanwhile
	t.durable[key] = struct{}{}
	if rec.Wait != nil {
		l.expect = *rec.Wait
	}
	if h := rec.Head; h != nil {
		l.head = &head{entry: entry{origin: h.Origin, home: homeRetry, attempts: h.Attempts, round: h.Round, off: -1}}
		l.head.delivery, l.head.asked, l.head.isDue = h.Delivery, h.Asked, h.Asked
		s.heads++
	}
	if parked != nil {
		l.parked, l.tail = parked.refs, parked.tail
		if l.first == nil {
			l.first = parked.first
		}
	}
	s.parked += l.nparked()
	// Who had the task before did not find it too many.
	s.behind = s.parked > t.cfg.MaxParked && s.mode() != modeDrain
	s.health.backlog = s.parked >= max(1, t.cfg.MaxParked/2) // told of already
	if f := l.first; f != nil && (len(l.parked) == 0 || l.parked[0].origin != f.Origin) {
		l.first = nil
	} else if f != nil {
		f.notBefore = fromUnixMS(f.NotBeforeMS)
		// Another machine's clock may have set it, or ours been put back. From now
		// on it counts by the monotonic clock.
		if wait := f.notBefore.Sub(now); wait > 0 {
			f.notBefore = now.Add(min(wait, t.longestWait()))
		}
	}
	if e := rec.End; e != nil && (l.head != nil && l.head.origin == e.Origin || l.head == nil && len(l.parked) > 0 && l.parked[0].origin == e.Origin) {
		l.endAs = e.Reason
	}
	if l.blocked && (len(l.parked) == 0 || rec.First != nil && l.first == nil) {
		l.blocked = false // its exhausted delivery cannot be found any more
	}
}

// maxRetryAfter is the longest Retry-After that is honoured.
const maxRetryAfter = time.Hour

// longestWait is the longest that a delivery may have to wait for an attempt.
func (t *Task) longestWait() time.Duration {
	longest := maxRetryAfter
	for _, d := range t.cfg.Delays {
		longest = max(longest, d)
	}
	return longest
}
