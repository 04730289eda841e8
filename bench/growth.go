package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// growthSubs are the numbers of subscriptions among which the router is measured.
var growthSubs = []int{100, 10_000, 100_000}

// routerGrowth tells what an event costs a process with no role but the router's,
// Kafka's client included, among few and among many subscriptions. Processes with
// different numbers of them take turns, so that the machine is the same to all.
func routerGrowth(ctx context.Context, st *stage, sc scenario, o *options) (notes []string, err error) {
	beds := make([]*bed, len(growthSubs))
	for i, n := range growthSubs {
		sc := sc
		sc.subs = n
		b, err := setUpBed(ctx, st, sc, false)
		defer b.close()
		if err != nil {
			return nil, err
		}
		beds[i] = b
	}
	each := make([][]time.Duration, len(beds)) // CPU per event, by round
	for round := range o.roundsOf(&sc) + 1 {
		for i, b := range beds {
			cpu, err := b.route(ctx, cmp.Or(o.deliveries, sc.deliveries))
			if err != nil {
				return nil, fmt.Errorf("%d subscriptions: %w", growthSubs[i], err)
			}
			if round > 0 { // the first one is for warming up
				each[i] = append(each[i], cpu)
			}
		}
	}
	first := median(each[0])
	for i, b := range beds {
		b.notePeak()
		mid := median(each[i])
		notes = append(notes, fmt.Sprintf("the router alone, %d subscriptions, fan-out %d: %.1f µs (%.1f to %.1f) of CPU per event, %.2f times that among %d; peak %d MiB",
			growthSubs[i], sc.fanOut, µs(mid), µs(slices.Min(each[i])), µs(slices.Max(each[i])), float64(mid)/float64(first), growthSubs[0], b.peakMiB))
	}
	return notes, nil
}

func µs(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

func median[T cmp.Ordered](all []T) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// route has the router route so many events, and gives its CPU time for each.
func (b *bed) route(ctx context.Context, events int) (time.Duration, error) {
	before, err := b.routed()
	if err != nil {
		return 0, err
	}
	cpu, err := b.cpu()
	if err != nil {
		return 0, err
	}
	if err := b.produce(ctx, events*b.sc.fanOut); err != nil {
		return 0, err
	}
	if err := until(ctx, 2*time.Minute, func() bool {
		n, err := b.routed()
		return err == nil && n-before >= float64(events)
	}); err != nil {
		return 0, err
	}
	after, err := b.settled(ctx)
	return (after.cpu - cpu) / time.Duration(events), err
}

// routed is how many events the bed's one process has routed so far.
func (b *bed) routed() (float64, error) {
	return b.metric(b.admin[0], `hookline_events_total{format="json",result="routed"}`)
}

// roles are those of the processes that a scenario starts.
func (s *scenario) roles() string {
	roles := []string{"router"}
	if !s.routerAlone {
		roles = append(roles, "dispatcher")
	}
	if !s.noSink && !s.routerAlone {
		roles = append(roles, "sink")
	}
	return strings.Join(roles, ",")
}
