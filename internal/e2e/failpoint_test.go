package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/failpoint"
	"github.com/hookline/hookline/internal/receiver"
	"github.com/hookline/hookline/internal/testkit"
)

// stepEvents of each test; their endpoint is so slow that each outcome is
// committed before the next one comes.
const (
	stepEvents = 4
	stepLagMS  = 300
)

// stepStage has one subscription. Its endpoint fails the first attempts of the
// events in bad.
func stepStage(t *testing.T, engine *testkit.EngineProc, bad ...int) *stage {
	p := &plan{
		events: stepEvents, partition: 1, typeOf: func(int) string { return "t" },
		delays: []time.Duration{400 * time.Millisecond, 400 * time.Millisecond, 400 * time.Millisecond},
		subs: []subscriber{{id: "s", kind: "good", events: "t", answer: func(p *post) receiver.Reply {
			r := receiver.Reply{Delay: stepLagMS * time.Millisecond}
			if p.attempt == 1 && slices.Contains(bad, p.seq) {
				r.Status = 503
			}
			return r
		}}},
	}
	// A name of its own lets a process take its place, and its open transaction, at once.
	return newStage(t, setting{plan: p.complete(), engine: engine, binary: failing, vars: map[string]string{"INSTANCE_ID": "node-0", "SESSION_TIMEOUT": "3s"}})
}

// made is the attempts in the order in which they came: event.attempt.
func (s *stage) made() string {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	var list []string
	for i := range s.ledger.posts {
		list = append(list, fmt.Sprintf("%d.%d", s.ledger.posts[i].seq, s.ledger.posts[i].attempt))
	}
	return strings.Join(list, " ")
}

// TestSteps: killed at each step between two effects, hookline makes exactly the
// attempts that it must.
func TestSteps(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		point string
		bad   []int
		want  string
	}{
		// The third request was answered, and that is not known to anybody.
		{string(failpoint.AttemptMade) + ":3", nil, "0.1 1.1 2.1 2.1 3.1"},
		// The retry of event 1 is written, the transaction is aborted.
		{string(failpoint.RetryProduced), []int{1}, "0.1 1.1 1.1 1.2 2.1 3.1"},
		// It is committed, but the process does not know.
		{string(failpoint.RetryCommitted), []int{1}, "0.1 1.1 1.2 2.1 3.1"},
		// The deliveries are written, the transaction is aborted.
		{string(failpoint.Routed), nil, "0.1 1.1 2.1 3.1"},
	} {
		t.Run(tt.point, func(t *testing.T) {
			t.Parallel()
			s := stepStage(t, nil, tt.bad...)
			p := s.start(map[string]string{"FAILPOINT": tt.point})
			s.produce(0)()
			s.died(p)
			p = s.start(nil)
			s.await("every pair is settled", settleLimit, s.ledger.all)
			if took, code := p.terminate(30 * time.Second); code != 0 {
				t.Errorf("%s ended with code %d, %v after SIGTERM", p.name, code, took)
			}
			if got := s.made(); got != tt.want {
				t.Errorf("attempts %s, want %s", got, tt.want)
			}
		})
	}
}

// died waits until a failpoint has killed p.
func (s *stage) died(p *process) {
	s.t.Helper()
	p.wait(time.Now(), readyLimit)
	if st, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || st.Signal() != syscall.SIGKILL {
		s.t.Fatalf("%s ended by %v, not by its failpoint", p.name, p.cmd.ProcessState)
	}
}

// TestSinkSteps: a sink that is killed, or frozen until another has taken over,
// at each step of storing a block leaves no row out and none twice.
func TestSinkSteps(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		point  failpoint.Point
		frozen bool
	}{
		{failpoint.BlockDeclared, false},
		{failpoint.BlockInserting, false},
		{failpoint.BlockInserted, false},
		{failpoint.BlockDeclared, true},
		{failpoint.BlockInserting, true},
		{failpoint.BlockInserted, true},
	} {
		t.Run(fmt.Sprintf("%s,frozen=%v", tt.point, tt.frozen), func(t *testing.T) {
			t.Parallel()
			s := stepStage(t, testkit.Engine(t), 1)
			s.roles = "router,dispatcher"
			sender := s.start(nil)
			s.roles = "sink"
			text := string(tt.point)
			if tt.frozen {
				text += ":stop"
			}
			first := s.start(map[string]string{"INSTANCE_ID": "", "FAILPOINT": text})
			s.produce(0)()
			if tt.frozen {
				s.froze(first)
			} else {
				s.died(first)
			}
			second := s.start(map[string]string{"INSTANCE_ID": ""})
			s.await("every pair is settled", settleLimit, s.ledger.all)
			s.rowsFor(s.ledger.count())
			if tt.frozen { // what it was about to do comes after all of it
				first.signal(syscall.SIGCONT)
				if took, code := first.terminate(60 * time.Second); code != 0 {
					t.Errorf("%s ended with code %d, %v after SIGTERM", first.name, code, took)
				}
			}
			s.judge(sender, second).noDupes(t)
			s.compareRows()
		})
	}
}

// froze waits until a failpoint has stopped p.
func (s *stage) froze(p *process) {
	s.t.Helper()
	deadline := time.Now().Add(readyLimit)
	tick := time.NewTicker(20 * time.Millisecond) // another process: no signal to wait for
	defer tick.Stop()
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		if err != nil {
			s.t.Skipf("needs /proc to see a stopped process: %v", err)
		}
		if _, rest, ok := strings.Cut(string(stat), ") "); ok && strings.HasPrefix(rest, "T") {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s was not stopped by its failpoint within %v", p.name, readyLimit)
		}
		<-tick.C
	}
}
