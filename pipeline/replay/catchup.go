package replay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/kafkax"
	"github.com/hookline/hookline/pipeline/registry"
)

const (
	// settleEvery is how often a catch-up is looked at.
	settleEvery = 200 * time.Millisecond
	// routersSettle is how long after the subscription was taken into use again a
	// catch-up looks for the last time what was not routed to it: by then every
	// router has read that it is to be, which takes milliseconds, or has lost its
	// partitions (8 s, its group session) and its open transaction (10 s, the
	// time-out): see the constants of those names in pipeline/router.
	routersSettle = 19 * time.Second
)

// Resume takes a subscription into use again and delivers first what it missed
// while it was disabled, in the order of the sources; live deliveries are held
// until that is settled. It returns then. What waits in its lanes when it begins
// is part of that. When ctx ends before, the subscription stays disabled or paused
// (catching up): Resume again goes on; a plain resume ends it, and what is left of
// it goes on beside live deliveries.
func (r *Replayer) Resume(ctx context.Context, id string, opts Options) (*control.Result, error) {
	begun := r.now()
	it, err := r.deps.Writer.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	out := &control.Result{Action: audit.ActionResume, Subscription: id, Outcome: control.Done, Node: r.deps.Node}
	st := it.Decided
	if (st == nil || len(st.Missed) == 0) && it.Effective == pipeline.StateActive {
		out.Outcome, out.Detail = control.Nothing, "it is active, and has missed nothing that hookline knows of"
		return out, nil
	}
	if it.State != string(pipeline.StateDisabled) {
		if err := r.drain(ctx, it, opts); err != nil {
			return nil, err
		}
	}
	change, err := r.deps.Writer.As(opts.Who).SetState(ctx, id, pipeline.StatePaused, pipeline.ReasonCatchUp)
	if err != nil {
		return nil, err
	}
	resumed := r.now()
	total := 0
	for settled := false; !settled; {
		sel := Selection{Subscription: id, Missed: true, CatchUp: true}
		late := r.now().Sub(resumed) > routersSettle
		_, u, err := r.run(ctx, sel, opts)
		if err != nil {
			return nil, err
		}
		total += u.progress.Enqueued
		if err := r.settle(ctx, u, change.Version); err != nil {
			return nil, err
		}
		if settled = late && u.progress.Enqueued == 0; !settled {
			if err := sleep(ctx, resumed.Add(routersSettle+settleEvery).Sub(r.now())); err != nil {
				return nil, err
			}
		}
	}
	done, err := r.deps.Writer.As(opts.Who).CaughtUp(ctx, id)
	if errors.Is(err, registry.ErrStateChanged) {
		if it, getErr := r.deps.Writer.Get(ctx, id); getErr == nil && it.Effective == pipeline.StateDisabled && it.Decided != nil {
			return nil, stopped(id, it.Effective, it.Decided.Reason)
		}
		return nil, fmt.Errorf("resuming %s: %d missed deliveries are enqueued, but %w", id, total, registry.ErrStateChanged)
	}
	if err != nil {
		return nil, err
	}
	out.Revision, out.Detail = done.Revision, fmt.Sprintf("%d missed deliveries went first", total)
	out.TookMS = r.now().Sub(begun).Milliseconds()
	return out, nil
}

// drain sees to it that nothing waits that the catch-up would overtake. Who has
// missed something and is active or paused now, may have been so again before all
// that waited when it was disabled had ended in dead; what is left of that is
// older than what was missed later, and what was sent to it since is not. So it
// is disabled once more: all of it becomes part of what was missed, in order. Not
// so in a catch-up that was interrupted: that has drained already.
func (r *Replayer) drain(ctx context.Context, it *registry.Item, opts Options) error {
	if it.Effective != pipeline.StateDisabled {
		st := it.Decided
		if st == nil || len(st.Missed) == 0 || st.State == pipeline.StatePaused && st.Reason == pipeline.ReasonCatchUp {
			return nil
		}
		if _, err := r.deps.Writer.As(opts.Who).SetState(ctx, it.ID, pipeline.StateDisabled, pipeline.ReasonCatchUp); err != nil {
			return err
		}
	}
	return r.drained(ctx, it.ID, opts)
}

// drained waits until every delivery of before the subscription was disabled has
// ended in dead: what were left of them would be overtaken by the catch-up.
func (r *Replayer) drained(ctx context.Context, id string, opts Options) error {
	upTo, err := r.lastDelivery(ctx, kafkax.Partition(id, r.deps.Kafka.Partitions))
	if err != nil {
		return err
	}
	for {
		st, err := r.status(ctx, opts.Who, id)
		if err != nil {
			return err
		}
		w := Waiting{Silent: st == nil}
		if st != nil {
			w.Deliveries = st.Queued + st.Parked + st.Heads + st.InFlight
			if st.State != pipeline.StateDisabled {
				// This process has not heard of it, or somebody else has resumed it.
				it, err := r.deps.Writer.Get(ctx, id)
				if err != nil || it.Effective != pipeline.StateDisabled {
					return err
				}
			} else if w.Deliveries == 0 && st.Read > upTo {
				return nil
			}
		}
		if opts.OnProgress != nil {
			opts.OnProgress(Progress{}, w)
		}
		if err := sleep(ctx, settleEvery); err != nil {
			return err
		}
	}
}

// settle waits until every delivery of the catch-up has come to its end.
func (r *Replayer) settle(ctx context.Context, u *run, version int64) error {
	id := u.subscription()
	task := kafkax.Partition(id, r.deps.Kafka.Partitions)
	upTo, err := r.lastDelivery(ctx, task)
	if err != nil {
		return err
	}
	for {
		st, err := r.deps.Operator.StatusAt(ctx, u.opts.Who, id, version)
		if err != nil {
			return err
		}
		w := Waiting{Silent: st == nil}
		switch {
		case st == nil:
		case st.State != pipeline.StatePaused || st.Reason != pipeline.ReasonCatchUp:
			return stopped(id, st.State, st.Reason)
		case st.CatchUp == 0 && st.Read > upTo:
			return nil
		default:
			w.Deliveries = st.Queued + st.Parked + st.Heads
		}
		u.tell(w)
		if err := sleep(ctx, settleEvery); err != nil {
			return err
		}
	}
}

// stopped says why a catch-up does not go on: the subscription's state is not the
// one that it was given for it.
func stopped(id string, state pipeline.State, reason string) error {
	const remedy = "mend it, then run the same again: what is left goes first"
	switch {
	case state != pipeline.StateDisabled:
		return fmt.Errorf("resuming %s: it is %s (%s): %w", id, state, reason, registry.ErrStateChanged)
	case reason == pipeline.OutcomeGone.String():
		return fmt.Errorf("resuming %s: the endpoint answered 410 Gone again, so it is disabled again (%s)", id, remedy)
	}
	return fmt.Errorf("resuming %s: it was disabled again meanwhile: %s (%s)", id, reason, remedy)
}

// lastDelivery is the offset of the last record of a partition of deliveries; -1:
// there is none. What is behind it are the ends of transactions.
func (r *Replayer) lastDelivery(ctx context.Context, task int32) (int64, error) {
	topic := r.topics.Deliveries()
	end, err := r.fetcher.EndOffset(ctx, topic, task)
	if err != nil {
		return 0, err
	}
	start, err := r.fetcher.StartOffset(ctx, topic, task)
	if err != nil {
		return 0, err
	}
	last := int64(-1)
	for back, all := int64(64), false; last < 0 && !all; back *= 8 {
		all = end-back <= start
		err := r.fetcher.Scan(ctx, topic, task, max(end-back, start), end, func(rec *kgo.Record) error {
			last = rec.Offset
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return last, nil
}
