package kafkax_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/internal/testkit"
)

var shared = testkit.SharedKafka{Brokers: 1}

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		shared.Close()
		os.Exit(code)
	}))
}

// onEach runs a test against kfake and against real Kafka (not with -short).
func onEach(t *testing.T, test func(t *testing.T, addrs []string)) {
	t.Helper()
	t.Run("kfake", func(t *testing.T) { test(t, testkit.KFake(t, kfake.NumBrokers(1)).ListenAddrs()) })
	t.Run("kafka", func(t *testing.T) {
		if testing.Short() {
			t.Skip("starts real Kafka")
		}
		test(t, shared.Get(t).Addrs())
	})
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func client(t *testing.T, addrs []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	opts = append([]kgo.Opt{
		kgo.SeedBrokers(addrs...), kgo.MetadataMinAge(20 * time.Millisecond), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ConcurrentTransactionsBackoff(4 * time.Millisecond),
	}, opts...)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// topic makes a topic of one partition.
func topic(t *testing.T, cl *kgo.Client, name string, configs map[string]*string) string {
	t.Helper()
	name = testkit.Unique(t, name)
	if _, err := kadm.NewClient(cl).CreateTopic(within(t), 1, 1, configs, name); err != nil {
		t.Fatal(err)
	}
	// Leaders are known a moment after a real broker says that a topic is made.
	for ctx := within(t); ; {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: name, Value: []byte("0")}).FirstErr(); err == nil {
			return name
		} else if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func produce(t *testing.T, cl *kgo.Client, topic string, values ...string) {
	t.Helper()
	var recs []*kgo.Record
	for _, v := range values {
		recs = append(recs, &kgo.Record{Topic: topic, Key: []byte("k" + v), Value: []byte(v)})
	}
	if err := cl.ProduceSync(within(t), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func begin(t *testing.T, cl *kgo.Client) {
	t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
}

func end(t *testing.T, cl *kgo.Client, how kgo.TransactionEndTry) {
	t.Helper()
	if err := cl.EndTransaction(within(t), how); err != nil {
		t.Fatal(err)
	}
}
