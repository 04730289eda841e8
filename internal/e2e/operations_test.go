package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/receiver"
	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/sender"
)

const (
	operationsLimit = 2 * time.Minute
	operationParts  = 3 // partitions of the events' topic
	// ordersTakeMS is what hookline promises of skip and retry, whichever process
	// owns the lane.
	ordersTakeMS = 2000
)

// shop is a deployment with one subscription, "erp", whose endpoint answers as
// the test likes. Events are numbered; event n is of source partition n mod 3.
type shop struct {
	t      *testing.T
	kafka  *testkit.KafkaCluster
	topic  string
	vars   map[string]string
	roles  string
	url    string
	status atomic.Int64 // the answer; 0: by answer
	answer func(n int) int
	// produced is the time of what produce writes; zero: now.
	produced time.Time
	delay    time.Duration // before each answer; set before anything is sent
	adm      *kadm.Client

	mu      sync.Mutex
	got     []visit // that were answered with 200, in the order of their answers; under mu
	refused []visit
}

// visit is one request.
type visit struct {
	n      int
	replay string
	at     time.Time
}

func newShop(t *testing.T, engine *testkit.EngineProc, fields string) *shop {
	t.Helper()
	name := testkit.Unique(t, "e2e")
	s := &shop{t: t, kafka: shared.Get(t), topic: name + ".events", roles: "router,dispatcher"}
	s.status.Store(200)
	s.vars = map[string]string{
		"KAFKA_BROKERS": strings.Join(s.kafka.Addrs(), ","), "TOPIC_PREFIX": name + ".", "GROUP": name, "PARTITIONS": "4", "START": "earliest",
		"EVENTS_TOPICS": s.topic + "=json:type=/kind", "ALLOW_HTTP": "true", "ALLOW_CIDRS": "127.0.0.0/8", "ALLOW_PORTS": "1-65535",
		"LOG_FORMAT": "text", "CLICKHOUSE_ADDR": "http://127.0.0.1:1",
	}
	if engine != nil {
		s.vars["CLICKHOUSE_ADDR"], s.roles = engine.URL(), "router,dispatcher,sink"
	}
	s.adm = kadm.NewClient(s.kafka.Client())
	if _, err := s.adm.CreateTopic(t.Context(), operationParts, -1, nil, s.topic); err != nil {
		t.Fatal(err)
	}
	recv, err := receiver.New(receiver.Config{Script: s.visit, KeepBodies: true, MaxRequests: -1})
	if err != nil {
		t.Fatal(err)
	}
	s.url = recv.URL()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- recv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("running the receiver: %v", err)
		}
	})
	s.do("topics")
	s.apply(fields)
	return s
}

// apply puts the subscription, with more fields in JSON.
func (s *shop) apply(fields string) {
	s.t.Helper()
	text := fmt.Sprintf(`{"subscriptions":[{"id":"erp","tenant":"*","url":"%s/erp"%s}]}`, s.url, fields)
	if r := command(s.t, s.vars, text, "subs", "apply", "-f", "-"); r.code != 0 {
		s.t.Fatalf("applying: %s", r.stderr)
	}
}

func (s *shop) visit(r *receiver.Request) receiver.Reply {
	var body struct{ N int }
	if err := json.Unmarshal([]byte(r.Body), &body); err != nil {
		body.N = -1
	}
	status := int(s.status.Load())
	s.mu.Lock()
	defer s.mu.Unlock()
	if status == 0 {
		status = s.answer(body.N)
	}
	if v := (visit{body.N, r.Replay, time.Now()}); status == 200 {
		s.got = append(s.got, v)
	} else {
		s.refused = append(s.refused, v)
	}
	return receiver.Reply{Status: status, Delay: s.delay}
}

// produce writes events from to to, to excluded.
func (s *shop) produce(from, to int) {
	s.t.Helper()
	cl := s.kafka.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for n := from; n < to; n++ {
		cl.Produce(s.t.Context(), &kgo.Record{Topic: s.topic, Partition: int32(n % operationParts), Timestamp: s.produced, Value: fmt.Appendf(nil, `{"kind":"k","n":%d}`, n)}, func(_ *kgo.Record, err error) {
			if err != nil {
				s.t.Errorf("producing: %v", err)
			}
		})
	}
	if err := cl.Flush(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// do runs a command that must succeed.
func (s *shop) do(args ...string) string {
	s.t.Helper()
	r := command(s.t, s.vars, "", args...)
	if r.code != 0 {
		s.t.Fatalf("hookline %v: code %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// run starts a process and waits until it is ready.
func (s *shop) run(name string) *process {
	s.t.Helper()
	p := launch(s.t, hookline, name, s.vars, "--roles", s.roles)
	p.ready()
	return p
}

func (s *shop) visits() (got, refused []visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got), slices.Clone(s.refused)
}

// until waits for something that other processes do.
func (s *shop) until(what string, ok func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), operationsLimit)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			got, refused := s.visits()
			s.t.Fatalf("waited %v for %s; %d requests were taken, %d refused", operationsLimit, what, len(got), len(refused))
		}
	}
}

// live is what the subscription's process says, and its state.
type live struct {
	State string `json:"effective_state"`
	Live  *struct {
		Node            string
		Blocked, Parked int
	}
}

func (s *shop) live() (l live) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.do("subs", "get", "erp", "--json")), &l); err != nil {
		s.t.Fatal(err)
	}
	return l
}

// once checks that the events from to to were taken once each, those of a source
// partition in their order.
func once(t *testing.T, got []visit, from, to int) {
	t.Helper()
	times, last := map[int]int{}, map[int]int{}
	for _, v := range got {
		times[v.n]++
		if p := v.n % operationParts; v.n < last[p] {
			t.Errorf("event %d was taken after %d", v.n, last[p])
		} else {
			last[p] = v.n
		}
	}
	for n := from; n < to; n++ {
		if times[n] != 1 {
			t.Errorf("event %d was taken %d times", n, times[n])
		}
	}
	if len(times) != to-from {
		t.Errorf("%d different events were taken, want %d", len(times), to-from)
	}
}

// begin runs a command of the CLI and does not wait for its end.
func (s *shop) begin(args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), hookline.get(s.t), args...)
	cmd.Env, cmd.SysProcAttr = environ(s.vars), childAttr()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return cmd
}

// TestDisabledSubscriptionGetsAllThatItMissed: an endpoint that was gone comes
// back; what came meanwhile arrives once and in order, before what comes now,
// although the command that sees to it is killed.
func TestDisabledSubscriptionGetsAllThatItMissed(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil, "")
	procs := []*process{s.run("process 1"), s.run("process 2")}
	s.produce(0, 30)
	s.until("the first 30", func() bool { got, _ := s.visits(); return len(got) == 30 })
	s.status.Store(410)
	s.produce(30, 60)
	s.until("it to be disabled", func() bool { return s.live().State == "disabled" })
	s.produce(60, 1030)
	s.status.Store(200)

	resume := s.begin("subs", "resume", "erp", "--replay")
	s.until("a part of what it missed", func() bool { got, _ := s.visits(); return len(got) > 130 })
	_ = resume.Process.Kill()
	_ = resume.Wait()
	s.produce(1030, 1060) // live, while it catches up
	out := s.do("subs", "resume", "erp", "--replay")
	t.Logf("resume --replay said: %s", strings.TrimSpace(out))
	s.until("all", func() bool { got, _ := s.visits(); return len(got) >= 1060 })

	got, _ := s.visits()
	once(t, got, 0, 1060)
	for i, v := range got {
		if want := v.n >= 30 && v.n < 1030; want != strings.HasPrefix(v.replay, "c_") {
			t.Fatalf("request %d, of event %d, has the replay mark %q", i, v.n, v.replay)
		}
		if v.n >= 1030 && i < 1030 {
			t.Fatalf("live event %d was taken as number %d, before what was missed", v.n, i)
		}
	}
	if l := s.live(); l.State != "active" {
		t.Errorf("in the end it is %s", l.State)
	}
	for _, p := range procs {
		p.terminate(30 * time.Second)
	}
}

// uncommittedFor is how long before a kill an answer may have come that no
// transaction had taken in: COMMIT_INTERVAL is 50 ms, and the machine is busy.
const uncommittedFor = 2 * time.Second

// TestCatchUpSurvivesAKill: the process that owns the lanes is killed in the
// middle of a catch-up. Another one goes on: everything arrives, in order; what is
// sent twice is what had been answered last, from some place on.
func TestCatchUpSurvivesAKill(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil, "")
	s.delay = 5 * time.Millisecond // a request is under way at any time
	procs := map[int]*process{}
	for _, name := range []string{"process 1", "process 2"} {
		p := s.run(name)
		procs[p.cmd.Process.Pid] = p
	}
	s.status.Store(410)
	s.produce(0, 30)
	s.until("it to be disabled", func() bool { return s.live().State == "disabled" })
	s.produce(30, 1000)
	s.status.Store(200)
	resume := s.begin("subs", "resume", "erp", "--replay")
	s.until("a part of what it missed", func() bool { got, _ := s.visits(); return len(got) > 100 })
	var owner *process
	s.until("the owner of its lanes to be told", func() bool {
		if l := s.live().Live; l != nil {
			pid, _ := strconv.Atoi(l.Node[strings.LastIndex(l.Node, "/")+1:])
			owner = procs[pid]
		}
		return owner != nil
	})
	owner.kill()
	killed := time.Now()
	before, _ := s.visits()
	if err := resume.Wait(); err != nil {
		t.Errorf("resume --replay: %v", err)
	}
	got, _ := s.visits()
	if len(before) >= 1000 {
		t.Fatalf("all %d were sent before the kill", len(before))
	}
	again := resumedFrom(t, got, len(before))
	t.Logf("killed after %d requests; %d were sent again", len(before), again)
	if again > 0 && killed.Sub(before[len(before)-again].at) > uncommittedFor {
		t.Errorf("%d were sent again, the first was answered %v before the kill", again, killed.Sub(before[len(before)-again].at))
	}
	once(t, slices.Concat(before[:len(before)-again], got[len(before):]), 0, 1000)
	for _, p := range procs {
		if p != owner {
			p.terminate(30 * time.Second)
		}
	}
}

// resumedFrom is how many of the first n requests were made again: those from
// some place on to the last of them, in the same order.
func resumedFrom(t *testing.T, got []visit, n int) int {
	t.Helper()
	if n == len(got) {
		return 0
	}
	at := slices.IndexFunc(got[:n], func(v visit) bool { return v.n == got[n].n })
	if at < 0 {
		return 0
	}
	for i, v := range got[at:n] {
		if n+i >= len(got) || got[n+i].n != v.n {
			t.Errorf("after the kill, request %d is not of event %d again", i, v.n)
		}
	}
	return n - at
}

// TestResumeDeliversWhatWasNotRoutedYet: the router was hours behind when the
// subscription was disabled, and goes on afterwards: what it had not routed by
// then arrives, too, once and in order.
func TestResumeDeliversWhatWasNotRoutedYet(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil, "")
	s.roles = "router"
	router := s.run("router 1")
	s.status.Store(410)
	s.produce(0, 1)
	s.until("the first event to be routed", func() bool { return s.routed() == 1 })
	router.terminate(30 * time.Second)
	s.produced = time.Now().Add(-3 * time.Hour)
	s.produce(1, 40)
	s.roles = "dispatcher"
	dispatcher := s.run("dispatcher")
	s.until("it to be disabled", func() bool { return s.live().State == "disabled" })
	s.status.Store(200)
	s.roles = "router"
	router = s.run("router 2")
	s.until("the rest to be routed to nobody", func() bool { return s.routed() == 40 })
	out := s.do("subs", "resume", "erp", "--replay")
	t.Logf("resume --replay said: %s", strings.TrimSpace(out))
	got, _ := s.visits()
	once(t, got, 0, 40)
	router.terminate(30 * time.Second)
	dispatcher.terminate(30 * time.Second)
}

// routed is how many events the router has committed.
func (s *shop) routed() (sum int64) {
	s.t.Helper()
	got, err := s.adm.FetchOffsets(s.t.Context(), s.vars["GROUP"]+".router")
	if errors.Is(err, kerr.CoordinatorNotAvailable) {
		return 0 // Kafka is making the topic of offsets
	}
	if err != nil {
		s.t.Fatal(err)
	}
	got.Each(func(o kadm.OffsetResponse) { sum += o.At })
	return sum
}

// TestResumeDoesNotOvertakeWhatIsNotDrained: it was disabled and paused while no
// dispatcher ran. What waited before that, and has not ended yet, is sent before
// what was missed later.
func TestResumeDoesNotOvertakeWhatIsNotDrained(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil, "")
	s.roles = "router"
	router := s.run("router")
	s.roles = "dispatcher"
	dispatcher := s.run("dispatcher 1")
	s.do("subs", "pause", "erp")
	s.produce(0, 20)
	s.until("20 deliveries to wait", func() bool { l := s.live().Live; return l != nil && l.Parked == 20 })
	dispatcher.terminate(30 * time.Second)
	s.decide(pipeline.StateDisabled)
	s.produce(20, 40)
	s.until("the others to be routed to nobody", func() bool { return s.routed() == 40 })
	s.decide(pipeline.StatePaused)
	dispatcher = s.run("dispatcher 2")
	out := s.do("subs", "resume", "erp", "--replay")
	t.Logf("resume --replay said: %s", strings.TrimSpace(out))
	got, _ := s.visits()
	once(t, got, 0, 40)
	router.terminate(30 * time.Second)
	dispatcher.terminate(30 * time.Second)
}

// decide puts the subscription into a state, as no command does. Every router has
// read it a moment later.
func (s *shop) decide(state pipeline.State) {
	s.t.Helper()
	cfg := sender.DefaultConfig()
	cfg.AllowHTTP, cfg.AllowCIDRs, cfg.AllowPorts = true, []string{"127.0.0.0/8"}, []string{"1-65535"} // as vars
	urls, err := cfg.Policy()
	if err != nil {
		s.t.Fatal(err)
	}
	prefix := s.vars["TOPIC_PREFIX"]
	w := registry.NewWriter(registry.Config{Topic: prefix + "subscriptions", AuditTopic: prefix + "audit"}, registry.Deps{
		Client: []kgo.Opt{kgo.SeedBrokers(s.kafka.Addrs()...)}, Policy: registry.Policy{URL: urls, MaxTimeout: cfg.RequestTimeout},
	})
	if _, err := w.SetState(s.t.Context(), "erp", state, "by a test"); err != nil {
		s.t.Fatal(err)
	}
}

// TestReplayOfWhatFailed: --failed sends again just what failed; a range that
// Kafka does not retain any more comes from ClickHouse, in its order.
func TestReplayOfWhatFailed(t *testing.T) {
	t.Parallel()
	s := newShop(t, testkit.Engine(t), `,"retries":0`)
	bad := func(n int) bool { return n%7 == 3 }
	s.answer = func(n int) int {
		if bad(n) {
			return 500
		}
		return 200
	}
	s.status.Store(0)
	p := s.run("process 1")
	s.produce(0, 60)
	s.until("60 requests", func() bool { got, refused := s.visits(); return len(got)+len(refused) == 60 })
	_, refused := s.visits()
	s.until("the log of all", func() bool { return strings.TrimSpace(s.do("sql", "SELECT count() FROM attempts")) == "count()\n60" })

	s.status.Store(200)
	s.mu.Lock()
	s.got = nil
	s.mu.Unlock()
	if dry := s.do("replay", "--subscription", "erp", "--since", "1h", "--failed", "--dry-run"); !strings.HasPrefix(dry, strconv.Itoa(len(refused))+" events") {
		t.Errorf("--dry-run says %q, want %d events", dry, len(refused))
	}
	s.do("replay", "--subscription", "erp", "--since", "1h", "--failed", "--yes")
	s.until("what had failed", func() bool { got, _ := s.visits(); return len(got) >= len(refused) })
	got, _ := s.visits()
	want := map[int]bool{}
	for _, v := range refused {
		want[v.n] = true
	}
	sent := map[int]bool{}
	for _, v := range got {
		if sent[v.n] = true; v.replay == "" {
			t.Errorf("event %d has no replay mark", v.n)
		}
	}
	if !maps.Equal(want, sent) || len(got) != len(want) {
		t.Errorf("sent again %v, want %v", sent, want)
	}

	s.truncate()
	s.mu.Lock()
	s.got = nil
	s.mu.Unlock()
	said := s.do("replay", "--subscription", "erp", "--since", "1h", "--yes", "--json")
	var told struct {
		Plan struct{ Events, Archived int }
	}
	if err := json.Unmarshal([]byte(said), &told); err != nil || told.Plan.Archived != 60 {
		t.Errorf("want 60 from ClickHouse: %v %s", err, said)
	}
	s.until("all of them again", func() bool { got, _ := s.visits(); return len(got) >= 60 })
	got, _ = s.visits()
	once(t, got, 0, 60)
	s.until("the log of the replay", func() bool {
		return strings.TrimSpace(s.do("sql", "SELECT uniqExact(replay), count() FROM attempts WHERE replay != ''")) == fmt.Sprintf("uniqExact(replay)\tcount()\n2\t%d", 60+len(refused))
	})
	p.terminate(30 * time.Second)
}

// truncate deletes all records of the events' topic.
func (s *shop) truncate() {
	s.t.Helper()
	ends, err := s.adm.ListEndOffsets(s.t.Context(), s.topic)
	if err != nil {
		s.t.Fatal(err)
	}
	answers, err := s.adm.DeleteRecords(s.t.Context(), ends.Offsets())
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		s.t.Fatalf("truncating %s: %v", s.topic, err)
	}
}

// TestOperatorsDecideOnABlockedLane: skip and retry reach whichever process owns
// the lane, take effect, and are in the audit topic.
func TestOperatorsDecideOnABlockedLane(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil, `,"retries":0,"on_exhausted":"block"`)
	procs := []*process{s.run("process 1"), s.run("process 2")}
	s.status.Store(500)
	s.produce(0, 3)
	blocked := func() bool { l := s.live().Live; return l != nil && l.Blocked == 1 }
	s.until("a blocked lane with two behind it", func() bool { l := s.live().Live; return blocked() && l.Parked == 3 })
	order := func(verb string) {
		t.Helper()
		var r struct {
			Outcome string
			Lanes   int
			Node    string
			TookMS  int64 `json:"took_ms"`
		}
		if err := json.Unmarshal([]byte(s.do("subs", verb, "erp", "--json")), &r); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %+v", verb, r)
		if r.Outcome != "done" || r.Lanes != 1 || r.Node == "" || r.TookMS > ordersTakeMS {
			t.Errorf("%s: %+v; want it done within %d ms", verb, r, ordersTakeMS)
		}
	}
	order("skip")
	s.until("the next one to be refused", func() bool { _, refused := s.visits(); return len(refused) == 2 })
	s.until("the lane to be blocked again", blocked)
	s.status.Store(200)
	order("retry")
	s.until("the two behind it", func() bool { got, _ := s.visits(); return len(got) == 2 })
	if said := s.do("subs", "skip", "erp"); !strings.Contains(said, "nothing") {
		t.Errorf("skipping nothing says %q", said)
	}
	s.do("subs", "pause", "erp", "--reason", "lunch")
	s.produce(3, 6)
	s.until("the deliveries to wait", func() bool { l := s.live(); return l.State == "paused" && l.Live != nil && l.Live.Parked == 3 })
	s.do("subs", "test", "erp")
	s.do("subs", "resume", "erp")
	s.until("what had waited", func() bool { got, _ := s.visits(); return len(got) == 6 })
	got, _ := s.visits()
	if got = slices.DeleteFunc(got, func(v visit) bool { return v.n < 3 }); len(got) != 3 {
		t.Errorf("after the pause came %v", got)
	}
	for _, p := range procs {
		p.terminate(30 * time.Second)
	}
}
