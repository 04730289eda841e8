package lane

import (
	"time"

	"github.com/hookline/hookline/pipeline"
)

// stage is where a lane stands on the way to its next request.
type stage uint8

const (
	stageIdle   stage = iota
	stageSlot         // waits for a slot of its subscription, in sub.waitq
	stageReady        // in the scheduler's queue, slot of its subscription taken
	stageFlying       // a Work is out
)

// lane is the unit of order. Its entries, oldest first: head, or mem, then
// parked. A head excludes mem; of a waiting lane mem holds at most the one
// entry that was under way when the lane began to wait.
type lane struct {
	key     string
	sub     *sub
	newer   *lane // the task's lanes in the order of their making
	older   *lane
	stage   stage
	suspect bool // the last attempt failed
	catchUp bool // it has deliveries of a catch-up: see mode

	mem    []entry     // homeDeliveries
	one    [1]entry    // the memory of mem while it has one entry at most
	head   *head       // homeRetry
	parked []parkedRef // homeParked, by origin
	tail   parkedTail  // homeParked, behind those
	rescan bool        // its tail is wanted, or being read

	waiting bool  // has a record in lanes/p: new deliveries are parked
	next    int64 // every delivery of the lane with origin < next is settled
	expect  int64 // origin of an entry in deliveries, not read again yet; -1: none
	pend    int   // entries on their way to parked: offset not known yet
	fence   int   // ends that must be durable before the lane's next request
	moving  bool  // its first entry is on its way to parked
	blocked bool  // on_exhausted: block: waits for an operator
	// endAs, when not empty, ends the first entry without a try, for this
	// reason (skip; on_exhausted changed to continue).
	endAs pipeline.DeadReason
	first *firstMark

	// fresh is until when the lane was held (paused or blocked): the age of what
	// is parked counts from then on. Zero: it never was.
	held       bool // paused, as its record says
	fresh      time.Time
	localUntil time.Time // after a local error: no try before
	wake       time.Time // a wake-up is set for; zero: none

	// Lately spent in requests, and waiting for the process to begin one: the
	// endpoint's pace against ours.
	stageSince    time.Time
	flown, waited time.Duration
	flights       int // that flown is the sum of
}

// firstMark is what a lane's record says of its first parked entry beyond what
// stands in the parked record itself.
type firstMark struct {
	Origin      int64 `json:"o"`
	Attempts    int   `json:"k,omitempty"`
	Round       int   `json:"r,omitempty"`
	NotBeforeMS int64 `json:"nb,omitempty"`
	// Delivery is its id; empty: not known.
	Delivery string `json:"d,omitempty"`

	notBefore time.Time // the same, by the monotonic clock where it is this process's
}

// sub is what a task knows of one subscription: counts over all its lanes. There
// may be very many at once, so what few have is apart.
type sub struct {
	id       string
	conf     *pipeline.Subscription // as the registry has it; nil: deleted
	kind     pipeline.Ordering      // the kind of lane that new deliveries go to
	lanes    int
	inflight int  // slots taken: Works that are out or ready
	queued   int  // entries in mem over all lanes
	parked   int  // entries in parked (pending ones and tails included) over all lanes
	heads    int  // heads in retry.* over all lanes
	behind   bool // more than MaxParked may be parked: see overfull
	suspect  bool
	changed  bool      // its lanes are being reviewed
	tookAt   time.Time // the last success; zero: none that is remembered
	local    string    // why its last try was none, as a secret that is missing; empty: it was one
	waitq    []*lane   // for a slot or a token
	bucket   *bucket   // nil: its rate has no limit
	health   health
	// disabled is a reason decided here that the registry does not show yet;
	// empty: none. It applies to disabledRevision.
	disabled         string
	disabledRevision int64
	// disabledAt is where that stands in the registry's topic: a view of that
	// version knows of it, whatever it shows; -1: it is not durable yet.
	disabledAt int64
}

// Task is the state machine of one partition.
type Task struct {
	partition   int32
	cfg         *Config
	subs        pipeline.Subscriptions
	sched       *Scheduler
	incarnation uint64
	now         time.Time // of the call under way
	seq         uint64    // transactions cut

	lanes       map[string]*lane
	oldest      *lane // of lanes: walked in order, so that a run can be repeated
	newest      *lane
	bySub       map[string]*sub
	forgot      time.Time           // when bySub was last gone through
	disabled    int                 // of bySub: those disabled here, which the registry does not show yet
	agesChecked time.Time           // when the ages of lanes were last looked at
	durable     map[string]struct{} // lane keys with a record in lanes/p
	dirty       map[string]struct{} // lane keys whose record must be written
	touched     bool

	recs     []*Record // unsettled and, between them, settled ones; by offset
	nopen    int       // records with an open position
	memBytes int       // payload bytes of those
	gap      bool      // the last record read was settled already, and is not in recs
	read     int64     // every offset of deliveries below is in recs or closed
	front    int64     // max(read, the recovered front)
	old      openSet   // recovered open set, not read again yet

	retry        [pipeline.MaxRetries]retryLog
	measure      bool    // the next Cut finds out what is needed of parked/p
	parkedNeeded int64   // as of a transaction that is durable
	parkedEnd    int64   // a lower bound of the next offset of parked/p
	parkedRefs   int     // in memory, over all lanes
	exhausted    []*sub  // that have exhausted deliveries to tell of
	rescans      []*lane // lanes that want their tail
	rescanning   *Rescan // under way; nil: none
	badSeen      []int64 // offsets of parked/p of which this task has put records into dead
	parkedBad    int64   // unreadable records of parked/p up to here are in dead; -1: none
	control      int64   // see Control

	out      []*Out
	outBytes int // of what is in out and in the batch under way, see Out.size
	answers  int // in out
	inflight int
	draining bool // no new requests
	// recovering: deliveries has not been read to the recovered front again
	recovering     bool
	recoveredFront int64 // below it the recovered open set tells what is open
	closed         bool
	timers         timerHeap
	dueHeads       []*lane // lanes with a due head that had no slot yet, by time
}

// Partition of the task.
func (t *Task) Partition() int32 { return t.partition }

// Incarnation tells this ownership of the partition from every other.
func (t *Task) Incarnation() uint64 { return t.incarnation }

// InFlight is the number of Works that are out.
func (t *Task) InFlight() int { return t.inflight }

// ReadPosition is the next offset of deliveries to feed.
func (t *Task) ReadPosition() int64 { return t.read }

// RetryPosition is the next offset of retry.k to feed, k from 1.
func (t *Task) RetryPosition(k int) int64 { return t.retry[k-1].next }

// Full tells that no more deliveries records should be fed for now.
func (t *Task) Full() bool {
	return t.nopen >= t.cfg.MaxRecords || t.memBytes+t.outBytes >= t.cfg.MaxPayloadBytes
}

// retryShare of MaxPayloadBytes is what the waiting heads of one retry topic may
// have in memory: all three together have less than the deliveries.
const retryShare = 4

// RetryFull tells that no more records of retry.k should be fed for now: those
// that wait for their time are many, or large. Those behind them are due later.
func (t *Task) RetryFull(k int) bool {
	q := &t.retry[k-1]
	return len(q.fifo) >= t.cfg.MaxRetryHeld || q.bytes >= t.cfg.MaxPayloadBytes/retryShare
}

// Touched tells that the next transaction must include this task.
func (t *Task) Touched() bool { return t.touched }

// Drain stops new requests; those under way go on.
func (t *Task) Drain() {
	if !t.draining {
		t.tellExhausted(true)
	}
	t.draining = true
}

// Close makes the task deaf: Works that come back are dropped. After it
// nothing is committed for it.
func (t *Task) Close() { t.closed = true; t.draining = true }

// Deliver feeds the next record of deliveries/p. Offsets must increase.
func (t *Task) Deliver(now time.Time, r *Record) {
	t.now = now
	t.read = r.Offset + 1
	if r.Offset >= t.recoveredFront {
		r.open = allPositions(len(r.Subs))
	} else {
		r.open = t.old.take(r.Offset, len(r.Subs))
	}
	if t.read > t.front {
		t.front = t.read
		t.expectNoMore(now)
	}
	t.touched = true
	if r.Unreadable != nil && r.Offset >= t.recoveredFront {
		t.emitUnreadable(nil, r.Offset, "hookline's record of the event cannot be read", r.Unreadable)
	}
	r.nopen = r.open.count()
	if r.nopen == 0 {
		t.gap = true
		return
	}
	if len(t.recs) > 2*t.nopen+keepSettled {
		t.forgetSettled()
	}
	r.since, r.gap, t.gap = now, t.gap, false
	t.recs = append(t.recs, r)
	t.nopen++
	t.memBytes += len(r.Payload)
	for i, id := range r.Subs {
		if r.open.has(i) {
			t.place(now, r, i, id)
		}
	}
}

// keepSettled is how many settled records, beyond one for each open one, may
// stand between the open ones before they are looked through.
const keepSettled = 4

// forgetSettled takes settled records out from between the open ones, so that
// one slow request does not keep all that came after it in memory.
func (t *Task) forgetSettled() {
	open := t.recs[:0]
	gap := false
	for _, r := range t.recs {
		if r.nopen == 0 {
			gap = true
			continue
		}
		r.gap, gap = r.gap || gap, false
		open = append(open, r)
	}
	clear(t.recs[len(open):])
	t.recs = open
	t.gap = t.gap || gap
}

// expectNoMore lets go of entries that lanes expected to read again but that
// deliveries no longer holds (deleted from outside).
func (t *Task) expectNoMore(now time.Time) {
	if !t.recovering {
		return
	}
	t.recovering = false
	t.old = openSet{}
	t.eachLane(func(l *lane) {
		if l.expect >= 0 && l.expect < t.read-1 {
			t.emitUnreadable(l, l.expect, "its record in deliveries is gone", nil)
			l.next, l.expect = l.expect+1, -1
			t.markDirty(l)
			t.advance(l, now)
		}
	})
}

// place puts position i of r into its lane.
func (t *Task) place(now time.Time, r *Record, i int, id string) {
	s := t.subOf(id)
	l := t.laneOf(pipeline.LaneKeyOf(id, s.kind, r.Envelope, r.Offset), s)
	e := entry{origin: r.Offset, home: homeDeliveries, rec: r, pos: uint8(i), since: now, off: -1}
	if l.expect == r.Offset {
		l.expect = -1
		l.mem = append(l.mem, e)
		s.queued++
		t.advance(l, now)
		return
	}
	if l.waiting || l.mode() == modeHold {
		t.makeWaiting(l)
		t.parkEntry(l, &e)
		return
	}
	l.mem = append(l.mem, e)
	s.queued++
	switch {
	case len(l.mem) == 1:
		t.advance(l, now)
	case s.queued > t.cfg.MaxQueued:
		t.makeWaiting(l)
	}
}

func (t *Task) subOf(id string) *sub {
	s := t.bySub[id]
	if s == nil {
		s = &sub{id: id, kind: pipeline.OrderingSubscription}
		s.setConf(t.subs.Get(id), t.now)
		s.health.restore(s.conf, t.now)
		t.bySub[id] = s
	}
	// A subscription's lanes are all of one kind: a new ordering applies once
	// the lanes of the old one are empty.
	if s.lanes == 0 && s.conf != nil {
		s.kind = s.conf.Ordering
	}
	return s
}

func (t *Task) laneOf(key string, s *sub) *lane {
	l := t.lanes[key]
	if l == nil {
		l = &lane{key: key, sub: s, expect: -1, catchUp: pipeline.LaneIsCatchUp(key)}
		l.mem = l.one[:0]
		t.lanes[key] = l
		t.link(l)
		s.lanes++
	}
	return l
}

func (t *Task) link(l *lane) {
	if l.older = t.newest; l.older != nil {
		l.older.newer = l
	} else {
		t.oldest = l
	}
	t.newest = l
}

func (t *Task) unlink(l *lane) {
	if l.older != nil {
		l.older.newer = l.newer
	} else {
		t.oldest = l.newer
	}
	if l.newer != nil {
		l.newer.older = l.older
	} else {
		t.newest = l.older
	}
	l.older, l.newer = nil, nil
}

// eachLane calls do for every lane, oldest first. do may release its lane.
func (t *Task) eachLane(do func(*lane)) {
	for l := t.oldest; l != nil; {
		newer := l.newer
		do(l)
		l = newer
	}
}

// release forgets a lane with nothing left in it; its record becomes a
// tombstone. A lane whose last effect is not durable yet stays: were it made
// anew meanwhile, its next delivery would be sent before that.
func (t *Task) release(l *lane) {
	if l.stage != stageIdle || l.head != nil || l.expect >= 0 || l.pend > 0 || l.fence > 0 || l.moving ||
		len(l.mem) > 0 || l.nparked() > 0 || l.blocked {
		return
	}
	if l.waiting {
		l.waiting = false
		t.markDirty(l)
	}
	if t.lanes[l.key] != l {
		return
	}
	delete(t.lanes, l.key)
	t.unlink(l)
	l.sub.lanes-- // Relieve forgets the subscription
}

func (t *Task) markDirty(l *lane) {
	t.dirty[l.key] = struct{}{}
	t.touched = true
}

// mode is what may be done for a subscription now.
type mode uint8

const (
	modeSend  mode = iota
	modeHold       // paused: nothing is sent, everything is kept
	modeDrain      // deleted or disabled: everything ends in dead
)

func (s *sub) mode() mode {
	switch {
	case s.conf == nil || s.disabled != "" || s.conf.State == pipeline.StateDisabled:
		return modeDrain
	case s.conf.State == pipeline.StatePaused:
		return modeHold
	}
	return modeSend
}

// mode is what may be done in the lane now. What a subscription missed goes
// before all else: it is paused for the others meanwhile.
func (l *lane) mode() mode {
	m := l.sub.mode()
	if m == modeHold && l.catchUp && l.sub.catchingUp() {
		return modeSend
	}
	return m
}

// catchingUp tells whether it gets what it missed before all else.
func (s *sub) catchingUp() bool {
	return s.mode() == modeHold && s.conf.StateReason == pipeline.ReasonCatchUp
}

// drainReason says why a subscription's deliveries end without a try.
func (s *sub) drainReason() (pipeline.DeadReason, string) {
	reason := s.disabled
	if reason == "" && s.conf != nil {
		reason = s.conf.StateReason
	}
	switch {
	case s.conf == nil:
		return pipeline.DeadCancelled, "subscription deleted"
	case reason == ReasonBacklog:
		return pipeline.DeadBacklog, "subscription disabled: backlog"
	case reason != "":
		return pipeline.DeadCancelled, "subscription disabled: " + reason
	}
	return pipeline.DeadCancelled, "subscription disabled"
}

// The reasons for which a task disables a subscription.
const (
	ReasonBacklog = "backlog"
	ReasonGone    = "gone"
)
