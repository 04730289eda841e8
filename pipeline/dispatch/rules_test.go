package dispatch

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// reasons counts the dead records by reason.
func (b *bench) reasons() map[pipeline.DeadReason]int {
	out := make(map[pipeline.DeadReason]int)
	for _, r := range b.read(b.kafka.Topics().Dead()) {
		d, err := kafkax.ParseDead(r)
		if err != nil {
			b.t.Fatal(err)
		}
		out[d.Reason]++
	}
	return out
}

func TestSlowEndpointDoesNotHoldThePartition(t *testing.T) {
	b := kfakeBench(t, 1, sub("slow", nil), sub("fast", nil))
	answer := make(chan struct{}) // of the slow one
	b.ledger.setAnswer(func(sub string, _, _ int) (pipeline.Outcome, time.Duration) {
		if sub == "slow" {
			<-answer
		}
		return pipeline.OutcomeSuccess, 0
	})
	b.start(func(c *Config) { c.MaxQueued, c.MaxRecords = 8, 16 })
	answers := sync.OnceFunc(func() { close(answer) })
	defer answers()
	for range 60 {
		b.event("slow", "fast")
	}
	b.ledger.await(t, "all of fast", func() bool { return len(b.ledger.of("fast")) == 60 })
	answers()
	b.ledger.await(t, "all of slow", func() bool { return b.ledger.successes() == 120 })
	b.ledger.checkOrder(t, pipeline.OrderingSubscription, 4)
	if n := len(b.ledger.of("slow")); n != 60 {
		t.Errorf("slow was sent %d requests, want 60", n)
	}
}

func TestEntitiesFailApart(t *testing.T) {
	b := kfakeBench(t, 1, sub("s", func(s *pipeline.Subscription) { s.Ordering = pipeline.OrderingEntity }))
	b.ledger.setAnswer(func(_ string, seq, _ int) (pipeline.Outcome, time.Duration) {
		if seq == 0 { // entity0
			return pipeline.OutcomeTimeout, 0
		}
		return pipeline.OutcomeSuccess, 0
	})
	r := b.start(nil)
	for range 30 {
		b.event("s")
	}
	b.ledger.await(t, "29 successes", func() bool { return b.ledger.successes() == 29 })
	b.ledger.checkOrder(t, pipeline.OrderingEntity, 4)
	r.stop(t)
	if got := b.reasons(); got[pipeline.DeadExhausted] != 1 {
		t.Errorf("dead: %v, want one exhausted", got)
	}
}

func TestWithoutOrderEachDeliveryIsItsOwn(t *testing.T) {
	b := kfakeBench(t, 1, sub("s", func(s *pipeline.Subscription) { s.Ordering, s.Concurrency = pipeline.OrderingNone, 4 }))
	b.ledger.setAnswer(func(_ string, seq, attempt int) (pipeline.Outcome, time.Duration) {
		if seq%3 == 0 && attempt < 3 {
			return pipeline.OutcomeConnectError, time.Millisecond
		}
		return pipeline.OutcomeSuccess, time.Millisecond
	})
	r := b.start(nil)
	for range 90 {
		b.event("s")
	}
	b.ledger.await(t, "90 successes", func() bool { return b.ledger.successes() == 90 })
	r.stop(t)
	if n := len(b.ledger.of("s")); n != 90+2*30 {
		t.Errorf("%d requests, want 150", n)
	}
}

func TestGoneDisables(t *testing.T) {
	b := kfakeBench(t, 1, sub("s", nil))
	b.ledger.setAnswer(func(string, int, int) (pipeline.Outcome, time.Duration) { return pipeline.OutcomeGone, 0 })
	adm, routed := kadm.NewClient(b.cl), kadm.Offsets{}
	routed.AddOffset("events", 1, 7, -1)
	if _, err := adm.CreateTopic(t.Context(), 2, -1, nil, "events"); err != nil {
		t.Fatal(err)
	}
	if err := adm.CommitAllOffsets(t.Context(), b.kafka.RouterGroup(), routed); err != nil {
		t.Fatal(err)
	}
	r := b.start(nil)
	for range 5 {
		b.event("s")
	}
	b.ledger.await(t, "5 dead records", func() bool { return len(b.read(b.kafka.Topics().Dead())) == 5 })
	r.stop(t)
	if n := len(b.ledger.of("s")); n != 1 {
		t.Errorf("%d requests after 410, want 1", n)
	}
	if got := b.reasons(); got[pipeline.DeadExhausted] != 1 || got[pipeline.DeadCancelled] != 4 {
		t.Errorf("dead: %v, want one exhausted and four cancelled", got)
	}
	states := b.read(b.kafka.Topics().Subscriptions())
	if len(states) != 1 || string(states[0].Key) != "s#state" || string(states[0].Value) != "gone/1 map[events:[-1 7]]" {
		t.Errorf("state records: %v", states)
	}
	cancelled := 0
	for _, a := range b.attempts() {
		if a.Outcome == pipeline.OutcomeCancelled && a.Attempt == 0 && a.Final {
			cancelled++
		}
	}
	if cancelled != 4 {
		t.Errorf("the log has %d cancelled rows, want 4", cancelled)
	}
}

func TestPauseHoldsAndDeleteCancels(t *testing.T) {
	b := kfakeBench(t, 1, sub("p", func(s *pipeline.Subscription) { s.State = pipeline.StatePaused }), sub("d", nil), sub("ok", nil))
	b.ledger.setAnswer(func(sub string, _, _ int) (pipeline.Outcome, time.Duration) {
		if sub == "d" {
			return pipeline.OutcomeResponseError, 0
		}
		return pipeline.OutcomeSuccess, 0
	})
	b.start(func(c *Config) { c.RetryDelays = []kafkax.Duration{kafkax.Duration(time.Minute)} }) // "d" is tried once
	for range 10 {
		b.event("p", "d", "ok")
	}
	b.ledger.await(t, "ok", func() bool { return len(b.ledger.of("ok")) == 10 && len(b.ledger.of("d")) == 1 })
	if n := len(b.ledger.of("p")); n != 0 {
		t.Errorf("%d requests to a paused subscription", n)
	}
	b.reg.put("d", nil)
	b.ledger.await(t, "10 cancelled", func() bool { return b.reasons()[pipeline.DeadCancelled] == 10 })
	b.reg.put("p", sub("p", nil))
	b.ledger.await(t, "p after resume", func() bool { return len(b.ledger.of("p")) == 10 })
	b.ledger.checkOrder(t, pipeline.OrderingSubscription, 4)
}

func TestLocalErrorSpendsNoAttempt(t *testing.T) {
	b := kfakeBench(t, 1, sub("s", nil))
	n := 0
	b.ledger.setAnswer(func(string, int, int) (pipeline.Outcome, time.Duration) {
		if n++; n == 1 {
			return pipeline.OutcomeLocalError, 0
		}
		return pipeline.OutcomeSuccess, 0
	})
	b.start(nil)
	b.event("s")
	b.ledger.await(t, "a success", func() bool { return b.ledger.successes() == 1 })
	if tries := b.ledger.of("s"); len(tries) != 2 || tries[1].attempt != 1 {
		t.Errorf("tries: %+v, want attempt 1 twice", tries)
	}
}

func TestHoldsUntilTheRegistryIsReadSoFar(t *testing.T) {
	b := kfakeBench(t, 1)
	b.start(nil)
	b.version = 1
	b.event("late")
	b.reg.put("late", sub("late", nil)) // version 1
	b.ledger.await(t, "the delivery", func() bool { return b.ledger.successes() == 1 })
	if got := b.reasons(); len(got) != 0 {
		t.Errorf("dead: %v, want none", got)
	}
}

// churn runs a load while members of the group come and go gracefully.
func churn(t *testing.T, b *bench, subs []string) {
	first := b.start(nil)
	produced := 0
	produce := func(n int) {
		for range n {
			b.event(subs...)
			produced += len(subs)
		}
	}
	produce(150)
	second := b.start(nil)
	b.ledger.await(t, "half", func() bool { return b.ledger.successes() > produced/2 })
	produce(150)
	third := b.start(nil)
	b.ledger.await(t, "half", func() bool { return b.ledger.successes() > produced/2 })
	produce(100)
	third.stop(t)
	first.stop(t)
	produce(50)
	b.ledger.await(t, "everything", func() bool { return b.ledger.successes() == produced })
	second.stop(t)
	b.ledger.checkOrder(t, pipeline.OrderingSubscription, 4)
	b.checkOnce(t)
}

// checkOnce checks that no delivery succeeded twice.
func (b *bench) checkOnce(t *testing.T) {
	t.Helper()
	b.ledger.mu.Lock()
	defer b.ledger.mu.Unlock()
	for k, n := range b.ledger.succeeded {
		if n > 1 {
			t.Errorf("%s was delivered %d times", k, n)
		}
	}
}

func churnSubs() (ids []string, subs []*pipeline.Subscription) {
	for i := range 12 {
		id := fmt.Sprint("s", i)
		ids, subs = append(ids, id), append(subs, sub(id, nil))
	}
	return ids, subs
}

func flaky(sub string, seq, attempt int) (pipeline.Outcome, time.Duration) {
	if sub == "s3" && seq%40 == 7 && attempt < 3 {
		return pipeline.OutcomeResponseError, time.Millisecond
	}
	return pipeline.OutcomeSuccess, 2 * time.Millisecond
}

func TestMembersComeAndGoWithoutDuplicates(t *testing.T) {
	ids, subs := churnSubs()
	b := kfakeBench(t, 6, subs...)
	b.ledger.setAnswer(flaky)
	churn(t, b, ids)
}

func TestMembersComeAndGoOnKafka(t *testing.T) {
	ids, subs := churnSubs()
	b := newBench(t, kafka.Get(t).Addrs(), 6, subs...)
	b.ledger.setAnswer(flaky)
	churn(t, b, ids)
}

// What changes while a retry waits holds for the retry: URL and secrets are those
// of the moment of each attempt.
func TestRetriesUseTheSubscriptionAsItIs(t *testing.T) {
	before, after := &pipeline.Signing{}, &pipeline.Signing{}
	b := newBench(t, testkit.KFake(t).ListenAddrs(), 1, sub("s", func(s *pipeline.Subscription) { s.Signing = before }))
	b.ledger.setAnswer(func(_ string, _, attempt int) (pipeline.Outcome, time.Duration) {
		if attempt == 3 {
			return pipeline.OutcomeSuccess, 0
		}
		b.reg.put("s", sub("s", func(s *pipeline.Subscription) { // while the attempt is under way
			s.URL, s.Signing, s.Revision = "http://127.0.0.1/moved", []*pipeline.Signing{before, after}[attempt-1], int64(attempt+1)
		}))
		return pipeline.OutcomeResponseError, 0
	})
	b.start(func(cfg *Config) {
		second := kafkax.Duration(time.Second)
		cfg.RetryDelays = []kafkax.Duration{second, second, second}
	})
	b.event("s")
	b.ledger.await(t, "the third attempt", func() bool { return len(b.ledger.of("s")) == 3 })
	got := b.ledger.of("s")
	if got[0].url != "http://127.0.0.1/s" || got[1].url != "http://127.0.0.1/moved" || got[1].signing != before {
		t.Errorf("the attempts went to %s and %s", got[0].url, got[1].url)
	}
	if got[2].signing != after {
		t.Error("the third attempt was signed with secrets that were replaced")
	}
	if got[2].attempt != 3 || !got[2].ok {
		t.Errorf("got %+v", got[2])
	}
}
