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
	parked    map[string]map[int64]entry
	bad       []*Raw
}

// NewRecovery begins the recovery of a partition.
func NewRecovery(partition int32, cfg *Config) *Recovery {
	return &Recovery{
		partition: partition, cfg: cfg, lanes: map[string]*laneRecord{}, parked: map[string]map[int64]entry{},
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
	m := r.parked[laneKey]
	if m == nil {
		m = map[int64]entry{}
		r.parked[laneKey] = m
	}
	// A delivery may stand there more than once (moved there again after more
	// attempts): the last one counts.
	m[origin] = entry{
		origin: origin, home: homeParked, attempts: attempts, round: round, notBefore: notBefore, since: written, off: off,
	}
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
		t.old, t.parkedBad = s.Open, s.ParkedBad
		t.old.take(st.Deliveries-1, 0)
		for k := range t.retry {
			t.retry[k].next = max(t.retry[k].next, s.Retry[k])
		}
	}
	// Between the committed position and the recovered front everything that
	// is not in the open set is settled; above it everything is open.
	t.recoveredFront = t.front
	for _, key := range slices.Sorted(maps.Keys(r.lanes)) {
		t.recoverLane(now, key, r.lanes[key], r.parked[key])
	}
	t.eachLane(func(l *lane) {
		if h := l.head; h != nil {
			t.awaitHead(l, h, h.attempts, st.RetryEnd[h.attempts-1]-1)
		}
	})
	t.findLost(now)
	for _, raw := range r.bad {
		t.passParked(raw)
	}
	t.eachLane(func(l *lane) { t.advance(l, now) })
	return t
}

// passParked puts a record of parked/p into dead of which nothing can be told.
func (t *Task) passParked(raw *Raw) {
	t.emitUnreadable(nil, -1, "hookline's record of a waiting delivery cannot be read", raw)
	t.parkedBad = max(t.parkedBad, raw.Offset)
}

func (t *Task) recoverLane(now time.Time, key string, rec *laneRecord, parked map[int64]entry) {
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
		s.heads++
	}
	l.parked = slices.SortedFunc(maps.Values(parked), func(a, b entry) int { return cmp.Compare(a.origin, b.origin) })
	s.parked += len(l.parked)
	if f := l.first; f != nil {
		if len(l.parked) > 0 && l.parked[0].origin == f.Origin {
			p := &l.parked[0]
			p.attempts, p.round, p.notBefore = f.Attempts, f.Round, fromUnixMS(f.NotBeforeMS)
		} else {
			l.first = nil
		}
	}
	if l.blocked && (len(l.parked) == 0 || rec.First != nil && l.first == nil) {
		l.blocked = false // its exhausted delivery cannot be found any more
	}
	// Another machine's clock may have set it, or ours been put back.
	latest := now.Add(t.longestWait())
	for i := range l.parked {
		if p := &l.parked[i]; p.notBefore.After(latest) {
			p.notBefore = latest
		}
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
