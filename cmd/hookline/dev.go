package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/internal/app"
	"github.com/hookline/hookline/internal/app/local"
)

// devDefaults is what dev and demo set where the environment does not: one
// machine, receivers on it, and events from before the start too.
var devDefaults = [][2]string{
	{"EVENTS_TOPICS", "cotalker.events=cotalker;events=json:type=/type"},
	{"START", "earliest"},
	{"PARTITIONS", "6"},
	{"ALLOW_HTTP", "true"},
	{"ALLOW_CIDRS", "127.0.0.0/8,::1/128"},
	{"ALLOW_PORTS", "1-65535"},
}

// devEventPartitions of the event topics that dev and demo make.
const devEventPartitions = 3

func (c *cli) devCmd() *cobra.Command {
	addrs := local.Addrs{}
	data := ""
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "The service with an embedded Kafka-compatible broker and ClickHouse, until interrupted",
		Long: "The service with an embedded Kafka-compatible broker and the embedded ClickHouse engine, until interrupted.\n" +
			"Deliveries to this machine and without TLS are allowed. HOOKLINE_ variables apply as for hookline run.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.dev(cmd.Context(), addrs, data) },
	}
	f := cmd.Flags()
	f.StringVar(&addrs.Kafka, "kafka-addr", "127.0.0.1:9092", "address of the broker")
	f.StringVar(&addrs.ClickHouse, "clickhouse-addr", "127.0.0.1:8123", "address of ClickHouse's HTTP interface")
	f.StringVar(&data, "data", "data", "directory of the data, which is kept")
	return cmd
}

func (c *cli) dev(ctx context.Context, addrs local.Addrs, data string) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	log := c.logger(cfg)
	stack, err := local.Start(ctx, addrs, data, log)
	if err != nil {
		return err
	}
	defer stack.Close()
	a, err := newLocalApp(ctx, cfg, stack, log)
	if err != nil {
		return err
	}
	c.printDev(cfg, stack, a, data)
	return a.Run(ctx)
}

// newLocalApp makes the service on top of a local stack: it sets where that is
// and the defaults for one machine, and makes all topics.
func newLocalApp(ctx context.Context, cfg *configs.Config, stack *local.Stack, log *slog.Logger) (*app.App, error) {
	if err := pointTo(cfg, stack); err != nil {
		return nil, err
	}
	client, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if err := makeEventTopics(ctx, client, cfg, devEventPartitions); err != nil {
		return nil, err
	}
	roles := []app.Role{app.RoleRouter, app.RoleDispatcher}
	deps := app.Deps{Log: log, Version: versionName()}
	if stack.Engine != nil {
		roles = append(roles, app.RoleSink, app.RoleConsole)
		deps.Services = []app.Service{{Name: "ClickHouse engine", Run: stack.Engine.Run}}
	} else {
		file := stack.AttemptsFile(&cfg.Kafka, log)
		deps.Services = []app.Service{{Name: "attempts file", Run: file.Run}}
	}
	if deps.Cluster, err = preflight(ctx, cfg, roles, log); err != nil {
		return nil, err
	}
	return app.New(cfg, roles, deps)
}

func pointTo(cfg *configs.Config, stack *local.Stack) error {
	errs := []error{cfg.Set("KAFKA_BROKERS", stack.Broker.Addr())}
	if stack.Engine != nil {
		errs = append(errs, cfg.Set("CLICKHOUSE_ADDR", "http://"+stack.Engine.Addr()))
	}
	for _, d := range devDefaults {
		errs = append(errs, cfg.SetDefault(d[0], d[1]))
	}
	if cfg.Admin.Token == "" {
		// Whoever sees the terminal may change things, everybody on this machine may look.
		errs = append(errs, cfg.Set("ADMIN_TOKEN", rand.Text()))
		cfg.Admin.OpenToRead = true
	}
	return errors.Join(errs...)
}

// consoleURL logs in: the token behind the # reaches no server.
func consoleURL(cfg *configs.Config, a *app.App) string {
	return "http://" + a.AdminAddr() + "/login#" + cfg.Admin.Token
}

func (c *cli) printDev(cfg *configs.Config, stack *local.Stack, a *app.App, data string) {
	if stack.NoEngine != nil {
		fmt.Fprintf(c.err, "hookline: going on without SQL, attempts go to %s: %v\n", stack.AttemptsFile(&cfg.Kafka, nil).Path(), stack.NoEngine)
	}
	fmt.Fprintf(c.out, "kafka       %s\n", stack.Broker.Addr())
	if stack.Engine != nil {
		fmt.Fprintf(c.out, "clickhouse  http://%s (hookline sql 'SELECT count() FROM hookline.attempts')\n", stack.Engine.Addr())
	}
	if stack.Engine != nil {
		fmt.Fprintf(c.out, "console     %s\n", consoleURL(cfg, a))
	}
	fmt.Fprintf(c.out, "admin       http://%s/readyz\n", a.AdminAddr())
	fmt.Fprintf(c.out, "data        %s\n", data)
	fmt.Fprintln(c.out, "for commands in another terminal:")
	for _, line := range exports(cfg) {
		fmt.Fprintln(c.out, "  "+line)
	}
}

// exports are the shell lines that give other commands this configuration, but
// for its secrets.
func exports(cfg *configs.Config) []string {
	var lines []string
	for _, f := range configs.Fields() {
		if value, ok := cfg.Given()[f.Name]; ok && !f.Secret && !strings.HasPrefix(f.Name, configs.Prefix+"ADMIN_") {
			lines = append(lines, "export "+f.Name+"='"+strings.ReplaceAll(value, "'", `'\''`)+"'")
		}
	}
	return lines
}
