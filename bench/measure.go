package main

import (
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
	bareRate, rate float64       // deliveries per second
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
	o.stages = map[int]*stage{}
	defer func() {
		for _, st := range o.stages {
			st.close()
		}
	}()
	st, err := o.stage(ctx, 1)
	if err != nil {
		return err
	}
	var results []result
	var failed []error // a table with rows missing is no success
	for _, sc := range scenarios {
		if !o.wants(sc.name, sc.long) {
			continue
		}
		on, err := o.stage(ctx, sc.brokers)
		if err != nil {
			return err
		}
		r := runScenario(ctx, on, sc, o)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if r.err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", sc.name, r.err))
			fmt.Fprintln(os.Stderr, failed[len(failed)-1])
		}
		results = append(results, r)
		if !sc.routerAlone {
			fmt.Fprintln(os.Stderr, row(&r))
		}
	}
	var relayCPU time.Duration
	if o.wants(roleRelay, false) {
		if relayCPU, err = measureRelay(ctx, st, o); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", roleRelay, err))
		}
	}
	text := report(results, relayCPU)
	fmt.Print(text)
	if o.out == "" {
		return errors.Join(failed...)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.out, "report.svg"), []byte(plot(slices.DeleteFunc(slices.Clone(results), func(r result) bool { return r.sc.routerAlone }))), 0o600); err != nil {
		return err
	}
	return errors.Join(append(failed, os.WriteFile(filepath.Join(o.out, "report.md"), []byte(text), 0o600))...)
}

// stage gives the one with that many brokers, which is started for its first
// scenario.
func (o *options) stage(ctx context.Context, brokers int) (*stage, error) {
	if st := o.stages[brokers]; st != nil {
		return st, nil
	}
	st, err := setUp(ctx, brokers, o.nice)
	o.stages[brokers] = st
	return st, err
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
	n := sc.deliveries
	if n == 0 {
		n = o.events
	}
	twin, err := b.setUpTwin(ctx, n, o)
	if err != nil {
		r.err = err
		return r
	}
	defer twin.close()
	warm, err := b.round(ctx, max(sc.fanOut, n/10), o)
	if err == nil && sc.load > 0 {
		if warm, err = b.round(ctx, n, o); err == nil {
			b.sc.rate = max(1, int(warm.rate)*sc.load/100/sc.fanOut)
			r.notes = append(r.notes, fmt.Sprintf("%d events/s, %d %% of the %.0f deliveries/s of a round without limit", b.sc.rate, sc.load, warm.rate))
		}
	}
	if err != nil {
		r.err = err
		return r
	}
	for i := range o.rounds {
		var prof *profiles
		if o.profile != "" && len(b.admin) > 0 {
			prof = startProfiles(ctx, b.admin[0])
		}
		one, err := b.round(ctx, n, o)
		if prof != nil {
			err = errors.Join(err, prof.save(o.profile, fmt.Sprintf("%s-%d", sc.name, i+1)))
		}
		if err != nil {
			r.err = err
			return r
		}
		r.rounds = append(r.rounds, one)
		if err := twin.round(ctx, n, o); err != nil {
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

// round measures the bare loop, then hookline, over about the same number of
// requests against the same receiver.
func (b *bed) round(ctx context.Context, deliveries int, o *options) (round, error) {
	var r round
	want := b.expected(deliveries)
	bareCount := min(int(want), 100_000)
	cpu, wall, err := b.st.child(ctx, "-role", roleBare, "-url", b.url+"/ok", "-inflight", strconv.Itoa(b.sc.inflight),
		"-count", strconv.Itoa(bareCount), "-size", strconv.Itoa(b.sc.sizeBytes))
	if err != nil {
		return r, err
	}
	r.bareCPU, r.bareRate = cpu/time.Duration(bareCount), float64(bareCount)/wall.Seconds()
	if _, err := receiverCounts(b.url, true); err != nil {
		return r, err
	}
	produced := make(chan error, 1)
	if b.sc.backlog {
		produced <- b.produce(ctx, deliveries)
	}
	before, err := b.cpu() // of a backlog's processes: none, so that what each does before all have begun counts, and its start
	if err != nil {
		return r, err
	}
	objects, engine, kafka := b.mallocs(), b.engineCPU(), b.kafkaCPU()
	begun := time.Now()
	if b.sc.backlog {
		if err := b.startAll(ctx); err != nil {
			return r, err
		}
		defer b.stopAll()
	} else {
		go func() { produced <- b.produce(ctx, deliveries) }()
	}
	var c counts
	healthy := want - want*int64(b.sc.failing+b.sc.spare)/100
	if err := until(ctx, 5*time.Minute, func() bool {
		c, err = receiverCounts(b.url, false)
		return err == nil && c.Requests-c.Failed-c.Spare >= healthy
	}); err != nil {
		return r, fmt.Errorf("%d of %d deliveries arrived: %w", c.Requests-c.Failed-c.Spare, healthy, err)
	}
	took := time.Since(begun)
	if err := <-produced; err != nil {
		return r, err
	}
	after, err := b.settledCPU(ctx)
	if err != nil {
		return r, err
	}
	b.notePeak()
	r.engineCPU = (b.engineCPU() - engine) / time.Duration(c.Requests)
	r.kafkaCPU = (b.kafkaCPU() - kafka) / time.Duration(c.Requests)
	r.allocs = float64(b.mallocs()-objects) / float64(c.Requests)
	r.cpu, r.rate = (after-before)/time.Duration(c.Requests), float64(healthy)/took.Seconds()
	if n := len(b.behind); n > 0 {
		slices.Sort(b.behind)
		r.behind = b.behind[n*99/100]
	}
	r.p50, r.p99 = time.Duration(c.P50us)*time.Microsecond, time.Duration(c.P99us)*time.Microsecond
	return r, nil
}

// settledCPU waits until hookline has nothing left to do (its log written, its
// last commit made) and gives its CPU time.
func (b *bed) settledCPU(ctx context.Context) (time.Duration, error) {
	if err := b.logged(ctx); err != nil {
		return 0, err
	}
	last, err := b.cpu()
	for range 40 {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
		var now time.Duration
		if now, err = b.cpu(); err != nil || now-last <= 20*time.Millisecond {
			return now, err
		}
		last = now
	}
	return last, err
}

// measureRelay is the least that a sender fed by Kafka costs, per delivery.
func measureRelay(ctx context.Context, st *stage, o *options) (time.Duration, error) {
	b, err := setUpBed(ctx, st, base("relay", func(s *scenario) { s.fanOut, s.subs, s.processes, s.signing = 1, 1, 0, false }), false)
	defer b.close()
	if err != nil {
		return 0, err
	}
	if err := b.produce(ctx, o.events); err != nil {
		return 0, err
	}
	var all []time.Duration
	for range o.rounds {
		cpu, _, err := st.child(ctx, "-role", roleRelay, "-url", b.url+"/ok", "-brokers", st.brokers, "-topic", b.topic,
			"-count", strconv.Itoa(o.events), "-inflight", strconv.Itoa(b.sc.inflight))
		if err != nil {
			return 0, err
		}
		all = append(all, cpu/time.Duration(o.events))
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// spread gives the least, the median and the greatest of f over the rounds.
func (r *result) spread(f func(*round) float64) (lo, mid, hi float64) {
	if len(r.rounds) == 0 {
		return 0, 0, 0
	}
	v := make([]float64, len(r.rounds))
	for i := range r.rounds {
		v[i] = f(&r.rounds[i])
	}
	slices.Sort(v)
	return v[0], v[len(v)/2], v[len(v)-1]
}

// note adds what else the rounds told.
func (r *result) note() {
	_, kafka, _ := r.spread(func(x *round) float64 { return float64(x.kafkaCPU) / 1e3 })
	of := fmt.Sprintf("%.1f µs of Kafka's CPU per delivery", kafka)
	if !r.sc.noSink {
		_, engine, _ := r.spread(func(x *round) float64 { return float64(x.engineCPU) / 1e3 })
		of += fmt.Sprintf(", %.1f µs of ClickHouse's", engine)
	}
	r.notes = append(r.notes, of)
	if r.sc.load > 0 {
		r.notes = append(r.notes, r.latencies())
	}
}

// latencies tells each round's, and how late the source made 1 % of its events,
// which is not in them.
func (r *result) latencies() string {
	var s strings.Builder
	s.WriteString("p50 and p99 from event to first attempt, and p99 of how late the source was, of each round in ms:")
	for i := range r.rounds {
		x := &r.rounds[i]
		fmt.Fprintf(&s, " %d, %d, %d;", x.p50.Milliseconds(), x.p99.Milliseconds(), x.behind.Milliseconds())
	}
	return strings.TrimSuffix(s.String(), ";")
}

const header = "| scenario | CPU/delivery, bare | CPU/delivery, hookline | ratio: min, **median**, max | deliveries/s, bare | deliveries/s, hookline | p50 | p99 | objects/delivery | peak MiB |\n" +
	"|---|---|---|---|---|---|---|---|---|---|\n"

func row(r *result) string {
	us := func(f func(*round) time.Duration) string {
		_, m, _ := r.spread(func(x *round) float64 { return float64(f(x)) / 1e3 })
		return fmt.Sprintf("%.1f µs", m)
	}
	ms := func(f func(*round) time.Duration) string {
		_, m, _ := r.spread(func(x *round) float64 { return float64(f(x)) / 1e6 })
		return fmt.Sprintf("%.0f ms", m)
	}
	per := func(f func(*round) float64) string {
		_, m, _ := r.spread(f)
		return fmt.Sprintf("%.0f", m)
	}
	lo, mid, hi := r.spread((*round).ratio)
	return fmt.Sprintf("| %s | %s | %s | %.2f, **%.2f**, %.2f | %s | %s | %s | %s | %s | %d |", r.sc.name,
		us(func(x *round) time.Duration { return x.bareCPU }), us(func(x *round) time.Duration { return x.cpu }), lo, mid, hi,
		per(func(x *round) float64 { return x.bareRate }), per(func(x *round) float64 { return x.rate }),
		ms(func(x *round) time.Duration { return x.p50 }), ms(func(x *round) time.Duration { return x.p99 }),
		per(func(x *round) float64 { return x.allocs }), r.memoryMiB)
}

func report(results []result, relay time.Duration) string {
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
	if relay > 0 {
		fmt.Fprintf(&s, "\nfranz-go to fasthttp with nothing else: %.1f µs per delivery.\n", float64(relay)/1e3)
	}
	return s.String()
}

// plot draws the ratios as bars, with the goal of 1.5 as a line.
func plot(results []result) string {
	const width, line, left, unit = 720, 26, 190, 110.0
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`, width, line*len(results)+40)
	for i := range results {
		lo, mid, hi := results[i].spread((*round).ratio)
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
