package dispatch

import (
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
)

// TestWorkersEnd: the workers that many slow requests at once took end when they
// are not needed any more, and new ones come when they are.
func TestWorkersEnd(t *testing.T) {
	const many = 20
	var subs []*pipeline.Subscription
	var ids []string
	for i := range many {
		ids = append(ids, "s"+string(rune('a'+i)))
		subs = append(subs, sub(ids[i], nil))
	}
	b := newBench(t, testkit.KFake(t).ListenAddrs(), 1, subs...)
	release := make(chan struct{})
	b.ledger.setAnswer(func(string, int, int) (pipeline.Outcome, time.Duration) {
		<-release
		return pipeline.OutcomeSuccess, 0
	})
	r := b.start(nil)
	workers := func() (n int) {
		r.d.call(func() { n = r.d.nworkers })
		return n
	}
	for round := 1; round <= 2; round++ {
		b.event(ids...)
		b.ledger.await(t, "a worker for each of the requests", func() bool { return workers() == many })
		close(release)
		b.ledger.await(t, "all delivered, and no worker left", func() bool { return b.ledger.successes() == round*many && workers() == 0 })
		release = make(chan struct{})
	}
}
