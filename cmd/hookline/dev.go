package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/internal/app"
	"github.com/hookline/hookline/internal/app/admin"
	"github.com/hookline/hookline/internal/app/local"
	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/sink"
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, a := range []struct{ flag, addr string }{{"--kafka-addr", addrs.Kafka}, {"--clickhouse-addr", addrs.ClickHouse}} {
				if err := checkAddr(a.addr); err != nil {
					return usagef("reading options: hookline dev: %s: %w", a.flag, err)
				}
			}
			if data == "" {
				return usagef("reading options: hookline dev: --data: it is empty (name a directory)")
			}
			return c.dev(cmd.Context(), addrs, data)
		},
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
	if err := portsFree(addrs, cfg.Admin.Addr); err != nil {
		return err
	}
	survivesReaders()
	c.logger(cfg)
	log := c.log
	stack, err := local.Start(ctx, addrs, data, log.Logger)
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

// checkAddr tells whether addr is host:port.
func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not host:port", addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: %q is no port (0 to 65535; 0 is a free one)", addr, port)
	}
	return nil
}

// portsFree tells of every address that is taken, before anything is started.
func portsFree(addrs local.Addrs, adminAddr string) error {
	var errs []error
	for _, a := range []struct{ what, addr, remedy string }{
		{"Kafka", addrs.Kafka, "choose another --kafka-addr"},
		{"ClickHouse", addrs.ClickHouse, "choose another --clickhouse-addr"},
		{"the admin address", adminAddr, "choose another HOOKLINE_ADMIN_ADDR, or off"},
	} {
		if a.addr == admin.Off {
			continue
		}
		ln, err := net.Listen("tcp", a.addr)
		if err != nil {
			errs = append(errs, fmt.Errorf("opening the port of %s: %s: %s (is another hookline dev running? %s)", a.what, a.addr, cause(err), a.remedy))
			continue
		}
		ln.Close()
	}
	return errors.Join(errs...)
}

// newLocalApp makes the service on top of a local stack: it sets where that is
// and the defaults for one machine, and makes all topics and tables.
func newLocalApp(ctx context.Context, cfg *configs.Config, stack *local.Stack, log *telemetry.Logger) (*app.App, error) {
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
	deps := app.Deps{Log: log.Logger, LogDropped: log.Dropped, Version: versionName()}
	if stack.Engine != nil {
		roles = append(roles, app.RoleSink, app.RoleConsole)
		deps.Services = []app.Service{{Name: "ClickHouse engine", Run: stack.Engine.Run}}
	} else {
		file := stack.AttemptsFile(&cfg.Kafka, log.Logger)
		deps.Services = []app.Service{{Name: "attempts file", Run: file.Run}}
	}
	if deps.Cluster, err = preflight(ctx, cfg, roles, log.Logger); err != nil {
		return nil, err
	}
	// The sink would make the tables a moment later; whoever sees that this has started
	// may ask for the log at once.
	if stack.Engine != nil {
		if err := sink.Migrate(ctx, cfg.Sink); err != nil {
			return nil, fmt.Errorf("making the tables: %w", err)
		}
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

// consoleURL is the console's login page. With a token that this process made it
// logs in (what stands behind the # reaches no server); one that was given is a
// secret, which is not printed.
func consoleURL(cfg *configs.Config, adminAddr string) string {
	page := "http://" + adminAddr + "/login"
	if !madeToken(cfg) {
		return page
	}
	return page + "#" + cfg.Admin.Token
}

func (c *cli) printDev(cfg *configs.Config, stack *local.Stack, a *app.App, data string) {
	if stack.NoEngine != nil {
		fmt.Fprintf(c.err, "hookline: going on without SQL, attempts go to %s: %v\n", stack.AttemptsFile(&cfg.Kafka, nil).Path(), stack.NoEngine)
	}
	fmt.Fprintf(c.out, "kafka       %s\n", stack.Broker.Addr())
	if stack.Engine != nil {
		fmt.Fprintf(c.out, "clickhouse  http://%s (hookline sql 'SELECT count() FROM hookline.attempts')\n", stack.Engine.Addr())
	} else {
		fmt.Fprintln(c.out, "clickhouse  none, and so no console; hookline logs and sql have nothing to ask")
	}
	if a.AdminAddr() != admin.Off {
		if stack.Engine != nil {
			fmt.Fprintf(c.out, "console     %s\n", consoleURL(cfg, a.AdminAddr()))
		}
		fmt.Fprintf(c.out, "admin       http://%s/readyz\n", a.AdminAddr())
	}
	fmt.Fprintf(c.out, "data        %s\n", data)
	fmt.Fprintln(c.out, "for commands in another terminal:")
	for _, line := range exports(cfg, a.AdminAddr(), stack.Engine != nil) {
		fmt.Fprintln(c.out, "  "+line)
	}
}

// exports are the shell lines that give other commands this configuration, but
// for its secrets. The token is there where this process made it: then it is for
// whoever sees the terminal. Without an engine a ClickHouse that is configured is
// another one, which has nothing of this process.
func exports(cfg *configs.Config, adminAddr string, engine bool) []string {
	var lines []string
	export := func(name, value string) {
		lines = append(lines, "export "+name+"='"+strings.ReplaceAll(value, "'", `'\''`)+"'")
	}
	for _, f := range configs.Fields() {
		here := !strings.HasPrefix(f.Name, configs.Prefix+"ADMIN_") && (engine || !strings.HasPrefix(f.Name, configs.Prefix+"CLICKHOUSE_"))
		if value, ok := cfg.Given()[f.Name]; ok && !f.Secret && here {
			export(f.Name, value)
		}
	}
	export(configs.Prefix+"ADMIN_ADDR", adminAddr)
	if madeToken(cfg) && adminAddr != admin.Off {
		export(configs.Prefix+"ADMIN_TOKEN", string(cfg.Admin.Token))
	}
	return lines
}

// madeToken tells whether the token is one that pointTo made.
func madeToken(cfg *configs.Config) bool { return cfg.Admin.OpenToRead }
