package dispatch

import (
	"context"
	"time"
)

const (
	// watchEvery is how often the group and the lag are looked at.
	watchEvery = 5 * time.Second
	// orphanPatience is how long a partition may be without an owner, or ours
	// without a task, before the group is made to assign anew.
	orphanPatience = 30 * time.Second
)

// watchdog looks for partitions that nobody works on although the group says
// that it is stable: it happened (static membership with other balancers) and
// must not last. It also measures the lag.
type watchdog struct {
	d     *Dispatcher
	since map[int32]time.Time // partition -> without an owner since
}

func (w *watchdog) run(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.d.loopDone:
			return
		case <-tick.C:
		}
		lctx, cancel := context.WithTimeout(ctx, watchEvery)
		if err := w.look(lctx); err != nil && ctx.Err() == nil {
			w.d.log.Debug("looking after the group", "err", err)
		}
		cancel()
	}
}

func (w *watchdog) look(ctx context.Context) error {
	topic := w.d.topics.Deliveries()
	ends, err := w.d.fetcher.EndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	reads := map[int32]int64{}
	if !w.d.call(func() {
		for p, t := range w.d.tasks {
			reads[p] = t.behind()
		}
	}) {
		return nil
	}
	var lag int64
	for p, at := range reads {
		lag += max(0, ends[topic][p]-at)
	}
	w.d.deps.Metrics.KafkaLag(topic, lag)
	return w.orphans(ctx, ends[topic], reads)
}

// orphans asks the group who owns what.
func (w *watchdog) orphans(ctx context.Context, all, ours map[int32]int64) error {
	topic := w.d.topics.Deliveries()
	groups, err := w.d.adm.DescribeGroups(ctx, w.d.group)
	if err != nil {
		return err
	}
	g := groups[w.d.group]
	if g.Err != nil || g.State != "Stable" {
		clear(w.since)
		return g.Err
	}
	owned := g.AssignedPartitions()
	me, _ := w.d.member.Load().GroupMetadata()
	mine := map[int32]bool{}
	for _, m := range g.Members {
		if c, ok := m.Assigned.AsConsumer(); ok && m.MemberID == me {
			for _, t := range c.Topics {
				for _, p := range t.Partitions {
					mine[p] = true
				}
			}
		}
	}
	now := w.d.now()
	if w.d.recoveringCount.Load() > 0 {
		clear(w.since)
		return nil
	}
	for p := range all {
		_, working := ours[p]
		if owned.Lookup(topic, p) && (!mine[p] || working) {
			delete(w.since, p)
			continue
		}
		if _, ok := w.since[p]; !ok {
			w.since[p] = now
		}
		if age := now.Sub(w.since[p]); age >= orphanPatience {
			w.d.log.Error("nobody works on a partition: the group is made to assign anew",
				"partition", p, "for", age.Round(time.Second), "assigned_to_us", mine[p])
			clear(w.since)
			w.d.member.Load().ForceRebalance()
			return nil
		}
	}
	return nil
}
