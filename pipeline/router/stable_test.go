package router

import (
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// TestOffsetsThatStayUnstable: what a transaction without an end keeps from being
// read is aborted, never committed, and routed: its own id's, and one's of a process
// that is gone.
func TestOffsetsThatStayUnstable(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real Kafka")
	}
	addrs := testkit.KafkaWith(t, 1, testkit.HangProperties).Addrs()
	for name, txn := range map[string]string{"its own": "here", "another's": "gone"} {
		t.Run(name, func(t *testing.T) {
			b := &bench{t: t}
			topic, prefix := testkit.Unique(t, "ev"), testkit.Unique(t, "router")+"."
			b.connect(topic+"=json:type=/t,id=/id", prefix, addrs)
			b.kafka.InstanceID, b.deps.unstableLimit = "here", time.Second
			b.topic(topic, 1)
			group := b.kafka.RouterGroup()
			b.produce(event(topic, 0, `{"t":"a","id":"n0"}`), event(topic, 0, `{"t":"a","id":"n1"}`))
			testkit.HangOffset(t, addrs, group, group+"."+txn, topic, 2)
			at := kafkax.TopicPartition{Topic: topic}
			if got, err := kafkax.NewFetcher(b.cl).Unstable(b.ctx(), group); err != nil || len(got) != 1 || got[at] != 0 {
				t.Fatalf("unstable are %v, %v; want %v at 0", got, err, at)
			}
			r, _ := b.start()
			b.eventually("the router says why it does not route", func() bool {
				return strings.Contains(r.Stuck(), topic+"/0")
			})
			deliveries := b.kafka.Topics().Deliveries()
			if n := len(b.read(deliveries, 2)); n != 2 { // committed: it would have gone on at 2
				t.Fatalf("%d deliveries of 2 events", n)
			}
			b.eventually("the router is ready again", func() bool { return r.Stuck() == "" })
			b.produce(event(topic, 0, `{"t":"a","id":"n2"}`))
			b.read(deliveries, 3)
			if n := len(b.all(deliveries)); n != 3 {
				t.Errorf("%d deliveries of 3 events", n)
			}
		})
	}
}

// TestStabilityOfOffsets: offsets that move are not stuck, however often they wait.
func TestStabilityOfOffsets(t *testing.T) {
	var s stability
	at, began := kafkax.TopicPartition{Topic: "ev"}, time.Unix(1000, 0)
	note := func(second int, offset int64, answered bool) bool {
		var unstable map[kafkax.TopicPartition]int64
		if offset >= 0 {
			unstable = map[kafkax.TopicPartition]int64{at: offset}
		}
		return s.note(began.Add(time.Duration(second)*time.Second), unstable, answered, 5*time.Second) != nil
	}
	for i := range 20 {
		if note(i, int64(i), true) {
			t.Fatalf("an offset that moves is stuck at %d", i)
		}
	}
	if note(23, 19, true) || note(24, -1, false) || note(25, 19, true) || note(29, 19, true) {
		t.Error("time without an answer counted")
	}
	if !note(30, 19, true) || s.explain == "" {
		t.Error("a stuck offset was not told")
	}
	if note(31, 19, true) {
		t.Error("it was told again at once")
	}
	if due, before, last := s.take(); !due || before != 0 || !last.IsZero() {
		t.Errorf("take: %t, %d, %v", due, before, last)
	}
	if !note(35, 19, true) {
		t.Error("it was not told again")
	}
	if _, before, _ := s.take(); before != 1 {
		t.Errorf("%d mends before", before)
	}
	if note(36, -1, true) || s.explain != "" || s.last.IsZero() {
		t.Error("stable offsets were not noted")
	}
}
