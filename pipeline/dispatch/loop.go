package dispatch

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/hookline/hookline/pipeline"
)

const (
	// tickEvery is the grain of retries' times.
	tickEvery = 5 * time.Millisecond
	// idleTickEvery is how often a loop without work looks whether there is any
	// that nobody told it of.
	idleTickEvery = 50 * time.Millisecond
	// relieveEvery is how often slow lanes are looked for.
	relieveEvery = 250 * time.Millisecond
	// statsEvery is how often gauges are set.
	statsEvery = 2 * time.Second
	// stopSlack is what a stop or a revoke waits for beyond the request timeout.
	stopSlack = 3 * time.Second
	// leaveTimeout bounds the goodbye to the group.
	leaveTimeout = 5 * time.Second
)

// loop drives the tasks until a stop has ended. ctx asks for the stop; inner
// lives through it.
func (d *Dispatcher) loop(ctx, inner context.Context) {
	defer close(d.loopDone)
	tick, period := time.NewTicker(tickEvery), tickEvery
	defer tick.Stop()
	stop := ctx.Done()
	changed := d.deps.Registry.Changed()
	var spare []*job
	var lastRelieve, lastStats time.Time
	for {
		var batch *fetchedRecords
		select {
		case <-stop:
			stop = nil
			d.beginStop(d.now())
		case <-d.finished.C:
		case b := <-d.fetched:
			batch = &b
		case f := <-d.calls:
			f()
		case r := <-d.control.reads:
			d.takeControl(r)
		case c := <-d.commits:
			d.committed(d.now(), c)
		case <-changed:
			d.refresh()
		case <-tick.C:
		}
		now := d.now()
		if batch != nil {
			d.accept(*batch)
		}
		spare = d.finished.take(spare)
		for i, j := range spare {
			d.finish(now, j)
			spare[i] = nil
		}
		for _, t := range d.tasks {
			t.Tick(now)
		}
		if now.Sub(lastRelieve) >= relieveEvery {
			lastRelieve = now
			d.sched.HoldUpCold(d.slots.coldHeldUp())
			for _, t := range d.tasks {
				t.Relieve(now)
			}
		}
		if now.Sub(lastStats) >= statsEvery {
			lastStats = now
			d.deps.Metrics.Lanes(d.stats(now))
			d.retire()
		}
		d.feed(now)
		d.slots.age(now)
		d.hand(now)
		d.start()
		d.beginRescans(inner)
		d.moveReleases(now)
		if d.commit == nil && (now.Sub(d.lastCut) >= time.Duration(d.cfg.CommitInterval) || d.cutNow) {
			d.cutNow = false
			d.cut(inner, now)
		}
		if d.stopped() {
			d.committing.Wait()
			d.flushAttempts() // of tasks that were lost
			return
		}
		period = d.retick(tick, period)
	}
}

// retick has the ticker tick as tickPeriod says.
func (d *Dispatcher) retick(tick *time.Ticker, before time.Duration) time.Duration {
	period := d.tickPeriod()
	if period != before {
		tick.Reset(period)
	}
	return period
}

// tickPeriod is how long the loop may wait when nothing wakes it.
func (d *Dispatcher) tickPeriod() time.Duration {
	if d.stopping || d.cutNow || d.commit != nil || len(d.releasing) > 0 || d.slots.inFlight() > 0 || d.sched.Any() {
		return tickEvery
	}
	for _, t := range d.tasks {
		if t.Touched() || t.Timed() || len(t.deliveries) > 0 {
			return tickEvery
		}
	}
	return idleTickEvery
}

// refresh takes the newest view of the registry.
func (d *Dispatcher) refresh() {
	view := d.deps.Registry.View()
	if view == nil || view.Version() == d.view.Version() {
		return
	}
	changed, known := []string(nil), false
	if v, ok := view.(pipeline.ComparableSubscriptions); ok {
		changed, known = v.ChangedSince(d.view)
	}
	d.view = view
	now := d.now()
	for _, t := range d.tasks {
		if known {
			t.UpdateOnly(now, view, changed)
			continue
		}
		t.Update(now, view)
	}
}

// beginRelease begins to give partitions back.
func (d *Dispatcher) beginRelease(r *release) {
	for _, p := range r.partitions {
		if t := d.tasks[p]; t != nil {
			t.Drain()
		}
	}
	// A parked delivery is read before its request begins.
	r.until = d.now().Add(fetchParkedTimeout + d.deps.RequestTimeout + stopSlack)
	d.releasing = append(d.releasing, r)
}

// moveReleases moves revocations on: requests end, then a last commit, then the
// tasks are dropped.
func (d *Dispatcher) moveReleases(now time.Time) {
	kept := d.releasing[:0]
	for _, r := range d.releasing {
		if d.releaseDone(now, r) {
			for _, p := range r.partitions {
				d.drop(p)
			}
			close(r.done)
			continue
		}
		kept = append(kept, r)
	}
	clear(d.releasing[len(kept):])
	d.releasing = kept
}

func (d *Dispatcher) releaseDone(now time.Time, r *release) bool {
	if !d.owned(r.partitions) || now.After(r.until) {
		return true
	}
	for _, p := range r.partitions {
		if t := d.tasks[p]; t != nil && t.InFlight() > 0 {
			return false
		}
	}
	if d.commit != nil {
		return false
	}
	for _, p := range r.partitions {
		if t := d.tasks[p]; t != nil && t.Touched() {
			d.cutNow = true
			return false
		}
	}
	return true
}

// fail stops the dispatcher for a reason that it cannot go on with. In the loop.
func (d *Dispatcher) fail(err error) {
	if d.fatal == nil {
		d.fatal = err
	}
	d.beginStop(d.now())
}

// beginStop begins a graceful stop: everything is given back.
func (d *Dispatcher) beginStop(now time.Time) {
	if d.stopping {
		return
	}
	d.stopping = true
	d.stopRecovering()
	d.started.Store(false)
	r := &release{done: make(chan struct{}), until: now.Add(d.deps.RequestTimeout + stopSlack)}
	for p, t := range d.tasks {
		t.Drain()
		r.partitions = append(r.partitions, p)
	}
	d.releasing = append(d.releasing, r)
	d.final = r
}

// stopped tells that the loop may end: all is given back and committed, and the
// group has been left.
func (d *Dispatcher) stopped() bool {
	if !d.stopping {
		return false
	}
	if d.commit != nil {
		// Kafka does not answer: what is under way is decided by whoever comes
		// next, as after a crash.
		if d.now().After(d.final.until.Add(stopSlack)) {
			d.abandon()
		}
		return false
	}
	select {
	case <-d.final.done:
	default:
		return false
	}
	if d.left == nil {
		d.left = make(chan struct{})
		if errors.Is(d.fatal, kerr.FencedInstanceID) {
			close(d.left)
			return true
		}
		// In a goroutine, since leaving calls revoked, which needs the loop.
		d.committing.Go(func() {
			defer close(d.left)
			ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
			defer cancel()
			d.leave(ctx)
		})
	}
	select {
	case <-d.left:
		return true
	default:
		return false
	}
}
