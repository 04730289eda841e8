package dispatch

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// kafka is the real broker that this package's tests share.
var kafka testkit.SharedKafka

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		kafka.Close()
		os.Exit(code)
	}))
}

// bench is a broker with hookline's topics, a registry and a ledger.
type bench struct {
	t      *testing.T
	kafka  kafkax.Config
	cl     *kgo.Client
	reg    *fakeRegistry
	ledger *ledger
	next   int // events produced
	// version is the registry version that events are marked with.
	version int64
	metrics Metrics      // nil: nobody counts
	log     *slog.Logger // nil: nobody reads
	// unstableLimit of its dispatchers; zero: the real one.
	unstableLimit time.Duration
}

func newBench(t *testing.T, addrs []string, partitions int32, subs ...*pipeline.Subscription) *bench {
	t.Helper()
	kc := kafkax.DefaultConfig()
	kc.Brokers, kc.Partitions = addrs, partitions
	kc.TopicPrefix = testkit.Unique(t, "hl") + "."
	kc.Group = testkit.Unique(t, "hl")
	base, err := kc.ClientOpts(nil)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(base, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A test may end before Kafka has answered for its last event; closing
		// then would report that event as failed.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = cl.Flush(ctx)
		cl.Close()
	})
	if _, err := kafkax.EnsureTopics(t.Context(), kadm.NewClient(cl), &kc); err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, kafka: kc, cl: cl, reg: newFakeRegistry(subs...), ledger: newLedger()}
	return b
}

// running is one dispatcher under test.
type running struct {
	d      *Dispatcher
	cancel context.CancelFunc
	done   chan error
}

func (b *bench) start(change func(*Config)) *running {
	b.t.Helper()
	cfg := DefaultConfig()
	cfg.RetryDelays = []kafkax.Duration{kafkax.Duration(testDelay), kafkax.Duration(testDelay), kafkax.Duration(testDelay)}
	cfg.SessionTimeout = kafkax.Duration(3 * time.Second)
	if change != nil {
		change(&cfg)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if os.Getenv("HOOKLINE_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if b.log != nil {
		log = b.log
	}
	var metrics Metrics = nopMetrics{}
	if b.metrics != nil {
		metrics = b.metrics
	}
	own := b.kafka
	d, err := New(cfg, Deps{
		Kafka: &own, Sender: b.ledger, Registry: b.reg, Gate: NewGate(time.Duration(cfg.SessionTimeout)), Metrics: metrics,
		Log: log, Node: "test", RequestTimeout: 5 * time.Second,
		StateRecord: func(s Disabled) ([]byte, []byte) {
			return []byte(s.ID + "#state"), []byte(s.Reason + "/" + strconv.FormatInt(s.Revision, 10) + fmt.Sprint(" ", s.Routed))
		},
		HealthRecord: func(id string, _ int64, since time.Time) ([]byte, []byte) {
			if since.IsZero() {
				return []byte(id + "#health"), nil
			}
			return []byte(id + "#health"), []byte(since.Format(time.RFC3339Nano))
		},
		RedactURL: func(u string) string { return u }, unstableLimit: b.unstableLimit,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{d: d, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- d.Run(ctx) }()
	b.t.Cleanup(func() { r.stop(b.t) })
	return r
}

// stop stops the dispatcher gracefully, once.
func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	if err, ok := <-r.done; ok && err != nil {
		t.Errorf("the dispatcher ended with %v", err)
	} else if ok {
		close(r.done)
	}
}

const testDelay = 150 * time.Millisecond

// event produces one event to these subscriptions, as the router would.
func (b *bench) event(subs ...string) int {
	b.t.Helper()
	seq := b.next
	b.next++
	env := &pipeline.Envelope{
		Source:  pipeline.Position{Cluster: "c", Topic: "events", Offset: int64(seq)},
		EventID: fmt.Sprint("e", seq), EventType: "t", RegistryVersion: b.version, Entity: fmt.Sprint("entity", seq%3), ProducedAt: time.Now(),
	}
	byPartition := map[int32][]string{}
	for _, id := range subs {
		p := kafkax.Partition(id, b.kafka.Partitions)
		byPartition[p] = append(byPartition[p], id)
	}
	header := kafkax.EncodeEnvelope(nil, env)
	for p, ids := range byPartition {
		b.cl.Produce(context.Background(), &kgo.Record{
			Topic: b.kafka.Topics().Deliveries(), Partition: p, Value: []byte(strconv.Itoa(seq)),
			Headers: []kgo.RecordHeader{{Key: kafkax.HeaderEnvelope, Value: header}, {Key: kafkax.HeaderSubs, Value: kafkax.EncodeSubs(nil, ids)}},
		}, func(_ *kgo.Record, err error) {
			if err != nil {
				b.t.Error(err)
			}
		})
	}
	return seq
}

// try is one request that reached the ledger.
type try struct {
	sub, entity  string
	url          string
	signing      *pipeline.Signing
	seq, attempt int
	ok           bool
	begun, ended time.Time
}

// ledger is a Sender and what it was asked to send.
type ledger struct {
	mu    sync.Mutex
	tries []try // in the order of their ends; under mu
	busy  map[string]int
	// succeeded counts the successes of each delivery; under mu
	succeeded map[string]int
	overlap   []string
	answer    func(sub string, seq, attempt int) (pipeline.Outcome, time.Duration)
	changed   chan struct{}
}

func newLedger() *ledger {
	return &ledger{
		busy: map[string]int{}, succeeded: map[string]int{}, changed: make(chan struct{}, 1),
		answer: func(string, int, int) (pipeline.Outcome, time.Duration) { return pipeline.OutcomeSuccess, 0 },
	}
}

func (l *ledger) Send(req *pipeline.Request, res *pipeline.Result) {
	sub := req.Subscription.ID
	seq, _ := strconv.Atoi(string(req.Payload))
	lane := pipeline.LaneKey(sub, req.Subscription.Ordering, req.Envelope.Entity, req.Envelope.Source.Offset)
	l.mu.Lock()
	if l.busy[lane]++; l.busy[lane] > 1 {
		l.overlap = append(l.overlap, lane)
	}
	answer := l.answer
	l.mu.Unlock()
	begun := time.Now()
	outcome, took := answer(sub, seq, req.Attempt)
	time.Sleep(took)
	*res = pipeline.Result{
		Outcome: outcome, StartedAt: begun, Elapsed: time.Since(begun), RequestWritten: true,
		RequestBytes: 1000 + len(req.Payload), AckID: string(req.Payload),
	}
	if outcome == pipeline.OutcomeResponseError {
		res.StatusCode, res.Error = 500, "500"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy[lane]--
	l.tries = append(l.tries, try{
		sub: sub, entity: req.Envelope.Entity, url: req.Subscription.URL, signing: req.Subscription.Signing, seq: seq, attempt: req.Attempt, ok: outcome == pipeline.OutcomeSuccess,
		begun: begun, ended: begun.Add(res.Elapsed),
	})
	if outcome == pipeline.OutcomeSuccess {
		l.succeeded[sub+"/"+strconv.Itoa(seq)]++
	}
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *ledger) setAnswer(f func(sub string, seq, attempt int) (pipeline.Outcome, time.Duration)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = f
}

func (l *ledger) of(sub string) []try {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []try
	for _, t := range l.tries {
		if t.sub == sub {
			out = append(out, t)
		}
	}
	return out
}

// await waits until ok says so, looking after every try.
func (l *ledger) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-l.changed:
		case <-time.After(20 * time.Millisecond): // for conditions about Kafka
		case <-deadline:
			l.mu.Lock()
			defer l.mu.Unlock()
			t.Fatalf("waited 30 s for %s; tries so far: %d", what, len(l.tries))
		}
	}
}

// successes counts the distinct deliveries that succeeded.
func (l *ledger) successes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.succeeded)
}

// checkOrder checks that per lane no delivery was tried before all earlier
// ones had ended: succeeded, or spent their attempts.
func (l *ledger) checkOrder(t *testing.T, ordering pipeline.Ordering, attempts int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.overlap) > 0 {
		t.Errorf("two requests under way at once in lanes %v", l.overlap)
	}
	byBegin := slices.Clone(l.tries)
	slices.SortFunc(byBegin, func(a, b try) int { return a.begun.Compare(b.begun) })
	type key struct{ sub, entity string }
	last := map[key]try{}
	for _, x := range byBegin {
		k := key{sub: x.sub}
		if ordering == pipeline.OrderingEntity {
			k.entity = x.entity
		}
		p, seen := last[k]
		if seen && x.seq > p.seq && !p.ok && p.attempt < attempts {
			t.Errorf("%s: event %d was sent while %d had made %d attempts without success", x.sub, x.seq, p.seq, p.attempt)
		}
		if seen && x.seq < p.seq {
			t.Errorf("%s: event %d was sent after %d", x.sub, x.seq, p.seq)
		}
		last[k] = x
	}
}

// attempts reads the log.
func (b *bench) attempts() []pipeline.Attempt {
	b.t.Helper()
	var out []pipeline.Attempt
	for _, r := range b.read(b.kafka.Topics().Attempts()) {
		err := attemptlog.Decode(r.Value, func(row *attemptlog.Row) error {
			out = append(out, row.Attempt)
			return nil
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	return out
}

// read reads a topic up to its end, read committed.
func (b *bench) read(topic string) []*kgo.Record {
	b.t.Helper()
	base, _ := b.kafka.ClientOpts(nil)
	cl, err := kgo.NewClient(append(base, kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	f := kafkax.NewFetcher(cl)
	ends, err := f.EndOffsets(b.t.Context(), topic)
	if err != nil {
		b.t.Fatal(err)
	}
	var out []*kgo.Record
	for _, p := range slices.Sorted(maps.Keys(ends[topic])) {
		err := f.Scan(b.t.Context(), topic, p, 0, ends[topic][p], func(r *kgo.Record) error { out = append(out, r); return nil })
		if err != nil {
			b.t.Fatal(err)
		}
	}
	return out
}

// fakeRegistry is a registry whose views the test sets.
type fakeRegistry struct {
	mu      sync.Mutex
	view    fakeView
	changed chan struct{}
}

type fakeView struct {
	version int64
	subs    map[string]*pipeline.Subscription
}

func (v fakeView) Version() int64                       { return v.version }
func (v fakeView) Get(id string) *pipeline.Subscription { return v.subs[id] }

func newFakeRegistry(subs ...*pipeline.Subscription) *fakeRegistry {
	r := &fakeRegistry{changed: make(chan struct{}, 1), view: fakeView{subs: map[string]*pipeline.Subscription{}}}
	for _, s := range subs {
		r.view.subs[s.ID] = s
	}
	return r
}

func (r *fakeRegistry) View() pipeline.Subscriptions {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view
}

func (r *fakeRegistry) Changed() <-chan struct{} { return r.changed }

// put changes one subscription; nil deletes it.
func (r *fakeRegistry) put(id string, s *pipeline.Subscription) {
	r.mu.Lock()
	subs := maps.Clone(r.view.subs)
	if delete(subs, id); s != nil {
		subs[id] = s
	}
	r.view = fakeView{r.view.version + 1, subs}
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func sub(id string, change func(*pipeline.Subscription)) *pipeline.Subscription {
	s := &pipeline.Subscription{
		ID: id, URL: "http://127.0.0.1/" + id, Ordering: pipeline.OrderingSubscription, OnExhausted: pipeline.OnExhaustedContinue,
		Retries: 3, Concurrency: pipeline.DefaultConcurrency, State: pipeline.StateActive, Revision: 1,
	}
	if change != nil {
		change(s)
	}
	return s
}

type nopMetrics struct{}

func (nopMetrics) Attempted(*pipeline.Attempt)       {}
func (nopMetrics) Delivered(pipeline.Outcome)        {}
func (nopMetrics) FirstAttemptLag(*pipeline.Attempt) {}
func (nopMetrics) Dead(pipeline.DeadReason)          {}
func (nopMetrics) Lanes(Stats)                       {}
func (nopMetrics) CommitTook(time.Duration, int)     {}
func (nopMetrics) KafkaLag(string, int64)            {}
func (nopMetrics) Missing(string, int64)             {}

func jsonOf(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}
