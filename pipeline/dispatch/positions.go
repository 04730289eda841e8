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
// task had read deliveries/p to; names are the topics, deliveries first.
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
		if off >= 0 {
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
