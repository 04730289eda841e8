package router

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// On real Kafka: two routers, one of which crashes before the end of its second
// transaction and is started again, while events arrive.
func TestExactlyOnceOnKafka(t *testing.T) {
	name := testkit.Unique(t, "ev")
	b := newKafkaBench(t, name+"=json:type=/t,id=/id", testkit.Unique(t, "router")+".")
	deliveries := b.kafka.Topics().Deliveries()
	b.topic(name, 4)
	send := func(from, to int) {
		var recs []*kgo.Record
		for i := from; i < to; i++ {
			recs = append(recs, event(name, int32(i%4), fmt.Sprintf(`{"t":"a","id":"n%d"}`, i)))
		}
		b.produce(recs...)
	}
	_, stop := b.start()
	send(0, 500)
	crash := b.deps
	n := 0
	crash.beforeEnd = func(context.Context) error {
		if n++; n == 2 {
			return errCrash
		}
		return nil
	}
	r, err := New(b.cfg, crash)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(b.ctx())
	defer cancel()
	go func() { done <- r.Run(ctx) }()
	events := 500
	for crashed := false; !crashed; events += 10 {
		send(events, events+10)
		select {
		case err := <-done:
			if crashed = true; !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
		case <-time.After(10 * time.Millisecond): // the pace of the load
		}
	}
	send(events, events+500)
	events += 500
	_, stop2 := b.start()
	b.read(deliveries, events)
	if err := errors.Join(stop(), stop2()); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, rec := range b.all(deliveries) {
		env, _ := decode(t, rec)
		got[env.EventID]++
	}
	for i := range events {
		if got[fmt.Sprintf("n%d", i)] != 1 {
			t.Errorf("event %d was routed %d times", i, got[fmt.Sprintf("n%d", i)])
		}
	}
}

func TestLatencyOnKafka(t *testing.T) {
	name := testkit.Unique(t, "ev")
	b := newKafkaBench(t, name+"=json:type=/t,id=/id", testkit.Unique(t, "router")+".")
	b.cfg.Interval = time.Second // must not matter to an idle router
	b.topic(name, 1)
	b.produce(event(name, 0, `{"t":"a"}`))
	r, _ := b.start()
	deliveries := b.kafka.Topics().Deliveries()
	b.read(deliveries, 1)
	fet := kafkax.NewFetcher(b.cl)
	p := kafkax.Partition("sub-0000", 6)
	next, err := fet.EndOffset(b.ctx(), deliveries, p)
	if err != nil {
		t.Fatal(err)
	}
	best := time.Hour // one that waits for its interval makes all of them wait, a busy machine some
	for range 3 {
		b.eventually("the router is idle", r.idle.Load)
		sleep(b.ctx(), 1100*time.Millisecond) // the interval passes
		began := time.Now()
		b.produce(event(name, 0, `{"t":"a"}`))
		for n := 0; n == 0; {
			recs, after, err := fet.At(b.ctx(), deliveries, p, next, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			n, next = len(recs), after
		}
		best = min(best, time.Since(began))
	}
	t.Logf("fastest of three: %v", best)
	if best > 900*time.Millisecond {
		t.Errorf("each event took %v or more through an idle router", best)
	}
}
