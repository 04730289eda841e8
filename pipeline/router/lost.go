package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// Kafka 4.4 can lose the end of a transaction that it has committed, in some of
// the partitions: a broker that goes down, and has no other beside it, takes those
// that it has given up already for deleted, and passes over them. What the
// transaction wrote there then waits for the next end of the same producer. If that
// is an abort, as of the transaction that was open when the broker went down, it is
// aborted with it: although its offsets are committed, so that nobody routes its
// events again. (Seen in the logs of partitions: records of epoch e, no marker of
// epoch e+1, records of e+1, an abort of e+2; the marker of e+1 is there in the
// other partitions.)
//
// So a session that is made anew looks whether what the ones before it had
// committed is so, and writes again what is not.

const (
	// keepWritten is for how long a transaction is kept: the markers of one are
	// written within milliseconds, so that only the last ones before a broker went
	// down can lack some. It counts up to the newest transaction, however long ago
	// that was.
	keepWritten = 10 * time.Second
	// restoreTimeout bounds the look at what was written.
	restoreTimeout = 20 * time.Second
	// restoreTries is how often that is tried while it fails, session after session,
	// before events are routed without it.
	restoreTries = 10
	// offsetsPatience is how long the group's offsets may wait for transactions of
	// others. What waits longer is mended otherwise, see mend.
	offsetsPatience = 5 * time.Second
)

// span is where records of one transaction are in a partition. Others' may be
// between them.
type span struct {
	at          kafkax.TopicPartition
	producer    int64
	first, last int64 // offsets
}

// written are the transactions that Kafka said it had committed. It belongs to
// Run's goroutine.
type written struct {
	list    []writtenAt
	tries   int // to find out whether all of it is there
	scratch map[kafkax.TopicPartition]*span
}

type writtenAt struct {
	at    time.Time
	spans []span
}

// note takes in what b wrote, after it was committed.
func (w *written) note(now time.Time, b *batch) {
	if b.records == 0 {
		return
	}
	if w.scratch == nil {
		w.scratch = map[kafkax.TopicPartition]*span{}
	}
	clear(w.scratch)
	for i := range b.used {
		w.add(&b.slabs[i/slabRecords][i%slabRecords].rec)
	}
	for _, rec := range b.letters {
		w.add(rec)
	}
	spans := make([]span, 0, len(w.scratch))
	for _, s := range w.scratch {
		spans = append(spans, *s)
	}
	old := slices.IndexFunc(w.list, func(x writtenAt) bool { return now.Sub(x.at) < keepWritten })
	if old < 0 {
		old = len(w.list)
	}
	w.list = append(slices.Delete(w.list, 0, old), writtenAt{now, spans})
}

func (w *written) add(rec *kgo.Record) {
	at := kafkax.TopicPartition{Topic: rec.Topic, Partition: rec.Partition}
	s := w.scratch[at]
	if s == nil {
		s = &span{at: at, producer: rec.ProducerID, first: rec.Offset, last: rec.Offset}
		w.scratch[at] = s
	}
	s.first, s.last = min(s.first, rec.Offset), max(s.last, rec.Offset)
}

// tracked is what is read of a partition.
type tracked struct {
	spans     []span
	next, end int64
	open      []*kgo.Record // ours, whose end has not come yet
}

// partitions gives what is to be read of each, as soon as ends are set.
func (w *written) partitions() map[kafkax.TopicPartition]*tracked {
	out := map[kafkax.TopicPartition]*tracked{}
	for _, x := range w.list {
		for _, s := range x.spans {
			t := out[s.at]
			if t == nil {
				t = &tracked{next: s.first}
				out[s.at] = t
			}
			t.spans, t.next = append(t.spans, s), min(t.next, s.first)
		}
	}
	return out
}

// take looks at the next record of the partition. It gives those that an abort
// has ended although their transaction was committed.
func (t *tracked) take(rec *kgo.Record) []*kgo.Record {
	t.next = rec.Offset + 1
	if !rec.Attrs.IsControl() {
		if slices.ContainsFunc(t.spans, func(s span) bool {
			return s.producer == rec.ProducerID && s.first <= rec.Offset && rec.Offset <= s.last
		}) {
			t.open = append(t.open, rec)
		}
		return nil
	}
	var key kmsg.ControlRecordKey
	if key.ReadFrom(rec.Key) != nil || len(t.open) == 0 || t.open[0].ProducerID != rec.ProducerID {
		return nil
	}
	open := t.open
	t.open = nil
	if key.Type != kmsg.ControlRecordKeyTypeAbort {
		return nil
	}
	return open
}

// restore writes again what Kafka has aborted of transactions that it had
// committed. The transactional id is ours, and nothing was routed in this session.
func (ses *session) restore(ctx context.Context, aux *kgo.Client) error {
	r := ses.r
	if len(r.written.list) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	lost, err := r.lost(ctx, aux)
	if err != nil {
		if r.written.tries++; r.written.tries > restoreTries {
			r.log.Error("whether what was routed before the session ended is there cannot be found out; going on without", "error", err,
				"remedy", "look for deliveries of that time that are missing, and replay their events")
			r.written.list, r.written.tries = nil, 0
			return nil
		}
		return fmt.Errorf("looking whether what was routed is there: %w", err)
	}
	if len(lost) > 0 {
		if err := ses.rewrite(ctx, lost); err != nil {
			return fmt.Errorf("writing again what Kafka has aborted after it had committed it: %w", err)
		}
		r.log.Warn("Kafka had aborted records of transactions that it had committed, as a broker went down; they are written again", "records", len(lost),
			"remedy", "nothing is to be done; three brokers and HOOKLINE_REPLICATION=3 do not have that fault")
	}
	r.written.list, r.written.tries = nil, 0
	return nil
}

// rewrite writes records in a transaction of their own. Their offsets are
// committed since they were routed.
func (ses *session) rewrite(ctx context.Context, lost []*kgo.Record) error {
	cl := ses.s.Client()
	if err := cl.BeginTransaction(); err != nil {
		return err
	}
	for _, rec := range lost {
		cl.Produce(ctx, &kgo.Record{Topic: rec.Topic, Partition: rec.Partition, Key: rec.Key, Value: rec.Value, Headers: rec.Headers}, ses.produced)
	}
	err := cl.Flush(ctx)
	if err = errors.Join(err, ses.takeFailure()); err != nil {
		return errors.Join(err, cl.EndTransaction(ctx, kgo.TryAbort))
	}
	return cl.EndTransaction(ctx, kgo.TryCommit)
}

// lost reads what was written of late to the partitions' ends, with the markers of
// transactions, and gives what is aborted though its events count as routed.
func (r *Router) lost(ctx context.Context, aux *kgo.Client) ([]*kgo.Record, error) {
	parts := r.written.partitions()
	fet := kafkax.NewFetcher(aux)
	ends, err := fet.EndOffsets(ctx, r.deliveries, r.eventsDead)
	if err != nil {
		return nil, err
	}
	starts, err := fet.StartOffsets(ctx, r.deliveries, r.eventsDead)
	if err != nil {
		return nil, err
	}
	from := map[string]map[int32]kgo.Offset{}
	for at, t := range parts {
		t.next = max(t.next, starts[at.Topic][at.Partition]) // what is deleted was delivered
		if t.end = ends[at.Topic][at.Partition]; t.next >= t.end {
			delete(parts, at)
			continue
		}
		if from[at.Topic] == nil {
			from[at.Topic] = map[int32]kgo.Offset{}
		}
		from[at.Topic][at.Partition] = kgo.NewOffset().At(t.next)
	}
	if len(parts) == 0 {
		return nil, nil
	}
	cl, err := kgo.NewClient(append(slices.Clone(r.opts), kgo.ConsumePartitions(from), kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadUncommitted()))...)
	if err != nil {
		return nil, fmt.Errorf("making a Kafka client: %w", err)
	}
	defer cl.Close()
	var lost []*kgo.Record
	for len(parts) > 0 {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return nil, err
		}
		for rec := range fs.RecordsAll() {
			at := kafkax.TopicPartition{Topic: rec.Topic, Partition: rec.Partition}
			t := parts[at]
			if t == nil || rec.Offset >= t.end {
				continue
			}
			lost = append(lost, t.take(rec)...)
			if t.next >= t.end {
				delete(parts, at)
			}
		}
	}
	return r.routed(ctx, aux, fet, lost)
}

// routed leaves those of records whose events count as routed: all others will be
// routed again.
func (r *Router) routed(ctx context.Context, aux *kgo.Client, fet *kafkax.Fetcher, recs []*kgo.Record) ([]*kgo.Record, error) {
	if len(recs) == 0 {
		return nil, nil
	}
	group := r.kafka.RouterGroup()
	var unstable map[kafkax.TopicPartition]int64
	for patience := time.Now().Add(offsetsPatience); ; {
		var err error
		if unstable, err = fet.Unstable(ctx, group); err != nil {
			return nil, err
		}
		if len(unstable) == 0 || time.Now().After(patience) || !sleep(ctx, minBackoff) {
			break
		}
	}
	committed, err := kadm.NewClient(aux).FetchOffsets(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("fetching the offsets of group %s: %w", group, err)
	}
	return slices.DeleteFunc(recs, func(rec *kgo.Record) bool {
		src, ok := sourceOf(rec)
		if _, waits := unstable[kafkax.TopicPartition{Topic: src.Topic, Partition: src.Partition}]; !ok || waits {
			return true
		}
		at, known := committed.Lookup(src.Topic, src.Partition)
		return !known || src.Offset >= at.At
	}), nil
}

// sourceOf gives where the event of a record of deliveries or events.dead is.
func sourceOf(rec *kgo.Record) (pipeline.Position, bool) {
	// Ours are the last ones: those before them in events.dead are the event's own,
	// which may have the same names.
	for _, h := range slices.Backward(rec.Headers) {
		switch h.Key {
		case kafkax.HeaderEnvelope:
			var env pipeline.Envelope
			err := kafkax.DecodeEnvelope(h.Value, &env)
			return env.Source, err == nil
		case kafkax.HeaderSource:
			src, err := pipeline.ParsePosition(string(h.Value))
			return src, err == nil
		}
	}
	return pipeline.Position{}, false
}
