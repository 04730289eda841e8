package dispatch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
	"github.com/hookline/hookline/pipeline/command"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/registry"
)

// operator is the operators' port, as another process has it.
func (b *bench) operator() *control.Operator {
	b.t.Helper()
	base, err := b.kafka.ClientOpts(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	w := registry.NewWriter(registry.Config{Topic: b.kafka.Topics().Subscriptions(), AuditTopic: b.kafka.Topics().Audit()}, registry.Deps{Client: base})
	o, err := control.New(control.Deps{Kafka: &b.kafka, Writer: w})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(o.Close)
	return o
}

func (b *bench) audit() (out []audit.Entry) {
	b.t.Helper()
	for _, r := range b.read(b.kafka.Topics().Audit()) {
		e, err := audit.Parse(r.Value)
		if err != nil {
			b.t.Fatal(err)
		}
		out = append(out, *e)
	}
	return out
}

func blocking(s *pipeline.Subscription) { s.OnExhausted, s.Retries = pipeline.OnExhaustedBlock, 0 }

// failing answers 500 to one event of "s" while that is so.
func (b *bench) failing(seq int, while *atomic.Bool) {
	b.ledger.setAnswer(func(_ string, n, _ int) (pipeline.Outcome, time.Duration) {
		if n == seq && while.Load() {
			return pipeline.OutcomeResponseError, 0
		}
		return pipeline.OutcomeSuccess, 0
	})
}

// awaitBlocked waits until the owner says that a lane is blocked.
func awaitBlocked(t *testing.T, b *bench, o *control.Operator) *command.Status {
	t.Helper()
	var st *command.Status
	b.ledger.await(t, "a blocked lane", func() bool {
		var err error
		if st, err = o.Status(t.Context(), "test", "s"); err != nil {
			t.Fatal(err)
		}
		return st != nil && st.Blocked == 1 && st.Parked == 3
	})
	return st
}

func TestSkipEndsABlockedHead(t *testing.T) {
	b := kfakeBench(t, 2, sub("s", blocking))
	var on atomic.Bool
	on.Store(true)
	b.failing(0, &on)
	b.start(nil)
	for range 3 {
		b.event("s")
	}
	o := b.operator()
	st := awaitBlocked(t, b, o)
	if len(st.Stuck) != 1 || st.Stuck[0].Behind != 2 || st.Stuck[0].Attempts != 1 || !st.Stuck[0].Blocked || st.Node != "test" {
		t.Fatalf("status: %s", jsonOf(st))
	}
	source := pipeline.Position{Cluster: "c", Topic: "events"}
	id := pipeline.DeliveryID(&source, "s")
	if st.Stuck[0].Delivery != id {
		t.Errorf("the stuck delivery is %q, want %q", st.Stuck[0].Delivery, id)
	}
	r, err := o.Skip(t.Context(), "ann", control.Target{Subscription: "s", Delivery: "another"})
	if err != nil || r.Outcome != control.Nothing || r.Lanes != 0 {
		t.Fatalf("skipping a delivery that is not the first: %s, %v", jsonOf(r), err)
	}
	r, err = o.Skip(t.Context(), "ann", control.Target{Subscription: "s", Delivery: id})
	if err != nil || r.Outcome != control.Done || r.Lanes != 1 || r.Node != "test" {
		t.Fatalf("skipping: %s, %v", jsonOf(r), err)
	}
	if r.TookMS > command.MaxAge.Milliseconds() {
		t.Errorf("it took %d ms", r.TookMS)
	}
	b.ledger.await(t, "the two behind it", func() bool { return b.ledger.successes() == 2 })
	if n := b.reasons()[pipeline.DeadSkipped]; n != 1 {
		t.Errorf("%d dead records of reason skipped, want 1", n)
	}
	entries := b.audit()
	if len(entries) != 2 || entries[1].Actor != "ann" || entries[1].Action != audit.ActionSkip || entries[1].Lanes != 1 || entries[1].ID != r.ID {
		t.Errorf("audit: %s", jsonOf(entries))
	}
}

func TestRetryOfABlockedHead(t *testing.T) {
	b := kfakeBench(t, 1, sub("s", blocking))
	var on atomic.Bool
	on.Store(true)
	b.failing(0, &on)
	b.start(nil)
	for range 3 {
		b.event("s")
	}
	o := b.operator()
	awaitBlocked(t, b, o)
	on.Store(false)
	r, err := o.Retry(t.Context(), "ann", control.Target{Subscription: "s"})
	if err != nil || r.Outcome != control.Done || r.Lanes != 1 {
		t.Fatalf("retrying: %s, %v", jsonOf(r), err)
	}
	b.ledger.await(t, "all three", func() bool { return b.ledger.successes() == 3 })
	b.ledger.checkOrder(t, pipeline.OrderingSubscription, 2)
}

func TestTestRequest(t *testing.T) {
	b := kfakeBench(t, 1, sub("s", func(s *pipeline.Subscription) { s.State = pipeline.StatePaused }))
	b.start(nil)
	o := b.operator()
	r, err := o.Test(t.Context(), "ann", "s", control.TestOptions{Payload: []byte("77")})
	if err != nil || r.Outcome != control.Done || r.Test == nil || r.Test.Outcome != "success" {
		t.Fatalf("testing: %s, %v", jsonOf(r), err)
	}
	if tries := b.ledger.of("s"); len(tries) != 1 || tries[0].seq != 77 {
		t.Errorf("requests: %+v", tries)
	}
	b.ledger.setAnswer(func(string, int, int) (pipeline.Outcome, time.Duration) { return pipeline.OutcomeResponseError, 0 })
	r, err = o.Test(t.Context(), "ann", "s", control.TestOptions{})
	if err != nil || r.Outcome != control.Failed || r.Test.StatusCode != 500 {
		t.Fatalf("testing what fails: %s, %v", jsonOf(r), err)
	}
	var rows []pipeline.Attempt
	b.ledger.await(t, "two rows in the log", func() bool { rows = b.attempts(); return len(rows) == 2 })
	if rows[0].DeliveryID == rows[1].DeliveryID || rows[1].Envelope.EventType != TestEventType || !rows[1].Final || rows[1].DeliveryID != r.Test.DeliveryID {
		t.Errorf("rows: %s", jsonOf(rows))
	}
	if r, err = o.Test(t.Context(), "ann", "nobody", control.TestOptions{}); err != nil || r.Outcome != control.Refused {
		t.Errorf("testing what is not there: %s, %v", jsonOf(r), err)
	}
}

// Commands that cannot be carried out are answered, or passed over, and hold up
// none that come after them.
func TestCommandsThatCannotBeCarriedOut(t *testing.T) {
	b := kfakeBench(t, 1, sub("s", nil))
	now := time.Now()
	write := func(value string) {
		b.t.Helper()
		if err := b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: b.kafka.Topics().Control(), Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	at := func(kind string, v int, when time.Time) string {
		return jsonOf(map[string]any{"v": v, "kind": kind, "id": kind + when.Format("05.000"), "time": when, "actor": "ann", "subscription": "s"})
	}
	write("no JSON")
	write(`{"v":1,"kind":"skip","id":"x","subscription":"no id!"}`)
	write(at("skip", 1, now.Add(-2*command.MaxAge)))
	write(at("skip", 1, now.Add(2*command.MaxAhead)))
	write(at("inspect", 1, now.Add(-2*command.MaxAge))) // a question: nobody waits for it, no word in the audit
	write(at("dance", 1, now))
	write(at("skip", 99, now))
	b.start(nil)
	r, err := b.operator().Skip(t.Context(), "ann", control.Target{Subscription: "s"})
	if err != nil || r.Outcome != control.Nothing {
		t.Fatalf("the command behind them: %s, %v", jsonOf(r), err)
	}
	var got []string
	for _, e := range b.audit() {
		got = append(got, string(e.Result))
	}
	if want := []string{"expired", "expired", "refused", "refused", "nothing"}; !slices.Equal(got, want) {
		t.Errorf("results %v, want %v", got, want)
	}
}

// More commands than a transaction takes at once are all answered, each once.
func TestManyCommandsAtOnce(t *testing.T) {
	b := kfakeBench(t, 1, sub("s", nil))
	const n = 2*answersWaiting + 10
	recs := make([]*kgo.Record, n)
	for i := range recs {
		recs[i] = &kgo.Record{Topic: b.kafka.Topics().Control(), Value: []byte(jsonOf(map[string]any{
			"v": 1, "kind": "skip", "id": fmt.Sprint("c", i), "time": time.Now(), "actor": "ann", "subscription": "s",
		}))}
	}
	if err := b.cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.start(nil)
	if r, err := b.operator().Skip(t.Context(), "ann", control.Target{Subscription: "s"}); err != nil || r.Outcome != control.Nothing {
		t.Fatalf("the command behind them: %s, %v", jsonOf(r), err)
	}
	answered := map[string]int{}
	for _, e := range b.audit() {
		answered[e.ID]++
	}
	for i := range n {
		if id := fmt.Sprint("c", i); answered[id] != 1 {
			t.Errorf("command %s has %d answers, want 1", id, answered[id])
		}
	}
}

// A command given while nobody owns the lanes is carried out by who comes, once:
// its successor does not repeat it.
func TestCommandOutlivesAProcess(t *testing.T) {
	b := kfakeBench(t, 1, sub("s", blocking))
	var on atomic.Bool
	on.Store(true)
	b.failing(0, &on)
	first := b.start(nil)
	for range 3 {
		b.event("s")
	}
	o := b.operator()
	awaitBlocked(t, b, o)
	first.stop(t)
	got := make(chan *control.Result, 1)
	go func() {
		r, err := o.Skip(context.Background(), "ann", control.Target{Subscription: "s"})
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	second := b.start(nil)
	if r := <-got; r == nil || r.Outcome != control.Done || r.Lanes != 1 {
		t.Fatalf("skipping: %s", jsonOf(r))
	}
	b.ledger.await(t, "the two behind it", func() bool { return b.ledger.successes() == 2 })
	second.stop(t)
	b.event("s") // fails, since it is none of the first three; see failing
	b.failing(3, &on)
	b.start(nil)
	b.ledger.await(t, "a new blocked lane", func() bool {
		st, err := o.Status(t.Context(), "test", "s")
		return err == nil && st != nil && st.Blocked == 1
	})
	if n := b.reasons()[pipeline.DeadSkipped]; n != 1 {
		t.Errorf("%d dead records of reason skipped, want 1", n)
	}
	answers := 0
	for _, e := range b.audit() {
		if e.Action == audit.ActionSkip {
			answers++
		}
	}
	if answers != 1 {
		t.Errorf("%d answers, want 1", answers)
	}
}

func TestUnansweredSaysSo(t *testing.T) {
	b := kfakeBench(t, 1, sub("s", nil))
	base, _ := b.kafka.ClientOpts(nil)
	o, err := control.New(control.Deps{Kafka: &b.kafka, Writer: registry.NewWriter(registry.Config{}, registry.Deps{Client: base}), Patience: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	r, err := o.Skip(t.Context(), "ann", control.Target{Subscription: "s"})
	if err != nil || r.Outcome != control.Unanswered || !strings.Contains(r.Detail, "dispatcher") {
		t.Errorf("%s, %v", jsonOf(r), err)
	}
}
