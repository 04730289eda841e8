package e2e

import (
	"bytes"
	"context"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
)

// demoSecrets are in the environment of a demo: of its own subscription, and
// others of a real service, which it must not take.
var demoSecrets = map[string]string{
	"DEMO_BEARER_TOKEN": canaryBearer, "DEMO_SIGNING_SECRET": "whsec_" + canaryHMAC,
	"HOOKLINE_ADMIN_TOKEN": canaryAdmin, "HOOKLINE_ADMIN_READ_TOKEN": canaryRead, "HOOKLINE_CLICKHOUSE_PASSWORD": canaryStore,
	"HOOKLINE_KAFKA_SASL_PASSWORD": canaryKafka, "HOOKLINE_SECRET_KEYS": "k1:" + canaryKey, "HOOKLINE_LOG_LEVEL": "debug",
}

// TestSecretCanaryDemo looks for secrets in all that a demo writes and shows.
func TestSecretCanaryDemo(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	dir := t.TempDir()
	cmd := exec.CommandContext(ctx, hookline.get(t), "demo", "--fast", "--keep", "--log-level", "debug")
	cmd.SysProcAttr = childAttr()
	engine := os.Getenv("HOOKLINE_TEST_ENGINE")
	cmd.Env = append(environ(nil), "TMPDIR="+dir, "PATH="+filepath.Dir(engine)+":"+os.Getenv("PATH"), "HOOKLINE_ENGINE_LIB="+os.Getenv("HOOKLINE_ENGINE_LIB"))
	for name, v := range demoSecrets {
		cmd.Env = append(cmd.Env, name+"="+v)
	}
	outName := filepath.Join(t.TempDir(), "out")
	out, err := os.Create(outName)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	written := func() string {
		text, err := os.ReadFile(outName)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for !strings.Contains(written(), "ADMIN_TOKEN='") { // the last line but one of what it says
		if ctx.Err() != nil || syscall.Kill(cmd.Process.Pid, 0) != nil {
			_ = cmd.Wait()
			t.Fatalf("the demo has not gone well:\n%s", written())
		}
		time.Sleep(50 * time.Millisecond) // another process's
	}
	places := demoShows(ctx, t, written())
	places["files"] = demoFiles(t, dir) // which are removed at the end
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the demo ended with %v", err)
	}
	places["output"] = written()
	secrets := []string{canaryBearer, canaryHMAC, canaryAdmin, canaryRead, canaryStore, canaryKafka, canaryKey}
	judgePlaces(t, places, testkit.SecretForms(secrets...), 300)
	for _, want := range []string{"Authorization: [redacted]", "webhook-signature: [redacted]"} {
		if !strings.Contains(places["topics"], want) {
			t.Errorf("topics: no %q: was anything signed?", want)
		}
	}
}

// demoShows is what a demo that goes on shows: topics, tables and pages.
func demoShows(ctx context.Context, t *testing.T, out string) map[string]string {
	t.Helper()
	value := func(name string) string {
		if m := regexp.MustCompile(name + `='([^']*)'`).FindStringSubmatch(out); m != nil {
			return m[1]
		}
		return ""
	}
	c := &canary{t: t, ctx: ctx, seen: map[string]*strings.Builder{}}
	places := map[string]string{"topics": testkit.EveryRecord(ctx, t, kgo.SeedBrokers(value("HOOKLINE_KAFKA_BROKERS")))}
	header := http.Header{"Authorization": {"Bearer " + value("HOOKLINE_ADMIN_TOKEN")}}
	paths := []string{"/metrics"}
	if store := value("HOOKLINE_CLICKHOUSE_ADDR"); store != "" {
		paths = append(paths, "/", "/subscriptions/good", "/deliveries", "/api/v1/subscriptions", "/api/v1/subscriptions/good/document", "/api/v1/deliveries")
		_, _, rows := c.fetch(http.MethodPost, store, "SELECT * FROM hookline.attempts FORMAT JSONEachRow", nil)
		places["tables"] = string(rows)
	} else if os.Getenv("HOOKLINE_TEST_ENGINE") != "" {
		t.Error("the demo has no ClickHouse")
	}
	for _, path := range paths {
		status, got, body := c.fetch(http.MethodGet, "http://"+value("HOOKLINE_ADMIN_ADDR")+path, "", header)
		if status != http.StatusOK {
			t.Errorf("%s: status %d: %.300s", path, status, body)
		}
		places[path] = strings.Join(got["Content-Type"], "") + string(body)
	}
	return places
}

// demoFiles is all that stands in the files below dir that stay while they are read.
func demoFiles(t *testing.T, dir string) string {
	t.Helper()
	var all bytes.Buffer
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // gone by now
		}
		text, err := os.ReadFile(path)
		if err == nil {
			all.WriteString(path + "\n")
			all.Write(text)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if !strings.Contains(all.String(), "level=DEBUG") {
		t.Error("files: no log at the finest level")
	}
	return all.String()
}

func judgePlaces(t *testing.T, places map[string]string, forms []string, least int) {
	t.Helper()
	for place := range maps.Keys(places) {
		if len(places[place]) < least {
			t.Errorf("%s: only %d bytes to look through: %s", place, len(places[place]), places[place])
		}
	}
	for _, shown := range testkit.Exposed(places, forms) {
		t.Error(shown)
	}
}

// TestSecretCanaryPanic: a panic where a secret is at hand shows none; one that
// leaks it on purpose is found, so that the search can fail.
func TestSecretCanaryPanic(t *testing.T) {
	t.Parallel()
	for mode, leaks := range map[string]bool{"panic": false, "leak": true} {
		cluster := testkit.KFake(t, kfake.SeedTopics(1, "events"))
		vars := map[string]string{
			"KAFKA_BROKERS": strings.Join(cluster.ListenAddrs(), ","), "EVENTS_TOPICS": "events=json", "START": "earliest", "PARTITIONS": "1", "REPLICATION": "1",
			"ALLOW_HTTP": "true", "ALLOW_CIDRS": "127.0.0.0/8", "ALLOW_PORTS": "1-65535", "ADMIN_ADDR": "off", "SECRET_KEYS": "k1:" + canaryKey,
			"LOG_LEVEL": "debug", "LOG_FORMAT": "text",
		}
		c := &canary{t: t, ctx: t.Context(), vars: vars, seeds: kgo.SeedBrokers(cluster.ListenAddrs()...), login: kgo.ClientID("canary"), seen: map[string]*strings.Builder{}}
		c.cli(0, nil, "", "topics")
		c.cli(0, nil, `[{id: a, tenant: "*", url: "http://127.0.0.1:1/", auth: {bearer: {secret: `+canaryBearer+`}}, signing: {secrets: [whsec_`+canaryHMAC+`]}}]`, "subs", "apply", "-f", "-")
		c.produce(1)
		ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
		cmd := exec.CommandContext(ctx, failing.get(t), "run", "--roles", "router,dispatcher")
		vars["FAILPOINT"] = "credentials-held:" + mode
		cmd.Env, cmd.SysProcAttr = append(environ(vars), "GOTRACEBACK=system"), childAttr()
		out, err := cmd.CombinedOutput()
		cancel()
		if err == nil || !bytes.Contains(out, []byte("panic: failpoint credentials-held")) || !bytes.Contains(out, []byte("\ngoroutine ")) || !bytes.Contains(out, []byte("resolveCredentials")) {
			t.Fatalf("%s: no panic, %v:\n%.3000s", mode, err, out)
		}
		shown := testkit.Exposed(map[string]string{"crash": string(out), "command line": c.seen["command line"].String()}, testkit.SecretForms(canaryBearer, canaryHMAC, canaryKey))
		if leaks != (len(shown) > 0) {
			t.Errorf("%s: found %q", mode, shown)
		}
	}
}
