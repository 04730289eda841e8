package app

import (
	"context"
	"time"

	"github.com/hookline/hookline/internal/app/admin"
	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/pipeline/secret"
	"github.com/hookline/hookline/sender"
)

// stopMargin is what stopping the dispatcher takes beyond the requests under
// way: the last transaction and leaving the group.
const stopMargin = 10 * time.Second

func (a *App) addDispatcher() error {
	gate := dispatch.NewGate(time.Duration(a.cfg.Dispatch.SessionTimeout))
	keys, err := a.cfg.Secrets.Keyring()
	if err != nil {
		return err
	}
	send, err := sender.New(a.cfg.Sender, sender.Deps{
		Gate: gate.Open, Version: a.version, Metrics: a.metrics, Log: a.log.With("part", "sender"),
		Secrets: &secret.Resolver{Keys: keys},
	})
	if err != nil {
		return err
	}
	a.closers = append(a.closers, send.Close)
	view := &registryView{registry: a.registry, changed: make(chan struct{}, 1)}
	a.metrics.Reads(a.cfg.Kafka.Topics().Deliveries())
	d, err := dispatch.New(a.cfg.Dispatch, dispatch.Deps{
		Kafka: &a.cfg.Kafka, Sender: send, Registry: view, Gate: gate,
		Metrics: dispatchMetrics{a.metrics, send.Connections}, Log: a.log.With("part", "dispatcher"), Node: a.node,
		RequestTimeout: a.cfg.Sender.RequestTimeout, StateRecord: a.disabledRecord, HealthRecord: registry.HealthRecord,
		RedactURL: send.RedactURL, Tracer: a.dispatchTracer(),
	})
	if err != nil {
		return err
	}
	a.parts = append(a.parts,
		part{name: "registry view", run: view.follow, stopWithin: stopQuick},
		part{name: "dispatcher", run: a.afterRegistry(d.Run), stopWithin: a.cfg.Sender.RequestTimeout + stopMargin, drains: true})
	a.ready = append(a.ready, func() admin.Part {
		p := admin.Part{Name: "dispatcher", Ready: d.Ready()}
		if !p.Ready {
			p.Detail = "joining the group, or recovering partitions"
		}
		if why := d.Stuck(); why != "" {
			p.Ready, p.Detail = false, why
		}
		return p
	})
	return nil
}

// disabledRecord is the registry's record that disables a subscription.
func (a *App) disabledRecord(s dispatch.Disabled) (key, value []byte) {
	st := registry.StateInfo{
		Revision: s.Revision, State: pipeline.StateDisabled, Reason: s.Reason, Since: s.Since, FailingSince: s.FailingSince, Routed: s.Routed,
	}
	if snap := a.registry.Snapshot(); snap != nil {
		if old := snap.State(s.ID); old != nil {
			st.Missed = old.Missed
		}
	}
	return registry.StateRecord(s.ID, &st)
}

// registryView is the registry as the dispatcher sees it: changes come as
// values of one channel, of which there is never more than one waiting.
type registryView struct {
	registry *registry.Registry
	changed  chan struct{} // written by follow, read by the dispatcher
}

// View is the newest view; nil until the registry has been read.
func (v *registryView) View() pipeline.Subscriptions {
	snap := v.registry.Snapshot()
	if snap == nil {
		return nil
	}
	return snap
}

// Changed tells that there is a newer view.
func (v *registryView) Changed() <-chan struct{} { return v.changed }

// follow passes the registry's changes on until ctx ends.
func (v *registryView) follow(ctx context.Context) error {
	for {
		next := v.registry.Changed() // before the note, so that no change is missed
		select {
		case v.changed <- struct{}{}:
		default: // one is waiting already
		}
		select {
		case <-ctx.Done():
			return nil
		case <-next:
		}
	}
}

// dispatchMetrics gives the dispatcher's counts their Prometheus names.
type dispatchMetrics struct {
	m           *telemetry.Metrics
	connections func() (idle, busy int)
}

// Attempted counts a try.
func (d dispatchMetrics) Attempted(a *pipeline.Attempt) {
	d.m.Attempt(a.Outcome, a.Attempt, a.Elapsed, &a.Envelope.Trace)
}

// Delivered counts a delivery that ended.
func (d dispatchMetrics) Delivered(o pipeline.Outcome) { d.m.Delivery(o) }

// FirstAttemptLag notes how old an event was at its first attempt.
func (d dispatchMetrics) FirstAttemptLag(a *pipeline.Attempt) {
	d.m.DeliveryLag(a.StartedAt.Sub(a.Envelope.ProducedAt), &a.Envelope.Trace)
}

// Dead counts a dead letter.
func (d dispatchMetrics) Dead(r pipeline.DeadReason) { d.m.Dead(r) }

// Lanes sets the gauges.
func (d dispatchMetrics) Lanes(st dispatch.Stats) {
	d.m.Lanes("waiting", st.Waiting)
	d.m.Lanes("held", st.Held)
	d.m.Parked(st.Parked)
	d.m.InFlight(st.InFlight)
	d.m.RetryOverdue(st.RetryOverdue)
	d.m.Connections(d.connections())
}

// CommitTook notes a transaction's time.
func (d dispatchMetrics) CommitTook(took time.Duration, _ int) { d.m.CommitTook(took) }

// KafkaLag sets a topic's lag.
func (d dispatchMetrics) KafkaLag(topic string, records int64) { d.m.KafkaLag(topic, records) }

// Missing counts records that were removed too early.
func (d dispatchMetrics) Missing(topic string, records int64) { d.m.Missing(topic, records) }
