package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/proof"
	"github.com/hookline/hookline/internal/testkit"
)

// runner is one run.
type runner struct {
	o        *options
	began    time.Time
	world    *world
	track    *tracker
	journal  *proof.Journal
	endpoint *endpoint
	kafka    *testkit.Nodes
	engine   *testkit.LaunchedEngine
	client   *kgo.Client // produces events
	tails    *tails
	bin      string
	vars     map[string]string // HOOKLINE_* of every process
	topic    string            // of events
	slots    []*slot
	ends     []func() error // last first

	held       proof.Held     // what processes hold
	breaking   sync.WaitGroup // faults under way
	waiters    sync.WaitGroup // for processes
	brokerLock sync.Mutex     // held by who bounces a broker; likewise the others
	engineLock sync.Mutex
	updateLock sync.Mutex
	zombieLock sync.Mutex
	hangLock   sync.Mutex
	served     served

	mu    sync.Mutex
	lives int // under mu
}

func (r *runner) now() time.Duration { return time.Since(r.began) }

// fault writes down what was done to a process.
func (r *runner) fault(kind string, s *slot, from time.Duration, note string) {
	r.write(&proof.Fault{Kind: kind, Life: s.life, Name: s.name, From: from, To: r.now(), Note: note})
}

func (r *runner) write(f *proof.Fault) { r.failing(r.journal.Fault(f)) }

func (r *runner) stray(text string) { r.failing(r.journal.Stray(text)) }

// Patience of a run's end.
const (
	// settlePatience: all is mended; so long nothing may be stuck. A request
	// time-out, the longest delay and a session are less than half of it.
	settlePatience = 45 * time.Second
	// warming is the time under load before the first fault.
	warming = 5 * time.Second
	// giveBack is how long processes may keep, when all is over, what they took.
	giveBack = 60 * time.Second
	// quiet is waited for in the end, for what should not come any more.
	quiet = 3 * time.Second
	// rowsPatience is how long no row may arrive before all are there.
	rowsPatience = 6 * time.Second
)

// chaos makes a run and leaves its ledgers in o.dir.
func chaos(ctx context.Context, o *options) (err error) {
	r := &runner{o: o, began: time.Now(), world: newWorld(o.subs), topic: "chaos.events"}
	r.track = newTracker(r.world)
	defer func() {
		for i := len(r.ends) - 1; i >= 0; i-- {
			err = errors.Join(err, r.ends[i]())
		}
		r.waiters.Wait()
	}()
	if err := r.setUp(ctx); err != nil {
		return err
	}
	fmt.Printf("seed %d: everything is up after %v\n", o.seed, r.now().Round(time.Second))
	stopBusy := r.watchBusy()
	loading, stopLoad := context.WithCancel(ctx)
	produced := make(chan error, 1)
	go func() { produced <- r.produce(loading) }() // awaited below
	wait(ctx, warming)
	if err := r.sample(ctx, false); err != nil {
		r.track.fail(err)
	}
	r.disturb(ctx)
	stopLoad()
	err = <-produced
	if err == nil {
		err = r.finish(ctx)
	}
	stopBusy()
	_, over, _, failed := r.track.state()
	fmt.Printf("%d deliveries over after %v\n", over, r.now().Round(time.Second))
	return errors.Join(err, failed, ctx.Err())
}

// setUp starts everything.
func (r *runner) setUp(ctx context.Context) error {
	o := r.o
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	var err error
	if r.journal, err = proof.NewJournal(o.dir, &proof.Plan{
		Began: r.began, Seed: o.seed, Command: "go run ./bench/chaos " + o.command(), Subs: r.world.subs, Delays: delays,
		Session: sessionTimeout, Timeout: requestTimeout, Partitions: partitions,
	}); err != nil {
		return err
	}
	r.ends = append(r.ends, r.journal.Close)
	if r.endpoint, err = newEndpoint(r); err != nil {
		return err
	}
	r.ends = append(r.ends, r.endpoint.close)
	if err := r.build(ctx); err != nil {
		return err
	}
	if r.kafka, err = testkit.LaunchKafka(filepath.Join(o.dir, "kafka"), o.brokers); err != nil {
		return err
	}
	r.ends = append(r.ends, r.kafka.Close)
	if r.engine, err = testkit.LaunchEngine(filepath.Join(o.dir, "engine"), filepath.Join(o.dir, "hookline-engine")); err != nil {
		return err
	}
	r.ends = append(r.ends, func() error { r.engine.Kill9(); return nil })
	if err := r.topics(ctx); err != nil {
		return err
	}
	return r.startAll(ctx)
}

// command is what repeats the run.
func (o *options) command() string {
	s := fmt.Sprintf("-seed %d -for %v -brokers %d -processes %d -every %v -faults %s -subs %d -rate %d -backlog %d -broker-rest %v",
		o.seed, o.length, o.brokers, o.processes, o.every, o.faults, o.subs, o.rate, o.backlog, o.rest)
	if o.static {
		s += " -static"
	}
	if o.race {
		s += " -race"
	}
	if o.stops {
		s += " -stops"
	}
	return s
}

func (r *runner) build(ctx context.Context) error {
	root, err := testkit.Root()
	if err != nil {
		return err
	}
	r.bin = filepath.Join(r.o.dir, "hookline")
	race, cgo := []string{}, "CGO_ENABLED=0"
	if r.o.race {
		race, cgo = []string{"-race"}, "CGO_ENABLED=1"
	}
	for _, args := range [][]string{
		append(race, "-tags", r.o.tags, "-o", r.bin, "./cmd/hookline"),
		{"-o", filepath.Join(r.o.dir, "hookline-engine"), "./cmd/hookline-engine"},
	} {
		if r.o.bin != "" && args[len(args)-1] == "./cmd/hookline" {
			r.bin = r.o.bin
			continue
		}
		cmd := exec.CommandContext(ctx, "go", append([]string{"build"}, args...)...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building hookline: %w\n%s", err, out)
		}
	}
	return nil
}

// topics makes the topics and the subscriptions, and follows what Kafka tells.
func (r *runner) topics(ctx context.Context) error {
	addrs := r.kafka.Addrs()
	r.vars = map[string]string{
		"KAFKA_BROKERS": strings.Join(addrs, ","), "CLICKHOUSE_ADDR": r.engine.URL(), "TOPIC_PREFIX": "chaos.", "GROUP": "chaos",
		"PARTITIONS": strconv.Itoa(partitions), "REPLICATION": strconv.Itoa(r.o.brokers), "START": "earliest",
		"EVENTS_TOPICS": r.topic + "=json:type=/kind,entity=/entity", "ALLOW_HTTP": "true", "ALLOW_CIDRS": "127.0.0.0/8", "ALLOW_PORTS": "1-65535",
		"RETRY_DELAYS": durations(delays), "LOG_FORMAT": "text", "SESSION_TIMEOUT": sessionTimeout.String(),
		"REQUEST_TIMEOUT": requestTimeout.String(), "MAX_IN_FLIGHT": "128",
		"ADMIN_TOKEN": adminToken, "ADMIN_PROFILE": "true",
	}
	var err error
	if r.client, err = kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.DefaultProduceTopic(r.topic), kgo.ProducerLinger(5*time.Millisecond)); err != nil {
		return fmt.Errorf("making the producer: %w", err)
	}
	r.ends = append(r.ends, func() error { r.client.Close(); return nil })
	if _, err := kadm.NewClient(r.client).CreateTopic(ctx, sources, int16(r.o.brokers), nil, r.topic); err != nil {
		return fmt.Errorf("creating topic %s: %w", r.topic, err)
	}
	if err := r.command(ctx, "", "topics"); err != nil {
		return err
	}
	all := make([]int, len(r.world.subs))
	for i := range all {
		all[i] = i
	}
	if err := r.command(ctx, r.world.documents(r.endpoint.url(), all), "subs", "apply", "-f", "-"); err != nil {
		return err
	}
	if r.tails, err = follow(addrs, r); err != nil {
		return err
	}
	r.ends = append(r.ends, r.tails.close)
	return nil
}

func durations(list []time.Duration) string {
	texts := make([]string, len(list))
	for i, d := range list {
		texts[i] = d.String()
	}
	return strings.Join(texts, ",")
}

// startAll starts the processes, and two places for those that join and leave.
func (r *runner) startAll(ctx context.Context) error {
	r.ends = append(r.ends, func() error {
		for _, s := range r.slots {
			s.Lock()
			s.kill()
			s.Unlock()
		}
		return nil
	})
	for i := range r.o.processes + 2 {
		s := &slot{r: r, name: fmt.Sprintf("node-%d", i), extra: i >= r.o.processes}
		r.slots = append(r.slots, s)
		if s.extra {
			continue
		}
		if err := s.start(); err != nil {
			return err
		}
	}
	for _, s := range r.slots {
		if s.extra {
			continue
		}
		if err := s.ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// finish waits until everything is over, ends the processes in an orderly way,
// and collects what ClickHouse and Kafka have.
func (r *runner) finish(ctx context.Context) error {
	open, over, _, _ := r.track.state()
	fmt.Printf("everything is mended after %v: %d deliveries over, %d open\n", r.now().Round(time.Second), over, open)
	r.world.heal()
	r.track.mended()
	if err := r.track.await(ctx, r.o.patience); err != nil {
		return err
	}
	if open, _, _, _ := r.track.state(); open > 0 {
		r.diagnose(ctx)
	}
	wait(ctx, quiet)
	if err := r.sample(ctx, true); err != nil {
		return err
	}
	rows, err := r.rows(ctx)
	if err != nil {
		return err
	}
	var stops sync.WaitGroup
	for _, s := range r.slots {
		stops.Go(func() {
			s.Lock()
			defer s.Unlock()
			s.stop()
		})
	}
	stops.Wait()
	r.waiters.Wait()
	return errors.Join(r.journal.Rows(rows), r.tails.drain(ctx), r.inspect())
}
