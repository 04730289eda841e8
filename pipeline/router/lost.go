package router

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// restoreTimeout bounds the look at what was written.
	restoreTimeout = 20 * time.Second
	// restoreTries is how often that is tried while it fails, session after session,
	// before events are routed without it.
	restoreTries = 10
	// offsetsPatience is how long the group's offsets may wait for transactions of
	// others. What waits longer is mended otherwise, see mend.
	offsetsPatience = 5 * time.Second
)

// written is what the sessions before this one wrote. It belongs to Run's goroutine.
type written struct {
	kafkax.Written
	unsure []kafkax.Span // of a last transaction that was to commit, and whose end was not answered
	failed bool          // the last transaction is not known to have committed
	tries  int           // to find out what became of it
}

// note takes in what b wrote, after its end.
func (w *written) note(now time.Time, b *batch, try kgo.TransactionEndTry, committed bool) {
	w.failed, w.unsure = !committed, nil
	switch {
	case b.records == 0:
	case committed:
		w.Note(now, kafkax.Spans(b.written()))
	case try == kgo.TryCommit: // all of it has been acknowledged
		w.unsure = kafkax.Spans(b.written())
	}
}

// written gives the batch's records.
func (b *batch) written() iter.Seq[*kgo.Record] {
	return func(yield func(*kgo.Record) bool) {
		for i := range b.used {
			if !yield(&b.slabs[i/slabRecords][i%slabRecords].rec) {
				return
			}
		}
		for _, rec := range b.letters {
			if !yield(rec) {
				return
			}
		}
	}
}

// restore makes good what Kafka has lost of transactions that it had committed (see
// kafkax.Written): it commits what hangs, and writes again what is aborted. It goes
// before a session, which takes the transactional id anew.
func (r *Router) restore(ctx context.Context, aux *kgo.Client) error {
	w := &r.written
	spans := w.Recent()
	if len(spans) == 0 && !w.failed {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	cl, err := r.transactional(r.txnID)
	if err != nil {
		return err
	}
	defer cl.Close()
	if _, _, err := cl.ProducerID(ctx); err != nil { // ends what is open by Kafka's books
		return fmt.Errorf("taking the transactional id %s: %w", r.txnID, err)
	}
	again, err := r.tryRestore(ctx, cl, aux, spans)
	if err != nil {
		if w.tries++; w.tries <= restoreTries {
			return fmt.Errorf("looking whether what was routed is there: %w", err)
		}
		w.tries = 0 // and what was written is kept in mind for the next session
		r.log.Error("whether what was routed before the session ended is there cannot be found out; going on without", "error", err,
			"remedy", "look for deliveries of that time that are missing, and replay their events")
		return nil
	}
	w.Forget()
	w.Note(time.Now(), again)
	w.unsure, w.failed, w.tries = nil, false, 0
	return nil
}

// intact tells whether Kafka has what was committed, after a transaction that was
// aborted within a session: an error says that the session must be made anew.
func (r *Router) intact(ctx context.Context, aux *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	outcomes, err := kafkax.NewFetcher(aux).Outcomes(ctx, r.written.Recent())
	if err != nil {
		return fmt.Errorf("looking whether what was routed is there: %w", err)
	}
	r.written.Settle(outcomes)
	for _, o := range outcomes {
		if o.End == kafkax.EndOpen || o.End == kafkax.EndAborted {
			return fmt.Errorf("a transaction that Kafka had committed has lost its end in %s/%d", o.At.Topic, o.At.Partition)
		}
	}
	return nil
}

// lookBehind is restoreLeft as long as it takes Kafka to answer.
func (r *Router) lookBehind(ctx context.Context) {
	cl, err := kgo.NewClient(r.opts...)
	if err != nil {
		return // as the session will say
	}
	defer cl.Close()
	var left kafkax.Left
	waits := func(err error) {
		r.warn("routing waits until Kafka tells what an earlier process has left", "error", err)
	}
	if err := kafkax.Recall(ctx, cl, waits, func() error { return r.restoreLeft(ctx, &left) }); err != nil && ctx.Err() == nil {
		r.log.Warn(kafkax.LeftUnknown, "error", err)
	}
}

// restoreLeft does for a process that is gone, of which Kafka knows only that its last
// transaction was committed, what restore does for what is known.
func (r *Router) restoreLeft(ctx context.Context, left *kafkax.Left) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	cl, err := r.transactional(r.txnID)
	if err != nil {
		return err
	}
	defer cl.Close()
	n, err := left.Commit(ctx, cl, r.txnID, r.kafka.RouterGroup(), r.deliveries, r.eventsDead)
	if n > 0 {
		r.log.Warn(kafkax.HungEnded, "partitions", n, "remedy", kafkax.LostRemedy)
	}
	return err
}

// tryRestore gives where it has written something again. cl has the transactional id.
func (r *Router) tryRestore(ctx context.Context, cl, aux *kgo.Client, spans []kafkax.Span) (again []kafkax.Span, err error) {
	fet := kafkax.NewFetcher(aux)
	known, err := fet.Outcomes(ctx, spans)
	if err != nil {
		return nil, err
	}
	unsure, err := fet.Outcomes(ctx, r.written.unsure)
	if err != nil {
		return nil, err
	}
	group := r.kafka.RouterGroup()
	unstable, err := fet.Unstable(ctx, group)
	if err != nil {
		return nil, err
	}
	if len(unstable) == 0 {
		group = ""
	}
	if kafkax.AnyCommitted(unsure) {
		known = append(known, unsure...)
	} else if r.written.failed {
		// It was aborted, or nothing shows that it was not: what of it hangs must never
		// be read, and its events are routed again as soon as its offsets do not wait.
		held, err := kafkax.HeldBy(ctx, cl, r.deliveries, r.eventsDead)
		if err == nil {
			err = r.endHanging(ctx, r.txnID, group, kafkax.Without(held, kafkax.Open(known)), false)
		}
		if err != nil {
			return nil, err
		}
		group = ""
	}
	open := kafkax.Open(known)
	if err := r.endHanging(ctx, r.txnID, group, open, true); err != nil {
		return nil, err
	}
	if len(open) > 0 {
		r.log.Warn(kafkax.HungEnded, "partitions", len(open), "remedy", kafkax.LostRemedy)
	}
	return r.rewriteLost(ctx, aux, fet, known)
}

// endHanging ends what hangs of a transactional id, with a client of its own.
func (r *Router) endHanging(ctx context.Context, id, group string, at []kafkax.TopicPartition, commit bool) error {
	cl, err := r.transactional(id)
	if err != nil {
		return err
	}
	defer cl.Close()
	return kafkax.EndHanging(ctx, cl, id, group, at, commit)
}

// transactions lists those of the group's routers, whether they are there or gone; with
// an error, those that the brokers that answered know.
func (r *Router) transactions(ctx context.Context, aux *kgo.Client) (kadm.ListedTransactions, error) {
	listed, err := kadm.NewClient(aux).ListTransactions(ctx, nil, nil)
	maps.DeleteFunc(listed, func(id string, _ kadm.ListedTransaction) bool {
		return !strings.HasPrefix(id, r.kafka.RouterGroup()+".")
	})
	return listed, err
}

// rewriteLost writes again what is aborted of what was committed, and gives where.
func (r *Router) rewriteLost(ctx context.Context, aux *kgo.Client, fet *kafkax.Fetcher, known []kafkax.Outcome) ([]kafkax.Span, error) {
	lost, err := r.routed(ctx, aux, fet, kafkax.Aborted(known))
	if err != nil || len(lost) == 0 {
		return nil, err
	}
	if lost, err = withoutTwins(ctx, fet, lost); err != nil || len(lost) == 0 {
		return nil, err
	}
	again, err := r.rewrite(ctx, lost)
	if err != nil {
		return nil, fmt.Errorf("writing again what Kafka has aborted after it had committed it: %w", err)
	}
	r.log.Warn(kafkax.LostRewritten, "records", len(lost),
		"remedy", kafkax.LostRemedy)
	return again, nil
}

// transactional makes a client with a transactional id.
func (r *Router) transactional(id string) (*kgo.Client, error) {
	cl, err := kgo.NewClient(append(slices.Clone(r.opts), kgo.TransactionalID(id), kgo.TransactionTimeout(transactionTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), r.kafka.ProducerCompression())...)
	if err != nil {
		return nil, fmt.Errorf("making a Kafka client: %w", err)
	}
	return cl, nil
}

// rewrite writes records in a transaction of their own. Their offsets are
// committed since they were routed.
func (r *Router) rewrite(ctx context.Context, lost []*kgo.Record) ([]kafkax.Span, error) {
	cl, err := r.transactional(r.txnID)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		return nil, err
	}
	recs := kafkax.Again(lost)
	if err := cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		return nil, err // the next who takes the id aborts it
	}
	return kafkax.Spans(slices.Values(recs)), cl.EndTransaction(ctx, kgo.TryCommit)
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
	var waiting error
	lost := slices.DeleteFunc(recs, func(rec *kgo.Record) bool {
		src, ok := sourceOf(rec)
		if !ok {
			return true
		}
		// What is committed stays so, whatever becomes of what waits.
		if at, known := committed.Lookup(src.Topic, src.Partition); known && src.Offset < at.At {
			return false
		}
		if _, waits := unstable[kafkax.TopicPartition{Topic: src.Topic, Partition: src.Partition}]; waits {
			waiting = fmt.Errorf("the offset of %s/%d waits for a transaction", src.Topic, src.Partition)
		}
		return true
	})
	return lost, waiting
}

// twin is what a record has in common with one that was written in its place.
type twin struct {
	at  kafkax.TopicPartition
	src string
	id  [16]byte
}

func twinOf(rec *kgo.Record) twin {
	src, _ := sourceOf(rec)
	return twin{kafkax.TopicPartition{Topic: rec.Topic, Partition: rec.Partition}, src.Cluster + src.String(), src.TopicID}
}

// withoutTwins leaves out of lost what was routed again since, by another router: this
// one was frozen, the other took what hung of it for aborted, and its events' offsets
// are committed by the other.
func withoutTwins(ctx context.Context, fet *kafkax.Fetcher, lost []*kgo.Record) ([]*kgo.Record, error) {
	missing, behind := map[twin]bool{}, map[kafkax.TopicPartition]kafkax.Range{}
	for _, rec := range lost {
		t := twinOf(rec)
		missing[t] = true
		if from, ok := behind[t.at]; !ok || rec.Offset < from.From {
			behind[t.at] = kafkax.Range{From: rec.Offset}
		}
	}
	err := fet.Ends(ctx, behind, func(rec *kgo.Record) bool { return missing[twinOf(rec)] }, func(rec *kgo.Record, end kafkax.End) {
		if end == kafkax.EndCommitted {
			delete(missing, twinOf(rec))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("looking whether what is lost was routed again: %w", err)
	}
	return slices.DeleteFunc(lost, func(rec *kgo.Record) bool { return !missing[twinOf(rec)] }), nil
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
