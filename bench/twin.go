package main

import (
	"context"
	"fmt"
	"slices"
)

// twin is a second bed for a scenario with failing endpoints: the same but that
// these take what they get. Its rounds take turns with those of the scenario, and
// what both count is the time until the endpoints that are healthy in both have
// had everything: the throughput that failing neighbours cost them.
type twin struct {
	bed   *bed // nil: the scenario has no failing endpoints
	rates []float64
}

// setUpTwin starts it, and warms it up. Call close in any case.
func (b *bed) setUpTwin(ctx context.Context, deliveries int, o *options) (*twin, error) {
	t := &twin{}
	if b.sc.failing == 0 {
		return t, nil
	}
	sc := b.sc
	sc.failing, sc.spare = 0, b.sc.failing
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
		t.rates = append(t.rates, r.rate)
	}
	return err
}

// kept tells what the healthy ones keep beside failing ones, round by round
// against the twin's round that followed.
func (t *twin) kept(beside []round) []string {
	if t.bed == nil {
		return nil
	}
	var shares, rates []float64
	for i := range beside {
		shares, rates = append(shares, 100*beside[i].rate/t.rates[i]), append(rates, beside[i].rate)
	}
	slices.Sort(shares)
	slices.Sort(rates)
	alone := slices.Sorted(slices.Values(t.rates))
	return []string{fmt.Sprintf("the healthy ones get %.0f deliveries/s, and %.0f where the others do not fail: they keep %.0f %% (%.0f to %.0f)",
		rates[len(rates)/2], alone[len(alone)/2], shares[len(shares)/2], shares[0], shares[len(shares)-1])}
}
