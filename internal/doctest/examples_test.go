package doctest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/secret"
	"github.com/hookline/hookline/sender/sign"
)

// tool is what scripts/examples.sh found for a language; the test is skipped
// where it found none, which the script says.
func tool(t *testing.T, variable string) string {
	t.Helper()
	v := os.Getenv(variable)
	if os.Getenv("HOOKLINE_TEST_EXAMPLES") == "" {
		t.Skip("run make examples")
	}
	if v == "" {
		t.Skip(variable + " is not set")
	}
	return v
}

// example is a program of examples/ that can be started in dir.
type example struct {
	dir  string
	argv []string
}

// copied is a folder with the files of an example.
func copied(t *testing.T, from string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, from))); err != nil {
		t.Fatal(err)
	}
	return dir
}

func producer(t *testing.T, language string) example {
	t.Helper()
	dir := copied(t, "examples/produce/"+language)
	switch language {
	case "java":
		return example{dir, []string{"java", "-XX:TieredStopAtLevel=1", "-cp", tool(t, "HOOKLINE_TEST_KAFKA_JARS"), "Produce.java"}}
	case "python":
		return example{dir, []string{tool(t, "HOOKLINE_TEST_PYTHON"), "produce.py"}}
	}
	run(t, root, environ("CGO_ENABLED=0"), "go", "build", "-o", dir+"/produce", "./examples/produce/go")
	return example{dir, []string{dir + "/produce"}}
}

func receiver(t *testing.T, language string) example {
	t.Helper()
	dir := copied(t, "examples/receive/"+language)
	switch language {
	case "node":
		if err := os.Symlink(tool(t, "HOOKLINE_TEST_NODE_MODULES"), dir+"/node_modules"); err != nil {
			t.Fatal(err)
		}
		return example{dir, []string{"node", "receive.mjs"}}
	case "python":
		return example{dir, []string{tool(t, "HOOKLINE_TEST_PYTHON"), "receive.py"}}
	}
	run(t, filepath.Join(root, "examples/receive/go"), environ("CGO_ENABLED=0"), "go", "build", "-o", dir+"/receive", ".")
	return example{dir, []string{dir + "/receive"}}
}

// endpoint is a receiver that runs, and its subscription.
type endpoint struct {
	example
	language, id, url string
	variable          string // of dev's environment, with the signing secret
	secret            secret.Secret
}

// inbox is what an endpoint has kept: bodies by webhook-id.
func (e *endpoint) inbox(t *testing.T) map[string]string {
	t.Helper()
	kept := map[string]string{}
	if e.language == "python" {
		const dump = "import json, sqlite3; print(json.dumps({i: b.decode() for i, b in sqlite3.connect('inbox.db').execute('SELECT id, body FROM inbox')}))"
		if err := json.Unmarshal([]byte(run(t, e.dir, environ(), e.argv[0], "-c", dump)), &kept); err != nil {
			t.Fatal(err)
		}
		return kept
	}
	files, err := os.ReadDir(e.dir + "/inbox")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		body, err := os.ReadFile(e.dir + "/inbox/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		kept[f.Name()] = string(body)
	}
	return kept
}

// startEndpoints starts the receiver of each language, once with a shared
// secret and once with a public key.
func startEndpoints(t *testing.T) []*endpoint {
	t.Helper()
	needs := map[string]string{"go": "HOOKLINE_TEST_BIN", "python": "HOOKLINE_TEST_PYTHON", "node": "HOOKLINE_TEST_NODE_MODULES"}
	var list []*endpoint
	for _, language := range slices.Sorted(maps.Keys(needs)) {
		if os.Getenv(needs[language]) == "" {
			continue // scripts/examples.sh says so
		}
		shared, err := secret.NewHMACKey()
		if err != nil {
			t.Fatal(err)
		}
		private, public, err := secret.NewEd25519Key()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, startEndpoint(t, language, "hmac", shared, shared.Reveal()), startEndpoint(t, language, "ed25519", private, public))
	}
	return list
}

func startEndpoint(t *testing.T, language, kind string, ours secret.Secret, theirs string) *endpoint {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	e := &endpoint{
		example: receiver(t, language), language: language, id: language + "-" + kind, url: "http://" + addr + "/hooks",
		variable: strings.ToUpper(language + "_" + kind), secret: ours,
	}
	start(t, e.dir, environ("ADDR="+addr, "WEBHOOK_SECRET="+theirs), e.argv[0], e.argv[1:]...)
	eventually(t, e.id+" listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return e
}

// send posts a request that is signed for this endpoint and returns the status.
func (e *endpoint) send(t *testing.T, id string, at time.Time, signed, body []byte, key secret.Secret) int {
	t.Helper()
	signer, err := sign.New(pipeline.SigningStandard, []sign.Key{{Secret: key}})
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signer.Append(nil, id, at, signed)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
	req.Header.Set("webhook-signature", string(signature))
	return status(t, req)
}

func status(t *testing.T, req *http.Request) int {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

// forge sends what an endpoint must refuse, and what it must take once.
func (e *endpoint) forge(t *testing.T) {
	t.Helper()
	body, now := []byte(`{"type":"order.placed","id":"forged"}`), time.Now()
	before := len(e.inbox(t))
	wrong, err := secret.NewHMACKey()
	if strings.HasSuffix(e.id, "ed25519") {
		wrong, _, err = secret.NewEd25519Key()
	}
	if err != nil {
		t.Fatal(err)
	}
	bare, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]int{
		"another key":     e.send(t, "dlv_forged1", now, body, body, wrong),
		"a changed body":  e.send(t, "dlv_forged2", now, body, append(body[:len(body):len(body)], ' '), e.secret),
		"an old one":      e.send(t, "dlv_forged3", now.Add(-10*time.Minute), body, body, e.secret),
		"one of tomorrow": e.send(t, "dlv_forged4", now.Add(24*time.Hour), body, body, e.secret),
		"no signature":    status(t, bare),
	} {
		if got != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, got)
		}
	}
	if n := len(e.inbox(t)); n != before {
		t.Errorf("%d forged requests were kept", n-before)
	}
	for range 2 {
		if got := e.send(t, "dlv_repeated", now, body, body, e.secret); got != http.StatusNoContent {
			t.Errorf("a good one: %d", got)
		}
	}
	if kept := e.inbox(t); len(kept) != before+1 || kept["dlv_repeated"] != string(body) {
		t.Errorf("a request that came twice was kept %d times, as %q", len(kept)-before, kept["dlv_repeated"])
	}
}

var (
	eventsLine = regexp.MustCompile(`export HOOKLINE_EVENTS_TOPICS='(.*)'`)
	exportLine = regexp.MustCompile(`(?m)^\s+export ([A-Z_]+)='(.*)'$`)
)

// guideTopics are the event topics as the guide to producing has them.
func guideTopics(t *testing.T) string {
	t.Helper()
	guide, err := os.ReadFile(filepath.Join(root, "docs/guides/produce.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := eventsLine.FindSubmatch(guide)
	if m == nil {
		t.Fatal("docs/guides/produce.md sets no HOOKLINE_EVENTS_TOPICS")
	}
	return string(m[1])
}

// devStarted is in a line that dev logs after it has printed its exports.
const devStarted = `"msg":"starting"`

// dev is hookline dev on free ports.
type dev struct {
	bin string
	env []string // for other commands, as dev printed it
}

func startDev(t *testing.T, env ...string) *dev {
	t.Helper()
	d := &dev{bin: tool(t, "HOOKLINE_TEST_BIN")}
	addr := func() string { return fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)) }
	env = append(env, "HOOKLINE_ADMIN_ADDR="+addr(), "HOOKLINE_ENGINE_LIB="+os.Getenv("HOOKLINE_ENGINE_LIB"))
	p := start(t, t.TempDir(), environ(env...), d.bin, "dev", "--kafka-addr", addr(), "--clickhouse-addr", addr())
	p.await(devStarted)
	d.env = exports(p.output())
	return d
}

// exports are the variables that dev tells other commands to have.
func exports(out string) []string {
	var env []string
	for _, m := range exportLine.FindAllStringSubmatch(out, -1) {
		env = append(env, m[1]+"="+m[2])
	}
	return env
}

func (d *dev) bootstrap() string {
	for _, kv := range d.env {
		if v, ok := strings.CutPrefix(kv, "HOOKLINE_KAFKA_BROKERS="); ok {
			return v
		}
	}
	return ""
}

// TestExamples: what the producers of examples/ put into Kafka arrives, signed,
// at each of the receivers of examples/, once and byte for byte; and these
// refuse what is forged.
func TestExamples(t *testing.T) {
	topics := guideTopics(t)
	topic, _, _ := strings.Cut(topics, "=")
	tool(t, "HOOKLINE_TEST_BIN")
	endpoints := startEndpoints(t)
	env, subs := []string{"HOOKLINE_EVENTS_TOPICS=" + topics}, "subscriptions:\n"
	for _, e := range endpoints {
		env = append(env, e.variable+"="+e.secret.Reveal())
		subs += fmt.Sprintf("- {id: %s, tenant: \"*\", url: %q, ordering: entity, signing: {secrets: [{secret_ref: \"env:%s\"}]}}\n", e.id, e.url, e.variable)
	}
	d := startDev(t, env...)
	file := filepath.Join(t.TempDir(), "subs.yaml")
	if err := os.WriteFile(file, []byte(subs), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, root, environ(d.env...), d.bin, "subs", "apply", "-f", file)

	want := map[string]bool{}
	for _, language := range []string{"java", "python", "go"} {
		t.Run("produce-"+language, func(t *testing.T) {
			p := producer(t, language)
			out := run(t, p.dir, environ(), p.argv[0], append(p.argv[1:], d.bootstrap(), topic)...)
			if !strings.Contains(out, "produced 15 events\n") {
				t.Fatalf("it printed %q", out)
			}
			for order := 1; order <= 5; order++ {
				for _, what := range []string{"placed", "paid", "shipped"} {
					want[fmt.Sprintf("%s-%d-%s", language, order, what)] = true
				}
			}
		})
	}
	for _, e := range endpoints {
		t.Run("receive-"+e.id, func(t *testing.T) {
			eventually(t, fmt.Sprintf("%d deliveries are kept", len(want)), func() bool { return len(e.inbox(t)) >= len(want) })
			got := map[string]bool{}
			for id, body := range e.inbox(t) {
				var ev struct{ ID string }
				if err := json.Unmarshal([]byte(body), &ev); err != nil || !strings.HasPrefix(id, "dlv_") {
					t.Errorf("%s: %q: %v", id, body, err)
				}
				got[ev.ID] = true
			}
			if !maps.Equal(got, want) || len(e.inbox(t)) != len(want) {
				t.Errorf("it kept %d deliveries of %d events, want %d of %d", len(e.inbox(t)), len(got), len(want), len(want))
			}
			e.forge(t)
		})
	}
}
