package router

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
)

// TestOnlyBrokerKilled: routers of many groups, so that some are in the step in
// which a broker that comes back loses the end of their transaction, live through
// kills of their only broker: each event is routed, and once. In the full form
// only: it takes some minutes, and not every run has the fault (it says so).
func TestOnlyBrokerKilled(t *testing.T) {
	x := newFalls(t)
	stop := x.load(t)
	for range falls {
		time.Sleep(5 * time.Second) // under load
		x.kafka.Kill9(1)
		time.Sleep(14 * time.Second) // longer than a session
		x.kafka.Start(1)
		stuck := map[int]bool{}
		for end := time.Now().Add(50 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			for i, l := range x.lanes {
				if l.r.Stuck() != "" {
					stuck[i] = true
				}
			}
		}
		t.Logf("%d of %d groups had offsets that hung", len(stuck), len(x.lanes))
	}
	stop()
	x.judge(t)
}

// TestOnlyBrokerKilledWithItsRouters: the same, but nobody who knows what was under way
// is there when the broker comes back: each group has another router then.
func TestOnlyBrokerKilledWithItsRouters(t *testing.T) {
	x := newFalls(t)
	stop := x.load(t)
	for range falls {
		time.Sleep(5 * time.Second) // under load
		x.kafka.Kill9(1)
		for _, l := range x.lanes {
			_ = l.stop() // it cannot say anything to anybody
		}
		time.Sleep(10 * time.Second) // longer than a session
		x.kafka.Start(1)
		for _, l := range x.lanes {
			l.r, l.stop = l.start()
		}
		time.Sleep(30 * time.Second) // what hangs is mended after 25 s
		t.Logf("%d of %d groups had been routed ahead of their offsets", strings.Count(x.log.String(), aheadOfOffsets), len(x.lanes))
	}
	stop()
	x.judge(t)
}

const falls = 2

// fallen is one group of TestOnlyBrokerKilled.
type fallen struct {
	*bench
	r     *Router
	stop  func() error
	topic string
}

type fallsOf struct {
	kafka *testkit.KafkaCluster
	lanes []*fallen
	sent  int
	log   syncBuffer
}

func newFalls(t *testing.T) *fallsOf {
	t.Helper()
	if os.Getenv("HOOKLINE_E2E_FULL") == "" {
		t.Skip("in the full form only: HOOKLINE_E2E_FULL=1")
	}
	const routers = 16
	x := &fallsOf{kafka: testkit.Kafka(t, 1)}
	for i := range routers {
		l := &fallen{bench: &bench{t: t}, topic: fmt.Sprintf("ev%d", i)}
		l.connect(l.topic+"=json:type=/t,id=/id", fmt.Sprintf("r%d.", i), x.kafka.Addrs())
		all := &index{subs: map[string][]*pipeline.Subscription{"all": subs(60)}} // some in each partition
		l.deps.Matcher = func() Matcher { return all }
		l.deps.Log = slog.New(slog.NewTextHandler(&x.log, nil))
		l.bench.topic(l.topic, 1)
		l.r, l.stop = l.start()
		x.lanes = append(x.lanes, l)
	}
	return x
}

// load produces an event to each topic every 20 ms until stop is called.
func (x *fallsOf) load(t *testing.T) (stop func()) {
	t.Helper()
	source := x.kafka.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	over := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond) // the pace of the load
		defer tick.Stop()
		for ; ; x.sent++ {
			select {
			case <-tick.C:
			case <-over:
				return
			}
			for _, l := range x.lanes {
				source.Produce(t.Context(), event(l.topic, 0, fmt.Sprintf(`{"t":"all","id":"n%d"}`, x.sent)), nil)
			}
		}
	})
	return func() {
		close(over)
		load.Wait()
		if err := source.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func (x *fallsOf) judge(t *testing.T) {
	t.Helper()
	for _, l := range x.lanes {
		l.judgeOnce(l.topic, x.sent)
	}
}

// judgeOnce reads until n events are there in each partition; the events n0 to n<n-1>
// must be there once.
func (b *bench) judgeOnce(topic string, n int) {
	b.t.Helper()
	deliveries := b.kafka.Topics().Deliveries()
	b.read(deliveries, n*int(b.kafka.Partitions))
	got := map[string]int{}
	for _, rec := range b.all(deliveries) {
		env, _ := decode(b.t, rec)
		got[fmt.Sprint(env.EventID, "/", rec.Partition)]++
	}
	twice, lost := 0, 0
	for i := range n {
		for p := range b.kafka.Partitions {
			switch got[fmt.Sprintf("n%d/%d", i, p)] {
			case 0:
				lost++
			case 1:
			default:
				twice++
			}
		}
	}
	if lost+twice > 0 {
		b.t.Errorf("%s: of %d events' parts %d are lost and %d routed twice", topic, n, lost, twice)
	}
}
