package format

import (
	"testing"

	"github.com/hookline/hookline/pipeline"
)

// budgets are the allocations that a format's event may cost: one for all of its
// strings, and one more for a splice or for attributes.
var budgets = map[string]float64{
	"cotalker_message": 1, "json_order": 1, "goflow_msg_created": 1, "goflow_resthook_called": 1,
	"signl4_201_resolved": 1, "signl4_302": 2, "task_TASK_EDITED": 1,
	"cloudevents_structured_by_topic": 1, "cloudevents_binary": 2,
}

func TestParseAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops pooled items at random")
	}
	n := 0
	for _, f := range fixtures(t) {
		budget, ok := budgets[f.name]
		if !ok {
			continue
		}
		n++
		o := mustOptions(t, f.options)
		var ev pipeline.Event
		got := testing.AllocsPerRun(200, func() {
			if err := Parse(&f.record, o, &position, &ev); err != nil {
				t.Error(err)
			}
		})
		if got > budget {
			t.Errorf("%s: %v allocations, want at most %v", f.name, got, budget)
		}
	}
	if n != len(budgets) {
		t.Errorf("%d fixtures of %d", n, len(budgets))
	}
}

func BenchmarkParse(b *testing.B) {
	for _, f := range fixtures(b) {
		if _, ok := budgets[f.name]; !ok {
			continue
		}
		b.Run(f.name, func(b *testing.B) { benchmark(b, &f.record, f.options) })
	}
	large := Record{Value: []byte(cotEvent)}
	b.Run("cotalker_1k", func(b *testing.B) { benchmark(b, &large, "cotalker") })
	b.Run("cotalker_1k_by_shape", func(b *testing.B) { benchmark(b, &large, "") })
	b.Run("json_1k", func(b *testing.B) {
		benchmark(b, &large, "json:type=/event,tenant=/company,entity=/data/_id,time=/createdAt")
	})
}

func benchmark(b *testing.B, rec *Record, options string) {
	o := mustOptions(b, options)
	var ev pipeline.Event
	b.ReportAllocs()
	b.SetBytes(int64(len(rec.Value)))
	for b.Loop() {
		if err := Parse(rec, o, &position, &ev); err != nil {
			b.Fatal(err)
		}
	}
}
