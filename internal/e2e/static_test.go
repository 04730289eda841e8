package e2e

import (
	"fmt"
	"testing"
	"time"
)

// TestStopTogether: two processes with names of their own are told to stop a
// moment apart, so that the second is told while it takes the first's work
// over. Both end in time, and nothing is lost or sent twice.
func TestStopTogether(t *testing.T) {
	t.Parallel()
	s := newStage(t, setting{plan: smallPlan(1500, 3, failingFirst(4)), vars: map[string]string{"REQUEST_TIMEOUT": "5s"}})
	name := func(i int) map[string]string { return map[string]string{"INSTANCE_ID": fmt.Sprintf("node-%d", i)} }
	procs := []*process{s.start(name(0)), s.start(name(1))}
	for _, p := range procs {
		p.ready()
	}
	wait := s.produce(0)
	for _, pause := range []time.Duration{0, 300 * time.Millisecond, time.Second} {
		s.posts(300, time.Minute)
		for i, p := range procs {
			took, code := p.terminate(20 * time.Second)
			t.Logf("%s was gone after %v, code %d", p.name, took.Round(time.Millisecond), code)
			if code != 0 || took > 12*time.Second {
				t.Errorf("%s ended after %v with code %d, want at most 12 s and 0", p.name, took, code)
			}
			if i == 0 {
				<-time.After(pause) // how far the takeover gets is what varies
			}
		}
		procs = []*process{s.start(name(0)), s.start(name(1))}
		for _, p := range procs {
			p.ready()
		}
	}
	wait()
	s.await("every pair is settled", settleLimit, s.ledger.all)
	s.judge(procs...).noDupes(t)
}
