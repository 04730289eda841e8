package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// missed counts what is missing by topic.
type missed struct {
	nopMetrics
	mu sync.Mutex
	by map[string]int64 // under mu
}

func (m *missed) Missing(topic string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.by == nil {
		m.by = map[string]int64{}
	}
	m.by[topic] += n
}

func (m *missed) of(topic string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.by[topic]
}

func (b *bench) cut(topic string, below int64) {
	b.t.Helper()
	at := kadm.Offsets{}
	at.AddOffset(topic, 0, below, -1)
	if _, err := kadm.NewClient(b.cl).DeleteRecords(b.t.Context(), at); err != nil {
		b.t.Fatal(err)
	}
}

// Somebody deletes deliveries, parked and retry records that are needed: what is
// left is delivered, in order, and what is not is counted.
func TestDeletedRecordsAreCounted(t *testing.T) {
	b := newBench(t, testkit.KFake(t).ListenAddrs(), 1, sub("s", nil))
	topics := b.kafka.Topics()
	b.ledger.setAnswer(func(string, int, int) (pipeline.Outcome, time.Duration) { return pipeline.OutcomeResponseError, 0 })
	slow := func(cfg *Config) {
		minute := kafkax.Duration(time.Minute)
		cfg.RetryDelays = []kafkax.Duration{minute, minute, minute}
	}
	r := b.start(slow)
	for range 4 {
		b.event("s")
	}
	b.ledger.await(t, "three parked", func() bool { return len(b.read(topics.Parked())) == 3 })
	r.stop(t)
	for range 3 { // 4 to 6, while no dispatcher runs
		b.event("s")
	}
	b.ledger.await(t, "seven deliveries", func() bool { return len(b.read(topics.Deliveries())) == 7 })
	parked := b.read(topics.Parked())
	b.cut(topics.Parked(), parked[2].Offset)                    // 1 and 2 are gone
	b.cut(topics.Deliveries(), 5)                               // 4 too
	b.cut(topics.Retry(1), b.read(topics.Retry(1))[0].Offset+1) // and the head, 0, with its origin
	counts := &missed{}
	b.metrics = counts
	b.ledger.setAnswer(func(string, int, int) (pipeline.Outcome, time.Duration) { return pipeline.OutcomeSuccess, 0 })
	r = b.start(nil)
	b.ledger.await(t, "what is left", func() bool { return b.ledger.successes() == 3 })
	r.stop(t)
	var got []int
	for _, x := range b.ledger.of("s") {
		if x.ok {
			got = append(got, x.seq)
		}
	}
	if jsonOf(got) != "[3,5,6]" {
		t.Errorf("delivered %v, want 3, 5 and 6", got)
	}
	if n := counts.of(topics.Deliveries()); n != 1 {
		t.Errorf("%d deliveries are counted as missing, want 1", n)
	}
	if n := counts.of(topics.Parked()); n < 2 {
		t.Errorf("%d parked records are counted as missing, want at least 2", n)
	}
	if counts.of(topics.Retry(1)) == 0 {
		t.Error("the retry record is not counted as missing")
	}
	dead := b.read(topics.Dead())
	if len(dead) != 1 || string(header(dead[0], kafkax.HeaderReason)) != string(pipeline.DeadUnreadable) {
		t.Errorf("%d dead records, want one for the head of which nothing is left", len(dead))
	}
}

// A deliveries topic that was made anew is not read by what is known of the one
// that was: its first deliveries would count as settled.
func TestDeliveriesMadeAnewAreNotSkipped(t *testing.T) {
	b := newBench(t, testkit.KFake(t).ListenAddrs(), 1, sub("s", nil))
	r := b.start(nil)
	for range 5 {
		b.event("s")
	}
	b.ledger.await(t, "five", func() bool { return b.ledger.successes() == 5 })
	r.stop(t)
	adm := kadm.NewClient(b.cl)
	if _, err := adm.DeleteTopics(t.Context(), b.kafka.Topics().Deliveries()); err != nil {
		t.Fatal(err)
	}
	base, err := b.kafka.ClientOpts(nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.cl, err = kgo.NewClient(append(base, kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.cl.Close)
	if _, err := kafkax.EnsureTopics(t.Context(), kadm.NewClient(b.cl), &b.kafka); err != nil {
		t.Fatal(err)
	}
	b.event("s")
	var log lines
	b.log = slog.New(slog.NewTextHandler(&log, nil))
	r = b.start(nil)
	b.ledger.await(t, "the reason", func() bool { return strings.Contains(log.String(), "it was made anew or lost records") })
	if r.d.Ready() {
		t.Error("ready with a partition that nobody works on")
	}
	r.stop(t)
	if n := len(b.ledger.of("s")); n != 5 {
		t.Errorf("%d tries, want 5", n)
	}
}

// lines collects a log.
type lines struct {
	mu  sync.Mutex
	buf strings.Builder
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

// An older dispatcher beside a newer router: what it cannot read waits, with what
// is behind it, and is neither skipped nor buried.
func TestRecordsOfANewerVersionWait(t *testing.T) {
	b := newBench(t, testkit.KFake(t).ListenAddrs(), 1, sub("s", nil))
	newer := kafkax.EncodeEnvelope(nil, &pipeline.Envelope{EventID: "e", EventType: "t"})
	newer[0]++
	if err := kafkax.DecodeEnvelope(newer, new(pipeline.Envelope)); !errors.Is(err, kafkax.ErrNewer) {
		t.Fatal(err)
	}
	r := b.start(nil)
	b.event("s")
	b.ledger.await(t, "the first", func() bool { return b.ledger.successes() == 1 })
	b.put(b.kafka.Topics().Deliveries(), "", "1", kafkax.HeaderEnvelope, string(newer), kafkax.HeaderSubs, string(kafkax.EncodeSubs(nil, []string{"s"})))
	b.next++
	b.event("s")
	held := func() (n int) {
		r.d.call(func() {
			for _, t := range r.d.tasks {
				n = len(t.deliveries)
			}
		})
		return n
	}
	b.ledger.await(t, "it waits", func() bool { return held() >= 1 })
	r.stop(t)
	if n := len(b.ledger.of("s")); n != 1 {
		t.Errorf("%d tries, want 1", n)
	}
	if dead := b.read(b.kafka.Topics().Dead()); len(dead) != 0 {
		t.Errorf("%d dead records, want none", len(dead))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	f := kafkax.NewFetcher(b.cl)
	at, err := f.StableOffsets(ctx, b.kafka.DispatcherGroup(), map[string][]int32{b.kafka.Topics().Deliveries(): {0}})
	if err != nil {
		t.Fatal(err)
	}
	if off := at[b.kafka.Topics().Deliveries()][0].Offset; off != 1 {
		t.Errorf("offset %d is committed, want 1: below the record that waits", off)
	}
	if heldRecord(3).Envelope.RegistryVersion != math.MaxInt64 {
		t.Error("a held record waits for a version that may come")
	}
}
