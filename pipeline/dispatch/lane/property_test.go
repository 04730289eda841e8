package lane

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestProtocol: many short lives of a task, each repeatable by its seed.
// HOOKLINE_TEST_SEEDS=first:number runs others.
func TestProtocol(t *testing.T) {
	first, n := uint64(1), uint64(20_000)
	if testing.Short() {
		n = 500
	}
	if s := os.Getenv("HOOKLINE_TEST_SEEDS"); s != "" {
		if _, err := fmt.Sscanf(s, "%d:%d", &first, &n); err != nil {
			t.Fatalf("HOOKLINE_TEST_SEEDS: %q: want first:number: %v", s, err)
		}
	}
	runSeeds(t, first, n)
}

// TestProtocolShrunk is the same with a source that rapid can make smaller.
func TestProtocolShrunk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &sim{}
		s.init(drawn{t}, t.Fatalf)
		s.run(80)
	})
}

// runSeeds runs n simulations; one that fails is run again with a trace.
func runSeeds(t *testing.T, first, n uint64) {
	t.Helper()
	for seed := first; seed < first+n; seed++ {
		if err, _ := runSeed(seed, false); err != "" {
			again, trace := runSeed(seed, true)
			if again != err {
				trace = append(trace, "run again: "+again)
			}
			t.Fatalf("%s\nseed %d: %s", strings.Join(trace[max(0, len(trace)-traceLines):], "\n"), seed, err)
		}
	}
}

// traceLines is how much of a failed run is shown.
const traceLines = 150

func runSeed(seed uint64, traced bool) (failure string, trace []string) {
	s := &sim{traced: traced}
	defer func() {
		if p := recover(); p != nil {
			failure, trace = fmt.Sprintf("step %d: %v", s.step, p), s.trace
		}
	}()
	s.init(newSeeded(seed), func(format string, args ...any) { panic(fmt.Sprintf(format, args...)) })
	s.run(60 + s.rnd.intn(300))
	return "", s.trace
}
