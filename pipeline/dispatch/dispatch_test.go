package dispatch

import (
	"strconv"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

func kfakeBench(t *testing.T, partitions int32, subs ...*pipeline.Subscription) *bench {
	t.Helper()
	return newBench(t, testkit.KFake(t).ListenAddrs(), partitions, subs...)
}

func TestDeliversInOrder(t *testing.T) {
	b := kfakeBench(t, 2, sub("a", nil), sub("b", nil), sub("c", nil))
	r := b.start(nil)
	for range 200 {
		b.event("a", "b", "c")
	}
	b.ledger.await(t, "600 successes", func() bool { return b.ledger.successes() == 600 })
	b.ledger.checkOrder(t, pipeline.OrderingSubscription, 4)
	r.stop(t)
	attempts := b.attempts()
	if len(attempts) != 600 {
		t.Errorf("the log has %d attempts, want 600", len(attempts))
	}
	for _, a := range attempts { // what the sender says of a request, not what the payload is
		if seq := strconv.FormatInt(a.Envelope.Source.Offset, 10); a.AckID != seq || a.RequestBytes != 1000+len(seq) {
			t.Fatalf("attempt of event %s: acknowledged %q, %d bytes", seq, a.AckID, a.RequestBytes)
		}
	}
}

func TestFourAttemptsThenDead(t *testing.T) {
	b := kfakeBench(t, 1, sub("bad", nil), sub("good", nil))
	b.ledger.setAnswer(func(sub string, seq, attempt int) (pipeline.Outcome, time.Duration) {
		if sub == "bad" && seq == 0 {
			return pipeline.OutcomeResponseError, 0
		}
		return pipeline.OutcomeSuccess, 0
	})
	r := b.start(nil)
	for range 20 {
		b.event("bad", "good")
	}
	b.ledger.await(t, "39 successes", func() bool { return b.ledger.successes() == 39 })
	b.ledger.checkOrder(t, pipeline.OrderingSubscription, 4)
	r.stop(t)
	bad := b.ledger.of("bad")
	for i := range 4 {
		if bad[i].seq != 0 || bad[i].attempt != i+1 {
			t.Fatalf("try %d was attempt %d of event %d", i, bad[i].attempt, bad[i].seq)
		}
		if i > 0 && bad[i].begun.Sub(bad[i-1].ended) < testDelay {
			t.Errorf("attempt %d came %v after the one before, want at least %v", i+1, bad[i].begun.Sub(bad[i-1].ended), testDelay)
		}
	}
	dead := b.read(b.kafka.Topics().Dead())
	if len(dead) != 1 {
		t.Fatalf("%d dead records, want 1", len(dead))
	}
	d, err := kafkax.ParseDead(dead[0])
	if err != nil || d.Reason != pipeline.DeadExhausted || d.Attempts != 4 || string(d.Payload) != "0" {
		t.Errorf("dead record %s, %v", jsonOf(d), err)
	}
}
