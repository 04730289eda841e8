package dispatch

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// With room for hardly any places in memory, parked deliveries are read again
// and again from Kafka, in order, and across a restart.
func TestParkedPlacesThatAreReadAgain(t *testing.T) {
	entity := func(s *pipeline.Subscription) { s.Ordering = pipeline.OrderingEntity }
	b := kfakeBench(t, 1, sub("s", nil), sub("e", entity))
	var up atomic.Bool
	b.ledger.setAnswer(func(string, int, int) (pipeline.Outcome, time.Duration) {
		if !up.Load() {
			return pipeline.OutcomeConnectError, 0
		}
		return pipeline.OutcomeSuccess, 0
	})
	few := func(c *Config) {
		c.MaxParkedOffsets = 3
		c.RetryDelays = append(c.RetryDelays[:0], c.RetryDelays[0]*20)
	}
	r := b.start(few)
	for range 300 {
		b.event("s", "e")
	}
	b.ledger.await(t, "the first failures", func() bool { return len(b.ledger.of("s")) > 0 && len(b.ledger.of("e")) > 2 })
	b.ledger.await(t, "parked", func() bool { return len(b.read(b.kafka.Topics().Parked())) >= 2*300-4 })
	r.stop(t)
	up.Store(true)
	b.start(few)
	b.ledger.await(t, "everything", func() bool { return b.ledger.successes() == 600 })
	b.ledger.checkOrder(t, pipeline.OrderingEntity, 4)
	b.checkOnce(t)
	if got := b.reasons(); len(got) != 0 {
		t.Errorf("dead: %v", got)
	}
}
