package dispatch

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// TestWhatKafkaAbortedAfterItsCommitIsWrittenAgain: of two transactions that the
// dispatcher takes for its own and committed, Kafka has aborted one. That is written
// again, once; the tasks begin anew and repeat nothing.
func TestWhatKafkaAbortedAfterItsCommitIsWrittenAgain(t *testing.T) {
	t.Parallel()
	c := testkit.KFake(t)
	b := newBench(t, c.ListenAddrs(), 1, sub("a", nil))
	r := b.start(nil)
	b.event("a")
	b.ledger.await(t, "the first delivery", func() bool { return b.ledger.successes() == 1 })
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.TransactionalID("as the dispatcher's"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	dead := b.kafka.Topics().Dead()
	write := func(end kgo.TransactionEndTry, topic, value string) []kafkax.Span {
		t.Helper()
		rec := &kgo.Record{Topic: topic, Value: []byte(value)}
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
		return kafkax.Spans(slices.Values([]*kgo.Record{rec}))
	}
	spans := slices.Concat(write(kgo.TryAbort, dead, "lost"), write(kgo.TryCommit, b.kafka.Topics().Notices(), "is there"))
	noted := func() (ok bool) {
		r.d.call(func() {
			if ok = r.d.commit == nil && len(r.d.written.by) > 0; ok { // nobody else has it
				r.d.written.Note(time.Now(), spans)
				r.d.written.failed = true // as after a transaction that failed
				r.d.suspect.Store(true)
			}
		})
		return ok
	}
	b.ledger.await(t, "nothing is committed at the moment", noted)
	b.ledger.await(t, "what was lost is there", func() bool { return len(b.read(dead)) > 0 })
	b.ledger.await(t, "the tasks have begun anew", func() bool { return r.d.parked.doubts.Load() == 0 && r.d.Ready() })
	b.event("a")
	b.ledger.await(t, "the second delivery", func() bool { return b.ledger.successes() >= 2 })
	r.stop(t)
	if got := b.read(dead); len(got) != 1 || string(got[0].Value) != "lost" {
		t.Errorf("%d records in %s", len(got), dead)
	}
	if got := b.read(b.kafka.Topics().Notices()); len(got) != 1 {
		t.Errorf("%d notices", len(got))
	}
	if n := b.ledger.successes(); n != 2 {
		t.Errorf("%d requests for 2 deliveries", n)
	}
}

// gappedLog is a partition that has no record at the offset that is asked for.
type gappedLog struct{}

func (gappedLog) At(_ context.Context, _ string, _ int32, offset int64, _ int32) ([]*kgo.Record, int64, error) {
	return []*kgo.Record{{Topic: "parked", Offset: offset + 1}}, offset + 2, nil
}

// TestMissingWhileInDoubt: what is not where it was parked ends as unreadable, but not
// while a transaction has failed, since it may be written again.
func TestMissingWhileInDoubt(t *testing.T) {
	c := newParkedCache(gappedLog{}, "parked")
	for _, doubts := range []int32{0, 1} {
		c.doubts.Store(doubts)
		_, err := c.get(t.Context(), 0, "s", 7, false)
		if _, unreadable := errors.AsType[*unreadableError](err); err == nil || unreadable != (doubts == 0) {
			t.Errorf("with %d doubts: %v", doubts, err)
		}
	}
}
