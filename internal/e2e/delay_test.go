package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestRealDelays: the delays that hookline has by default, 30 s each.
func TestRealDelays(t *testing.T) {
	t.Parallel()
	const delay = 30 * time.Second
	p := &plan{
		events: 40, padding: 100, delays: []time.Duration{delay, delay, delay}, typeOf: func(int) string { return "t" },
	}
	for i := range 4 {
		p.subs = append(p.subs, subscriber{id: fmt.Sprintf("dead-%d", i), kind: "dead", events: "t", ordering: "none", answer: dead})
	}
	p.subs = append(p.subs, subscriber{id: "good", kind: "good", events: "t", answer: good})
	s := newStage(t, setting{plan: p.complete(), vars: map[string]string{"RETRY_DELAYS": ""}})
	proc := s.run(nil)
	s.produce(50)() // not all in the moment in which everybody's processes start
	s.await("every pair is settled", settleLimit, s.ledger.all)
	v := s.judge(proc)
	v.noDupes(t)
	s.deadEnds("dead")
	limit, stalled := delay+time.Second, s.late()
	t.Logf("a timer of this machine was up to %v late", stalled)
	over := 0
	for _, gaps := range v.gaps {
		for _, gap := range gaps {
			if gap > limit {
				over++
			}
		}
	}
	switch {
	case over > 0 && stalled > quiet:
		t.Logf("%d gaps are over %v, which says nothing on a machine that is this busy", over, limit)
	case over > 0:
		t.Errorf("%d gaps are over %v", over, limit)
	}
}

// quiet is how late timers are at most on a machine that has time for us.
const quiet = 100 * time.Millisecond

// lateness watches how late timers are until it is asked.
func lateness(t *testing.T) (worst func() time.Duration) {
	stop, result := make(chan struct{}), make(chan time.Duration, 1)
	go func() { // ends when stop is closed, at the end of the test at the latest
		const every = 20 * time.Millisecond
		tick := time.NewTimer(every)
		defer tick.Stop()
		var max time.Duration
		for {
			began := time.Now()
			tick.Reset(every)
			select {
			case <-stop:
				result <- max
				return
			case <-tick.C:
			}
			if late := time.Since(began) - every; late > max {
				max = late
			}
		}
	}()
	end := sync.OnceFunc(func() { close(stop) })
	t.Cleanup(end)
	return sync.OnceValue(func() time.Duration {
		end()
		return <-result
	})
}
