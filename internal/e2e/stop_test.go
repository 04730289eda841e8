package e2e

import (
	"testing"
	"time"
)

// TestStop: SIGTERM under load drains within the request timeout and 5 s, with
// exit code 0, and nothing is sent twice by the process that takes over.
func TestStop(t *testing.T) {
	t.Parallel()
	const timeout = 5 * time.Second
	s := newStage(t, setting{plan: smallPlan(3000, 3, failingFirst(10)), vars: map[string]string{"REQUEST_TIMEOUT": timeout.String()}})
	p := s.run(nil)
	wait := s.produce(400)
	for i := range 3 {
		s.posts(1500, time.Minute)
		s.ledger.mu.Lock()
		busy := s.ledger.underWay(s.ledger.now())
		s.ledger.mu.Unlock()
		took, code := p.terminate(timeout + 10*time.Second)
		t.Logf("stop %d: %d requests under way, gone after %v, code %d", i+1, busy, took.Round(time.Millisecond), code)
		if took > timeout+5*time.Second || code != 0 {
			t.Errorf("stop %d took %v and ended with code %d, want at most %v and 0", i+1, took, code, timeout+5*time.Second)
		}
		p = s.run(nil)
	}
	wait()
	s.await("every pair is settled", settleLimit, s.ledger.all)
	s.judge(p).noDupes(t)
}
