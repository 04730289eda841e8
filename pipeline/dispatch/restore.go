package dispatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// restoreTimeout bounds one look at what was written.
	restoreTimeout = 20 * time.Second
	// restoreFor is for how long that is tried, before transactions go on without it: a
	// group that waits for the sessions of killed members takes a minute.
	restoreFor = 3 * time.Minute
	// markerLooks, each markerPause after the other, are how long markers may take that
	// are on their way.
	markerLooks = 10
	markerPause = 50 * time.Millisecond
)

// written is what this process has committed. It belongs to who makes the
// transaction, one at a time.
type written struct {
	kafkax.Written
	by    map[int32]uint64 // the incarnation of the task that wrote last, by partition
	again []kafkax.Span    // what was written again in a transaction whose end was not answered
	// failed: the last transaction is not known to have committed; it may have written
	// to in, and what of it hangs must never be read.
	failed bool
	in     []kafkax.TopicPartition
}

// begin takes in that c may have written from now on.
func (w *written) begin(c *commitRun) {
	w.failed = true
	for _, rec := range c.records {
		w.in = append(w.in, kafkax.TopicPartition{Topic: rec.Topic, Partition: rec.Partition})
	}
}

// settled takes in that of failed ones nothing hangs any more.
func (w *written) settled() { w.failed, w.in = false, w.in[:0] }

// restorable are the topics that transactions write to.
func (d *Dispatcher) restorable() []string {
	t := d.topics
	return append(t.TaskTopics(), t.Dead(), t.Notices(), t.Subscriptions(), t.Audit(), t.Control())
}

// restoreLeft does for a process that is gone, of which Kafka knows only that its last
// transaction was committed, what restore does for what is known.
func (d *Dispatcher) restoreLeft(ctx context.Context, left *kafkax.Left) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	cl, err := d.newTransactional()
	if err != nil {
		return err
	}
	defer cl.Close()
	n, err := left.Commit(ctx, cl, d.txnID, d.group, d.restorable()...)
	if n > 0 {
		d.log.Warn(kafkax.HungEnded, "partitions", n, "remedy", kafkax.LostRemedy)
	}
	return err
}

// noteWritten takes in that c is committed.
func (d *Dispatcher) noteWritten(c *commitRun) {
	d.written.settled()
	d.written.Note(time.Now(), kafkax.Spans(slices.Values(c.records)))
	if d.written.by == nil {
		d.written.by = map[int32]uint64{}
	}
	for _, b := range c.batches {
		d.written.by[b.Task.Partition()] = b.Task.Incarnation()
	}
}

// lookAtOurs is restore, where something waits for a transaction and it may be ours.
func (d *Dispatcher) lookAtOurs(ctx context.Context, c *commitRun) error {
	bounded, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	held, err := kafkax.HeldBy(bounded, d.txn.cl, d.restorable()...)
	if err == nil && len(held) == 0 && !d.written.failed {
		var unstable map[kafkax.TopicPartition]int64
		if unstable, err = d.fetcher.Unstable(bounded, d.group); err == nil && len(unstable) == 0 {
			return nil
		}
	}
	if err != nil {
		return err
	}
	return errors.Join(d.renew(ctx), d.restore(ctx, c))
}

// restore makes good what Kafka has lost of transactions that it had committed (see
// kafkax.Written): it commits what hangs, and writes again what is aborted. It goes
// after an abort or a new producer id: what was open is ended. Of a c that is unsure
// it finds out, if it can, what came of it.
//
// An error ends the transaction. That Kafka cannot be asked, again and again, does not.
func (d *Dispatcher) restore(ctx context.Context, c *commitRun) error {
	if len(d.written.Recent()) == 0 && !d.written.failed {
		return nil
	}
	d.parked.doubts.Add(1)
	defer d.parked.doubts.Add(-1)
	began := time.Now()
	return d.untilDone(ctx, func() error {
		bounded, cancel := context.WithTimeout(ctx, restoreTimeout)
		defer cancel()
		err := d.tryRestore(bounded, c)
		if err != nil && time.Since(began) > restoreFor { // what was written is kept in mind for the next time
			d.log.Error("whether Kafka has what was committed cannot be found out; going on without", "err", err,
				"remedy", "look for deliveries of that time that are missing, and replay their events")
			return nil
		}
		return err
	})
}

func (d *Dispatcher) tryRestore(ctx context.Context, c *commitRun) error {
	known, err := d.fetcher.Outcomes(ctx, d.written.Recent())
	if err != nil {
		return err
	}
	d.written.Settle(known)
	unstable, err := d.fetcher.Unstable(ctx, d.group)
	if err != nil {
		return err
	}
	if c.unsure {
		own, err := d.decide(ctx, c, unstable)
		if err != nil {
			return err
		}
		known = append(known, own...)
	}
	group := d.group
	if len(unstable) == 0 {
		group = ""
	}
	open := kafkax.Open(known)
	if d.written.failed {
		if open, err = d.abortHanging(ctx, c, open); err != nil {
			return err
		}
		group = ""
	}
	if err := d.endHanging(ctx, group, open, true); err != nil {
		return err
	}
	if len(open) > 0 {
		d.log.Warn(kafkax.HungEnded, "partitions", len(open), "remedy", kafkax.LostRemedy)
	}
	if err := d.rewriteLost(ctx, known); err != nil {
		return err
	}
	d.written.settled()
	return nil
}

// abortHanging ends what hangs of the last transaction, which was aborted, or of which
// nothing shows that it was not: it must never be read. It gives what it leaves of
// open, where earlier ones hang.
func (d *Dispatcher) abortHanging(ctx context.Context, c *commitRun, open []kafkax.TopicPartition) ([]kafkax.TopicPartition, error) {
	left := kafkax.Without(slices.Clone(open), d.written.in)
	var held []kafkax.TopicPartition
	group := ""
	// An abort is answered before its markers are written.
	for tries := 0; ; tries++ {
		var err error
		if held, err = kafkax.HeldBy(ctx, d.txn.cl, d.restorable()...); err != nil {
			return nil, err
		}
		unstable, err := d.fetcher.Unstable(ctx, d.group)
		if err != nil {
			return nil, err
		}
		held, group = kafkax.Without(held, left), ""
		if waitsFor(c, unstable) {
			group = d.group
		}
		if group == "" && len(held) == 0 {
			break
		}
		if tries == markerLooks {
			if err := d.endHanging(ctx, group, held, false); err != nil {
				return nil, err
			}
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(markerPause):
		}
	}
	if len(left) < len(open) {
		return nil, errors.New("what an earlier transaction wrote was aborted with the last one; looking again")
	}
	return left, nil
}

// waitsFor tells whether what waits may be c's offsets.
func waitsFor(c *commitRun, unstable map[kafkax.TopicPartition]int64) bool {
	for at := range unstable {
		if _, its := c.offsets[at.Topic][at.Partition]; its || len(c.offsets) == 0 {
			return true
		}
	}
	return false
}

// decide finds out what came of c. Where it was committed it gives what became of its
// records.
func (d *Dispatcher) decide(ctx context.Context, c *commitRun, unstable map[kafkax.TopicPartition]int64) ([]kafkax.Outcome, error) {
	own, err := d.fetcher.Outcomes(ctx, kafkax.Spans(slices.Values(c.records)))
	if err != nil {
		return nil, err
	}
	if c.decided = kafkax.AnyCommitted(own); !c.decided && !waitsFor(c, unstable) {
		if c.decided, err = d.marked(ctx, c); err != nil {
			return nil, err
		}
	}
	if c.decided {
		d.noteWritten(c)
	} else {
		own = nil
	}
	c.unsure = false
	return own, nil
}

// endHanging ends what hangs of our transactional id. The client that did it knows
// nothing of that transaction, and is replaced.
func (d *Dispatcher) endHanging(ctx context.Context, group string, at []kafkax.TopicPartition, commit bool) error {
	if group == "" && len(at) == 0 {
		return nil
	}
	return errors.Join(kafkax.EndHanging(ctx, d.txn.cl, d.txnID, group, at, commit), d.renew(ctx))
}

// lost is what was committed and is aborted.
type lost struct {
	tasks  map[int32][]*kgo.Record // what belongs to the task of a partition
	others []*kgo.Record           // in topics that have partitions of their own
}

func (d *Dispatcher) lostOf(known []kafkax.Outcome) (l lost, n int) {
	l.tasks = map[int32][]*kgo.Record{}
	own := append(d.topics.TaskTopics(), d.topics.Dead())
	for _, o := range known {
		switch {
		case o.End != kafkax.EndAborted:
			continue
		case slices.Contains(own, o.At.Topic):
			l.tasks[o.At.Partition] = append(l.tasks[o.At.Partition], o.Records...)
		default:
			l.others = append(l.others, o.Records...)
		}
		n += len(o.Records)
	}
	return l, n
}

// rewriteLost writes again what was committed and is aborted. The tasks have gone on
// from it, with its offsets: they begin anew.
func (d *Dispatcher) rewriteLost(ctx context.Context, known []kafkax.Outcome) error {
	lost, n := d.lostOf(known)
	if n == 0 {
		return nil
	}
	again, err := d.rewritten(ctx)
	if err == nil && len(again) == 0 {
		again, err = d.rewrite(ctx, lost)
	}
	if err != nil {
		return fmt.Errorf("writing again what Kafka has aborted after it had committed it: %w", err)
	}
	d.written.Forget()
	d.written.again = nil
	d.written.Note(time.Now(), again)
	if len(again) > 0 {
		d.log.Warn(kafkax.LostRewritten,
			"records", n, "remedy", kafkax.LostRemedy)
		d.beginAnew()
	}
	return nil
}

// beginAnew has every task be recovered of what is in Kafka now: what it knows of
// where its deliveries are parked is not true any more. What is under way is ended
// and committed before. The doubt ends with it.
func (d *Dispatcher) beginAnew() {
	r := &release{done: make(chan struct{})}
	if !d.call(func() {
		r.partitions = slices.Collect(maps.Keys(d.tasks))
		d.beginRelease(r)
	}) {
		return
	}
	d.parked.doubts.Add(1)
	d.rejoins.Go(func() {
		select {
		case <-r.done:
		case <-d.loopDone:
			return
		}
		d.call(func() {
			d.expel("Kafka had lost what their tasks had committed; they begin anew")
			d.parked.doubts.Add(-1)
		})
	})
}

// rewritten gives what an earlier try has written, whose end was not answered.
func (d *Dispatcher) rewritten(ctx context.Context) ([]kafkax.Span, error) {
	outcomes, err := d.fetcher.Outcomes(ctx, d.written.again)
	if err != nil || kafkax.AnyCommitted(outcomes) {
		return d.written.again, err
	}
	return nil, nil
}

// memberOf gives our membership and a partition that we have. It leaves of lost the
// partitions that are still those of the tasks that wrote it.
func (d *Dispatcher) memberOf(l *lost) (m kafkax.Member, have int32, err error) {
	have = -1
	asked := d.call(func() {
		var ok bool
		if m, ok = d.membership(); !ok {
			err = errors.New("this process is not a member of the group at the moment")
			return
		}
		for p := range d.tasks {
			have = p
		}
		for p, recs := range l.tasks {
			if t := d.tasks[p]; t == nil || t.Incarnation() != d.written.by[p] {
				d.log.Error("Kafka has aborted what this process had committed, as a broker went down, and the partition is another task's now",
					"partition", p, "records", len(recs), "remedy", "look for deliveries of that time that are missing, and replay their events")
				delete(l.tasks, p)
			}
		}
		if have < 0 && len(l.others) > 0 {
			err = errors.New("this process has no partition at the moment")
		}
	})
	if !asked {
		err = errors.New("the dispatcher has ended")
	}
	return m, have, err
}

// rewrite writes what is lost in a transaction of its own, and gives where. It is
// fenced as any other: it commits offsets that are committed, under our generation.
func (d *Dispatcher) rewrite(ctx context.Context, l lost) ([]kafkax.Span, error) {
	member, have, err := d.memberOf(&l)
	if err != nil || len(l.tasks)+len(l.others) == 0 {
		return nil, err
	}
	fence := slices.Collect(maps.Keys(l.tasks))
	if len(fence) == 0 {
		fence = []int32{have}
	}
	offsets, err := d.fetcher.StableOffsets(ctx, d.group, map[string][]int32{d.topics.Deliveries(): fence})
	if err != nil {
		return nil, err
	}
	recs := kafkax.Again(slices.Concat(append(slices.Collect(maps.Values(l.tasks)), l.others)...))
	if err := d.txn.cl.BeginTransaction(); err != nil {
		return nil, errors.Join(err, d.renew(ctx))
	}
	err = d.txn.cl.ProduceSync(ctx, recs...).FirstErr()
	if err == nil {
		err = d.txn.committer.Commit(ctx, member, offsets)
	}
	if err == nil {
		d.written.again = kafkax.Spans(slices.Values(recs))
		err = d.txn.cl.EndTransaction(ctx, kgo.TryCommit)
	}
	if err != nil {
		return nil, errors.Join(err, d.renew(ctx))
	}
	return kafkax.Spans(slices.Values(recs)), nil
}
