package lane

import (
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

func limited(rate pipeline.Rate) func(*Config, *pipeline.Subscription) {
	return func(_ *Config, s *pipeline.Subscription) {
		s.Ordering, s.Concurrency, s.Rate = pipeline.OrderingNone, 100, rate
	}
}

// begin takes all work that there is.
func (r *rig) begin() (works []*Work) {
	for w := r.sched.Next(r.now, anyShare); w != nil; w = r.sched.Next(r.now, anyShare) {
		works = append(works, w)
	}
	return works
}

func TestRateIsExact(t *testing.T) {
	r := newRig(t, limited(pipeline.Rate{Count: 50, Per: time.Second}))
	for range 300 {
		r.deliver("")
	}
	got := 0
	for ms := 0; ms <= 3000; ms++ {
		for _, w := range r.begin() {
			if w.Attempt != 1 {
				t.Errorf("attempt %d", w.Attempt)
			}
			r.done(w, pipeline.OutcomeSuccess)
			got++
		}
		if want := min(300, 50+ms/20); got != want { // a burst of a second's worth, then one each 20 ms
			t.Fatalf("after %d ms %d requests, want %d", ms, got, want)
		}
		r.after(time.Millisecond)
	}
}

func TestRatePerMinuteAndHour(t *testing.T) {
	for _, c := range []struct {
		rate pipeline.Rate
		wait time.Duration
	}{{pipeline.Rate{Count: 20, Per: time.Minute}, 3 * time.Second}, {pipeline.Rate{Count: 1, Per: time.Hour}, time.Hour}} {
		r := newRig(t, limited(c.rate))
		r.deliver("")
		r.deliver("")
		r.send(0, pipeline.OutcomeSuccess)
		r.after(c.wait - 1)
		r.none()
		r.after(1)
		r.send(1, pipeline.OutcomeSuccess)
	}
}

// What waits for a token holds no slot, and goes on by itself.
func TestRateHoldsNoSlot(t *testing.T) {
	r := newRig(t, limited(pipeline.Rate{Count: 1, Per: time.Minute}))
	for range 5 {
		r.deliver("")
	}
	if n := len(r.begin()); n != 1 || r.task.bySub["s"].inflight != 1 {
		t.Errorf("%d under way, %d slots taken", n, r.task.bySub["s"].inflight)
	}
}

// A changed limit counts at once, and what was used of the old one with it.
func TestRateChanged(t *testing.T) {
	r := newRig(t, limited(pipeline.Rate{Count: 1, Per: time.Hour}))
	for range 20 {
		r.deliver("")
	}
	if n := len(r.begin()); n != 1 {
		t.Fatalf("%d at once", n)
	}
	r.set(func(s *pipeline.Subscription) { s.Rate = pipeline.Rate{Count: 10, Per: time.Second} })
	if n := len(r.begin()); n != 9 {
		t.Errorf("%d at once with the new limit, want 9", n)
	}
	r.set(func(s *pipeline.Subscription) { s.Rate = pipeline.Rate{Count: 5, Per: time.Second} })
	if n := len(r.begin()); n != 0 {
		t.Errorf("%d at once with the lower limit, want none", n)
	}
	r.after(200 * time.Millisecond)
	if n := len(r.begin()); n != 1 {
		t.Errorf("%d after 200 ms, want 1", n)
	}
	r.set(func(s *pipeline.Subscription) { s.Rate = pipeline.Rate{} })
	if n := len(r.begin()); n != 9 {
		t.Errorf("%d without a limit, want the remaining 9", n)
	}
}

// Rule 8: a due head without a token does not hold up its retry topic, and its
// attempts stay as they are.
func TestRateMovesDueHead(t *testing.T) {
	r := newRig(t, func(_ *Config, s *pipeline.Subscription) {
		s.Ordering, s.Rate = pipeline.OrderingEntity, pipeline.Rate{Count: 1, Per: time.Minute}
	})
	r.deliver("a")
	r.send(0, pipeline.OutcomeTimeout)
	r.commit()
	r.retries()
	r.after(30 * time.Second) // due, but the token comes at 60 s
	r.none()
	r.after(r.cfg.SlowAfter)
	b := r.commit()
	r.wantOuts(b, "parked 0")
	if b.Outs[0].Attempts != 1 {
		t.Errorf("%+v", b.Outs[0])
	}
	r.after(29*time.Second - 1)
	r.none()
	r.after(1)
	if w := r.next(0); w.Attempt != 2 {
		t.Errorf("attempt %d", w.Attempt)
	}
}

// A limit does not hold up what is only to be ended.
func TestRateDoesNotHoldUpEnds(t *testing.T) {
	r := newRig(t, limited(pipeline.Rate{Count: 1, Per: time.Hour}))
	for range 3 {
		r.deliver("")
	}
	r.send(0, pipeline.OutcomeSuccess)
	r.view = r.view.with("s", nil)
	r.task.Update(r.now, r.view)
	r.none()
	r.wantOuts(r.commit(), "dead 1 (cancelled), dead 2 (cancelled)")
}

// A subscription without anything to do is not forgotten before its tokens are
// back: that would give it a burst anew.
func TestRateOutlivesItsLanes(t *testing.T) {
	r := newRig(t, limited(pipeline.Rate{Count: 1, Per: time.Hour}))
	r.deliver("")
	r.send(0, pipeline.OutcomeSuccess)
	r.commit()
	r.after(30 * time.Minute)
	r.task.Relieve(r.now)
	r.deliver("")
	r.none()
	r.after(30 * time.Minute)
	r.send(1, pipeline.OutcomeSuccess)
	r.commit()
	r.after(time.Hour)
	r.task.Relieve(r.now)
	if n := len(r.task.bySub); n != 0 {
		t.Errorf("%d subscriptions kept", n)
	}
}
