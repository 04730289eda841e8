package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/receiver"
	"github.com/hookline/hookline/internal/testkit"
)

// Load of one test.
const (
	partitions = 6 // of deliveries
	stageLimit = 25 * time.Minute
	// settleLimit is for two cores that others use too; alone it takes a minute.
	settleLimit = 7 * time.Minute
	// echo is how long after SIGKILL a request may still reach an endpoint out
	// of the kernel's buffers.
	echo = 400 * time.Millisecond
	// lossNoticed is how late a process may notice that its session was lost.
	lossNoticed = 6 * time.Second
)

// stage is one test's topics, subscriptions, producer and endpoint. Only its
// test's goroutine uses it, but for what the ledger guards.
type stage struct {
	t        *testing.T
	ctx      context.Context
	rng      *rand.Rand
	plan     *plan
	ledger   *ledger
	kafka    *testkit.KafkaCluster
	engine   *testkit.EngineProc // nil: no sink
	topic    string              // of events
	vars     map[string]string   // HOOKLINE_* of every process
	roles    string
	receiver string // URL of the endpoint
	binary   *builder
	procs    []*process           // all that were started
	late     func() time.Duration // the worst lateness of timers; ends the watch
}

// setting is what a stage is made from.
type setting struct {
	plan   *plan
	kafka  *testkit.KafkaCluster // nil: the shared one
	engine *testkit.EngineProc   // nil: no sink
	vars   map[string]string
	binary *builder // nil: with the race detector, when the tests have it
}

func newStage(t *testing.T, set setting) *stage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stageLimit)
	t.Cleanup(cancel)
	name := testkit.Unique(t, "e2e")
	s := &stage{t: t, ctx: ctx, plan: set.plan, ledger: newLedger(set.plan), kafka: set.kafka, engine: set.engine, topic: name + ".events", binary: set.binary}
	if s.binary == nil {
		s.binary = hookline
	}
	if s.kafka == nil {
		s.kafka = shared.Get(t)
	}
	s.rng = rand.New(rand.NewPCG(seed(t), 0))
	s.vars = map[string]string{
		"KAFKA_BROKERS": strings.Join(s.kafka.Addrs(), ","), "TOPIC_PREFIX": name + ".", "GROUP": name,
		"PARTITIONS": strconv.Itoa(partitions), "START": "earliest",
		"EVENTS_TOPICS": s.topic + "=json:type=/kind,tenant=/tenant,entity=/entity",
		"ALLOW_HTTP":    "true", "ALLOW_CIDRS": "127.0.0.0/8", "ALLOW_PORTS": "1-65535",
		"RETRY_DELAYS": delays(set.plan.delays), "LOG_FORMAT": "text",
	}
	s.roles = "router,dispatcher"
	if s.engine != nil {
		s.vars["CLICKHOUSE_ADDR"], s.roles = s.engine.URL(), "router,dispatcher,sink"
	}
	maps.Copy(s.vars, set.vars)
	s.open()
	s.late = lateness(t)
	return s
}

// seed is printed, and can be given to repeat a run's choices.
func seed(t *testing.T) uint64 {
	n := uint64(time.Now().UnixNano())
	if text := os.Getenv("HOOKLINE_TEST_SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("reading HOOKLINE_TEST_SEED: %v", err)
		}
	}
	t.Logf("HOOKLINE_TEST_SEED=%d", n)
	return n
}

func delays(list []time.Duration) string {
	texts := make([]string, len(list))
	for i, d := range list {
		texts[i] = d.String()
	}
	return strings.Join(texts, ",")
}

// open makes the topics, the endpoint, the subscriptions and the reader of dead
// letters.
func (s *stage) open() {
	s.t.Helper()
	if _, err := kadm.NewClient(s.kafka.Client()).CreateTopic(s.ctx, int32(s.plan.partition), -1, nil, s.topic); err != nil {
		s.t.Fatalf("creating topic %s: %v", s.topic, err)
	}
	s.must(s.command("", "topics"))
	recv, err := receiver.New(receiver.Config{Script: s.ledger.answer, KeepBodies: true, MaxRequests: -1})
	if err != nil {
		s.t.Fatal(err)
	}
	dead := s.kafka.Client(kgo.ConsumeTopics(s.vars["TOPIC_PREFIX"]+"dead"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, cancel := context.WithCancel(context.Background()) // processes end before it, by their own clean-up
	var work sync.WaitGroup
	work.Go(func() {
		if err := recv.Run(ctx); err != nil {
			s.t.Errorf("running the receiver: %v", err)
		}
	})
	work.Go(func() { s.ledger.readDead(ctx, dead) })
	s.t.Cleanup(func() {
		cancel()
		work.Wait()
	})
	s.receiver = recv.URL()
	s.must(s.command(s.subscriptions(s.receiver), "subs", "apply", "-f", "-"))
}

// subscriptions is the plan as people would write it.
func (s *stage) subscriptions(url string) string {
	type document struct {
		ID       string   `json:"id"`
		Tenant   string   `json:"tenant"`
		URL      string   `json:"url"`
		Events   []string `json:"events"`
		Ordering string   `json:"ordering,omitempty"`
	}
	var list []document
	for i := range s.plan.subs {
		sub := &s.plan.subs[i]
		list = append(list, document{sub.id, []string{"acme", "*"}[i%2], url + "/s/" + sub.id, []string{sub.events}, sub.ordering})
	}
	text, err := json.Marshal(map[string]any{"subscriptions": list})
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func (s *stage) command(stdin string, args ...string) result {
	s.t.Helper()
	return command(s.t, s.vars, stdin, args...)
}

// must fails the test unless a command did what it was told.
func (s *stage) must(r result) result {
	s.t.Helper()
	if r.code != 0 {
		s.t.Fatalf("hookline ended with code %d after %v:\n%s%s", r.code, r.took, r.stdout, r.stderr)
	}
	return r
}

// start starts a process and does not wait until it is ready.
func (s *stage) start(more map[string]string) *process {
	s.t.Helper()
	vars := maps.Clone(s.vars)
	maps.Copy(vars, more)
	p := launch(s.t, s.binary, fmt.Sprintf("process %d", len(s.procs)+1), vars, "--roles", s.roles)
	s.procs = append(s.procs, p)
	return p
}

// run starts a process and waits until it is ready.
func (s *stage) run(more map[string]string) *process {
	s.t.Helper()
	p := s.start(more)
	p.ready()
	return p
}

// kill ends a process by SIGKILL and notes when.
func (s *stage) kill(p *process) span {
	from := s.ledger.now()
	p.kill()
	k := span{from, s.ledger.now() + echo}
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	s.ledger.kills = append(s.ledger.kills, k)
	return k
}

// produce writes the plan's events; every one must be acked. A rate of 0 is as
// fast as Kafka takes them. The result is waited for by calling it.
func (s *stage) produce(perSecond int) (wait func()) {
	cl := s.kafka.Client(kgo.DefaultProduceTopic(s.topic), kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(20_000))
	done := make(chan error, 1)
	go func() { done <- s.write(cl, perSecond) }() // awaited by wait, or ended with the test by s.ctx
	return func() {
		s.t.Helper()
		if err := <-done; err != nil {
			s.t.Fatalf("producing events: %v", err)
		}
	}
}

func (s *stage) write(cl *kgo.Client, perSecond int) error {
	const step = 20 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	var mu sync.Mutex
	var failed error
	for seq := range s.plan.events {
		if batch := max(1, perSecond*int(step)/int(time.Second)); perSecond > 0 && seq%batch == 0 {
			<-tick.C
		}
		rec := &kgo.Record{Key: fmt.Appendf(nil, "k%d", seq%64), Value: []byte(s.plan.body(seq))}
		cl.Produce(s.ctx, rec, func(r *kgo.Record, err error) {
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = err
				return
			}
			s.ledger.ack(seq, r)
		})
	}
	if err := cl.Flush(s.ctx); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return failed
}

// await fails the test unless ok, called with the ledger locked, comes true.
func (s *stage) await(what string, limit time.Duration, ok func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, limit)
	defer cancel()
	began := time.Now()
	if err := s.ledger.await(ctx, what, ok); err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("%s after %v", what, time.Since(began).Round(10*time.Millisecond))
}

// posts waits for so many more requests.
func (s *stage) posts(more int, limit time.Duration) {
	s.t.Helper()
	want := s.ledger.count() + more
	ctx, cancel := context.WithTimeout(s.ctx, limit)
	defer cancel()
	err := s.ledger.await(ctx, fmt.Sprintf("%d posts", want), func() bool { return len(s.ledger.posts) >= want || s.ledger.all() })
	if err != nil {
		s.t.Fatal(err)
	}
}

// judge ends the processes and judges what was seen until then. Everything must
// have been acked, and settled once.
func (s *stage) judge(procs ...*process) *verdict {
	s.t.Helper()
	for _, p := range procs {
		if took, code := p.terminate(30 * time.Second); code != 0 {
			s.t.Errorf("%s ended with code %d, %v after SIGTERM", p.name, code, took)
		}
	}
	s.noteLosses()
	committed := s.commits()
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	v := check(s.ledger, committed)
	v.report(s.t)
	if v.pairs != s.plan.expected || v.succeeded+v.dead-v.both != s.plan.expected {
		s.t.Errorf("%d pairs were acked and %d settled, want %d", v.pairs, v.succeeded+v.dead-v.both, s.plan.expected)
	}
	return v
}

// noteLosses counts each lost session as a kill: on a machine so busy that a
// process gets no time for a whole session, the group gives its partitions
// away, and what it had under way or not committed is sent again.
func (s *stage) noteLosses() {
	s.t.Helper()
	for _, p := range s.procs {
		for _, at := range p.losses() {
			lost := at.Sub(s.ledger.began)
			s.t.Logf("%s lost its session at %v: the machine was too busy", p.name, lost.Round(time.Millisecond))
			s.ledger.mu.Lock()
			s.ledger.kills = append(s.ledger.kills, span{max(0, lost-lossNoticed), lost + echo})
			s.ledger.mu.Unlock()
		}
	}
}

// leads tells what of hookline's work a broker leads at the moment.
func (s *stage) leads(node int32) (led int, coordinates []string) {
	s.t.Helper()
	// Nodes are counted from 1 in Kafka too.
	adm := kadm.NewClient(s.kafka.Client())
	topics, err := adm.ListTopics(s.ctx)
	if err != nil {
		s.t.Fatalf("listing topics: %v", err)
	}
	topics.EachPartition(func(p kadm.PartitionDetail) {
		if p.Leader == node && (p.Topic == s.topic || strings.HasPrefix(p.Topic, s.vars["TOPIC_PREFIX"])) {
			led++
		}
	})
	for _, role := range []string{"router", "dispatcher", "sink"} {
		group := s.vars["GROUP"] + "." + role
		if c := adm.FindGroupCoordinators(s.ctx, group)[group]; c.Err == nil && c.NodeID == node {
			coordinates = append(coordinates, role)
		}
	}
	return led, coordinates
}
