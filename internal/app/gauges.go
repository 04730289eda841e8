package app

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/registry"
)

// gatherer is what /metrics serves. The gauges that are cheap to look up are set
// when they are asked for.
func (a *App) gatherer() prometheus.Gatherer {
	a.metrics.Build(a.version)
	var mu sync.Mutex // scrapes may overlap
	counted, dropped := int64(-1), int64(0)
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, p := range a.Readiness() {
			a.metrics.Ready(p.Name, p.Ready)
			if p.Name == string(RoleSink) {
				a.metrics.Ready("degraded-sink", p.Degraded)
			}
		}
		if a.dropped != nil {
			n := a.dropped()
			a.metrics.LogLinesDropped(n - dropped)
			dropped = n
		}
		// Counting 100,000 subscriptions is only needed when one has changed.
		if snap := a.registry.Snapshot(); snap != nil && snap.Version() != counted {
			counted = snap.Version()
			a.countSubscriptions(snap)
		}
		return a.metrics.Registry().Gather()
	})
}

func (a *App) countSubscriptions(snap *registry.Snapshot) {
	counts := map[pipeline.State]int{pipeline.StateActive: 0, pipeline.StatePaused: 0, pipeline.StateDisabled: 0}
	for s := range snap.All() {
		counts[s.State]++
	}
	for state, n := range counts {
		a.metrics.Subscriptions(string(state), n)
	}
	a.metrics.Refused(snap.Bad())
}
