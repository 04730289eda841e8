package lane

import (
	"bytes"
	"fmt"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// fate is what the ledger knows of one delivery: from the requests that were
// begun and from what became durable, never from the task's own counters.
type fate struct {
	sub     string
	origin  int64
	entity  string
	payload []byte
	catchUp bool // of a catch-up: in lanes of its own

	received bool  // the receiver answered with success, known to us or not
	done     int   // the life in which its success was seen
	settled  bool  // its success is durable
	ended    int   // the life in which it ended otherwise
	dead     bool  // its dead record is durable
	parkedAt int64 // its home, where that is parked; -1: it is not
	lost     bool  // nothing can tell any more that it stands there

	flying     bool
	attempt    int // the last attempt that failed, of round
	round      int
	failedIn   int // life
	failedAt   time.Time
	retryAfter time.Duration
	retries    int  // the subscription's, when it failed
	epoch      int  // of the wall clock, when it failed
	nowed      bool // an operator asked for a retry since
	skipping   int  // the life in which a skip was carried out
	skipped    bool // durably

	durableRound, durableAttempt int // the last failure that is durable
}

func (f *fate) String() string { return fmt.Sprintf("%s@%d(%s)", f.sub, f.origin, f.entity) }

// over tells that nothing may be sent of it any more, for good.
func (f *fate) over() bool { return f.settled || f.dead }

type fateKey struct {
	sub    string
	origin int64
}

// mark is something that becomes durable with the next transaction.
type mark struct {
	f              *fate
	success        bool
	skip           bool
	round, attempt int
}

// ledger checks what happens at the receiver and in the topics.
type ledger struct {
	fail        func(format string, args ...any)
	delays      []time.Duration
	fates       map[fateKey]*fate
	bySub       map[string][]*fate // by origin
	flying      map[string]int     // requests under way by subscription
	spoilt      map[int64]*fate    // of records of parked that cannot be read at all
	gone        func(origin int64) bool
	told        map[string]told // the last notice, by subscription
	exhaustedAt map[string]toldAt
	drained     bool
	begun       map[string][]time.Time // requests since the rate was set, by subscription
	life        int
	epoch       int

	answers map[int64]int // durable ones, by the command's offset

	pending []mark // since the last cut
	cut     []mark // in the batch under way
}

func (g *ledger) add(off int64, d *simDelivery) {
	for _, id := range d.subs {
		f := &fate{sub: id, origin: off, entity: d.env.Entity, payload: d.payload, parkedAt: -1, catchUp: d.env.Replay == "c_1"}
		g.fates[fateKey{id, off}] = f
		g.bySub[id] = append(g.bySub[id], f)
	}
}

func (g *ledger) of(sub string, origin int64, payload []byte) *fate {
	f := g.fates[fateKey{sub, origin}]
	if f == nil {
		g.fail("%s@%d: nobody made this delivery", sub, origin)
	}
	if !bytes.Equal(f.payload, payload) {
		g.fail("%v: payload %q, want %q", f, payload, f.payload)
	}
	return f
}

// unreadable checks that there was nothing left to send.
func (g *ledger) unreadable(o *Out) *fate {
	if o.Raw != nil && o.Raw.Topic == "parked" && o.lane == nil {
		f := g.spoilt[o.Raw.Offset]
		if f == nil {
			g.fail("parked at %d went to dead as unreadable", o.Raw.Offset)
		}
		return f
	}
	if o.Origin < 0 {
		return nil // several that were found to be gone
	}
	f := g.fates[fateKey{o.Subscription, o.Origin}]
	if f == nil || !g.gone(o.Origin) {
		g.fail("%s@%d: dead as unreadable (%s), its origin is there", o.Subscription, o.Origin, o.Error)
	}
	return f
}

func related(kind pipeline.Ordering, a, b *fate) bool {
	if a.catchUp != b.catchUp {
		return false
	}
	switch kind {
	case pipeline.OrderingSubscription:
		return true
	case pipeline.OrderingEntity:
		return a.entity == b.entity
	case pipeline.OrderingNone:
	}
	return false
}

// send is called at the moment a request begins.
func (g *ledger) send(now time.Time, key string, f *fate, attempt, round int, conf *pipeline.Subscription) {
	kind := pipeline.LaneOrdering(key)
	env := pipeline.Envelope{Entity: f.entity}
	if f.catchUp {
		env.Replay = "c_1"
	}
	if want := pipeline.LaneKeyOf(f.sub, kind, &env, f.origin); want != key {
		g.fail("%v: sent in lane %q, want %q", f, key, want)
	}
	switch {
	case f.over():
		g.fail("%v: sent after it was over durably (success %v, dead %v)", f, f.settled, f.dead)
	case f.done == g.life:
		g.fail("%v: sent again after its success", f)
	case f.ended == g.life:
		g.fail("%v: sent again after it had ended", f)
	case f.skipped || f.skipping == g.life:
		g.fail("%v: sent after it was skipped", f)
	}
	for _, o := range g.bySub[f.sub] {
		if o.flying && (o == f || related(kind, o, f)) {
			g.fail("%v: sent while %v is under way", f, o)
		}
		if o.origin < f.origin && related(kind, o, f) && !o.over() && o.done != g.life && !o.lost {
			g.fail("%v: sent before %v (ended in this life: %v)", f, o, o.ended == g.life)
		}
	}
	g.checkAttempt(now, f, attempt, round)
	f.flying = true
	if g.flying[f.sub]++; g.flying[f.sub] > int(conf.Concurrency) {
		g.fail("%v: %d requests under way, at most %d", f, g.flying[f.sub], conf.Concurrency)
	}
	g.checkRate(now, f, conf.Rate)
}

// notice checks that what is told makes a story: failing, then recovered or
// disabled; exhausted at most once in a minute.
func (g *ledger) notice(o *Out) {
	n := o.Notice
	last := g.told[o.Subscription]
	switch n.Type {
	case NoticeFailing:
		if last.Type == NoticeFailing && last.Revision == o.Revision && !last.Resumed {
			g.fail("%s: failing, and again failing (%+v)", o.Subscription, n)
		}
	case NoticeRecovered:
		if last.Type != NoticeFailing || last.Revision != o.Revision {
			g.fail("%s: recovered after %+v", o.Subscription, last)
		}
	case NoticeExhausted:
		if t := g.exhaustedAt[o.Subscription]; t.life == g.life && o.At.Sub(t.at) < ExhaustedEvery && !g.drained {
			g.fail("%s: exhausted told %v after the last time", o.Subscription, o.At.Sub(t.at))
		}
		g.exhaustedAt[o.Subscription] = toldAt{o.At, g.life}
		return
	case NoticeBacklog:
		return
	case NoticeDisabled:
	}
	g.told[o.Subscription] = told{n.Type, o.Revision, false}
}

type toldAt struct {
	at   time.Time
	life int
}

type told struct {
	Type     NoticeType
	Revision int64
	Resumed  bool
}

// checkRate holds that in no span of time more requests are begun than the rate
// allows for it, and a burst.
func (g *ledger) checkRate(now time.Time, f *fate, rate pipeline.Rate) {
	if rate.Count == 0 {
		return
	}
	all := append(g.begun[f.sub], now)
	g.begun[f.sub] = all
	burst := max(1, rate.Count*int(time.Second)/int(rate.Per))
	for i, from := range all {
		n := len(all) - i
		if allowed := float64(burst) + now.Sub(from).Seconds()/rate.Per.Seconds()*float64(rate.Count); float64(n) > allowed+1e-6 {
			g.fail("%v: request %d within %v: %v allowed at %+v", f, n, now.Sub(from), allowed, rate)
		}
	}
}

func (g *ledger) checkAttempt(now time.Time, f *fate, attempt, round int) {
	made := attempt - 1
	before := func(r, a, r2, a2 int) bool { return r < r2 || (r == r2 && a < a2) }
	if made < 0 || made > len(g.delays) {
		g.fail("%v: attempt %d with %d delays", f, attempt, len(g.delays))
	}
	if before(round, made, f.durableRound, f.durableAttempt) {
		g.fail("%v: attempt %d of round %d after a durable failure of %d of %d", f, attempt, round, f.durableAttempt, f.durableRound)
	}
	if round == f.round && made > f.attempt {
		g.fail("%v: attempt %d after %d failures", f, attempt, f.attempt)
	}
	if f.attempt == 0 || made == 0 {
		if f.attempt > 0 && f.failedIn == g.life && round <= f.round {
			g.fail("%v: attempt 1 again after %d failures", f, f.attempt)
		}
		return
	}
	if f.failedIn == g.life && (made != f.attempt || round != f.round) {
		g.fail("%v: attempt %d of round %d after failure %d of %d", f, attempt, round, f.attempt, f.round)
	}
	if made != f.attempt || round != f.round {
		return // repeats an attempt whose end was lost in a crash
	}
	if f.attempt > f.retries {
		g.fail("%v: attempt %d with %d retries", f, attempt, f.retries)
	}
	due := f.failedAt.Add(max(g.delays[f.attempt-1], f.retryAfter))
	if now.Before(due) && !f.nowed && f.epoch == g.epoch {
		g.fail("%v: attempt %d is %v early", f, attempt, due.Sub(now))
	}
}

// land is called when a request has come to its end, known or not.
func (g *ledger) land(f *fate) {
	f.flying = false
	g.flying[f.sub]--
}

// result is called when the task has been told of a result.
func (g *ledger) result(now time.Time, f *fate, w *Work, res *pipeline.Result, v Verdict, retries int) {
	switch {
	case res.Outcome == pipeline.OutcomeSuccess:
		f.received, f.done = true, g.life
		g.pending = append(g.pending, mark{f: f, success: true})
		if !v.Final {
			g.fail("%v: success is not final", f)
		}
		return
	case !res.Outcome.SpendsAttempt():
		if v.Final {
			g.fail("%v: a local error is final", f)
		}
		return
	}
	f.attempt, f.round, f.failedIn, f.failedAt, f.epoch = w.Attempt, w.Round, g.life, now, g.epoch
	f.retryAfter, f.retries, f.nowed = res.RetryAfter, retries, false
	g.pending = append(g.pending, mark{f: f, round: w.Round, attempt: w.Attempt})
	if v.Final {
		f.ended = g.life
	}
}

// batch is called when a batch was cut: what is in it has been decided.
func (g *ledger) batch(b *Batch) {
	g.cut, g.pending = g.pending, nil
	for _, o := range b.Outs {
		if o.Kind >= OutState {
			continue // not of a delivery
		}
		if o.Reason == pipeline.DeadUnreadable {
			if f := g.unreadable(o); f != nil && o.lane != nil {
				f.ended = g.life
			}
			continue
		}
		f := g.of(o.Subscription, o.Origin, o.Payload)
		if f.over() || f.flying || f.done == g.life {
			g.fail("%v: written to topic kind %d though over (%v) or under way (%v)", f, o.Kind, f.over(), f.flying)
		}
		if o.Kind == OutDead {
			f.ended = g.life
		}
	}
}

// committed is called when b is durable.
func (g *ledger) committed(b *Batch, offsets []int64) {
	for i, o := range b.Outs {
		switch o.Kind {
		case OutParked:
			g.of(o.Subscription, o.Origin, o.Payload).parkedAt = offsets[i]
		case OutRetry:
			g.of(o.Subscription, o.Origin, o.Payload).parkedAt = -1
		case OutNotice:
			g.notice(o)
		case OutAnswer:
			if g.answers[o.Origin]++; g.answers[o.Origin] > 1 {
				g.fail("the command at %d was answered twice", o.Origin)
			}
		case OutDead, OutState, OutHealth:
		}
		if o.Kind == OutDead {
			var f *fate
			if o.Reason == pipeline.DeadUnreadable {
				f = g.unreadable(o)
				if f == nil {
					continue
				}
			} else {
				f = g.of(o.Subscription, o.Origin, o.Payload)
			}
			if o.Reason == pipeline.DeadUnreadable && o.lane == nil && (f == nil || !f.lost || f.over()) {
				continue // a record that nobody needed, or the tidings of several
			}
			if f.over() {
				g.fail("%v: a dead record though it was over", f)
			}
			f.dead = true
		}
	}
	for _, m := range g.cut {
		switch {
		case m.success:
			m.f.settled = true
		case m.skip:
			m.f.skipped = true
		default:
			m.f.durableRound, m.f.durableAttempt = m.round, m.attempt
		}
	}
	g.cut = nil
}

func (g *ledger) aborted() { g.pending, g.cut = append(g.cut, g.pending...), nil }

// crash begins a new life: what is not durable has not happened.
func (g *ledger) crash() {
	g.life++
	g.pending, g.cut = nil, nil
	for _, f := range g.fates {
		f.flying = false
	}
	clear(g.flying)
	clear(g.begun)
}

// skip is called when a command is about to end these deliveries.
func (g *ledger) skip(fates []*fate) {
	for _, f := range fates {
		f.skipping = g.life
		g.pending = append(g.pending, mark{f: f, skip: true})
	}
}

func (g *ledger) retryNow(sub string) {
	for _, f := range g.bySub[sub] {
		f.nowed = true
	}
}

// open is a delivery that is not over, if there is one.
func (g *ledger) open() *fate {
	for _, fs := range g.bySub {
		for _, f := range fs {
			if !f.over() {
				return f
			}
		}
	}
	return nil
}

// checkEnd tells whether each delivery came to exactly one end.
func (g *ledger) checkEnd() {
	for _, f := range g.fates {
		if f.settled && !f.received {
			g.fail("%v: settled, but the receiver never had it", f)
		}
		if !f.over() {
			g.fail("%v: lost", f)
		}
		if f.skipped && !f.dead {
			g.fail("%v: skipped, and not dead", f)
		}
	}
}
