package lane

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// The rules of the protocol, one by one. Numbers are those of the design.

func TestRule1Bounded(t *testing.T) {
	r := newRig(t, func(c *Config, _ *pipeline.Subscription) { c.MaxQueued = 2 })
	r.deliver("")
	r.deliver("")
	w := r.next(0)
	r.wantOuts(r.commit(), "")
	r.deliver("") // one too many: what follows the first is parked
	r.deliver("")
	b := r.commit()
	r.wantOuts(b, "parked 1, parked 2, parked 3")
	if b.Deliveries != 0 {
		t.Errorf("position %d, want 0: the first is under way", b.Deliveries)
	}
	r.done(w, pipeline.OutcomeSuccess)
	for o := int64(1); o < 4; o++ {
		r.send(o, pipeline.OutcomeSuccess)
	}
	b = r.commit()
	if b.Deliveries != 4 || len(b.Lanes) != 1 || b.Lanes[0].Value != nil {
		t.Errorf("position %d, lanes %v: want 4 and a tombstone", b.Deliveries, b.Lanes)
	}
}

// A slow endpoint does not hold the partition: after SlowAfter in a full task,
// and SlackFactor times that in another.
func TestRule1Slow(t *testing.T) {
	for name, records := range map[string]int{"full": 2, "not full": 3} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config, _ *pipeline.Subscription) { c.MaxRecords = records })
			r.deliver("")
			r.deliver("")
			r.next(0)
			patience := r.cfg.SlowAfter
			if records > 2 {
				patience *= SlackFactor
			}
			r.after(patience - 1)
			r.task.Relieve(r.now)
			r.wantOuts(r.commit(), "")
			r.after(1)
			r.task.Relieve(r.now)
			r.wantOuts(r.commit(), "parked 1")
			if r.task.Full() {
				t.Error("still full")
			}
		})
	}
}

func TestRule1SettledIsSkipped(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.Ordering, s.Concurrency = pipeline.OrderingNone, 2 })
	r.view = r.view.with("other", func(*pipeline.Subscription) {})
	r.task.Update(r.now, r.view)
	r.deliver("", "s", "other")
	r.deliver("")
	r.send(0, pipeline.OutcomeSuccess) // of s; that of other stays under way
	w := r.next(0)
	r.send(1, pipeline.OutcomeSuccess)
	b := r.commit()
	if b.Deliveries != 0 {
		t.Errorf("position %d, want 0", b.Deliveries)
	}
	r.restart()
	if again := r.next(0); again.LaneKey() != w.LaneKey() {
		t.Errorf("again %s, want %s", again.LaneKey(), w.LaneKey())
	}
	r.none()
}

func TestRule2SuccessStartsTheNextAtOnce(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	r.deliver("")
	w := r.next(0)
	r.none()
	if v := r.done(w, pipeline.OutcomeSuccess); !v.Final || !v.NextAttemptAt.IsZero() {
		t.Errorf("verdict %+v", v)
	}
	r.send(1, pipeline.OutcomeSuccess) // nothing was committed in between
}

func TestRule3FirstFailure(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	w := r.next(0)
	r.deliver("")
	v := r.done(w, pipeline.OutcomeTimeout)
	if want := r.now.Add(30 * time.Second); v.Final || !v.NextAttemptAt.Equal(want) {
		t.Errorf("verdict %+v, want one at %v", v, want)
	}
	r.deliver("")
	b := r.commit()
	r.wantOuts(b, "retry.1 0, parked 1, parked 2")
	if b.Deliveries != 3 {
		t.Errorf("position %d, want 3", b.Deliveries)
	}
	r.none()
}

func TestRule3NoRetries(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.Retries = 0 })
	r.deliver("")
	if v := r.send(0, pipeline.OutcomeTimeout); !v.Final {
		t.Errorf("verdict %+v", v)
	}
	r.wantOuts(r.commit(), "dead 0 (exhausted)")
}

// Rules 4 and 5: each retry when due and not before; exhausted after the last;
// the follower only once that is durable.
func TestRule4And5FourAttempts(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	w := r.next(0)
	r.deliver("")
	for k := 1; k <= pipeline.MaxRetries; k++ {
		if w.Attempt != k {
			t.Fatalf("attempt %d, want %d", w.Attempt, k)
		}
		if v := r.done(w, pipeline.OutcomeConnectError); v.Final {
			t.Fatalf("attempt %d was final", k)
		}
		if b := r.commit(); outs(b) != fmt.Sprintf("retry.%d 0", k) && outs(b) != fmt.Sprintf("retry.%d 0, parked 1", k) {
			t.Fatalf("after attempt %d: %s", k, outs(b))
		}
		r.retries()
		r.after(30*time.Second - 1)
		r.none()
		r.after(1)
		w = r.next(0)
	}
	if v := r.done(w, pipeline.OutcomeConnectError); !v.Final || w.Attempt != 4 {
		t.Fatalf("attempt %d: %+v", w.Attempt, v)
	}
	r.none()
	b := r.task.Cut()
	r.wantOuts(b, "dead 0 (exhausted)")
	r.none()
	r.kafka.abort(b)
	r.task.Aborted(b)
	r.none()
	b = r.commit()
	r.wantOuts(b, "dead 0 (exhausted)")
	b.Outs = slices.DeleteFunc(b.Outs, func(o *Out) bool { return o.Kind != OutDead })
	if o := b.Outs[0]; string(o.Payload) != "0000" || o.Attempts != 4 || o.Untried {
		t.Errorf("dead record %+v", o)
	}
	r.send(1, pipeline.OutcomeSuccess)
	b = r.commit()
	for k, end := range [pipeline.MaxRetries]int64{1, 1, 1} {
		if b.Retry[k] != end {
			t.Errorf("retry.%d: position %d, want %d", k+1, b.Retry[k], end)
		}
	}
}

func TestRule4Stale(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	r.send(0, pipeline.OutcomeTimeout)
	r.commit()
	for _, rec := range []RetryRecord{
		{Lane: "nobody", Attempts: 1}, {Lane: "s", Origin: 7, Attempts: 1}, {Lane: "s", Attempts: 2}, {Lane: "s", Attempts: 1, Round: 1},
	} {
		rec.Offset, rec.Envelope = r.task.RetryPosition(1), &pipeline.Envelope{}
		r.task.Retry(r.now, 1, &rec)
	}
	r.task.RetryPassed(r.now, 1, r.task.RetryPosition(1), &Raw{Origin: -1})
	r.none()
	// The head's own record, at 0, was none of these: its origin is read.
	r.after(30 * time.Second)
	if w := r.next(0); !w.FromOrigin || w.Attempt != 2 {
		t.Errorf("attempt %d, from the origin: %v", w.Attempt, w.FromOrigin)
	}
	if b := r.commit(); b.Retry[0] != 5 {
		t.Errorf("position %d of retry.1, want 5", b.Retry[0])
	}
}

// The position of a retry topic stays below what is undecided.
func TestRule4Position(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.Ordering, s.Concurrency = pipeline.OrderingNone, 2 })
	r.deliver("")
	r.deliver("")
	r.send(0, pipeline.OutcomeTimeout)
	r.send(1, pipeline.OutcomeTimeout)
	r.commit()
	r.retries()
	r.after(30 * time.Second)
	w := r.next(0)
	r.send(1, pipeline.OutcomeSuccess)
	if b := r.commit(); b.Retry[0] != 0 {
		t.Errorf("position %d, want 0", b.Retry[0])
	}
	r.done(w, pipeline.OutcomeSuccess)
	if b := r.commit(); b.Retry[0] != 2 {
		t.Errorf("position %d, want 2", b.Retry[0])
	}
}

func TestRule5EndsByDrainAreDurableFirst(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	r.set(nil)
	r.none()
	r.set(func(*pipeline.Subscription) {}) // the same id, made anew
	r.deliver("")
	r.none()
	b := r.commit()
	r.wantOuts(b, "dead 0 (cancelled)")
	if !b.Outs[0].Untried {
		t.Error("not marked as untried")
	}
	r.send(1, pipeline.OutcomeSuccess)
}

func TestRule6Block(t *testing.T) {
	block := func(_ *Config, s *pipeline.Subscription) { s.OnExhausted, s.Retries = pipeline.OnExhaustedBlock, 0 }
	setUp := func(t *testing.T) *rig {
		r := newRig(t, block)
		r.deliver("")
		w := r.next(0)
		r.deliver("")
		if v := r.done(w, pipeline.OutcomeTimeout); v.Final {
			t.Fatal("final before an operator has decided")
		}
		r.wantOuts(r.commit(), "parked 0, parked 1")
		r.restart()
		r.none()
		r.after(time.Hour)
		r.none()
		return r
	}
	t.Run("skip", func(t *testing.T) {
		r := setUp(t)
		if n := r.task.Skip(r.now, "s", Which{}).Lanes; n != 1 {
			t.Fatalf("skip applies to %d", n)
		}
		if w := r.next(0); !w.FetchOnly {
			t.Fatal("a skipped delivery is sent")
		} else {
			r.done(w, pipeline.OutcomeLocalError)
		}
		r.none()
		r.wantOuts(r.commit(), "dead 0 (skipped)")
		r.send(1, pipeline.OutcomeSuccess)
	})
	t.Run("retry", func(t *testing.T) {
		r := setUp(t)
		if n := r.task.RetryNow(r.now, "s", Which{}).Lanes; n != 1 {
			t.Fatalf("retry applies to %d", n)
		}
		r.commit()
		r.restart()
		w := r.next(0)
		if w.Attempt != 1 || w.Round != 1 {
			t.Errorf("attempt %d of round %d", w.Attempt, w.Round)
		}
		r.done(w, pipeline.OutcomeSuccess)
		r.send(1, pipeline.OutcomeSuccess)
	})
	t.Run("policy changed", func(t *testing.T) {
		r := setUp(t)
		r.set(func(s *pipeline.Subscription) { s.OnExhausted = pipeline.OnExhaustedContinue })
		r.send(0, pipeline.OutcomeLocalError) // a fetch
		r.wantOuts(r.commit(), "dead 0 (exhausted)")
		r.send(1, pipeline.OutcomeSuccess)
	})
	t.Run("deleted", func(t *testing.T) {
		r := setUp(t)
		r.set(nil)
		r.send(0, pipeline.OutcomeLocalError)
		r.send(1, pipeline.OutcomeLocalError)
		r.wantOuts(r.commit(), "dead 0 (cancelled), dead 1 (cancelled)")
	})
}

func TestRule7FreeAgain(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	r.send(0, pipeline.OutcomeTimeout)
	r.deliver("")
	r.commit()
	r.retries()
	r.after(30 * time.Second)
	r.send(0, pipeline.OutcomeSuccess)
	w := r.next(1)
	if w.ParkedOffset != 0 || w.Payload != nil {
		t.Errorf("work %+v: want one to be fetched from 0", w)
	}
	r.done(w, pipeline.OutcomeSuccess)
	r.deliver("") // free: not parked
	r.send(2, pipeline.OutcomeSuccess)
	r.wantOuts(r.commit(), "")
	if st := r.task.Stats(); st != (Stats{}) {
		t.Errorf("left: %+v", st)
	}
}

// Rule 8: Retry-After, a held head, and one without a slot leave the topic.
func TestRule8RetryAfter(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	w := r.next(0)
	r.deliver("")
	res := pipeline.Result{Outcome: pipeline.OutcomeResponseError, StatusCode: 429, RetryAfter: 100 * time.Second}
	if v := r.doneWith(w, res); !v.NextAttemptAt.Equal(r.now.Add(100 * time.Second)) {
		t.Errorf("verdict %+v", v)
	}
	r.wantOuts(r.commit(), "parked 0, parked 1")
	r.restart()
	r.after(100*time.Second - time.Millisecond)
	r.none()
	r.after(time.Millisecond)
	w = r.next(0)
	if w.Attempt != 2 {
		t.Errorf("attempt %d", w.Attempt)
	}
	res.RetryAfter = 0 // the delay stands for itself; parked already: but a retry topic takes it
	r.doneWith(w, res)
	r.wantOuts(r.commit(), "retry.2 0")
}

func TestRule8NoSlot(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.Ordering = pipeline.OrderingEntity })
	r.deliver("a")
	r.send(0, pipeline.OutcomeTimeout)
	r.commit()
	r.retries()
	r.deliver("b")
	w := r.next(1)
	r.after(30 * time.Second)
	r.none()
	r.after(r.cfg.SlowAfter)
	b := r.commit()
	r.wantOuts(b, "parked 0")
	if b.Retry[0] != 1 || b.Outs[0].Attempts != 1 {
		t.Errorf("retry.1 at %d, %+v", b.Retry[0], b.Outs[0])
	}
	r.done(w, pipeline.OutcomeSuccess)
	if w := r.next(0); w.Attempt != 2 {
		t.Errorf("attempt %d", w.Attempt)
	}
}

// Rule 9: heads in retry topics, at most as many as requests at once.
func TestRule9Heads(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.Ordering = pipeline.OrderingNone })
	r.deliver("")
	r.deliver("")
	r.send(0, pipeline.OutcomeTimeout)
	v := r.send(1, pipeline.OutcomeTimeout)
	if !v.NextAttemptAt.Equal(r.now.Add(30 * time.Second)) {
		t.Errorf("verdict %+v", v)
	}
	r.wantOuts(r.commit(), "retry.1 0, parked 1")
	r.after(30*time.Second - 1)
	r.none()
	r.after(1)
	r.send(1, pipeline.OutcomeSuccess)
}

func TestRule9Backlog(t *testing.T) {
	r := newRig(t, func(c *Config, _ *pipeline.Subscription) { c.MaxParked = 2 })
	r.deliver("")
	r.send(0, pipeline.OutcomeTimeout)
	for range 3 {
		r.deliver("")
	}
	r.wantOuts(r.commit(), "retry.1 0, parked 1, parked 2, parked 3, disabled (backlog)")
	r.set(func(s *pipeline.Subscription) {
		s.State, s.StateReason, s.Revision = pipeline.StateDisabled, ReasonBacklog, 1
	})
	r.retries()
	for o := int64(1); o < 4; o++ {
		if w := r.next(o); !w.FetchOnly {
			t.Fatalf("%d is sent", o)
		} else {
			r.done(w, pipeline.OutcomeLocalError)
		}
	}
	r.wantOuts(r.commit(), "dead 0 (backlog), dead 1 (backlog), dead 2 (backlog), dead 3 (backlog)")
}

// A subscription that succeeds is behind, not stuck: however much is parked, it
// is caught up. Once it fails, the bound counts.
func TestRule9BacklogOfOneThatSucceeds(t *testing.T) {
	r := newRig(t, func(c *Config, _ *pipeline.Subscription) { c.MaxParked, c.MaxQueued = 2, 2 })
	for range 9 {
		r.deliver("")
	}
	for _, o := range r.commit().Outs {
		if o.Kind == OutState {
			t.Fatalf("disabled (%s) although nothing failed", o.StateReason)
		}
	}
	r.send(0, pipeline.OutcomeSuccess)
	r.send(1, pipeline.OutcomeTimeout)
	r.deliver("")
	outs := r.commit().Outs
	if !slices.ContainsFunc(outs, func(o *Out) bool { return o.Kind == OutState && o.StateReason == ReasonBacklog }) {
		t.Errorf("more than the bound is parked, and the endpoint fails: %v", outs)
	}
}

// What is held behind a catch-up does not count as what an endpoint does not take,
// and may be worked off afterwards although the endpoint fails now and then; but
// there is an end to it.
func TestRule9BacklogBehindACatchUp(t *testing.T) {
	catchUp := func(s *pipeline.Subscription) {
		s.State, s.StateReason = pipeline.StatePaused, pipeline.ReasonCatchUp
	}
	begin := func(t *testing.T) *rig {
		return newRig(t, func(c *Config, s *pipeline.Subscription) { c.MaxParked = 3; catchUp(s) })
	}
	disabled := func(b *Batch) bool {
		return slices.ContainsFunc(b.Outs, func(o *Out) bool { return o.Kind == OutState && o.StateReason == ReasonBacklog })
	}
	t.Run("worked off", func(t *testing.T) {
		r := begin(t)
		for range 20 {
			r.deliver("")
		}
		if disabled(r.commit()) {
			t.Fatal("disabled while it catches up")
		}
		r.restart()
		r.set(func(s *pipeline.Subscription) { s.State, s.StateReason = pipeline.StateActive, "" })
		r.send(0, pipeline.OutcomeTimeout)
		r.deliver("")
		if disabled(r.commit()) {
			t.Fatal("disabled by the first failure after the catch-up")
		}
		r.retries()
		r.after(30 * time.Second)
		for o := range int64(20) {
			r.send(o, pipeline.OutcomeSuccess)
		}
		r.send(20, pipeline.OutcomeTimeout)
		for range 4 {
			r.deliver("")
		}
		if !disabled(r.commit()) {
			t.Error("it had caught up: the bound is as before")
		}
	})
	t.Run("without end", func(t *testing.T) {
		r := begin(t)
		for range behindFactor*3 + pipeline.MaxReplayWaiting {
			r.deliver("")
		}
		if disabled(r.commit()) {
			t.Fatal("disabled too soon")
		}
		r.deliver("")
		if !disabled(r.commit()) {
			t.Error("not disabled")
		}
	})
}

func TestRule10Paused(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	r.set(func(s *pipeline.Subscription) { s.State = pipeline.StatePaused })
	r.none()
	r.deliver("")
	b := r.commit()
	r.wantOuts(b, "parked 0, parked 1")
	if b.Deliveries != 2 {
		t.Errorf("position %d: a paused subscription holds the partition", b.Deliveries)
	}
	r.set(func(s *pipeline.Subscription) { s.State = pipeline.StateActive })
	r.send(0, pipeline.OutcomeSuccess)
	r.send(1, pipeline.OutcomeSuccess)
}

func TestGone(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	w := r.next(0)
	r.deliver("")
	if v := r.done(w, pipeline.OutcomeGone); !v.Final {
		t.Errorf("verdict %+v", v)
	}
	r.wantOuts(r.commit(), "disabled (gone), dead 0 (exhausted), dead 1 (cancelled)")
}

func TestLocalErrorSpendsNoAttempt(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	for range 10 {
		if w := r.next(0); w.Attempt != 1 {
			t.Fatalf("attempt %d", w.Attempt)
		} else if v := r.done(w, pipeline.OutcomeLocalError); v.Final {
			t.Fatalf("verdict %+v", v)
		}
		r.none()
		r.after(r.cfg.LocalRetryAfter)
	}
	r.wantOuts(r.commit(), "")
}

// A new ordering applies once the lanes of the old one are empty.
func TestOrderingChange(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.Concurrency = 2 })
	r.deliver("a")
	w := r.next(0)
	r.set(func(s *pipeline.Subscription) { s.Ordering = pipeline.OrderingEntity })
	r.deliver("b")
	r.none()
	r.done(w, pipeline.OutcomeSuccess)
	r.send(1, pipeline.OutcomeSuccess)
	r.deliver("a")
	r.deliver("b")
	r.next(2)
	r.next(3)
}

// Failing lanes stand in a queue of their own.
func TestSchedulerKeepsFailingLanesApart(t *testing.T) {
	r := newRig(t, nil)
	r.view = r.view.with("good", func(*pipeline.Subscription) {})
	r.task.Update(r.now, r.view)
	r.deliver("")
	r.send(0, pipeline.OutcomeTimeout)
	r.commit()
	r.retries()
	r.after(30 * time.Second)
	r.deliver("", "good")
	if h, s := r.sched.Waiting(); h != 1 || s != 1 {
		t.Fatalf("%d healthy and %d suspect lanes wait", h, s)
	}
	if w := r.sched.Next(r.now, Shares{Cold: true}); w == nil || w.Origin != 1 || w.Suspect() {
		t.Fatalf("work %+v, want that of the healthy lane", w)
	}
	if w := r.sched.Next(r.now, Shares{Cold: true}); w != nil {
		t.Fatalf("work %+v of a failing lane", w)
	}
	if w := r.next(0); !w.Suspect() {
		t.Error("not marked as suspect")
	}
}

func TestOverdue(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	r.send(0, pipeline.OutcomeTimeout)
	r.commit()
	r.retries()
	r.now = r.now.Add(35 * time.Second)
	if d := r.task.Overdue(r.now); d != 5*time.Second {
		t.Errorf("overdue by %v before it was looked at", d)
	}
	r.task.Tick(r.now)
	if d := r.task.Overdue(r.now); d != 5*time.Second {
		t.Errorf("overdue by %v in the queue", d)
	}
	r.next(0)
	if d := r.task.Overdue(r.now); d != 0 {
		t.Errorf("overdue by %v under way", d)
	}
}

func TestRecoveryRefusesWhatItCannotRead(t *testing.T) {
	for name, w := range map[string]LaneWrite{
		"state": {StateKey, []byte{9, 9, 9}}, "lane": {"s", []byte("{")}, "newer lane": {"s", []byte(`{"v":2}`)},
	} {
		if err := NewRecovery(0, &Config{}).Lane(w.Key, w.Value); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestClosedTaskIsDeaf(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	w := r.next(0)
	b := r.task.Cut()
	r.task.Close()
	if v := r.done(w, pipeline.OutcomeSuccess); !v.Dropped {
		t.Errorf("verdict %+v", v)
	}
	r.task.Aborted(b)
	r.task.Committed(r.now, b, nil)
	r.task.Tick(r.now)
	if r.task.InFlight() != 0 {
		t.Error("counted as under way")
	}
	r.none()
}
