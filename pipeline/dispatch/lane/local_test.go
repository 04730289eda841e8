package lane

import (
	"testing"

	"github.com/hookline/hookline/pipeline"
)

// TestWhyNothingIsSentIsTold: a try that was none, since hookline lacked something
// of its own, is told until there is one, however that ends.
func TestWhyNothingIsSentIsTold(t *testing.T) {
	const why = "secret: auth.bearer: variable TOKEN is not set"
	for _, ends := range []pipeline.Outcome{pipeline.OutcomeSuccess, pipeline.OutcomeResponseError} {
		r := newRig(t, nil)
		told := func(want string) {
			t.Helper()
			if in := r.task.Inspect("s", 1); in.Local != want || in.Conf.State != pipeline.StateActive {
				t.Errorf("%s: told %q, want %q", ends, in.Local, want)
			}
		}
		told("")
		off := r.deliver("a")
		told("")
		r.doneWith(r.next(off), pipeline.Result{Outcome: pipeline.OutcomeLocalError, Error: why})
		r.commit()
		told(why)
		r.after(r.cfg.LocalRetryAfter)
		told(why)
		r.send(off, ends)
		told("")
	}
}

// What no longer waits keeps nobody from anything.
func TestWhyNothingIsSentEndsWithWhatWaits(t *testing.T) {
	r := newRig(t, nil)
	off := r.deliver("a")
	r.doneWith(r.next(off), pipeline.Result{Outcome: pipeline.OutcomeLocalError, Error: "secret: missing"})
	r.set(func(s *pipeline.Subscription) { s.State = pipeline.StateDisabled })
	r.after(r.cfg.LocalRetryAfter)
	r.commit()
	if in := r.task.Inspect("s", 1); in.Lanes != 0 || in.Local != "" {
		t.Errorf("%d lanes, told %q", in.Lanes, in.Local)
	}
}
