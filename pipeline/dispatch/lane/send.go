package lane

import (
	"time"

	"github.com/hookline/hookline/pipeline"
)

// Work is something to do for the head of a lane, outside the state machine.
// Every Work that Next gave must come back by Task.Done, exactly once.
type Work struct {
	Task         *Task
	Subscription *pipeline.Subscription
	Origin       int64
	Attempt      int // the attempt to be made, from 1
	Round        int
	// ParkedOffset, when not negative, is where in parked/p the record must be
	// fetched from before anything else: Envelope, Header and Payload are nil.
	ParkedOffset int64
	// FetchOnly: no request; come back with the payload filled in. The delivery
	// ends without a try.
	FetchOnly bool
	// FromOrigin: the delivery's own copy cannot be read; it must be made again
	// of the record of deliveries/p at Origin: Envelope, Header and Payload are
	// nil.
	FromOrigin bool
	Envelope   *pipeline.Envelope
	Header     []byte // the encoded envelope
	Payload    []byte
	// Unreadable is for the caller to fill in, instead of these three, where
	// neither the copy nor the origin can ever be read: it says why. The delivery
	// ends. Raw is the copy, if there is any.
	Unreadable string
	Raw        *Raw

	lane  *lane
	entry entry
	class class
}

// LaneKey names the lane that the work belongs to.
func (w *Work) LaneKey() string { return w.lane.key }

// class is what is known of a lane that is ready, and of the work it gave.
type class uint8

const (
	// classWarm: its subscription's last attempt succeeded, at most warmFor ago.
	classWarm class = iota
	// classCold: nothing is known of late.
	classCold
	// classSuspect: its last attempt failed.
	classSuspect
)

// warmFor is how long a success speaks for a subscription. A lane under load
// has one far more often.
const warmFor = 5 * time.Second

// Scheduler hands out the work of all tasks of a process, in the order in which
// their lanes became ready. Lanes whose last attempt failed stand in a queue of
// their own, and so do those of which nothing is known of late, so that a caller
// can bound the share of each.
type Scheduler struct {
	warm, cold, suspect queue[readyLane]
	pace                pace
	spare               []*Work // for use again

	// coldHeldUp: lanes without a late success wait for slots that requests
	// without an answer hold, so that what they keep in memory may be parked.
	coldHeldUp bool
}

// Shares says of which lanes work may be given, besides those that succeeded of late.
type Shares struct {
	Cold    bool // nothing is known of late
	Suspect bool // the last attempt failed
}

type readyLane struct {
	task *Task
	lane *lane
}

// HoldUpCold says whether slots are withheld from cold lanes because of requests
// that are not answered.
func (s *Scheduler) HoldUpCold(held bool) { s.coldHeldUp = held }

// Next gives the next work, or nil.
func (s *Scheduler) Next(now time.Time, may Shares) *Work {
	if may.Suspect {
		if w := s.pop(now, classSuspect); w != nil {
			return w
		}
	}
	for {
		c := classWarm
		if may.Cold && s.cold.len() > 0 && (s.warm.len() == 0 || s.cold.first().lane.stageSince.Before(s.warm.first().lane.stageSince)) {
			c = classCold
		}
		if w := s.pop(now, c); w != nil {
			return w
		}
		if s.warm.len() == 0 && (!may.Cold || s.cold.len() == 0) {
			return nil
		}
	}
}

// maxSpareWorks bounds the Works that are kept for use again.
const maxSpareWorks = 4096

func (s *Scheduler) newWork() *Work {
	n := len(s.spare)
	if n == 0 {
		return new(Work)
	}
	w := s.spare[n-1]
	s.spare = s.spare[:n-1]
	return w
}

// Recycle takes a Work that is done, and that nobody uses any more, for use
// again. It need not be called.
func (s *Scheduler) Recycle(w *Work) {
	*w = Work{}
	if len(s.spare) < maxSpareWorks {
		s.spare = append(s.spare, w)
	}
}

// Any tells that a lane waits for Next.
func (s *Scheduler) Any() bool { return s.warm.len()+s.cold.len()+s.suspect.len() > 0 }

// Waiting is the number of lanes that wait for Next, suspect ones apart.
func (s *Scheduler) Waiting() (healthy, suspect int) {
	return s.warm.len() + s.cold.len(), s.suspect.len()
}

func (s *Scheduler) queueOf(c class) *queue[readyLane] {
	switch c {
	case classWarm:
		return &s.warm
	case classCold:
		return &s.cold
	case classSuspect:
	}
	return &s.suspect
}

// pop takes work from one queue. A lane that has waited so long that it is warm
// no more goes to the cold ones.
func (s *Scheduler) pop(now time.Time, c class) *Work {
	q := s.queueOf(c)
	for {
		r, ok := q.pop()
		if !ok {
			return nil
		}
		if c == classWarm && r.lane.stage == stageReady && !r.lane.sub.warm(now) {
			s.cold.push(r)
			continue
		}
		if w := r.task.take(now, r.lane); w != nil {
			w.class = c
			return w
		}
	}
}

// Suspect tells that the work was taken from the queue of failing lanes.
func (w *Work) Suspect() bool { return w.class == classSuspect }

// Cold tells that the work was taken from the queue of lanes of which nothing
// is known of late.
func (w *Work) Cold() bool { return w.class == classCold }

// warm tells that the subscription's endpoint has taken something of late.
func (s *sub) warm(now time.Time) bool { return now.Sub(s.tookAt) < warmFor }

// take turns a ready lane into work; nil where things changed meanwhile.
func (t *Task) take(now time.Time, l *lane) *Work {
	if l.stage != stageReady || t.closed {
		return nil
	}
	t.now = now
	var buf entry
	e := l.front(&buf)
	ending := l.ending()
	if e == nil || t.draining || (ending && e.loaded()) ||
		(!ending && (l.mode() == modeHold || l.sub.crowded() || !e.sendable(l, now))) {
		t.backToIdle(l)
		t.advance(l, now)
		return nil
	}
	if !ending && !l.sub.bucket.ready(now) {
		t.backToIdle(l)
		t.waitForSlot(l, now)
		return nil
	}
	if !ending {
		l.sub.bucket.take(now)
	}
	l.waited += now.Sub(l.stageSince)
	l.stage, l.stageSince = stageFlying, now
	t.inflight++
	w := t.sched.newWork()
	*w = Work{
		Task: t, Subscription: l.sub.conf, Origin: e.origin, Attempt: e.attempts + 1, Round: e.round,
		ParkedOffset: -1, FetchOnly: ending, lane: l, entry: *e,
		Envelope: e.env(), Header: e.hdr(), Payload: e.body(),
	}
	switch {
	case e.home == homeParked:
		w.ParkedOffset = e.off
	case !e.loaded():
		w.FromOrigin, w.Raw = true, l.head.raw
	}
	return w
}

// crowded tells that more slots are taken than the subscription has: it was
// granted more, or lanes that were only to be ended took them unasked.
func (s *sub) crowded() bool { return s.conf != nil && s.inflight > max(1, int(s.conf.Concurrency)) }

// front is the entry that the lane would act on next; nil: none, or not here
// yet. A parked one is made in buf.
func (l *lane) front(buf *entry) *entry {
	switch {
	case l.expect >= 0 || l.moving:
		return nil
	case l.head != nil:
		if l.head.due.IsZero() {
			return nil // on its way through its retry topic
		}
		return &l.head.entry
	case len(l.mem) > 0:
		return &l.mem[0]
	case len(l.parked) > 0:
		l.firstParked(buf)
		return buf
	}
	return nil
}

// sendable tells whether e may be sent now as far as time and durability go.
func (e *entry) sendable(l *lane, now time.Time) bool {
	if l.fence > 0 || l.blocked || now.Before(l.localUntil) || now.Before(e.notBefore) {
		return false
	}
	return e.home != homeRetry || l.head.isDue
}

// advance moves an idle lane on: to the ready queue, to an end, to a hold, or
// out of memory.
func (t *Task) advance(l *lane, now time.Time) {
	var buf entry
	for l.stage == stageIdle && !t.closed && !t.draining {
		e := l.front(&buf)
		if e == nil {
			if !t.wantTail(l, now) {
				t.release(l)
			}
			return
		}
		switch {
		case l.ending() && !e.loaded():
			if now.Before(l.localUntil) {
				t.wakeAt(l, l.localUntil, now) // its fetch failed
				return
			}
			t.enqueue(l)
			return
		case l.ending():
			t.endFirst(l, *e)
		case l.mode() == modeHold:
			t.holdFirst(l, e)
			return
		case !e.sendable(l, now):
			at := e.notBefore
			if l.localUntil.After(at) {
				at = l.localUntil
			}
			t.wakeAt(l, at, now)
			return
		default:
			t.requestSlot(l, e, now)
			return
		}
	}
}

// ending tells that the lane's first entry ends without a try.
func (l *lane) ending() bool { return l.endAs != "" || l.sub.mode() == modeDrain }

// endFirst ends the first entry without a try.
func (t *Task) endFirst(l *lane, e entry) {
	reason, why := l.endAs, string(l.endAs)
	if reason == "" {
		reason, why = l.sub.drainReason()
	}
	if l.blocked {
		l.fresh = t.now
	}
	l.endAs, l.blocked = "", false
	t.end(l, e, reason, why).Untried = true
}

// holdFirst moves the first entry of a held lane to parked, where it is in
// nobody's way.
func (t *Task) holdFirst(l *lane, e *entry) {
	switch {
	case e.home == homeRetry && l.head.isDue && e.loaded():
		t.moveHead(l, time.Time{})
	case e.home == homeDeliveries:
		t.makeWaiting(l)
	}
}

// requestSlot queues the lane for a slot of its subscription, or for Next.
func (t *Task) requestSlot(l *lane, e *entry, now time.Time) {
	s := l.sub
	if e.home == homeRetry && e.loaded() { // a lost one holds up no topic
		e.notBefore = time.Time{}
		t.dueHeads = append(t.dueHeads, l)
		e.since = now
	}
	if !s.mayStart(now) {
		t.waitForSlot(l, now)
		return
	}
	t.enqueue(l)
}

func (t *Task) enqueue(l *lane) {
	l.stage, l.stageSince = stageReady, t.now
	l.sub.inflight++
	r := readyLane{t, l}
	if l.suspect || (l.sub.kind != pipeline.OrderingSubscription && l.sub.suspect) {
		t.sched.suspect.push(r)
		return
	}
	if l.sub.warm(t.now) {
		t.sched.warm.push(r)
		return
	}
	t.sched.cold.push(r)
}

// backToIdle undoes enqueue, or ends a flight, and gives the slot on.
func (t *Task) backToIdle(l *lane) {
	l.stage = stageIdle
	s := l.sub
	s.inflight--
	t.grant(s, t.now)
}

// queue is a FIFO that reuses its memory.
type queue[T any] struct {
	items []T
	start int
}

func (q *queue[T]) len() int { return len(q.items) - q.start }

// first is the next one to be popped; there must be one.
func (q *queue[T]) first() T { return q.items[q.start] }

func (q *queue[T]) push(v T) { q.items = append(q.items, v) }

func (q *queue[T]) pop() (v T, ok bool) {
	if q.start == len(q.items) {
		return v, false
	}
	var zero T
	v, q.items[q.start] = q.items[q.start], zero
	q.start++
	if q.start == len(q.items) {
		q.items, q.start = q.items[:0], 0
	} else if q.start > 1024 && q.start*2 > len(q.items) {
		n := copy(q.items, q.items[q.start:])
		clear(q.items[n:])
		q.items, q.start = q.items[:n], 0
	}
	return v, true
}
