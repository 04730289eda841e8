package app

import (
	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/pipeline/dispatch"
	"github.com/hookline/hookline/pipeline/router"
)

// addTracing makes the tracing where spans have somewhere to go. It is closed
// after every part has ended.
func (a *App) addTracing() error {
	if a.cfg.Telemetry.OTLPEndpoint == "" {
		return nil
	}
	t, err := telemetry.NewTracing(&a.cfg.Telemetry.TraceConfig, telemetry.TracingDeps{
		Version: a.version, Node: a.node, Log: a.log.With("part", "tracing"), Metrics: a.metrics,
	})
	if err != nil {
		return err
	}
	a.tracing = t
	a.closers = append(a.closers, t.Close)
	return nil
}

// The parts ask whether there is a tracer by comparing with nil, which an
// interface that holds a nil pointer is not.

func (a *App) routeTracer() router.Tracer {
	if a.tracing == nil {
		return nil
	}
	return a.tracing
}

func (a *App) dispatchTracer() dispatch.Tracer {
	if a.tracing == nil {
		return nil
	}
	return a.tracing
}
