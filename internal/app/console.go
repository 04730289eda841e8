package app

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/internal/api"
	"github.com/hookline/hookline/internal/app/admin"
	"github.com/hookline/hookline/internal/console"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/sink"
)

// addConsole makes the pages and the REST interface. Where there is no admin
// address there is nothing to serve them at, which is an error only for who asks
// for nothing else.
func (a *App) addConsole() error {
	if a.admin == nil {
		if len(a.roles) == 1 {
			return errors.New("starting the console: HOOKLINE_ADMIN_ADDR is off (set an address)")
		}
		return nil
	}
	r, err := sink.OpenReader(a.cfg.Sink)
	if err != nil {
		return err
	}
	a.closers = append(a.closers, func() { r.Close() })
	log := a.log.With("part", "console")
	operator, err := NewOperator(a.cfg, log)
	if err != nil {
		return err
	}
	a.closers = append(a.closers, operator.Close)
	edit, err := newEditor(a.cfg, log)
	if err != nil {
		return err
	}
	replays, err := a.replays(operator, r, log)
	if err != nil {
		return err
	}
	service := api.NewService(api.Deps{Log: r, Snapshot: a.snapshot, Operator: operator, Editor: edit, Replays: replays, Logger: log})
	guard := a.cfg.Admin.Guard()
	pages, err := console.New(console.Deps{Service: service, Guard: guard, Log: log, Version: a.version})
	if err != nil {
		return err
	}
	rest, err := api.NewHandler(service, guard, log)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(api.Prefix+"/", rest)
	mux.Handle("/", pages)
	a.console = mux
	a.ready = append(a.ready, func() admin.Part { return admin.Part{Name: "console", Ready: true} })
	return nil
}

// replays makes what runs replays for pages and programs; nil where the event
// topics are not known, which a process with this role alone can do without.
func (a *App) replays(operator *control.Operator, past *sink.Reader, log *slog.Logger) (*api.Replays, error) {
	if a.cfg.NeedEvents() != nil {
		return nil, nil
	}
	r, err := NewReplayer(a.cfg, ReplayDeps{
		Cluster: a.cluster, Operator: operator, Archive: past, Node: a.node, Log: log,
		Snapshot: func(context.Context) (*registry.Snapshot, error) {
			if s := a.registry.Snapshot(); s != nil {
				return s, nil
			}
			return nil, api.ErrNotReady
		},
	})
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, r.Close)
	out := api.NewReplays(r, log)
	a.parts = append(a.parts, part{name: "replays", run: out.Run, stopWithin: stopQuick})
	return out, nil
}

// snapshot is the registry as it is now; nil before it has been read.
func (a *App) snapshot() api.Registry {
	if s := a.registry.Snapshot(); s != nil {
		return s
	}
	return nil
}

// editor changes subscriptions for the REST interface, by the rules of this
// process.
type editor struct {
	policy registry.Policy
	writer *registry.Writer
}

func newEditor(cfg *configs.Config, log *slog.Logger) (*editor, error) {
	rc, deps, err := RegistryParts(cfg, log)
	if err != nil {
		return nil, err
	}
	return &editor{deps.Policy, registry.NewWriter(rc, deps)}, nil
}

// Apply reads and checks the source, and puts it in place, all or nothing.
func (e *editor) Apply(ctx context.Context, who string, source []byte, prune bool) ([]registry.Change, error) {
	docs, err := registry.ParseDocuments("body", source, &e.policy)
	if err != nil {
		return nil, err
	}
	if len(docs) == 0 { // with prune it would delete all
		return nil, &registry.FieldError{Path: "subscriptions", Why: "no subscriptions"}
	}
	return e.writer.As(who).Apply(ctx, docs, prune)
}

// Delete deletes one.
func (e *editor) Delete(ctx context.Context, who, id string) (registry.Change, error) {
	changes, err := e.writer.As(who).Delete(ctx, id)
	if err != nil {
		return registry.Change{}, err
	}
	return changes[0], nil
}

// Get gives one as it is stored.
func (e *editor) Get(ctx context.Context, id string) (*registry.Item, error) {
	return e.writer.Get(ctx, id)
}
