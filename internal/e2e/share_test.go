package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// TestShare: two processes share the work; a third joins under load and leaves.
// Nothing is sent twice.
func TestShare(t *testing.T) {
	t.Parallel()
	s := newStage(t, setting{plan: smallPlan(4000, 3, failingFirst(10))})
	procs := []*process{s.start(nil), s.start(nil)}
	for _, p := range procs {
		p.ready()
	}
	wait := s.produce(300)
	s.posts(2000, time.Minute)
	third := s.run(nil)
	// A cooperative group gives a new member its part in a second round.
	sent := 0
	for sent == 0 {
		s.posts(200, time.Minute) // fails when the work is over
		sent = s.attempts(third)
	}
	took, code := third.terminate(30 * time.Second)
	t.Logf("the third process made %d attempts and left within %v, code %d", sent, took.Round(time.Millisecond), code)
	if code != 0 {
		t.Errorf("the third process ended with code %d", code)
	}
	wait()
	s.await("every pair is settled", settleLimit, s.ledger.all)
	for _, p := range procs {
		n := s.attempts(p)
		t.Logf("%s made %d attempts", p.name, n)
		if n == 0 {
			t.Errorf("%s has made no attempt", p.name)
		}
	}
	s.judge(procs...).noDupes(t)
}

var attemptsMetric = regexp.MustCompile(`(?m)^hookline_attempts_total\{[^}]*\} ([0-9.e+]+)$`)

// attempts is how many a process says that it has made: only to tell that it
// had a part in the work.
func (s *stage) attempts(p *process) int {
	s.t.Helper()
	code, body, err := get(s.ctx, fmt.Sprintf("http://%s/metrics", p.admin))
	if err != nil || code != 200 {
		s.t.Fatalf("reading the metrics of %s: status %d, %v", p.name, code, err)
	}
	sum := 0.0
	for _, m := range attemptsMetric.FindAllStringSubmatch(body, -1) {
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			s.t.Fatalf("reading the metrics of %s: %q", p.name, m[0])
		}
		sum += n
	}
	return int(sum)
}
