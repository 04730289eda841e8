package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// logged passes the messages on that have a text in them.
type logged struct {
	slog.Handler
	text string
	ch   chan string
}

func (h *logged) Enabled(context.Context, slog.Level) bool { return true }

func (h *logged) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, h.text) {
		var b strings.Builder
		r.Attrs(func(a slog.Attr) bool { b.WriteString(a.String() + " "); return true })
		select {
		case h.ch <- b.String():
		default:
		}
	}
	return nil
}

func (h *logged) WithAttrs([]slog.Attr) slog.Handler { return h }

// TestHangingTransaction: transactions that never end hold up the recovery of
// their partitions, which is told of, and of no other partition, though there are
// as many of them as are recovered at once. Found with a broker that was stopped
// and came back with such transactions.
func TestHangingTransaction(t *testing.T) {
	t.Parallel()
	c := testkit.KFake(t)
	b := newBench(t, c.ListenAddrs(), recoveriesAtOnce+1, sub("a", nil))
	mine := kafkax.Partition("a", recoveriesAtOnce+1)
	hanging, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.TransactionalID("hanging"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	if err := hanging.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for p := range int32(recoveriesAtOnce + 1) {
		if p == mine {
			continue
		}
		rec := &kgo.Record{Topic: b.kafka.Topics().Lanes(), Partition: p, Key: []byte("nobody"), Value: []byte("nothing")}
		if err := hanging.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	said := &logged{text: "recovering a partition takes long", ch: make(chan string, 1)}
	b.log = slog.New(said)
	b.start(func(cfg *Config) { cfg.SessionTimeout = kafkax.Duration(time.Second) })
	b.event("a")
	b.ledger.await(t, "the delivery of the partition that can be recovered", func() bool { return b.ledger.successes() == 1 })
	if got := <-said.ch; !strings.Contains(got, "lanes") || !strings.Contains(got, "find-hanging") {
		t.Errorf("said %q, want the step and the remedy", got)
	}
	if err := hanging.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
}

// TestStopWhileItStarts: a dispatcher that is told to stop while Kafka does not
// let it begin, does.
func TestStopWhileItStarts(t *testing.T) {
	t.Parallel()
	c := testkit.KFake(t)
	b := newBench(t, c.ListenAddrs(), 1, sub("a", nil))
	asked, release := make(chan struct{}, 1), make(chan struct{})
	c.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		select {
		case asked <- struct{}{}:
		default:
		}
		c.SleepControl(func() { <-release })
		return nil, nil, false
	})
	r := b.start(nil)
	<-asked
	r.cancel()
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
		close(r.done)
	case <-time.After(20 * time.Second):
		t.Error("it has not ended within 20 s")
	}
	close(release)
}

// TestKafkaGoesAwayWhileItStarts: a dispatcher that Kafka leaves in the moment in
// which it begins waits for it, as it does later.
func TestKafkaGoesAwayWhileItStarts(t *testing.T) {
	t.Parallel()
	c := testkit.KFake(t)
	b := newBench(t, c.ListenAddrs(), 1, sub("a", nil))
	const refusals = 30
	var refused atomic.Int64
	c.ControlKey(int16(kmsg.DescribeTransactions), func(kmsg.Request) (kmsg.Response, error, bool) {
		// From here on connections are closed before they are of any use.
		c.ControlKey(int16(kmsg.ApiVersions), func(kmsg.Request) (kmsg.Response, error, bool) {
			if refused.Add(1) > refusals {
				return nil, nil, false
			}
			c.KeepControl()
			return nil, errors.New("away"), true
		})
		return nil, errors.New("away"), true
	})
	b.start(nil)
	b.event("a")
	b.ledger.await(t, "the delivery", func() bool { return b.ledger.successes() == 1 })
	if refused.Load() <= refusals {
		t.Errorf("Kafka was away for %d connections only", refused.Load())
	}
}
