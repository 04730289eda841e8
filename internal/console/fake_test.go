package console

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/access"
	"github.com/hookline/hookline/internal/api"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
	"github.com/hookline/hookline/pipeline/command"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/pipeline/replay"
	"github.com/hookline/hookline/sink"
)

const (
	writeToken = "write-token-0123456789"
	readToken  = "read-token-0123456789"
	hostile    = `"><script>window.pwned = 1</script>`
)

// fake is a hookline with one subscription, whose one delivery has failed four
// times and waits for an operator. A retry delivers it.
type fake struct {
	mu       sync.Mutex
	attempts []*sink.AttemptRow // guarded by mu
	asked    []string           // of the operator; guarded by mu
	state    pipeline.State     // of the subscription; empty: active
}

func newFake() *fake {
	f := &fake{}
	for n := range 4 {
		f.add(n+1, pipeline.OutcomeResponseError, 503)
	}
	return f
}

func (f *fake) add(n int, o pipeline.Outcome, status int) {
	f.attempts = append(f.attempts, &sink.AttemptRow{Attempt: pipeline.Attempt{
		AttemptID: "a" + string(rune('0'+n)), DeliveryID: "dlv_42", SubscriptionID: "erp", URL: "https://erp.example/", Attempt: n, Outcome: o,
		StatusCode: status, StartedAt: time.Now().Add(time.Duration(n-10) * time.Second), Elapsed: 40 * time.Millisecond, DNS: time.Millisecond,
		Connect: 5 * time.Millisecond, TLS: 9 * time.Millisecond, TTFB: 38 * time.Millisecond, Final: o == pipeline.OutcomeSuccess,
		RequestHeaders: []byte("X: " + hostile + "\r\n"), ResponseHeaders: []byte("Server: " + hostile + "\r\n"), ResponseBody: []byte(hostile + "\xff\u202e"), Error: hostile,
		Envelope: &pipeline.Envelope{EventID: "evt-42", EventType: hostile, Entity: hostile, Tenant: hostile, Format: pipeline.FormatJSON, ProducedAt: time.Now()},
	}})
}

func (f *fake) rows() []*sink.AttemptRow {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*sink.AttemptRow(nil), f.attempts...)
}

func (f *fake) Attempts(_ context.Context, q sink.Filter) iter.Seq2[*sink.AttemptRow, error] {
	return func(yield func(*sink.AttemptRow, error) bool) {
		for _, row := range f.rows() {
			if row.DeliveryID == q.Delivery && !yield(row, nil) {
				return
			}
		}
	}
}

func (f *fake) Deliveries(_ context.Context, q sink.DeliveryQuery) (*sink.DeliveryPage, error) {
	rows := f.rows()
	last := rows[len(rows)-1].Attempt
	switch {
	case q.Event != "" && q.Event != "evt-42", q.Delivery != "" && q.Delivery != "dlv_42", q.Correlation != "":
		return &sink.DeliveryPage{}, nil
	}
	return &sink.DeliveryPage{Deliveries: []sink.DeliveryRow{{Attempt: last, State: sink.StateOf(&last)}}}, nil
}

func (f *fake) Events(_ context.Context, at []pipeline.Position) (map[pipeline.Position]*sink.StoredEvent, error) {
	return map[pipeline.Position]*sink.StoredEvent{at[0]: {Event: pipeline.Event{Payload: []byte(`{"note": "` + hostile + `"}`)}}}, nil
}

func (f *fake) Series(_ context.Context, q sink.SeriesQuery) ([]sink.Point, error) {
	points := make([]sink.Point, int(q.Until.Sub(q.Since)/q.Step))
	for i := range points {
		p := &points[i]
		p.At, p.P50, p.P99, p.Lag = q.Since.Add(time.Duration(i)*q.Step), 20*time.Millisecond, time.Second, time.Second
		p.Outcomes[pipeline.OutcomeSuccess], p.Outcomes[pipeline.OutcomeTimeout] = uint64(1000+i), 3
	}
	return points, nil
}

func (f *fake) SubscriptionStats(context.Context, []string, time.Time) (map[string]sink.SubscriptionStats, error) {
	return map[string]sink.SubscriptionStats{"erp": {ID: "erp", Attempts: 10, Successes: 9, Retrying: 1, NextAttempt: time.Now().Add(time.Minute)}}, nil
}

func (f *fake) Get(id string) *pipeline.Subscription {
	if id != "erp" {
		return nil
	}
	return &pipeline.Subscription{
		ID: "erp", Tenant: hostile, Description: hostile, URL: "https://erp.example/?key=canary", Events: []string{hostile}, Filter: hostile,
		Revision: 1, State: cmp.Or(f.state, pipeline.StateActive), StateReason: hostile,
	}
}

func (f *fake) All() iter.Seq[*pipeline.Subscription] {
	return func(yield func(*pipeline.Subscription) bool) { yield(f.Get("erp")) }
}

func (f *fake) State(string) *registry.StateInfo  { return nil }
func (f *fake) Refused() iter.Seq2[string, error] { return func(func(string, error) bool) {} }
func (f *fake) result(what, who string) *control.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, what+" by "+who)
	return &control.Result{Action: audit.Action(what), Subscription: "erp", Outcome: control.Done, Lanes: 1, Detail: hostile}
}

func (f *fake) Pause(_ context.Context, who, _, _ string) (*control.Result, error) {
	return f.result("pause", who), nil
}

func (f *fake) Resume(_ context.Context, who, _ string, _ control.ResumeOptions) (*control.Result, error) {
	return f.result("resume", who), nil
}

func (f *fake) Skip(_ context.Context, who string, _ control.Target) (*control.Result, error) {
	return f.result("skip", who), nil
}

func (f *fake) Retry(_ context.Context, who string, _ control.Target) (*control.Result, error) {
	r := f.result("retry", who)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.add(len(f.attempts)+1, pipeline.OutcomeSuccess, 200)
	return r, nil
}

func (f *fake) Test(_ context.Context, who, _ string, _ control.TestOptions) (*control.Result, error) {
	return f.result("test", who), nil
}

func (f *fake) Statuses(context.Context, string, []string, time.Duration) (map[string]*command.Status, error) {
	return map[string]*command.Status{"erp": {Node: hostile, Local: hostile, Known: true, Lanes: 1, Waiting: 1, Stuck: []command.Stuck{
		{Entity: hostile, Delivery: "dlv_42", Attempts: 4, NextAt: time.Now().Add(time.Minute)},
	}}}, nil
}

// Run is a replay's: of the delivery, or of two events.
func (f *fake) Run(_ context.Context, sel replay.Selection, opts replay.Options) (replay.Plan, replay.Progress, error) {
	p := replay.Progress{ID: "r_9", Selection: sel, Actor: opts.Who, State: replay.StateRunning, BegunAt: time.Now(), Total: 2}
	if sel.Delivery != "" {
		p.Total = 1
	}
	plan := replay.Plan{ID: p.ID, Selection: sel, Events: p.Total, First: time.Now(), Last: time.Now(), Incomplete: hostile}
	if opts.DryRun {
		return plan, p, nil
	}
	if err := opts.Confirm(plan); err != nil {
		return plan, p, err
	}
	f.result("replay "+sel.Delivery, opts.Who)
	p.State, p.Events, p.Enqueued = replay.StateDone, p.Total, p.Total
	return plan, p, nil
}

// fakeReplayer is the fake as what replays.
type fakeReplayer struct{ *fake }

// Resume is a catch-up that goes on until the test ends.
func (f fakeReplayer) Resume(ctx context.Context, _ string, opts replay.Options) (*control.Result, error) {
	f.result("resume-replay", opts.Who)
	opts.OnProgress(replay.Progress{ID: "c_1", Enqueued: 12}, replay.Waiting{Deliveries: 7})
	<-ctx.Done()
	return nil, ctx.Err()
}

// List has a replay that somebody else began.
func (f *fake) List(context.Context) ([]replay.Progress, error) {
	return []replay.Progress{{
		ID: "r_1", Selection: replay.Selection{Event: hostile, Subscription: "erp"}, Actor: hostile, State: replay.StateRunning, BegunAt: time.Now(), Total: 5,
	}}, nil
}

// handler is the console over the fake.
func (f *fake) handler(t *testing.T) http.Handler {
	t.Helper()
	replays := api.NewReplays(fakeReplayer{f}, nil)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- replays.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	for begun := false; !begun; runtime.Gosched() {
		_, err := replays.Count(ctx, "", replay.Selection{Delivery: "dlv_42"}) // does nothing
		begun = !errors.Is(err, api.ErrStopping)
	}
	s := api.NewService(api.Deps{Log: f, Snapshot: func() api.Registry { return f }, Operator: f, Replays: replays})
	guard := access.New(access.Options{Token: writeToken, ReadToken: readToken, Loopback: true})
	h, err := New(Deps{Service: s, Guard: guard, Log: slog.New(slog.DiscardHandler), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return h
}
