package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hookline/hookline/pipeline/audit"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/replay"
)

// fakeReplayer plans and enqueues ten events for as long as it is told to.
type fakeReplayer struct {
	planning, running time.Duration
	fail              error // after the plan

	mu    sync.Mutex
	asked []replay.Options // guarded by mu
	known []replay.Progress
}

func (f *fakeReplayer) Run(ctx context.Context, sel replay.Selection, opts replay.Options) (replay.Plan, replay.Progress, error) {
	f.mu.Lock()
	f.asked = append(f.asked, opts)
	f.mu.Unlock()
	p := replay.Progress{ID: "r_1", Selection: sel, Actor: opts.Who, State: replay.StateRunning, BegunAt: testNow, Total: 10}
	plan := replay.Plan{ID: p.ID, Selection: sel, Events: 10}
	if err := pass(ctx, f.planning); err != nil {
		return plan, p, err
	}
	if opts.DryRun {
		return plan, p, nil
	}
	if err := opts.Confirm(plan); err != nil {
		return plan, p, err
	}
	p.Events, p.Enqueued = 4, 4
	opts.OnProgress(p, replay.Waiting{Deliveries: 7})
	if err := pass(ctx, f.running); err != nil {
		return plan, p, err
	}
	if f.fail != nil {
		return plan, p, f.fail
	}
	p.Events, p.Enqueued, p.State = 10, 10, replay.StateDone
	return plan, p, nil
}

// Resume settles three missed deliveries in the time that a replay runs.
func (f *fakeReplayer) Resume(ctx context.Context, id string, opts replay.Options) (*control.Result, error) {
	f.mu.Lock()
	f.asked = append(f.asked, opts)
	f.mu.Unlock()
	opts.OnProgress(replay.Progress{ID: "c_1", Enqueued: 2}, replay.Waiting{Deliveries: 2})
	if err := pass(ctx, f.running); err != nil {
		return nil, err
	}
	opts.OnProgress(replay.Progress{ID: "c_2", Enqueued: 1}, replay.Waiting{})
	if f.fail != nil {
		return nil, f.fail
	}
	return &control.Result{Action: audit.ActionResume, Subscription: id, Outcome: control.Done, Detail: "3 missed deliveries went first"}, nil
}

func (f *fakeReplayer) List(context.Context) ([]replay.Progress, error) { return f.known, nil }

// pass lets time go by.
func pass(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var ofErp = replay.Selection{Subscription: "erp", Since: testNow}

// running runs f's replays; stop ends them.
func running(f *fakeReplayer) (rs *Replays, stop func()) {
	rs = NewReplays(f, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rs.Run(ctx) }()
	synctest.Wait() // it has begun
	return rs, func() { cancel(); <-done }
}

// A short replay is through when it is answered; a long one goes on, tells how far
// it is, cannot be begun twice, and ends by itself.
func TestReplayGoesOnInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeReplayer{}
		rs, stop := running(f)
		defer stop()
		rep, err := rs.Begin(t.Context(), "ann", ofErp, 5)
		if err != nil || rep.State != replay.StateDone || rep.Enqueued != 10 || rep.Here || rep.Plan.Events != 10 {
			t.Errorf("a short one: %+v, %v", rep, err)
		}
		if o := f.asked[0]; o.Who != "ann" || o.Rate != 5 || o.DryRun {
			t.Errorf("asked for %+v", o)
		}

		f.running = time.Minute
		ctx, cancel := context.WithCancel(t.Context())
		rep, err = rs.Begin(ctx, "ann", ofErp, 0)
		if err != nil || rep.State != replay.StateRunning || rep.Events != 4 || rep.Waiting.Deliveries != 7 || !rep.Here {
			t.Errorf("a long one: %+v, %v", rep, err)
		}
		cancel() // whoever asked goes away
		if _, err := rs.Begin(t.Context(), "bob", ofErp, 0); !errors.Is(err, ErrUnderWay) || !strings.Contains(err.Error(), "r_1") {
			t.Errorf("the same again: %v", err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if rep, err = rs.Get(t.Context(), "r_1"); err != nil || rep.State != replay.StateDone || rep.Here || rep.Error != "" {
			t.Errorf("in the end: %+v, %v", rep, err)
		}
		if _, err := rs.Get(t.Context(), "r_2"); !errors.Is(err, ErrNotFound) {
			t.Errorf("one that nobody knows: %v", err)
		}
	})
}

// A process that stops interrupts its replays and waits for them; what went wrong
// is told; nothing begins before Run or after it.
func TestReplayIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeReplayer{running: time.Hour}
		rs, stop := running(f)
		if _, err := rs.Begin(t.Context(), "ann", ofErp, 0); err != nil {
			t.Fatal(err)
		}
		stop()
		if rep, err := rs.Get(t.Context(), "r_1"); err != nil || rep.Here || rep.State != replay.StateRunning || rep.Error == "" {
			t.Errorf("%+v, %v", rep, err)
		}
		// Another process has brought it to its end.
		f.known = []replay.Progress{{ID: "r_1", State: replay.StateDone, BegunAt: testNow, UpdatedAt: testNow.Add(time.Second)}}
		if rep, err := rs.Get(t.Context(), "r_1"); err != nil || rep.State != replay.StateDone || rep.Error != "" {
			t.Errorf("ended elsewhere: %+v, %v", rep, err)
		}
		if _, err := rs.Begin(t.Context(), "ann", ofErp, 0); !errors.Is(err, ErrStopping) {
			t.Errorf("after the stop: %v", err)
		}
	})
}

// A plan that takes too long, or for which nobody waits any more, is given up:
// nothing was enqueued, and nothing is under way.
func TestReplayPlanningIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeReplayer{planning: time.Hour}
		rs, stop := running(f)
		defer stop()
		if _, err := rs.Begin(t.Context(), "ann", ofErp, 0); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "20s") {
			t.Errorf("begin: %v", err)
		}
		if _, err := rs.Count(t.Context(), "ann", ofErp); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "20s") {
			t.Errorf("count: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := rs.Begin(ctx, "ann", ofErp, 0); err == nil {
			t.Error("nobody waits: no error")
		}
		if all, err := rs.List(t.Context(), 10); err != nil || len(all) != 0 {
			t.Errorf("left: %+v, %v", all, err)
		}
		f.planning, f.running = 0, time.Hour
		for i := range maxReplays {
			sel := ofErp
			sel.Until = testNow.Add(time.Duration(i+1) * time.Hour)
			if _, err := rs.Begin(t.Context(), "ann", sel, 0); err != nil {
				t.Error(err)
			}
		}
		if _, err := rs.Count(t.Context(), "ann", ofErp); !errors.Is(err, ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
	})
}

// What fails after the plan is told with the replay.
func TestReplayThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rs, stop := running(&fakeReplayer{fail: replay.ErrElsewhere})
		defer stop()
		rep, err := rs.Begin(t.Context(), "ann", ofErp, 0)
		if err != nil || rep.Error != replay.ErrElsewhere.Error() || rep.State != replay.StateRunning || rep.Here {
			t.Errorf("%+v, %v", rep, err)
		}
		if _, err := rs.Begin(t.Context(), "ann", replay.Selection{}, 0); err == nil {
			t.Error("nothing is selected: no error")
		}
	})
}

// A catch-up goes on in the background, once for each subscription, and is told.
func TestCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeReplayer{running: time.Minute}
		rs, stop := running(f)
		defer stop()
		if _, err := rs.CatchUpOf("erp"); !errors.Is(err, ErrNotFound) {
			t.Errorf("before: %v", err)
		}
		c, err := rs.CatchUp(t.Context(), "ann", "erp")
		if err != nil || !c.EndedAt.IsZero() || c.Result != nil || c.Enqueued != 2 || c.Waiting.Deliveries != 2 || c.Actor != "ann" {
			t.Fatalf("%+v, %v", c, err)
		}
		if _, err := rs.CatchUp(t.Context(), "bob", "erp"); !errors.Is(err, ErrUnderWay) {
			t.Errorf("the same once more: %v", err)
		}
		if _, err := rs.CatchUp(t.Context(), "bob", "other"); err != nil {
			t.Errorf("another subscription: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if c, err = rs.CatchUpOf("erp"); err != nil || c.Result == nil || c.EndedAt.IsZero() || c.Enqueued != 3 || c.Waiting.Deliveries != 0 {
			t.Errorf("ended: %+v, %v", c, err)
		}
		// What ends at once is answered at once.
		f.running = 0
		if c, err = rs.CatchUp(t.Context(), "ann", "erp"); err != nil || c.Result == nil || c.Result.Outcome != control.Done {
			t.Errorf("again: %+v, %v", c, err)
		}
		f.fail = replay.ErrElsewhere
		if _, err = rs.CatchUp(t.Context(), "ann", "erp"); !errors.Is(err, replay.ErrElsewhere) {
			t.Errorf("failing at once: %v", err)
		}
	})
}

// A process that stops interrupts its catch-ups and waits for them.
func TestCatchUpIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rs, stop := running(&fakeReplayer{running: time.Hour})
		if _, err := rs.CatchUp(t.Context(), "ann", "erp"); err != nil {
			t.Fatal(err)
		}
		for i := range maxReplays - 1 {
			if _, err := rs.CatchUp(t.Context(), "ann", fmt.Sprint("other", i)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := rs.CatchUp(t.Context(), "ann", "one too many"); !errors.Is(err, ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
		stop()
		if c, err := rs.CatchUpOf("erp"); err != nil || c.Error == "" || c.Result != nil || c.EndedAt.IsZero() {
			t.Errorf("%+v, %v", c, err)
		}
		if _, err := rs.CatchUp(t.Context(), "ann", "erp"); !errors.Is(err, ErrStopping) {
			t.Errorf("after the stop: %v", err)
		}
	})
}

// Of many that ended the last ones are remembered, and those under way.
func TestCatchUpsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeReplayer{running: time.Hour}
		rs, stop := running(f)
		defer stop()
		if _, err := rs.CatchUp(t.Context(), "ann", "long"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the long one has looked at it
		f.running = 0
		for i := range keptReplays + 10 {
			if _, err := rs.CatchUp(t.Context(), "ann", fmt.Sprintf("s%03d", i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		for id, there := range map[string]bool{"long": true, "s000": false, "s109": true} {
			if _, err := rs.CatchUpOf(id); (err == nil) != there {
				t.Errorf("%s: %v", id, err)
			}
		}
		if len(rs.catchUps) != keptReplays {
			t.Errorf("%d are kept", len(rs.catchUps))
		}
	})
}
