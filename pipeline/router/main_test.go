package router

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

var shared = testkit.SharedKafka{Brokers: 1}

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		shared.Close()
		os.Exit(code)
	}))
}

// index is a Matcher: type -> subscriptions.
type index struct {
	version int64
	subs    map[string][]*pipeline.Subscription
}

func (x *index) IDs(ev *pipeline.Event, dst []string) []string {
	for _, s := range x.subs[ev.Type] {
		dst = append(dst, s.ID)
	}
	return dst
}
func (x *index) Version() int64 { return x.version }

func subs(n int) []*pipeline.Subscription {
	out := make([]*pipeline.Subscription, n)
	for i := range out {
		out[i] = &pipeline.Subscription{ID: fmt.Sprintf("sub-%04d", i)}
	}
	return out
}

// one matches type "a" with one subscription, "many" with 1,000.
func one() *index {
	return &index{version: 7, subs: map[string][]*pipeline.Subscription{"a": subs(1), "many": subs(1000)}}
}

// counter is a Metrics.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counter) Event(format, result string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[format+"/"+result] += n
}

func (c *counter) DedupeForgotten(n int) { c.Event("dedupe", "forgotten", n) }

func (*counter) KafkaLag(string, int64) {}

func (c *counter) get(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[key]
}

// bench is a broker with hookline's topics, and a router's dependencies.
type bench struct {
	t      *testing.T
	broker *kfake.Cluster
	kafka  kafkax.Config
	cl     *kgo.Client
	cfg    Config
	deps   Deps
	count  counter
}

func newBench(t *testing.T, spec string, opts ...kfake.Opt) *bench {
	t.Helper()
	b := &bench{t: t, broker: testkit.KFake(t, opts...)}
	b.connect(spec, "hookline.", b.broker.ListenAddrs())
	return b
}

// newKafkaBench is a bench on real Kafka, which has no broker to play with.
func newKafkaBench(t *testing.T, spec, prefix string) *bench {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real Kafka")
	}
	b := &bench{t: t}
	b.connect(spec, prefix, shared.Get(t).Addrs())
	return b
}

func (b *bench) connect(spec, prefix string, addrs []string) {
	b.t.Helper()
	t := b.t
	b.kafka = kafkax.DefaultConfig()
	b.kafka.Brokers, b.kafka.Partitions, b.kafka.TopicPrefix, b.kafka.Group = addrs, 6, prefix, prefix+"group"
	base, err := b.kafka.ClientOpts(nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.cl, err = kgo.NewClient(append(base, kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.cl.Close)
	rep, err := kafkax.EnsureTopics(b.ctx(), kadm.NewClient(b.cl), &b.kafka)
	if err != nil || rep.Err() != nil {
		t.Fatal(err, rep.Err())
	}
	b.cfg = Config{Start: StartEarliest}
	if err := b.cfg.EventsTopics.UnmarshalText([]byte(spec)); err != nil {
		t.Fatal(err)
	}
	x := one()
	b.deps = Deps{Kafka: &b.kafka, Cluster: "c1", Matcher: func() Matcher { return x }, Metrics: &b.count}
}

func (b *bench) ctx() context.Context {
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	b.t.Cleanup(cancel)
	return ctx
}

func (b *bench) topic(name string, partitions int32) {
	b.t.Helper()
	if b.broker != nil {
		if err := b.broker.CreateTopic(name, partitions, nil); err != nil {
			b.t.Fatal(err)
		}
		return
	}
	testkit.CreateTopics(b.t, b.cl, partitions, 1, name)
}

func (b *bench) produce(recs ...*kgo.Record) {
	b.t.Helper()
	if err := b.cl.ProduceSync(b.ctx(), recs...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

func event(topic string, partition int32, value string) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: partition, Value: []byte(value)}
}

// start runs a router until stop is called, which gives what Run returned.
func (b *bench) start() (r *Router, stop func() error) {
	b.t.Helper()
	r, err := New(b.cfg, b.deps)
	if err != nil {
		b.t.Fatal(err)
	}
	return r, b.run(r)
}

// run runs a router until stop is called.
func (b *bench) run(r *Router) (stop func() error) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			return fmt.Errorf("Run did not end")
		}
	})
	b.t.Cleanup(func() { _ = stop() })
	return stop
}

// asOf is a record of deliveries whose event has another offset.
func (b *bench) asOf(rec *kgo.Record, offset int64) *kgo.Record {
	b.t.Helper()
	env, ids := decode(b.t, rec)
	env.Source.Offset = offset
	return &kgo.Record{Topic: rec.Topic, Partition: rec.Partition, Headers: []kgo.RecordHeader{
		{Key: kafkax.HeaderEnvelope, Value: kafkax.EncodeEnvelope(nil, &env)}, {Key: kafkax.HeaderSubs, Value: kafkax.EncodeSubs(nil, ids)},
	}}
}

// read consumes topic, read committed, until it has n records, and hands them
// over. It fails where they do not come in time.
func (b *bench) read(topic string, n int) []*kgo.Record {
	b.t.Helper()
	base, err := b.kafka.ClientOpts(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(base, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond))...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	ctx := b.ctx()
	var out []*kgo.Record
	for len(out) < n {
		f := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			b.t.Fatalf("topic %s has %d records, want %d", topic, len(out), n)
		}
		out = append(out, f.Records()...)
	}
	return out
}

// all reads everything committed that topic has now.
func (b *bench) all(topic string) []*kgo.Record {
	b.t.Helper()
	f := kafkax.NewFetcher(b.cl)
	ends, err := f.EndOffsets(b.ctx(), topic)
	if err != nil {
		b.t.Fatal(err)
	}
	var out []*kgo.Record
	for p, to := range ends[topic] {
		if err := f.Scan(b.ctx(), topic, p, 0, to, func(r *kgo.Record) error { out = append(out, r); return nil }); err != nil {
			b.t.Fatal(err)
		}
	}
	return out
}

// eventually waits for something that has no signal of its own.
func (b *bench) eventually(what string, ok func() bool) {
	b.t.Helper()
	ctx := b.ctx()
	for !ok() {
		if !sleep(ctx, 5*time.Millisecond) {
			b.t.Fatalf("it did not happen: %s", what)
		}
	}
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// decode gives the parts of a deliveries record.
func decode(t *testing.T, r *kgo.Record) (pipeline.Envelope, []string) {
	t.Helper()
	var env pipeline.Envelope
	if err := kafkax.DecodeEnvelope([]byte(header(r, "e")), &env); err != nil {
		t.Fatal(err)
	}
	ids, err := kafkax.DecodeSubs([]byte(header(r, "s")), nil)
	if err != nil {
		t.Fatal(err)
	}
	return env, ids
}
