package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// TestWhatIsAheadOfTheOffsetsIsNotRoutedAgain: two routers that are gone have written
// parts of an event to some partitions of deliveries, one committed, the other without
// an end; nothing of that is in the group's offsets. Then the leaders were down.
func TestWhatIsAheadOfTheOffsetsIsNotRoutedAgain(t *testing.T) {
	t.Run("kfake", func(t *testing.T) {
		b := newBench(t, spec, kfake.NumBrokers(2))
		testAhead(t, b, "ev", b.moveLeaders)
	})
	t.Run("Kafka", func(t *testing.T) {
		if testing.Short() {
			t.Skip("starts real Kafka")
		}
		kafka := testkit.Kafka(t, 1)
		b := &bench{t: t}
		var log bytes.Buffer
		b.deps.Log = slog.New(slog.NewTextHandler(&log, nil))
		b.connect(spec, "hookline.", kafka.Addrs())
		testAhead(t, b, "ev", func() {
			kafka.Kill9(1)
			kafka.Start(1)
		})
		if strings.Contains(log.String(), kafkax.LeftUnknown) {
			t.Errorf("a new cluster has nothing left of an earlier process, but:\n%s", &log)
		}
	})
}

func testAhead(t *testing.T, b *bench, topic string, fall func()) {
	b.deps.openPatience = 100 * time.Millisecond
	b.topic(topic, 2)
	deliveries := b.kafka.Topics().Deliveries()
	_, stop := b.start()
	b.produce(event(topic, 0, `{"t":"many","id":"one"}`), event(topic, 1, `{"t":"a","id":"other"}`))
	routed := b.read(deliveries, int(b.kafka.Partitions)+1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	b.produce(event(topic, 0, `{"t":"many","id":"two"}`), event(topic, 0, `{"t":"many","id":"three"}`), event(topic, 1, `{"t":"a","id":"other still"}`))
	var parts []*kgo.Record // of event two, by partition
	for _, rec := range routed {
		if env, _ := decode(t, rec); env.EventID == "one" {
			parts = append(parts, b.asOf(rec, 1))
		}
	}
	if err := b.gone("committed", parts[0], parts[1]).EndTransaction(b.ctx(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	b.gone("open", parts[2], parts[3])
	fall()
	_, stop = b.start()
	b.read(deliveries, 3*int(b.kafka.Partitions)+2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	type of struct {
		event     string
		partition int32
	}
	got := map[of]int{}
	for _, rec := range b.all(deliveries) {
		env, _ := decode(t, rec)
		got[of{env.Source.String(), rec.Partition}]++
	}
	for at, n := range got {
		if n != 1 {
			t.Errorf("%+v was routed %d times", at, n)
		}
	}
	if n := 3*int(b.kafka.Partitions) + 2; len(got) != n {
		t.Errorf("%d parts of events, want %d", len(got), n)
	}
}

// moveLeaders gives the partitions of deliveries other leaders.
func (b *bench) moveLeaders() {
	b.t.Helper()
	topic := b.kafka.Topics().Deliveries()
	for p := range b.kafka.Partitions {
		if err := b.broker.MoveTopicPartition(topic, p, 1-b.broker.LeaderFor(topic, p)); err != nil {
			b.t.Fatal(err)
		}
	}
}

// gone writes records in a transaction of a router that is gone before its end.
func (b *bench) gone(id string, recs ...*kgo.Record) *kgo.Client {
	b.t.Helper()
	base, err := b.kafka.ClientOpts(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(base, kgo.TransactionalID(b.kafka.RouterGroup()+"."+id), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(cl.Close)
	if err := cl.BeginTransaction(); err != nil {
		b.t.Fatal(err)
	}
	if err := cl.ProduceSync(b.ctx(), recs...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
	return cl
}

// reached waits until the group has committed an offset of ev/0.
func (b *bench) reached(offset int64) {
	b.t.Helper()
	b.eventually("all is routed", func() bool {
		got, err := kafkax.NewFetcher(b.cl).StableOffsets(b.ctx(), b.kafka.RouterGroup(), map[string][]int32{"ev": {0}})
		return err == nil && got["ev"][0].Offset >= offset
	})
}

// newAheadBench is a bench of two brokers whose router has routed events, each to one
// record, and has stopped.
func newAheadBench(t *testing.T, events ...*kgo.Record) (b *bench, deliveries string) {
	t.Helper()
	b = newBench(t, spec, kfake.NumBrokers(2))
	b.deps.aheadSlack = time.Millisecond
	b.topic("ev", 2)
	deliveries = b.kafka.Topics().Deliveries()
	_, stop := b.start()
	b.produce(events...)
	b.read(deliveries, len(events))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	return b, deliveries
}

// TestAheadForMoreThanOneTransaction: who has left out the first half of what is ahead is
// killed, after the time of its commit is no more that of what it was ahead of.
func TestAheadForMoreThanOneTransaction(t *testing.T) {
	b, deliveries := newAheadBench(t, event("ev", 0, `{"t":"a","id":"one"}`))
	one := b.read(deliveries, 1)[0]
	const n = pollRecords + 500
	var events, routed []*kgo.Record
	for i := range n {
		events = append(events, event("ev", 0, fmt.Sprintf(`{"t":"a","id":"n%d"}`, i)))
		routed = append(routed, b.asOf(one, int64(1+i)))
	}
	b.produce(events...)
	if err := b.gone("committed", routed...).EndTransaction(b.ctx(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	b.moveLeaders()
	transactions := 0
	b.deps.beforeEnd = func(context.Context) error {
		if transactions++; transactions == 2 {
			return errCrash
		}
		return nil
	}
	r, err := New(b.cfg, b.deps)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(b.ctx()); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	b.deps.beforeEnd = nil
	_, stop := b.start()
	b.reached(1 + n)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := len(b.all(deliveries)); got != 1+n {
		t.Errorf("%d records of deliveries for %d events", got, 1+n)
	}
}

// TestAheadIsLookedForSinceItsOwnCommit: an operator has set one partition back, and it
// has been committed since; another one's last commit is older.
func TestAheadIsLookedForSinceItsOwnCommit(t *testing.T) {
	b, deliveries := newAheadBench(t, event("ev", 0, `{"t":"a","id":"n0"}`), event("ev", 0, `{"t":"a","id":"n1"}`), event("ev", 0, `{"t":"a","id":"n2"}`), event("ev", 1, `{"t":"a","id":"q0"}`))
	back := kadm.Offsets{}
	back.Add(kadm.Offset{Topic: "ev", Partition: 0, At: 1, LeaderEpoch: -1, Metadata: markCommit(time.Now().Add(10*time.Millisecond), "member")})
	if err := kadm.NewClient(b.cl).CommitAllOffsets(b.ctx(), b.kafka.RouterGroup(), back); err != nil {
		t.Fatal(err)
	}
	b.produce(event("ev", 1, `{"t":"a","id":"q1"}`))
	b.moveLeaders()
	_, stop := b.start()
	b.read(deliveries, 7)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(strings.Trim(b.ids(b.all(deliveries)), "[]"))
	slices.Sort(got)
	if want := "n0 n1 n1 n2 n2 q0 q1"; strings.Join(got, " ") != want {
		t.Errorf("routed %v, want %s", got, want)
	}
}

// TestAheadCannotBeLookedFor: a cluster that fails to answer what is asked for it does not
// keep events from being routed.
func TestAheadCannotBeLookedFor(t *testing.T) {
	b, deliveries := newAheadBench(t, event("ev", 0, `{"t":"a","id":"one"}`))
	b.moveLeaders()
	b.broker.ControlKey(kmsg.OffsetForLeaderEpoch.Int16(), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		b.broker.KeepControl()
		req := kreq.(*kmsg.OffsetForLeaderEpochRequest)
		if req.Topics[0].Topic != deliveries {
			return nil, nil, false // the client's own
		}
		resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
		for _, rt := range req.Topics {
			t := kmsg.NewOffsetForLeaderEpochResponseTopic()
			t.Topic = rt.Topic
			for _, rp := range rt.Partitions {
				p := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
				p.Partition, p.ErrorCode = rp.Partition, kerr.UnknownServerError.Code
				t.Partitions = append(t.Partitions, p)
			}
			resp.Topics = append(resp.Topics, t)
		}
		return resp, nil, true
	})
	b.produce(event("ev", 0, `{"t":"a","id":"two"}`))
	_, stop := b.start()
	b.read(deliveries, 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestCommitMark: what a router writes beside an offset, and what others may have.
func TestCommitMark(t *testing.T) {
	now := time.UnixMilli(1764198123456)
	for metadata, want := range map[string]bool{markCommit(now, "member-1"): true, "at=1764198123456": true, "": false, "member-1": false, "at=": false, "at=x by=y": false} {
		if at, ok := committedAt(metadata); ok != want || ok && !at.Equal(now) {
			t.Errorf("%q: %v, %v", metadata, at, ok)
		}
	}
}
