package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hookline/hookline/internal/access"
	"github.com/hookline/hookline/internal/api"
	"github.com/hookline/hookline/internal/console"
	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/sink"
)

// made is the registry of the log's subscriptions.
type made map[string]*pipeline.Subscription

func madeRegistry(n int) made {
	m := made{}
	for i := range n {
		id := fmt.Sprintf("sub-%06d", i)
		m[id] = &pipeline.Subscription{
			ID: id, Tenant: fmt.Sprintf("tenant-%d", i%200), URL: fmt.Sprintf("https://hooks-%d.example.com/in/orders", i), Events: []string{"order.*"},
			Revision: 1, State: pipeline.StateActive,
		}
	}
	return m
}

func (m made) Get(id string) *pipeline.Subscription { return m[id] }

func (m made) All() iter.Seq[*pipeline.Subscription] {
	return func(yield func(*pipeline.Subscription) bool) {
		for _, s := range m {
			if !yield(s) {
				return
			}
		}
	}
}

func (made) State(string) *registry.StateInfo  { return nil }
func (made) Refused() iter.Seq2[string, error] { return func(func(string, error) bool) {} }

// pages are the addresses that are asked for: every page of the console that asks
// ClickHouse, and every list.
func pages(deliveries int) []string {
	const rest = api.Prefix
	delivery, event, correlation := testkit.FilledID("dlv", deliveries/2), testkit.FilledID("evt", deliveries/17), testkit.FilledID("cor", deliveries/50)
	newest := testkit.FilledID("dlv", deliveries-100)
	list := []string{
		"/", "/?range=24h", "/?range=7d",
		"/subscriptions", "/subscriptions?q=sub-0001", "/subscriptions?health=failing",
		"/subscriptions/sub-000000", "/subscriptions/sub-000000?range=7d", "/subscriptions/sub-000007", "/subscriptions/sub-009000",
		"/deliveries/" + delivery, "/deliveries/" + newest,
		"/search?q=" + event, "/search?q=" + correlation, "/search?q=nothing-has-this-id",
		rest + "/subscriptions?limit=200", rest + "/subscriptions/sub-000000", rest + "/stats",
		rest + "/deliveries/" + delivery, rest + "/deliveries/" + delivery + "/attempts",
		rest + "/deliveries?event=" + event, rest + "/deliveries?correlation=" + correlation,
	}
	for _, since := range []string{"1h", "24h", "7d", "all"} {
		list = append(list, "/deliveries?since="+since)
		for _, s := range sink.DeliveryStates {
			list = append(list, "/deliveries?since="+since+"&state="+string(s))
		}
		for _, sub := range []string{"sub-000000", "sub-000007", "sub-009000"} {
			list = append(list, "/deliveries?since="+since+"&subscription="+sub, "/deliveries?since="+since+"&state=failed&subscription="+sub,
				"/deliveries?since="+since+"&state=retrying&subscription="+sub)
		}
	}
	for _, tenant := range []string{"tenant-0", "tenant-150", "rare", "none"} {
		list = append(list, rest+"/deliveries?limit=200&tenant="+tenant, rest+"/deliveries?limit=200&state=failed&tenant="+tenant,
			rest+"/deliveries?limit=200&state=retrying&tenant="+tenant)
	}
	return list
}

func measure(ctx context.Context, o *options, cfg sink.Config) error {
	reader, err := sink.OpenReader(cfg)
	if err != nil {
		return err
	}
	defer reader.Close()
	reg := madeRegistry(o.subscriptions)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	service := api.NewService(api.Deps{Log: reader, Snapshot: func() api.Registry { return reg }, Logger: log})
	guard := access.New(access.Options{Anonymous: access.Read, Loopback: true})
	rest, err := api.NewHandler(service, guard, log)
	if err != nil {
		return err
	}
	html, err := console.New(console.Deps{Service: service, Guard: guard, Log: log, Version: "bench"})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(api.Prefix+"/", rest)
	mux.Handle("/", html)
	server := httptest.NewServer(mux)
	defer server.Close()
	fmt.Printf("%-76s %8s %8s %8s %12s\n", "address", "cold ms", "median", "worst", "rows read")
	worst := time.Duration(0)
	for _, path := range pages(int(float64(o.attempts) / attemptsPerDelivery)) {
		if !o.only.MatchString(path) {
			continue
		}
		f, err := figuresOf(ctx, o.rounds, cfg.Addr, server.URL+path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		worst = max(worst, f.worst)
		fmt.Printf("%-76s %8.0f %8.0f %8.0f %12d\n", path, ms(f.cold), ms(f.median), ms(f.worst), f.rows)
	}
	fmt.Printf("worst of all but the cold ones: %.0f ms\n", ms(worst))
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

type figures struct {
	cold, median, worst time.Duration
	rows                int // that ClickHouse read for one look
}

func figuresOf(ctx context.Context, rounds int, clickhouse, address string) (*figures, error) {
	if err := dropCaches(ctx, clickhouse); err != nil {
		return nil, err
	}
	f := &figures{}
	var err error
	before, err := rowsRead(ctx, clickhouse)
	if err != nil {
		return nil, err
	}
	if f.cold, err = look(ctx, address); err != nil {
		return nil, err
	}
	after, err := rowsRead(ctx, clickhouse)
	if err != nil {
		return nil, err
	}
	f.rows = after - before
	took := make([]time.Duration, rounds)
	for i := range took {
		if took[i], err = look(ctx, address); err != nil {
			return nil, err
		}
	}
	slices.Sort(took)
	f.median, f.worst = took[rounds/2], took[rounds-1]
	return f, nil
}

func dropCaches(ctx context.Context, clickhouse string) error {
	for _, cache := range []string{"MARK", "UNCOMPRESSED", "INDEX MARK", "INDEX UNCOMPRESSED"} {
		if _, err := ask(ctx, clickhouse, "SYSTEM DROP "+cache+" CACHE"); err != nil {
			return err
		}
	}
	_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0) // only root may
	return nil
}

func rowsRead(ctx context.Context, clickhouse string) (n int, err error) {
	text, err := ask(ctx, clickhouse, "SELECT value FROM system.events WHERE event = 'SelectedRows'")
	if err == nil && text != "" {
		_, err = fmt.Sscan(text, &n)
	}
	return n, err
}

// look asks for a page and reads it whole.
func look(ctx context.Context, address string) (time.Duration, error) {
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	took := time.Since(began)
	// A search of one delivery leads to its page, which was followed.
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body[:min(len(body), 300)])))
	}
	return took, err
}
