package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	attemptsTopic = "hookline.attempts"
	deadTopic     = "hookline.attempts.dead"
	eventsTopic   = "orders"
	groupName     = "hookline.sink"
)

// world is a Kafka, a ClickHouse, and sinks between them.
type world struct {
	t     *testing.T
	kafka *kfake.Cluster // nil where addrs are a real Kafka's
	addrs []string
	ch    *fakeServer
	cl    *kgo.Client
	adm   *kadm.Client
	logs  *lines
	// byHand produces to the partition that a record says; only of a wide world.
	byHand *kgo.Client
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, ch: newFakeServer(t), logs: &lines{}}
	w.kafka = testkit.KFake(t, kfake.SeedTopics(1, attemptsTopic, deadTopic, eventsTopic),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	w.addrs = w.kafka.ListenAddrs()
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.addrs...), kgo.ConsumeTopics(deadTopic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	w.cl, w.adm = cl, kadm.NewClient(cl)
	return w
}

// lines collects log lines.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

type running struct {
	*Sink
	stop func() // and wait
}

func (w *world) start(change ...func(*Config, *Deps)) *running {
	w.t.Helper()
	cfg := w.ch.config()
	deps := Deps{
		ClientOpts: []kgo.Opt{kgo.SeedBrokers(w.addrs...), kgo.HeartbeatInterval(50 * time.Millisecond), kgo.SessionTimeout(6 * time.Second), kgo.FetchMaxWait(50 * time.Millisecond)},
		Group:      groupName, AttemptsTopic: attemptsTopic, DeadTopic: deadTopic, EventTopics: []string{eventsTopic},
		ParseEvent: parseEvent, Taken: func(ev *pipeline.Event) bool { return ev.Type != "untaken" },
		Logger: slog.New(slog.NewTextHandler(w.logs, nil)),
	}
	for _, c := range change {
		c(&cfg, &deps)
	}
	s, err := New(cfg, deps)
	if err != nil {
		w.t.Fatal(err)
	}
	s.grace, s.healAfter = 100*time.Millisecond, 100*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.t.Cleanup(stop)
	return &running{s, stop}
}

// parseEvent takes "type:payload".
func parseEvent(rec *kgo.Record, _ *pipeline.Position) (*pipeline.Event, error) {
	kind, payload, ok := bytes.Cut(rec.Value, []byte(":"))
	if !ok {
		return nil, errors.New("no colon")
	}
	if string(kind) == "apart" {
		payload = bytes.ToUpper(payload)
	}
	return &pipeline.Event{ID: "id", Type: string(kind), Payload: payload, Format: pipeline.FormatJSON, ProducedAt: rec.Timestamp}, nil
}

// attempts produces batches with so many attempts each.
func (w *world) attempts(sizes ...int) {
	w.t.Helper()
	for _, n := range sizes {
		w.produce(attemptsTopic, attemptlog.AppendBatch(nil, sampleAttempts(n), attemptlog.Options{}))
	}
}

func (w *world) produce(topic string, value []byte) {
	w.t.Helper()
	if err := w.cl.ProduceSync(w.t.Context(), &kgo.Record{Topic: topic, Value: value, Key: []byte("k"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}}).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

func sampleAttempts(n int) []pipeline.Attempt {
	out := make([]pipeline.Attempt, n)
	for i := range out {
		out[i] = pipeline.Attempt{
			AttemptID: fmt.Sprint("a", i), DeliveryID: fmt.Sprint("d", i), SubscriptionID: "s", URL: "https://x.example/", Attempt: 1, Outcome: pipeline.OutcomeSuccess,
			StatusCode: 200, StartedAt: time.Date(2026, 3, 1, 0, 0, i, 0, time.UTC), Elapsed: time.Millisecond, RequestHeaders: []byte("A: b\r\n"),
			Envelope: &pipeline.Envelope{EventID: fmt.Sprint("e", i/10), Format: pipeline.FormatJSON, Source: pipeline.Position{Topic: eventsTopic, Offset: int64(i / 10)}},
		}
	}
	return out
}

// committed waits until the attempts partition's committed offset is at.
func (w *world) committed(at int64) kadm.OffsetResponse {
	w.t.Helper()
	return w.waitCommitted(attemptsTopic, at)
}

// committedPast waits until the attempts partition's committed offset is past at.
func (w *world) committedPast(at int64) {
	w.t.Helper()
	w.await(attemptsTopic, func(o kadm.OffsetResponse) bool { return o.At > at })
}

// waitCommitted waits until a topic's only partition is committed at. It asks
// again and again: Kafka has no signal for a commit.
func (w *world) waitCommitted(topic string, at int64) kadm.OffsetResponse {
	w.t.Helper()
	return w.await(topic, func(o kadm.OffsetResponse) bool { return o.At == at })
}

func (w *world) await(topic string, ok func(kadm.OffsetResponse) bool) kadm.OffsetResponse {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	for {
		offs, err := w.adm.FetchOffsets(ctx, groupName)
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // nothing is committed yet
			w.t.Fatalf("waiting for an offset of %s: %v\n%s", topic, err, w.logs)
		}
		if o, there := offs.Lookup(topic, 0); there && ok(o) {
			return o
		}
		sleep(ctx, 5*time.Millisecond)
	}
}

func TestStoresAttemptsAndEvents(t *testing.T) {
	w := newWorld(t)
	w.attempts(100, 1, 256)
	for _, v := range []string{"t:one", "untaken:two", "bad", "apart:three", "t:four"} {
		w.produce(eventsTopic, []byte(v))
	}
	s := w.start()
	w.ch.once(t, 357+3)
	if o := w.committed(3); o.Metadata != "" {
		t.Errorf("metadata %q after the block", o.Metadata)
	}
	w.attempts(5)
	w.ch.once(t, 365)
	if !s.Ready() || s.Healthy() != nil {
		t.Errorf("ready %v, healthy %v", s.Ready(), s.Healthy())
	}
	s.stop()
	var payloads []string
	for _, in := range w.ch.inserts {
		payloads = append(payloads, in.payloads...)
	}
	if got := strings.Join(payloads, " "); got != "one THREE four" {
		t.Errorf("payloads %q", got)
	}
	w.attempts(7)
	w.start()
	w.ch.once(t, 372)
}
