package dispatch

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/dispatch/lane"
	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// rescans is how many partitions' parked topics are read again at once.
	rescans = 2
	// rescanTimeout bounds one of them; what it found by then counts.
	rescanTimeout = time.Minute
)

// beginRescans has parked read again for lanes of which not all places are in
// memory. In the loop.
func (d *Dispatcher) beginRescans(inner context.Context) {
	if d.stopping {
		return
	}
	for _, t := range d.tasks {
		if d.rescans >= rescans {
			return
		}
		r := t.NextRescan()
		if r == nil {
			continue
		}
		d.rescans++
		d.rescanning.Go(func() {
			next, err := d.rescan(inner, r)
			d.call(func() {
				d.rescans--
				if err != nil && !errors.Is(err, context.Canceled) {
					d.log.Error("reading parked deliveries again; it goes on shortly", "partition", r.Task.Partition(), "offset", next, "err", err)
				}
				r.Task.Rescanned(d.now(), r, next, err != nil)
			})
		})
	}
}

var errEnough = errors.New("enough was read")

// rescan feeds r; next is the first offset that was not looked at.
func (d *Dispatcher) rescan(ctx context.Context, r *lane.Rescan) (next int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, rescanTimeout)
	defer cancel()
	next = r.From
	err = d.fetcher.Scan(ctx, d.topics.Parked(), r.Task.Partition(), r.From, r.To, func(rec *kgo.Record) error {
		next = rec.Offset + 1
		c, err := kafkax.ParseCopy(rec)
		if err != nil {
			raw := rawOf(rec)
			if raw.Lane == "" {
				r.Bad(raw)
				return nil
			}
			c.Lane, c.Origin = raw.Lane, raw.Origin
		}
		if !r.Parked(rec.Offset, c.Lane, c.Origin, rec.Timestamp) {
			return errEnough
		}
		return nil
	})
	switch {
	case err == nil:
		return r.To, nil
	case errors.Is(err, errEnough):
		return next, nil
	}
	return next, err
}
