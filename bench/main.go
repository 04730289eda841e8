// Command bench measures hookline against the bare limit: what it costs, in CPU
// of its own processes per delivery, beside a loop that does nothing but POST,
// in the same run against the same receiver.
//
//	go run ./bench                 the short set of scenarios, about 6 minutes
//	go run ./bench -full           all scenarios
//	go run ./bench -only 'fan10;fan1'   scenarios by name
//
// It brings its own Apache Kafka (scripts/kafka.sh), ClickHouse engine and
// receiver, all on loopback, and ends them. Kafka's and ClickHouse's own work
// is not counted. Machines are noisy: rounds of the bare loop and of hookline
// take turns, and only their ratios mean anything.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// Roles of the bench's own child processes.
const (
	roleReceiver = "receiver"
	roleBare     = "bare"
	roleRelay    = "relay"
)

type options struct {
	full       bool
	only       string
	rounds     int
	stage      *stage // that is there; nil: none
	deliveries int
	out        string
	profile    string
	timeout    time.Duration
	// child processes
	role     string
	url      string
	inflight int
	nice     int  // of ClickHouse
	idle     bool // ClickHouse gives way to all
	count    int
	size     int
	delay    time.Duration
	brokers  string
	topic    string
}

// known refuses names in -only that no scenario has.
func (o *options) known() error {
	if o.only == "" {
		return nil
	}
	names := []string{roleRelay}
	for i := range scenarios {
		names = append(names, scenarios[i].name)
	}
	for name := range strings.SplitSeq(o.only, ";") {
		if !slices.Contains(names, name) {
			return fmt.Errorf("-only: no scenario %q; there are %q, separated by semicolons", name, names)
		}
	}
	return nil
}

// roundsOf a scenario.
func (o *options) roundsOf(sc *scenario) int { return cmp.Or(o.rounds, sc.rounds) }

// wants tells whether a scenario is to be run.
func (o *options) wants(name string, long bool) bool {
	if o.only == "" {
		return o.full || !long
	}
	return slices.Contains(strings.Split(o.only, ";"), name)
}

func run() error {
	var o options
	flag.BoolVar(&o.full, "full", false, "all scenarios instead of the short set")
	flag.StringVar(&o.only, "only", "", "only the scenarios of these names, separated by semicolons")
	flag.IntVar(&o.rounds, "rounds", 0, "rounds of each scenario; 0: as the scenario says")
	flag.IntVar(&o.deliveries, "deliveries", 0, "deliveries in each round; 0: as the scenario says")
	flag.StringVar(&o.out, "out", "", "folder for report.md and report.svg; empty: print only")
	flag.StringVar(&o.profile, "profile", "", "folder for CPU and allocation profiles of hookline, one pair for each round")
	flag.IntVar(&o.nice, "engine-nice", 10, "niceness of ClickHouse, which shares the processors with all else here; 0: it gives way to nothing")
	flag.BoolVar(&o.idle, "engine-idle", false, "ClickHouse takes only what nobody else needs of the processors (Linux)")
	flag.DurationVar(&o.timeout, "timeout", 60*time.Minute, "give up after this long")
	flag.StringVar(&o.role, "role", "", "for the bench's own child processes")
	flag.StringVar(&o.url, "url", "", "child: where to POST")
	flag.IntVar(&o.inflight, "inflight", 256, "requests under way")
	flag.IntVar(&o.count, "count", 0, "child: how many requests")
	flag.IntVar(&o.size, "size", 1024, "payload bytes")
	flag.DurationVar(&o.delay, "delay", 0, "child: how long the receiver takes")
	flag.StringVar(&o.brokers, "brokers", "", "child: Kafka's addresses")
	flag.StringVar(&o.topic, "topic", "", "child: topic to relay")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	switch o.role {
	case "":
		if err := o.known(); err != nil {
			return err
		}
		return measure(ctx, &o)
	case roleReceiver:
		return receive(ctx, &o)
	case roleBare:
		return bare(&o)
	case roleRelay:
		return relay(ctx, &o)
	}
	return fmt.Errorf("no role %q", o.role)
}
