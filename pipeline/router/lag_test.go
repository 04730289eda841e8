package router

import (
	"fmt"
	"maps"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/kafkax"
)

// lags is a Metrics that keeps what was set last.
type lags struct {
	noMetrics
	set map[string]int64
}

func (l *lags) KafkaLag(topic string, records int64) { l.set[topic] = records }

// TestLagIsWhatIsNotRouted: the lag of a topic is what lies behind the committed
// offsets of our partitions alone, and 0 when they have gone to another process.
func TestLagIsWhatIsNotRouted(t *testing.T) {
	b := newBench(t, "a=json;b=json")
	b.topic("a", 3)
	b.topic("b", 1)
	for n, r := range []*kgo.Record{event("a", 0, "{}"), event("a", 1, "{}"), event("a", 2, "{}"), event("b", 0, "{}")} {
		for range 4 + n { // 4, 5 and 6 records in a, 7 in b
			again := *r
			b.produce(&again)
		}
	}
	m := &lags{set: map[string]int64{}}
	b.deps.Metrics = m
	r, err := New(b.cfg, b.deps)
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	at := func(offset int64) kgo.EpochOffset { return kgo.EpochOffset{Offset: offset} }
	for _, step := range []struct {
		at   map[string]map[int32]kgo.EpochOffset
		want map[string]int64
	}{
		// Partition 2 of a is another's; of partition 1 nothing is committed yet.
		{map[string]map[int32]kgo.EpochOffset{"a": {0: at(1), 1: at(-1)}, "b": {0: at(0)}}, map[string]int64{"a": 3, "b": 7}},
		{map[string]map[int32]kgo.EpochOffset{"a": {0: at(2), 1: at(1)}, "b": {0: at(7)}}, map[string]int64{"a": 6, "b": 0}},
		{map[string]map[int32]kgo.EpochOffset{"b": {0: at(9)}}, map[string]int64{"a": 0, "b": 0}}, // beyond the end: never less than 0
		{nil, map[string]int64{"a": 0, "b": 0}},
	} {
		if err := r.reportLag(b.ctx(), kafkax.NewFetcher(b.cl), step.at, told); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(m.set, step.want) {
			t.Errorf("at %s: lags %v, want %v", fmt.Sprint(step.at), m.set, step.want)
		}
	}
}
