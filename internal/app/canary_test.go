package app

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline/kafkax"
	"github.com/hookline/hookline/pipeline/registry"
)

// The canaries: secrets that must show nowhere.
const (
	canaryKey    = "Q0FOQVJZLUtFWS1DQU5BUlktS0VZLUNBTkFSWS1LRVk=" // "CANARY-KEY-CANARY-KEY-CANARY-KEY"
	canaryToken  = "CANARY-TOKEN-CANARY-TOKEN"
	canaryBasic  = "CANARY-PASSWORD-CANARY"
	canaryOAuth  = "CANARY-CLIENT-SECRET"
	canaryAccess = "CANARY-ACCESS-TOKEN"
	canaryHMAC   = "Q0FOQVJZLUhNQUMtQ0FOQVJZLUhNQUMtQ0FOQVJZ" // behind whsec_
	canaryHub    = "CANARY-HUB-CANARY-HUB-CANARY"
	canaryEnv    = "CANARY-ENV-CANARY-ENV"
)

const canaryDocs = `
- {id: bearer, tenant: "*", url: "URL/ok", auth: {bearer: {secret: ` + canaryToken + `}}}
- {id: basic, tenant: "*", url: "URL/fails", auth: {basic: {username: u, secret: ` + canaryBasic + `}}}
- {id: oauth2, tenant: "*", url: "URL/unauthorized", auth: {oauth2: {token_url: "URL/token", client_id: c, secret: ` + canaryOAuth + `}}}
- {id: oauth2-down, tenant: "*", url: "URL/ok", auth: {oauth2: {token_url: "URL/no-token", client_id: c, secret: ` + canaryOAuth + `}}}
- {id: standard, tenant: "*", url: "URL/fails", signing: {secrets: [whsec_` + canaryHMAC + `]}}
- {id: hub, tenant: "*", url: "URL/hangup", signing: {scheme: hmac-sha256, secrets: [` + canaryHub + `]}}
- {id: env, tenant: "*", url: "URL/ok", auth: {bearer: {secret_ref: "env:CANARY_TEST_TOKEN"}}}
- {id: missing, tenant: "*", url: "URL/ok", auth: {bearer: {secret_ref: "env:CANARY_TEST_NONE"}}}
`

// forms are the ways in which a secret could be written.
func forms() []string {
	return testkit.SecretForms(canaryKey, canaryToken, canaryBasic, canaryOAuth, canaryAccess, canaryHMAC, canaryHub, canaryEnv)
}

// logSink is a buffer that many may write to.
type logSink struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *logSink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// canaryEndpoint serves what the subscriptions need and counts, by path.
func canaryEndpoint(t *testing.T) (url string, count func(path string) int64) {
	t.Helper()
	var counts sync.Map
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		n, _ := counts.LoadOrStore(r.URL.Path, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		switch r.URL.Path {
		case "/fails", "/no-token":
			w.WriteHeader(http.StatusInternalServerError)
		case "/unauthorized":
			w.WriteHeader(http.StatusUnauthorized)
		case "/hangup":
			panic(http.ErrAbortHandler)
		case "/token":
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"access_token":%q,"token_type":"bearer"}`, fmt.Sprint(canaryAccess, time.Now().UnixNano()))
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func(path string) int64 {
		if n, ok := counts.Load(path); ok {
			return n.(*atomic.Int64).Load()
		}
		return 0
	}
}

func canaryConfig(t *testing.T, broker string) *configs.Config {
	t.Helper()
	cfg := configs.Default()
	for name, value := range map[string]string{
		"KAFKA_BROKERS": broker, "EVENTS_TOPICS": "events=json", "START": "earliest", "PARTITIONS": "2", "REPLICATION": "1",
		"ADMIN_ADDR": "off", "ALLOW_HTTP": "true", "ALLOW_CIDRS": "127.0.0.0/8", "ALLOW_PORTS": "1-65535",
		"RETRY_DELAYS": "20ms,20ms,20ms", "SECRET_KEYS": "k1:" + canaryKey, "LOG_LEVEL": "debug",
	} {
		if err := cfg.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	return cfg
}

// TestSecretCanary runs the service at the finest log level with secrets of
// every kind, over successes and failures, and looks for them in the logs, in
// every topic, in the attempts' rows, in the metrics and in what is listed.
func TestSecretCanary(t *testing.T) {
	t.Setenv("CANARY_TEST_TOKEN", canaryEnv)
	cluster := testkit.KFake(t, kfake.SeedTopics(1, "events"))
	cfg := canaryConfig(t, strings.Join(cluster.ListenAddrs(), ","))
	url, count := canaryEndpoint(t)
	var out logSink
	log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug - 4, AddSource: true}))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kafkax.EnsureTopics(ctx, kadm.NewClient(client), &cfg.Kafka); err != nil {
		t.Fatal(err)
	}
	log.Info("configuration", "cfg", cfg, "given", cfg.Given(), "text", fmt.Sprintf("%+v %#v", cfg, cfg))
	listed := applyCanaries(ctx, t, cfg, log, strings.ReplaceAll(canaryDocs, "URL", url))

	a, err := New(cfg, []Role{RoleRouter, RoleDispatcher}, Deps{Log: log, Version: "test", Cluster: "c"})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- a.Run(running) }()
	const events = 3
	for i := range events {
		rec := &kgo.Record{Topic: "events", Value: fmt.Appendf(nil, `{"type":"t","n":%d}`, i)}
		if err := client.ProduceSync(ctx, rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	// Two good subscriptions; two that fail four times; one that is refused, asks
	// for a new token and is refused again, each time; one that hangs up; one that
	// gets no token. "missing" sends nothing, ever.
	waitFor(ctx, t, func() bool {
		return count("/ok") >= 2*events && count("/no-token") > 0 && count("/fails") >= 2*4*events && count("/unauthorized") >= 2*4*events && count("/hangup") >= 4*events
	}, func() string {
		return fmt.Sprint(count("/ok"), count("/fails"), count("/unauthorized"), count("/hangup"), count("/token"))
	})
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	families, err := a.metrics.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	lookForCanaries(t, map[string]string{
		"logs": out.b.String(), "topics": testkit.EveryRecord(ctx, t, kgo.SeedBrokers(cluster.ListenAddrs()...)), "metrics": fmt.Sprint(families), "lists": listed,
	})
}

func applyCanaries(ctx context.Context, t *testing.T, cfg *configs.Config, log *slog.Logger, src string) (listed string) {
	t.Helper()
	rc, deps, err := RegistryParts(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := registry.ParseDocuments("canary.yaml", []byte(src), &deps.Policy)
	if err != nil {
		t.Fatal(err)
	}
	listed = fmt.Sprintf("%v %+v %#v", docs, docs, docs)
	w := registry.NewWriter(rc, deps)
	if _, err := w.Apply(ctx, docs, false); err != nil {
		t.Fatal(err)
	}
	items, err := w.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range items {
		log.Info("listed", "item", items[i])
		listed += fmt.Sprintf("%+v %#v", items[i], items[i])
	}
	return listed
}

func waitFor(ctx context.Context, t *testing.T, done func() bool, state func() string) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", state())
		case <-ticker.C:
		}
	}
}

func lookForCanaries(t *testing.T, places map[string]string) {
	t.Helper()
	for name, text := range places {
		if len(text) < 500 {
			t.Errorf("%s: only %d bytes to look through", name, len(text))
		}
	}
	for _, shown := range testkit.Exposed(places, forms()) {
		t.Error(shown)
	}
	if !strings.Contains(places["topics"], "Authorization: [redacted]") || !strings.Contains(places["topics"], "webhook-signature: [redacted]") {
		t.Error("the attempts do not show redacted headers: was anything logged?")
	}
}
