// Command chaos breaks everything around hookline, and hookline itself, and
// proves from ledgers that nothing was lost, overtaken or sent twice without a
// reason.
//
//	go run ./bench/chaos -for 3m -seed 1            a run
//	go run ./bench/chaos -mutants all               runs that must fail
//	go run ./bench/chaos -check DIR                 judge the ledgers of a run again
//
// It brings its own Apache Kafka (scripts/kafka.sh) and ClickHouse engine, all
// on loopback, starts hookline processes with a real load, and disturbs them by
// a seeded schedule: kill -9, SIGSTOP beyond the session, SIGTERM, members that
// join and leave, brokers and ClickHouse that go and come, endpoints that fail,
// subscriptions that change. See docs/reliability.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hookline/hookline/internal/proof"
)

type options struct {
	seed      uint64
	length    time.Duration // of the disturbance
	brokers   int
	processes int
	static    bool
	every     time.Duration // mean time between two faults
	faults    string
	subs      int
	rate      int // deliveries per second at most
	backlog   int // deliveries that may wait
	bin       string
	tags      string
	dir       string
	keep      bool
	check     string
	race      bool
	rest      time.Duration
	stops     bool
	mutants   string
	patience  time.Duration // how long nothing may move before the end is not waited for
	giveBack  time.Duration // how long processes may keep, when all is over, what they took
}

// errViolated: the checker has said what and why.
var errViolated = errors.New("the run violates what hookline promises (see above)")

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func parse() (*options, error) {
	var o options
	flag.Uint64Var(&o.seed, "seed", 0, "of the schedule of faults; 0: a new one")
	flag.DurationVar(&o.length, "for", 3*time.Minute, "how long faults are made")
	flag.IntVar(&o.brokers, "brokers", 1, "Kafka brokers, 1 or 3")
	flag.IntVar(&o.processes, "processes", 4, "hookline processes")
	flag.BoolVar(&o.static, "static", false, "processes have instance ids: static membership")
	flag.DurationVar(&o.every, "every", 2*time.Second, "mean time between two faults")
	flag.StringVar(&o.faults, "faults", "all", "which faults: all (but hang), or a comma list of "+strings.Join(faultNames(), ", "))
	flag.IntVar(&o.subs, "subs", 20, "subscriptions for each of the six types of events")
	flag.IntVar(&o.rate, "rate", 6000, "deliveries per second at most")
	flag.IntVar(&o.backlog, "backlog", 12_000, "no events are produced while so many deliveries wait")
	flag.StringVar(&o.bin, "bin", "", "hookline's binary; empty: it is built")
	flag.StringVar(&o.tags, "tags", "", "build tags for hookline")
	flag.StringVar(&o.dir, "dir", "", "folder for ledgers and logs, with none of another run; empty: a temporary one, removed when all is well")
	flag.StringVar(&o.check, "check", "", "only judge the ledgers in this folder")
	flag.DurationVar(&o.rest, "broker-rest", brokerRest, "time between two faults of brokers")
	flag.BoolVar(&o.stops, "stops", false, "stop the broker in an orderly way, too, where it is the only one: Kafka then loses ends of transactions (docs/reliability.md)")
	flag.StringVar(&o.mutants, "mutants", "", "make a run with each of these mutants of hookline, which must catch it: all, or a comma list of "+strings.Join(mutantNames(), ", "))
	flag.BoolVar(&o.race, "race", false, "build hookline with the race detector")
	flag.Parse()
	o.patience, o.giveBack = settlePatience, giveBack
	o.keep = o.dir != ""
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano())
	}
	for name := range strings.SplitSeq(o.faults, ",") {
		if name != "all" && name != "none" && !slices.Contains(faultNames(), name) {
			return nil, fmt.Errorf("-faults: no fault %q", name)
		}
	}
	return &o, nil
}

func run() error {
	o, err := parse()
	if err != nil {
		return err
	}
	if o.check != "" {
		return judge(o.check)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.mutants != "" {
		return catchMutants(ctx, o)
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "hookline-chaos-"); err != nil {
			return err
		}
	}
	err = chaos(ctx, o)
	if err == nil {
		err = judge(o.dir)
	}
	if err != nil {
		return fmt.Errorf("%w; ledgers and logs are in %s", err, o.dir)
	}
	if !o.keep {
		return os.RemoveAll(o.dir)
	}
	// What Kafka and ClickHouse have is of use only where something is wrong.
	return errors.Join(os.RemoveAll(filepath.Join(o.dir, "kafka")), os.RemoveAll(filepath.Join(o.dir, "engine")))
}

// judge reads the ledgers, checks them and reports.
func judge(dir string) error {
	l, err := proof.Load(dir)
	if err != nil {
		return err
	}
	fmt.Printf("seed %d: %s\n", l.Plan.Seed, l.Plan.Command)
	v := proof.Check(l)
	v.Report(os.Stdout, l)
	if len(v.Violations) > 0 {
		return errViolated
	}
	return nil
}
