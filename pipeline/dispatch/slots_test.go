package dispatch

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
)

// TestSlots takes and releases at random: the counts are those of the jobs, and
// only as many leave their slots as may.
func TestSlots(t *testing.T) {
	cfg := &Config{MaxInFlight: 8, MaxSlow: 5, FailingShare: 25}
	var s slots
	s.init(cfg)
	rng := rand.New(rand.NewPCG(1, 2))
	now := time.Unix(1000, 0)
	var under []*job
	for range 20_000 {
		switch now = now.Add(time.Duration(rng.IntN(100)) * time.Millisecond); {
		case rng.IntN(2) == 0 && s.free():
			j := &job{work: &lane.Work{}}
			s.take(now, j)
			under = append(under, j)
		case len(under) > 0 && rng.IntN(3) == 0:
			i := rng.IntN(len(under))
			s.release(under[i])
			under = append(under[:i], under[i+1:]...)
		default:
			s.age(now)
		}
		slow := 0
		for _, j := range under {
			if j.slow {
				slow++
			}
			if !j.slow && s.slow < cfg.MaxSlow && now.Sub(j.began) > 40*slowRequest {
				t.Fatalf("a request of %s is still in its slot", now.Sub(j.began))
			}
		}
		if s.slow != slow || s.inFlight() != len(under) || s.slow > cfg.MaxSlow || s.busy > cfg.MaxInFlight {
			t.Fatalf("%d slow and %d in slots of %d, %d of them slow", s.slow, s.busy, len(under), slow)
		}
	}
	for _, j := range under {
		s.release(j)
	}
	if s.inFlight() != 0 || s.ring.next != &s.ring {
		t.Errorf("%d slow and %d in slots are left", s.slow, s.busy)
	}
}

// TestDarkEndpointsLeaveSlotsToOthers: many more endpoints that never answer than
// there are slots, and one that does: it gets everything meanwhile.
func TestDarkEndpointsLeaveSlotsToOthers(t *testing.T) {
	const dark, events = 200, 40
	subs := []*pipeline.Subscription{sub("good", nil)}
	var ids []string
	for i := range dark {
		ids = append(ids, fmt.Sprint("dark", i))
		subs = append(subs, sub(ids[i], nil))
	}
	b := newBench(t, testkit.KFake(t).ListenAddrs(), 2, subs...)
	release := make(chan struct{})
	b.ledger.setAnswer(func(sub string, _, _ int) (pipeline.Outcome, time.Duration) {
		if sub != "good" {
			<-release
			return pipeline.OutcomeTimeout, 0
		}
		return pipeline.OutcomeSuccess, 0
	})
	b.start(func(c *Config) { c.MaxInFlight, c.MaxSlow = 8, 20 })
	defer close(release)
	b.event("good")
	b.ledger.await(t, "the first event of the one that answers", func() bool { return b.ledger.successes() == 1 })
	b.event(ids...)
	for n := range events { // one by one, so that each waits for a slot
		b.event("good")
		b.ledger.await(t, "an event of the one that answers", func() bool { return b.ledger.successes() == n+2 })
	}
	if n := len(b.ledger.of("dark0")); n != 0 {
		t.Error("an endpoint that never answers has ended: nothing was tested")
	}
}
