package router

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// buffered tells of each record that a client has fetched.
type buffered chan string

func (b buffered) OnFetchRecordBuffered(r *kgo.Record) { b <- string(r.Value) }

// What the broker has when a transaction begins is in it, and not in the one
// after: an event that was written while a transaction ends waits for no second
// one.
func TestTransactionTakesWhatIsThere(t *testing.T) {
	b := newBench(t, spec)
	b.topic("ev", 1)
	const first, ahead, behind = `{"t":"a","id":"first"}`, `{"t":"a","id":"ahead"}`, `{"t":"a","id":"behind"}`
	fetched := make(buffered, 100)
	b.cfg.Interval = time.Millisecond // it is over by then: the next transaction does not gather
	b.deps.freshWait = 10 * time.Second
	b.deps.Opts = append(b.deps.Opts, kgo.WithHooks(fetched))
	transactions := 0
	b.deps.beforeEnd = func(context.Context) error {
		if transactions++; transactions > 1 {
			return nil
		}
		b.produce(event("ev", 0, ahead))
		for {
			select {
			case v := <-fetched:
				if v != ahead {
					continue
				}
			case <-b.ctx().Done():
				t.Error("the client fetches nothing ahead")
			}
			break
		}
		b.produce(event("ev", 0, behind))
		return nil
	}
	_, stop := b.start()
	b.produce(event("ev", 0, first))
	b.read("hookline.deliveries", 3)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if transactions != 2 {
		t.Errorf("%d transactions for one event and two that came while it was routed, want 2", transactions)
	}
}
