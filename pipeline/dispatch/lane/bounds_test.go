package lane

import (
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// The heads that wait for their time are bounded by their bytes too, and one that
// is larger than the bound is still taken in.
func TestRetryHeadsAreBoundedByBytes(t *testing.T) {
	r := newRig(t, func(c *Config, s *pipeline.Subscription) {
		c.MaxPayloadBytes = 4 * 4 * retryShare // payloads have four bytes: four of them are a share
		s.Ordering, s.Concurrency = pipeline.OrderingNone, 10
	})
	for i := range int64(10) {
		r.deliver("")
		r.send(i, pipeline.OutcomeTimeout)
	}
	r.commit()
	r.restart()
	held := 0
	for rec, ok := r.kafka.retry[0].at(r.task.RetryPosition(1)); ok && !r.task.RetryFull(1); rec, ok = r.kafka.retry[0].at(r.task.RetryPosition(1)) {
		rec.val.Offset = rec.off
		r.task.Retry(r.now, 1, &rec.val)
		held++
	}
	if held != 4 || r.task.retry[0].bytes != 16 {
		t.Errorf("%d heads with %d bytes are held, want 4 with 16", held, r.task.retry[0].bytes)
	}
	r.after(30 * time.Second)
	if r.task.RetryFull(1) || r.task.retry[0].bytes != 0 {
		t.Errorf("%d bytes are counted when all are due", r.task.retry[0].bytes)
	}
	for i := range int64(4) {
		r.send(i, pipeline.OutcomeSuccess)
	}
	r.retries()
	r.after(30 * time.Second)
	for i := int64(4); i < 10; i++ {
		r.send(i, pipeline.OutcomeSuccess)
	}
}

// Clocks that jump while nobody looks: between a failure and the recovery by a
// process whose clock differs, a retry waits at most its delay, and what an
// endpoint asked to be spared for at most an hour.
func TestClockJumpsBetweenOwners(t *testing.T) {
	for _, jump := range []time.Duration{-time.Hour, -10 * time.Minute, 10 * time.Minute, time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			r := newRig(t, func(_ *Config, s *pipeline.Subscription) { s.Ordering, s.Concurrency = pipeline.OrderingNone, 2 })
			r.deliver("")
			r.deliver("")
			r.send(0, pipeline.OutcomeTimeout)
			r.doneWith(r.next(1), pipeline.Result{Outcome: pipeline.OutcomeResponseError, RetryAfter: 5 * time.Minute})
			r.commit()
			r.now = r.now.Add(jump)
			r.restart()
			r.retries()
			r.after(0)
			at := map[int64]time.Duration{}
			for waited := time.Duration(0); len(at) < 2 && waited <= 2*time.Hour; waited += time.Second {
				for w := r.sched.Next(r.now, anyShare); w != nil; w = r.sched.Next(r.now, anyShare) {
					at[w.Origin] = waited
					r.done(w, pipeline.OutcomeSuccess)
				}
				r.after(time.Second)
			}
			t.Logf("retry after %v, the one with Retry-After after %v", at[0], at[1])
			wantRetry, wantAfter := 30*time.Second, min(5*time.Minute-jump, time.Hour)
			if jump > 0 {
				wantRetry, wantAfter = 0, 0
			}
			if at[0] != wantRetry || at[1] != wantAfter {
				t.Errorf("they were sent after %v, want %v and %v", at, wantRetry, wantAfter)
			}
		})
	}
}

// What waits for its transaction is bounded in number too, however small it is.
func TestOutsAreBounded(t *testing.T) {
	r := newRig(t, func(c *Config, s *pipeline.Subscription) {
		c.MaxPayloadBytes, s.State = 100<<10, pipeline.StatePaused
	})
	n := 0
	for !r.task.Full() && n < 10_000 {
		r.deliver("")
		n++
	}
	if n > 100 {
		t.Errorf("%d deliveries wait for one transaction, want at most 100", n)
	}
	r.commit()
	if r.task.Full() {
		t.Error("full after the transaction")
	}
}
