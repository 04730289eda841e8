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
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// scenario is one set-up to measure. Zero values mean the defaults of base.
type scenario struct {
	name       string
	subs       int
	fanOut     int
	partitions int
	processes  int
	inflight   int
	sizeBytes  int
	delay      time.Duration // of the receiver
	mixed      bool          // endpoints of which some take a while
	failing    int           // percent of the subscriptions whose endpoint fails for good
	absent     int           // percent that there are not: the twin of failing
	ordering   string
	signing    bool
	noSink     bool
	rate       int // events per second; 0: as fast as they go
	load       int // percent of the rate that a first round without limit reaches; 0: no limit
	brokers    int
	backlog    bool // all events are there before hookline starts
	sinkAlone  bool // the sink alone stores the attempts that dispatchers made before
	// routerAlone: no deliveries; what the router costs with the number of subscriptions.
	routerAlone bool
	deliveries  int // per round
	rounds      int
	extra       []string
	long        bool // only with -full
}

func base(name string, change func(*scenario)) scenario {
	s := scenario{
		name: name, subs: 100, fanOut: 10, partitions: 8, processes: 1, inflight: 256, sizeBytes: 1024,
		ordering: "subscription", signing: true, brokers: 1, deliveries: 100_000, rounds: 3,
	}
	if change != nil {
		change(&s)
	}
	return s
}

// scenarios in the order in which they run.
var scenarios = []scenario{
	base("fan10", func(s *scenario) { s.rounds = 5 }),
	base("fan1", func(s *scenario) { s.fanOut, s.rounds = 1, 5 }),
	base("fan1000", func(s *scenario) { s.fanOut, s.subs, s.partitions, s.long = 1000, 1000, 32, true }),
	base("latency at 50 % load", func(s *scenario) { s.fanOut, s.load = 1, 50 }),
	base("latency at 10 % load", func(s *scenario) { s.fanOut, s.load, s.long = 1, 10, true }),
	base("latency at 90 % load", func(s *scenario) { s.fanOut, s.load, s.long = 1, 90, true }),
	base("sink alone", func(s *scenario) { s.noSink, s.sinkAlone, s.deliveries, s.long = true, true, 400_000, true }),
	base("router and subscriptions", func(s *scenario) { s.routerAlone, s.deliveries, s.long = true, 40_000, true }),
	base("mixed endpoints", func(s *scenario) { s.mixed, s.subs, s.long = true, 1000, true }),
	base("20ms endpoints, 256", func(s *scenario) { s.delay, s.subs, s.long = 20*time.Millisecond, 1000, true }),
	base("10% failing", func(s *scenario) {
		s.failing, s.long = 10, true
		s.extra = []string{"HOOKLINE_RETRY_DELAYS=200ms,200ms,200ms"} // with 30 s hardly one would be tried in a round
	}),
	base("no sink", func(s *scenario) { s.noSink, s.deliveries, s.long = true, 300_000, true }), // some ten seconds a round: the log shall not be put off to its end
	base("no signing", func(s *scenario) { s.signing, s.long = false, true }),
	base("ordering entity", func(s *scenario) { s.ordering, s.long = "entity", true }),
	base("ordering none", func(s *scenario) { s.ordering, s.long = "none", true }),
	base("1 partition", func(s *scenario) { s.partitions, s.long = 1, true }),
	base("32 partitions", func(s *scenario) { s.partitions, s.long = 32, true }),
	base("1 subscription", func(s *scenario) { s.subs, s.fanOut, s.long = 1, 1, true }),
	base("100,000 subscriptions", func(s *scenario) { s.subs, s.long = 100_000, true }),
	base("20ms endpoints, 1024", func(s *scenario) {
		s.delay, s.subs, s.inflight, s.deliveries, s.long = 20*time.Millisecond, 4000, 1024, 150_000, true
		s.extra = []string{"HOOKLINE_MAX_CONNECTIONS_PER_HOST=2048"} // one receiver for all
	}),
	base("256 B", func(s *scenario) { s.sizeBytes, s.long = 256, true }),
	base("16 KiB", func(s *scenario) { s.sizeBytes, s.deliveries, s.long = 16<<10, 20_000, true }),
	base("64 KiB", func(s *scenario) { s.sizeBytes, s.deliveries, s.long = 64<<10, 10_000, true }),
	base("backlog of 100,000", func(s *scenario) { s.backlog, s.long = true, true }),
	base("backlog of 1 million", func(s *scenario) { s.backlog, s.deliveries, s.long = true, 1_000_000, true }),
	base("1 process, 3 brokers", func(s *scenario) { s.brokers, s.backlog, s.deliveries, s.long = 3, true, 200_000, true }),
	base("2 processes, 3 brokers", func(s *scenario) {
		s.brokers, s.backlog, s.processes, s.deliveries, s.long = 3, true, 2, 200_000, true
	}),
	base("3 processes, 3 brokers", func(s *scenario) {
		s.brokers, s.backlog, s.processes, s.deliveries, s.long = 3, true, 3, 200_000, true
	}),
}

// bed is hookline running for one scenario.
type bed struct {
	sc       scenario
	st       *stage
	url      string
	topic    string
	cl       *kgo.Client
	procs    []*exec.Cmd
	admin    []string // URLs of the processes' admin addresses
	profile  bool
	ends     []func()
	produced int             // events
	requests int64           // that arrived in all rounds
	peakMiB  int             // the most of all processes together after a round
	behind   []time.Duration // how late each event of a round with a rate was made; written by produce
}

// setUpBed starts a receiver and hookline for a scenario, and waits until it is
// ready. Call close in any case.
func setUpBed(ctx context.Context, st *stage, sc scenario, profile bool) (*bed, error) {
	b := &bed{sc: sc, st: st, profile: profile, topic: fmt.Sprintf("bench-%d", time.Now().UnixNano())}
	url, end, err := st.receiver(sc.delay)
	if err != nil {
		return b, err
	}
	b.url, b.ends = url, append(b.ends, end)
	b.cl, err = kgo.NewClient(kgo.SeedBrokers(strings.Split(st.brokers, ",")...), kgo.DefaultProduceTopic(b.topic),
		kgo.ProducerLinger(2*time.Millisecond), kgo.MaxBufferedRecords(100_000))
	if err != nil {
		return b, err
	}
	b.ends = append(b.ends, b.cl.Close)
	if _, err := kadm.NewClient(b.cl).CreateTopic(ctx, 4, -1, nil, b.topic); err != nil {
		return b, err
	}
	file := filepath.Join(st.dir, b.topic+".json")
	if err := os.WriteFile(file, b.subscriptions(), 0o600); err != nil {
		return b, err
	}
	for _, args := range [][]string{{"topics"}, {"subs", "apply", "-f", file}} {
		c := exec.CommandContext(ctx, filepath.Join(st.dir, "hookline"), args...)
		c.Env = b.env(nil)
		if out, err := c.CombinedOutput(); err != nil {
			return b, fmt.Errorf("hookline %s: %w: %s", args[0], err, out)
		}
	}
	if sc.backlog {
		return b, nil // each round starts its own
	}
	return b, b.startAll(ctx)
}

func (b *bed) startAll(ctx context.Context) error {
	for range b.sc.processes {
		if err := b.launch(b.sc.roles()); err != nil {
			return err
		}
	}
	return b.ready(ctx)
}

// stopAll ends the processes of a round.
func (b *bed) stopAll() {
	for _, p := range b.procs {
		stopProcess(p)
	}
	b.procs, b.admin = nil, nil
}

func (b *bed) close() {
	b.stopAll()
	if err := b.clear(); err != nil {
		fmt.Fprintf(os.Stderr, "removing what %s wrote: %v\n", b.sc.name, err)
	}
	for i := len(b.ends) - 1; i >= 0; i-- {
		b.ends[i]()
	}
}

func (b *bed) env(more []string) []string {
	env := append(os.Environ(),
		"HOOKLINE_KAFKA_BROKERS="+b.st.brokers, "HOOKLINE_CLICKHOUSE_ADDR="+b.st.clickhouse,
		"HOOKLINE_CLICKHOUSE_DATABASE="+b.database(),
		"HOOKLINE_TOPIC_PREFIX="+b.topic+".", "HOOKLINE_GROUP="+b.topic, "HOOKLINE_PARTITIONS="+strconv.Itoa(b.sc.partitions),
		"HOOKLINE_EVENTS_TOPICS="+b.topic+"=json:type=/type,id=/id,entity=/id", "HOOKLINE_START=earliest",
		"HOOKLINE_ALLOW_HTTP=true", "HOOKLINE_ALLOW_CIDRS=127.0.0.0/8", "HOOKLINE_ALLOW_PORTS=1-65535",
		"HOOKLINE_MAX_IN_FLIGHT="+strconv.Itoa(b.sc.inflight), "HOOKLINE_LOG_LEVEL=warn", "BENCH_SECRET="+benchSecret)
	if b.profile {
		env = append(env, "HOOKLINE_ADMIN_PROFILE=true", "HOOKLINE_ADMIN_TOKEN="+profileToken)
	}
	return append(append(env, b.sc.extra...), more...)
}

// profileToken opens the profiles of the bench's own processes, on loopback.
const profileToken = "bench-bench-bench-bench"

// benchSecret is Standard Webhooks' example key.
const benchSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func (b *bed) subscriptions() []byte {
	var s strings.Builder
	s.WriteString(`{"subscriptions":[`)
	comma := ""
	for i := range b.sc.subs {
		path := pathOK
		switch {
		case b.sc.mixed:
			path = pathMixed
		case b.failing(i) && b.sc.absent > 0:
			continue
		case b.failing(i):
			path = pathFail
		}
		fmt.Fprintf(&s, `%s{"id":"%024x","tenant":"*","url":"%s/%s","events":["bench.%d"],"ordering":%q`,
			comma, i, b.url, path, i/b.sc.fanOut, b.sc.ordering)
		if b.sc.signing {
			s.WriteString(`,"signing":{"scheme":"standard-webhooks","secrets":[{"secret_ref":"env:BENCH_SECRET"}]}`)
		}
		s.WriteByte('}')
		comma = ","
	}
	s.WriteString("]}")
	return []byte(s.String())
}

// failing tells whether the endpoint of the i-th subscription fails, or would if it
// were there.
func (b *bed) failing(i int) bool {
	share := b.sc.failing + b.sc.absent
	return i*share/100 != (i+1)*share/100
}

// start starts one more process, and waits until it is ready.
func (b *bed) start(ctx context.Context, roles string) error {
	if err := b.launch(roles); err != nil {
		return err
	}
	return b.ready(ctx)
}

func (b *bed) launch(roles string) error {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	c := exec.Command(filepath.Join(b.st.dir, "hookline"), "run", "--roles", roles)
	c.Env = b.env([]string{"HOOKLINE_ADMIN_ADDR=127.0.0.1:" + ports[0]})
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		return err
	}
	b.procs, b.admin = append(b.procs, c), append(b.admin, "http://127.0.0.1:"+ports[0])
	return nil
}

// ready waits until all processes are.
func (b *bed) ready(ctx context.Context) error {
	for _, admin := range b.admin {
		if err := until(ctx, time.Minute, func() bool { return get(admin+"/readyz", nil) == nil }); err != nil {
			return err
		}
	}
	return nil
}

// cpu is the CPU time of all hookline processes so far.
func (b *bed) cpu() (time.Duration, error) {
	var sum time.Duration
	var errs []error
	for _, p := range b.procs {
		d, err := cpuOf(p.Process.Pid)
		sum += d
		errs = append(errs, err)
	}
	return sum, errors.Join(errs...)
}

// groups of subscriptions that get the same events.
func (b *bed) groups() int { return max(1, b.sc.subs/b.sc.fanOut) }

// produce puts n deliveries' worth of events into Kafka. With a rate each has its
// time, however late those before it were taken: the source waits for nobody. An
// event's own time is when it was made.
func (b *bed) produce(ctx context.Context, deliveries int) error {
	events := max(1, deliveries/b.sc.fanOut)
	var failed atomic.Pointer[error]
	begun := time.Now()
	b.behind = b.behind[:0]
	for i := range events {
		if b.sc.rate > 0 {
			due := begun.Add(time.Duration(i) * time.Second / time.Duration(b.sc.rate))
			time.Sleep(time.Until(due))
			b.behind = append(b.behind, time.Since(due))
		}
		b.produced++
		v := payload(b.sc.sizeBytes, uint64(b.produced), b.produced%b.groups())
		b.cl.Produce(ctx, &kgo.Record{Key: strconv.AppendInt(nil, int64(b.produced), 10), Value: v}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	if err := b.cl.Flush(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// expected is the number of deliveries to healthy endpoints that a round makes.
func (b *bed) expected(deliveries int) int64 {
	events := max(1, deliveries/b.sc.fanOut)
	want := int64(events * b.sc.fanOut)
	return want - want*int64(b.sc.failing+b.sc.absent)/100
}

// underWay is how many requests hookline can have under way: as many as it may, but
// one for each lane.
func (b *bed) underWay() int {
	if b.sc.ordering == "subscription" {
		return min(b.sc.inflight, b.sc.subs)
	}
	return b.sc.inflight
}
