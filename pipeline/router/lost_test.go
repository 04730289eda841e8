package router

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/kafkax"
)

// TestWhatKafkaAbortedAfterItsCommitIsWrittenAgain: of three transactions that the
// router takes for committed, Kafka has aborted the records of two in a partition;
// the offsets of one of these are committed, those of the other are not.
func TestWhatKafkaAbortedAfterItsCommitIsWrittenAgain(t *testing.T) {
	b := newBench(t, spec)
	b.topic("ev", 1)
	_, stop := b.start()
	b.produce(event("ev", 0, `{"t":"a","id":"one"}`), event("ev", 0, `{"t":"a","id":"two"}`))
	routed := b.read("hookline.deliveries", 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	r, err := New(b.cfg, b.deps)
	if err != nil {
		t.Fatal(err)
	}
	base, err := b.kafka.ClientOpts(nil)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(base, kgo.TransactionalID("as the router's"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	partition := int32(0)
	transaction := func(end kgo.TransactionEndTry, of *kgo.Record, value string) {
		t.Helper()
		rec := &kgo.Record{Topic: of.Topic, Partition: partition, Value: []byte(value), Headers: of.Headers}
		partition++
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(b.ctx(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(b.ctx(), end); err != nil {
			t.Fatal(err)
		}
		r.written.Note(time.Now(), kafkax.Spans(slices.Values([]*kgo.Record{rec})))
	}
	transaction(kgo.TryCommit, routed[0], "is there")
	transaction(kgo.TryAbort, routed[1], "lost")
	transaction(kgo.TryAbort, b.asOf(routed[0], 7), "its event will be routed again")
	transaction(kgo.TryAbort, routed[0], "lost, and routed again by who had its partition then")
	twin := &kgo.Record{Topic: routed[0].Topic, Partition: partition - 1, Value: []byte("routed again"), Headers: routed[0].Headers}
	if err := b.gone("other", twin).EndTransaction(b.ctx(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	// Within a session that is enough to make it anew; what is there is not looked at again.
	if err := r.intact(b.ctx(), b.cl); err == nil || len(r.written.Recent()) != 3 {
		t.Errorf("intact: %v, with %d spans left", err, len(r.written.Recent()))
	}
	b.run(r)
	b.produce(event("ev", 0, `{"t":"a","id":"three"}`))
	var bodies []string
	for _, rec := range b.read("hookline.deliveries", 6) {
		bodies = append(bodies, string(rec.Value))
	}
	want := []string{`{"t":"a","id":"one"}`, `{"t":"a","id":"two"}`, "is there", "lost", "routed again", `{"t":"a","id":"three"}`}
	slices.Sort(bodies)
	slices.Sort(want)
	for i := range want {
		if bodies[i] != want[i] {
			t.Fatalf("got %q, want %q", bodies, want)
		}
	}
	if got := b.all("hookline.deliveries"); len(got) != len(want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
}

// TestSourceOfADeadEvent: the router's own header counts, not one of the same name
// that the event brought.
func TestSourceOfADeadEvent(t *testing.T) {
	b := newBench(t, spec)
	b.topic("ev", 1)
	b.start()
	bad := event("ev", 0, "no event")
	bad.Headers = []kgo.RecordHeader{{Key: kafkax.HeaderSource, Value: []byte("other/7/99")}}
	b.produce(bad)
	src, ok := sourceOf(b.read("hookline.events.dead", 1)[0])
	if !ok || src.Topic != "ev" || src.Partition != 0 || src.Offset != 0 {
		t.Errorf("got %+v, %v", src, ok)
	}
}

// TestWrittenIsKeptForAWhile: what a transaction wrote, and for how long that is
// known.
func TestWrittenIsKeptForAWhile(t *testing.T) {
	r := &Router{}
	b := &batch{r: r, counts: map[count]int{}, arena: make([]byte, 0, 10)}
	b.slabs = [][]outRecord{make([]outRecord, slabRecords)}
	write := func(recs ...kgo.Record) {
		b.used, b.records = 0, 0
		for _, rec := range recs {
			b.slabs[0][b.used].rec = rec
			b.used++
			b.records++
		}
	}
	now := time.Now()
	write(kgo.Record{Topic: "d", Partition: 1, Offset: 10, ProducerID: 5}, kgo.Record{Topic: "d", Partition: 1, Offset: 12, ProducerID: 5}, kgo.Record{Topic: "d", Partition: 2, Offset: 3, ProducerID: 5})
	r.written.note(now, b, kgo.TryCommit, true)
	write()
	r.written.note(now.Add(time.Hour), b, kgo.TryCommit, true) // nothing was written: nothing is forgotten
	at := func(p int32) *kafkax.Span {
		for _, s := range r.written.Recent() {
			if s.At.Partition == p {
				return &s
			}
		}
		return nil
	}
	if s := at(1); s == nil || at(2) == nil || s.First != 10 || s.Last != 12 || s.Producer != 5 {
		t.Fatalf("got %+v", r.written.Recent())
	}
	write(kgo.Record{Topic: "d", Partition: 1, Offset: 20, ProducerID: 5})
	r.written.note(now.Add(time.Minute), b, kgo.TryCommit, true)
	if s := at(1); s == nil || at(2) != nil || s.First != 20 {
		t.Fatalf("got %+v after a minute", r.written.Recent())
	}
	write(kgo.Record{Topic: "d", Partition: 3, Offset: 7, ProducerID: 5})
	r.written.note(now, b, kgo.TryCommit, false)
	if u := r.written.unsure; len(u) != 1 || u[0].First != 7 || at(3) != nil {
		t.Fatalf("unsure of %+v", u)
	}
}
