package lane

import (
	"time"

	"github.com/hookline/hookline/pipeline"
)

// Verdict is what Done decided of an attempt, for its row in the log.
type Verdict struct {
	Final         bool      // the delivery ended with it
	NextAttemptAt time.Time // zero: no further attempt is planned
	Dropped       bool      // the task is no longer ours: nothing was decided
}

// Done brings a Work back with its result. For FetchOnly res is not read. Where
// the Work had a ParkedOffset or was FromOrigin, its Envelope, Header and
// Payload, or Unreadable, must have been filled in; if the fetch failed for a
// reason that may pass, res says local_error.
func (t *Task) Done(now time.Time, w *Work, res *pipeline.Result) Verdict {
	t.inflight--
	t.now = now
	if t.closed {
		return Verdict{Dropped: true}
	}
	l, e := w.lane, w.entry
	if l.stage != stageFlying {
		panic("BUG: a work came back twice for lane " + l.key)
	}
	if !e.loaded() && w.Envelope != nil {
		e.got = &fetched{w.Envelope, w.Header, w.Payload}
	}
	t.touched = true
	if w.ParkedOffset < 0 && !w.FetchOnly && !w.FromOrigin {
		t.sched.pace.landed(l.stageSince, res.StartedAt, now)
	}
	l.landed(now)
	t.backToIdle(l)
	v := t.decide(now, w, l, e, res)
	t.advance(l, now)
	return v
}

func (t *Task) decide(now time.Time, w *Work, l *lane, e entry, res *pipeline.Result) Verdict {
	switch {
	case w.Unreadable != "" && !e.loaded():
		t.endUnreadable(l, e, w.Unreadable, w.Raw)
		return Verdict{Final: true}
	case w.FetchOnly && e.loaded() && !l.ending():
		return Verdict{} // its subscription was taken into use again: it is sent
	case w.FetchOnly && e.loaded():
		t.endFirst(l, e)
		return Verdict{Final: true}
	case w.FetchOnly || !res.Outcome.SpendsAttempt():
		l.localUntil = now.Add(t.cfg.LocalRetryAfter)
		l.sub.local = res.Error
		return Verdict{NextAttemptAt: l.localUntil}
	case res.Outcome == pipeline.OutcomeSuccess:
		l.suspect, l.sub.suspect, l.sub.tookAt, l.sub.local = false, false, now, ""
		t.succeeded(l.sub, w)
		t.settle(l, &e)
		return Verdict{Final: true}
	}
	l.suspect, l.sub.suspect, l.sub.local = true, true, ""
	e.attempts = w.Attempt
	t.failedOnce(l.sub, w, res.EndedAt(), failureText(res))
	if l.sub.mode() == modeDrain {
		reason, why := l.sub.drainReason()
		t.end(l, e, reason, why)
		return Verdict{Final: true}
	}
	if res.Outcome == pipeline.OutcomeGone {
		t.disable(l.sub, ReasonGone)
		t.end(l, e, pipeline.DeadExhausted, failureText(res))
		return Verdict{Final: true}
	}
	return t.failed(l, e, res)
}

// failed plans the next attempt of a delivery, or ends it.
func (t *Task) failed(l *lane, e entry, res *pipeline.Result) Verdict {
	ended := res.EndedAt()
	if e.attempts > t.retries(l.sub) {
		t.exhaust(l.sub, e.env(), e.attempts)
		if l.sub.conf != nil && l.sub.conf.OnExhausted == pipeline.OnExhaustedBlock {
			t.block(l, e)
			return Verdict{}
		}
		t.end(l, e, pipeline.DeadExhausted, failureText(res))
		return Verdict{Final: true}
	}
	delay := t.cfg.delay(e.attempts)
	if res.RetryAfter > delay || l.sub.heads >= t.headsAllowed(l.sub, &e) {
		// No retry topic could hold it: it is not due with its neighbours, or
		// its subscription has its share of heads there already.
		next := ended.Add(max(delay, res.RetryAfter))
		t.park(l, e, next)
		return Verdict{NextAttemptAt: next}
	}
	t.toRetry(l, e, ended)
	return Verdict{NextAttemptAt: ended.Add(delay)}
}

func (t *Task) headsAllowed(s *sub, e *entry) int {
	n := 1
	if s.conf != nil {
		n = max(1, int(s.conf.Concurrency))
	}
	if e.home == homeRetry {
		n++ // it is one of them itself
	}
	return n
}

func (t *Task) retries(s *sub) int {
	n := len(t.cfg.Delays)
	if s.conf != nil {
		n = min(n, int(s.conf.Retries))
	}
	return n
}

func failureText(res *pipeline.Result) string {
	if res.Error != "" {
		return res.Outcome.String() + ": " + res.Error
	}
	return res.Outcome.String()
}

// settle ends a delivery by success. The lane may go on at once: should the
// settling be lost in a crash, this delivery is repeated, never overtaken.
func (t *Task) settle(l *lane, e *entry) {
	t.leaveHome(l, e)
	l.next = e.origin + 1
	if l.waiting {
		t.markDirty(l)
	}
}

// end ends a delivery by anything but success: its lane sends nothing before
// the transaction with its dead record has committed. Otherwise a crash could
// let this delivery be tried again, and succeed, after the next one.
func (t *Task) end(l *lane, e entry, reason pipeline.DeadReason, why string) *Out {
	o := t.emit(l, &e, OutDead)
	o.Reason, o.Error = reason, why
	l.fence++
	t.settle(l, &e)
	return o
}

// endUnreadable ends a delivery of which neither the copy nor the origin can be
// read: what is known of it goes to dead.
func (t *Task) endUnreadable(l *lane, e entry, why string, raw *Raw) {
	t.emitUnreadable(l, e.origin, why, raw).Attempts = e.attempts
	if l.blocked {
		l.fresh = t.now
	}
	l.endAs, l.blocked = "", false
	t.settle(l, &e)
}

// emitUnreadable notes a dead record without a payload. l is nil where it is not
// known whose delivery it was.
func (t *Task) emitUnreadable(l *lane, origin int64, why string, raw *Raw) *Out {
	o := &Out{Kind: OutDead, Origin: origin, Reason: pipeline.DeadUnreadable, Error: why, Raw: raw, lane: l}
	if l != nil {
		o.Subscription, o.Lane = l.sub.id, l.key
		l.fence++
	}
	t.out = append(t.out, o)
	t.touched = true
	return o
}

// toRetry makes e the head of its lane in retry.k.
func (t *Task) toRetry(l *lane, e entry, ended time.Time) {
	o := t.emit(l, &e, OutRetry)
	o.FailedAt = ended
	delivery := l.deliveryOf(&e)
	t.leaveHome(l, &e)
	l.head = &head{failedAt: ended, entry: entry{
		origin: e.origin, home: homeRetry, attempts: e.attempts, round: e.round, off: -1,
	}, delivery: delivery}
	o.head = l.head
	l.sub.heads++
	l.next = e.origin
	t.makeWaiting(l)
	t.markDirty(l)
}

// leaveHome takes e out of its home in memory. The caller has emitted what the
// next home needs, or settles e.
func (t *Task) leaveHome(l *lane, e *entry) {
	switch e.home {
	case homeDeliveries:
		if len(l.mem) == 0 || l.mem[0].origin != e.origin {
			panic("BUG: not the first entry in memory of lane " + l.key)
		}
		l.mem[0] = entry{}
		if l.mem = l.mem[1:]; len(l.mem) == 0 {
			l.mem = l.one[:0]
		}
		l.sub.queued--
		t.closePosition(e.rec, int(e.pos))
	case homeRetry:
		if !l.head.lost {
			t.retry[l.head.attempts-1].decide(l.head.off)
		}
		l.head = nil
		l.sub.heads--
	case homeParked:
		if len(l.parked) == 0 || l.parked[0].origin != e.origin {
			panic("BUG: not the first parked entry of lane " + l.key)
		}
		l.parked = l.parked[1:]
		l.sub.parked--
		t.parkedRefs--
		t.watchBacklog(l.sub)
		l.first = nil
	}
	t.touched = true
}

// closePosition takes one delivery out of the open set.
func (t *Task) closePosition(r *Record, pos int) {
	r.open.clear(pos)
	if r.nopen--; r.nopen > 0 {
		return
	}
	t.nopen--
	t.memBytes -= len(r.Payload)
	r.Payload, r.Header = nil, nil
	for len(t.recs) > 0 && t.recs[0].nopen == 0 {
		t.recs[0] = nil
		t.recs = t.recs[1:]
	}
}

// disable takes a subscription off, durably with the next transaction.
func (t *Task) disable(s *sub, reason string) {
	if s.disabled != "" || s.conf == nil || s.conf.State == pipeline.StateDisabled {
		return
	}
	s.disabled, s.disabledRevision, s.disabledAt = reason, s.conf.Revision, -1
	t.disabled++
	t.out = append(t.out, &Out{
		Kind: OutState, Subscription: s.id, StateReason: reason, Revision: s.conf.Revision, At: t.now, FailingSince: s.health.runSince(),
	})
	t.notice(s, &Notice{Type: NoticeDisabled, Reason: reason, Since: s.health.runSince(), Count: s.health.failures})
	if s.health.noted {
		t.emitHealth(s, time.Time{})
	}
	s.health.failures, s.health.noted = 0, false
	t.touched = true
}
