package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// isolation measures a crowd.
type isolation struct {
	*crowd
	size       isolationSize
	pace       float64 // deliveries per second of the paced rounds; 0: not known yet
	dark, fail []kept
}

// outcome is what a phase gave the healthy ones.
type outcome struct {
	rates []float64 // deliveries per second, as fast as they go
	paced float64   // the same where half as many are offered; 0: not measured
}

// kept is what a phase left of the throughput of the phases around it.
type kept struct{ full, paced float64 }

// phase makes rounds and tells what they gave, and who used the processors.
func (m *isolation) phase(name, beside string, rounds int) outcome {
	m.t.Helper()
	stop := m.profile(name)
	before, failed := m.usage(), m.failedTries()
	var o outcome
	for range rounds {
		o.rates = append(o.rates, m.round(beside))
	}
	after := m.usage()
	rate := median(o.rates)
	m.t.Logf("%s: %.0f deliveries a second to the healthy ones, %s; %.1f failed tries a second; %d connections held",
		name, o.rates, after.since(before, float64(rounds*m.perRound())), (m.failedTries()-failed)/after.at.Sub(before.at).Seconds(), m.held.Load())
	if m.size.paced > 0 && name != "warming up" {
		if m.pace == 0 {
			m.pace = rate / 2
		}
		before = m.usage()
		var n int
		o.paced, n = m.paced(beside)
		m.t.Logf("%s: offered %.0f deliveries a second: %.0f, %s", name, m.pace, o.paced, m.usage().since(before, float64(n)))
	}
	stop()
	return o
}

func (m *isolation) perRound() int { return m.size.events / 10 * 10 * m.size.healthy }

// round has every healthy endpoint get so many events at once, and tells how many
// deliveries a second that were.
func (m *isolation) round(beside string) float64 {
	m.t.Helper()
	began := time.Now()
	for n := range 10 {
		if beside == "fail" && n%3 == 0 {
			m.produce(beside, 1)
		}
		m.produce("good", m.size.events/10)
	}
	m.await(m.perRound())
	return float64(m.perRound()) / time.Since(began).Seconds()
}

// paced offers half of what went through alone, and tells how many deliveries a
// second there were, and how many in all.
func (m *isolation) paced(beside string) (rate float64, deliveries int) {
	m.t.Helper()
	const step = 20 * time.Millisecond
	began := time.Now()
	events := 0
	for n := 0; time.Since(began) < m.size.paced; n++ {
		if beside == "fail" && n%50 == 0 {
			m.produce(beside, 1)
		}
		due := int(m.pace / float64(m.size.healthy) * time.Since(began).Seconds())
		m.produce("good", due-events)
		events = due
		time.Sleep(time.Until(began.Add(time.Duration(n+1) * step)))
	}
	m.await(events * m.size.healthy)
	return float64(events*m.size.healthy) / time.Since(began).Seconds(), events * m.size.healthy
}

// await waits until the healthy ones have had so many more.
func (m *isolation) await(more int) {
	m.t.Helper()
	m.want += int64(more)
	for m.got.Load() < m.want {
		if m.ctx.Err() != nil {
			m.t.Fatalf("the healthy endpoints have %d of %d deliveries", m.got.Load(), m.want)
		}
		time.Sleep(5 * time.Millisecond) // another process: no signal to wait for
	}
}

// kept notes what is left in a cycle.
func (m *isolation) kept(before, dark, fail, after outcome) {
	of := func(o outcome) kept {
		return kept{
			full:  2 * median(o.rates) / (median(before.rates) + median(after.rates)),
			paced: 2 * o.paced / (before.paced + after.paced),
		}
	}
	m.dark, m.fail = append(m.dark, of(dark)), append(m.fail, of(fail))
}

// judge tells the medians over the cycles and their spread.
func (m *isolation) judge(least float64) {
	m.t.Helper()
	check := func(what string, list []kept, of func(kept) float64) {
		var shares []float64
		for _, k := range list {
			shares = append(shares, of(k))
		}
		slices.Sort(shares)
		mid := median(shares)
		m.t.Logf("%s the healthy ones keep %.0f %% (%.0f to %.0f)", what, 100*mid, 100*shares[0], 100*shares[len(shares)-1])
		if mid < least {
			m.t.Errorf("%s: less than %.0f %%", what, 100*least)
		}
	}
	silent := fmt.Sprintf("beside %d that never answer", m.size.dark)
	all := fmt.Sprintf("beside these and %d that fail in every way", m.size.failing)
	check(silent, m.dark, func(k kept) float64 { return k.full })
	check(all, m.fail, func(k kept) float64 { return k.full })
	if m.size.paced > 0 {
		const half = ", where half as much is offered,"
		check(silent+half, m.dark, func(k kept) float64 { return k.paced })
		check(all+half, m.fail, func(k kept) float64 { return k.paced })
	}
}

func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}

// failedTries counts the tries that did not succeed.
func (m *isolation) failedTries() float64 {
	m.t.Helper()
	var sum float64
	for _, found := range attemptsMetric.FindAllStringSubmatch(m.metrics(), -1) {
		if n, err := strconv.ParseFloat(found[1], 64); err == nil && !strings.Contains(found[0], `"success"`) {
			sum += n
		}
	}
	return sum
}

// usage is the CPU time of everybody up to now.
type usage struct {
	at                            time.Time
	hookline, kafka, own, machine time.Duration
}

func (m *isolation) usage() usage {
	u := usage{at: time.Now(), machine: machineCPU()}
	of := func(pid int) time.Duration { s, _ := use(pid); return s.cpu }
	u.hookline, u.own = of(m.proc.cmd.Process.Pid), of(os.Getpid())
	for _, pid := range m.kafka.PIDs() {
		u.kafka += of(pid)
	}
	return u
}

// since tells the processors in use on average, and hookline's time for each delivery.
func (u usage) since(b usage, deliveries float64) string {
	cores := func(d time.Duration) float64 { return d.Seconds() / u.at.Sub(b.at).Seconds() }
	used := u.hookline - b.hookline
	return fmt.Sprintf("hookline %.2f cores (%.1f µs a delivery), Kafka %.2f, endpoints and source %.2f, all of the machine %.2f",
		cores(used), float64(used.Microseconds())/deliveries, cores(u.kafka-b.kafka), cores(u.own-b.own), cores(u.machine-b.machine))
}

// machineCPU is the time that all processors have been busy; 0 where /proc does
// not tell.
func machineCPU() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	// cpu user nice system idle iowait irq softirq steal, in hundredths of a
	// second (proc_stat(5), USER_HZ).
	line, _, _ := strings.Cut(string(text), "\n")
	var ticks int64
	for i, field := range strings.Fields(line) {
		if n, err := strconv.ParseInt(field, 10, 64); err == nil && i != 4 && i != 5 && i < 8 {
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// profiles is a directory for profiles of what was measured; empty: none are made.
func profiles() string { return os.Getenv("HOOKLINE_E2E_PROFILE") }

// profile writes a CPU profile of a phase's first seconds, over that of the cycle before.
func (m *isolation) profile(name string) (end func()) {
	var work sync.WaitGroup
	if profiles() != "" {
		work.Go(func() {
			body, err := m.fetch("/debug/pprof/profile?seconds=10")
			if err == nil {
				err = os.WriteFile(filepath.Join(profiles(), strings.ReplaceAll(name, " ", "-")+".pprof"), []byte(body), 0o600)
			}
			if err != nil {
				m.t.Errorf("profile: %v", err)
			}
		})
	}
	return work.Wait
}
