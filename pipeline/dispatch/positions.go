package dispatch

import (
	"context"
	"fmt"

	"github.com/hookline/hookline/pipeline/dispatch/lane"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// positions finds where deliveries/p and retry.*/p are read from: where the last
// transaction says, or the log's start. What somebody else has deleted between
// the two is counted and told: nobody can deliver it any more. front is where the
// task had read deliveries/p to; st.RetryEnd and st.RetryRead are set; names are the
// topics, deliveries first.
func (d *Dispatcher) positions(ctx context.Context, p int32, front int64, names []string, committed map[string]map[int32]kafkax.Committed, st *lane.Start) error {
	starts, err := d.fetcher.StartOffsets(ctx, names...)
	if err != nil {
		return fmt.Errorf("finding where the topics of task %d start: %w", p, err)
	}
	end, err := d.fetcher.EndOffset(ctx, names[0], p)
	if err != nil {
		return err
	}
	for i, t := range names {
		start, off := starts[t][p], int64(-1)
		if o, ok := committed[t][p]; ok {
			off = o.Offset
		}
		if i == 0 && max(off, front) > end {
			// Its offsets would be taken for those of the topic that was, of which the
			// state says what is settled.
			return fmt.Errorf("%s/%d ends at %d, and %d was read: it was made anew or lost records (delete %s, %s, %s, %s, %s too and run `hookline topics`: all begins anew; or bring the topic back)",
				t, p, end, max(off, front), d.topics.Lanes(), d.topics.Parked(), names[1], names[2], names[3])
		}
		if i > 0 && max(off, st.RetryRead[i-1]) > st.RetryEnd[i-1] {
			d.lostEnd(t, p, max(off, st.RetryRead[i-1]), st.RetryEnd[i-1])
			off = st.RetryEnd[i-1]
		} else if off >= 0 {
			d.missing(t, p, off, start)
		}
		if off = max(off, start); i == 0 {
			st.Deliveries = off
		} else {
			st.Retry[i-1] = off
		}
	}
	return nil
}

// lostEnd tells of a log that ends below what was read of it or is named in lanes:
// it was made anew, or lost its end. Nothing of it is read below its end, where
// offsets would be mistaken for those of before; what lanes still need of it is
// made again of its origin in deliveries.
func (d *Dispatcher) lostEnd(topic string, p int32, read, end int64) {
	d.deps.Metrics.Missing(topic, read-end)
	d.log.Error("a topic ends below what was read of it: it was made anew or lost records; retries that it held are made again of deliveries",
		"topic", topic, "partition", p, "read", read, "end", end,
		"remedy", "nothing if this was meant; else look at the brokers' logs for truncations")
}

// missing tells of records in [from, start) that are needed and were deleted by
// somebody else: hookline deletes nothing that a task needs.
func (d *Dispatcher) missing(topic string, p int32, from, start int64) {
	if from >= start {
		return
	}
	d.deps.Metrics.Missing(topic, start-from)
	d.log.Error("records were deleted that are not delivered yet: the task goes on behind them (is there a retention on the topic?)",
		"topic", topic, "partition", p, "from", from, "missing", start-from)
}
