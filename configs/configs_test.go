package configs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDefaultsAreValid(t *testing.T) {
	if _, err := Load(nil); err != nil {
		t.Fatalf("the defaults are refused:\n%v", err)
	}
}

// TestVariablesReadByOthersAreNoError: scripts' variables stand in the environment of
// the hookline that they start.
func TestVariablesReadByOthersAreNoError(t *testing.T) {
	names := regexp.MustCompile(`HOOKLINE_[A-Z_]+`).FindAllString(otherVariables, -1)
	if len(names) < 5 {
		t.Fatalf("the reference names %q", names)
	}
	for _, name := range names {
		if !isTool(name) {
			t.Errorf("%s is refused as an unknown variable", name)
		}
	}
}

func TestAllErrorsAtOnce(t *testing.T) {
	_, err := Load([]string{
		"PATH=/bin",
		"HOOKLINE_TEST_ENGINE=1", // tests' own
		"HOOKLINE_LOG_LEVL=debug",
		"HOOKLINE_NOTHING_LIKE_ANY_OTHER=1",
		"HOOKLINE_LOG_FORMAT=xml",
		"HOOKLINE_ADMIN_ADDR=0.0.0.0:8080",
	})
	problems, ok := errors.AsType[Problems](err)
	if !ok {
		t.Fatalf("got %v, want Problems", err)
	}
	var got []string
	for _, p := range problems {
		got = append(got, p.Error())
	}
	want := []string{
		"reading configuration: HOOKLINE_ADMIN_ADDR: 0.0.0.0:8080 can be reached by others and has no token (set HOOKLINE_ADMIN_TOKEN or _TLS_CLIENT_CA_FILE, or use 127.0.0.1)",
		`reading configuration: HOOKLINE_LOG_FORMAT: "xml" is not a format (one of auto, text, json)`,
		"reading configuration: HOOKLINE_LOG_LEVL: unknown variable (did you mean HOOKLINE_LOG_LEVEL?)",
		"reading configuration: HOOKLINE_NOTHING_LIKE_ANY_OTHER: unknown variable (hookline help config lists the variables)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	const canary = "canary-7f3a9c0d1e2b"
	c, err := Load([]string{"HOOKLINE_ADMIN_TOKEN=" + canary, "HOOKLINE_LOG_LEVEL=warn"})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprint(c.Given()), fmt.Sprintf("%+v %#v", c.Admin, c.Admin)} {
		if strings.Contains(s, canary) {
			t.Errorf("%s shows the token", s)
		}
	}
	if c.Given()["HOOKLINE_LOG_LEVEL"] != "warn" {
		t.Errorf("Given() = %v lacks what was set", c.Given())
	}
	_, err = Load([]string{"HOOKLINE_ADMIN_TOKEN=short-secret"})
	if err == nil || strings.Contains(err.Error(), "short-secret") {
		t.Errorf("a short token: %v", err)
	}
}

func TestEventTopicsMustNotBeOurOwn(t *testing.T) {
	for _, topics := range []string{"hookline.deliveries=json", "/hook.*/=json", "a=json;/.*retry.1/=json"} {
		_, err := Load([]string{"HOOKLINE_EVENTS_TOPICS=" + topics})
		if err == nil || !strings.Contains(err.Error(), "hookline's own") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", topics, err)
		}
	}
	c, err := Load([]string{"HOOKLINE_EVENTS_TOPICS=orders=json:type=/kind;/cot.*/=cotalker"})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Router.EventsTopics; len(got) != 2 || got[0].Topic != "orders" || got[1].Pattern == nil || c.NeedEvents() != nil {
		t.Errorf("%+v, %v", got, c.NeedEvents())
	}
	if err := Default().NeedEvents(); err == nil {
		t.Error("no event topics is nothing to tell")
	}
}

// Every problem of a variable with several is told.
func TestSeveralProblemsOfOneVariable(t *testing.T) {
	_, err := Load([]string{"HOOKLINE_EVENTS_TOPICS=a b=json;c=nothing", "HOOKLINE_ALLOW_CIDRS=1.2.3.4/99", "HOOKLINE_CLICKHOUSE_ADDR=ftp://u:pw-canary@h"})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"a b", "nothing", "HOOKLINE_ALLOW_CIDRS", "HOOKLINE_CLICKHOUSE_ADDR"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %s", err, want)
		}
	}
	if strings.Contains(err.Error(), "pw-canary") {
		t.Errorf("%v shows the password", err)
	}
}

func TestSetTwice(t *testing.T) {
	_, err := Load([]string{"HOOKLINE_LOG_LEVEL=warn", "HOOKLINE_LOG_LEVEL=info"})
	if err == nil || !strings.Contains(err.Error(), "set twice") {
		t.Errorf("got %v", err)
	}
}

func TestEmptyMeansDefault(t *testing.T) {
	c, err := Load([]string{"HOOKLINE_LOG_LEVEL="})
	if err != nil || c.Telemetry.LogLevel != "info" {
		t.Errorf("level %v, error %v", c, err)
	}
}

func TestSetKeepsTheRest(t *testing.T) {
	c, err := Load([]string{"HOOKLINE_LOG_LEVEL=warn"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Set("ADMIN_ADDR", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if c.Telemetry.LogLevel != "warn" || c.Admin.Addr != "127.0.0.1:0" {
		t.Errorf("level %q, address %q", c.Telemetry.LogLevel, c.Admin.Addr)
	}
	if err := c.Set("ADMIN_ADR", "x"); err == nil {
		t.Error("an unknown name is accepted")
	}
}

func TestDurations(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "30s": 30 * time.Second, "1h30m": 90 * time.Minute, "0d": 0,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "7", "d", "-1d", "1.5d", "7dd", "200000d", "1d-2h", "7 d", "106751d24h"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", in, got)
		}
	}
}

func TestBytes(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "16384": 16384, "1MiB": 1 << 20, "16 KiB": 16 << 10, "2GB": 2e9, "5B": 5} {
		if got, err := ParseBytes(in); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "-1", "MiB", "1.5MiB", "9223372036854775807KiB", "1mib"} {
		if got, err := ParseBytes(in); err == nil {
			t.Errorf("ParseBytes(%q) = %v, want an error", in, got)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"HOOKLINE_KAFKA_BROKERS", "HOOKLINE_GROUP", "HOOKLINE_ALLOW_HTTP"}
	for in, want := range map[string]string{
		"HOOKLINE_KAFKA_BROKER": "HOOKLINE_KAFKA_BROKERS", "HOOKLINE_GRUOP": "HOOKLINE_GROUP",
		"HOOKLINE_ALLOWHTTP": "HOOKLINE_ALLOW_HTTP", "HOOKLINE_COMPLETELY_ELSE": "",
	} {
		if got := nearest(in, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestFieldsAreUniqueAndDocumented(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Fields() {
		if seen[f.Name] {
			t.Errorf("%s is declared twice", f.Name)
		}
		seen[f.Name] = true
		if f.Doc == "" {
			t.Errorf("%s has no text (run go generate ./configs)", f.Name)
		}
		if f.Secret && f.Default != "" {
			t.Errorf("%s is a secret with a default", f.Name)
		}
	}
}

// The example must be loadable as it stands, with every line switched on.
func TestExampleLoads(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("example.env"))
	if err != nil {
		t.Fatal(err)
	}
	var environ []string
	for line := range strings.Lines(string(b)) {
		if kv, ok := strings.CutPrefix(strings.TrimSpace(line), "#HOOKLINE_"); ok {
			environ = append(environ, "HOOKLINE_"+kv)
		}
	}
	if len(environ) != len(Fields()) {
		t.Errorf("%d lines for %d variables", len(environ), len(Fields()))
	}
	if _, err := Load(environ); err != nil {
		t.Errorf("the example is refused:\n%v", err)
	}
}
