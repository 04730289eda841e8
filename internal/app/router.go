package app

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hookline/hookline/internal/app/admin"
	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/filter"
	"github.com/hookline/hookline/pipeline/match"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/pipeline/router"
)

func (a *App) addRouter() error {
	if err := a.cfg.NeedEvents(); err != nil {
		return err
	}
	r, err := router.New(a.cfg.Router, router.Deps{
		Kafka: &a.cfg.Kafka, Cluster: a.cluster, Matcher: a.matchers.forRouter, MatcherReadAt: a.registry.ReadAt,
		Metrics: a.metrics, Tracer: a.routeTracer(), Log: a.log.With("part", "router"),
	})
	if err != nil {
		return err
	}
	for i := range a.cfg.Router.EventsTopics {
		if spec := &a.cfg.Router.EventsTopics[i]; spec.Pattern == nil {
			a.metrics.Reads(spec.Topic)
		}
	}
	a.parts = append(a.parts, part{name: "router", run: a.afterRegistry(r.Run), stopWithin: stopSlow, drains: true})
	a.ready = append(a.ready, func() admin.Part {
		p := admin.Part{Name: "router", Ready: a.registry.Snapshot() != nil}
		if why := r.Stuck(); why != "" {
			p.Ready, p.Detail = false, why
		}
		return p
	})
	return nil
}

// matcher is the index of one snapshot.
type matcher struct {
	*match.Index
	version, generation int64
	since               time.Time // when this process first had this generation
}

// Version is the registry version that the index was made from.
func (m *matcher) Version() int64 { return m.version }

// matchers keeps the index of the newest snapshot. Safe for concurrent use: of
// two indexes made at once one is kept.
type matchers struct {
	registry *registry.Registry
	filters  match.Observer // of filters that fail; nil: nobody
	now      func() time.Time
	current  atomic.Pointer[matcher]
}

// forRouter gives the newest index; nil until the registry was read.
func (ms *matchers) forRouter() router.Matcher {
	if m := ms.get(); m != nil {
		return m
	}
	return nil
}

func (ms *matchers) get() *matcher {
	snap := ms.registry.Snapshot()
	if snap == nil {
		return nil
	}
	old := ms.current.Load()
	switch {
	case old != nil && old.version == snap.Version():
		return old
	case old != nil && old.generation == snap.Generation(): // nothing but the version is new
		m := &matcher{Index: old.Index, version: snap.Version(), generation: old.generation, since: old.since}
		ms.current.CompareAndSwap(old, m)
		return m
	}
	m := &matcher{Index: match.NewObservedIndex(snap.All(), ms.filters), version: snap.Version(), generation: snap.Generation(), since: ms.now()}
	ms.current.CompareAndSwap(old, m)
	return m
}

// doubt is how long after a change of the subscriptions every event counts as
// taken: it may have been routed before the change.
const doubt = 10 * time.Minute

// taken tells whether an event has takers, and so is stored. It says yes where
// it cannot know.
func (ms *matchers) taken(ev *pipeline.Event) bool {
	m := ms.get()
	if m == nil || ms.now().Sub(m.since) < doubt {
		return true
	}
	return m.Taken(ev)
}

// filterWatch counts filters that fail and names their subscriptions in the log,
// which drops repetitions. What is in the event is not told.
type filterWatch struct {
	metrics *telemetry.Metrics
	log     *slog.Logger
}

// FilterFailed implements match.Observer.
func (w filterWatch) FilterFailed(s *pipeline.Subscription, ev *pipeline.Event, r filter.Result, why string) {
	w.metrics.FilterFailed(r.String())
	args := []any{"subscription", s.ID, "tenant", s.Tenant, "reason", r.String(), "source", ev.Source.String()}
	if why != "" {
		args = append(args, "error", why)
	}
	w.log.Warn("a filter failed on an event, which its subscription does not get", args...)
}
