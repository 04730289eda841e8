package lane

import (
	"slices"
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
	w := r.sched.Next(r.now, anyShare)
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

// TestABusyProcessParksOnlyWhatIsSlowerThanTheRest: every lane's requests are
// late since the process begins them late; one lane's take far longer still.
func TestABusyProcessParksOnlyWhatIsSlowerThanTheRest(t *testing.T) {
	for _, tt := range []struct {
		name       string
		late       time.Duration // before the process begins a request
		slow, fast time.Duration // of a request of each lane
		parkS      bool
		parkF      bool
	}{
		{"all alike, process busy", 5 * time.Millisecond, 10 * time.Millisecond, 10 * time.Millisecond, false, false},
		{"one far slower, process busy", 5 * time.Millisecond, 100 * time.Millisecond, 10 * time.Millisecond, true, false},
		{"all alike, process idle", 50 * time.Microsecond, 10 * time.Millisecond, 10 * time.Millisecond, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.view = r.view.with("f", func(s *pipeline.Subscription) { s.Concurrency = 1 })
			r.task.Update(r.now, r.view)
			for range 20 {
				r.deliver("e", "s", "f")
			}
			type flight struct {
				work  *Work
				begun time.Time
				ends  time.Time
			}
			var out []flight
			for step := 0; step < 15; step++ { // the first to end, one after another
				for w := r.sched.Next(r.now, anyShare); w != nil; w = r.sched.Next(r.now, anyShare) {
					takes := tt.fast
					if w.LaneKey() == "s" {
						takes = tt.slow
					}
					out = append(out, flight{w, r.now.Add(tt.late), r.now.Add(takes)})
				}
				slices.SortFunc(out, func(a, b flight) int { return a.ends.Compare(b.ends) })
				r.now = out[0].ends
				r.task.Done(r.now, out[0].work, &pipeline.Result{Outcome: pipeline.OutcomeSuccess, StartedAt: out[0].begun})
				out = out[1:]
			}
			r.sched.Next(r.now, anyShare)
			r.now = r.now.Add(time.Millisecond)
			for _, rec := range r.task.recs {
				if rec.nopen > 0 {
					r.task.relieveRecord(r.now, rec)
				}
			}
			if s, f := r.task.bySub["s"].parked, r.task.bySub["f"].parked; s > 0 != tt.parkS || f > 0 != tt.parkF {
				t.Errorf("parked %d of s and %d of f", s, f)
			}
		})
	}
}

// TestLanesHeldUpByOthersAreParked: where requests that are not answered hold the
// slots, what cold lanes keep in memory must not hold up their partition; lanes
// that succeeded of late are left alone.
func TestLanesHeldUpByOthersAreParked(t *testing.T) {
	r := newRig(t, func(c *Config, _ *pipeline.Subscription) { c.MaxRecords = 3 })
	r.view = r.view.with("good", func(*pipeline.Subscription) {})
	r.task.Update(r.now, r.view)
	r.deliver("", "good")
	r.send(0, pipeline.OutcomeSuccess)
	for range 3 {
		r.deliver("")
	}
	r.deliver("", "good")
	r.now = r.now.Add(2 * r.cfg.SlowAfter)
	r.task.Relieve(r.now)
	if st := r.task.Stats(); st.Parked != 0 {
		t.Fatalf("%d parked although nothing held up the lanes", st.Parked)
	}
	r.sched.HoldUpCold(true)
	r.task.Relieve(r.now)
	if st := r.task.Stats(); st.Parked != 3 || st.Queued != 1 || r.task.Full() {
		t.Fatalf("%d parked, %d queued, full %v: want 3, 1, false", st.Parked, st.Queued, r.task.Full())
	}
	if w := r.sched.Next(r.now, Shares{}); w == nil || w.Origin != 4 || w.Cold() {
		t.Fatalf("got %+v, want the work of the warm lane", w)
	}
	r.commit()
	if w := r.sched.Next(r.now, Shares{}); w != nil {
		t.Fatalf("work for %d of a cold lane", w.Origin)
	}
	for origin := int64(1); origin <= 3; origin++ {
		r.send(origin, pipeline.OutcomeSuccess)
	}
}

// TestALaneCoolsDownWhileItWaits: a success speaks for a lane for a while only.
func TestALaneCoolsDownWhileItWaits(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("")
	r.send(0, pipeline.OutcomeSuccess)
	r.deliver("")
	r.now = r.now.Add(warmFor)
	if w := r.sched.Next(r.now, Shares{}); w != nil {
		t.Fatalf("work for %d of a lane that is cold by now", w.Origin)
	}
	if w := r.next(1); !w.Cold() {
		t.Error("not marked as cold")
	}
}
