package dispatch

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hookline/hookline/pipeline"
)

// housekeepEvery is how often what no task needs any more is deleted.
const housekeepEvery = time.Minute

// housekeep deletes records that no task needs: of retry.* and parked at once,
// of deliveries after DELIVERIES_RETENTION.
func (d *Dispatcher) housekeep(ctx context.Context) {
	tick := time.NewTicker(housekeepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.loopDone:
			return
		case <-tick.C:
		}
		d.clean(ctx)
	}
}

// clean makes one round. What is deleted is below what the last committed
// transaction needs: positions are asked of the tasks and then held against
// the group's committed offsets, whichever is lower.
func (d *Dispatcher) clean(ctx context.Context) {
	needed := kadm.Offsets{}
	var partitions []int32
	ok := d.call(func() {
		for p, t := range d.tasks {
			partitions = append(partitions, p)
			needed.AddOffset(d.topics.Parked(), p, t.ParkedNeeded(), -1)
		}
	})
	if !ok || len(partitions) == 0 {
		return
	}
	want := map[string][]int32{d.topics.Deliveries(): partitions}
	for k := 1; k <= pipeline.MaxRetries; k++ {
		want[d.topics.Retry(k)] = partitions
	}
	committed, err := d.fetcher.StableOffsets(ctx, d.group, want)
	if err != nil {
		d.log.Warn("deleting what is no longer needed: reading committed offsets", "err", err)
		return
	}
	for k := 1; k <= pipeline.MaxRetries; k++ {
		for p, o := range committed[d.topics.Retry(k)] {
			needed.AddOffset(d.topics.Retry(k), p, o.Offset, -1)
		}
	}
	old, err := d.adm.ListOffsetsAfterMilli(ctx,
		time.Now().Add(-time.Duration(d.deps.Kafka.DeliveriesRetention)).UnixMilli(), d.topics.Deliveries())
	if err != nil {
		d.log.Warn("deleting what is no longer needed: finding old deliveries", "err", err)
	} else {
		for p, o := range committed[d.topics.Deliveries()] {
			if at, found := old.Lookup(d.topics.Deliveries(), p); found && at.Err == nil {
				needed.AddOffset(d.topics.Deliveries(), p, min(o.Offset, at.Offset), -1)
			}
		}
	}
	if err := d.keepLast(ctx, needed); err != nil {
		d.log.Warn("deleting what is no longer needed: finding the ends", "err", err)
		return
	}
	needed.KeepFunc(func(o kadm.Offset) bool { return o.At > 0 })
	if _, err := d.adm.DeleteRecords(ctx, needed); err != nil {
		d.log.Warn("deleting what is no longer needed", "err", err)
	}
}

// keepLast has each partition keep its last record: the embedded broker finds a
// partition's end in its records, and one without any begins at 0 again when it is
// started again, below what was committed.
func (d *Dispatcher) keepLast(ctx context.Context, below kadm.Offsets) error {
	ends, err := d.adm.ListEndOffsets(ctx, below.TopicsSet().Topics()...)
	if err != nil {
		return err
	}
	for topic, partitions := range below {
		for p, o := range partitions {
			end, ok := ends.Lookup(topic, p)
			if !ok || end.Err != nil {
				delete(partitions, p)
				continue
			}
			o.At = min(o.At, end.Offset-1)
			partitions[p] = o
		}
	}
	return nil
}

// stats sums the tasks' up. In the loop.
func (d *Dispatcher) stats(now time.Time) Stats {
	st := Stats{Tasks: len(d.tasks), InFlight: d.slots.inFlight()}
	for _, t := range d.tasks {
		s := t.Stats()
		st.Waiting += s.Waiting
		st.Held += s.Held
		st.Parked += s.Parked
		st.Heads += s.Heads
		st.Queued += s.Queued
		st.MemoryBytes += s.MemoryBytes
		st.RetryOverdue = max(st.RetryOverdue, t.Overdue(now))
	}
	return st
}
