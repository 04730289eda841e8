package kafkax

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Kafka 4.4 can lose the end of a transaction that it has committed, in some of
// the partitions: a broker that goes down, and has no other beside it, takes those
// that it has given up already for deleted, and passes over them. What the
// transaction wrote there then waits for the next end of the same producer: if that
// is a commit, it is read, late; if it is an abort, as of the transaction that was
// open when the broker went down, it is aborted with it, although its offsets are
// committed. (Seen in the logs of partitions: records of epoch e, no marker of
// epoch e+1, records of e+1, an abort of e+2; the marker of e+1 is there in the
// other partitions.)
//
// So whoever takes a transactional id anew, and knows what it had committed under
// it, looks whether that is so.

// writtenFor is for how long it is known where a transaction wrote. The markers of
// one are written within milliseconds: what can lack some is the last one that wrote
// to its partition before a broker went down.
const writtenFor = time.Minute

// Span is where records of one transaction are in a partition, from the first to
// the last offset. Others' may be between them.
type Span struct {
	At          TopicPartition
	Producer    int64
	First, Last int64
}

// Spans gives where records are that were acknowledged, of one transaction.
func Spans(recs iter.Seq[*kgo.Record]) []Span {
	at := map[TopicPartition]*Span{}
	for rec := range recs {
		p := TopicPartition{rec.Topic, rec.Partition}
		s := at[p]
		if s == nil {
			s = &Span{At: p, Producer: rec.ProducerID, First: rec.Offset, Last: rec.Offset}
			at[p] = s
		}
		s.First, s.Last = min(s.First, rec.Offset), max(s.Last, rec.Offset)
	}
	out := make([]Span, 0, len(at))
	for _, s := range at {
		out = append(out, *s)
	}
	return out
}

// Written is where the last transaction that Kafka said it had committed wrote to
// each partition. One is enough: a partition that takes a later one's records has
// not been given up when the one before ended. It belongs to one goroutine; the zero
// value is empty.
type Written struct {
	last map[TopicPartition]writtenAt
}

type writtenAt struct {
	span Span
	at   time.Time
}

// Note takes in a transaction that is committed.
func (w *Written) Note(now time.Time, spans []Span) {
	if w.last == nil {
		w.last = map[TopicPartition]writtenAt{}
	}
	for _, s := range spans {
		w.last[s.At] = writtenAt{s, now}
	}
}

// Recent gives what was written within the minute before the last transaction,
// however long ago that was.
func (w *Written) Recent() []Span {
	var newest time.Time
	for _, x := range w.last {
		if x.at.After(newest) {
			newest = x.at
		}
	}
	var out []Span
	for _, x := range w.last {
		if newest.Sub(x.at) < writtenFor {
			out = append(out, x.span)
		}
	}
	return out
}

// Settle leaves out what outcomes say is committed: there is no need to look again.
func (w *Written) Settle(outcomes []Outcome) {
	for _, o := range outcomes {
		if o.End == EndCommitted && w.last[o.At].span == o.Span {
			delete(w.last, o.At)
		}
	}
}

// Forget empties w.
func (w *Written) Forget() { clear(w.last) }

// Outcome is what became of a span.
type Outcome struct {
	Span
	End     End
	Records []*kgo.Record // in their order, where they are not committed
}

// Open gives the partitions of outcomes that nothing has ended.
func Open(outcomes []Outcome) (at []TopicPartition) {
	for _, o := range outcomes {
		if o.End == EndOpen {
			at = append(at, o.At)
		}
	}
	return at
}

// Aborted gives the records of outcomes that are aborted.
func Aborted(outcomes []Outcome) (recs []*kgo.Record) {
	for _, o := range outcomes {
		if o.End == EndAborted {
			recs = append(recs, o.Records...)
		}
	}
	return recs
}

// Again gives records to be written in the place of those that were lost, in their
// partitions.
func Again(lost []*kgo.Record) []*kgo.Record {
	recs := make([]*kgo.Record, len(lost))
	for i, rec := range lost {
		recs[i] = &kgo.Record{Topic: rec.Topic, Partition: rec.Partition, Key: rec.Key, Value: rec.Value, Headers: rec.Headers}
	}
	return recs
}

// What is told of it, by whoever makes it good.
const (
	HungEnded     = "records that Kafka had committed were without an end in some partitions, as a broker went down; they have one now"
	LostRewritten = "Kafka had aborted records of transactions that it had committed, as a broker went down; they are written again"
	LeftUnknown   = "what an earlier process may have left hanging is not known"
	LostRemedy    = "nothing is to be done; three brokers and HOOKLINE_REPLICATION=3 do not have that fault"
)

// Without gives what of at is not in others.
func Without(at, others []TopicPartition) []TopicPartition {
	return slices.DeleteFunc(at, func(p TopicPartition) bool { return slices.Contains(others, p) })
}

// AnyCommitted tells whether one of outcomes is committed: of one transaction that
// tells of all.
func AnyCommitted(outcomes []Outcome) bool {
	return slices.ContainsFunc(outcomes, func(o Outcome) bool { return o.End == EndCommitted })
}

// Outcomes reads the partitions from the spans to their present ends. What is under
// way for the spans' producers must have been ended before, by taking their
// transactional id.
func (f *Fetcher) Outcomes(ctx context.Context, spans []Span) ([]Outcome, error) {
	of, parts := map[TopicPartition][]*Outcome{}, map[TopicPartition]Range{}
	out := make([]Outcome, len(spans))
	for i, s := range spans {
		out[i].Span = s
		if of[s.At] = append(of[s.At], &out[i]); len(of[s.At]) == 1 || s.First < parts[s.At].From {
			parts[s.At] = Range{From: s.First}
		}
	}
	find := func(rec *kgo.Record) *Outcome {
		for _, o := range of[TopicPartition{rec.Topic, rec.Partition}] {
			if o.Producer == rec.ProducerID && o.First <= rec.Offset && rec.Offset <= o.Last {
				return o
			}
		}
		return nil
	}
	err := f.Ends(ctx, parts, func(rec *kgo.Record) bool { return find(rec) != nil }, func(rec *kgo.Record, end End) {
		o := find(rec)
		if o.End = end; end != EndCommitted {
			o.Records = append(o.Records, rec)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("looking what became of transactions: %w", err)
	}
	return out, nil
}
