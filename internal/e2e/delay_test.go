package e2e

import (
	"fmt"
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
	s.await("every pair is settled", 3*time.Minute, s.ledger.all)
	v := s.judge(proc)
	v.noDupes(t)
	s.deadEnds("dead")
	for k, gaps := range v.gaps {
		for _, gap := range gaps {
			if gap > delay+time.Second {
				t.Errorf("attempt %d came %v after the failure, want at most %v", k+1, gap, delay+time.Second)
			}
		}
	}
}
