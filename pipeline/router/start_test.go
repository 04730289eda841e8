package router

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// settled waits until every partition of topic has a committed offset.
func (b *bench) settled(topic string, partitions ...int32) {
	b.t.Helper()
	b.eventually("every partition has a starting point", func() bool {
		got, err := kafkax.NewFetcher(b.cl).StableOffsets(b.ctx(), b.kafka.RouterGroup(), map[string][]int32{topic: partitions})
		if err != nil {
			b.t.Fatal(err)
		}
		for _, c := range got[topic] {
			if c.Offset < 0 {
				return false
			}
		}
		return true
	})
}

func (b *bench) ids(recs []*kgo.Record) string {
	b.t.Helper()
	var out []string
	for _, r := range recs {
		env, _ := decode(b.t, r)
		out = append(out, env.EventID)
	}
	return fmt.Sprint(out)
}

func TestStartLatestCountsOnceOnly(t *testing.T) {
	b := newBench(t, spec)
	b.cfg.Start = StartLatest
	b.topic("ev", 2)
	b.produce(event("ev", 0, `{"t":"a","id":"old0"}`), event("ev", 1, `{"t":"a","id":"old1"}`))
	_, stop := b.start()
	b.settled("ev", 0, 1)
	if err := stop(); err != nil { // without having routed anything
		t.Fatal(err)
	}
	b.produce(event("ev", 1, `{"t":"a","id":"while-down"}`))
	b.start()
	if got := b.ids(b.read("hookline.deliveries", 1)); got != "[while-down]" {
		t.Errorf("routed %s", got)
	}
	if all := b.all("hookline.deliveries"); len(all) != 1 {
		t.Errorf("routed %s", b.ids(all))
	}
}

func TestStartAtATime(t *testing.T) {
	b := newBench(t, spec)
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	b.cfg.Start = StartAt(at)
	b.topic("ev", 1)
	old, exact, late := event("ev", 0, `{"t":"a","id":"old"}`), event("ev", 0, `{"t":"a","id":"exact"}`), event("ev", 0, `{"t":"a","id":"late"}`)
	old.Timestamp, exact.Timestamp, late.Timestamp = at.Add(-time.Minute), at, at.Add(time.Minute)
	for _, r := range []*kgo.Record{old, exact, late} {
		b.produce(r)
	}
	b.start()
	if got := b.ids(b.read("hookline.deliveries", 2)); got != "[exact late]" {
		t.Errorf("routed %s", got)
	}
}

func TestPartitionsAddedLaterAreReadFromTheirBeginning(t *testing.T) {
	b := newBench(t, spec)
	b.cfg.Start = StartLatest
	b.topic("ev", 1)
	b.produce(event("ev", 0, `{"t":"a","id":"old"}`))
	_, stop := b.start()
	b.settled("ev", 0)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := kadm.NewClient(b.cl).UpdatePartitions(b.ctx(), 2, "ev"); err != nil {
		t.Fatal(err)
	}
	fresh, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if err := fresh.ProduceSync(b.ctx(), event("ev", 1, `{"t":"a","id":"new"}`)).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.start()
	if got := b.ids(b.read("hookline.deliveries", 1)); got != "[new]" {
		t.Errorf("routed %s", got)
	}
}

func TestTopicsByExpressionButNotOurOwn(t *testing.T) {
	b := newBench(t, `/.*\.?ev|hookline\..*/=json:type=/t,id=/id`)
	b.topic("shop.ev", 1)
	b.produce(event("shop.ev", 0, `{"t":"a","id":"x"}`))
	_, stop := b.start()
	b.read("hookline.deliveries", 1)
	b.produce(event("shop.ev", 0, `{"t":"a","id":"y"}`)) // had deliveries been read, it would have come before
	b.read("hookline.deliveries", 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := b.ids(b.all("hookline.deliveries")); got != "[x y]" {
		t.Errorf("routed %s", got)
	}
	if n := b.count.get("json/dead"); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}

// Two routers that see a topic first at the same time agree on where it starts.
func TestFirstSightByTwoRouters(t *testing.T) {
	b := newBench(t, spec)
	b.cfg.Start = StartLatest
	b.topic("ev", 4)
	for p := range int32(4) {
		b.produce(event("ev", p, `{"t":"a","id":"old"}`))
	}
	_, stop1 := b.start()
	_, stop2 := b.start()
	b.settled("ev", 0, 1, 2, 3)
	for i := range 40 {
		b.produce(event("ev", int32(i%4), fmt.Sprintf(`{"t":"a","id":"n%d"}`, i)))
	}
	b.read("hookline.deliveries", 40)
	if err := errors.Join(stop1(), stop2()); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, r := range b.all("hookline.deliveries") {
		env, _ := decode(t, r)
		got[env.EventID]++
	}
	if got["old"] != 0 || len(got) != 40 {
		t.Errorf("routed %v", got)
	}
}

// A topic that is made after the router has started is found.
func TestTopicThatIsMadeLater(t *testing.T) {
	b := newBench(t, spec)
	r, stop := b.start()
	b.eventually("the router waits", r.idle.Load)
	b.topic("ev", 1)
	b.produce(event("ev", 0, `{"t":"a"}`))
	b.read("hookline.deliveries", 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestReaderReadsAsTheRouterDoes(t *testing.T) {
	b := newBench(t, spec)
	read := NewReader(&b.cfg, &b.kafka)
	src := pipeline.Position{Cluster: "c1", Topic: "ev", Offset: 5}
	ev, err := read(event("ev", 0, `{"t":"a","id":"x"}`), &src)
	if err != nil || ev.Type != "a" || ev.ID != "x" || ev.Source != src {
		t.Errorf("%+v, %v", ev, err)
	}
	if _, err := read(event("other", 0, `{}`), &src); err == nil {
		t.Error("a topic without an entry was read")
	}
	if _, err := read(event("ev", 0, `{"t":`), &src); err == nil {
		t.Error("a record that is no event was read")
	}
}
