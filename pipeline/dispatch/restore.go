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
	// restoreTries is how often that is tried, before transactions go on without it.
	restoreTries  = 10
	hungRestored  = "records that Kafka had committed were without an end in some partitions, as a broker went down; they have one now"
	restoreRemedy = "nothing is to be done; three brokers and HOOKLINE_REPLICATION=3 do not have that fault"
)

// written is what this process has committed. It belongs to who makes the
// transaction, one at a time.
type written struct {
	kafkax.Written
	by    map[int32]uint64 // the incarnation of the task that wrote last, by partition
	again []kafkax.Span    // what was written again in a transaction whose end was not answered
}

// restoreLeft does for a process that is gone, of which Kafka knows only that its last
// transaction was committed, what restore does for what is known. That it fails
// keeps nobody from beginning.
func (d *Dispatcher) restoreLeft(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	cl, err := d.newTransactional()
	if err != nil {
		return // as newTransactor will say
	}
	defer cl.Close()
	n, err := kafkax.CommitLeft(ctx, cl, d.txnID, d.group, append(d.topics.TaskTopics(), d.topics.Dead())...)
	switch {
	case err != nil:
		d.log.Warn("what an earlier process may have left hanging is not known", "err", err)
	case n > 0:
		d.log.Warn(hungRestored, "partitions", n, "remedy", restoreRemedy)
	}
}

// noteWritten takes in that c is committed.
func (d *Dispatcher) noteWritten(c *commitRun) {
	d.written.Note(time.Now(), kafkax.Spans(slices.Values(c.records)))
	if d.written.by == nil {
		d.written.by = map[int32]uint64{}
	}
	for _, b := range c.batches {
		d.written.by[b.Task.Partition()] = b.Task.Incarnation()
	}
}

// restore makes good what Kafka has lost of transactions that it had committed (see
// kafkax.Written): it commits what hangs, and writes again what is aborted. It goes
// after an abort or a new producer id: what was open is ended. Of a c that is unsure
// it finds out, if it can, what came of it.
//
// An error ends the transaction. That Kafka cannot be asked, again and again, does not.
func (d *Dispatcher) restore(ctx context.Context, c *commitRun) error {
	if len(d.written.Recent()) == 0 && !c.begun {
		return nil
	}
	d.parked.doubts.Add(1)
	defer d.parked.doubts.Add(-1)
	tries := 0
	return d.untilDone(ctx, func() error {
		bounded, cancel := context.WithTimeout(ctx, restoreTimeout)
		defer cancel()
		err := d.tryRestore(bounded, c)
		if tries++; err != nil && tries > restoreTries {
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
	if c.begun && !c.decided {
		if open, err = d.abortHanging(ctx, c, group, open); err != nil {
			return err
		}
		group = ""
	}
	if err := d.endHanging(ctx, group, open, true); err != nil {
		return err
	}
	if len(open) > 0 {
		d.log.Warn(hungRestored, "partitions", len(open), "remedy", restoreRemedy)
	}
	return d.rewriteLost(ctx, known)
}

// abortHanging ends what hangs of c, which was aborted, or of which nothing shows
// that it was not: it must never be read. It gives what it leaves of open, where
// earlier ones hang.
func (d *Dispatcher) abortHanging(ctx context.Context, c *commitRun, group string, open []kafkax.TopicPartition) ([]kafkax.TopicPartition, error) {
	held, err := kafkax.HeldBy(ctx, d.txn.cl, append(d.topics.TaskTopics(), d.topics.Dead(), d.topics.Notices(), d.topics.Subscriptions())...)
	if err != nil {
		return nil, err
	}
	var its []kafkax.TopicPartition
	for _, rec := range c.records {
		its = append(its, kafkax.TopicPartition{Topic: rec.Topic, Partition: rec.Partition})
	}
	left := kafkax.Without(slices.Clone(open), its)
	if err := d.endHanging(ctx, group, kafkax.Without(held, left), false); err != nil {
		return nil, err
	}
	if len(left) < len(open) {
		return nil, errors.New("what an earlier transaction wrote was aborted with the last one; looking again")
	}
	return left, nil
}

// decide finds out what came of c. Where it was committed it gives what became of its
// records.
func (d *Dispatcher) decide(ctx context.Context, c *commitRun, unstable map[kafkax.TopicPartition]int64) ([]kafkax.Outcome, error) {
	own, err := d.fetcher.Outcomes(ctx, kafkax.Spans(slices.Values(c.records)))
	if err != nil {
		return nil, err
	}
	waits := false
	for at := range unstable {
		_, its := c.offsets[at.Topic][at.Partition]
		waits = waits || its
	}
	if c.decided = kafkax.AnyCommitted(own); !c.decided && !waits {
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

// rewriteLost writes again what was committed and is aborted. The tasks have gone on
// from it, with its offsets: they begin anew.
func (d *Dispatcher) rewriteLost(ctx context.Context, known []kafkax.Outcome) error {
	lost := map[int32][]*kgo.Record{}
	n := 0
	for _, o := range known {
		if o.End == kafkax.EndAborted {
			lost[o.At.Partition] = append(lost[o.At.Partition], o.Records...)
			n += len(o.Records)
		}
	}
	if n == 0 {
		return nil
	}
	done, err := d.rewritten(ctx)
	if err != nil {
		return err
	}
	if !done {
		if err := d.rewrite(ctx, lost); err != nil {
			return fmt.Errorf("writing again what Kafka has aborted after it had committed it: %w", err)
		}
	}
	d.log.Warn("Kafka had aborted records of transactions that it had committed, as a broker went down; they are written again",
		"records", n, "remedy", restoreRemedy)
	d.written = written{}
	d.beginAnew()
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

// rewritten tells whether an earlier try has done it, whose end was not answered.
func (d *Dispatcher) rewritten(ctx context.Context) (bool, error) {
	again, err := d.fetcher.Outcomes(ctx, d.written.again)
	return slices.ContainsFunc(again, func(o kafkax.Outcome) bool { return o.End == kafkax.EndCommitted }), err
}

// memberOf gives our membership, and leaves of lost the partitions that are still
// those of the tasks that wrote it.
func (d *Dispatcher) memberOf(lost map[int32][]*kgo.Record) (m kafkax.Member, err error) {
	asked := d.call(func() {
		var ok bool
		if m, ok = d.membership(); !ok {
			err = errors.New("this process is not a member of the group at the moment")
			return
		}
		for p := range lost {
			if t := d.tasks[p]; t == nil || t.Incarnation() != d.written.by[p] {
				d.log.Error("Kafka has aborted what this process had committed, as a broker went down, and the partition is another task's now",
					"partition", p, "records", len(lost[p]), "remedy", "look for deliveries of that time that are missing, and replay their events")
				delete(lost, p)
			}
		}
	})
	if !asked {
		err = errors.New("the dispatcher has ended")
	}
	return m, err
}

// rewrite writes lost, of each partition, in a transaction of its own. It is fenced
// as any other: it commits the offsets that are committed, under our generation.
func (d *Dispatcher) rewrite(ctx context.Context, lost map[int32][]*kgo.Record) error {
	member, err := d.memberOf(lost)
	if err != nil || len(lost) == 0 {
		return err
	}
	topic := d.topics.Deliveries()
	offsets, err := d.fetcher.StableOffsets(ctx, d.group, map[string][]int32{topic: slices.Collect(maps.Keys(lost))})
	if err != nil {
		return err
	}
	if err := d.txn.cl.BeginTransaction(); err != nil {
		return errors.Join(err, d.renew(ctx))
	}
	var recs []*kgo.Record
	for _, list := range lost {
		for _, rec := range list {
			recs = append(recs, &kgo.Record{Topic: rec.Topic, Partition: rec.Partition, Key: rec.Key, Value: rec.Value, Headers: rec.Headers})
		}
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
		return errors.Join(err, d.renew(ctx))
	}
	return nil
}
