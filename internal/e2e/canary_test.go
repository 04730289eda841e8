package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	saslplain "github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/hookline/hookline/internal/testkit"
)

// The secrets that must show nowhere; and, beside them, a client's private key.
const (
	canaryKey    = "Q0FOQVJZLUtFWS1DQU5BUlktS0VZLUNBTkFSWS1LRVk=" // seals the others
	canaryKafka  = "CANARY-KAFKA-PASSWORD"
	canaryWrong  = "CANARY-WRONG-PASSWORD"
	canaryStore  = "CANARY-CLICKHOUSE-PASSWORD"
	canaryAdmin  = "CANARY-ADMIN-TOKEN-CANARY"
	canaryRead   = "CANARY-READ-TOKEN-CANARY"
	canaryBearer = "CANARY-BEARER-CANARY-BEARER"
	canaryBasic  = "CANARY-BASIC-PASSWORD"
	canaryOAuth  = "CANARY-CLIENT-SECRET-CANARY"
	canaryAccess = "CANARY-ACCESS-TOKEN-CANARY"
	canaryHMAC   = "Q0FOQVJZLUhNQUMtQ0FOQVJZLUhNQUMtQ0FOQVJZ" // behind whsec_
	canaryNew    = "Q0FOQVJZLU5FVy1DQU5BUlktTkVXLUNBTkFSWS1O" // that replaces it
	canaryHub    = "CANARY-HUB-CANARY-HUB-CANARY"
	canaryEnv    = "CANARY-ENV-CANARY-ENV"
	canaryBad    = "CANARY-IN-A-REFUSED-FILE"
)

// canaryDocs fail in every way in which a secret is at hand.
func canaryDocs(url, tlsURL, silent string, client *testkit.Certificate) string {
	indent := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			panic("BUG: a certificate of the test is gone: " + path)
		}
		return strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "\n          ")
	}
	return strings.NewReplacer("URL", url, "TLS", tlsURL, "SILENT", silent, "PLAIN", strings.Replace(url, "http:", "https:", 1)).Replace(`
- {id: bearer, tenant: "*", url: "URL/ok", auth: {bearer: {secret: ` + canaryBearer + `}}}
- {id: basic, tenant: "*", url: "URL/fails", auth: {basic: {username: u, secret: ` + canaryBasic + `}}}
- {id: oauth2, tenant: "*", url: "URL/unauthorized", auth: {oauth2: {token_url: "URL/token", client_id: c, secret: ` + canaryOAuth + `}}}
- {id: oauth2-down, tenant: "*", url: "URL/ok", auth: {oauth2: {token_url: "URL/fails", client_id: c, secret: ` + canaryOAuth + `}}}
- {id: oauth2-told, tenant: "*", url: "URL/ok", auth: {oauth2: {token_url: "URL/tells", client_id: c, secret: ` + canaryOAuth + `}}}
- {id: standard, tenant: "*", url: "URL/fails", signing: {secrets: [whsec_` + canaryHMAC + `]}}
- {id: hub, tenant: "*", url: "URL/hangup", signing: {scheme: hmac-sha256, secrets: [` + canaryHub + `]}}
- {id: env, tenant: "*", url: "URL/ok", auth: {bearer: {secret_ref: "env:CANARY_TOKEN"}}}
- {id: missing, tenant: "*", url: "URL/ok", auth: {bearer: {secret_ref: "env:CANARY_NONE"}}}
- {id: no-tls, tenant: "*", url: "PLAIN/ok", auth: {bearer: {secret: ` + canaryBearer + `}}}
- {id: silent, tenant: "*", url: "SILENT/", timeout: 500ms, auth: {bearer: {secret: ` + canaryBearer + `}}, signing: {secrets: [whsec_` + canaryHMAC + `]}}
- id: strange-tls
  tenant: "*"
  url: TLS/ok
  auth:
    mtls:
      cert: |
          ` + indent(client.CertFile) + `
      key: |
          ` + indent(client.KeyFile) + `
`)
}

// canary is a process whose secrets are looked for.
type canary struct {
	t      *testing.T
	ctx    context.Context
	vars   map[string]string
	login  kgo.Opt
	seeds  kgo.Opt
	engine *testkit.EngineProc
	proc   *process
	forms  []string
	seen   map[string]*strings.Builder // by place
}

// note keeps what was shown at a place.
func (c *canary) note(place, text string) {
	if c.seen[place] == nil {
		c.seen[place] = new(strings.Builder)
	}
	c.seen[place].WriteString(text + "\n")
}

func newCanary(t *testing.T, key *testkit.Certificate) *canary {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cluster := testkit.KFake(t, kfake.SeedTopics(1, "events"), kfake.EnableSASL(), kfake.Superuser("PLAIN", "u", canaryKafka))
	c := &canary{t: t, ctx: ctx, engine: testkit.Engine(t), seen: map[string]*strings.Builder{}}
	c.seeds = kgo.SeedBrokers(cluster.ListenAddrs()...)
	c.login = kgo.SASL(saslplain.Auth{User: "u", Pass: canaryKafka}.AsMechanism())
	c.vars = map[string]string{
		"KAFKA_BROKERS": strings.Join(cluster.ListenAddrs(), ","), "KAFKA_SASL_MECHANISM": "plain", "KAFKA_SASL_USER": "u", "KAFKA_SASL_PASSWORD": canaryKafka,
		"EVENTS_TOPICS": "events=json", "START": "earliest", "PARTITIONS": "2", "REPLICATION": "1", "ALLOW_HTTP": "true", "ALLOW_CIDRS": "127.0.0.0/8",
		"ALLOW_PORTS": "1-65535", "RETRY_DELAYS": "50ms,50ms,50ms", "SECRET_KEYS": "k1:" + canaryKey, "LOG_LEVEL": "debug", "LOG_FORMAT": "text",
		"CLICKHOUSE_ADDR": c.engine.URL(), "CLICKHOUSE_PASSWORD": canaryStore, "CLICKHOUSE_FLUSH_INTERVAL": "200ms", "REQUEST_TIMEOUT": "5s",
		"ADMIN_TOKEN": canaryAdmin, "ADMIN_READ_TOKEN": canaryRead, "ADMIN_PROFILE": "true", "WEBHOOK_CALLED": "true",
	}
	pem, err := os.ReadFile(key.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	c.forms = testkit.SecretForms(canaryKey, canaryKafka, canaryWrong, canaryStore, canaryAdmin, canaryRead, canaryBearer, canaryBasic, canaryOAuth,
		canaryAccess, canaryHMAC, canaryNew, canaryHub, canaryEnv, canaryBad, strings.Split(string(pem), "\n")[1])
	return c
}

// endpoint serves what the subscriptions need.
func (c *canary) endpoint(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	switch r.URL.Path {
	case "/fails":
		w.WriteHeader(http.StatusInternalServerError)
	case "/unauthorized":
		w.WriteHeader(http.StatusUnauthorized)
	case "/hangup":
		panic(http.ErrAbortHandler)
	case "/token":
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"bearer"}`, fmt.Sprint(canaryAccess, time.Now().UnixNano()))
	case "/tells": // what it was sent
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":"invalid_client","error_description":"no client with secret %s"}`, canaryOAuth)
	}
}

// cli runs a command and keeps what it writes.
func (c *canary) cli(code int, change map[string]string, stdin string, args ...string) string {
	c.t.Helper()
	vars := map[string]string{}
	for _, m := range []map[string]string{c.vars, change} {
		for name, v := range m {
			vars[name] = v
		}
	}
	r := command(c.t, vars, stdin, args...)
	if r.code != code {
		c.t.Fatalf("hookline %v: code %d, want %d:\n%s%s", args, r.code, code, r.stdout, r.stderr)
	}
	c.note("command line", fmt.Sprintf("%v %s %s", args, r.stdout, r.stderr))
	return r.stdout + r.stderr
}

// fetch makes one request on a connection of its own.
func (c *canary) fetch(method, url, body string, header http.Header) (status int, got http.Header, answer []byte) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.ctx, method, url, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Close = true
	maps.Copy(req.Header, header)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	if answer, err = io.ReadAll(res.Body); err != nil {
		c.t.Fatalf("%s %s: %v", method, url, err)
	}
	return res.StatusCode, res.Header, answer
}

// sql asks the engine itself.
func (c *canary) sql(query string) string {
	c.t.Helper()
	status, _, body := c.fetch(http.MethodPost, c.engine.URL(), query, nil)
	if status != http.StatusOK {
		c.t.Fatalf("%s: status %d: %s", query, status, body)
	}
	return string(body)
}

// page fetches what the admin address serves.
func (c *canary) page(place, path string) string {
	c.t.Helper()
	status, header, body := c.fetch(http.MethodGet, "http://"+c.proc.admin+path, "", http.Header{"Authorization": {"Bearer " + canaryAdmin}})
	if status != http.StatusOK {
		c.t.Errorf("%s: status %d: %.300s", path, status, body)
	}
	if z, err := gzip.NewReader(bytes.NewReader(body)); err == nil { // a profile
		if body, err = io.ReadAll(z); err != nil {
			c.t.Errorf("%s: %v", path, err)
		}
	}
	c.note(place, fmt.Sprintf("%s %v %s", path, header, body))
	return string(body)
}

// TestSecretCanary runs the whole service at the finest log level with secrets of
// every kind, over endpoints and token servers that fail in every way, and looks
// for these secrets in all that is written and shown: logs and the stacks of a
// crash, what commands print, topics, tables, metrics, profiles, pages, REST.
func TestSecretCanary(t *testing.T) {
	t.Parallel()
	ca := testkit.NewAuthority(t)
	client := ca.Issue(t, nil)
	c := newCanary(t, client)
	srv := httptest.NewServer(http.HandlerFunc(c.endpoint))
	t.Cleanup(srv.Close)
	strange := httptest.NewUnstartedServer(http.HandlerFunc(c.endpoint))
	strange.Config.ErrorLog = log.New(io.Discard, "", 0)
	strange.StartTLS()
	t.Cleanup(strange.Close)
	crowd := &crowd{t: t}
	docs := canaryDocs(srv.URL, strange.URL, "http://127.0.0.1:"+crowd.takesAndHolds(), client)
	const deliveries = 12 // of each event

	c.cli(2, nil, strings.ReplaceAll(docs, "tenant:", "tenants:"), "subs", "apply", "--dry-run", "-f", "-")
	c.cli(2, nil, `[{id: a, tenant: "*", url: "https://u:`+canaryBad+`@example.com/", headers: {Authorization: `+canaryBad+`}, auth: {bearer: `+canaryBad+`}, signing: {secrets: [`+canaryBad+`]}}]`,
		"subs", "apply", "-f", "-")
	c.cli(2, map[string]string{"SECRET_KEYS": "k1:" + canaryBad}, docs, "subs", "apply", "-f", "-")
	c.cli(3, map[string]string{"KAFKA_SASL_PASSWORD": canaryWrong}, "", "topics")
	c.cli(0, nil, "", "topics")
	c.cli(0, nil, docs, "subs", "apply", "-f", "-")
	c.proc = launchIn(t, hookline, "process", append(environ(c.vars), "CANARY_TOKEN="+canaryEnv))
	c.proc.ready()
	c.produce(2)
	c.until(func() bool {
		return strings.TrimSpace(c.sql("SELECT uniqExact(delivery_id) FROM hookline.attempts WHERE final OR outcome = 'local_error'")) == fmt.Sprint(2*deliveries-1)
	})
	// The first delivery of "missing" is tried again and again; the other waits behind it.
	if list := c.cli(0, nil, "", "subs", "list"); !strings.Contains(list, "active, cannot send: secret: auth.bearer: variable CANARY_NONE") {
		t.Errorf("a missing secret is not told of:\n%s", list)
	}
	c.look()
	c.cli(0, nil, "whsec_"+canaryNew, "subs", "rotate-secret", "standard", "--from", "-")
	c.produce(1)
	c.until(func() bool {
		return strings.TrimSpace(c.sql("SELECT countIf(final) FROM hookline.attempts WHERE subscription_id = 'standard'")) == "3"
	})
	c.crash()
	c.note("topics", testkit.EveryRecord(c.ctx, t, c.seeds, c.login))
	c.judge()
}

// look reads all that is shown of what has happened.
func (c *canary) look() {
	c.t.Helper()
	for _, args := range []string{
		"subs list --json", "subs get bearer", "subs get standard --json", "subs get strange-tls --json", "subs get oauth2 --json", "logs", "logs --json", "logs --as cotalker",
		"logs --as webhook_called", "check", "help config", "replay --subscription basic --failed --since 1h --dry-run", "subs test bearer", "subs pause hub", "subs resume hub",
		"subs retry missing",
	} {
		c.cli(0, nil, "", strings.Fields(args)...)
	}
	c.cli(0, nil, "", "sql", "SELECT * FROM hookline.attempts")
	for table := range strings.FieldsSeq(c.sql("SELECT name FROM system.tables WHERE database = 'hookline'")) {
		c.note("tables", table+" "+c.sql("SELECT * FROM hookline."+table+" FORMAT JSONEachRow"))
	}
	for _, path := range []string{"", "?range=7d", "subscriptions", "deliveries", "deliveries?state=failed", "search?q=bearer", "login", "subscriptions/missing", "subscriptions/strange-tls", "subscriptions/standard"} {
		c.page("console", "/"+path)
	}
	for _, path := range []string{"subscriptions?lanes=true", "subscriptions/missing", "subscriptions/strange-tls", "subscriptions/strange-tls/document", "subscriptions/oauth2/document", "stats", "openapi.json"} {
		c.page("rest", "/api/v1/"+path)
	}
	var list struct {
		Items []struct {
			ID string `json:"id"`
		}
	}
	if err := json.Unmarshal([]byte(c.page("rest", "/api/v1/deliveries?limit=50")), &list); err != nil || len(list.Items) < 20 {
		c.t.Errorf("%d deliveries are listed, %v", len(list.Items), err)
	}
	for _, d := range list.Items {
		c.page("console", "/deliveries/"+d.ID)
		c.page("rest", "/api/v1/deliveries/"+d.ID)
		c.page("rest", "/api/v1/deliveries/"+d.ID+"/attempts")
	}
	c.page("metrics", "/metrics")
	c.page("metrics", "/readyz")
	for _, path := range []string{"goroutine?debug=2", "heap?debug=1", "allocs?debug=1", "block?debug=1", "mutex?debug=1", "threadcreate?debug=1", "heap", "goroutine", "profile?seconds=1", "trace?seconds=1"} {
		c.page("profiles", "/debug/pprof/"+path)
	}
}

// crash ends the process as a panic does, with the stacks of all goroutines.
func (c *canary) crash() {
	c.t.Helper()
	c.produce(1) // requests are under way
	c.proc.signal(syscall.SIGQUIT)
	c.proc.wait(time.Now(), 30*time.Second)
	written, err := os.ReadFile(c.proc.log)
	if err != nil || !bytes.Contains(written, []byte("\ngoroutine ")) {
		c.t.Errorf("no stacks were written: %v", err)
	}
	c.note("log", string(written))
}

func (c *canary) produce(n int) {
	c.t.Helper()
	cl, err := kgo.NewClient(c.seeds, c.login)
	if err != nil {
		c.t.Fatal(err)
	}
	defer cl.Close()
	for range n {
		if err := cl.ProduceSync(c.ctx, &kgo.Record{Topic: "events", Value: []byte(`{"type":"t"}`)}).FirstErr(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// until polls, since what is waited for is another process's.
func (c *canary) until(ok func() bool) {
	c.t.Helper()
	for !ok() {
		if c.ctx.Err() != nil {
			c.t.Fatalf("waited in vain: %s", c.sql("SELECT subscription_id, outcome, count(), countIf(final) FROM hookline.attempts GROUP BY 1, 2 ORDER BY 1, 2"))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// found looks for the secrets in all that was seen.
func (c *canary) found() {
	c.t.Helper()
	for _, shown := range c.exposed() {
		c.t.Error(shown)
	}
}

func (c *canary) exposed() []string {
	places := map[string]string{}
	for place, text := range c.seen {
		places[place] = text.String()
	}
	return testkit.Exposed(places, c.forms)
}

func (c *canary) judge() {
	c.t.Helper()
	for _, place := range []string{"log", "command line", "topics", "tables", "metrics", "profiles", "console", "rest"} {
		if c.seen[place] == nil {
			c.t.Errorf("%s: nothing to look through", place)
			continue
		}
		text := c.seen[place].String()
		c.t.Logf("%s: %d bytes", place, len(text))
		if len(text) < 5000 {
			c.t.Errorf("%s: only %d bytes to look through", place, len(text))
		}
	}
	c.found()
	for _, place := range []string{"topics", "tables", "rest", "console"} {
		for _, want := range []string{"Authorization: [redacted]", "webhook-signature: [redacted]"} {
			if b := c.seen[place]; b != nil && !strings.Contains(b.String(), want) {
				c.t.Errorf("%s: no %q: was anything logged?", place, want)
			}
		}
	}
	for _, outcome := range []string{"success", "response_error", "timeout", "tls_error", "connect_error", "local_error"} {
		if !strings.Contains(c.seen["tables"].String(), `"outcome":"`+outcome+`"`) {
			c.t.Errorf("no attempt ended with %s", outcome)
		}
	}
}
