package lane

import (
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// TestABusyProcessParksNothing: deliveries that are late because the process has
// no slot for them stay in memory, however long; those that wait behind their
// own endpoint do not.
func TestABusyProcessParksNothing(t *testing.T) {
	r := newRig(t, func(*Config, *pipeline.Subscription) {})
	for range 3 {
		r.deliver("e")
	}
	r.now = r.now.Add(10 * SlackFactor * r.cfg.SlowAfter)
	r.task.Relieve(r.now)
	if st := r.task.Stats(); st.Parked != 0 || st.Queued != 3 {
		t.Fatalf("while no slot was free: %d parked, %d queued, want 0 and 3", st.Parked, st.Queued)
	}
	w := r.sched.Next(r.now, true)
	if w == nil {
		t.Fatal("nothing to send")
	}
	r.now = r.now.Add(time.Second)
	r.task.Relieve(r.now)
	if st := r.task.Stats(); st.Parked != 0 {
		t.Fatalf("after a request of a second, behind minutes without a slot: %d parked, want 0", st.Parked)
	}
	r.now = r.now.Add(20 * SlackFactor * r.cfg.SlowAfter)
	r.task.Relieve(r.now)
	if st := r.task.Stats(); st.Parked != 2 {
		t.Fatalf("behind a request of minutes: %d parked, want 2", st.Parked)
	}
}
