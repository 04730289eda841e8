// Package app wires hookline's parts into one process: it makes them, starts
// them in order, tells whether they are ready, and stops them in the reverse
// order.
package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/internal/app/admin"
	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/registry"
)

// Role is a part of hookline's work that a process does.
type Role string

// The roles.
const (
	RoleRouter     Role = "router"     // events to deliveries
	RoleDispatcher Role = "dispatcher" // deliveries to endpoints
	RoleSink       Role = "sink"       // attempts and events to ClickHouse
	RoleConsole    Role = "console"    // the pages and the REST interface at the admin address
)

// Roles lists every role, in the order in which they start.
var Roles = []Role{RoleConsole, RoleSink, RoleDispatcher, RoleRouter}

// ParseRoles reads a list such as "router,dispatcher"; empty: all.
func ParseRoles(s string) ([]Role, error) {
	if strings.TrimSpace(s) == "" {
		return Roles, nil
	}
	var out []Role
	for name := range strings.SplitSeq(s, ",") {
		r := Role(strings.TrimSpace(name))
		switch {
		case !slices.Contains(Roles, r):
			return nil, fmt.Errorf("reading roles: %q is no role (one of %s, %s, %s, %s)", name, RoleRouter, RoleDispatcher, RoleSink, RoleConsole)
		case slices.Contains(out, r):
			return nil, fmt.Errorf("reading roles: %s is there twice", r)
		}
		out = append(out, r)
	}
	return out, nil
}

// Deps is what an App gets from the command that runs it.
type Deps struct {
	Log *slog.Logger
	// LogDropped is how many lines of the log were dropped so far; nil: none.
	LogDropped func() int64
	Version    string // goes into the User-Agent
	Cluster    string // the Kafka cluster's id, a part of every event's identity
	// Services run beneath the parts: they start before them and stop after.
	Services []Service
}

// Service is something that an App runs for others: Run blocks until ctx ends.
type Service struct {
	Name string
	Run  func(ctx context.Context) error
}

// App is the service in this process.
type App struct {
	cfg     *configs.Config
	roles   []Role
	log     *slog.Logger
	version string
	cluster string
	metrics *telemetry.Metrics
	dropped func() int64       // lines of the log; nil: none
	tracing *telemetry.Tracing // nil: no spans
	node    string

	registry *registry.Registry
	matchers *matchers
	admin    *admin.Server // nil: switched off
	console  http.Handler  // all that admin does not serve itself; set before Run
	parts    []part        // in the order in which they start
	ready    []func() admin.Part
	closers  []func() // after the parts have ended, in reverse
}

// Limits of stopping, besides what the requests under way may take.
const (
	stopQuick = 5 * time.Second
	stopSlow  = 20 * time.Second
)

// New makes the parts that roles need, in the order in which they start. It
// opens the admin address and connects to nothing.
func New(cfg *configs.Config, roles []Role, deps Deps) (*App, error) {
	a := &App{
		cfg: cfg, roles: roles, log: deps.Log, version: deps.Version, cluster: deps.Cluster,
		metrics: telemetry.NewMetrics(), dropped: deps.LogDropped, node: nodeName(cfg.Kafka.InstanceID),
	}
	for _, s := range deps.Services {
		a.parts = append(a.parts, part{name: s.Name, run: s.Run, stopWithin: stopSlow})
	}
	steps := []func() error{a.addTracing, a.addAdmin, a.addRegistry}
	for _, r := range Roles {
		if !slices.Contains(roles, r) {
			continue
		}
		switch r {
		case RoleConsole:
			steps = append(steps, a.addConsole)
		case RoleSink:
			steps = append(steps, a.addSink)
		case RoleDispatcher:
			steps = append(steps, a.addDispatcher)
		case RoleRouter:
			steps = append(steps, a.addRouter)
		}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			if a.admin != nil {
				a.admin.Close()
			}
			a.close()
			return nil, err
		}
	}
	return a, nil
}

// nodeName names this process in the delivery log.
func nodeName(instance string) string {
	if instance != "" {
		return instance
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}

// Run works until ctx ends, then drains: it returns nil when everything under
// way is settled, and an error when a part failed or did not stop in time.
func (a *App) Run(ctx context.Context) error {
	defer a.close()
	a.log.Info("starting", "roles", a.roles, "version", a.version, "node", a.node, "admin", a.AdminAddr())
	err := runParts(ctx, a.parts, a.log)
	if err == nil {
		a.log.Info("stopped")
	}
	return err
}

func (a *App) close() {
	for _, c := range slices.Backward(a.closers) {
		c()
	}
	a.closers = nil
}

// Readiness tells how each part is.
func (a *App) Readiness() []admin.Part {
	parts := make([]admin.Part, len(a.ready))
	for i, f := range a.ready {
		parts[i] = f()
	}
	return parts
}

// Ready tells whether every part is ready.
func (a *App) Ready() bool {
	return !slices.ContainsFunc(a.Readiness(), func(p admin.Part) bool { return !p.Ready })
}

// AdminAddr is the address of health and metrics; "off" where there is none.
func (a *App) AdminAddr() string {
	if a.admin == nil {
		return admin.Off
	}
	return a.admin.Addr()
}

func (a *App) addAdmin() error {
	if a.cfg.Admin.Addr == admin.Off {
		return nil
	}
	deps := admin.Deps{Parts: a.Readiness, Gatherer: a.gatherer(), Log: a.log}
	if slices.Contains(a.roles, RoleConsole) {
		// The console is made when the registry is; nothing is served before Run.
		deps.Rest = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.console.ServeHTTP(w, r) })
		deps.RestWithin = max(control.DefaultPatience, a.cfg.Sender.RequestTimeout+control.TestPatience)
	}
	s, err := admin.Listen(&a.cfg.Admin, deps)
	if err != nil {
		return err
	}
	a.admin = s
	a.parts = append(a.parts, part{name: "admin address", run: s.Run, stopWithin: stopQuick})
	return nil
}

func (a *App) addRegistry() error {
	rc, deps, err := RegistryParts(a.cfg, a.log.With("part", "registry"))
	if err != nil {
		return err
	}
	// Who sends needs the secrets; who does not may lack the keys.
	deps.Policy.Sends = slices.Contains(a.roles, RoleDispatcher)
	a.registry = registry.New(rc, deps)
	a.matchers = &matchers{
		registry: a.registry, now: time.Now,
		filters: filterWatch{metrics: a.metrics, log: a.log.With("part", "router")},
	}
	a.parts = append(a.parts, part{name: "registry", run: a.registry.Run, stopWithin: stopQuick})
	a.ready = append(a.ready, a.registryReadiness)
	return nil
}

// kafkaPatience is how long Kafka may be silent before the process counts as not
// ready: longer than a broker takes to hand its partitions over.
const kafkaPatience = 10 * time.Second

// registryReadiness: the registry is read all the time, by every process, so it is
// what tells of Kafka too. A process that cannot reach Kafka does nothing of its
// work and says so; it is alive all the same, and goes on by itself.
func (a *App) registryReadiness() admin.Part {
	snap := a.registry.Snapshot()
	p := admin.Part{Name: "registry", Ready: snap != nil, Detail: "reading the subscriptions"}
	if snap != nil {
		p.Detail = fmt.Sprintf("%d subscriptions at version %d", snap.Len(), snap.Version())
		if snap.Len() == 1 {
			p.Detail = fmt.Sprintf("1 subscription at version %d", snap.Version())
		}
		if n := snap.Bad(); n > 0 {
			p.Degraded = true
			p.Detail += fmt.Sprintf(", %d that cannot be read: %s", n, firstRefused(snap))
		}
	}
	if silent, err := a.registry.Silent(); silent > kafkaPatience {
		p.Ready, p.Degraded, p.Detail = false, false, fmt.Sprintf("no answer from Kafka for %s: %v", silent.Round(time.Second), err)
	}
	return p
}

// firstRefused names one of the subscriptions that cannot be read, and why.
func firstRefused(snap *registry.Snapshot) string {
	for _, err := range snap.Refused() {
		return err.Error()
	}
	return ""
}

// afterRegistry is run, begun only when the subscriptions have been read: nothing
// is matched or sent before.
func (a *App) afterRegistry(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-a.registry.Ready():
			return run(ctx)
		}
	}
}
