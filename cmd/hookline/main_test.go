package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
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

	"github.com/hookline/hookline/internal/receiver"
	"github.com/hookline/hookline/internal/testkit"
)

// runMain makes the test's own binary the command: HOOKLINE_TEST_* variables
// are no configuration.
const runMain = "HOOKLINE_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command is hookline as a process, with nothing of ours in its environment but
// env.
func command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "HOOKLINE_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(append(cmd.Env, runMain+"=1"), env...)
	return cmd
}

type result struct {
	code     int
	out, err string
}

func run(t *testing.T, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := command(ctx, env, args...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), stderr.String()}
}

// badFiles is a configuration of which all files but one, which is no certificate,
// are missing, and what is to be told of it.
func badFiles(dir, bad string) (env, told []string) {
	env = []string{
		"HOOKLINE_ADMIN_TLS_CERT_FILE=" + dir + "/a", "HOOKLINE_ADMIN_TLS_KEY_FILE=" + dir + "/b", "HOOKLINE_ADMIN_TLS_CLIENT_CA_FILE=" + bad,
		"HOOKLINE_KAFKA_TLS_ENABLED=true", "HOOKLINE_KAFKA_TLS_CA_FILE=" + dir + "/c", "HOOKLINE_CLICKHOUSE_ADDR=https://ch", "HOOKLINE_CLICKHOUSE_CA_FILE=" + bad,
		"HOOKLINE_KAFKA_SASL_MECHANISM=plain", "HOOKLINE_KAFKA_SASL_USER=u", "HOOKLINE_KAFKA_SASL_PASSWORD_FILE=" + dir + "/d",
	}
	told = []string{
		"reading configuration: HOOKLINE_ADMIN_TLS_CERT_FILE: with its key: open " + dir + "/a: no such file", "HOOKLINE_ADMIN_TLS_CLIENT_CA_FILE: " + bad + " has no PEM",
		"HOOKLINE_KAFKA_TLS_CA_FILE: open " + dir + "/c: no such file", "HOOKLINE_CLICKHOUSE_CA_FILE: " + bad + " has no PEM", "HOOKLINE_KAFKA_SASL_PASSWORD_FILE: open " + dir + "/d: no such file",
	}
	return env, told
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("subscriptions:\n  - id: 'a b'\n    url: ftp://x\n  - id: ok\n    tenant: t\n    url: https://example.com/\n    nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	files, told := badFiles(dir, bad)
	away := []string{"HOOKLINE_KAFKA_BROKERS=127.0.0.1:1", "HOOKLINE_CLICKHOUSE_ADDR=http://127.0.0.1:1", "HOOKLINE_EVENTS_TOPICS=orders=json"}
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		code int
		want []string // on standard error
	}{
		{"no command", nil, nil, exitDone, nil},
		{"version", nil, []string{"version"}, exitDone, nil},
		{"version as an option", nil, []string{"--version"}, exitDone, nil},
		{"health of nobody", []string{"HOOKLINE_ADMIN_ADDR=127.0.0.1:1"}, []string{"health"}, exitFailed, []string{"127.0.0.1:1: connection refused (does hookline run there?"}},
		{"unknown command", nil, []string{"prodce"}, exitUsage, []string{`no command "prodce" (did you mean produce?)`}},
		{"unknown option", nil, []string{"produce", "--topick", "x"}, exitUsage, []string{"unknown flag: --topick"}},
		{"missing argument", nil, []string{"sql"}, exitUsage, []string{"want QUERY"}},
		{"group alone", nil, []string{"subs"}, exitUsage, []string{"which command?"}},
		{"no such role", nil, []string{"run", "--roles", "router,cook"}, exitUsage, []string{`"cook" is no role`}},
		{"bad demo", nil, []string{"demo", "--retry-delays", "soon"}, exitUsage, []string{"--retry-delays"}},
		{
			"all configuration errors",
			[]string{"HOOKLINE_GRUOP=x", "HOOKLINE_PARTITIONS=many", "HOOKLINE_ADMIN_ADDR=0.0.0.0:80"},
			[]string{"run"},
			exitUsage,
			[]string{"HOOKLINE_GRUOP: unknown variable (did you mean HOOKLINE_GROUP?)", "HOOKLINE_PARTITIONS", "HOOKLINE_ADMIN_ADDR"},
		},
		{"no event topics", nil, []string{"run"}, exitUsage, []string{"HOOKLINE_EVENTS_TOPICS: no event topics"}},
		{"kafka away", away, []string{"run"}, exitUnreachable, []string{"hookline: connecting: 127.0.0.1:1: connection refused (is Kafka running? set HOOKLINE_KAFKA_BROKERS)\n"}},
		{"clickhouse away", away, []string{"logs"}, exitUnreachable, []string{"HOOKLINE_CLICKHOUSE_ADDR"}},
		{"check tells both", away, []string{"check"}, exitUnreachable, []string{"is Kafka running?", "is ClickHouse running?"}},
		{"check offline", away, []string{"check", "--offline"}, exitDone, nil},
		{"run tells of every file", append(files, "HOOKLINE_EVENTS_TOPICS=orders=json"), []string{"run"}, exitUsage, told},
		{"check tells of every file", files, []string{"check", "--offline", "--roles", "console"}, exitUsage, told},
		{"dry run without Kafka", away, []string{"subs", "apply", "--dry-run", "-f", bad}, exitUsage, []string{bad + ":2", bad + ":3", bad + ":7"}},
		{"no such file", away, []string{"subs", "apply", "-f", filepath.Join(dir, "none")}, exitUsage, []string{"no such file"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, tt.env, tt.args...)
			if r.code != tt.code {
				t.Errorf("exit code %d, want %d", r.code, tt.code)
			}
			for _, w := range tt.want {
				if !strings.Contains(r.err, w) {
					t.Errorf("standard error lacks %q", w)
				}
			}
			for line := range strings.Lines(r.err) {
				if !strings.HasPrefix(line, "hookline: ") {
					t.Errorf("a line that is no error of ours: %q", line)
				}
			}
			if t.Failed() {
				t.Logf("out: %s\nerr: %s", r.out, r.err)
			}
		})
	}
}

func TestHelpConfig(t *testing.T) {
	for format, want := range map[string]string{"text": "HOOKLINE_RETRY_DELAYS  (list of duration, default 30s,30s,30s)", "env": "#HOOKLINE_RETRY_DELAYS=30s,30s,30s", "markdown": "| `HOOKLINE_RETRY_DELAYS` |"} {
		r := run(t, nil, "help", "config", "--format", format)
		if r.code != exitDone || !strings.Contains(r.out, want) {
			t.Errorf("%s: exit code %d, %q not there", format, r.code, want)
		}
	}
	if r := run(t, nil, "help", "nothing"); r.code != exitUsage {
		t.Errorf("help of nothing: exit code %d", r.code)
	}
	if r := run(t, nil, "completion", "bash"); r.code != exitDone || !strings.Contains(r.out, "hookline") {
		t.Errorf("completion: exit code %d", r.code)
	}
}

// adminAddr finds the admin address in the log.
var adminAddr = regexp.MustCompile(`"admin":"([^"]+)"`)

// service is a hookline run under way.
type service struct {
	cmd   *exec.Cmd
	lines *lockedBuffer
	admin string
}

// start runs hookline run and waits until it is ready.
func start(t *testing.T, env []string, args ...string) *service {
	t.Helper()
	s := &service{cmd: command(t.Context(), env, append([]string{"run"}, args...)...), lines: &lockedBuffer{more: make(chan struct{}, 1)}}
	s.cmd.Stderr = s.lines
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it has ended already, mostly
		_ = s.cmd.Wait()
		if t.Failed() {
			t.Logf("hookline run wrote:\n%s", s.lines.String())
		}
	})
	deadline := time.After(30 * time.Second)
	for s.admin == "" {
		select {
		case <-s.lines.more:
			if m := adminAddr.FindStringSubmatch(s.lines.String()); m != nil {
				s.admin = "http://" + m[1]
			}
		case <-deadline:
			t.Fatal("hookline run does not start")
		}
	}
	for !s.ready(t) {
		select {
		case <-time.After(20 * time.Millisecond): // nothing signals readiness but the question
		case <-deadline:
			t.Fatal("hookline run does not get ready")
		}
	}
	return s
}

func (s *service) ready(t *testing.T) bool {
	t.Helper()
	resp, err := http.Get(s.admin + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body struct {
		Ready bool
		Parts []struct{ Name string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	if len(body.Parts) < 3 {
		t.Errorf("%d parts named", len(body.Parts))
	}
	return body.Ready
}

// receiving runs a receiver until the test ends, and gives the time that the test has.
func receiving(t *testing.T, cfg receiver.Config) (*receiver.Receiver, context.Context) {
	t.Helper()
	recv, err := receiver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	received := make(chan error, 1)
	go func() { received <- recv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-received; err != nil {
			t.Error(err)
		}
	})
	return recv, ctx
}

// From a file to an endpoint, by the commands that people use.
func TestFromProduceToDelivery(t *testing.T) {
	cluster := testkit.KFake(t, kfake.SeedTopics(3, "orders", "tasks"))
	recv, ctx := receiving(t, receiver.Config{KeepBodies: true})

	env := []string{
		"HOOKLINE_KAFKA_BROKERS=" + strings.Join(cluster.ListenAddrs(), ","), "HOOKLINE_EVENTS_TOPICS=orders=json:type=/kind;tasks=cotalker",
		"HOOKLINE_START=earliest", "HOOKLINE_PARTITIONS=3", "HOOKLINE_ALLOW_HTTP=true", "HOOKLINE_ALLOW_CIDRS=127.0.0.0/8",
		"HOOKLINE_ALLOW_PORTS=1-65535", "HOOKLINE_ADMIN_ADDR=127.0.0.1:0", "HOOKLINE_RETRY_DELAYS=100ms", "HOOKLINE_REPLICATION=1",
	}
	subs := filepath.Join(t.TempDir(), "subs.yaml")
	err := os.WriteFile(subs, []byte(`subscriptions:
  - {id: all, tenant: "*", url: "`+recv.URL()+`/fail?first=1"}
  - {id: other, tenant: "*", format: cotalker, url: "`+recv.URL()+`/ok"}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, run(t, env, "topics"), "created hookline.deliveries")
	expect(t, run(t, env, "topics", "--json"), `"problems": []`)
	expect(t, run(t, env, "subs", "apply", "-f", subs), "all created")
	expect(t, run(t, env, "subs", "list"), "other")
	expect(t, run(t, env, "subs", "get", "all", "--json"), `"revision": 1`)

	s := start(t, env, "--roles", "router,dispatcher")
	cmd := command(ctx, env, "produce", "-t", "orders", "-k", "o-1", "-H", "source=test")
	body := `{ "kind":"order.placed",  "n":1.50 }`
	cmd.Stdin = strings.NewReader(body + "\n" + `{"kind":"order.paid"}`)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "produced 2 records") {
		t.Fatalf("producing: %v %s", err, out)
	}
	big := filepath.Join(t.TempDir(), "big.json")
	if err := os.WriteFile(big, []byte(`"`+strings.Repeat("x", 2<<20)+`"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := run(t, env, "produce", "-t", "orders", big); r.code != exitFailed || !strings.Contains(r.err, "larger than the topic takes (raise its max.message.bytes; hookline delivers events of up to HOOKLINE_EVENT_MAX_BYTES, here 1MiB)") {
		t.Errorf("a large document: exit code %d, %s", r.code, r.err)
	}
	if err := recv.Wait(ctx, 4); err != nil {
		t.Fatal(err)
	}
	checkDelivered(t, recv.Requests(), body)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if n := recv.Total(); n != 4 {
		t.Errorf("%d requests, want 4", n)
	}
	expect(t, run(t, env, "subs", "delete", "all", "other"), "all deleted")
}

func expect(t *testing.T, r result, want string) {
	t.Helper()
	if r.code != exitDone || !strings.Contains(r.out, want) {
		t.Errorf("exit code %d, %q not in the output\n%s%s", r.code, want, r.out, r.err)
	}
}

// checkDelivered: two events, each refused once, in their order and byte for
// byte.
func checkDelivered(t *testing.T, got []receiver.Request, first string) {
	t.Helper()
	for i, want := range []struct {
		kind    string
		attempt int
	}{{"order.placed", 1}, {"order.placed", 2}, {"order.paid", 1}, {"order.paid", 2}} {
		r := got[i]
		if r.EventType != want.kind || r.Attempt != want.attempt || r.Subscription != "all" {
			t.Errorf("request %d: %s attempt %d for %s, want %s attempt %d", i, r.EventType, r.Attempt, r.Subscription, want.kind, want.attempt)
		}
	}
	if got[0].Body != first {
		t.Errorf("body %q, want %q", got[0].Body, first)
	}
	if gap := got[1].Time.Sub(got[0].Time); gap < 100*time.Millisecond {
		t.Errorf("the retry came after %v", gap)
	}
}

// The demo checks itself; without its engine it says so.
func TestDemoWithoutEngine(t *testing.T) {
	r := run(t, []string{"HOOKLINE_ENGINE_LIB=/nonexistent"}, "demo", "--fast")
	expect(t, r, "ok  every event reached every endpoint that takes it")
	expect(t, r, "going on without SQL, attempts go to ")
	expect(t, r, "retry delays 500ms,500ms,500ms")
}

// The event topics of hookline run are others' to make.
func TestMissingEventTopicsAreTold(t *testing.T) {
	cluster := testkit.KFake(t, kfake.SeedTopics(1, "there"))
	env := []string{"HOOKLINE_KAFKA_BROKERS=" + cluster.ListenAddrs()[0], "HOOKLINE_EVENTS_TOPICS=there=json;missing1=json;missing2=json"}
	r := run(t, env, "run")
	if r.code != exitUsage {
		t.Errorf("exit code %d", r.code)
	}
	for _, name := range []string{"missing1", "missing2"} {
		if !strings.Contains(r.err, "checking topic "+name+": there is no such topic (create it: ") {
			t.Errorf("%s is not told: %s", name, r.err)
		}
	}
}

// The examples must be accepted as they stand.
func TestExamples(t *testing.T) {
	root, err := testkit.Root()
	if err != nil {
		t.Fatal(err)
	}
	examples := filepath.Join(root, "examples")
	local := []string{"HOOKLINE_ALLOW_HTTP=true", "HOOKLINE_ALLOW_CIDRS=127.0.0.0/8", "HOOKLINE_ALLOW_PORTS=1-65535"}
	expect(t, run(t, nil, "subs", "apply", "--dry-run", "-f", filepath.Join(examples, "subscriptions.yaml")), "2 subscriptions are valid")
	expect(t, run(t, local, "subs", "apply", "--dry-run", "-f", filepath.Join(examples, "local.yaml")), "2 subscriptions are valid")
	for _, name := range []string{"order.json", "task.json"} {
		b, err := os.ReadFile(filepath.Join(examples, name))
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(b) {
			t.Errorf("%s is not JSON", name)
		}
	}
}

// TestRunStoppedAtStart: told to stop while it looks for Kafka, the service ends
// with code 0 and without a complaint.
func TestRunStoppedAtStart(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and answers nothing
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cmd := command(t.Context(), []string{"HOOKLINE_KAFKA_BROKERS=" + ln.Addr().String(), "HOOKLINE_EVENTS_TOPICS=e=json:type=/t", "HOOKLINE_ADMIN_ADDR=off"}, "run", "--roles", "router")
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept() // by now it listens to signals
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || strings.Contains(stderr.String(), "canceled") {
		t.Errorf("ended with %v and wrote:\n%s", err, stderr.String())
	}
}
