package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// twin is a second bed for a scenario that is told against another one; its
// rounds take turns with those of the scenario. Beside failing endpoints it is
// the same but that these take what they get, and what both count is the time
// until the endpoints that are healthy in both have had everything: the
// throughput that failing neighbours cost them. Beside several processes it is
// one, which does the same work.
type twin struct {
	bed   *bed // nil: the scenario has none
	rates []float64
	cpu   []time.Duration // of a delivery
}

// setUpTwin starts it, and warms it up. Call close in any case.
func (b *bed) setUpTwin(ctx context.Context, deliveries int, o *options) (*twin, error) {
	t := &twin{}
	sc := b.sc
	switch {
	case sc.failing > 0:
		sc.failing, sc.spare = 0, sc.failing
	case sc.processes > 1:
		sc.processes = 1
	default:
		return t, nil
	}
	var err error
	if t.bed, err = setUpBed(ctx, b.st, sc, false); err == nil {
		_, err = t.bed.round(ctx, max(sc.fanOut, deliveries/10), o)
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

func (t *twin) round(ctx context.Context, deliveries int, o *options) error {
	if t.bed == nil {
		return nil
	}
	r, err := t.bed.round(ctx, deliveries, o)
	if err == nil {
		t.rates, t.cpu = append(t.rates, r.rate), append(t.cpu, r.cpu)
	}
	return err
}

// notes tell what the rounds of a scenario were beside the twin's that followed
// each of them.
func (t *twin) notes(sc *scenario, beside []round) []string {
	switch {
	case t.bed == nil:
		return nil
	case sc.failing > 0:
		return []string{t.kept(beside)}
	default:
		return []string{t.shared(sc.processes, beside)}
	}
}

// kept is what the healthy ones keep beside failing ones.
func (t *twin) kept(beside []round) string {
	var shares, rates []float64
	for i := range beside {
		shares, rates = append(shares, 100*beside[i].rate/t.rates[i]), append(rates, beside[i].rate)
	}
	return fmt.Sprintf("the healthy ones get %.0f deliveries/s, and %.0f where the others do not fail: they keep %.0f %% (%.0f to %.0f)",
		median(rates), median(t.rates), median(shares), slices.Min(shares), slices.Max(shares))
}

// shared is what a delivery costs several processes beside one.
func (t *twin) shared(processes int, beside []round) string {
	var shares, several, one []float64
	for i := range beside {
		several, one = append(several, float64(beside[i].cpu)/1e3), append(one, float64(t.cpu[i])/1e3)
		shares = append(shares, 100*float64(beside[i].cpu)/float64(t.cpu[i]))
	}
	return fmt.Sprintf("%d processes take %.1f µs of CPU per delivery, one %.1f µs: %.0f %% of it (%.0f to %.0f), their start included",
		processes, median(several), median(one), median(shares), slices.Min(shares), slices.Max(shares))
}
