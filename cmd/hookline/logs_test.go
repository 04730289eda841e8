package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/receiver"
	"github.com/hookline/hookline/internal/testkit"
)

// shapesStage is hookline run with an engine, four topics and a receiver.
type shapesStage struct {
	t       *testing.T
	env     []string
	brokers []string
	recv    *receiver.Receiver
	svc     *service
}

// shapesReply acknowledges tasks as their system does, and refuses what is
// asked to be refused.
func shapesReply(req *receiver.Request) receiver.Reply {
	switch {
	case strings.HasPrefix(req.Path, "/gone"):
		return receiver.Reply{Status: 410}
	case strings.HasPrefix(req.Path, "/500"):
		return receiver.Reply{Status: 500, Body: "no <b>\u00e9"}
	case strings.HasPrefix(req.Path, "/tasks"):
		return receiver.Reply{Status: 200, Body: strings.TrimSuffix(req.Body, "}") + `,"id":201}`}
	}
	return receiver.Reply{Status: 200, Body: "thanks"}
}

func newShapesStage(t *testing.T, subs string) *shapesStage {
	t.Helper()
	engine := testkit.Engine(t)
	cluster := testkit.KFake(t, kfake.SeedTopics(1, "cot", "flow", "alerts", "tasks"))
	recv, err := receiver.New(receiver.Config{KeepBodies: true, Script: shapesReply})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	received := make(chan error, 1)
	go func() { received <- recv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-received; err != nil {
			t.Error(err)
		}
	})
	s := &shapesStage{t: t, recv: recv, brokers: cluster.ListenAddrs(), env: []string{
		"HOOKLINE_KAFKA_BROKERS=" + strings.Join(cluster.ListenAddrs(), ","), "HOOKLINE_CLICKHOUSE_ADDR=" + engine.URL(), "HOOKLINE_CLICKHOUSE_TTL_DAYS=0",
		"HOOKLINE_EVENTS_TOPICS=cot=cotalker;flow=goflow:default-tenant=acme;alerts=signl4;tasks=task", "HOOKLINE_START=earliest", "HOOKLINE_PARTITIONS=2",
		"HOOKLINE_ALLOW_HTTP=true", "HOOKLINE_ALLOW_CIDRS=127.0.0.0/8", "HOOKLINE_ALLOW_PORTS=1-65535", "HOOKLINE_ADMIN_ADDR=127.0.0.1:0",
		"HOOKLINE_RETRY_DELAYS=50ms,50ms,50ms", "HOOKLINE_REPLICATION=1", "HOOKLINE_CLICKHOUSE_FLUSH_INTERVAL=20ms",
		"HOOKLINE_WEBHOOK_CALLED=true",
	}}
	file := filepath.Join(t.TempDir(), "subs.yaml")
	subs = strings.NewReplacer("RECV", recv.URL(), "CLOSED", fmt.Sprintf("http://127.0.0.1:%d", testkit.FreePort(t))).Replace(subs)
	if err := os.WriteFile(file, []byte(subs), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, run(t, s.env, "topics"), "created")
	expect(t, run(t, s.env, "subs", "apply", "-f", file), "created")
	s.svc = start(t, s.env)
	return s
}

func (s *shapesStage) produce(topic, text string) {
	s.t.Helper()
	cmd := command(s.t.Context(), s.env, "produce", "-t", topic, "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("producing: %v %s", err, out)
	}
}

// until asks a count of ClickHouse's again and again: it gives no signal.
func (s *shapesStage) until(query, want string) {
	s.t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for {
		r := run(s.t, s.env, "sql", query+" FORMAT TabSeparated")
		if strings.TrimSpace(r.out) == want {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: %s%s, want %s", query, r.out, r.err, want)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// logs gives the lines of hookline logs.
func (s *shapesStage) logs(args ...string) []string {
	s.t.Helper()
	r := run(s.t, s.env, append([]string{"logs"}, args...)...)
	if r.code != exitDone {
		s.t.Fatalf("logs %q: exit code %d: %s", args, r.code, r.err)
	}
	if r.out == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(r.out, "\n"), "\n")
}

const shapesSubs = `subscriptions:
  - {id: 62685990d918fb5557f9f992, tenant: 625bcbdcc9a8e3a86dbf041c, url: "CLOSED/cot", format: cotalker}
  - {id: cot500, tenant: 625bcbdcc9a8e3a86dbf041c, url: "RECV/500", format: cotalker, events: ["COTTask"]}
  - {id: hook1, tenant: acme, url: "RECV/hook?token=canary", format: goflow, resthook: success}
  - {id: hook2, tenant: acme, url: "RECV/gone", format: goflow, resthook: success}
  - {id: s4, tenant: "*", url: "RECV/s4", format: signl4}
  - {id: edits, tenant: "*", url: "RECV/tasks", format: task}
`

const cotCreate = `{
  "company": "625bcbdcc9a8e3a86dbf041c", "type": "COTTask", "extraData": null,
  "createdAt": "2026-03-01T19:54:29.924Z",
  "data": {"_id": "62742b7562f37034d9399914", "name": " Grüße", "weight": 1.50, "company": "625bcbdcc9a8e3a86dbf041c"},
  "event": "create"
}`

func alert(id, raised, kind, status, more string) string {
	return `{"eventType":` + kind + `,"eventRaisedUtc":"` + raised + `","subscription":{"id":"s4"},"alert":{"statusCode":` + status +
		`,"eventId":"ev","externalEventId":"INC091210","id":"al"}` + more + `,"id":"` + id + `"}` + "\n"
}

// TestLogShapes: what each system's people see, from produce to logs --as.
func TestLogShapes(t *testing.T) {
	s := newShapesStage(t, shapesSubs)
	s.produce("cot", cotCreate)
	s.produce("flow", `{"type":"resthook_called","created_on":"2026-03-01T15:04:05Z","resthook":"success","payload":{"contact": {"name":"Bob"}}}`)
	s.produce("alerts", alert("n1", "2026-03-01T08:11:37.4815663Z", "200", "1", "")+
		alert("n2", "2026-03-01T08:12:07.4815663Z", "201", "2", `,"user":{"username":"Rene","id":"u"}`)+
		alert("n3", "2026-03-01T08:13:07.4815663Z", "203", "2", `,"user":{"username":"Rene","id":"u"},"annotation":{"message":"OK, I'll take care","id":"a"}`)+
		alert("n4", "2026-03-01T08:21:37.4815663Z", "201", "4", `,"user":{"username":"Ann","id":"v"}`))
	s.produce("tasks", `{"entityId":"t1","type":"TASK_EDITED","createdAt":"2026-03-01T09:50:29.775Z","data":{"operation":"UPDATE",`+
		`"current":{"id":"t1","organizationId":"org","locationId":"loc","endAt":"2026-03-01T13:00:00.000Z","assigneeIds":["b"]},`+
		`"previous":{"id":"t1","organizationId":"org","locationId":"loc","endAt":"2026-03-01T11:15:00.000Z","assigneeIds":["a","b"]}}}`)
	s.until("SELECT countIf(format = 'cotalker'), countIf(format = 'goflow'), countIf(format = 'signl4'), countIf(format = 'task'), (SELECT count() FROM events) FROM attempts", "8\t2\t4\t1\t7")

	t.Run("cotalker", s.cotalker)
	t.Run("webhook_called", s.webhookCalled)
	t.Run("signl4", s.signl4)
	t.Run("task", s.task)
	t.Run("follow", s.follow)
	if r := run(t, s.env, "logs", "--as", "xml"); r.code != exitUsage || !strings.Contains(r.err, `"xml" is not one of`) {
		t.Errorf("--as xml: exit code %d: %s", r.code, r.err)
	}
	if err := s.svc.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.svc.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// memberNames gives the names of an object's members in their order.
func memberNames(t *testing.T, line string) []string {
	t.Helper()
	var names []string
	d := json.NewDecoder(strings.NewReader(line))
	depth, name := 0, false
	for d.More() || depth > 0 {
		tok, err := d.Token()
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		switch v := tok.(type) {
		case json.Delim:
			if v == '{' || v == '[' {
				depth++
			} else {
				depth--
			}
			name = depth == 1 && v != '{' || depth == 1 && len(names) == 0
			continue
		case string:
			if depth == 1 && name {
				names, name = append(names, v), false
				continue
			}
		}
		name = depth == 1
	}
	return names
}

type cotLog struct {
	ID        string `json:"_id"`
	CreatedAt time.Time
	Status    int
	Retry     int
	Response  string
	Event     json.RawMessage
}

func (s *shapesStage) cotalker(t *testing.T) {
	lines := s.logs("--as", "cotalker", "--subscription", "62685990d918fb5557f9f992")
	if len(lines) != 4 {
		t.Fatalf("%d lines: %s", len(lines), lines)
	}
	var last cotLog
	for i, line := range lines {
		want := []string{"_id", "company", "createdAt", "status", "retry", "response", "event", "subscription", "__v"}
		if names := memberNames(t, line); !reflect.DeepEqual(names, want) {
			t.Errorf("members %s", names)
		}
		var l cotLog
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if l.Status != 409 || l.Retry != i || !strings.HasPrefix(l.Response, "connect ECONNREFUSED 127.0.0.1:") {
			t.Errorf("line %d: %s", i, line)
		}
		if !regexp.MustCompile(`^[0-9a-f]{24}$`).MatchString(l.ID) || l.ID == last.ID || l.CreatedAt.Before(last.CreatedAt) {
			t.Errorf("_id %s at %v after %s at %v", l.ID, l.CreatedAt, last.ID, last.CreatedAt)
		}
		last = l
		// As it was produced but for the line breaks and what indents the lines.
		if want := regexp.MustCompile(`\n *`).ReplaceAllString(cotCreate, ""); string(l.Event) != want {
			t.Errorf("event %s", l.Event)
		}
	}
	if again := s.logs("--as", "cotalker", "--subscription", "62685990d918fb5557f9f992"); !slices.Equal(again, lines) {
		t.Error("asked again, the lines differ")
	}
	if final := s.logs("--as", "cotalker", "--final", "--subscription", "62685990d918fb5557f9f992"); !slices.Equal(final, lines[3:]) {
		t.Errorf("--final: %s", final)
	}
	final := s.logs("--as", "cotalker", "--final")
	if len(final) != 2 || !strings.Contains(final[0]+final[1], `"status":500,"retry":3,"response":"no <b>é"`) {
		t.Errorf("--final of both: %s", final)
	}
}

func (s *shapesStage) webhookCalled(t *testing.T) {
	for sub, want := range map[string]string{"hook1": `"status":"success","status_code":200`, "hook2": `"status":"subscriber_gone","status_code":410`} {
		lines := s.logs("--as", "webhook_called", "--subscription", sub)
		if len(lines) != 1 || !strings.Contains(lines[0], want) || !strings.Contains(lines[0], `"resthook":"success"`) {
			t.Fatalf("%s: %s", sub, lines)
		}
		var l struct{ Request, Response string }
		if err := json.Unmarshal([]byte(lines[0]), &l); err != nil {
			t.Fatal(err)
		}
		head, body, _ := strings.Cut(l.Request, "\r\n\r\n")
		if !strings.HasPrefix(head, "POST /") || !strings.Contains(head, "\r\nwebhook-id: dlv_") || body != `{"contact": {"name":"Bob"}}` {
			t.Errorf("%s: request %q", sub, l.Request)
		}
		if sub == "hook1" && (!strings.HasPrefix(l.Response, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(l.Response, "\r\n\r\nthanks")) {
			t.Errorf("response %q", l.Response)
		}
		if strings.Contains(lines[0], "canary") || strings.Contains(lines[0], "body_ignored") {
			t.Errorf("%s: %s", sub, lines[0])
		}
	}
	lines := s.logs("--as", "webhook_called")
	if len(lines) != 2 {
		t.Errorf("%d lines", len(lines))
	}
	s.calledRecords(t, lines)
}

// calledRecords: the topic has the same, without our ids.
func (s *shapesStage) calledRecords(t *testing.T, lines []string) {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.brokers...), kgo.ConsumeTopics("hookline.webhook_called"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for n := 0; n < len(lines); {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		for _, rec := range fetches.Records() {
			n++
			if !slices.ContainsFunc(lines, func(l string) bool {
				return strings.HasPrefix(l, strings.TrimSuffix(string(rec.Value), "}")+`,"subscription_id":`)
			}) {
				t.Errorf("record %s, key %s", rec.Value, rec.Key)
			}
		}
	}
}

func (s *shapesStage) signl4(t *testing.T) {
	lines := s.logs("--as", "signl4", "--correlation", "INC091210")
	want := []string{`RAISED`, `0.000 s +- +signl.created`, `30.000 s +30.000 s +signl.acknowledged +Rene`, `90.000 s +60.000 s +signl.annotated +Rene +OK, I'll take care`, `600.000 s +510.000 s +signl.resolved +Ann +delivered +1 +s4`}
	if len(lines) != len(want) {
		t.Fatalf("%d lines: %s", len(lines), lines)
	}
	for i, w := range want {
		if !regexp.MustCompile(w).MatchString(lines[i]) {
			t.Errorf("line %d: %q does not match %q", i, lines[i], w)
		}
	}
	objects := s.logs("--as", "signl4", "--json", "--event", "n3")
	if len(objects) != 1 || !strings.Contains(objects[0], `"alert_event_id":"ev","alert_id":"al","external_id":"INC091210","type":"signl.annotated","raised_at":"2026-03-01T08:13:07.4815663Z","user":"Rene"`) {
		t.Errorf("--event n3: %s", objects)
	}
	if none := s.logs("--as", "signl4", "--correlation", "other"); len(none) != 1 {
		t.Errorf("another correlation id: %s", none)
	}
}

func (s *shapesStage) task(t *testing.T) {
	lines := s.logs("--as", "task")
	if len(lines) != 3 || !regexp.MustCompile(`t1 +endAt +2026-03-01T11:15:00.000Z +2026-03-01T13:00:00.000Z `).MatchString(lines[1]) ||
		!regexp.MustCompile(`t1 +assigneeIds +\["a","b"\] +\["b"\] +a +evt_`).MatchString(lines[2]) {
		t.Errorf("table: %s", lines)
	}
	objects := s.logs("--as", "task", "--json", "--subscription", "edits")
	if len(objects) != 2 || !strings.Contains(objects[1], `"entity_id":"t1","organization_id":"org","location_id":"loc","field":"assigneeIds","before":["a","b"],"after":["b"],"added":[],"removed":["a"],"changed_at":"2026-03-01T09:50:29.775Z"`) {
		t.Errorf("objects: %s", objects)
	}
	if !strings.Contains(objects[0], `"ack_ids":{"edits":"201"}`) || !strings.HasSuffix(lines[1], " 201") {
		t.Errorf("no acknowledgement: %s %s", objects[0], lines[1])
	}
	if table := s.logs("--subscription", "edits"); !strings.Contains(table[1], "delivered, acknowledged as 201") {
		t.Errorf("the log: %s", table)
	}
	if none := s.logs("--as", "task", "--json", "--tenant", "x"); len(none) != 0 {
		t.Errorf("another tenant: %s", none)
	}
}

// away is the stage's environment with something before ClickHouse that breaks off
// every connection while the switch is on.
func (s *shapesStage) away(t *testing.T) (env []string, off *atomic.Bool) {
	off, env = new(atomic.Bool), slices.Clone(s.env)
	const name = "HOOKLINE_CLICKHOUSE_ADDR="
	i := slices.IndexFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name) })
	there, err := url.Parse(env[i][len(name):])
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(there)
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if off.Load() {
			panic(http.ErrAbortHandler)
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(between.Close)
	env[i] = name + between.URL
	return env, off
}

// follow: what comes later is printed with its event, which is stored a moment
// after the attempt; also where ClickHouse was away meanwhile.
func (s *shapesStage) follow(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	env, off := s.away(t)
	cmd := command(ctx, env, "logs", "--as", "task", "--json", "--follow")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	told := bufio.NewScanner(stderr)
	tells := func(want string) {
		if !told.Scan() || !strings.HasPrefix(told.Text(), "hookline: following the log: ") || !strings.Contains(told.Text(), want) {
			t.Errorf("standard error: %q, %v, want %s", told.Text(), told.Err(), want)
		}
	}
	lines := bufio.NewScanner(out)
	for i, want := range []string{`"field":"endAt"`, `"field":"assigneeIds"`, `"entity_id":"t2"`} {
		if i == 2 { // the old ones are told, from here on it follows
			off.Store(true)
			tells("(trying again)")
			s.produce("tasks", `{"entityId":"t2","type":"TASK_EDITED","createdAt":"2026-03-01T09:50:29.775Z","data":{"operation":"UPDATE",`+
				`"current":{"id":"t2","organizationId":"org","name":"b"},"previous":{"id":"t2","organizationId":"org","name":"a"}}}`)
			off.Store(false)
			tells("ClickHouse answers again")
		}
		if !lines.Scan() || !strings.Contains(lines.Text(), want) {
			t.Errorf("line %d: %q, %v, want %s", i, lines.Text(), lines.Err(), want)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if lines.Scan() || told.Scan() {
		t.Errorf("one line more: %s%s", lines.Text(), told.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGINT: %v", err)
	}
}

var docBlock = regexp.MustCompile("(?s)```(sh|yaml)\n(.*?)```")

// TestSystemDocs: the pages of the four systems have subscriptions and settings
// that are accepted.
func TestSystemDocs(t *testing.T) {
	root, err := testkit.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"cotalker", "goflow", "signl4", "task"} {
		text, err := os.ReadFile(filepath.Join(root, "docs", page+".md"))
		if err != nil {
			t.Fatal(err)
		}
		var env []string
		checked := 0
		for _, m := range docBlock.FindAllStringSubmatch(string(text), -1) {
			if m[1] == "sh" {
				for _, v := range regexp.MustCompile(`(?m)^export (\w+=)'?([^'\s]*)`).FindAllStringSubmatch(m[2], -1) {
					env = append(env, v[1]+v[2])
				}
				expect(t, run(t, env, "check", "--offline"), "")
				checked++
				continue
			}
			file := filepath.Join(t.TempDir(), "subs.yaml")
			if err := os.WriteFile(file, []byte(m[2]), 0o600); err != nil {
				t.Fatal(err)
			}
			expect(t, run(t, env, "subs", "apply", "--dry-run", "-f", file), "valid")
			checked++
		}
		if len(env) == 0 || checked != 2 {
			t.Errorf("%s: %d blocks checked with %s", page, checked, env)
		}
	}
}
