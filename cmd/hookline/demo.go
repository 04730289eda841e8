package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/internal/app"
	"github.com/hookline/hookline/internal/app/demo"
	"github.com/hookline/hookline/internal/app/local"
	"github.com/hookline/hookline/internal/receiver"
	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/pipeline/secret"
)

// demoOptions are the flags of hookline demo.
type demoOptions struct {
	events        int
	delays, level string
	fast, keep    bool
}

var logLevels = []string{"debug", "info", "warn", "error"}

const (
	demoDelays = "2s,2s,2s"
	fastDelays = "500ms,500ms,500ms"
	fastEvents = 60
)

func (c *cli) demoCmd() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "All of it in one process: broker, ClickHouse, endpoints that fail, and the outcome, checked",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.fast && !cmd.Flags().Changed("retry-delays") {
				o.delays = fastDelays
			}
			if o.fast && !cmd.Flags().Changed("events") {
				o.events = fastEvents
			}
			plan, err := o.plan()
			if err != nil {
				return err
			}
			if !slices.Contains(logLevels, o.level) {
				return usagef("reading options: hookline demo: --log-level: %q is none of %s", o.level, strings.Join(logLevels, ", "))
			}
			return c.demo(cmd.Context(), plan, &o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.events, "events", demo.DefaultEvents, "how many events")
	f.StringVar(&o.delays, "retry-delays", demoDelays, "waits before retries 1, 2 and 3; the service's default is 30s,30s,30s")
	f.BoolVar(&o.fast, "fast", false, "fewer events and shorter waits")
	f.StringVar(&o.level, "log-level", "info", "of the log in the demo's directory: "+strings.Join(logLevels, ", "))
	f.BoolVar(&o.keep, "keep", false, "go on running afterwards, until interrupted")
	return cmd
}

func (o *demoOptions) plan() (*demo.Plan, error) {
	if o.events < demo.MinEvents || o.events > demo.MaxEvents {
		return nil, usagef("reading options: hookline demo: --events: %d is not within %d to %d", o.events, demo.MinEvents, demo.MaxEvents)
	}
	p := &demo.Plan{Events: o.events}
	for s := range strings.SplitSeq(o.delays, ",") {
		d, err := configs.ParseDuration(strings.TrimSpace(s))
		if err != nil || d <= 0 {
			return nil, usagef("reading options: hookline demo: --retry-delays: %q is not a list of 1 to 3 durations such as %s", o.delays, demoDelays)
		}
		p.RetryDelays = append(p.RetryDelays, d)
	}
	if len(p.RetryDelays) > 3 {
		return nil, usagef("reading options: hookline demo: --retry-delays: %d waits, at most 3", len(p.RetryDelays))
	}
	return p, nil
}

// demoRun is a demo under way.
type demoRun struct {
	c     *cli
	plan  *demo.Plan
	dir   string
	cfg   *configs.Config
	log   *telemetry.Logger
	stack *local.Stack
	recv  *receiver.Receiver
	app   *app.App
	began time.Time
}

// demo runs in a directory of its own, which is removed when all went well.
func (c *cli) demo(ctx context.Context, plan *demo.Plan, o *demoOptions) error {
	dir, err := os.MkdirTemp("", "hookline-demo-")
	if err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	r := &demoRun{c: c, plan: plan, dir: dir, began: time.Now()}
	err = r.run(ctx, o)
	if err == nil {
		return os.RemoveAll(dir)
	}
	return fmt.Errorf("%w\nits data and log are in %s", err, dir)
}

func (r *demoRun) run(ctx context.Context, o *demoOptions) error {
	logFile, err := os.Create(filepath.Join(r.dir, "hookline.log"))
	if err != nil {
		return fmt.Errorf("making the log: %w", err)
	}
	defer logFile.Close()
	r.log = telemetry.NewLogger(&telemetry.Config{LogLevel: o.level, LogFormat: "text"}, logFile)
	defer r.log.Close(logPatience)
	if err := r.configure(); err != nil {
		return err
	}
	r.say("starting a broker and ClickHouse in %s", r.dir)
	r.stack, err = local.Start(ctx, local.Addrs{Kafka: "127.0.0.1:0", ClickHouse: "127.0.0.1:0"}, r.dir, r.log.Logger)
	if err != nil {
		return err
	}
	defer r.stack.Close()
	if r.recv, err = receiver.New(receiver.Config{KeepBodies: true, MaxRequests: 2*demo.MaxEvents + 100, Script: r.plan.Script()}); err != nil {
		return err
	}
	if r.app, err = newLocalApp(ctx, r.cfg, r.stack, r.log); err != nil {
		return err
	}
	return r.around(ctx, func(ctx context.Context) error {
		if err := r.work(ctx); err != nil {
			return err
		}
		return r.after(ctx, o.keep)
	})
}

// configure sets what a demo needs. The environment's own HOOKLINE_ variables
// are for a real service: the demo does not take them.
func (r *demoRun) configure() error {
	r.cfg = configs.Default()
	return errors.Join(
		provide(demo.BearerVariable, func() (string, error) { return rand.Text(), nil }),
		provide(demo.SigningVariable, func() (string, error) {
			key, err := secret.NewHMACKey()
			return key.Reveal(), err
		}),
		r.cfg.Set("EVENTS_TOPICS", demo.EventsTopics),
		r.cfg.Set("RETRY_DELAYS", demo.Delays(r.plan.RetryDelays)),
		r.cfg.Set("ADMIN_ADDR", "127.0.0.1:0"),
		r.cfg.Set("CLICKHOUSE_FLUSH_INTERVAL", "250ms"),
	)
}

// provide makes a secret, unless its variable has one: the subscription refers to it.
func provide(variable string, fresh func() (string, error)) error {
	if os.Getenv(variable) != "" {
		return nil
	}
	text, err := fresh()
	if err != nil {
		return fmt.Errorf("making a secret: %w", err)
	}
	return os.Setenv(variable, text)
}

// around runs the receiver and the app while f works, and waits for both.
func (r *demoRun) around(ctx context.Context, f func(context.Context) error) error {
	service, stop := context.WithCancel(context.WithoutCancel(ctx))
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var failed [2]error // each written by one goroutine, read after Wait
	endpoints, stopEndpoints := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEndpoints()
	wg.Go(func() {
		if failed[0] = r.recv.Run(endpoints); failed[0] != nil {
			cancel(failed[0])
		}
	})
	wg.Go(func() {
		if failed[1] = r.app.Run(service); failed[1] != nil {
			cancel(failed[1])
		}
		stopEndpoints() // the endpoints last: requests may be under way
	})
	err := f(work)
	if cause := context.Cause(work); err != nil && cause != nil && ctx.Err() == nil {
		err = cause
	}
	stop()
	wg.Wait()
	if err != nil {
		return err
	}
	return errors.Join(failed[:]...)
}

// work applies the subscriptions, produces the events, waits for what must come
// and checks it.
func (r *demoRun) work(ctx context.Context) error {
	if r.stack.NoEngine != nil {
		r.say("going on without SQL, attempts go to %s: %v", r.stack.AttemptsFile(&r.cfg.Kafka, nil).Path(), r.stack.NoEngine)
	}
	rc, deps, err := app.RegistryParts(r.cfg, r.log.Logger)
	if err != nil {
		return err
	}
	writer := registry.NewWriter(rc, deps)
	if _, err := writer.Apply(ctx, r.plan.Subscriptions(r.recv.URL()), false); err != nil {
		return err
	}
	if err := r.produce(ctx); err != nil {
		return err
	}
	r.say("produced %d events; retry delays %s (the service's default: 30s,30s,30s)", r.plan.Events, demo.Delays(r.plan.RetryDelays))
	limited, cancel := context.WithTimeout(ctx, r.plan.Limit())
	defer cancel()
	if err := r.await(limited); err != nil {
		return err
	}
	seen, err := r.observe(ctx, writer)
	if err != nil {
		return err
	}
	return r.report(ctx, seen)
}

func (r *demoRun) produce(ctx context.Context) error {
	client, err := connect(ctx, r.cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	var records []*kgo.Record
	for _, e := range r.plan.Records(time.Now()) {
		records = append(records, &kgo.Record{Topic: e.Topic, Key: []byte(e.Key), Value: e.Value})
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("producing events: %w", err)
	}
	return nil
}

// after keeps running until interrupted, if asked to.
func (r *demoRun) after(ctx context.Context, keep bool) error {
	if !keep {
		return nil
	}
	r.say("\nrunning on until interrupted (Ctrl-C):")
	for _, line := range exports(r.cfg, r.app.AdminAddr(), r.stack.Engine != nil) {
		r.say("  %s", line)
	}
	if r.stack.Engine != nil {
		r.say("console: %s", consoleURL(r.cfg, r.app.AdminAddr()))
	}
	<-ctx.Done()
	return nil
}

// say prints a line.
func (r *demoRun) say(format string, args ...any) {
	fmt.Fprintln(r.c.out, safeLines(fmt.Sprintf(format, args...)))
}
