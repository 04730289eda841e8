package lane

import (
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// TestParkedMemory holds what a million parked deliveries of one task take, as
// rebuilt after a crash: in few lanes, in many, and with all of their places in
// memory.
func TestParkedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	const deliveries, limit = 1_000_000, 300 << 20
	for name, c := range map[string]struct{ lanes, places int }{
		"10 lanes":                   {10, DefaultConfig().MaxParkedOffsets},
		"10 lanes, all in memory":    {10, deliveries},
		"100,000 lanes":              {100_000, DefaultConfig().MaxParkedOffsets},
		"a lane for each of 200,000": {200_000, deliveries},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.MaxParkedOffsets = c.places
			view := &simRegistry{subs: map[string]*pipeline.Subscription{"s": newSubscription("s")}}
			view.subs["s"].State = pipeline.StatePaused
			keys := make([]string, c.lanes)
			for i := range keys {
				keys[i] = "s/e/entity-" + strconv.Itoa(i)
			}
			before := heapBytes()
			r := NewRecovery(0, &cfg)
			for _, key := range keys {
				if err := r.Lane(key, []byte(`{"v":1,"next":0,"from":0}`)); err != nil {
					t.Fatal(err)
				}
			}
			now := time.Now()
			for i := range deliveries {
				r.Parked(int64(i), keys[i%c.lanes], int64(i), 0, 0, time.Time{}, now)
			}
			task := r.Task(now, Start{Subs: view, Scheduler: &Scheduler{}, ParkedEnd: deliveries})
			used := heapBytes() - before
			t.Logf("%d MiB, %d places", used>>20, task.parkedRefs)
			if st := task.Stats(); st.Parked != deliveries || used > limit {
				t.Errorf("%d MiB for %d, at most %d", used>>20, st.Parked, limit>>20)
			}
			if most := max(c.places, c.lanes); task.parkedRefs > most+c.lanes {
				t.Errorf("%d places in memory, at most %d", task.parkedRefs, most)
			}
			runtime.KeepAlive(keys)
		})
	}
}

func heapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
