package dispatch

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// commitRun is one transaction: the batches of all tasks that something
// happened to.
type commitRun struct {
	batches []*lane.Batch
	outs    [][]*kgo.Record // of each batch, a record for each of its Outs
	records []*kgo.Record   // everything to produce, in order
	offsets map[string]map[int32]kafkax.Committed
	acks    []*ackGroup // attempts that must be acknowledged first
	member  kafkax.Member
	begun   time.Time

	// unsure: its end was not answered, and what it came to is not known; when it
	// is, decided says it.
	unsure, decided bool

	committed bool
	err       error
}

// cut begins a transaction of everything since the last one. In the loop; none
// may be under way.
func (d *Dispatcher) cut(ctx context.Context, now time.Time) {
	d.lastCut = now
	member, ok := d.membership()
	if !ok {
		return
	}
	var touched []*lane.Task
	for _, t := range d.tasks {
		if t.Touched() {
			touched = append(touched, t.Task)
		}
	}
	if len(touched) == 0 && !d.suspect.Load() {
		d.flushAttempts()
		return
	}
	c := &commitRun{begun: now, member: member, offsets: map[string]map[int32]kafkax.Committed{}}
	for _, t := range touched {
		b := t.Cut()
		c.batches = append(c.batches, b)
		d.addBatch(now, c, b)
	}
	d.flushAttempts()
	d.acks.seal()
	c.acks = append(d.oldAcks, d.acks)
	d.oldAcks, d.acks = nil, newAckGroup()
	if d.uncommitted.IsZero() {
		d.uncommitted = now
	}
	d.commit = c
	d.committing.Go(func() {
		c.committed, c.err = d.transact(ctx, c)
		d.commits <- c
	})
}

func (d *Dispatcher) addBatch(now time.Time, c *commitRun, b *lane.Batch) {
	p := b.Task.Partition()
	var outs []*kgo.Record
	for _, o := range b.Outs {
		outs = append(outs, d.outRecord(p, o))
		if o.Kind == lane.OutDead && o.Untried && !o.Logged {
			o.Logged = true
			d.logCancelled(now, b.Task, o)
		}
	}
	c.outs = append(c.outs, outs)
	c.records = append(c.records, outs...)
	for _, w := range b.Lanes {
		c.records = append(c.records, &kgo.Record{Topic: d.topics.Lanes(), Partition: p, Key: []byte(w.Key), Value: w.Value})
	}
	c.records = append(c.records, &kgo.Record{Topic: d.topics.Lanes(), Partition: p, Key: []byte(lane.StateKey), Value: b.State})
	commit := func(topic string, off int64, mark string) {
		if c.offsets[topic] == nil {
			c.offsets[topic] = map[int32]kafkax.Committed{}
		}
		c.offsets[topic][p] = kafkax.Committed{Offset: off, Metadata: mark}
	}
	// Always an offset of deliveries: that is the fence against zombies.
	commit(d.topics.Deliveries(), b.Deliveries, batchMark(b))
	for k, off := range b.Retry {
		commit(d.topics.Retry(k+1), off, "")
	}
}

// outRecord is the Kafka record of an Out.
func (d *Dispatcher) outRecord(p int32, o *lane.Out) *kgo.Record {
	switch o.Kind {
	case lane.OutDead:
		if o.Reason == pipeline.DeadUnreadable {
			return d.unreadableRecord(p, o)
		}
		return kafkax.DeadRecord(d.topics.Dead(), p, &kafkax.Dead{
			Subscription: o.Subscription, Reason: o.Reason, Attempts: o.Attempts, Error: o.Error, Envelope: *o.Envelope, Payload: o.Payload,
		})
	case lane.OutState:
		key, value := d.deps.StateRecord(Disabled{
			ID: o.Subscription, Reason: o.StateReason, Revision: o.Revision, Since: o.At, FailingSince: o.FailingSince, Routed: d.routedUpTo(),
		})
		return &kgo.Record{Topic: d.topics.Subscriptions(), Key: key, Value: value}
	case lane.OutHealth:
		key, value := d.deps.HealthRecord(o.Subscription, o.Revision, o.FailingSince)
		return &kgo.Record{Topic: d.topics.Subscriptions(), Key: key, Value: value}
	case lane.OutNotice:
		return &kgo.Record{Topic: d.topics.Notices(), Key: []byte(o.Subscription), Value: d.noticeJSON(o)}
	case lane.OutAnswer:
		return d.answerRecord(o)
	case lane.OutRetry, lane.OutParked:
	}
	c := kafkax.Copy{
		Subscription: o.Subscription, Lane: o.Lane, Origin: o.Origin, Attempts: o.Attempts, Round: o.Round,
		FailedAt: o.FailedAt, NotBefore: o.NotBefore, Envelope: o.Header, Payload: o.Payload,
	}
	if o.Kind == lane.OutParked {
		return c.Record(d.topics.Parked(), p)
	}
	return c.Record(d.topics.Retry(o.Attempts), p)
}

// committed takes the end of a transaction in. In the loop.
func (d *Dispatcher) committed(now time.Time, c *commitRun) {
	d.commit = nil
	if !c.committed {
		d.oldAcks = unacknowledged(c.acks)
		for _, b := range c.batches {
			b.Task.Aborted(b)
		}
		d.abortedCommit(now, c)
		return
	}
	d.uncommitted = time.Time{}
	if c.err != nil {
		d.log.Warn("a transaction was committed although its end was not acknowledged", "err", c.err)
	}
	for i, b := range c.batches {
		offsets := make([]int64, len(b.Outs))
		for j, o := range b.Outs {
			offsets[j] = c.outs[i][j].Offset
			if o.Kind == lane.OutDead {
				d.deps.Metrics.Dead(o.Reason)
			}
			if o.Kind == lane.OutNotice {
				d.logNotice(now, o)
			}
		}
		b.Task.Committed(now, b, offsets)
	}
	d.deps.Metrics.CommitTook(now.Sub(c.begun), len(c.records))
}

// unacknowledged leaves out the groups of which everything is: an outage of hours
// aborts thousands of transactions.
func unacknowledged(groups []*ackGroup) []*ackGroup {
	return slices.DeleteFunc(groups, func(g *ackGroup) bool {
		select {
		case <-g.idle:
			return true
		default:
			return false
		}
	})
}

// abortedCommit says why. Being between two generations is a matter of
// milliseconds and nothing to speak of.
func (d *Dispatcher) abortedCommit(now time.Time, c *commitRun) {
	if kafkax.IsFenced(c.err) {
		d.log.Debug("a transaction was fenced; it is made again if the partitions stay ours", "err", c.err)
		return
	}
	d.log.Warn("a transaction was aborted; its outcomes go into the next", "err", c.err, "after", now.Sub(c.begun).Round(time.Millisecond))
}

// owned tells whether any of the partitions has a task.
func (d *Dispatcher) owned(ps []int32) bool {
	for _, p := range ps {
		if d.tasks[p] != nil {
			return true
		}
	}
	return false
}
