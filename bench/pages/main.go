// Command pages measures how long the console's pages and the lists of the REST
// interface take over a delivery log of millions of attempts.
//
//	go run ./bench/pages                        10 million attempts, made anew
//	go run ./bench/pages -data DIR              kept in DIR, and used again the next time
//	go run ./bench/pages -data DIR -only '^/deliveries'
//
// It brings the ClickHouse engine that hookline dev embeds, and serves the pages in
// its own process, over a registry of 10,000 subscriptions, without Kafka: what
// owners of lanes would tell is not in the figures. Cold is the first look after
// ClickHouse's caches, and the system's where it is allowed, were dropped.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/sink"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "pages:", err)
		os.Exit(1)
	}
}

// attemptsPerDelivery of testkit.Log.
const attemptsPerDelivery = 1.115

type options struct {
	attempts, subscriptions, days, rounds int
	data                                  string
	only                                  *regexp.Regexp
	fillOnly                              bool
}

func run() error {
	var o options
	var only string
	flag.IntVar(&o.attempts, "attempts", 10_000_000, "about how many attempts the log has")
	flag.IntVar(&o.subscriptions, "subscriptions", 10_000, "how many subscriptions")
	flag.IntVar(&o.days, "days", 30, "over how many days")
	flag.IntVar(&o.rounds, "rounds", 10, "how often each page is asked for, beside the cold one")
	flag.StringVar(&o.data, "data", "", "folder of the engine's data, kept; where it has a log, that is used; empty: a temporary one")
	flag.StringVar(&only, "only", "", "only the addresses that this regular expression matches")
	flag.BoolVar(&o.fillOnly, "fill-only", false, "make the log, measure nothing")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(only); err != nil {
		return err
	}
	if o.data == "" {
		if o.data, err = os.MkdirTemp("", "hookline-pages-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.data)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.data, err = filepath.Abs(o.data); err != nil {
		return err
	}
	if err := os.MkdirAll(o.data, 0o700); err != nil {
		return err
	}
	engine, err := startEngine(ctx, o.data)
	if err != nil {
		return err
	}
	defer engine.Stop() //nolint:errcheck // its exit code says nothing of the figures
	cfg := sink.Config{Database: "hookline", User: "default", InsertTimeout: time.Minute}
	cfg.Addr = engine.URL()
	if err := sink.Migrate(ctx, cfg); err != nil {
		return err
	}
	if err := prepare(ctx, &o, cfg); err != nil || o.fillOnly {
		return err
	}
	return measure(ctx, &o, cfg)
}

// startEngine builds hookline-engine and starts it with its data in folder.
func startEngine(ctx context.Context, folder string) (*testkit.LaunchedEngine, error) {
	root, err := testkit.Root()
	if err != nil {
		return nil, err
	}
	program := filepath.Join(folder, "hookline-engine")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/hookline-engine")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building hookline-engine: %w: %s", err, out)
	}
	return testkit.LaunchEngine(folder, program)
}

// ask gives ClickHouse a statement, and gives what it answers.
func ask(ctx context.Context, address, sql string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(sql))
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(string(text))
	}
	return strings.TrimSpace(string(text)), err
}

// prepare fills the log unless it is filled, and waits until ClickHouse merges no
// more of it.
func prepare(ctx context.Context, o *options, cfg sink.Config) error {
	log := slog.Default()
	have, err := ask(ctx, cfg.Addr, "SELECT count() FROM "+cfg.Database+".attempts")
	if err != nil {
		return err
	}
	if have == "0" {
		began := time.Now()
		l := testkit.Log{
			URL: cfg.Addr, Database: cfg.Database, Deliveries: int(float64(o.attempts) / attemptsPerDelivery),
			Subscriptions: o.subscriptions, Days: o.days, Until: time.Now(),
		}
		if err := l.Fill(ctx, func(n int) {
			log.Info("filling", "deliveries", n, "of", l.Deliveries, "after", time.Since(began).Round(time.Second))
		}); err != nil {
			return err
		}
	}
	for {
		busy, err := ask(ctx, cfg.Addr, "SELECT (SELECT count() FROM system.merges) + (SELECT count() FROM system.mutations WHERE NOT is_done)")
		if err != nil {
			return err
		}
		if busy == "0" {
			break
		}
		log.Info("ClickHouse merges", "merges", busy)
		time.Sleep(2 * time.Second)
	}
	have, err = ask(ctx, cfg.Addr, "SELECT concat(table, ': ', toString(sum(rows)), ' rows, ', toString(count()), ' parts, ', formatReadableSize(sum(bytes_on_disk))) FROM system.parts WHERE active AND database = '"+
		cfg.Database+"' GROUP BY table ORDER BY table")
	fmt.Println(have)
	return err
}
