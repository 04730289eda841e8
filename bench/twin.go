package main

import (
	"context"
	"fmt"
	"slices"
)

// twin is a second bed for a scenario that is told against another one; its
// rounds take turns with those of the scenario. Beside failing endpoints it has the
// healthy subscriptions alone, and what both count is the time until these have had
// everything: the throughput that failing neighbours cost them. Beside several
// processes it is one, which does the same work. Beside no sink it has one, and
// beside a load it has none: ClickHouse shares the processors.
type twin struct {
	bed    *bed // nil: the scenario has none
	rounds []round
}

// setUpTwin starts it, and warms it up. Call close in any case.
func (b *bed) setUpTwin(ctx context.Context, deliveries int) (*twin, error) {
	t := &twin{}
	sc := b.sc
	switch {
	case sc.failing > 0:
		sc.failing, sc.absent = 0, sc.failing
	case sc.processes > 1:
		sc.processes = 1
	case sc.noSink && !sc.sinkAlone:
		sc.noSink = false
	case sc.load > 0:
		sc.noSink = true
	default:
		return t, nil
	}
	var err error
	if t.bed, err = setUpBed(ctx, b.st, sc, false); err == nil {
		_, err = t.bed.round(ctx, max(sc.fanOut, deliveries/10))
	}
	if err != nil {
		t.close()
	}
	return t, err
}

func (t *twin) close() {
	if t.bed != nil {
		t.bed.close()
	}
}

func (t *twin) round(ctx context.Context, deliveries int) error {
	if t.bed == nil {
		return nil
	}
	r, err := t.bed.round(ctx, deliveries)
	if err == nil {
		t.rounds = append(t.rounds, r)
	}
	return err
}

// notes tell what the rounds of a scenario were beside the twin's that followed
// each of them.
func (t *twin) notes(sc *scenario, beside []round) []string {
	rate := func(r *round) float64 { return r.rate }
	stored := func(r *round) float64 { return r.storedRate }
	cpu := func(r *round) float64 { return µs(r.cpu) }
	switch {
	case t.bed == nil:
		return nil
	case sc.failing > 0:
		return []string{fmt.Sprintf("the healthy ones get %s deliveries/s, and %s without the others: they keep %s",
			span(beside, rate, "%.0f"), span(t.rounds, rate, "%.0f"), shares(beside, t.rounds, rate, rate))}
	case sc.processes > 1:
		return []string{fmt.Sprintf("%d processes take %s µs of CPU per delivery, one %s: %s of it, their start included",
			sc.processes, span(beside, cpu, "%.1f"), span(t.rounds, cpu, "%.1f"), shares(beside, t.rounds, cpu, cpu))}
	case sc.load > 0:
		return []string{"the same without a sink: " + latencies(t.rounds)}
	default:
		return []string{fmt.Sprintf("without a sink %s deliveries/s, with it %s until the last request (%s), %s until the log is stored, too (%s)",
			span(beside, rate, "%.0f"), span(t.rounds, rate, "%.0f"), shares(t.rounds, beside, rate, rate),
			span(t.rounds, stored, "%.0f"), shares(t.rounds, beside, stored, rate))}
	}
}

// span is the median of f over rounds, with the least and the greatest.
func span(rounds []round, f func(*round) float64, form string) string {
	lo, mid, hi := spread(rounds, f)
	return fmt.Sprintf(form+" ("+form+" to "+form+")", mid, lo, hi)
}

// shares is the same of what f is of g of the round of the same number.
func shares(of, in []round, f, g func(*round) float64) string {
	var all []float64
	for i := range of {
		all = append(all, 100*f(&of[i])/g(&in[i]))
	}
	return fmt.Sprintf("%.0f %%, %.0f to %.0f", median(all), slices.Min(all), slices.Max(all))
}
