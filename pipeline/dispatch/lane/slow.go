package lane

import (
	"time"

	"github.com/hookline/hookline/pipeline"
)

// Relieve parks what has waited too long in memory behind requests of its own
// subscription, so that a slow endpoint does not hold the partition, and takes
// off subscriptions whose parked deliveries have grown too old. Call it every
// few hundred milliseconds.
func (t *Task) Relieve(now time.Time) {
	t.now = now
	patience := t.cfg.SlowAfter
	if !t.Full() {
		patience *= SlackFactor
	}
	for _, r := range t.recs {
		if r == nil {
			continue // parking an earlier one closed it
		}
		if now.Sub(r.since) < patience {
			break
		}
		if r.nopen > 0 {
			t.relieveRecord(now, r)
		}
	}
	t.checkAges(now)
	t.endDisabled(now)
	t.tellExhausted(false)
	if len(t.bySub) <= fewSubs || now.Sub(t.forgot) >= forgetEvery {
		t.forgot = now
		t.forgetIdle()
	}
}

// Of more subscriptions than fewSubs those without lanes are looked for every
// forgetEvery only: it takes a look at each, and they are kept for warmFor anyway.
const (
	fewSubs     = 1000
	forgetEvery = time.Second
)

// paceWindow is how much time of a lane is remembered: older time counts half,
// then a quarter, and so on.
const paceWindow = time.Second

// landed counts a request that has ended.
func (l *lane) landed(now time.Time) {
	l.flown += now.Sub(l.stageSince)
	l.flights++
	if l.flown+l.waited > paceWindow {
		l.flown, l.waited, l.flights = l.flown/2, l.waited/2, (l.flights+1)/2
	}
}

// slow tells that the lane's endpoint holds it up: its own requests take more
// of its time than waiting for the process does, and, where the process is busy,
// far more than those of other lanes. Where all lanes are late because the
// process is busy there is nobody to protect, and parking would only make work.
func (l *lane) slow(now time.Time, all *pace) bool {
	flown, waited, flights := l.flown, l.waited, l.flights
	switch l.stage {
	case stageFlying:
		flown += now.Sub(l.stageSince)
		flights++
	case stageReady:
		waited += now.Sub(l.stageSince)
	case stageIdle, stageSlot:
	}
	if flown < waited {
		return false
	}
	return !all.busy() || flown*time.Duration(all.flights) > slowerThanAll*all.flown*time.Duration(flights)
}

const (
	// paceFlights is how many requests of the process are remembered: older ones
	// count half, then a quarter, and so on.
	paceFlights = 1024
	// busyAfter: in a process with CPU time to spare a request that was handed to
	// a worker begins within some ten microseconds.
	busyAfter = 250 * time.Microsecond
	// slowerThanAll times as long as the mean of all lanes must a lane's requests
	// take to be called slow while the process is busy: its own work makes all
	// of them late alike.
	slowerThanAll = 4
)

// pace is how the requests of all tasks of a process went lately.
type pace struct {
	flights int
	flown   time.Duration // from Next to Done
	delayed time.Duration // the part of it before the request was begun
}

// landed counts a request that was given out at the time out, begun and ended.
func (p *pace) landed(out, begun, ended time.Time) {
	p.flights++
	p.flown += ended.Sub(out)
	p.delayed += max(0, begun.Sub(out))
	if p.flights > paceFlights {
		p.flights, p.flown, p.delayed = p.flights/2, p.flown/2, p.delayed/2
	}
}

// busy tells that requests are late through the process itself.
func (p *pace) busy() bool {
	return p.flights > 0 && p.delayed/time.Duration(p.flights) >= busyAfter
}

func (t *Task) relieveRecord(now time.Time, r *Record) {
	open := r.open // parking clears bits of r.open
	for i, id := range r.Subs {
		if !open.has(i) {
			continue
		}
		s := t.bySub[id]
		if s == nil {
			continue
		}
		l := t.lanes[pipeline.LaneKeyOf(id, s.kind, r.Envelope, r.Offset)]
		if l == nil || len(l.mem) == 0 {
			continue
		}
		first := l.mem[0].origin == r.Offset
		heldUp := first && l.stage == stageReady && t.heldUp(l, now)
		if first && l.stage != stageSlot && !heldUp || !first && !l.slow(now, &t.sched.pace) {
			continue // under way, or only waiting for the process
		}
		if heldUp {
			t.backToIdle(l) // what stands of it in the queue is passed over
		}
		if first {
			l.stage = stageIdle
		}
		t.makeWaiting(l)
		t.advance(l, now)
	}
}

// heldUp tells that the lane has waited for a slot too long, not because the
// process is busy but because endpoints that do not answer hold the slots that
// it could have, while its partition takes in no more.
func (t *Task) heldUp(l *lane, now time.Time) bool {
	return t.sched.coldHeldUp && t.Full() && !l.sub.warm(now) && now.Sub(l.stageSince) >= t.cfg.SlowAfter
}

// checkAges disables subscriptions with too old a parked delivery. With many lanes
// it looks seldom: it takes a look at each.
func (t *Task) checkAges(now time.Time) {
	if len(t.lanes) > fewLanes && now.Sub(t.agesChecked) < min(agesEvery, t.cfg.MaxParkedAge/10) {
		return
	}
	t.agesChecked = now
	t.eachLane(func(l *lane) {
		if len(l.parked) > 0 && !l.blocked && l.mode() == modeSend && now.Sub(l.parkedSince()) > t.cfg.MaxParkedAge {
			t.disable(l.sub, ReasonBacklog)
		}
	})
}

const (
	fewLanes  = 1000
	agesEvery = 10 * time.Second
)

// endDisabled goes on with the lanes of subscriptions that were disabled here,
// until the registry shows that they are.
func (t *Task) endDisabled(now time.Time) {
	if t.disabled == 0 {
		return
	}
	t.eachLane(func(l *lane) {
		if l.sub.disabled != "" {
			t.advance(l, now)
			t.grant(l.sub, now)
		}
	})
}

// parkedSince is from when on the age of the lane's first parked entry counts.
func (l *lane) parkedSince() time.Time {
	since := time.UnixMilli(l.parked[0].sinceMS)
	if l.fresh.After(since) {
		return l.fresh
	}
	return since
}

// Update gives the task a newer view of the registry.
func (t *Task) Update(now time.Time, subs pipeline.Subscriptions) {
	t.now, t.subs = now, subs
	var changed []*sub
	for _, s := range t.bySub {
		if t.renew(now, s) {
			changed = append(changed, s)
		}
	}
	t.reviewLanes(now, changed)
	t.forgetIdle()
}

// UpdateOnly is Update for a view in which no subscriptions but those with these
// ids differ from the task's view. Where thousands of endpoints fail, there is a
// new view with every transaction that notes it: what has not changed, and what
// changes nothing for lanes, must cost nothing.
func (t *Task) UpdateOnly(now time.Time, subs pipeline.Subscriptions, ids []string) {
	t.now, t.subs = now, subs
	var changed []*sub
	for _, id := range ids {
		if s := t.bySub[id]; s != nil {
			was, disabled := s.conf, s.disabled
			if t.renew(now, s) && (!notedOnly(was, s.conf) || s.disabled != disabled) {
				changed = append(changed, s)
			}
		}
	}
	t.reviewLanes(now, changed)
}

// notedOnly tells that what differs is what was noted of failures, if anything.
func notedOnly(was, is *pipeline.Subscription) bool {
	if was == nil || is == nil {
		return was == is
	}
	return was == is || was.Revision == is.Revision && was.State == is.State && was.StateReason == is.StateReason &&
		!was.FailingSince.Equal(is.FailingSince)
}

// renew takes over what the task's view says of a subscription. It tells whether
// that is anything new: the same *pipeline.Subscription is not.
func (t *Task) renew(now time.Time, s *sub) (changed bool) {
	was := s.conf
	s.setConf(t.subs.Get(s.id), now)
	return t.heedRegistry(s) || s.conf != was
}

// reviewLanes has the lanes of subscriptions do what their new configurations say.
func (t *Task) reviewLanes(now time.Time, of []*sub) {
	if len(of) == 0 {
		return
	}
	for _, s := range of {
		s.changed = true
	}
	t.eachLane(func(l *lane) {
		if l.sub.changed {
			t.reviewLane(now, l)
		}
	})
	for _, s := range of {
		s.changed = false
	}
}

func (t *Task) reviewLane(now time.Time, l *lane) {
	t.noteHeld(l)
	if t.unblock(l, now) {
		return
	}
	if l.mode() == modeHold && l.stage == stageIdle && len(l.mem) > 0 {
		t.makeWaiting(l)
	}
	t.advance(l, now)
	if l.stage == stageSlot { // limits may have been raised
		t.grant(l.sub, now)
	}
}

// heedRegistry drops what was decided here where the registry tells as much, or
// what came of it: it may have been taken back since. It tells whether it has.
func (t *Task) heedRegistry(s *sub) bool {
	if s.disabled == "" || s.conf != nil && s.conf.State != pipeline.StateDisabled && s.conf.Revision <= s.disabledRevision &&
		(s.disabledAt < 0 || s.disabledAt > t.subs.Version()) {
		return false
	}
	s.disabled = ""
	t.disabled--
	return true
}

// unblock ends the exhausted delivery of a blocked lane whose subscription was
// changed so that it goes on.
func (t *Task) unblock(l *lane, now time.Time) bool {
	if !l.blocked || l.endAs != "" || l.sub.conf == nil || l.sub.conf.OnExhausted == pipeline.OnExhaustedBlock {
		return false
	}
	t.endFirstAs(now, l, pipeline.DeadExhausted)
	return true
}

// forgetIdle forgets subscriptions without lanes. They are not forgotten as
// soon as their last lane is: a busy one comes and goes with every delivery.
func (t *Task) forgetIdle() {
	for id, s := range t.bySub {
		if s.lanes == 0 && s.disabled == "" && !s.bucket.used(t.now) && !s.warm(t.now) && s.health.settled(s.conf, t.now) {
			delete(t.bySub, id)
		}
	}
}

// noteHeld has the lane's record say whether it is held.
func (t *Task) noteHeld(l *lane) {
	held := l.mode() == modeHold
	if !l.waiting || held == l.held {
		return
	}
	if l.held = held; !held {
		l.fresh = t.now
	}
	t.markDirty(l)
}

// Stats are counts for metrics.
type Stats struct {
	Waiting, Held, Parked, Heads, Queued, OpenRecords int
	MemoryBytes                                       int
}

// Stats counts what the task holds.
func (t *Task) Stats() Stats {
	st := Stats{OpenRecords: t.nopen, MemoryBytes: t.memBytes + t.outBytes}
	for _, s := range t.bySub {
		st.Parked += s.parked
		st.Heads += s.heads
		st.Queued += s.queued
	}
	t.eachLane(func(l *lane) {
		switch {
		case l.blocked || (l.waiting && l.mode() == modeHold):
			st.Held++
		case l.waiting:
			st.Waiting++
		}
	})
	return st
}
