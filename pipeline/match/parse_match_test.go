package match

import (
	"os"
	"slices"
	"testing"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format"
)

// parseAndMatch is what the router does with each event before it knows whether
// anybody takes it: among 100,000 subscriptions, with three takers.
func parseAndMatch(tb testing.TB) func() int {
	tb.Helper()
	value, err := os.ReadFile("testdata/event_1k.json")
	if err != nil {
		tb.Fatal(err)
	}
	subs := crowd(100_000)
	for _, s := range subs[:4] {
		s.Tenant = "625bcbdcc9a8e3a86dbf041c"
	}
	x := NewIndex(slices.Values(subs))
	rec := format.Record{Value: value}
	opts := format.TopicOptions{Format: pipeline.FormatCotalker}
	src := pipeline.Position{Cluster: "MkU3OEVBNTcwNTJENDM2Qg", Topic: "cotalker.events", Partition: 3, Offset: 123456}
	var ev pipeline.Event
	var dst []*pipeline.Subscription
	return func() int {
		if err := format.Parse(&rec, &opts, &src, &ev); err != nil {
			tb.Fatal(err)
		}
		dst = x.Match(&ev, dst[:0])
		return len(dst)
	}
}

func BenchmarkParseAndMatch(b *testing.B) {
	step := parseAndMatch(b)
	b.ReportAllocs()
	for b.Loop() {
		if step() != 3 {
			b.Fatal("not three takers")
		}
	}
}

func TestParseAndMatchAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops pooled items at random")
	}
	step := parseAndMatch(t)
	if n := testing.AllocsPerRun(200, func() { step() }); n > 2 {
		t.Errorf("%v allocations, want at most 2", n)
	}
}
