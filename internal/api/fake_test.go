package api

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hookline/hookline/internal/access"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
	"github.com/hookline/hookline/pipeline/command"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/pipeline/replay"
	"github.com/hookline/hookline/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	writeToken = "write-token-0123456789"
	readToken  = "read-token-0123456789"
)

var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fakeLog has one delivery with two attempts, the second one under a name and
// with bytes that are not UTF-8.
type fakeLog struct{}

func (fakeLog) attempt(n int) *sink.AttemptRow {
	row := &sink.AttemptRow{Attempt: pipeline.Attempt{
		AttemptID: fmt.Sprint("dlv_1.", n), DeliveryID: "dlv_1", SubscriptionID: "erp", URL: "https://erp.example/", Attempt: n,
		Outcome: pipeline.OutcomeResponseError, StatusCode: 503, StartedAt: testNow.Add(time.Duration(n) * time.Second), Elapsed: 3 * time.Millisecond,
		ResponseBody: []byte("\xff<script>"), NextAttemptAt: testNow.Add(time.Minute),
		Envelope: &pipeline.Envelope{EventID: "evt_1", EventType: "order\xfe", Format: pipeline.FormatJSON, ProducedAt: testNow},
	}}
	return row
}

func (l fakeLog) Attempts(_ context.Context, f sink.Filter) iter.Seq2[*sink.AttemptRow, error] {
	return func(yield func(*sink.AttemptRow, error) bool) {
		if f.Delivery == "dlv_1" {
			_ = yield(l.attempt(1), nil) && yield(l.attempt(2), nil)
		}
	}
}

func (l fakeLog) Deliveries(_ context.Context, q sink.DeliveryQuery) (*sink.DeliveryPage, error) {
	row := l.attempt(2).Attempt
	return &sink.DeliveryPage{
		Deliveries: []sink.DeliveryRow{{Attempt: row, State: sink.StateOf(&row)}},
		Next:       sink.DeliveryCursor{StartedAt: testNow, AttemptID: "a"},
	}, nil
}

func (fakeLog) Events(_ context.Context, at []pipeline.Position) (map[pipeline.Position]*sink.StoredEvent, error) {
	return map[pipeline.Position]*sink.StoredEvent{at[0]: {Event: pipeline.Event{Payload: []byte(`{"a":1}`), ProducedAt: testNow}}}, nil
}

func (fakeLog) Series(_ context.Context, q sink.SeriesQuery) ([]sink.Point, error) {
	p := sink.Point{At: q.Since, Retries: 1, P50: time.Millisecond}
	p.Outcomes[pipeline.OutcomeSuccess] = 7
	return []sink.Point{p}, nil
}

func (fakeLog) SubscriptionStats(context.Context, []string, time.Time) (map[string]sink.SubscriptionStats, error) {
	return map[string]sink.SubscriptionStats{"erp": {ID: "erp", Attempts: 10, Successes: 9, Retrying: 1, NextAttempt: testNow, LastAt: testNow}}, nil
}

// fakeOperator remembers what it was asked for.
type fakeOperator struct{ asked []string }

func (o *fakeOperator) note(what, who, id string) *control.Result {
	o.asked = append(o.asked, what+" "+id+" by "+who)
	return &control.Result{ID: "c1", Action: audit.Action(what), Subscription: id, Outcome: control.Done, Lanes: 1, Node: "n"}
}

func (o *fakeOperator) Pause(_ context.Context, who, id, reason string) (*control.Result, error) {
	return o.note("pause "+reason, who, id), nil
}

func (o *fakeOperator) Resume(_ context.Context, who, id string, _ control.ResumeOptions) (*control.Result, error) {
	return o.note("resume", who, id), nil
}

func (o *fakeOperator) Skip(_ context.Context, who string, at control.Target) (*control.Result, error) {
	return o.note("skip "+at.Delivery+at.Entity, who, at.Subscription), nil
}

func (o *fakeOperator) Retry(_ context.Context, who string, at control.Target) (*control.Result, error) {
	return o.note("retry "+at.Delivery+at.Entity, who, at.Subscription), nil
}

func (o *fakeOperator) Test(_ context.Context, who, id string, opts control.TestOptions) (*control.Result, error) {
	r := o.note("test "+opts.EventType+string(opts.Payload), who, id)
	r.Test = &audit.Test{DeliveryID: "dlv_2", Outcome: "success", StatusCode: 200, URL: "https://erp.example/"}
	return r, nil
}

func (o *fakeOperator) Statuses(_ context.Context, _ string, ids []string, _ time.Duration) (map[string]*command.Status, error) {
	out := map[string]*command.Status{}
	for _, id := range ids {
		out[id] = &command.Status{Node: "n", Known: true, Lanes: 2, Stuck: []command.Stuck{{Delivery: "dlv_1", Attempts: 2, NextAt: testNow}}}
	}
	return out, nil
}

// fakeEditor checks documents as the registry does and keeps nothing.
type fakeEditor struct{ asked []string }

func (e *fakeEditor) Apply(_ context.Context, who string, source []byte, prune bool) ([]registry.Change, error) {
	docs, err := registry.ParseDocuments("body", source, &registry.Policy{})
	if err != nil {
		return nil, err
	}
	if len(docs) == 0 {
		return nil, &registry.FieldError{Path: "subscriptions", Why: "no subscriptions"}
	}
	var out []registry.Change
	for i := range docs {
		e.asked = append(e.asked, fmt.Sprintf("apply %s by %s prune %v", docs[i].ID, who, prune))
		out = append(out, registry.Change{ID: docs[i].ID, Action: registry.Created, Revision: 1})
	}
	return out, nil
}

func (e *fakeEditor) Delete(_ context.Context, _, id string) (registry.Change, error) {
	if id != "erp" {
		return registry.Change{}, fmt.Errorf("deleting: %w", registry.ErrNotFound)
	}
	return registry.Change{ID: id, Action: registry.Deleted}, nil
}

func (e *fakeEditor) Get(_ context.Context, id string) (*registry.Item, error) {
	if id != "erp" {
		return nil, registry.ErrNotFound
	}
	return &registry.Item{Document: registry.Document{ID: id, URL: "https://erp.example/?key=secret"}, Revision: 1, Effective: pipeline.StateActive}, nil
}

// fakeRegistry has one subscription, and one whose record was refused.
type fakeRegistry struct{}

func (fakeRegistry) Get(id string) *pipeline.Subscription {
	if id != "erp" {
		return nil
	}
	return &pipeline.Subscription{
		ID: "erp", Tenant: "t", URL: "https://user:pw-canary@erp.example/hook?key=key-canary&bare-canary", Events: []string{"*"}, Revision: 1,
		State: pipeline.StatePaused, StateReason: "maintenance", Ordering: pipeline.OrderingSubscription, OnExhausted: pipeline.OnExhaustedBlock,
		Auth: &pipeline.Auth{Bearer: &pipeline.BearerAuth{Secret: "env:CANARY"}},
	}
}

func (f fakeRegistry) All() iter.Seq[*pipeline.Subscription] {
	return func(yield func(*pipeline.Subscription) bool) { yield(f.Get("erp")) }
}

func (fakeRegistry) State(string) *registry.StateInfo {
	return &registry.StateInfo{Revision: 1, State: pipeline.StatePaused, Since: testNow}
}

func (fakeRegistry) Refused() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { yield("bad", fmt.Errorf("no good")) }
}

// world is the interface over fakes.
type world struct {
	operator *fakeOperator
	editor   *fakeEditor
	replayer *fakeReplayer
	handler  http.Handler
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, &fakeReplayer{known: []replay.Progress{{ID: "r_0", State: replay.StateDone, BegunAt: testNow}}})
}

func newWorldWith(t testing.TB, replayer *fakeReplayer) *world {
	t.Helper()
	w := &world{operator: &fakeOperator{}, editor: &fakeEditor{}, replayer: replayer}
	replays := NewReplays(w.replayer, nil)
	replays.ctx = t.Context() // as Run does
	s := NewService(Deps{
		Log: fakeLog{}, Snapshot: func() Registry { return fakeRegistry{} }, Operator: w.operator, Editor: w.editor, Replays: replays,
		Now: func() time.Time { return testNow },
	})
	var err error
	guard := access.New(access.Options{Token: writeToken, ReadToken: readToken, Loopback: true})
	if w.handler, err = NewHandler(s, guard, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return w
}

// request makes one to the interface.
func request(method, path, token, body string) *http.Request {
	r := httptest.NewRequest(method, "http://127.0.0.1:8080"+Prefix+path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func (w *world) ask(r *http.Request) (*http.Response, string) {
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	resp := rec.Result()
	b, _ := io.ReadAll(resp.Body) // of a recorder: it cannot fail
	return resp, string(b)
}
