package replay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/endpoint"
	"github.com/hookline/hookline/pipeline/kafkax"
	"github.com/hookline/hookline/pipeline/match"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/pipeline/router"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.Exit(code)
	}))
}

// world is Kafka with events, and a registry with the subscription "erp".
type world struct {
	*testing.T
	kafka  kafkax.Config
	topic  string
	cl     *kgo.Client
	writer *registry.Writer
	r      *Replayer
	filter func(*pipeline.Event) bool // nil: every event matches
}

func newWorld(t *testing.T) *world {
	t.Helper()
	kc := kafkax.DefaultConfig()
	kc.Brokers, kc.Partitions, kc.TopicPrefix, kc.Group = testkit.KFake(t).ListenAddrs(), 3, "hl.", "hl"
	base, err := kc.ClientOpts(nil)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(base, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	adm := kadm.NewClient(cl)
	if _, err := kafkax.EnsureTopics(t.Context(), adm, &kc); err != nil {
		t.Fatal(err)
	}
	if _, err := adm.CreateTopic(t.Context(), 2, -1, nil, "events"); err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, kafka: kc, topic: "events", cl: cl}
	topics := kc.Topics()
	w.writer = registry.NewWriter(registry.Config{Topic: topics.Subscriptions(), AuditTopic: topics.Audit(), RouterGroup: kc.RouterGroup()}, registry.Deps{
		Client: base, Policy: registry.Policy{URL: endpoint.Policy{}, MaxTimeout: time.Minute},
	})
	if _, err := w.writer.Apply(t.Context(), []registry.Document{{ID: "erp", Tenant: "*", URL: "https://erp.example.com/"}}, false); err != nil {
		t.Fatal(err)
	}
	o, err := control.New(control.Deps{Kafka: &kc, Writer: w.writer})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	var rc router.Config
	if err := rc.EventsTopics.UnmarshalText([]byte("events=json:type=/kind")); err != nil {
		t.Fatal(err)
	}
	w.r, err = New(Deps{
		Kafka: &kc, Cluster: "c", EventTopics: rc.EventTopics, Parse: router.NewReader(&rc, &kc), Match: w.match, Operator: o, Writer: w.writer,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.r.Close)
	return w
}

func (w *world) match(_ context.Context, id string) (func(*pipeline.Event, []*pipeline.Subscription) []*pipeline.Subscription, int64, error) {
	sub := &pipeline.Subscription{ID: "erp", Tenant: pipeline.AnyTenant, Events: []string{"*"}, State: pipeline.StateActive}
	x := match.NewIndex(slices.Values([]*pipeline.Subscription{sub}))
	return func(ev *pipeline.Event, dst []*pipeline.Subscription) []*pipeline.Subscription {
		if w.filter != nil && !w.filter(ev) {
			return dst
		}
		return x.Match(ev, dst)
	}, 0, nil
}

// produce writes n events, by turns into the two partitions, a second apart.
func (w *world) produce(n int, from time.Time) {
	w.Helper()
	for i := range n {
		rec := &kgo.Record{
			Topic: w.topic, Partition: int32(i % 2), Timestamp: from.Add(time.Duration(i) * time.Second), Value: fmt.Appendf(nil, `{"kind":"k","n":%d}`, i),
		}
		if err := w.cl.ProduceSync(w.Context(), rec).FirstErr(); err != nil {
			w.Fatal(err)
		}
	}
}

// enqueued are the payloads of deliveries of "erp", and their replays.
func (w *world) enqueued() (payloads, replays []string) {
	w.Helper()
	topic, p := w.kafka.Topics().Deliveries(), kafkax.Partition("erp", w.kafka.Partitions)
	w.scan(topic, p, func(rec *kgo.Record) {
		var env pipeline.Envelope
		var subs []string
		for _, h := range rec.Headers {
			switch h.Key {
			case kafkax.HeaderEnvelope:
				if err := kafkax.DecodeEnvelope(h.Value, &env); err != nil {
					w.Fatal(err)
				}
			case kafkax.HeaderSubs:
				subs, _ = kafkax.DecodeSubs(h.Value, nil)
			}
		}
		if !slices.Equal(subs, []string{"erp"}) {
			w.Errorf("a record for %v", subs)
		}
		payloads, replays = append(payloads, string(rec.Value)), append(replays, env.Replay)
	})
	return payloads, replays
}

func (w *world) scan(topic string, p int32, each func(*kgo.Record)) {
	w.Helper()
	end, err := w.r.fetcher.EndOffset(w.Context(), topic, p)
	if err == nil {
		err = w.r.fetcher.Scan(w.Context(), topic, p, 0, end, func(rec *kgo.Record) error { each(rec); return nil })
	}
	if err != nil {
		w.Fatal(err)
	}
}

var morning = time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)

// An interrupted replay goes on where it was: nothing twice, nothing left out,
// in the order in which the events were produced.
func TestInterruptedReplayGoesOn(t *testing.T) {
	w := newWorld(t)
	w.produce(40, morning)
	sel := Selection{Subscription: "erp", Since: morning, Words: "some time"}
	var first string
	for stops := 0; ; stops++ {
		ctx, cancel := context.WithCancel(t.Context())
		parts := 0
		sel.Since = sel.Since.Add(time.Millisecond * time.Duration(stops)) // "1h" is another time every time
		plan, p, err := w.r.Run(ctx, sel, Options{Who: "ann", Rate: 50, OnProgress: func(Progress, Waiting) {
			if parts++; parts == 1 {
				cancel()
			}
		}})
		cancel()
		if first == "" {
			first = p.ID
		}
		if p.ID != first || plan.Events != 40 || plan.Continued != (stops > 0) || plan.Before != 10*stops {
			t.Fatalf("stop %d: plan %+v of %s", stops, plan, p.ID)
		}
		if err == nil {
			if stops != 3 || p.State != StateDone || p.Enqueued != 40 {
				t.Errorf("done after %d stops: %+v", stops, p)
			}
			break
		}
		if !errors.Is(err, context.Canceled) || stops > 3 {
			t.Fatalf("stop %d: %v", stops, err)
		}
	}
	payloads, replays := w.enqueued()
	if len(payloads) != 40 {
		t.Fatalf("%d deliveries, want 40", len(payloads))
	}
	for i := range payloads {
		if payloads[i] != fmt.Sprintf(`{"kind":"k","n":%d}`, i) || replays[i] != first {
			t.Fatalf("number %d is %s of replay %s", i, payloads[i], replays[i])
		}
	}
	entries := 0
	w.scan(w.kafka.Topics().Audit(), 0, func(rec *kgo.Record) {
		if e, err := audit.Parse(rec.Value); err == nil && e.Action == audit.ActionReplay {
			if entries++; e.ID != first || e.Actor != "ann" {
				t.Errorf("audit: %+v", e)
			}
		}
	})
	if entries != 1 {
		t.Errorf("%d audit entries, want 1", entries)
	}
	if _, p, err := w.r.Run(t.Context(), sel, Options{DryRun: true}); err != nil || p.ID == first {
		t.Errorf("the same once more continues %s, which is done (%v)", p.ID, err)
	}
}

func TestDryRunEnqueuesNothing(t *testing.T) {
	w := newWorld(t)
	w.produce(10, morning)
	w.filter = func(ev *pipeline.Event) bool { return !strings.Contains(string(ev.Payload), `:3}`) }
	plan, _, err := w.r.Run(t.Context(), Selection{Subscription: "erp", Since: morning.Add(2 * time.Second), Until: morning.Add(8 * time.Second)}, Options{DryRun: true})
	if err != nil || plan.Events != 5 || plan.Unmatched != 1 || !plan.First.Equal(morning.Add(2*time.Second)) || !plan.Last.Equal(morning.Add(7*time.Second)) {
		t.Errorf("plan %+v, %v", plan, err)
	}
	if got, _ := w.enqueued(); len(got) > 0 {
		t.Errorf("enqueued %v", got)
	}
	if all, err := w.r.List(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("remembered %v, %v", all, err)
	}
}

func TestReplayToADisabledSubscriptionIsRefused(t *testing.T) {
	w := newWorld(t)
	if _, err := w.writer.SetState(t.Context(), "erp", pipeline.StateDisabled, "gone"); err != nil {
		t.Fatal(err)
	}
	_, _, err := w.r.Run(t.Context(), Selection{Subscription: "erp", Since: morning}, Options{})
	if err == nil || !strings.Contains(err.Error(), "resume erp --replay") {
		t.Errorf("got %v", err)
	}
}

func TestSelectionsThatAreRefused(t *testing.T) {
	for name, sel := range map[string]Selection{
		"nothing":         {},
		"no time":         {Subscription: "erp"},
		"no id":           {Subscription: "e r p", Since: morning},
		"two":             {Event: "e", Delivery: "d"},
		"failed of all":   {Event: "e", Failed: true},
		"failed, missed":  {Subscription: "erp", Failed: true, Missed: true},
		"backwards":       {Subscription: "erp", Since: morning, Until: morning},
		"catching up all": {Subscription: "erp", Since: morning, CatchUp: true},
	} {
		if err := sel.Check(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParseProgress(f *testing.F) {
	f.Add((&Progress{V: progressVersion, ID: "r_1", Next: map[string]int64{"events/0": 5}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseProgress(b)
		if err != nil {
			return
		}
		if again, err := parseProgress(p.encode()); err != nil || again.ID != p.ID {
			t.Fatalf("%+v, then %+v, %v", p, again, err)
		}
	})
}
