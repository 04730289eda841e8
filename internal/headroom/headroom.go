// Package headroom keeps the heap of a process with much in it from doubling
// before it is collected.
//
// Go's collector lets the heap grow by as much again as was in use after the last
// collection (GOGC=100). So it is here, too, while the heap stays within Whole
// with that: a process with few subscriptions at full speed. One with very many
// has mostly subscriptions in use, which do not change: 250 MiB of them do not need
// 250 MiB more for the garbage of requests. Its heap stays at Whole, until little is
// left beside what is in use: each collection looks at all of that, so that with a
// fixed amount to grow by the process would in the end do nothing else. The amount at
// which memory and time together cost the least grows with the square root of what
// is in use (Kirisame, Shenoy, Panchekha: "Optimal heap limits for reducing browser
// memory use", OOPSLA 2022). From three quarters of Whole on it is that: 88 MiB with
// 264 in use.
package headroom

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// Whole is the heap, in bytes, up to which the collector is left as it is. The
// process has some 60 MiB besides: its own pages, stacks, and what the heap's pages
// have room for. Measured: see docs/performance.md.
const Whole = 352 << 20

const (
	// usual is Go's own GOGC.
	usual = 100
	// least bounds how much of the time goes into collections where the live heap
	// is larger than is foreseen: it is reached at 734 MiB in use.
	least = 20
	// step is the least change that is made, in percent of the live heap: each one
	// stops the process for some ten microseconds.
	step = 3
)

// Bound begins to set the collector's percentage after each collection, until
// stop is called, which sets it back. It does nothing where the operator said in
// the environment what it is to be (GOGC). GOMEMLIMIT stays in force beside it.
// Call it at most once at a time: the percentage is the process's.
func Bound() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	return bound(Whole)
}

func bound(whole uint64) (stop func()) {
	b := &bounder{whole: whole, percent: usual}
	b.watch()
	return func() {
		if !b.stopped.Swap(true) {
			debug.SetGCPercent(usual)
		}
	}
}

type bounder struct {
	whole   uint64
	percent int // as it was set last; of the runtime's one goroutine for cleanups
	stopped atomic.Bool
}

// watched is an object that nobody has: the next collection frees it. It has a
// pointer, so that the runtime gives it memory of its own.
type watched struct{ _ *bounder }

// watch has adjust called after the next collection.
func (b *bounder) watch() {
	runtime.SetFinalizer(&watched{b}, func(*watched) {
		if !b.stopped.Load() {
			b.adjust()
			b.watch()
		}
	})
}

func (b *bounder) adjust() {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return // not in this version of Go
	}
	want := percent(sample[0].Value.Uint64(), b.whole)
	if diff := want - b.percent; diff != 0 && (max(diff, -diff) >= step || want == usual) {
		b.percent = want
		debug.SetGCPercent(want)
	}
}

// percent of a live heap, in bytes, by which it may grow.
func percent(live, whole uint64) int {
	if 2*live <= whole {
		return usual
	}
	// A quarter of whole beside three of them, and from there on by the root.
	room := float64(whole) / 4 * math.Sqrt(float64(live)/(float64(whole)/4*3))
	if live < whole {
		room = max(room, float64(whole-live))
	}
	return max(least, int(usual*room/float64(live)))
}
