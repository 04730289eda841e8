package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// round is what one round of one scenario gave.
type round struct {
	bareCPU, cpu   time.Duration // per delivery
	bareRate, rate float64       // deliveries per second, to healthy endpoints
	storedRate     float64       // the same until all are in the log, too
	again          int64         // deliveries made more than once
	failed         int64         // tries that endpoints refused
	p50, p99       time.Duration
	allocs         float64       // objects per delivery
	engineCPU      time.Duration // of ClickHouse, per delivery
	kafkaCPU       time.Duration // of Kafka, per delivery
	behind         time.Duration // of the source, its p99, where it has a rate
}

func (r *round) ratio() float64 { return float64(r.cpu) / float64(r.bareCPU) }

// result is all rounds of one scenario.
type result struct {
	sc        scenario
	rounds    []round
	memoryMiB int
	notes     []string
	err       error
}

func measure(ctx context.Context, o *options) error {
	defer func() { o.stage.close() }()
	var results []result
	var failed []error // a table with rows missing is no success
	for _, sc := range scenarios {
		if !o.wants(sc.name, sc.long) {
			continue
		}
		if err := o.setStage(ctx, sc.brokers); err != nil {
			return err
		}
		r := runScenario(ctx, o.stage, sc, o)
		if r.err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", sc.name, r.err))
			fmt.Fprintln(os.Stderr, failed[len(failed)-1])
		}
		results = append(results, r)
		if !sc.routerAlone {
			fmt.Fprintln(os.Stderr, row(&r))
		}
		if err := o.write(results, ""); err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	least := ""
	if o.wants(roleRelay, false) {
		var err error
		if least, err = measureRelay(ctx, o); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", roleRelay, err))
		}
	}
	fmt.Print(report(results, least))
	return errors.Join(append(failed, o.write(results, least))...)
}

// write writes what there is so far to the folder that -out names.
func (o *options) write(results []result, least string) error {
	if o.out == "" {
		return nil
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	drawn := slices.DeleteFunc(slices.Clone(results), func(r result) bool { return len(r.rounds) == 0 })
	return errors.Join(os.WriteFile(filepath.Join(o.out, "report.svg"), []byte(plot(drawn)), 0o600),
		os.WriteFile(filepath.Join(o.out, "report.md"), []byte(report(results, least)), 0o600))
}

// setStage starts the one with that many brokers, unless it is there, and ends the one
// before it: its Kafka would take its share of the processors.
func (o *options) setStage(ctx context.Context, brokers int) (err error) {
	if o.stage != nil && o.stage.nodes == brokers {
		return nil
	}
	o.stage.close()
	priority := []string{"--nice", strconv.Itoa(o.nice)}
	if o.idle {
		priority = append(priority, "--idle")
	}
	o.stage, err = setUp(ctx, brokers, priority)
	return err
}

func runScenario(ctx context.Context, st *stage, sc scenario, o *options) result {
	r := result{sc: sc}
	if sc.routerAlone {
		r.notes, r.err = routerGrowth(ctx, st, sc, o)
		return r
	}
	b, err := setUpBed(ctx, st, sc, o.profile != "")
	defer b.close()
	if err != nil {
		r.err = err
		return r
	}
	n := cmp.Or(o.deliveries, sc.deliveries)
	twin, err := b.setUpTwin(ctx, n)
	if err != nil {
		r.err = err
		return r
	}
	defer twin.close()
	if _, err = b.round(ctx, max(sc.fanOut, n/10)); err == nil && sc.load > 0 {
		var note string
		n, note, err = b.limit(ctx, n)
		r.notes = append(r.notes, note)
		twin.bed.sc.rate = b.sc.rate
	}
	if err != nil {
		r.err = err
		return r
	}
	for i := range o.roundsOf(&sc) {
		var prof *profiles
		if o.profile != "" && len(b.admin) > 0 {
			prof = startProfiles(ctx, b.admin[0])
		}
		one, err := b.round(ctx, n)
		if prof != nil {
			err = errors.Join(err, prof.save(o.profile, fmt.Sprintf("%s-%d", sc.name, i+1)))
		}
		if err != nil {
			r.err = err
			return r
		}
		r.rounds = append(r.rounds, one)
		if err := twin.round(ctx, n); err != nil {
			r.err = err
			return r
		}
	}
	r.notes = append(r.notes, twin.notes(&sc, r.rounds)...)
	r.memoryMiB = b.peakMiB
	r.note()
	if sc.sinkAlone {
		note, err := b.sinkAlone(ctx, o.profile)
		r.err, r.notes = err, append(r.notes, note)
	}
	if sc.fanOut >= 100 {
		note, err := b.deliveriesBytes(ctx)
		r.err, r.notes = errors.Join(r.err, err), append(r.notes, note)
	}
	return r
}

const (
	// limitRounds without limit tell how much the machine can.
	limitRounds = 3
	// loadFor is how long a round with a rate takes.
	loadFor = 10 * time.Second
)

// limit sets the rate of the scenario's load, as rounds of unlimited deliveries tell
// it, and gives the deliveries of a round at it.
func (b *bed) limit(ctx context.Context, unlimited int) (deliveries int, note string, err error) {
	var rates []float64
	for range limitRounds {
		r, err := b.round(ctx, unlimited)
		if err != nil {
			return 0, "", err
		}
		rates = append(rates, r.rate)
	}
	most := median(rates)
	b.sc.rate = max(1, int(most)*b.sc.load/100/b.sc.fanOut)
	return b.sc.rate * b.sc.fanOut * int(loadFor/time.Second), fmt.Sprintf("%d events/s for %v a round, %d %% of the %.0f deliveries/s of rounds without limit (%.0f to %.0f)",
		b.sc.rate, loadFor, b.sc.load, most, slices.Min(rates), slices.Max(rates)), nil
}

// round measures the bare loop, then hookline, over about the same number of
// requests against the same receiver.
func (b *bed) round(ctx context.Context, deliveries int) (round, error) {
	var r round
	used, err := b.bare(ctx)
	if err != nil {
		return r, err
	}
	r.bareCPU, r.bareRate = used.CPU/bareCount, bareCount/used.Wall.Seconds()
	every := sampled
	if b.sc.rate > 0 {
		every = 1
	}
	if _, err := receiverCounts(b.url, fmt.Sprintf("?reset=1&every=%d", every)); err != nil {
		return r, err
	}
	produced := make(chan error, 1)
	if b.sc.backlog {
		produced <- b.produce(ctx, deliveries)
	}
	before, err := b.used() // of a backlog's processes: none, so that what each does before all have begun counts, and its start
	if err != nil {
		return r, err
	}
	begun := time.Now()
	if b.sc.backlog {
		if err := b.startAll(ctx); err != nil {
			return r, err
		}
		defer b.stopAll()
	} else {
		go func() { produced <- b.produce(ctx, deliveries) }()
	}
	want := b.expected(deliveries)
	var c counts
	if err := until(ctx, 5*time.Minute, func() bool {
		c, err = receiverCounts(b.url, "")
		return err == nil && c.Requests-c.Failed >= want
	}); err != nil {
		return r, fmt.Errorf("%d of %d deliveries arrived: %w", c.Requests-c.Failed, want, err)
	}
	r.rate = float64(want) / time.Since(begun).Seconds()
	if err := <-produced; err != nil {
		return r, err
	}
	stored, err := b.logged(ctx)
	if err != nil {
		return r, err
	}
	r.storedRate = float64(want) / stored.Sub(begun).Seconds()
	after, err := b.settled(ctx)
	if err != nil {
		return r, err
	}
	// Only now: what is made again comes late.
	if c, err = receiverCounts(b.url, "?latency=1"); err != nil {
		return r, err
	}
	b.notePeak()
	b.requests += c.Requests
	r.again, r.failed = c.Requests-c.Failed-want, c.Failed
	requests := time.Duration(c.Requests)
	r.cpu, r.engineCPU, r.kafkaCPU = (after.cpu-before.cpu)/requests, (after.engine-before.engine)/requests, (after.kafka-before.kafka)/requests
	r.allocs = float64(after.objects-before.objects) / float64(c.Requests)
	if n := len(b.behind); n > 0 {
		slices.Sort(b.behind)
		r.behind = b.behind[n*99/100]
	}
	r.p50, r.p99 = time.Duration(c.P50us)*time.Microsecond, time.Duration(c.P99us)*time.Microsecond
	return r, nil
}

// bareCount is how many requests a round of the bare loop has.
const bareCount = 60_000

// bare runs the bare loop against the bed's receiver.
func (b *bed) bare(ctx context.Context) (spent, error) {
	path := pathOK
	if b.sc.mixed {
		path = pathMixed
	}
	return b.st.child(ctx, "-role", roleBare, "-url", b.url+"/"+path, "-inflight", strconv.Itoa(b.underWay()),
		"-count", strconv.Itoa(bareCount), "-size", strconv.Itoa(b.sc.sizeBytes))
}

// usage is what has been used so far.
type usage struct {
	cpu, engine, kafka time.Duration // cpu: of all hookline processes
	objects            int64         // that these have allocated
}

func (b *bed) used() (usage, error) {
	cpu, err := b.cpu()
	objects, errObjects := b.mallocs()
	return usage{cpu, b.engineCPU(), b.kafkaCPU(), objects}, errors.Join(err, errObjects)
}

// settled waits until hookline has nothing left to do (its last commit made) and
// gives what has been used.
func (b *bed) settled(ctx context.Context) (usage, error) {
	idle := 20 * time.Millisecond * time.Duration(max(1, len(b.procs))) // in half a second
	last, err := b.used()
	for range 40 {
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
		var now usage
		if now, err = b.used(); err != nil || now.cpu-last.cpu <= idle || b.sc.failing > 0 {
			return now, err // beside endpoints that fail it never has nothing to do
		}
		last = now
	}
	return last, errors.Join(err, errors.New("waiting for hookline to have nothing left to do: it still works after 20 s"))
}

// measureRelay tells what a sender fed by Kafka takes at the least, beside the bare
// loop, in rounds that take turns.
func measureRelay(ctx context.Context, o *options) (string, error) {
	if err := o.setStage(ctx, 1); err != nil {
		return "", err
	}
	st := o.stage
	b, err := setUpBed(ctx, st, base("relay", func(s *scenario) { s.fanOut, s.processes, s.ordering, s.noSink = 1, 0, "none", true }), false)
	defer b.close()
	if err != nil {
		return "", err
	}
	if err := b.produce(ctx, bareCount); err != nil {
		return "", err
	}
	var rounds []round
	for range o.roundsOf(&b.sc) {
		bare, err := b.bare(ctx)
		if err != nil {
			return "", err
		}
		used, err := st.child(ctx, "-role", roleRelay, "-url", b.url+"/ok", "-brokers", st.brokers, "-topic", b.topic,
			"-count", strconv.Itoa(bareCount), "-inflight", strconv.Itoa(b.underWay()))
		if err != nil {
			return "", err
		}
		rounds = append(rounds, round{bareCPU: bare.CPU / bareCount, cpu: used.CPU / bareCount, rate: bareCount / used.Wall.Seconds()})
	}
	return fmt.Sprintf("franz-go to fasthttp with nothing else: %s µs per delivery, %s times the bare loop, %s deliveries/s",
		span(rounds, func(r *round) float64 { return µs(r.cpu) }, "%.1f"), span(rounds, (*round).ratio, "%.2f"),
		span(rounds, func(r *round) float64 { return r.rate }, "%.0f")), nil
}

// spread gives the least, the median and the greatest of f over rounds.
func spread(rounds []round, f func(*round) float64) (lo, mid, hi float64) {
	if len(rounds) == 0 {
		return 0, 0, 0
	}
	all := make([]float64, len(rounds))
	for i := range rounds {
		all[i] = f(&rounds[i])
	}
	return slices.Min(all), median(all), slices.Max(all)
}

// note adds what else the rounds told.
func (r *result) note() {
	if len(r.rounds) == 0 {
		return
	}
	var again, failed []int64
	for i := range r.rounds {
		again, failed = append(again, r.rounds[i].again), append(failed, r.rounds[i].failed)
	}
	if slices.Max(again) > 0 {
		r.notes = append(r.notes, fmt.Sprintf("deliveries made more than once, by round: %d", again))
	}
	if r.sc.failing > 0 {
		r.notes = append(r.notes, fmt.Sprintf("tries that the failing endpoints refused, by round: %d", failed))
	}
	_, kafka, _ := spread(r.rounds, func(x *round) float64 { return µs(x.kafkaCPU) })
	of := fmt.Sprintf("%.1f µs of Kafka's CPU per delivery", kafka)
	if !r.sc.noSink {
		_, engine, _ := spread(r.rounds, func(x *round) float64 { return µs(x.engineCPU) })
		of += fmt.Sprintf(", %.1f µs of ClickHouse's", engine)
	}
	r.notes = append(r.notes, of)
	if r.sc.load > 0 {
		r.notes = append(r.notes, "p50 and p99 from event to first attempt, and p99 of how late the source was, of each round in ms: "+latencies(r.rounds))
	}
}

// latencies tells each round's, and how late the source made 1 % of its events,
// which is not in them.
func latencies(rounds []round) string {
	var all []string
	for i := range rounds {
		x := &rounds[i]
		all = append(all, fmt.Sprintf("%d, %d, %d", x.p50.Milliseconds(), x.p99.Milliseconds(), x.behind.Milliseconds()))
	}
	return strings.Join(all, "; ")
}

const header = "| scenario | CPU/delivery, bare | CPU/delivery, hookline | ratio: min, **median**, max | deliveries/s, bare | deliveries/s, hookline | p50 | p99 | objects/delivery | peak MiB |\n" +
	"|---|---|---|---|---|---|---|---|---|---|\n"

func row(r *result) string {
	us := func(f func(*round) time.Duration) string {
		_, m, _ := spread(r.rounds, func(x *round) float64 { return µs(f(x)) })
		return fmt.Sprintf("%.1f µs", m)
	}
	ms := func(f func(*round) time.Duration) string {
		if r.sc.load == 0 { // how long events queue that come all at once says nothing
			return "-"
		}
		_, m, _ := spread(r.rounds, func(x *round) float64 { return float64(f(x)) / 1e6 })
		return fmt.Sprintf("%.0f ms", m)
	}
	per := func(f func(*round) float64) string {
		_, m, _ := spread(r.rounds, f)
		return fmt.Sprintf("%.0f", m)
	}
	lo, mid, hi := spread(r.rounds, (*round).ratio)
	return fmt.Sprintf("| %s | %s | %s | %.2f, **%.2f**, %.2f | %s | %s | %s | %s | %s | %d |", r.sc.name,
		us(func(x *round) time.Duration { return x.bareCPU }), us(func(x *round) time.Duration { return x.cpu }), lo, mid, hi,
		per(func(x *round) float64 { return x.bareRate }), per(func(x *round) float64 { return x.rate }),
		ms(func(x *round) time.Duration { return x.p50 }), ms(func(x *round) time.Duration { return x.p99 }),
		per(func(x *round) float64 { return x.allocs }), r.memoryMiB)
}

func report(results []result, least string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "CPU of all hookline processes per delivery, beside a bare fasthttp loop in the same run; %d cores, %s.\n\n", runtime.NumCPU(), runtime.Version())
	s.WriteString(header)
	for i := range results {
		if !results[i].sc.routerAlone {
			s.WriteString(row(&results[i]) + "\n")
		}
		if err := results[i].err; err != nil {
			fmt.Fprintf(&s, "| %s | failed: %v |\n", results[i].sc.name, err)
		}
	}
	s.WriteString("\n")
	for i := range results {
		for _, note := range results[i].notes {
			fmt.Fprintf(&s, "- %s: %s\n", results[i].sc.name, note)
		}
	}
	if least != "" {
		fmt.Fprintf(&s, "- relay: %s\n", least)
	}
	return s.String()
}

// plot draws the ratios as bars, with the goal of 1.5 as a line.
func plot(results []result) string {
	const width, line, left = 820, 26, 190
	most := 2.0
	for i := range results {
		_, _, hi := spread(results[i].rounds, (*round).ratio)
		most = max(most, hi)
	}
	unit := (width - left - 60) / most
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`, width, line*len(results)+40)
	for i := range results {
		lo, mid, hi := spread(results[i].rounds, (*round).ratio)
		y := 10 + line*i
		fmt.Fprintf(&s, `<text x="4" y="%d">%s</text><rect x="%d" y="%d" width="%.0f" height="16" fill="#4a7"/>`, y+13, results[i].sc.name, left, y, mid*unit)
		fmt.Fprintf(&s, `<line x1="%.0f" x2="%.0f" y1="%d" y2="%d" stroke="#333"/><text x="%.0f" y="%d">%.2f</text>`,
			left+lo*unit, left+hi*unit, y+8, y+8, left+hi*unit+6, y+13, mid)
	}
	x := left + 1.5*unit
	fmt.Fprintf(&s, `<line x1="%.0f" x2="%.0f" y1="4" y2="%d" stroke="#c33" stroke-dasharray="4"/><text x="%.0f" y="%d">1.5 times the bare loop</text></svg>`,
		x, x, line*len(results)+14, x-40, line*len(results)+30)
	return s.String()
}
