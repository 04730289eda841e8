package kafkax

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
)

// TestOutcomes: transactions of two producers, in one partition, that are committed,
// aborted and open; and one of which nothing is left.
func TestOutcomes(t *testing.T) {
	addrs := testkit.KFake(t).ListenAddrs()
	producer := func(id string) *kgo.Client {
		cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		return cl
	}
	one, other := producer("one"), producer("other")
	adm := kadm.NewClient(one)
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	begin := func(cl *kgo.Client, values ...string) []Span {
		t.Helper()
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		var recs []*kgo.Record
		for _, v := range values {
			recs = append(recs, &kgo.Record{Topic: "t", Value: []byte(v)})
		}
		if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		return Spans(slices.Values(recs))
	}
	end := func(cl *kgo.Client, how kgo.TransactionEndTry) {
		t.Helper()
		if err := cl.EndTransaction(t.Context(), how); err != nil {
			t.Fatal(err)
		}
	}
	deleted := begin(one, "x")
	end(one, kgo.TryCommit)
	if _, err := adm.DeleteRecords(t.Context(), kadm.Offsets{"t": {0: {Topic: "t", At: deleted[0].Last + 2}}}); err != nil {
		t.Fatal(err)
	}
	open := begin(other, "o1", "o2")
	committed := begin(one, "c")
	end(one, kgo.TryCommit)
	aborted := begin(one, "a1", "a2")
	end(one, kgo.TryAbort)

	got, err := NewFetcher(one).Outcomes(t.Context(), slices.Concat(deleted, open, committed, aborted))
	if err != nil || len(got) != 4 {
		t.Fatalf("%d outcomes, %v", len(got), err)
	}
	for i, want := range []struct {
		end     End
		records int
	}{{EndUnknown, 0}, {EndOpen, 2}, {EndCommitted, 0}, {EndAborted, 2}} {
		if got[i].End != want.end || len(got[i].Records) != want.records {
			t.Errorf("span %+v: end %d, %d records; want %d, %d", got[i].Span, got[i].End, len(got[i].Records), want.end, want.records)
		}
	}
	if at := Open(got); len(at) != 1 || at[0] != (TopicPartition{"t", 0}) || !AnyCommitted(got) {
		t.Errorf("open %v", at)
	}
	held, err := HeldBy(t.Context(), other, "t")
	if err != nil || len(held) != 1 {
		t.Errorf("the other holds %v, %v", held, err)
	}
	end(other, kgo.TryAbort)
}

// TestWritten keeps the last transaction of each partition, for a while.
func TestWritten(t *testing.T) {
	var w Written
	at := func(p int32) TopicPartition { return TopicPartition{"t", p} }
	now := time.Now()
	w.Note(now, []Span{{At: at(0), First: 1, Last: 2}, {At: at(1), First: 5, Last: 5}})
	w.Note(now.Add(writtenFor-1), []Span{{At: at(0), First: 8, Last: 9}})
	if got := w.Recent(); len(got) != 2 || !slices.Contains(got, Span{At: at(0), First: 8, Last: 9}) {
		t.Errorf("got %+v", got)
	}
	w.Note(now.Add(writtenFor), []Span{{At: at(2), First: 1, Last: 1}})
	if got := w.Recent(); len(got) != 2 || slices.ContainsFunc(got, func(s Span) bool { return s.At == at(1) }) {
		t.Errorf("after a minute: %+v", got)
	}
	if w.Forget(); len(w.Recent()) != 0 {
		t.Error("it is not empty")
	}
}
