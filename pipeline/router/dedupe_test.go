package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const dedupeSpec = spec + ",dedupe=event_id,window=1m"

var dedupeEpoch = time.UnixMilli(1_800_000_000_000)

// at is an event of topic ev, partition 0, some seconds after the epoch.
func at(seconds int, id string) *kgo.Record {
	r := event("ev", 0, fmt.Sprintf(`{"t":"a","id":%q}`, id))
	r.Timestamp = dedupeEpoch.Add(time.Duration(seconds) * time.Second)
	return r
}

// routeAll runs a router until the records so far, of which n are routed and the
// last one is, went through. It gives the ids of everything routed yet.
func (b *bench) routeAll(n int) string {
	b.t.Helper()
	_, stop := b.start()
	b.read("hookline.deliveries", n)
	if err := stop(); err != nil {
		b.t.Fatal(err)
	}
	return b.ids(b.all("hookline.deliveries"))
}

func (b *bench) send(recs ...*kgo.Record) {
	b.t.Helper()
	for _, r := range recs { // one by one: in this order
		b.produce(r)
	}
}

func TestDuplicatesAreRoutedOnce(t *testing.T) {
	b := newBench(t, dedupeSpec)
	b.topic("ev", 2)
	other := at(1, "x")
	other.Partition = 1
	b.send(other, at(0, "x"), at(1, "y"), at(60, "x"), at(61, "z"), at(121, "x"), at(122, "end"))
	_, stop := b.start()
	b.read("hookline.deliveries", 6)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var first, second []*kgo.Record
	for _, r := range b.all("hookline.deliveries") {
		if env, _ := decode(t, r); env.Source.Partition == 0 {
			first = append(first, r)
		} else {
			second = append(second, r)
		}
	}
	if got := b.ids(first) + b.ids(second); got != "[x y z x end][x]" {
		t.Errorf("routed %s", got)
	}
	if n := b.count.get("json/duplicate"); n != 1 || b.count.get("json/routed") != 6 {
		t.Errorf("%d duplicates: %v", n, b.count.n)
	}
}

func TestDuplicatesWithoutDedupe(t *testing.T) {
	b := newBench(t, spec)
	b.topic("ev", 1)
	b.send(at(0, "x"), at(0, "x"))
	if got := b.routeAll(2); got != "[x x]" {
		t.Errorf("routed %s", got)
	}
}

func TestDuplicatesAcrossARestart(t *testing.T) {
	b := newBench(t, dedupeSpec)
	b.topic("ev", 1)
	b.send(at(0, "old"), at(30, "x"), at(60, "y"), event("ev", 0, `{"t":`))
	if got := b.routeAll(3); got != "[old x y]" {
		t.Errorf("routed %s", got)
	}
	b.send(at(61, "old"), at(90, "x"), at(91, "y"), at(91, "z"))
	if got := b.routeAll(5); got != "[old x y old z]" {
		t.Errorf("routed %s", got)
	}
	b.send(at(150, "x"), at(151, "z"), at(152, "old"), at(153, "end"))
	if got := b.routeAll(7); got != "[old x y old z old end]" {
		t.Errorf("routed %s", got)
	}
	if n := b.count.get("json/duplicate"); n != 4 {
		t.Errorf("%d duplicates", n)
	}
}

// An aborted transaction loses no event: not those that it had noted, and a
// duplicate in it is one after it too.
func TestAbortedTransactionsLeaveNoIDs(t *testing.T) {
	for name, fault := range map[string]kfake.Fault{
		"produce":       {Keys: []kmsg.Key{kmsg.Produce}, Topic: "hookline.deliveries", Err: kerr.TopicAuthorizationFailed, Count: 2},
		"offset commit": {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.UnknownServerError, Count: 2},
		"fenced":        {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ProducerFenced, Count: 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, dedupeSpec)
			b.topic("ev", 1)
			b.send(at(0, "before"))
			r, stop := b.start()
			b.read("hookline.deliveries", 1)
			b.eventually("the router is idle", r.idle.Load)
			h := b.broker.Fault(fault)
			b.produce(at(1, "before"), at(1, "x"), at(2, "x"), at(70, "x"), at(140, "y"), at(141, "y"))
			b.read("hookline.deliveries", 3)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if got := b.ids(b.all("hookline.deliveries")); got != "[before x x y]" || h.Hits() == 0 {
				t.Errorf("routed %s after %d faults", got, h.Hits())
			}
			if n := b.count.get("json/duplicate"); n != 3 {
				t.Errorf("%d duplicates", n)
			}
		})
	}
}

func TestCrashedTransactionLosesNoEvent(t *testing.T) {
	b := newBench(t, dedupeSpec)
	b.kafka.InstanceID = "pod-0"
	b.topic("ev", 1)
	b.send(at(0, "x"), at(1, "x"), at(2, "y"))
	b.deps.beforeEnd = func(context.Context) error { return errCrash }
	r, err := New(b.cfg, b.deps)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(b.ctx()); !errors.Is(err, errCrash) {
		t.Fatalf("the run ended with %v", err)
	}
	b.deps.beforeEnd = nil
	if got := b.routeAll(2); got != "[x y]" {
		t.Errorf("routed %s", got)
	}
}

func TestDerivedIDsRepeatNone(t *testing.T) {
	b := newBench(t, "ev=json:type=/t,dedupe=event_id;own=task:dedupe=event_id,window=24h")
	b.topic("ev", 1)
	b.send(at(0, "x"), at(0, "x"), at(0, "x"))
	_, stop := b.start()
	b.read("hookline.deliveries", 3)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := b.count.get("json/routed"); n != 3 || b.count.get("json/duplicate") != 0 {
		t.Errorf("counted %v", b.count.n)
	}
}

func TestTooManyIDsAreToldOnce(t *testing.T) {
	b := newBench(t, dedupeSpec)
	var log syncBuffer
	b.deps.Log, b.deps.memoryIDs = slog.New(slog.NewTextHandler(&log, nil)), 2
	b.topic("ev", 1)
	b.send(at(0, "x"), at(1, "y"), at(2, "z"), at(3, "x"), at(4, "z"), at(5, "end"))
	if got := b.routeAll(5); got != "[x y z x end]" {
		t.Errorf("routed %s", got)
	}
	if n := b.count.get("dedupe/forgotten"); n < 3 || strings.Count(log.String(), "more event ids") != 1 || !strings.Contains(log.String(), "topic=ev partition=0 limit=2 window=1m0s") {
		t.Errorf("%d forgotten:\n%s", n, log.String())
	}
}

// Partitions that move to another router take their ids along.
func TestDuplicatesAcrossRouters(t *testing.T) {
	b := newBench(t, dedupeSpec)
	b.topic("ev", 4)
	send := func(seconds, n int, prefix string) {
		for i := range n {
			r := at(seconds, fmt.Sprint(prefix, i))
			r.Partition = int32(i % 4)
			b.produce(r)
		}
	}
	_, stop1 := b.start()
	send(0, 20, "n")
	b.read("hookline.deliveries", 20)
	_, stop2 := b.start()
	send(10, 20, "n")
	send(11, 4, "mid")
	b.read("hookline.deliveries", 24)
	if err := stop1(); err != nil {
		t.Fatal(err)
	}
	send(60, 20, "n")
	send(61, 4, "end")
	b.read("hookline.deliveries", 28)
	if err := stop2(); err != nil {
		t.Fatal(err)
	}
	if got := len(b.all("hookline.deliveries")); got != 28 || b.count.get("json/duplicate") != 40 {
		t.Errorf("%d records, counted %v", got, b.count.n)
	}
}
