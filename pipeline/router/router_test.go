package router

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

const spec = "ev=json:type=/t,entity=/e,id=/id"

func TestFanOut(t *testing.T) {
	b := newBench(t, spec)
	b.topic("ev", 2)
	many := `{"t":"many","e":"order/1","id":"x1"}`
	b.produce(event("ev", 0, `{"t":"nobody"}`), event("ev", 1, many), event("ev", 1, `{"t":"a"}`))
	_, stop := b.start()
	recs := b.read("hookline.deliveries", 7)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	seen, records := map[string]bool{}, map[string]int{}
	for _, r := range b.all("hookline.deliveries") {
		env, ids := decode(t, r)
		records[env.EventType]++
		if len(ids) > kafkax.MaxSubs {
			t.Errorf("a record goes to %d subscriptions", len(ids))
		}
		for _, id := range ids {
			if kafkax.Partition(id, 6) != r.Partition {
				t.Errorf("%s is in partition %d", id, r.Partition)
			}
			if env.EventType == "many" && seen[id] {
				t.Errorf("%s is there twice", id)
			}
			seen[id] = true
		}
		if env.EventType != "many" {
			continue
		}
		id, err := kafkax.NewFetcher(b.cl).TopicID(b.ctx(), "ev")
		want := pipeline.Position{Cluster: "c1", TopicID: id, Topic: "ev", Partition: 1, Offset: 0}
		if err != nil || env.Source != want || env.EventID != "x1" || env.Entity != "order/1" || env.RegistryVersion != 7 || env.Format != "json" || env.ProducedAt.IsZero() {
			t.Errorf("envelope %+v", env)
		}
		if string(r.Value) != many {
			t.Errorf("payload %q", r.Value)
		}
	}
	if len(seen) != 1000 || records["many"] != 6 || records["a"] != 1 || len(recs) != 7 {
		t.Errorf("%d subscriptions, records %v", len(seen), records)
	}
	for key, want := range map[string]int{"json/routed": 2, "json/unmatched": 1, "json/dead": 0} {
		if got := b.count.get(key); got != want {
			t.Errorf("%s is %d, want %d", key, got, want)
		}
	}
}

func TestListsAreChunked(t *testing.T) {
	b := newBench(t, spec)
	b.kafka.Partitions = 6
	same := make([]*pipeline.Subscription, 0, 600)
	for i := 0; len(same) < 600; i++ {
		if id := fmt.Sprintf("s%d", i); kafkax.Partition(id, 6) == 3 {
			same = append(same, &pipeline.Subscription{ID: id})
		}
	}
	x := &index{subs: map[string][]*pipeline.Subscription{"a": same}}
	b.deps.Matcher = func() Matcher { return x }
	b.topic("ev", 1)
	b.produce(event("ev", 0, `{"t":"a"}`))
	b.start()
	var sizes []int
	for _, r := range b.read("hookline.deliveries", 3) {
		_, ids := decode(t, r)
		sizes = append(sizes, len(ids))
	}
	if fmt.Sprint(sizes) != "[256 256 88]" {
		t.Errorf("lists of %v", sizes)
	}
}

var errCrash = errors.New("crash")

func TestExactlyOnceAcrossCrashes(t *testing.T) {
	b := newBench(t, spec)
	b.kafka.InstanceID = "pod-0" // the next process ends the last one's transaction
	b.topic("ev", 3)
	const events = 300
	var recs []*kgo.Record
	for i := range events {
		recs = append(recs, event("ev", int32(i%3), fmt.Sprintf(`{"t":"a","id":"n%d"}`, i)))
	}
	b.produce(recs...)
	crashes := 0
	b.deps.beforeEnd = func(context.Context) error { crashes++; return errCrash }
	for range 2 {
		r, err := New(b.cfg, b.deps)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(b.ctx()); !errors.Is(err, errCrash) {
			t.Fatalf("the run ended with %v", err)
		}
	}
	if crashes != 2 {
		t.Fatalf("%d crashes", crashes)
	}
	if f, err := kafkax.NewFetcher(b.cl).EndOffsets(b.ctx(), "hookline.deliveries"); err != nil || f["hookline.deliveries"][kafkax.Partition("sub-0000", 6)] < events {
		t.Fatalf("the crashed runs left nothing behind: %v, %v", f, err)
	}
	b.deps.beforeEnd = nil
	_, stop := b.start()
	b.read("hookline.deliveries", events)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, r := range b.all("hookline.deliveries") {
		env, _ := decode(t, r)
		got[env.EventID]++
	}
	for i := range events {
		if n := got[fmt.Sprintf("n%d", i)]; n != 1 {
			t.Errorf("event %d was routed %d times", i, n)
		}
	}
	if n := b.count.get("json/routed"); n != events {
		t.Errorf("counted %d", n)
	}
}

func TestAbortedTransactionsAreRoutedAgain(t *testing.T) {
	for name, fault := range map[string]kfake.Fault{
		"produce":       {Keys: []kmsg.Key{kmsg.Produce}, Topic: "hookline.deliveries", Err: kerr.TopicAuthorizationFailed, Count: 2},
		"offset commit": {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.UnknownServerError, Count: 2},
		"end":           {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.UnknownServerError, Count: 1},
		"fenced":        {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ProducerFenced, Count: 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, spec)
			b.topic("ev", 1)
			h := b.broker.Fault(fault)
			var recs []*kgo.Record
			for i := range 20 {
				recs = append(recs, event("ev", 0, fmt.Sprintf(`{"t":"a","id":"n%d"}`, i)))
			}
			b.produce(recs...)
			_, stop := b.start()
			b.read("hookline.deliveries", 20)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			got := map[string]int{}
			for _, r := range b.all("hookline.deliveries") {
				env, _ := decode(t, r)
				got[env.EventID]++
			}
			if h.Hits() == 0 {
				t.Fatal("the fault did not happen")
			}
			for i := range 20 {
				if n := got[fmt.Sprintf("n%d", i)]; n != 1 {
					t.Errorf("event %d was routed %d times", i, n)
				}
			}
		})
	}
}

func TestBadRecordsGoToDead(t *testing.T) {
	b := newBench(t, spec)
	b.kafka.EventMaxBytes = 2 << 10
	b.topic("ev", 1)
	parse := NewParser()
	b.deps.Parse = func(rec *kgo.Record, spec *TopicSpec, src *pipeline.Position, ev *pipeline.Event) error {
		if string(rec.Key) == "panic" {
			panic("a parser's bug")
		}
		return parse(rec, spec, src, ev)
	}
	bad := event("ev", 0, `{"t":`)
	bad.Key, bad.Headers = []byte("k"), []kgo.RecordHeader{{Key: "h", Value: []byte{0, 255}}, {Key: "h", Value: nil}}
	panics := event("ev", 0, `{"t":"a"}`)
	panics.Key = []byte("panic")
	large := event("ev", 0, `{"t":"a","x":"`+strings.Repeat("y", 3<<10)+`"}`)
	huge := event("ev", 0, `{"t":"a","x":"`+strings.Repeat("z", 200<<10)+`"}`)
	long := event("ev", 0, `{"t":"a"}`)
	tombstone := &kgo.Record{Topic: "ev", Key: []byte("gone")}
	b.produce(bad, panics, large, huge, tombstone, long)
	_, stop := b.start()
	dead := b.read("hookline.events.dead", 5)
	b.read("hookline.deliveries", 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for i, r := range dead {
		if src := header(r, "hookline-source"); src != fmt.Sprintf("ev/0/%d", i) || header(r, "hookline-error") == "" || strings.ContainsAny(header(r, "hookline-error"), "\r\n") {
			t.Errorf("letter %d: source %q, error %q", i, src, header(r, "hookline-error"))
		}
	}
	first := dead[0]
	if string(first.Value) != string(bad.Value) || string(first.Key) != "k" || len(first.Headers) != 4 ||
		string(first.Headers[0].Value) != "\x00\xff" || first.Headers[1].Key != "h" {
		t.Errorf("the letter differs from the record: %q %q %v", first.Key, first.Value, first.Headers)
	}
	if !strings.Contains(header(dead[1], "hookline-error"), "panicked") {
		t.Errorf("got %q", header(dead[1], "hookline-error"))
	}
	if string(dead[2].Value) != string(large.Value) {
		t.Error("a record over the limit that fits was cut")
	}
	if h := dead[3]; len(h.Value) != deadHead || header(h, headerOriginalBytes) != fmt.Sprint(len(huge.Value)) || len(header(h, headerOriginalSHA256)) != 64 {
		t.Errorf("%d bytes of %q kept", len(h.Value), header(h, headerOriginalBytes))
	}
	if dead[4].Value != nil {
		t.Error("a tombstone became something else")
	}
	if n := b.count.get("json/dead"); n != 5 {
		t.Errorf("counted %d", n)
	}
}

func TestAttributesThatAreTooLong(t *testing.T) {
	b := newBench(t, spec)
	b.topic("ev", 1)
	b.produce(event("ev", 0, `{"t":"a","e":"`+strings.Repeat("e", maxEnvelope)+`"}`), event("ev", 0, `{"t":"a","id":"ok"}`))
	b.start()
	if dead := b.read("hookline.events.dead", 1); !strings.Contains(header(dead[0], "hookline-error"), "attributes") {
		t.Errorf("got %q", header(dead[0], "hookline-error"))
	}
	if env, ids := decode(t, b.read("hookline.deliveries", 1)[0]); env.EventID != "ok" || len(ids) != 1 {
		t.Errorf("got %+v %v", env, ids)
	}
}

func TestNothingIsConsumedBeforeTheRegistryIsRead(t *testing.T) {
	b := newBench(t, spec)
	b.topic("ev", 1)
	b.produce(event("ev", 0, `{"t":"a"}`))
	var loaded atomic.Pointer[index]
	asked := make(chan struct{}, 1000)
	b.deps.Matcher = func() Matcher {
		select {
		case asked <- struct{}{}:
		default:
		}
		if x := loaded.Load(); x != nil {
			return x
		}
		return nil
	}
	b.start()
	for range 5 {
		<-asked
	}
	if g := b.broker.GroupInfo(b.kafka.RouterGroup()); g != nil {
		t.Errorf("the router joined its group: %+v", g)
	}
	if got := b.all("hookline.deliveries"); len(got) != 0 {
		t.Errorf("%d records were routed", len(got))
	}
	loaded.Store(one())
	b.read("hookline.deliveries", 1)
}

// TestStaleRegistryIsNotMatchedWith: a process was frozen, wakes, and gets the
// events of that time before its registry has read what was applied meanwhile.
func TestStaleRegistryIsNotMatchedWith(t *testing.T) {
	b := newBench(t, spec)
	b.topic("ev", 1)
	var x atomic.Pointer[index]
	x.Store(&index{version: 1})          // nothing takes anything
	var frozen atomic.Pointer[time.Time] // nil: what is known is of now, however long the router takes
	var asked atomic.Int64
	b.deps.Matcher = func() Matcher { return x.Load() }
	b.deps.MatcherReadAt = func() time.Time {
		asked.Add(1)
		if at := frozen.Load(); at != nil {
			return *at
		}
		return time.Now()
	}
	b.start()
	b.produce(event("ev", 0, `{"t":"a","id":"before"}`))
	b.eventually("an event that nobody takes is counted", func() bool { return b.count.get("json/unmatched") == 1 })
	before := time.Now().Add(-staleAfter - time.Second)
	frozen.Store(&before)
	b.produce(event("ev", 0, `{"t":"a","id":"meanwhile"}`))
	seen := asked.Load()
	b.eventually("it has looked five times, or has matched", func() bool { return asked.Load() >= seen+5 || b.count.get("json/unmatched") > 1 })
	if n := b.count.get("json/unmatched"); n != 1 {
		t.Fatalf("%d events were matched with what was known before", n-1)
	}
	x.Store(one())
	frozen.Store(nil)
	if env, ids := decode(t, b.read("hookline.deliveries", 1)[0]); len(ids) != 1 {
		t.Errorf("got %+v %v", env, ids)
	}
}

func TestIdleRouterRoutesAtOnce(t *testing.T) {
	b := newBench(t, spec)
	b.cfg.Interval = time.Second // an idle router must not wait for it
	b.topic("ev", 1)
	b.produce(event("ev", 0, `{"t":"a"}`))
	r, _ := b.start()
	b.read("hookline.deliveries", 1)
	base, err := b.kafka.ClientOpts(nil)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(base, kgo.ConsumeTopics("hookline.deliveries"), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	cl.PollFetches(b.ctx()) // the first one
	best := time.Hour       // one that waits for its interval makes all of them wait, a busy machine some
	for range 3 {
		b.eventually("the router is idle", r.idle.Load)
		sleep(b.ctx(), 1100*time.Millisecond) // the interval passes
		began := time.Now()
		b.produce(event("ev", 0, `{"t":"a"}`))
		if cl.PollFetches(b.ctx()).NumRecords() != 1 {
			t.Fatal("not one record")
		}
		best = min(best, time.Since(began))
	}
	t.Logf("fastest of three: %v", best)
	if best > 700*time.Millisecond {
		t.Errorf("each event took %v or more through an idle router", best)
	}
}

func TestGracefulStopLeavesTheGroupAndLosesNothing(t *testing.T) {
	for _, instance := range []string{"", "pod-1"} {
		t.Run("instance "+instance, func(t *testing.T) {
			b := newBench(t, spec)
			b.kafka.InstanceID = instance
			b.topic("ev", 1)
			b.produce(event("ev", 0, `{"t":"a"}`))
			_, stop := b.start()
			b.read("hookline.deliveries", 1)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if g := b.broker.GroupInfo(b.kafka.RouterGroup()); g != nil && len(g.Members) != 0 {
				t.Errorf("members stayed: %+v", g.Members)
			}
			b.produce(event("ev", 0, `{"t":"a","id":"second"}`))
			began := time.Now()
			b.start()
			b.read("hookline.deliveries", 2)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("the next router took %v to begin", took)
			}
		})
	}
}

func TestTwoRoutersShareAndHandOver(t *testing.T) {
	b := newBench(t, spec)
	b.topic("ev", 4)
	_, stop1 := b.start()
	_, stop2 := b.start()
	const events = 400
	for i := range events {
		b.produce(event("ev", int32(i%4), fmt.Sprintf(`{"t":"a","id":"n%d"}`, i)))
		if i == events/2 {
			if err := stop1(); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.read("hookline.deliveries", events)
	if err := stop2(); err != nil {
		t.Fatal(err)
	}
	if got := b.all("hookline.deliveries"); len(got) != events {
		t.Errorf("%d records for %d events", len(got), events)
	}
}

func TestGapIsReported(t *testing.T) {
	b := newBench(t, spec)
	b.topic("ev", 1)
	b.produce(event("ev", 0, `{"t":"a","id":"n0"}`))
	_, stop := b.start()
	b.read("hookline.deliveries", 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 5; i++ {
		b.produce(event("ev", 0, fmt.Sprintf(`{"t":"a","id":"n%d"}`, i)))
	}
	var cut kadm.Offsets
	cut.Add(kadm.Offset{Topic: "ev", Partition: 0, At: 4})
	if _, err := kadm.NewClient(b.cl).DeleteRecords(b.ctx(), cut); err != nil {
		t.Fatal(err)
	}
	b.start()
	recs := b.read("hookline.deliveries", 3)
	if env, _ := decode(t, recs[1]); env.EventID != "n4" {
		t.Errorf("went on at %s", env.EventID)
	}
	if n := b.count.get("json/gap"); n != 3 {
		t.Errorf("a gap of 3 was counted as %d", n)
	}
}
