package lane

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// sim is a task with everything around it: topics, registry, receiver, and a
// shell that does its duties in any order the source decides.
type sim struct {
	rnd  source
	fail func(format string, args ...any)
	step int

	cfg      Config
	ids      []string
	entities int
	bad      int // of 10 requests, how many fail
	weights  []int

	now      time.Time
	started  time.Time // the simulation
	bornAt   time.Time // the task
	kafka    simKafka
	registry *simRegistry // as its topic has it
	view     *simRegistry // as the task has it
	ledger   ledger

	sched *Scheduler
	task  *Task
	works []*simWork

	batch     *Batch
	committed bool // the batch under way is durable, the task was not told yet
	again     *Rescan
	parked    []int64 // offsets of its records
	spoils    bool    // some records are written unreadable
	healing   bool    // no more faults
	seen      map[string]int
	traced    bool
	trace     []string
}

type simWork struct {
	*Work
	f *fate // nil: no request
}

// action is one thing that may happen next, and how often.
type action struct {
	name   string
	weight int
	do     func(*sim)
}

var actions = []action{
	{"produce", 20, (*sim).produce},
	{"feed", 30, (*sim).feed},
	{"feed retry", 25, (*sim).feedRetry},
	{"pop", 35, (*sim).pop},
	{"complete", 35, (*sim).completeOne},
	{"cut", 20, (*sim).cutBatch},
	{"end transaction", 20, (*sim).endTransaction},
	{"confirm", 25, (*sim).confirm},
	{"tick", 25, (*sim).tick},
	{"relieve", 8, (*sim).relieve},
	{"rescan", 15, (*sim).rescan},
	{"change registry", 4, (*sim).changeRegistry},
	{"update", 6, (*sim).update},
	{"operate", 3, (*sim).operate},
	{"feed control", 6, (*sim).feedControl},
	{"crash", 2, (*sim).crash},
	{"drain", 1, (*sim).drain},
}

func (s *sim) init(rnd source, fail func(string, ...any)) {
	*s = sim{
		traced: s.traced,
		rnd:    rnd, fail: fail, seen: map[string]int{},
		now:      time.UnixMicro(1_900_000_000_000_123),
		entities: 1 + rnd.intn(3), bad: pick(rnd, 0, 1, 3, 5, 8), sched: &Scheduler{},
	}
	s.cfg = Config{
		MaxQueued: 1 + rnd.intn(4), SlowAfter: time.Second, MaxParked: pick(rnd, 3, 5, 1000, 1000),
		MaxParkedOffsets: pick(rnd, 1, 2, 5, 1000), MaxParkedAge: pick(rnd, 10*time.Minute, 24*time.Hour, 24*time.Hour), MaxRecords: 1 + rnd.intn(6),
		MaxPayloadBytes: pick(rnd, 40, 200, 1000), MaxRetryHeld: 1 + rnd.intn(4), LocalRetryAfter: time.Second,
	}
	for range rnd.intn(pipeline.MaxRetries + 1) {
		s.cfg.Delays = append(s.cfg.Delays, pick(rnd, 5*time.Second, 30*time.Second, 30*time.Second))
	}
	if err := s.cfg.Validate(); err != nil {
		fail("%v", err)
	}
	s.ids = []string{"s0", "s1", "s2"}[:1+rnd.intn(3)]
	s.registry = &simRegistry{1, map[string]*pipeline.Subscription{}}
	for _, id := range s.ids {
		s.registry = s.registry.with(id, s.randomSubscription)
	}
	// Each run has its own mix: some never crash, some never change.
	for _, a := range actions {
		s.weights = append(s.weights, a.weight*pick(rnd, 0, 1, 1, 1, 4)/pick(rnd, 1, 1, 2))
	}
	for _, needed := range []int{0, 1, 3, 4, 5, 6, 7, 8} {
		s.weights[needed] = max(1, s.weights[needed])
	}
	s.ledger = ledger{
		fail: fail, delays: s.cfg.Delays, fates: map[fateKey]*fate{}, bySub: map[string][]*fate{},
		flying: map[string]int{}, told: map[string]told{}, exhaustedAt: map[string]toldAt{}, begun: map[string][]time.Time{}, life: 1, spoilt: map[int64]*fate{}, answers: map[int64]int{},
		gone: func(origin int64) bool {
			r, ok := s.kafka.deliveries.at(origin)
			return !ok || r.off != origin
		},
	}
	s.started, s.spoils = s.now, rnd.intn(4) == 0
	s.rebuild()
}

// note adds to the trace of the run.
func (s *sim) note(format string, args ...any) {
	if s.traced {
		s.trace = append(s.trace, fmt.Sprintf("%4d ", s.step)+fmt.Sprintf(format, args...))
	}
}

func (s *sim) randomSubscription(c *pipeline.Subscription) {
	c.Ordering = pick(s.rnd, pipeline.OrderingSubscription, pipeline.OrderingEntity, pipeline.OrderingEntity, pipeline.OrderingNone)
	c.OnExhausted = pick(s.rnd, pipeline.OnExhaustedContinue, pipeline.OnExhaustedBlock)
	c.Retries = int32(s.rnd.intn(pipeline.MaxRetries + 1))
	c.Concurrency = int32(1 + s.rnd.intn(3))
	c.DisableAfter = pick(s.rnd, 0, 0, time.Minute, 24*time.Hour)
	c.Rate = pick(s.rnd, pipeline.Rate{}, pipeline.Rate{}, pipeline.Rate{Count: 2, Per: time.Second}, pipeline.Rate{Count: 7, Per: time.Minute})
}

func (s *sim) run(steps int) {
	total := 0
	for _, w := range s.weights {
		total += w
	}
	for s.step = 1; s.step <= steps; s.step++ {
		n := s.rnd.intn(total)
		for i, w := range s.weights {
			if n -= w; n < 0 {
				s.seen[actions[i].name]++
				actions[i].do(s)
				break
			}
		}
		checkTask(s.task, s.fail)
	}
	s.heal()
}

func (s *sim) produce() {
	d := simDelivery{
		env:     &pipeline.Envelope{Entity: "e" + strconv.Itoa(s.rnd.intn(s.entities)), Replay: pick(s.rnd, "", "", "", "r_1", "c_1")},
		payload: fmt.Appendf(nil, "payload of %d", s.kafka.deliveries.end),
	}
	for _, id := range s.ids {
		if s.rnd.intn(3) > 0 {
			d.subs = append(d.subs, id)
		}
	}
	if s.rnd.intn(4) == 0 {
		s.kafka.deliveries.marker()
	}
	off := s.kafka.deliveries.append(d)
	s.note("produce %d %s %v", off, d.env.Entity, d.subs)
	s.ledger.add(off, &d)
}

func (s *sim) feed() {
	if s.task.Full() {
		return
	}
	if r, ok := s.kafka.deliveries.at(s.task.ReadPosition()); ok {
		s.note("deliver %d", r.off)
		s.task.Deliver(s.now, &Record{
			Offset: r.off, Subs: r.val.subs, Envelope: r.val.env, Header: []byte{1}, Payload: r.val.payload,
		})
		if n := s.task.Stats().OpenRecords; n > s.cfg.MaxRecords {
			s.fail("%d open records, at most %d", n, s.cfg.MaxRecords)
		}
	}
}

func (s *sim) feedRetry() {
	k := 1 + s.rnd.intn(pipeline.MaxRetries)
	if s.task.RetryFull(k) {
		return
	}
	log := &s.kafka.retry[k-1]
	r, ok := log.at(s.task.RetryPosition(k))
	switch {
	case !ok && s.task.RetryPosition(k) < log.end:
		s.task.RetryPassed(s.now, k, log.end-1, nil)
	case ok && s.kafka.badRetry[k-1][r.off]:
		raw := &Raw{Topic: "retry", Offset: r.off, Origin: -1}
		if r.off%2 == 0 {
			raw.Lane, raw.Origin = r.val.Lane, r.val.Origin
		}
		s.note("retry.%d at %d: unreadable (%s@%d)", k, r.off, r.val.Lane, r.val.Origin)
		s.task.RetryPassed(s.now, k, r.off, raw)
	case ok:
		v := r.val
		v.Offset = r.off
		s.note("retry.%d at %d: %s@%d", k, r.off, v.Lane, v.Origin)
		s.task.Retry(s.now, k, &v)
	}
}

func (s *sim) pop() {
	for range 1 + s.rnd.intn(3) {
		w := s.sched.Next(s.now, Shares{Cold: s.rnd.intn(3) > 0, Suspect: s.rnd.intn(3) > 0})
		if w == nil {
			return
		}
		sw := &simWork{Work: w}
		s.note("work %s@%d attempt %d round %d parked %d fetch %v", w.LaneKey(), w.Origin, w.Attempt, w.Round, w.ParkedOffset, w.FetchOnly)
		if !w.FetchOnly {
			id := pipeline.LaneSubscription(w.LaneKey())
			sw.f = s.ledger.fates[fateKey{id, w.Origin}]
			if sw.f == nil {
				s.fail("%s@%d: sent, but nobody made it", id, w.Origin)
			}
			catchUp := w.Subscription != nil && w.Subscription.StateReason == pipeline.ReasonCatchUp && sw.f.catchUp
			if w.Subscription == nil || w.Subscription.State != pipeline.StateActive && !(catchUp && w.Subscription.State == pipeline.StatePaused) {
				s.fail("%v: sent though its subscription is %+v", sw.f, w.Subscription)
			}
			s.ledger.send(s.now, w.LaneKey(), sw.f, w.Attempt, w.Round, w.Subscription)
		}
		s.works = append(s.works, sw)
	}
}

func (s *sim) completeOne() {
	if len(s.works) == 0 {
		return
	}
	i := s.rnd.intn(len(s.works))
	w := s.works[i]
	s.works = slices.Delete(s.works, i, i+1)
	s.complete(w)
}

// fetch reads the work's record from parked, as the shell does.
func (s *sim) fetch(w *simWork) bool {
	if w.ParkedOffset < 0 && !w.FromOrigin {
		return true
	}
	if !s.healing && s.rnd.intn(10) == 0 {
		return false
	}
	s.kafka.load(w.Work, s.fail)
	return true
}

func (s *sim) complete(w *simWork) {
	res := &pipeline.Result{StartedAt: s.now, Outcome: pipeline.OutcomeLocalError}
	fetched := s.fetch(w)
	if w.f != nil {
		s.ledger.land(w.f)
		if fetched && w.Unreadable == "" {
			s.ledger.of(w.f.sub, w.f.origin, w.Payload)
			s.outcome(res)
		}
	}
	id := pipeline.LaneSubscription(w.LaneKey())
	retries := len(s.cfg.Delays)
	if c := s.view.Get(id); c != nil {
		retries = min(retries, int(c.Retries))
	}
	v := s.task.Done(s.now, w.Work, res)
	s.note("done %s@%d %v %v: %+v", w.LaneKey(), w.Origin, res.Outcome, res.RetryAfter, v)
	if v.Dropped {
		s.fail("%s: dropped by a living task", w.LaneKey())
	}
	if w.Unreadable != "" {
		if !v.Final {
			s.fail("%s@%d: unreadable, and not over", w.LaneKey(), w.Origin)
		}
	} else if w.f != nil {
		s.ledger.result(s.now, w.f, w.Work, res, v, retries)
	} else if fetched && !v.Final && w.Work.lane.ending() {
		s.fail("%s@%d: fetched to be ended, and not ended", w.LaneKey(), w.Origin)
	}
}

func (s *sim) outcome(res *pipeline.Result) {
	res.Outcome = pipeline.OutcomeSuccess
	if s.healing || s.rnd.intn(10) >= s.bad {
		return
	}
	switch n := s.rnd.intn(20); {
	case n < 2:
		res.Outcome = pipeline.OutcomeLocalError
	case n == 2:
		res.Outcome = pipeline.OutcomeGone
	case n < 6:
		res.Outcome, res.StatusCode = pipeline.OutcomeResponseError, 503
		res.RetryAfter = time.Duration(1+s.rnd.intn(100)) * time.Second
	case n < 10:
		res.Outcome = pipeline.OutcomeTimeout
	default:
		res.Outcome, res.StatusCode = pipeline.OutcomeResponseError, 500
	}
}

func (s *sim) cutBatch() {
	if s.batch != nil || !s.task.Touched() {
		return
	}
	s.batch = s.task.Cut()
	s.note("cut: %s; position %d, retry %v, %s", outs(s.batch), s.batch.Deliveries, s.batch.Retry, lanesOf(s.batch))
	s.ledger.batch(s.batch)
	s.checkStates(s.batch)
}

// checkStates tells whether there was a reason to disable a subscription.
func (s *sim) checkStates(b *Batch) {
	for _, o := range b.Outs {
		if o.Kind != OutState {
			continue
		}
		if o.At.After(s.now) || o.At.Before(s.bornAt) {
			s.fail("%s: disabled at %v, now is %v", o.Subscription, o.At, s.now)
		}
		if o.StateReason == ReasonBacklog && s.cfg.MaxParked >= 1000 && s.now.Sub(s.started) < s.cfg.MaxParkedAge {
			s.fail("%s: disabled for its backlog %v after the start", o.Subscription, s.now.Sub(s.started))
		}
	}
}

func (s *sim) endTransaction() {
	if s.batch == nil || s.committed {
		return
	}
	if !s.healing && s.rnd.intn(5) == 0 {
		s.note("aborted")
		s.kafka.abort(s.batch)
		s.ledger.aborted()
		s.task.Aborted(s.batch)
		s.batch = nil
		return
	}
	b := s.batch
	retry, parked := s.kafka.ends(), s.kafka.parked.end
	s.parked, s.committed = s.kafka.produce(b, s.now), true
	if s.spoils {
		s.kafka.spoil(s.rnd, retry, parked)
		for _, r := range s.kafka.parked.recs {
			if s.kafka.badParked[r.off] == badWhole {
				s.ledger.spoilt[r.off] = s.ledger.fates[fateKey{pipeline.LaneSubscription(r.val.lane), r.val.origin}]
			}
		}
	}
	s.note("committed")
	s.ledger.committed(b, s.parked)
	for i, o := range b.Outs {
		if c := s.registry.Get(o.Subscription); o.Kind == OutHealth && c != nil && c.Revision == o.Revision {
			s.registry = s.registry.with(o.Subscription, func(c *pipeline.Subscription) {
				c.FailingSince, c.Revision = o.FailingSince, o.Revision
			})
			continue
		}
		if c := s.registry.Get(o.Subscription); o.Kind == OutState {
			if c != nil && c.Revision == o.Revision {
				s.registry = s.registry.decided(o.Subscription, pipeline.StateDisabled, o.StateReason)
			}
			s.parked[i] = s.registry.version
		}
	}
	if s.rnd.intn(2) == 0 { // what no rebuild needs is deleted
		s.kafka.deliveries.low = max(s.kafka.deliveries.low, b.Deliveries)
		for k := range b.Retry {
			s.kafka.retry[k].low = max(s.kafka.retry[k].low, b.Retry[k])
		}
	}
}

func (s *sim) confirm() {
	if s.batch == nil || !s.committed {
		return
	}
	b := s.batch
	s.batch, s.committed = nil, false
	s.note("told: parked at %v", s.parked)
	s.task.Committed(s.now, b, s.parked)
	if s.rnd.intn(2) == 0 {
		s.kafka.parked.low = max(s.kafka.parked.low, s.task.ParkedNeeded())
	}
}

func (s *sim) tick() {
	ms := pick(s.rnd, 1, 100, 1000, 1000, 5000, 10_000, 31_000, 31_000, 120_000)
	s.now = s.now.Add(time.Duration(ms)*time.Millisecond + time.Duration(s.rnd.intn(1000))*time.Microsecond)
	s.note("tick %v", s.now)
	s.task.Tick(s.now)
}

// rescan begins a rescan, or brings the one under way back: read to its end, in
// part, or not at all.
func (s *sim) rescan() {
	if s.again == nil {
		s.again = s.task.NextRescan()
	}
	if r := s.again; r != nil && (s.healing || s.rnd.intn(2) == 0) {
		s.again = nil
		next, stop := r.To, r.To
		if !s.healing && s.rnd.intn(2) == 0 {
			stop = r.From + int64(s.rnd.intn(int(r.To-r.From)+1))
			next = stop
		}
		for _, p := range s.kafka.parked.recs {
			if p.off < max(r.From, s.kafka.parked.low) || p.off >= stop {
				continue
			}
			if s.kafka.badParked[p.off] == badWhole {
				if f := s.ledger.spoilt[p.off]; !f.over() && f.parkedAt == p.off && f.done != s.ledger.life && !s.task.parkedKnown(p.off) {
					f.lost = true
				}
				r.Bad(&Raw{Topic: "parked", Offset: p.off, Key: []byte(pipeline.LaneSubscription(p.val.lane))})
			} else if !r.Parked(p.off, p.val.lane, p.val.origin, p.val.written) {
				next = p.off + 1
				break
			}
		}
		s.note("rescanned %d to %d, up to %d", r.From, r.To, next)
		s.task.Rescanned(s.now, r, next, next < r.To)
	}
}

func (s *sim) relieve() {
	s.note("relieve")
	s.sched.HoldUpCold(s.rnd.intn(2) > 0)
	s.task.Relieve(s.now)
}

func (s *sim) changeRegistry() {
	id := pick(s.rnd, s.ids...)
	decide := func(state pipeline.State, reason string) func() {
		return func() {
			s.registry = s.registry.decided(id, state, reason)
			told := s.ledger.told[id]
			told.Resumed = told.Resumed || state == pipeline.StateActive
			s.ledger.told[id] = told
		}
	}
	change := func() { s.registry = s.registry.with(id, s.randomSubscription) }
	pick(s.rnd,
		change, change,
		decide(pipeline.StatePaused, ""), decide(pipeline.StatePaused, pipeline.ReasonCatchUp), decide(pipeline.StateDisabled, "by hand"),
		decide(pipeline.StateActive, ""), decide(pipeline.StateActive, ""),
		func() { s.registry = s.registry.with(id, nil) })()
}

func (s *sim) update() {
	for _, id := range s.ids {
		if was, is := s.view.Get(id), s.registry.Get(id); was == nil || is == nil || was.Rate != is.Rate {
			delete(s.ledger.begun, id) // counted anew
		}
	}
	var changed []string
	for _, id := range s.ids {
		if s.view.Get(id) != s.registry.Get(id) {
			changed = append(changed, id)
		}
	}
	s.view = s.registry
	for _, id := range s.ids {
		s.note("update %+v", s.view.Get(id))
	}
	if s.rnd.intn(2) == 0 {
		s.task.Update(s.now, s.view)
		return
	}
	s.task.UpdateOnly(s.now, s.view, changed)
}

func (s *sim) operate() {
	c := simCommand{id: pick(s.rnd, s.ids...), skip: s.rnd.intn(2) == 0}
	if s.rnd.intn(4) == 0 {
		c.which.Entity = "e" + strconv.Itoa(s.rnd.intn(s.entities))
	}
	s.kafka.control.append(c)
	if s.rnd.intn(4) == 0 {
		s.kafka.control.marker()
	}
}

// feedControl gives the task the next command, as the shell does.
func (s *sim) feedControl() {
	r, ok := s.kafka.control.at(s.task.Control())
	if !ok || s.task.Draining() {
		return
	}
	c := r.val
	var applied Applied
	if c.skip {
		s.ledger.skip(s.skippable(c))
		applied = s.task.Skip(s.now, c.id, c.which)
	} else {
		s.ledger.retryNow(c.id)
		applied = s.task.RetryNow(s.now, c.id, c.which)
	}
	if in := s.task.Inspect(c.id, 1000); in.Blocked > in.Lanes || len(in.Stuck) > in.Lanes {
		s.fail("%s: %+v", c.id, in)
	}
	s.note("command at %d: %+v: %+v", r.off, c, applied)
	s.task.Answer(&Out{Kind: OutAnswer, Subscription: c.id, Origin: r.off, Payload: []byte("answer")})
	s.task.ControlTo(r.off + 1)
}

// skippable are the deliveries that the command must end.
func (s *sim) skippable(c simCommand) (fates []*fate) {
	s.task.eachLane(func(l *lane) {
		if l.sub.id != c.id || l.stage == stageFlying || l.moving || !l.stuck() || !c.which.has(l) {
			return
		}
		origin := int64(-1)
		if l.head != nil {
			origin = l.head.origin
		} else {
			origin = l.parked[0].origin
		}
		fates = append(fates, s.ledger.fates[fateKey{c.id, origin}])
	})
	return fates
}

// crash loses all but what is committed. What was under way has reached the
// receiver, or has not; a transaction under way was committed, or was not.
func (s *sim) crash() {
	if s.batch != nil && !s.committed {
		s.endTransaction()
	}
	for _, w := range s.works {
		if w.f != nil && s.rnd.intn(2) == 0 {
			w.f.received = true
		}
	}
	old, works := s.task, s.works
	s.note("crash")
	s.lose()
	if s.rnd.intn(4) == 0 { // another machine's clock
		step := time.Duration(s.rnd.intn(7)-3) * time.Hour
		s.now, s.started = s.now.Add(step), s.started.Add(min(0, step))
		s.ledger.epoch++
	}
	if s.rnd.intn(2) == 0 {
		s.sched = &Scheduler{} // another process
	} else { // fenced: results come back to a task that is no longer ours
		old.Close()
		for _, w := range works {
			if v := old.Done(s.now, w.Work, &pipeline.Result{Outcome: pipeline.OutcomeSuccess}); !v.Dropped {
				s.fail("%s: not dropped by a closed task", w.LaneKey())
			}
		}
	}
	s.rebuild()
}

func (s *sim) lose() {
	s.works, s.batch, s.committed, s.parked, s.again = nil, nil, false, nil, nil
	s.ledger.crash()
}

// drain is a graceful stop: nothing is repeated after it.
func (s *sim) drain() {
	s.note("drain")
	s.task.Drain()
	s.ledger.drained = true
	if w := s.sched.Next(s.now, anyShare); w != nil {
		s.fail("%s: work from a draining task", w.LaneKey())
	}
	for len(s.works) > 0 {
		s.completeOne()
	}
	for s.batch != nil || s.task.Touched() {
		s.cutBatch()
		s.endTransaction()
		s.confirm()
	}
	if n := s.task.InFlight(); n != 0 {
		s.fail("%d under way after a drain", n)
	}
	s.task.Close()
	s.ledger.drained = false
	s.lose()
	s.rebuild()
}

func (s *sim) rebuild() {
	r := NewRecovery(0, &s.cfg)
	if err := s.kafka.recover(r, s.rnd.intn(2) == 0); err != nil {
		s.fail("%v", err)
	}
	for _, f := range s.ledger.fates {
		f.lost = f.lost || !f.over() && f.parkedAt >= 0 && s.kafka.badParked[f.parkedAt] == badWhole
	}
	s.view, s.bornAt = s.registry, s.now
	s.task = r.Task(s.now, Start{
		Incarnation: uint64(s.ledger.life), Deliveries: s.kafka.committed, Retry: s.kafka.committedRetry, RetryEnd: s.kafka.ends(),
		ParkedEnd: s.kafka.parked.end, Subs: s.view, Scheduler: s.sched,
	})
}

// heal ends all faults; then everything must come to its end.
func (s *sim) heal() {
	s.healing = true
	for _, id := range s.ids {
		if c := s.registry.Get(id); c == nil || c.OnExhausted != pipeline.OnExhaustedContinue {
			s.registry = s.registry.with(id, func(c *pipeline.Subscription) { c.OnExhausted = pipeline.OnExhaustedContinue })
		}
		s.registry = s.registry.decided(id, pipeline.StateActive, "")
	}
	if s.rnd.intn(3) == 0 {
		s.crash() // whoever has the task next is told of no change
	}
	limit := 200 + 20*len(s.kafka.deliveries.recs)*len(s.ids)
	for range limit {
		s.step++
		s.confirm()
		if s.view != s.registry {
			s.update()
		}
		s.feed()
		for range 6 {
			s.feedRetry()
		}
		s.pop()
		for len(s.works) > 0 {
			s.completeOne()
		}
		s.rescan()
		s.feedControl()
		s.cutBatch()
		s.endTransaction()
		s.confirm()
		s.now = s.now.Add(pick(s.rnd, time.Second, 40*time.Second, 5*time.Minute))
		s.task.Tick(s.now)
		s.relieve()
		checkTask(s.task, s.fail)
		if s.quiet() {
			s.update()
			s.task.forgetIdle() // as the next Relieve does
			for id, sub := range s.task.bySub {
				if c := s.view.Get(id); sub.disabled != "" && c != nil && c.State == pipeline.StateActive {
					s.fail("%s: disabled here (%s), and active in the registry", id, sub.disabled)
				}
			}
			s.checkEnd()
			return
		}
	}
	for k := range s.kafka.retry {
		s.note("retry.%d: read %d, end %d, %+v", k+1, s.task.RetryPosition(k+1), s.kafka.retry[k].last(), s.task.retry[k])
	}
	s.note("batch %v touched %v read %d end %d", s.batch, s.task.Touched(), s.task.ReadPosition(), s.kafka.deliveries.last())
	s.fail("stuck: %v is not over after %d rounds; %+v", s.ledger.open(), limit, s.task.Stats())
}

func (s *sim) quiet() bool {
	if s.batch != nil || s.task.Touched() || len(s.works) > 0 || s.ledger.open() != nil {
		return false
	}
	for k := range s.kafka.retry {
		if max(s.task.RetryPosition(k+1), s.kafka.retry[k].low) < s.kafka.retry[k].last() {
			return false
		}
	}
	return max(s.task.ReadPosition(), s.kafka.deliveries.low) >= s.kafka.deliveries.last() && s.task.Control() >= s.kafka.control.last()
}

func lanesOf(b *Batch) string {
	text := ""
	for _, w := range b.Lanes {
		text += fmt.Sprintf("%s=%s ", w.Key, w.Value)
	}
	return text
}
