package lane

import (
	"slices"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// The first entry of a waiting lane goes to parked behind what stands there
// already; the next one must not be sent meanwhile.
func TestFirstParkedBehindItsFollowers(t *testing.T) {
	r := newRig(t, func(c *Config, s *pipeline.Subscription) {
		c.MaxQueued, s.Ordering = 2, pipeline.OrderingEntity
	})
	r.deliver("a")
	flying := r.next(0)
	r.deliver("b") // waits for the slot
	r.deliver("b") // over MaxQueued: b waits, 2 is parked
	r.wantOuts(r.commit(), "parked 2")
	r.after(SlackFactor * time.Second)
	r.task.Relieve(r.now) // 1 is parked too, behind 2
	r.done(flying, pipeline.OutcomeSuccess)
	r.none()
	r.wantOuts(r.commit(), "parked 1")
	r.restart() // the lane's record no longer waits for 1 to come from deliveries
	r.send(1, pipeline.OutcomeSuccess)
	r.send(2, pipeline.OutcomeSuccess)
}

// Paused with its first entry in the ready queue: the same.
func TestPausedBehindItsFollowers(t *testing.T) {
	r := newRig(t, func(c *Config, _ *pipeline.Subscription) { c.MaxQueued = 1 })
	r.deliver("a") // ready
	r.deliver("a")
	r.wantOuts(r.commit(), "parked 1")
	r.set(func(s *pipeline.Subscription) { s.State = pipeline.StatePaused })
	r.none()
	r.set(func(s *pipeline.Subscription) { s.State = pipeline.StateActive })
	r.none()
	r.wantOuts(r.commit(), "parked 0")
	r.send(0, pipeline.OutcomeSuccess)
	r.send(1, pipeline.OutcomeSuccess)
}

// What was settled stays settled in the state that a rebuilt task writes, also
// between two records that are wholly open.
func TestSettledBetweenOpenAfterTwoCrashes(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.Ordering, s.Concurrency = pipeline.OrderingNone, 3 })
	for range 3 {
		r.deliver("")
	}
	r.next(0)
	w := r.next(1)
	r.done(w, pipeline.OutcomeSuccess)
	r.commit()
	for range 2 {
		r.restart()
		r.next(0)
		r.next(2)
		r.none()
		r.commit()
	}
}

// Relieve closes records that it would come to later itself.
func TestRelieveClosesLaterRecords(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.Ordering = pipeline.OrderingEntity })
	r.deliver("a")
	r.send(0, pipeline.OutcomeTimeout)
	r.commit()
	r.retries()
	r.after(30 * time.Second)
	r.next(0) // holds the slot, and is in no record of deliveries any more
	r.deliver("b")
	r.deliver("b")
	r.after(SlackFactor * time.Second)
	r.task.Relieve(r.now)
	r.wantOuts(r.commit(), "parked 1, parked 2")
}

// The first follower that is parked behind a head makes the lane's record say
// where to scan from.
func TestFollowerParkedLaterIsFoundAgain(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	r.send(0, pipeline.OutcomeTimeout)
	r.wantOuts(r.commit(), "retry.1 0")
	r.deliver("")
	r.wantOuts(r.commit(), "parked 1")
	r.restart()
	r.retries()
	r.after(30 * time.Second)
	r.send(0, pipeline.OutcomeSuccess)
	r.send(1, pipeline.OutcomeSuccess)
}

// Lanes that only wait to be ended need no slot; once their subscription is
// taken into use again they do.
func TestEndingLanesNeedSlotsAgain(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) {
		s.Ordering, s.State = pipeline.OrderingNone, pipeline.StatePaused
	})
	r.deliver("")
	r.deliver("")
	r.wantOuts(r.commit(), "parked 0, parked 1")
	r.set(func(s *pipeline.Subscription) { s.State = pipeline.StateDisabled })
	r.set(func(s *pipeline.Subscription) { s.State = pipeline.StateActive })
	w := r.next(1)
	r.none()
	r.done(w, pipeline.OutcomeSuccess)
	r.send(0, pipeline.OutcomeSuccess)
}

func TestConcurrencyLowered(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.Ordering, s.Concurrency = pipeline.OrderingNone, 3 })
	for range 3 {
		r.deliver("")
	}
	r.set(func(s *pipeline.Subscription) { s.Concurrency = 1 })
	w := r.next(2)
	r.none()
	r.done(w, pipeline.OutcomeSuccess)
	r.send(0, pipeline.OutcomeSuccess)
	r.send(1, pipeline.OutcomeSuccess)
}

// A fetch that fails is not repeated at once.
func TestFailedFetchWaits(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.State = pipeline.StatePaused })
	r.deliver("")
	r.commit()
	r.set(func(s *pipeline.Subscription) { s.State = pipeline.StateDisabled })
	w := r.next(0)
	r.task.Done(r.now, w, &pipeline.Result{Outcome: pipeline.OutcomeLocalError})
	r.none()
	r.after(r.cfg.LocalRetryAfter)
	r.send(0, pipeline.OutcomeLocalError)
	r.wantOuts(r.commit(), "dead 0 (cancelled)")
}

// A delivery that was fetched to be ended is not, once its subscription has
// been taken into use again.
func TestFetchedToEndAndTakenBack(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.State = pipeline.StatePaused })
	r.deliver("")
	r.commit()
	r.set(nil)
	w := r.next(0)
	r.set(func(s *pipeline.Subscription) { s.State = pipeline.StateActive })
	r.done(w, pipeline.OutcomeLocalError)
	r.send(0, pipeline.OutcomeSuccess)
	r.wantOuts(r.commit(), "")
}

// Another machine's clock may be hours ahead: nothing waits longer than the
// longest wait there is.
func TestWaitIsBoundedAfterClockStep(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	r.doneWith(r.next(0), pipeline.Result{Outcome: pipeline.OutcomeResponseError, RetryAfter: time.Hour})
	r.commit()
	r.now = r.now.Add(-6 * time.Hour)
	r.restart()
	r.none()
	r.after(time.Hour)
	r.send(0, pipeline.OutcomeSuccess)
}

// Deliveries that were deleted from outside do not hold the position for ever.
func TestDeletedFromOutside(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.Ordering = pipeline.OrderingEntity })
	r.deliver("a")
	r.next(0)
	r.deliver("b")
	r.commit()
	r.kafka.deliveries.low = 2
	r.kafka.deliveries.recs = nil
	r.restart()
	r.deliver("c")
	r.send(2, pipeline.OutcomeSuccess)
	if b := r.commit(); b.Deliveries != 3 {
		t.Errorf("position %d, want 3", b.Deliveries)
	}
}

func TestDisabledSinceNow(t *testing.T) {
	r := newRig(t, func(c *Config, s *pipeline.Subscription) {
		c.MaxParked, s.Ordering = 1, pipeline.OrderingNone
	})
	r.deliver("")
	r.deliver("")
	res := pipeline.Result{Outcome: pipeline.OutcomeResponseError, RetryAfter: time.Minute}
	r.doneWith(r.next(0), res)
	r.doneWith(r.next(1), res)
	b := r.commit()
	r.wantOuts(b, "parked 0, parked 1, disabled (backlog)")
	b.Outs = slices.DeleteFunc(b.Outs, func(o *Out) bool { return o.Kind != OutState })
	if at := b.Outs[0].At; !at.Equal(r.now) {
		t.Errorf("disabled at %v, now is %v", at, r.now)
	}
}

// A head that goes to parked has stood there from now on, not since year 1.
func TestHeldHeadIsNotOld(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	r.send(0, pipeline.OutcomeTimeout)
	r.commit()
	r.retries()
	r.set(func(s *pipeline.Subscription) { s.State = pipeline.StatePaused })
	r.after(30 * time.Second)
	r.wantOuts(r.commit(), "parked 0")
	r.set(func(s *pipeline.Subscription) { s.State = pipeline.StateActive })
	r.task.Relieve(r.now)
	r.wantOuts(r.commit(), "")
	r.send(0, pipeline.OutcomeSuccess)
}

// The age of what is parked does not grow while its lane is held; neither does
// a crash make it grow afterwards.
func TestAgeDoesNotRunWhileHeld(t *testing.T) {
	pause := func(s *pipeline.Subscription) { s.State = pipeline.StatePaused }
	resume := func(s *pipeline.Subscription) { s.State = pipeline.StateActive }
	tests := map[string]func(*rig){
		"resumed":      func(r *rig) { r.after(48 * time.Hour); r.set(resume) },
		"then crashed": func(r *rig) { r.after(48 * time.Hour); r.set(resume); r.commit(); r.restart() },
		"resumed while down": func(r *rig) {
			r.after(48 * time.Hour)
			r.view = r.view.with("s", resume)
			r.restart()
		},
	}
	for name, do := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.set(pause)
			r.deliver("")
			r.wantOuts(r.commit(), "parked 0")
			do(r)
			r.task.Relieve(r.now)
			r.wantOuts(r.commit(), "")
			r.after(25 * time.Hour)
			r.task.Relieve(r.now)
			r.wantOuts(r.commit(), "disabled (backlog)")
		})
	}
}

func TestAgeDoesNotRunWhileBlocked(t *testing.T) {
	for name, act := range map[string]func(*rig){
		"retry": func(r *rig) { r.task.RetryNow(r.now, "s", Which{}) },
		"skip": func(r *rig) {
			r.task.Skip(r.now, "s", Which{})
			r.send(0, pipeline.OutcomeLocalError)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config, s *pipeline.Subscription) { s.OnExhausted, s.Retries = pipeline.OnExhaustedBlock, 0 })
			r.deliver("")
			w := r.next(0)
			r.deliver("")
			r.done(w, pipeline.OutcomeTimeout)
			r.commit()
			r.after(48 * time.Hour)
			r.task.Relieve(r.now)
			act(r)
			r.commit()
			r.task.Relieve(r.now)
			r.wantOuts(r.commit(), "")
		})
	}
}

// The same where the retry is in its topic.
func TestRetryWaitIsBoundedAfterClockStep(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	r.send(0, pipeline.OutcomeTimeout)
	r.commit()
	r.now = r.now.Add(-6 * time.Hour)
	r.restart()
	r.retries()
	r.after(30*time.Second - 1)
	r.none()
	r.after(1)
	r.send(0, pipeline.OutcomeSuccess)
}

// A lane that expects its first entry from deliveries goes on when that was
// deleted from outside.
func TestExpectedDeletedFromOutside(t *testing.T) {
	r := newRig(t, func(c *Config, _ *pipeline.Subscription) { c.MaxQueued = 1 })
	r.deliver("")
	r.next(0)
	r.deliver("")
	r.wantOuts(r.commit(), "parked 1")
	r.kafka.deliveries.recs = nil
	r.restart()
	r.none()
	r.deliver("")
	r.none() // before it is durable that the first has ended
	r.wantOuts(r.commit(), "dead 0 (unreadable), parked 2")
	r.send(1, pipeline.OutcomeSuccess)
	r.send(2, pipeline.OutcomeSuccess)
	if b := r.commit(); b.Deliveries != 3 {
		t.Errorf("position %d, want 3", b.Deliveries)
	}
}

// An operator's retry also counts for a head that has not been read back yet.
func TestRetryNowBeforeTheHeadIsReadBack(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	r.send(0, pipeline.OutcomeTimeout)
	if n := r.task.RetryNow(r.now, "s", Which{}).Lanes; n != 1 {
		t.Fatalf("retry applies to %d", n)
	}
	r.none()
	r.commit()
	r.retries()
	if w := r.next(0); w.Attempt != 2 {
		t.Errorf("attempt %d", w.Attempt)
	}
}

// One slow request does not make the task keep all that is settled behind it.
func TestSettledRecordsAreForgotten(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.Ordering, s.Concurrency = pipeline.OrderingNone, 3 })
	r.deliver("")
	r.next(0)
	r.send(r.deliver(""), pipeline.OutcomeSuccess)
	middle := r.deliver("")
	r.next(middle)
	for range 1000 {
		r.send(r.deliver(""), pipeline.OutcomeSuccess)
	}
	last := r.deliver("")
	if n := len(r.task.recs); n > 2*keepSettled {
		t.Errorf("%d records in memory", n)
	}
	if b := r.commit(); b.Deliveries != 0 {
		t.Errorf("position %d, want 0", b.Deliveries)
	}
	r.restart() // what was forgotten is still settled
	r.next(0)
	r.next(middle)
	r.next(last)
	r.none()
}

// A head whose record in retry.1 cannot be read is made again of its origin, at
// the time of its retry, also by a task that was rebuilt meanwhile.
func TestUnreadableHeadIsSentFromItsOrigin(t *testing.T) {
	for _, rebuilt := range []bool{false, true} {
		r := newRig(t, nil)
		r.deliver("")
		w := r.next(0)
		r.deliver("")
		r.done(w, pipeline.OutcomeTimeout)
		r.commit()
		r.kafka.badRetry[0] = map[int64]bool{0: true}
		if rebuilt {
			r.restart()
		}
		r.retries()
		r.after(30*time.Second - 1)
		r.none()
		r.after(1)
		if w = r.next(0); !w.FromOrigin || w.Attempt != 2 {
			t.Fatalf("attempt %d, from the origin: %v", w.Attempt, w.FromOrigin)
		}
		if v := r.done(w, pipeline.OutcomeTimeout); v.Final {
			t.Error("over")
		}
		r.wantOuts(r.commit(), "retry.2 0")
		r.retries()
		r.after(30 * time.Second)
		r.send(0, pipeline.OutcomeSuccess)
		r.send(1, pipeline.OutcomeSuccess)
	}
}

// Where the origin is gone too, what is known goes to dead, and the lane goes on
// once that is durable.
func TestUnreadableHeadWithoutOrigin(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	w := r.next(0)
	r.deliver("")
	r.done(w, pipeline.OutcomeTimeout)
	r.commit()
	r.kafka.badRetry[0] = map[int64]bool{0: true}
	r.kafka.deliveries.low = 1
	r.retries()
	r.after(30 * time.Second)
	w = r.next(0)
	if v := r.done(w, pipeline.OutcomeLocalError); !v.Final {
		t.Error("not over")
	}
	r.none()
	b := r.commit()
	r.wantOuts(b, "dead 0 (unreadable)")
	if o := b.Outs[0]; o.Subscription != "s" || o.Attempts != 1 || o.Error == "" {
		t.Errorf("%+v", o)
	}
	r.send(1, pipeline.OutcomeSuccess)
}

// A skip of such a head, and a pause: it needs its payload for the one and must
// not be moved without it for the other.
func TestUnreadableHeadSkippedAndPaused(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	r.send(0, pipeline.OutcomeTimeout)
	r.commit()
	r.kafka.badRetry[0] = map[int64]bool{0: true}
	r.retries()
	r.set(func(s *pipeline.Subscription) { s.State = pipeline.StatePaused })
	r.after(time.Hour)
	r.none()
	r.wantOuts(r.commit(), "")
	if n := r.task.Skip(r.now, "s", Which{}).Lanes; n != 1 {
		t.Fatalf("%d skipped", n)
	}
	w := r.next(0)
	if !w.FetchOnly || !w.FromOrigin {
		t.Errorf("%+v", w)
	}
	r.done(w, pipeline.OutcomeLocalError)
	r.wantOuts(r.commit(), "dead 0 (skipped)")
}

// A record of parked that cannot be read at all goes to dead once, not at each
// recovery; its lane goes on, also where it was blocked on it.
func TestUnreadableParkedAtRecovery(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.Retries, s.OnExhausted = 0, pipeline.OnExhaustedBlock })
	r.deliver("")
	w := r.next(0)
	r.deliver("")
	r.done(w, pipeline.OutcomeTimeout)
	r.deliver("")
	r.wantOuts(r.commit(), "parked 0, parked 1, parked 2")
	r.none() // blocked
	r.kafka.badParked = map[int64]badness{0: badWhole}
	r.restart()
	b := r.commit()
	r.wantOuts(b, "dead -1 (unreadable)")
	if b.Outs[0].Raw == nil || b.Outs[0].Raw.Offset != 0 {
		t.Errorf("%+v", b.Outs[0])
	}
	r.restart()
	r.wantOuts(r.commit(), "")
	r.send(1, pipeline.OutcomeSuccess)
	r.send(2, pipeline.OutcomeSuccess)
}

// A record of deliveries that cannot be read goes to dead as it is, once.
func TestUnreadableDelivery(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	r.next(0)
	r.task.Deliver(r.now, &Record{Offset: 1, Unreadable: &Raw{Topic: "deliveries", Offset: 1, Origin: -1}})
	r.wantOuts(r.commit(), "dead 1 (unreadable)")
	r.restart()
	r.task.Deliver(r.now, &Record{Offset: 1, Unreadable: &Raw{Topic: "deliveries", Offset: 1, Origin: -1}})
	r.wantOuts(r.commit(), "")
}

// Heads of a retry topic that has no delay any more wait as those of the last.
func TestFewerDelaysThanBefore(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	for k := 1; k <= 3; k++ {
		r.send(0, pipeline.OutcomeTimeout)
		r.commit()
		if k < 3 {
			r.retries()
			r.after(30 * time.Second)
		}
	}
	r.cfg.Delays = r.cfg.Delays[:1]
	r.restart()
	r.retries()
	r.after(30 * time.Second)
	r.send(0, pipeline.OutcomeTimeout)
	r.wantOuts(r.commit(), "dead 0 (exhausted)")
}

// A blocked lane whose subscription was changed to go on while nobody had the
// task does: no later change of the registry is needed.
func TestUnblockedWhileNobodyHadTheTask(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.Retries, s.OnExhausted = 0, pipeline.OnExhaustedBlock })
	r.deliver("")
	w := r.next(0)
	r.deliver("")
	r.done(w, pipeline.OutcomeTimeout)
	r.wantOuts(r.commit(), "parked 0, parked 1")
	r.view = r.view.with("s", func(s *pipeline.Subscription) { s.OnExhausted = pipeline.OnExhaustedContinue })
	r.restart()
	w = r.next(0)
	if !w.FetchOnly {
		t.Fatal("the exhausted delivery is sent again")
	}
	r.done(w, pipeline.OutcomeSuccess)
	r.wantOuts(r.commit(), "dead 0 (exhausted)")
	r.send(1, pipeline.OutcomeSuccess)
}

// A subscription that the task disabled and that was resumed before the task read
// of either is active: resuming changes no revision.
func TestResumedBeforeTheTaskReadThatItIsDisabled(t *testing.T) {
	for _, tt := range []struct {
		name      string
		readFirst bool
	}{{"heard first", false}, {"read first", true}} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.deliver("")
			r.send(0, pipeline.OutcomeGone)
			b := r.task.Cut()
			r.wantOuts(b, "disabled (gone), dead 0 (exhausted)")
			offsets := r.kafka.produce(b, r.now)
			offsets[0] = r.view.version + 1
			r.deliver("") // ends untried, whatever comes next
			if !tt.readFirst {
				r.task.Committed(r.now, b, offsets)
			}
			r.view = r.view.decided("s", pipeline.StateDisabled, ReasonGone).decided("s", pipeline.StateActive, "")
			r.task.Update(r.now, r.view)
			if tt.readFirst {
				r.task.Committed(r.now, b, offsets)
			}
			r.commit()
			r.deliver("")
			r.send(2, pipeline.OutcomeSuccess)
		})
	}
}

// A blocked delivery that is to end, and is on its way to parked: the lane's record
// does not name the one behind it as the one to be ended, should the first be lost.
func TestWhatEndsIsTheFirstAlsoOnItsWay(t *testing.T) {
	r := newRig(t, func(c *Config, s *pipeline.Subscription) {
		c.MaxQueued, s.Retries, s.OnExhausted = 1, 0, pipeline.OnExhaustedBlock
	})
	r.deliver("")
	w := r.next(0)
	r.deliver("")
	r.wantOuts(r.commit(), "parked 1")
	r.done(w, pipeline.OutcomeTimeout)
	r.set(func(s *pipeline.Subscription) { s.OnExhausted = pipeline.OnExhaustedContinue })
	b := r.task.Cut()
	r.wantOuts(b, "parked 0")
	r.kafka.badParked = map[int64]badness{slices.Max(r.kafka.produce(b, r.now)): badWhole}
	r.restart()
	r.wantOuts(r.commit(), "dead -1 (unreadable)")
	if w = r.next(1); w.FetchOnly {
		t.Fatal("the second one is ended without a try")
	}
	r.done(w, pipeline.OutcomeSuccess)
}
