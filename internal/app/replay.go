package app

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/match"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/pipeline/replay"
	"github.com/hookline/hookline/pipeline/router"
)

// ReplayDeps are what NewReplayer gets from its caller.
type ReplayDeps struct {
	Cluster  string // the Kafka cluster's id
	Operator *control.Operator
	// Archive; nil: only what Kafka retains can be replayed.
	Archive replay.Archive
	// Snapshot gives the subscriptions as they are now; nil: they are read for each
	// replay.
	Snapshot func(context.Context) (*registry.Snapshot, error)
	Node     string
	Log      *slog.Logger
}

// NewReplayer makes a replayer under cfg, and has deps.Operator resume with it.
// Close it.
func NewReplayer(cfg *configs.Config, deps ReplayDeps) (*replay.Replayer, error) {
	rc, rdeps, err := RegistryParts(cfg, deps.Log)
	if err != nil {
		return nil, err
	}
	if deps.Snapshot == nil {
		deps.Snapshot = func(ctx context.Context) (*registry.Snapshot, error) { return readRegistry(ctx, rc, rdeps) }
	}
	r, err := replay.New(replay.Deps{
		Kafka: &cfg.Kafka, Cluster: deps.Cluster, EventTopics: cfg.Router.EventTopics, Parse: router.NewReader(&cfg.Router, &cfg.Kafka),
		Match: matchToday(deps.Snapshot), Operator: deps.Operator, Writer: registry.NewWriter(rc, rdeps), Archive: deps.Archive,
		Log: deps.Log, Node: deps.Node,
	})
	if err != nil {
		return nil, err
	}
	deps.Operator.CatchUpBy(func(ctx context.Context, who, id string) (*control.Result, error) {
		return r.Resume(ctx, id, replay.Options{Who: who})
	})
	return r, nil
}

// readRegistry reads the subscriptions once.
func readRegistry(ctx context.Context, rc registry.Config, deps registry.Deps) (*registry.Snapshot, error) {
	r := registry.New(rc, deps)
	inner, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(inner) }()
	defer func() {
		stop()
		<-ended
	}()
	select {
	case <-r.Ready():
		return r.Snapshot(), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case err := <-ended:
		ended <- nil
		return nil, fmt.Errorf("reading the subscriptions: %w", err)
	}
}

// matchToday makes replay.Deps.Match.
func matchToday(snapshot func(context.Context) (*registry.Snapshot, error)) func(context.Context, string) (func(*pipeline.Event, []*pipeline.Subscription) []*pipeline.Subscription, int64, error) {
	return func(ctx context.Context, id string) (func(*pipeline.Event, []*pipeline.Subscription) []*pipeline.Subscription, int64, error) {
		snap, err := snapshot(ctx)
		if err != nil {
			return nil, 0, err
		}
		if id == "" {
			return match.NewIndex(snap.All()).Match, snap.Version(), nil
		}
		sub := snap.Get(id)
		if sub == nil {
			return nil, 0, fmt.Errorf("replaying to %q: %w", id, registry.ErrNotFound)
		}
		active := *sub
		active.State = pipeline.StateActive
		return match.NewIndex(slices.Values([]*pipeline.Subscription{&active})).Match, snap.Version(), nil
	}
}
