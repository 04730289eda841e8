package lane

import (
	"fmt"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// rig is a task by hand, for scenarios of a few steps.
type rig struct {
	*testing.T
	cfg   Config
	now   time.Time
	kafka simKafka
	view  *simRegistry
	sched *Scheduler
	task  *Task
}

// newRig has one subscription, "s", with one request under way at a time.
func newRig(t *testing.T, change func(*Config, *pipeline.Subscription)) *rig {
	t.Helper()
	r := &rig{T: t, cfg: DefaultConfig(), now: time.UnixMilli(1_900_000_000_000), sched: &Scheduler{}}
	r.view = (&simRegistry{subs: map[string]*pipeline.Subscription{}}).with("s", func(s *pipeline.Subscription) {
		s.Concurrency = 1
		if change != nil {
			change(&r.cfg, s)
		}
	})
	r.restart()
	return r
}

// restart rebuilds the task from what is committed.
func (r *rig) restart() {
	r.Helper()
	rec := NewRecovery(0, &r.cfg)
	if err := r.kafka.recover(rec, true); err != nil {
		r.Fatal(err)
	}
	r.sched = &Scheduler{}
	r.task = rec.Task(r.now, Start{
		Deliveries: r.kafka.committed, Retry: r.kafka.committedRetry, RetryEnd: r.kafka.ends(), ParkedEnd: r.kafka.parked.end, Subs: r.view, Scheduler: r.sched,
	})
	for d := range r.kafka.deliveries.recs {
		if rec := r.kafka.deliveries.recs[d]; rec.off >= r.task.ReadPosition() {
			r.feed(rec.off, rec.val)
		}
	}
}

// deliver makes an event for every of subs ("s" when none is named).
func (r *rig) deliver(entity string, subs ...string) int64 {
	if len(subs) == 0 {
		subs = []string{"s"}
	}
	d := simDelivery{subs: subs, env: &pipeline.Envelope{Entity: entity}}
	d.payload = fmt.Appendf(nil, "%04d", r.kafka.deliveries.end)
	off := r.kafka.deliveries.append(d)
	r.feed(off, d)
	return off
}

func (r *rig) feed(off int64, d simDelivery) {
	r.task.Deliver(r.now, &Record{Offset: off, Subs: d.subs, Envelope: d.env, Header: []byte{1}, Payload: d.payload})
}

func (r *rig) retries() {
	for k := range r.kafka.retry {
		bad := false
		for rec, ok := r.kafka.retry[k].at(r.task.RetryPosition(k + 1)); ok; rec, ok = r.kafka.retry[k].at(r.task.RetryPosition(k + 1)) {
			rec.val.Offset = rec.off
			if r.kafka.badRetry[k][rec.off] {
				r.task.RetryPassed(r.now, k+1, rec.off, &Raw{Topic: "retry", Offset: rec.off, Origin: -1})
				bad = true
				continue
			}
			r.task.Retry(r.now, k+1, &rec.val)
		}
		if end := r.kafka.retry[k].end; bad && r.task.RetryPosition(k+1) < end {
			r.task.RetryPassed(r.now, k+1, end-1, nil)
		}
	}
}

// anyShare has the scheduler give whatever there is.
var anyShare = Shares{Cold: true, Suspect: true}

// next is the next work, which must be for origin.
func (r *rig) next(origin int64) *Work {
	r.Helper()
	w := r.sched.Next(r.now, anyShare)
	if w == nil {
		r.Fatalf("no work, want one for %d", origin)
	}
	if w.Origin != origin {
		r.Fatalf("work for %d, want one for %d", w.Origin, origin)
	}
	return w
}

// none makes sure that there is no work.
func (r *rig) none() {
	r.Helper()
	if w := r.sched.Next(r.now, anyShare); w != nil {
		r.Fatalf("work for %d (attempt %d), want none", w.Origin, w.Attempt)
	}
}

func (r *rig) done(w *Work, o pipeline.Outcome) Verdict {
	return r.doneWith(w, pipeline.Result{Outcome: o})
}

func (r *rig) doneWith(w *Work, res pipeline.Result) Verdict {
	r.Helper()
	r.kafka.load(w, r.Fatalf)
	res.StartedAt = r.now
	return r.task.Done(r.now, w, &res)
}

// send does one request from beginning to end.
func (r *rig) send(origin int64, o pipeline.Outcome) Verdict {
	r.Helper()
	return r.done(r.next(origin), o)
}

func (r *rig) commit() *Batch {
	b := r.task.Cut()
	r.task.Committed(r.now, b, r.kafka.produce(b, r.now))
	checkTask(r.task, r.Fatalf)
	return b
}

func (r *rig) after(d time.Duration) {
	r.now = r.now.Add(d)
	r.task.Tick(r.now)
}

func (r *rig) set(change func(*pipeline.Subscription)) {
	r.view = r.view.with("s", change)
	r.task.Update(r.now, r.view)
}

// outs names the kinds and origins of a batch: "retry 1, dead 2 (exhausted)".
func outs(b *Batch) string {
	text := ""
	for _, o := range b.Outs {
		if o.Kind == OutNotice || o.Kind == OutHealth {
			continue
		}
		if text != "" {
			text += ", "
		}
		switch o.Kind {
		case OutRetry:
			text += fmt.Sprintf("retry.%d %d", o.Attempts, o.Origin)
		case OutParked:
			text += fmt.Sprintf("parked %d", o.Origin)
		case OutDead:
			text += fmt.Sprintf("dead %d (%s)", o.Origin, o.Reason)
		case OutState:
			text += "disabled (" + o.StateReason + ")"
		case OutHealth, OutNotice, OutAnswer:
		}
	}
	return text
}

func (r *rig) wantOuts(b *Batch, want string) {
	r.Helper()
	if got := outs(b); got != want {
		r.Fatalf("batch holds %q, want %q", got, want)
	}
}
