package lane

import (
	"time"

	"github.com/hookline/hookline/pipeline"
)

// Which narrows an operator's command to some of a subscription's lanes. The
// zero value means all.
type Which struct {
	Entity   string // only the lane of this entity
	Delivery string // only the lane whose first delivery has this id
}

// Skip ends the first delivery of every waiting lane of a subscription that is
// blocked or has a head in a retry topic: it goes to dead with reason skipped.
// A delivery that is under way is not skipped. What was decided is durable with
// the next transaction.
func (t *Task) Skip(now time.Time, subscription string, which Which) Applied {
	t.now = now
	return t.eachStuck(subscription, which, func(l *lane) {
		switch l.stage {
		case stageReady:
			t.backToIdle(l)
		case stageSlot:
			l.stage = stageIdle
		case stageIdle, stageFlying:
		}
		t.endFirstAs(now, l, pipeline.DeadSkipped)
	})
}

// Applied is what a command applied to.
type Applied struct {
	Lanes    int
	UnderWay int // lanes that it did not apply to, since their first delivery is under way
}

// RetryNow sends the first delivery of every such lane at once. An exhausted
// one begins a new round of attempts.
func (t *Task) RetryNow(now time.Time, subscription string, which Which) Applied {
	t.now = now
	return t.eachStuck(subscription, which, func(l *lane) {
		if l.stage != stageIdle {
			return // waits for nothing but a slot
		}
		if l.head != nil {
			// As soon as it has been read back; a rebuilt task is told by the lane's record.
			l.head.isDue, l.head.asked, l.head.notBefore = true, true, time.Time{}
			t.markDirty(l)
		} else if len(l.parked) > 0 {
			var p entry
			l.firstParked(&p)
			if l.blocked {
				p.attempts, p.round = 0, p.round+1
				l.fresh = now
			}
			l.blocked = false
			l.mark(&p, time.Time{})
			t.markDirty(l)
		}
		t.advance(l, now)
	})
}

func (t *Task) eachStuck(subscription string, which Which, do func(*lane)) (a Applied) {
	s := t.bySub[subscription]
	if s == nil {
		return a
	}
	t.eachLane(func(l *lane) {
		switch {
		case l.sub != s || !l.stuck() || !which.has(l):
		case l.stage == stageFlying || l.moving:
			a.UnderWay++
		default:
			do(l)
			a.Lanes++
		}
	})
	return a
}

// stuck tells that the lane's first delivery has been tried, and has not
// succeeded.
func (l *lane) stuck() bool {
	return l.blocked || l.head != nil ||
		(len(l.parked) > 0 && l.first != nil && l.first.Origin == l.parked[0].origin && l.first.Attempts > 0)
}

func (w *Which) has(l *lane) bool {
	if w.Entity != "" && pipeline.LaneEntity(l.key) != w.Entity {
		return false
	}
	return w.Delivery == "" || w.Delivery == l.firstDelivery()
}

// firstDelivery is the id of the lane's first delivery; empty: not known, since
// it was not tried, or since an older hookline wrote the lane's record.
func (l *lane) firstDelivery() string {
	switch {
	case l.head != nil:
		return l.head.delivery
	case l.first != nil && (l.moving || len(l.parked) > 0 && l.first.Origin == l.parked[0].origin):
		return l.first.Delivery // moving: it is on its way to its place before the others
	}
	return ""
}

// deliveryOf is the id of e, the lane's first delivery, which has been tried.
func (l *lane) deliveryOf(e *entry) string {
	if env := e.env(); env != nil {
		return pipeline.DeliveryID(&env.Source, l.sub.id)
	}
	switch {
	case l.head != nil && l.head.origin == e.origin:
		return l.head.delivery
	case l.first != nil && l.first.Origin == e.origin:
		return l.first.Delivery
	}
	return ""
}

// endFirstAs ends a lane's first delivery without a further try.
func (t *Task) endFirstAs(now time.Time, l *lane, reason pipeline.DeadReason) {
	l.endAs = reason
	t.markDirty(l) // its payload may have to be read first: until then the lane's record tells
	t.advance(l, now)
}

// Answer puts a record into the next transaction that tells what came of a
// command. It is durable exactly if that is.
func (t *Task) Answer(o *Out) {
	t.out = append(t.out, o)
	t.outBytes += o.size()
	t.answers++
	t.touched = true
}

// Answers is how many of them wait for the next transaction.
func (t *Task) Answers() int { return t.answers }

// Control is the offset of the topic of operators' commands below which this
// task has carried out, or passed over, all that is meant for it.
func (t *Task) Control() int64 { return t.control }

// ControlTo says that this is so for all below off. It is durable with the next
// transaction, and asks for none: what a lost one would bring again is nothing
// for this task.
func (t *Task) ControlTo(off int64) { t.control = off }

// Draining tells that the task begins nothing any more.
func (t *Task) Draining() bool { return t.draining }

// Inspection is what a task knows of one subscription.
type Inspection struct {
	Conf   *pipeline.Subscription // as the task's registry has it; nil: there is none
	Reason string                 // disabled here for this reason, the registry does not show it yet; else empty
	// Local is why hookline itself could not make the last try, which spent no
	// attempt; empty: it could, or nothing waits.
	Local string

	Lanes, Waiting, Blocked, CatchUp int // lanes; those that wait, are blocked, or of a catch-up
	InFlight, Queued, Parked, Heads  int // deliveries
	CatchUpDeliveries                int // of the last three, those in lanes of a catch-up
	Stuck                            []StuckLane
}

// StuckLane is a lane whose first delivery was tried and has not succeeded.
type StuckLane struct {
	Key             string
	Delivery        string // its id; empty: not known
	Attempts, Round int
	Blocked         bool
	Behind          int       // deliveries behind it
	NextAt          time.Time // zero: not known, or when there is room
}

// Inspect tells what waits of a subscription, with at most maxStuck of its stuck
// lanes, oldest first.
func (t *Task) Inspect(subscription string, maxStuck int) Inspection {
	in := Inspection{Conf: t.subs.Get(subscription)}
	s := t.bySub[subscription]
	if s == nil {
		return in
	}
	in.Reason = s.disabled
	if s.lanes > 0 {
		in.Local = s.local
	}
	in.InFlight, in.Queued, in.Parked, in.Heads = s.inflight, s.queued, s.parked, s.heads
	t.eachLane(func(l *lane) {
		if l.sub != s {
			return
		}
		in.Lanes++
		if l.waiting {
			in.Waiting++
		}
		if l.blocked {
			in.Blocked++
		}
		if l.catchUp {
			in.CatchUp++
			in.CatchUpDeliveries += l.nparked() + l.pend + len(l.mem)
			if l.head != nil {
				in.CatchUpDeliveries++
			}
		}
		if !l.stuck() || len(in.Stuck) >= maxStuck {
			return
		}
		st := StuckLane{Key: l.key, Delivery: l.firstDelivery(), Blocked: l.blocked, Behind: l.nparked() + len(l.mem) + l.pend}
		switch {
		case l.head != nil:
			st.Attempts, st.Round, st.NextAt = l.head.attempts, l.head.round, l.head.due
		case l.first != nil: // parked, or on its way there
			st.Attempts, st.Round, st.NextAt = l.first.Attempts, l.first.Round, l.first.notBefore
			st.Behind--
		}
		in.Stuck = append(in.Stuck, st)
	})
	return in
}
