package router

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
	"github.com/hookline/hookline/pipeline/match"
)

// versioned is an index as of a version of the registry.
type versioned struct{ *match.Index }

func (versioned) Version() int64 { return 1 }

// routing is what the router does with an event, but for Kafka: parse, match and
// the records of deliveries, among n subscriptions of which ten take each event.
// Events of all types come in no order, so that little of what is known of the
// subscriptions is in the processor's caches where they are many.
func routing(tb testing.TB, n int) (step func(i int)) {
	tb.Helper()
	const fanOut, events = 10, 10_000
	subs := make([]*pipeline.Subscription, n)
	for i := range subs {
		subs[i] = &pipeline.Subscription{
			ID: fmt.Sprintf("%024x", i), Tenant: pipeline.AnyTenant, URL: fmt.Sprintf("https://r%d.example.com/hooks/in", i),
			Events: []string{fmt.Sprint("bench.", i/fanOut)}, Ordering: pipeline.OrderingSubscription, State: pipeline.StateActive,
		}
	}
	x := versioned{match.NewIndex(slices.Values(subs))}
	k := kafkax.DefaultConfig()
	var specs TopicSpecs
	if err := specs.UnmarshalText([]byte("a=json:type=/type,id=/id,entity=/id")); err != nil {
		tb.Fatal(err)
	}
	r, err := New(Config{EventsTopics: specs}, Deps{Kafka: &k, Matcher: func() Matcher { return x }, Cluster: "c1"})
	if err != nil {
		tb.Fatal(err)
	}
	b := newBatch(r)
	deliveries := 0
	b.matcher, b.produce = x, func(*kgo.Record) { deliveries++ }
	rnd := rand.New(rand.NewPCG(1, 2))
	recs := make([]*kgo.Record, events)
	for i := range recs {
		recs[i] = &kgo.Record{
			Topic: "a", Offset: int64(i), Timestamp: time.Now(),
			Value: fmt.Appendf(nil, `{"type":"bench.%d","id":"%d","data":%q}`, rnd.IntN(n/fanOut), i, strings.Repeat("x", 960)),
		}
	}
	return func(i int) {
		b.add(recs[i%events], &r.cfg.EventsTopics[0], [16]byte{1})
		if i%1000 == 999 {
			if deliveries < 1000 {
				tb.Fatalf("%d records for 1000 events", deliveries)
			}
			deliveries = 0
			b.reset(true)
		}
	}
}

// cpuTime of this process: on a machine that others keep busy it says more than
// the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRouting tells how the cost of an event grows with the number of
// subscriptions.
func BenchmarkRouting(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n, "-subscriptions"), func(b *testing.B) {
			step := routing(b, n)
			b.ReportAllocs()
			i, before := 0, cpuTime()
			for b.Loop() {
				step(i)
				i++
			}
			b.ReportMetric(float64(cpuTime()-before)/float64(i), "cpu-ns/op")
		})
	}
}
