package dispatch

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// stuck waits until the dispatcher says something with all of want in it, or with
// none nothing.
func (r *running) stuck(t *testing.T, want ...string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond) // there is no signal for it
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for {
		got := r.d.Stuck()
		ok := (got == "") == (len(want) == 0)
		for _, w := range want {
			ok = ok && strings.Contains(got, w)
		}
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("the dispatcher says %q, want %q", got, want)
		}
	}
}

func told(t *testing.T, said *logged, want ...string) {
	t.Helper()
	select {
	case got := <-said.ch:
		for _, w := range append(want, "since=", "remedy=", "find-hanging") {
			if !strings.Contains(got, w) {
				t.Errorf("logged %q, want %q in it", got, w)
			}
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was logged")
	}
}

// TestOffsetsThatStayUnstable: offsets of the group that wait for a transaction
// without an end keep their partition from being recovered, which is told of, in
// the log once in a while and by Stuck; after its end it goes on.
func TestOffsetsThatStayUnstable(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real Kafka")
	}
	t.Parallel()
	addrs := testkit.KafkaWith(t, 1, testkit.HangProperties).Addrs()
	b := newBench(t, addrs, 1, sub("a", nil))
	b.unstableLimit = 2 * time.Second
	said := &logged{text: "committed offsets wait", ch: make(chan string, 100)}
	b.log = slog.New(said)
	deliveries, group := b.kafka.Topics().Deliveries(), b.kafka.DispatcherGroup()
	b.event("a")
	testkit.HangOffset(t, addrs, group, group+".gone", deliveries, 1)
	began := time.Now()
	r := b.start(func(cfg *Config) { cfg.SessionTimeout = kafkax.Duration(6 * time.Second) })
	told(t, said, "group="+group, "partitions="+deliveries+"/0")
	r.stuck(t, deliveries+"/0", "recovering", "reading the committed offsets of group "+group)
	if n, most := 1+len(said.ch), 1+int(time.Since(began)/b.unstableLimit); n > most {
		t.Errorf("it was logged %d times in %v", n, time.Since(began))
	}
	if r.d.Ready() || b.ledger.successes() > 0 {
		t.Error("the partition was recovered from offsets that wait")
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.TransactionalID(group+".gone"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := kafkax.AbortHanging(t.Context(), cl, kafkax.Hanging{TxnID: group + ".gone", Group: group}); err != nil {
		t.Fatal(err)
	}
	b.ledger.await(t, "the delivery", func() bool { return b.ledger.successes() == 1 })
	r.stuck(t)
}

// TestRecordsThatAreHeld: records behind a transaction without an end are told of,
// also where nothing is recovered.
func TestRecordsThatAreHeld(t *testing.T) {
	t.Parallel()
	c := testkit.KFake(t)
	b := newBench(t, c.ListenAddrs(), 1, sub("a", nil))
	b.unstableLimit = time.Second
	said := &logged{text: "records wait", ch: make(chan string, 1)}
	b.log = slog.New(said)
	r := b.start(nil)
	b.event("a")
	b.ledger.await(t, "the first delivery", func() bool { return b.ledger.successes() == 1 })
	hanging, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.TransactionalID("hanging"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	if err := hanging.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	deliveries := b.kafka.Topics().Deliveries()
	if err := hanging.ProduceSync(t.Context(), &kgo.Record{Topic: deliveries, Value: []byte("{}")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	told(t, said, "group="+b.kafka.DispatcherGroup(), "partitions="+deliveries+"/0")
	r.stuck(t, "records wait since", deliveries+"/0")
	b.event("a")
	if err := hanging.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	b.ledger.await(t, "the delivery that was behind it", func() bool { return b.ledger.successes() == 2 })
	r.stuck(t)
}
