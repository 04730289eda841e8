package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// crashes is how often a process is killed in each test.
const crashes = 10

// crashVars make a crash short: a session as short as Kafka's default lets it
// be would have each of ten restarts wait for 6 s.
func crashVars() map[string]string {
	return map[string]string{"SESSION_TIMEOUT": "3s", "MAX_IN_FLIGHT": "64"}
}

// crashPlan lasts longer than the kills: all of it is produced before them, and
// its endpoints take their time.
func crashPlan() *plan { return smallPlan(3500, 12, failingFirst(12)) }

// TestKill: kill -9 in the middle of the load, ten times.
func TestKill(t *testing.T) {
	t.Parallel()
	s := newStage(t, setting{plan: crashPlan(), vars: crashVars()})
	wait := s.produce(0)
	p := s.run(nil)
	for i := range crashes {
		s.posts(400+s.rng.IntN(1000), time.Minute)
		s.crash(i, p)
		p = s.start(nil)
	}
	wait()
	s.await("every pair is settled", settleLimit, s.ledger.all)
	s.crashed(s.judge(p))
}

// TestKillOneOfTwo: the same with two processes that share the work, each with
// a name of its own, so that its partitions wait for it.
func TestKillOneOfTwo(t *testing.T) {
	t.Parallel()
	s := newStage(t, setting{plan: crashPlan(), vars: crashVars()})
	name := func(i int) map[string]string { return map[string]string{"INSTANCE_ID": fmt.Sprintf("node-%d", i)} }
	procs := []*process{s.start(name(0)), s.start(name(1))}
	for _, p := range procs {
		p.ready()
	}
	wait := s.produce(0)
	for i := range crashes {
		s.posts(400+s.rng.IntN(1000), time.Minute)
		victim := s.rng.IntN(2)
		s.crash(i, procs[victim])
		procs[victim] = s.start(name(victim))
	}
	wait()
	s.await("every pair is settled", settleLimit, s.ledger.all)
	s.crashed(s.judge(procs...))
}

// crash kills p and tells what was under way.
func (s *stage) crash(i int, p *process) {
	s.t.Helper()
	k := s.kill(p)
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	s.t.Logf("kill %d: %s, after %d posts, %d of %d settled, %d requests under way", i+1, p.name,
		len(s.ledger.posts), len(s.ledger.settled), s.plan.expected, s.ledger.underWay(k.from))
	if s.ledger.all() {
		s.t.Errorf("kill %d came after everything was settled: it proves nothing", i+1)
	}
}

// crashed judges the repeats: only what was under way at a kill or had ended
// after the last commit before it may be sent again.
func (s *stage) crashed(v *verdict) {
	s.t.Helper()
	committed := s.commits()
	allowed := 0
	for _, k := range s.ledger.kills {
		flying, open := s.ledger.underWay(k.from), 0
		for i := range s.ledger.posts {
			p := &s.ledger.posts[i]
			if p.answered < k.from && p.answered >= committed(p.sub, k) {
				open++
			}
		}
		s.t.Logf("kill at %v: %d requests under way, %d ended since the last commits", k.from.Round(time.Millisecond), flying, open)
		allowed += flying + open
	}
	s.t.Logf("%d attempts were made again; %d were under way or not yet surely committed at a kill", v.dupes(), allowed)
	if len(v.unexplained) > 0 || v.dupes() > allowed {
		s.t.Errorf("%d attempts were made again that no kill explains, such as\n\t%s", len(v.unexplained), strings.Join(v.unexplained[:min(len(v.unexplained), 8)], "\n\t"))
	}
}
