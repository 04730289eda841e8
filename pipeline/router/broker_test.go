package router

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
)

// TestOnlyBrokerKilled: routers of many groups, so that some are in the step in
// which a broker that comes back loses the end of their transaction, live through
// kills of their only broker: each event is routed, and once. In the full form
// only: it takes some minutes, and not every run has the fault (it says so).
func TestOnlyBrokerKilled(t *testing.T) {
	if os.Getenv("HOOKLINE_E2E_FULL") == "" {
		t.Skip("in the full form only: HOOKLINE_E2E_FULL=1")
	}
	const routers, kills = 16, 2
	kafka := testkit.Kafka(t, 1)
	type lane struct {
		*bench
		r     *Router
		topic string
	}
	var all []lane
	for i := range routers {
		b := &bench{t: t}
		topic := fmt.Sprintf("ev%d", i)
		b.connect(topic+"=json:type=/t,id=/id", fmt.Sprintf("r%d.", i), kafka.Addrs())
		b.topic(topic, 1)
		r, _ := b.start()
		all = append(all, lane{b, r, topic})
	}
	source := kafka.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	stop, sent := make(chan struct{}), 0
	var load sync.WaitGroup
	load.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond) // the pace of the load
		defer tick.Stop()
		for ; ; sent++ {
			select {
			case <-tick.C:
			case <-stop:
				return
			}
			for _, l := range all {
				source.Produce(t.Context(), event(l.topic, 0, fmt.Sprintf(`{"t":"a","id":"n%d"}`, sent)), nil)
			}
		}
	})
	for range kills {
		time.Sleep(5 * time.Second) // under load
		kafka.Kill9(1)
		time.Sleep(14 * time.Second) // longer than a session
		kafka.Start(1)
		stuck := map[int]bool{}
		for end := time.Now().Add(50 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			for i, l := range all {
				if l.r.Stuck() != "" {
					stuck[i] = true
				}
			}
		}
		t.Logf("%d of %d groups had offsets that hung", len(stuck), routers)
	}
	close(stop)
	load.Wait()
	if err := source.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		l.judgeOnce(l.topic, sent)
	}
}

// judgeOnce reads until n deliveries are there; the events n0 to n<n-1> must have
// one each.
func (b *bench) judgeOnce(topic string, n int) {
	b.t.Helper()
	deliveries := b.kafka.Topics().Deliveries()
	b.read(deliveries, n)
	got := map[string]int{}
	for _, rec := range b.all(deliveries) {
		env, _ := decode(b.t, rec)
		got[env.EventID]++
	}
	twice, lost := 0, 0
	for i := range n {
		switch got[fmt.Sprintf("n%d", i)] {
		case 0:
			lost++
		case 1:
		default:
			twice++
		}
	}
	if lost+twice > 0 {
		b.t.Errorf("%s: of %d events %d are lost and %d routed twice", topic, n, lost, twice)
	}
}
