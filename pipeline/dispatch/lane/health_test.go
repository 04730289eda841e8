package lane

import (
	"fmt"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// told commits and gives the notices of the batch: "failing 2, disabled gone 1".
func (r *rig) told() string {
	r.Helper()
	text := ""
	b := r.commit()
	for _, o := range b.Outs {
		switch o.Kind {
		case OutNotice:
			if text != "" {
				text += ", "
			}
			text += string(o.Notice.Type)
			if o.Notice.Type == NoticeDisabled {
				text += " " + o.Notice.Reason
			}
			text += fmt.Sprintf(" %d", o.Notice.Count)
		case OutHealth:
			r.view = r.view.with(o.Subscription, func(s *pipeline.Subscription) { s.FailingSince, s.Revision = o.FailingSince, o.Revision })
			r.task.UpdateOnly(r.now, r.view, []string{o.Subscription})
		case OutState:
			r.view = r.view.with(o.Subscription, func(s *pipeline.Subscription) {
				s.State, s.StateReason, s.Revision = pipeline.StateDisabled, o.StateReason, o.Revision
			})
			r.task.Update(r.now, r.view)
		case OutRetry, OutParked, OutDead, OutAnswer:
		}
	}
	return text
}

func (r *rig) wantTold(want string) {
	r.Helper()
	if got := r.told(); got != want {
		r.Fatalf("told %q, want %q", got, want)
	}
}

func noRetries(after time.Duration) func(*Config, *pipeline.Subscription) {
	return func(_ *Config, s *pipeline.Subscription) {
		s.Ordering, s.Concurrency, s.Retries, s.DisableAfter = pipeline.OrderingNone, 10, 0, after
	}
}

// fail delivers one event, which fails.
func (r *rig) fail() { r.send(r.deliver(""), pipeline.OutcomeTimeout) }

func (r *rig) succeed() { r.send(r.deliver(""), pipeline.OutcomeSuccess) }

func TestFailingAndRecoveredOnceEach(t *testing.T) {
	r := newRig(t, noRetries(0))
	r.fail()
	r.fail() // a burst of failures
	r.wantTold("exhausted 1")
	r.after(FailingAfter - 1)
	r.succeed()
	r.wantTold("")
	since := r.now
	r.fail()
	r.after(FailingAfter)
	r.fail()
	r.fail()
	r.wantTold("failing 2")
	if got := r.view.Get("s").FailingSince; !got.Equal(wallMS(since)) {
		t.Errorf("failing since %v, want %v", got, since)
	}
	r.after(time.Hour)
	r.fail()
	r.task.Relieve(r.now)
	r.wantTold("exhausted 5")
	r.restart() // another process goes on with it
	r.fail()
	r.succeed()
	r.wantTold("exhausted 1, recovered 2")
	if got := r.view.Get("s").FailingSince; !got.IsZero() {
		t.Errorf("still failing since %v", got)
	}
	r.succeed()
	r.wantTold("")
}

// A lane alone is failing with its second failure: the retry.
func TestFailingByRetry(t *testing.T) {
	r := newRig(t, nil)
	r.fail()
	r.wantTold("")
	r.retries()
	r.after(30 * time.Second)
	r.send(0, pipeline.OutcomeTimeout)
	r.wantTold("failing 2")
	r.retries()
	r.after(30 * time.Second)
	r.send(0, pipeline.OutcomeSuccess)
	r.wantTold("recovered 2")
}

func TestDisableAfter(t *testing.T) {
	const days5 = 5 * 24 * time.Hour
	r := newRig(t, noRetries(days5))
	r.fail()
	r.after(time.Hour)
	r.fail()
	r.wantTold("exhausted 1, failing 2, exhausted 1")
	r.after(days5 - time.Hour - 1)
	r.restart()
	r.fail()
	r.wantTold("exhausted 1")
	r.after(time.Millisecond)
	r.deliver("")
	r.fail2(t)
	if got := r.told(); got != "disabled failing 3" {
		t.Fatalf("told %q", got)
	}
	if s := r.view.Get("s"); s.State != pipeline.StateDisabled || s.StateReason != ReasonFailing || !s.FailingSince.IsZero() {
		t.Errorf("%+v", s)
	}
	// Taken into use again, its time begins anew.
	r.set(func(s *pipeline.Subscription) { s.State, s.StateReason, s.Revision = pipeline.StateActive, "", 1 })
	r.after(time.Hour)
	r.fail()
	r.after(time.Hour)
	r.fail()
	r.task.Relieve(r.now)
	r.wantTold("exhausted 1, failing 2, exhausted 1")
	if s := r.view.Get("s"); s.State != pipeline.StateActive {
		t.Errorf("%+v", s)
	}
}

// fail2 fails what has been delivered.
func (r *rig) fail2(t *testing.T) {
	t.Helper()
	for _, w := range r.begin() {
		r.done(w, pipeline.OutcomeTimeout)
	}
}

func TestSuccessResetsDisableAfter(t *testing.T) {
	r := newRig(t, noRetries(time.Hour))
	for range 5 {
		r.fail()
		r.after(59 * time.Minute)
		r.fail()
		r.succeed()
		r.after(time.Minute)
		r.told()
	}
	if s := r.view.Get("s"); s.State != pipeline.StateActive {
		t.Errorf("%+v", s)
	}
}

func TestPauseIsNoFailure(t *testing.T) {
	r := newRig(t, noRetries(time.Hour))
	r.fail()
	r.after(30 * time.Minute)
	r.fail()
	r.wantTold("exhausted 1, failing 2, exhausted 1")
	r.set(func(s *pipeline.Subscription) { s.State = pipeline.StatePaused })
	r.after(10 * time.Hour)
	r.set(func(s *pipeline.Subscription) { s.State = pipeline.StateActive })
	r.fail()
	if s := r.view.Get("s"); s.State != pipeline.StateActive {
		t.Errorf("%+v", s)
	}
}

func TestGoneIsTold(t *testing.T) {
	r := newRig(t, nil)
	r.send(r.deliver(""), pipeline.OutcomeGone)
	r.wantTold("disabled gone 1")
}

func TestExhaustedIsToldOnceAMinute(t *testing.T) {
	r := newRig(t, noRetries(0))
	told := ""
	for range 121 { // one a second, of which one is well
		for range 10 {
			r.fail()
		}
		r.succeed()
		r.task.Relieve(r.now)
		if s := r.told(); s != "" {
			told += s + "; "
		}
		r.after(time.Second)
	}
	if want := "exhausted 1; exhausted 600; exhausted 600; "; told != want {
		t.Errorf("told %q, want %q", told, want)
	}
	r.task.Drain() // the rest is told at the stop
	r.wantTold("exhausted 9")
}

func TestBacklogIsTold(t *testing.T) {
	r := newRig(t, func(c *Config, s *pipeline.Subscription) { c.MaxParked, s.State = 8, pipeline.StatePaused })
	for range 4 {
		r.deliver("")
	}
	r.wantTold("backlog 4")
	for range 4 {
		r.deliver("")
	}
	r.wantTold("")
	r.deliver("")
	r.wantTold("disabled backlog 0")
}

// Own faults are neither failures nor successes.
func TestLocalErrorsAreNoFailures(t *testing.T) {
	r := newRig(t, noRetries(time.Minute))
	o := r.deliver("")
	for range 100 {
		if v := r.send(o, pipeline.OutcomeLocalError); v.Final {
			t.Fatal("over")
		}
		r.after(10 * time.Second)
	}
	r.wantTold("")
	if w := r.next(o); w.Attempt != 1 {
		t.Errorf("attempt %d", w.Attempt)
	}
}
