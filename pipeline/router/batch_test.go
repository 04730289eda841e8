package router

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// quick is a parser that takes the type from the key and allocates nothing.
func quick(rec *kgo.Record, _ *TopicSpec, src *pipeline.Position, ev *pipeline.Event) error {
	*ev = pipeline.Event{Source: *src, Format: "json", Type: rec.Topic, ID: "id", Tenant: "acme", Payload: rec.Value, ProducedAt: rec.Timestamp}
	return nil
}

func testBatch(tb testing.TB, x Matcher) (b *batch, spec *TopicSpec) {
	tb.Helper()
	k := kafkax.DefaultConfig()
	cfg := Config{EventsTopics: TopicSpecs{{Topic: "a"}}}
	r, err := New(cfg, Deps{Kafka: &k, Matcher: func() Matcher { return x }, Parse: quick, Cluster: "c1"})
	if err != nil {
		tb.Fatal(err)
	}
	b = newBatch(r)
	b.matcher, b.produce = x, func(*kgo.Record) {}
	return b, &r.cfg.EventsTopics[0]
}

func TestBatchAllocations(t *testing.T) {
	b, spec := testBatch(t, one())
	for topic, most := range map[string]float64{"nobody": 0, "a": 0, "many": 0} {
		rec := &kgo.Record{Topic: topic, Value: make([]byte, 1000), Timestamp: time.Now()}
		got := testing.AllocsPerRun(200, func() {
			b.add(rec, spec, [16]byte{1})
			b.reset(true)
		})
		if got > most {
			t.Errorf("an event of %q takes %v allocations, want at most %v", topic, got, most)
		}
	}
}

// What a request is made of reaches the sender.
func TestDeliveriesCarrySplicesAndAttributes(t *testing.T) {
	b, spec := testBatch(t, one())
	splice := &pipeline.Splice{IDFrom: 7, IDTo: 9, InsertAt: 1, Sub: pipeline.SubWithoutID, SubFrom: 40, SubTo: 40}
	attributes := []pipeline.Attribute{{Name: "id", Value: "1"}}
	b.r.parse = func(rec *kgo.Record, spec *TopicSpec, src *pipeline.Position, ev *pipeline.Event) error {
		err := quick(rec, spec, src, ev)
		ev.Splice, ev.Attributes = splice, attributes
		return err
	}
	var got []pipeline.Envelope
	b.produce = func(rec *kgo.Record) {
		env, _ := decode(t, rec)
		got = append(got, env)
	}
	b.add(&kgo.Record{Topic: "a", Value: []byte("{}")}, spec, [16]byte{1})
	if len(got) != 1 || !reflect.DeepEqual(got[0].Splice, splice) || !reflect.DeepEqual(got[0].Attributes, attributes) {
		t.Errorf("got %+v", got)
	}
}

// Records of one batch must not share memory that a later one writes to, whatever
// the sizes are, and the next batch may only use it again after reset.
func TestBatchRecordsKeepTheirBytes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(1, 700), 1, 60).Draw(rt, "fan-outs")
		x := &index{subs: map[string][]*pipeline.Subscription{}}
		for _, n := range sizes {
			x.subs[fmt.Sprint(n)] = subs(n)
		}
		b, spec := testBatch(t, x)
		for range 2 {
			var recs []*kgo.Record
			b.produce = func(r *kgo.Record) { recs = append(recs, r) }
			for i, n := range sizes {
				b.add(&kgo.Record{Topic: fmt.Sprint(n), Offset: int64(i), Value: fmt.Append(nil, i)}, spec, [16]byte{1})
			}
			got := map[int64]int{}
			for _, r := range recs {
				var env pipeline.Envelope
				if err := kafkax.DecodeEnvelope(r.Headers[0].Value, &env); err != nil {
					rt.Fatal(err)
				}
				ids, err := kafkax.DecodeSubs(r.Headers[1].Value, nil)
				if err != nil {
					rt.Fatal(err)
				}
				if !bytes.Equal(r.Value, fmt.Append(nil, env.Source.Offset)) {
					rt.Fatalf("event %d has the payload %q", env.Source.Offset, r.Value)
				}
				got[env.Source.Offset] += len(ids)
			}
			for i, n := range sizes {
				if got[int64(i)] != n {
					rt.Fatalf("event %d went to %d of %d subscriptions", i, got[int64(i)], n)
				}
			}
			b.reset(true)
		}
	})
}

func BenchmarkBatch(b *testing.B) {
	for _, fan := range []int{0, 1, 10, 1000} {
		b.Run(fmt.Sprintf("fan%d", fan), func(b *testing.B) {
			x := &index{subs: map[string][]*pipeline.Subscription{"a": subs(fan)}}
			bt, spec := testBatch(b, x)
			rec := &kgo.Record{Topic: "a", Value: make([]byte, 1000), Timestamp: time.Now()}
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				bt.add(rec, spec, [16]byte{1})
				if n%100 == 99 {
					bt.reset(true)
				}
			}
		})
	}
}

// A producer's trace context travels with the event, at no allocation where it
// has no tracestate.
func TestDeliveriesCarryTheTrace(t *testing.T) {
	b, spec := testBatch(t, one())
	var got pipeline.Envelope
	b.produce = func(rec *kgo.Record) { got, _ = decode(t, rec) }
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	rec := &kgo.Record{Topic: "a", Value: []byte("{}"), Timestamp: time.Now(), Headers: []kgo.RecordHeader{
		{Key: "other", Value: []byte("x")}, {Key: "traceparent", Value: []byte(parent)}, {Key: "tracestate", Value: []byte("a=b")},
	}}
	b.add(rec, spec, [16]byte{1})
	if p := string(got.Trace.AppendParent(nil)); p != parent || got.Trace.State != "a=b" {
		t.Errorf("got %s, %q", p, got.Trace.State)
	}
	rec.Headers[1].Value = []byte("nonsense")
	b.add(rec, spec, [16]byte{1})
	if got.Trace.Valid() {
		t.Errorf("nonsense is passed on: %+v", got.Trace)
	}
	rec.Headers = []kgo.RecordHeader{{Key: "traceparent", Value: []byte(parent)}}
	b.reset(true)
	b.produce = func(*kgo.Record) {}
	if n := testing.AllocsPerRun(100, func() { b.add(rec, spec, [16]byte{1}); b.reset(true) }); n != 0 {
		t.Errorf("%v allocations for a traced event", n)
	}
}
