package headroom

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestPercent(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		live uint64
		want int
	}{
		{0, 100},
		{64 * mib, 100},
		{176 * mib, 100},
		{200 * mib, 76}, // 352 MiB
		{250 * mib, 40}, // 352 MiB
		{264 * mib, 33}, // 88 MiB: 352
		{400 * mib, 27}, // 108 MiB
		{734 * mib, 20},
		{64 << 30, 20},
	} {
		if got := percent(c.live, 352*mib); got != c.want {
			t.Errorf("a live heap of %d MiB may grow by %d %%, want %d", c.live/mib, got, c.want)
		}
	}
}

// gogc is the percentage in force.
func gogc() int {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}

// collected has a collection made, and waits until what follows it has been done.
func collected(t *testing.T) {
	t.Helper()
	for range 2 { // the second one's finalizers follow all of the first one's
		done := make(chan struct{})
		runtime.SetFinalizer(&watched{}, func(*watched) { close(done) })
		runtime.GC()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("a finalizer did not run")
		}
	}
}

func TestBoundFollowsTheLiveHeap(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(usual))
	const whole = 24 << 20
	stop := bound(whole)
	defer stop()
	held := make([]byte, 10*whole)
	collected(t)
	if got := gogc(); got < least || got > 25 { // with what the test itself has in use
		t.Errorf("with ten times the heap in use that it is to have the heap may grow by %d %%, want %d", got, least)
	}
	runtime.KeepAlive(held)
	held = make([]byte, whole/3*2)
	collected(t)
	if got := gogc(); got < 30 || got > 50 {
		t.Errorf("with two thirds in use of the heap that it is to have, and some more, the heap may grow by %d %%, want somewhat less than 50", got)
	}
	runtime.KeepAlive(held)
	stop()
	if got := gogc(); got != usual {
		t.Errorf("after stop the heap may grow by %d %%, want %d", got, usual)
	}
	collected(t)
	if got := gogc(); got != usual {
		t.Errorf("a collection after stop set %d %%", got)
	}
}

func TestBoundLeavesTheOperatorsChoice(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(77))
	t.Setenv("GOGC", "77")
	stop := Bound()
	held := make([]byte, Whole)
	collected(t)
	stop()
	if got := gogc(); got != 77 {
		t.Errorf("the heap may grow by %d %%, want the operator's 77", got)
	}
	runtime.KeepAlive(held)
}
