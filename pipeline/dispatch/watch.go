package dispatch

import (
	"context"
	"time"

	"github.com/hookline/hookline/pipeline/kafkax"
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
	w.d.lookAtRouter(ctx)
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

const (
	// routerPatience bounds the question how far the router has come: starting
	// does not wait for long for what is rarely needed.
	routerPatience = 2 * time.Second
	// routedFor is how long an answer counts. A replay looks at what was routed
	// from an hour before a subscription was disabled: an answer that is older
	// would have it deliver again what had been routed before that.
	routedFor = 30 * time.Minute
)

// routedAt is how far the router had come at a time.
type routedAt struct {
	offsets map[string][]int64
	at      time.Time
}

// lookAtRouter finds out how far the router has come.
func (d *Dispatcher) lookAtRouter(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, routerPatience)
	defer cancel()
	at := d.now() // before the question: by then it had not come further than it will say
	offsets, err := kafkax.UpTo(ctx, d.reader, d.deps.Kafka.RouterGroup())
	if err != nil {
		d.log.Debug("looking at how far the router has come", "err", err)
		return
	}
	d.routed.Store(&routedAt{offsets, at})
}

// routedUpTo is how far the router had come when that was last looked at; nil:
// too long ago.
func (d *Dispatcher) routedUpTo() map[string][]int64 {
	r := d.routed.Load()
	if r == nil || d.now().Sub(r.at) > routedFor {
		return nil
	}
	return r.offsets
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
