package lane

import (
	"cmp"
	"slices"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// makeWaiting gives the lane a record in lanes/p and parks what waits in
// memory behind its first entry. The first entry stays where it is while a
// request for it is under way or queued; the lane's record names it (wait).
func (t *Task) makeWaiting(l *lane) {
	before := l.waiting
	if !before {
		l.waiting = true
		l.held = l.mode() == modeHold
		t.markDirty(l)
	}
	keep := 0
	if l.stage != stageIdle && len(l.mem) > 0 {
		keep = 1
	}
	if len(l.mem) == keep {
		return
	}
	followers := slices.Clone(l.mem[keep:])
	l.mem = l.mem[:keep:keep]
	l.sub.queued -= len(followers)
	for i := range followers {
		o := t.parkEntry(l, &followers[i])
		if before && keep == 0 && i == 0 {
			// The lane's first entry goes to parked behind later ones: none of
			// them may be sent before it stands there.
			l.moving, o.moves = true, true
			t.markDirty(l) // its record says that it is in deliveries
		}
	}
}

// parkEntry moves a delivery that was not tried, and that is in no list of the
// lane any more, from deliveries to parked, behind what is parked already.
func (t *Task) parkEntry(l *lane, e *entry) *Out {
	o := t.emit(l, e, OutParked)
	t.closePosition(e.rec, int(e.pos))
	t.countParked(l)
	return o
}

func (t *Task) countParked(l *lane) {
	if l.nparked() == 0 && l.pend == 0 {
		t.markDirty(l) // its record must say from where to scan
	}
	l.pend++
	l.sub.parked++
	t.touched = true
	t.watchBacklog(l.sub)
	if t.overfull(l.sub) {
		t.disable(l.sub, ReasonBacklog)
	}
}

// behindFactor times MaxParked may be parked of a subscription that catches up, or
// works off what was held meanwhile: enough for hours of a busy one, and an end.
const behindFactor = 10

// overfull tells whether more is parked of a subscription than may be. One that
// takes what it is sent is only behind, as after hours without a dispatcher: to
// give it up would turn a backlog that is being worked off into dead letters. So
// is one that gets what it missed first: what is held meanwhile says nothing of
// its endpoint, and has a bound of its own until no more than the usual one is
// left. Parked deliveries cost Kafka's disk and no memory; lanes cost memory.
func (t *Task) overfull(s *sub) bool {
	catchingUp := s.catchingUp()
	if s.parked <= t.cfg.MaxParked {
		s.behind = catchingUp
		return false
	}
	s.behind = s.behind || catchingUp
	switch {
	case s.behind:
		return s.parked > behindFactor*t.cfg.MaxParked+pipeline.MaxReplayWaiting || s.lanes > t.cfg.MaxParked+pipeline.MaxReplayWaiting
	case s.health.failures > 0 || s.mode() != modeSend:
		return true
	}
	return s.lanes > t.cfg.MaxParked
}

// park makes e, which was tried, the first parked entry of its lane, not to be
// sent before next. An entry that is parked already stays where it is: the
// lane's record tells what changed.
func (t *Task) park(l *lane, e entry, next time.Time) {
	if e.home == homeParked {
		l.mark(&e, next)
		t.markDirty(l)
		return
	}
	o := t.emit(l, &e, OutParked)
	o.NotBefore = next
	delivery := l.deliveryOf(&e)
	t.leaveHome(l, &e)
	l.next = e.origin
	l.mark(&e, next)
	l.first.Delivery = delivery
	// Behind it nothing of the lane may be sent until it stands in parked:
	// its place there, before what is parked already, is known by then only.
	l.moving, o.moves = true, true
	t.countParked(l)
	t.makeWaiting(l)
	t.markDirty(l)
}

// mark notes of the lane's first parked entry what its record does not say.
func (l *lane) mark(e *entry, next time.Time) {
	delivery := l.deliveryOf(e)
	l.first = &firstMark{
		Origin: e.origin, Attempts: e.attempts, Round: e.round, NotBeforeMS: unixMS(next), Delivery: delivery, notBefore: next,
	}
}

// firstParked makes the lane's first parked entry in e.
func (l *lane) firstParked(e *entry) {
	p := &l.parked[0]
	*e = entry{origin: p.origin, home: homeParked, off: p.off}
	if f := l.first; f != nil && f.Origin == p.origin {
		e.attempts, e.round, e.notBefore = f.Attempts, f.Round, f.notBefore
	}
}

// nparked is the number of parked entries whose place is known, the tail
// included.
func (l *lane) nparked() int { return len(l.parked) + l.tail.n }

// moveHead takes a due head out of its retry topic: it may not be sent now, and
// must not hold up the topic.
func (t *Task) moveHead(l *lane, next time.Time) { t.park(l, l.head.entry, next) }

// block holds the lane until an operator decides on its exhausted head.
func (t *Task) block(l *lane, e entry) {
	l.blocked = true
	t.park(l, e, time.Time{})
}

// unpark puts a delivery whose record has become durable in its place.
func (t *Task) unpark(l *lane, p parkedRef) {
	n := len(l.parked)
	first := n > 0 && p.origin < l.parked[n-1].origin || l.tail.n > 0 && p.origin < l.tail.origin
	switch {
	case first:
		i, _ := slices.BinarySearchFunc(l.parked, p.origin, func(x parkedRef, o int64) int { return cmp.Compare(x.origin, o) })
		l.parked = slices.Insert(l.parked, i, p)
		t.parkedRefs++
	case l.tail.n > 0 || l.rescan:
		l.tail.n++
		if l.rescan {
			l.tail.late++
		}
	case n > 0 && t.parkedRefs >= t.cfg.MaxParkedOffsets:
		l.tail = parkedTail{n: 1, off: p.off, origin: p.origin}
	default:
		l.parked = append(l.parked, p)
		t.parkedRefs++
	}
}

// from is the offset in parked/p from which a rebuild must scan for the lane;
// -1: it has nothing there. Entries behind the first are in the order of their
// offsets; the first may have been moved there later than the second.
func (l *lane) from(parkedEnd int64) int64 {
	from := int64(-1)
	for i := 0; i < len(l.parked) && i < 2; i++ {
		if from < 0 || l.parked[i].off < from {
			from = l.parked[i].off
		}
	}
	if l.tail.n > 0 && len(l.parked) < 2 && (from < 0 || l.tail.off < from) {
		from = l.tail.off
	}
	// Offsets of what is being written now are not known before the write is
	// acknowledged: nothing but this task writes to parked/p, so they are at
	// least one past the last that is known.
	if from < 0 && l.pend > 0 {
		from = parkedEnd
	}
	return from
}

func unixMS(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++ // never early
	}
	return ms
}

func fromUnixMS(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
