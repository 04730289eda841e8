package router

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// TestWhatIsAheadOfTheOffsetsIsNotRoutedAgain: two routers that are gone have written
// parts of an event to some partitions of deliveries, one committed, the other without
// an end; nothing of that is in the group's offsets. Then the leaders were down.
func TestWhatIsAheadOfTheOffsetsIsNotRoutedAgain(t *testing.T) {
	t.Run("kfake", func(t *testing.T) {
		b := newBench(t, spec, kfake.NumBrokers(2))
		testAhead(t, b, "ev", func() {
			topic := b.kafka.Topics().Deliveries()
			for p := range b.kafka.Partitions {
				if err := b.broker.MoveTopicPartition(topic, p, 1-b.broker.LeaderFor(topic, p)); err != nil {
					t.Fatal(err)
				}
			}
		})
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
	gone := func(id string, recs ...*kgo.Record) *kgo.Client {
		base, err := b.kafka.ClientOpts(nil)
		if err != nil {
			t.Fatal(err)
		}
		cl, err := kgo.NewClient(append(base, kgo.TransactionalID(b.kafka.RouterGroup()+"."+id), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(b.ctx(), recs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		return cl
	}
	if err := gone("committed", parts[0], parts[1]).EndTransaction(b.ctx(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	gone("open", parts[2], parts[3])
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

// TestCommitMark: what a router writes beside an offset, and what others may have.
func TestCommitMark(t *testing.T) {
	now := time.UnixMilli(1764198123456)
	for metadata, want := range map[string]bool{markCommit(now, "member-1"): true, "at=1764198123456": true, "": false, "member-1": false, "at=": false, "at=x by=y": false} {
		if at, ok := committedAt(metadata); ok != want || ok && !at.Equal(now) {
			t.Errorf("%q: %v, %v", metadata, at, ok)
		}
	}
}
