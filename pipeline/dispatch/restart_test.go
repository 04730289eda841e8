package dispatch

import (
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// answering has every try end so.
func (b *bench) answering(o pipeline.Outcome) {
	b.ledger.setAnswer(func(string, int, int) (pipeline.Outcome, time.Duration) { return o, 0 })
}

// renew replaces the bench's client, which remembers topics that were.
func (b *bench) renew() {
	b.t.Helper()
	base, err := b.kafka.ClientOpts(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.cl, err = kgo.NewClient(append(base, kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(b.cl.Close)
}

// The embedded broker is started again after everything was retried, parked,
// delivered and deleted: work goes on.
func TestTheEmbeddedBrokerStartsAgainAfterHousekeeping(t *testing.T) {
	dir, port := t.TempDir(), testkit.FreePort(t)
	broker := func() *kfake.Cluster { return testkit.KFake(t, kfake.DataDir(dir), kfake.Ports(port)) }
	cluster := broker()
	b := newBench(t, []string{"127.0.0.1:" + strconv.Itoa(port)}, 1, sub("s", nil))
	topics := b.kafka.Topics()
	b.answering(pipeline.OutcomeResponseError)
	r := b.start(nil)
	for range 3 {
		b.event("s")
	}
	b.ledger.await(t, "two parked", func() bool { return len(b.read(topics.Parked())) >= 2 })
	b.answering(pipeline.OutcomeSuccess)
	b.ledger.await(t, "three", func() bool { return b.ledger.successes() == 3 })
	start := func(topic string) int64 {
		got, err := kadm.NewClient(b.cl).ListStartOffsets(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		o, _ := got.Lookup(topic, 0)
		return o.Offset
	}
	// What is needed is measured by the transaction after the question.
	b.ledger.await(t, "the deletions", func() bool {
		b.event("s")
		r.d.clean(t.Context())
		return start(topics.Retry(1)) > 0 && start(topics.Parked()) > 1
	})
	r.stop(t)
	if err := b.cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	cluster.Close()
	broker()
	b.renew()
	for _, topic := range []string{topics.Retry(1), topics.Parked()} {
		if start(topic) == 0 {
			t.Errorf("%s begins at 0 again", topic)
		}
	}
	b.answering(pipeline.OutcomeResponseError)
	r = b.start(nil)
	before := b.ledger.successes()
	b.event("s")
	b.ledger.await(t, "a try", func() bool { x := b.ledger.of("s"); return !x[len(x)-1].ok })
	b.answering(pipeline.OutcomeSuccess)
	b.ledger.await(t, "the one after the restart", func() bool { return b.ledger.successes() > before })
	r.stop(t)
}

// A retry topic that was made anew while a head waited in it: it is told, and the
// head is made again of its origin; what is new is not taken for what was.
func TestARetryTopicMadeAnew(t *testing.T) {
	b := newBench(t, testkit.KFake(t).ListenAddrs(), 1, sub("s", nil))
	topics := b.kafka.Topics()
	r := b.start(nil)
	b.answering(pipeline.OutcomeResponseError)
	b.event("s")
	b.ledger.await(t, "the second try", func() bool { return len(b.ledger.of("s")) >= 2 })
	b.answering(pipeline.OutcomeSuccess)
	b.ledger.await(t, "the first", func() bool { return b.ledger.successes() == 1 })
	r.stop(t)
	b.answering(pipeline.OutcomeResponseError)
	tries := len(b.ledger.of("s"))
	r = b.start(func(cfg *Config) {
		minute := kafkax.Duration(time.Minute)
		cfg.RetryDelays = []kafkax.Duration{minute, minute, minute}
	})
	b.event("s")
	b.ledger.await(t, "a head in retry.1", func() bool { return len(b.read(topics.Retry(1))) >= 2 && len(b.ledger.of("s")) > tries })
	r.stop(t)
	if _, err := kadm.NewClient(b.cl).DeleteTopics(t.Context(), topics.Retry(1)); err != nil {
		t.Fatal(err)
	}
	b.renew()
	if _, err := kafkax.EnsureTopics(t.Context(), kadm.NewClient(b.cl), &b.kafka); err != nil {
		t.Fatal(err)
	}
	counts, log := &missed{}, lines{}
	b.metrics, b.log = counts, slog.New(slog.NewTextHandler(&log, nil))
	r = b.start(nil)
	b.event("s")
	b.ledger.await(t, "the head's second failure", func() bool { return len(b.read(topics.Retry(2))) >= 1 })
	b.answering(pipeline.OutcomeSuccess)
	b.ledger.await(t, "all three", func() bool { return b.ledger.successes() == 3 })
	r.stop(t)
	if counts.of(topics.Retry(1)) == 0 || !strings.Contains(log.String(), "ends below what was read of it") {
		t.Errorf("it is not told: counted %d, logged %s", counts.of(topics.Retry(1)), log.String())
	}
	var got []int
	for _, x := range b.ledger.of("s") {
		if x.ok {
			got = append(got, x.seq)
		}
	}
	if jsonOf(got) != "[1,2,3]" && jsonOf(got) != "[0,1,2]" {
		t.Errorf("delivered %v, want each once and in order", got)
	}
}
